"""The ledger: every call once, and the sums agree whichever way they are added."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from archon.ledger import Ledger
from archon.usage import NOTHING, Usage, total

ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["sample", "judge", "fuse"]),
        st.sampled_from(["a", "b"]),
        st.builds(
            lambda calls, new: Usage(calls, completion_tokens=new), st.integers(0, 3), st.integers(0, 99)
        ),
        st.booleans(),
    ),
    max_size=12,
)


@given(ENTRIES)
def test_stages_models_and_calls_add_up_to_the_same(
    entries: list[tuple[str, str, Usage, bool]],
) -> None:
    run = Ledger()
    problem = Ledger(run)
    for stage, model, usage, fresh in entries:
        problem.enter(stage, model, usage, fresh=fresh)
    calls = total(usage for _, _, usage, _ in entries)
    assert problem.total == calls
    assert total(problem.by_stage.values()) == total(problem.by_model.values()) == calls
    assert problem.fresh == total(usage for _, _, usage, fresh in entries if fresh)
    assert run.total == run.fresh == problem.fresh, "replayed ones wait until they stand"
    problem.publish()
    assert run.total == calls
    assert run.fresh == problem.fresh
    assert run.by_stage == problem.by_stage
    assert run.by_model == problem.by_model


@given(st.lists(ENTRIES, max_size=4))
def test_a_run_is_the_sum_of_its_problems(problems: list[list[tuple[str, str, Usage, bool]]]) -> None:
    run = Ledger()
    ledgers = [Ledger(run) for _ in problems]
    for ledger, entries in zip(ledgers, problems, strict=True):
        for stage, model, usage, fresh in entries:
            ledger.enter(stage, model, usage, fresh=fresh)
        ledger.publish()
    assert run.total == total(ledger.total for ledger in ledgers)
    assert run.fresh == total(ledger.fresh for ledger in ledgers)


def test_publishing_twice_counts_once() -> None:
    run = Ledger()
    problem = Ledger(run)
    problem.enter("sample", "m", Usage(1, 5), fresh=False)
    problem.publish()
    problem.publish()
    assert run.total == Usage(1, 5)
    assert run.fresh == NOTHING


def test_a_restated_account_replaces_what_was_replayed_here_and_around() -> None:
    run = Ledger()
    run.enter("sample", "m", Usage(7), fresh=True)
    problem = Ledger(run)
    problem.enter("sample", "m", Usage(2, 5), fresh=False)
    recorded = {"sample": Usage(3, 9), "judge": Usage(1, 4)}
    problem.restate(recorded, {"m": Usage(4, 13)})
    assert problem.by_stage == recorded
    assert problem.total == Usage(4, 13)
    assert run.total == Usage(11, 13)
    assert run.by_stage == {"sample": Usage(10, 9), "judge": Usage(1, 4)}
    assert run.by_model == {"m": Usage(11, 13)}
    assert run.fresh == Usage(7)
    problem.publish()
    assert run.total == Usage(11, 13), "what was restated is not entered again"


def test_a_cancelled_call_is_entered_like_any_other() -> None:
    run = Ledger()
    problem = Ledger(run)
    problem.enter("sample", "m", Usage(1, 5, estimated=1), fresh=True)
    assert run.total == run.fresh == problem.by_stage["sample"] == Usage(1, 5, estimated=1)
