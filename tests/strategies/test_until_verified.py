"""Until verified: a few at a time, until one passes; how many are paid for in vain, exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.replay import Replay
from archon.backends.scripted import Call, Reply, Scripted
from archon.shelf import ready
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import PROBLEM, ids, replies, solved, table
from tests.strategies.test_pipelines import DOUBLE, coder, program

GOOD = {"good": (True, 1.0), "bad": (False, 0.0)}


def until(n: int, wave: int | None, pause: float = 0.0) -> Any:
    return Sample(n=n, wave=wave) | Verify(verifier=table(GOOD, pause=pause)) | FirstPassing()


def passing(at: int, latency: float = 1.0) -> Scripted:
    """Sample `at` is good; each comes a little later than the one before."""
    return Scripted(
        reply=lambda call: Reply(
            "good" if call.index == at else "bad", latency=latency * (1 + 0.001 * call.index)
        ),
        identity=f"passing at {at}",
    )


@pytest.mark.parametrize("wave", [1, 2, 4, 8])
@pytest.mark.parametrize("at", [0, 3, 9, 20])
def test_what_is_paid_is_what_was_verified_and_a_wave_beyond(wave: int, at: int) -> None:
    outcome, backend = patiently(solved(until(40, wave), passing(at), PROBLEM, store=InstantStore()))
    assert ids(outcome.final) == [at] and outcome.stopped == "early"
    assert outcome.usage.requests == len(backend.calls) == at + wave
    assert len(backend.cancelled) == wave - 1 and backend.in_flight == 0
    assert backend.most_in_flight == wave


def test_without_a_wave_all_are_asked_for_at_once() -> None:
    outcome, backend = patiently(solved(until(30, None), passing(3), PROBLEM, store=InstantStore()))
    assert ids(outcome.final) == [3] and len(backend.calls) == 30


@pytest.mark.parametrize("wave", [1, 4, None])
def test_none_passes_and_all_are_paid_for(wave: int | None) -> None:
    outcome, backend = patiently(solved(until(12, wave), passing(99), PROBLEM, store=InstantStore()))
    assert outcome.answer is None and outcome.stopped == "complete" and len(backend.calls) == 12


@pytest.mark.parametrize("wave", [1, 3])
def test_nothing_is_asked_for_while_the_verifier_may_still_accept(wave: int) -> None:
    """The verifier takes ten times as long as a sample. What it has not judged yet counts as under way."""
    outcome, backend = patiently(
        solved(until(40, wave, pause=10.0), passing(wave - 1), PROBLEM, store=InstantStore())
    )
    assert ids(outcome.final) == [wave - 1] and len(backend.calls) == wave


def test_a_wave_keeps_its_width() -> None:
    """Whoever comes makes room for the next: ten samples of a second each, five at once, take two seconds."""

    async def work() -> float:
        model = Scripted(reply=lambda call: Reply("bad", latency=1.0), identity="bad")
        await solved(until(10, 5), model, PROBLEM, store=InstantStore())
        return now()

    assert patiently(work()) == 2.0


def test_a_slow_one_does_not_hold_up_the_others() -> None:
    """One takes a hundred seconds; those beside it go on, one by one."""

    def reply(call: Call) -> Reply:
        return Reply("good" if call.index == 9 else "bad", latency=100.0 if call.index == 0 else 1.0)

    async def work() -> tuple[float, int]:
        model = Scripted(reply=reply, identity="one is slow")
        outcome, backend = await solved(until(40, 2), model, PROBLEM, store=InstantStore())
        assert ids(outcome.final) == [9]
        return now(), len(backend.calls)

    assert patiently(work()) == (9.0, 10)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_two_verifiers_must_both_be_done(side_by_side: bool) -> None:
    quick, slow = (Verify(verifier=table(GOOD, pause=pause), called=f"takes {pause}") for pause in (0.0, 5.0))
    judged = Sample(n=20, wave=2) | (quick & slow) if side_by_side else Sample(n=20, wave=2) | quick | slow
    outcome, backend = patiently(solved(judged | FirstPassing(), passing(4), PROBLEM, store=InstantStore()))
    assert ids(outcome.final) == [4] and len(backend.calls) <= 4 + 2


def test_recorded_samples_are_taken_a_wave_at_a_time() -> None:
    samples = ["bad"] * 7 + ["good"] + ["bad"] * 92
    Path("recorded.jsonl").write_text(json.dumps({"id": PROBLEM.id, "samples": samples}))
    for wave, most in ((1, 8), (4, 11)):
        model = Replay(path=Path("recorded.jsonl"))
        outcome, _ = patiently(solved(until(100, wave), model, PROBLEM, store=InstantStore()))
        assert ids(outcome.final) == [7] and 8 <= outcome.usage.requests <= most


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["good", "bad", "odd"]), min_size=1, max_size=14),
    latencies=st.lists(st.integers(0, 4), min_size=14, max_size=14),
    wave=st.integers(1, 6),
    per_request=st.sampled_from(["auto", 1, 2, 5]),
)
def test_never_more_than_a_wave_is_open(
    texts: list[str], latencies: list[int], wave: int, per_request: Any
) -> None:
    model = replies(*texts, latencies=[float(s) for s in latencies], max_n=3)
    source = Sample(n=len(texts), wave=wave, per_request=per_request)
    outcome, backend = patiently(
        solved(source | Verify(verifier=table(GOOD)) | FirstPassing(), model, PROBLEM, store=InstantStore())
    )
    assert backend.most_in_flight <= wave
    assert (outcome.answer == "good") is ("good" in texts)
    judged = sum(bool(c.verdicts) for c in outcome.candidates)
    assert len(backend.calls) <= min(len(texts), judged - 1 + wave)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=8),
    latencies=st.permutations([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    wave=st.integers(1, 4),
)
def test_again_it_makes_no_call_and_costs_the_same(
    texts: list[str], latencies: list[float], wave: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("stores") / "store.sqlite"
    runs = []
    for _ in range(2):
        model = replies(*texts, latencies=latencies)
        runs.append(patiently(solved(until(len(texts), wave), model, PROBLEM, store=InstantStore(path))))
    (first, _), (again, backend) = runs
    assert backend.calls == []
    assert (again.chosen, again.final, again.usage) == (first.chosen, first.final, first.usage)


async def test_the_ready_pipeline_stops_at_the_first_program_that_passes() -> None:
    outcome, backend = await solved(
        ready("until_tests_pass").pipeline, coder("0", "x + 1", "2 * x", "2 * x + 0", "0"), DOUBLE
    )
    assert outcome.chosen is not None and "2 * x" in outcome.chosen.text
    assert len(backend.calls) <= 2 + 4


@pytest.mark.parametrize("problem", [PROBLEM, DOUBLE], ids=["no tests", "tests"])
async def test_tests_decide_where_there_are_any_and_the_reward_model_elsewhere(problem: Any) -> None:
    """The reward model likes the first program, which fails, and not the second; of other answers the second."""
    first, second = ("bad", "good") if problem is PROBLEM else (program("x + 1"), program("2 * x"))
    models = {
        "default": Scripted(reply=lambda call: (first, second)[min(call.index, 1)], identity="writer"),
        "reward": Scripted(
            score=lambda text: 0.9 if text in ("good", program("x + 1")) else 0.1, identity="j"
        ),
    }
    outcome, _ = await solved(ready("until_verified").pipeline, models, problem)
    assert outcome.chosen is not None and outcome.chosen.text == second
