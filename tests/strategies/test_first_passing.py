"""First passing: the first that every verifier accepts; what is outstanding is cut off, and billed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.base import Tokens
from archon.backends.replay import Replay
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Verdict
from archon.errors import ConfigError
from archon.session import Session
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.usage import total
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import PROBLEM, ids, made, replies, solved, table

LATE = 600.0
GOOD = Verify(verifier=table({"good": (True, 1.0), "bad": (False, 0.0)}))
"""Accepts `good`, rejects `bad`, is undecided about anything else."""


def until_passing(n: int) -> Any:
    return Sample(n=n) | GOOD | FirstPassing()


# --- which one --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["good", "bad", "odd"]), max_size=7),
    order=st.permutations(range(7)),
)
def test_it_is_the_first_to_arrive_that_is_accepted(texts: list[str], order: list[int]) -> None:
    latencies = [1.0 + place for place in order]
    outcome, backend = patiently(
        solved(until_passing(len(texts)), replies(*texts, latencies=latencies), store=InstantStore())
    )
    passing = [i for i in range(len(texts)) if texts[i] == "good"]
    first = min(passing, key=lambda i: latencies[i], default=None)
    assert ids(outcome.final) == ([] if first is None else [first])
    assert outcome.answer == (None if first is None else "good")
    assert len(backend.calls) == len(texts), "all were asked at once"
    in_time = [i for i in range(len(texts)) if first is None or latencies[i] <= latencies[first]]
    assert sorted(ids(outcome.candidates)) == in_time
    assert sorted(c.index for c in backend.cancelled) == sorted(set(range(len(texts))) - set(in_time))
    assert outcome.usage.requests == len(texts), "what is cut off is billed too"


@pytest.mark.parametrize(
    ("verdicts", "passes"),
    [
        ((True, True), True),
        ((True, False), False),
        ((True, None), False),
        ((None, None), False),
        ((False, True), False),
    ],
)
async def test_every_verifier_must_accept_and_undecided_is_not_accepted(
    verdicts: tuple[bool | None, ...], passes: bool
) -> None:
    judges = [
        Verify(verifier=table({"x": (said, 0.0)}), called=f"judge {i}") for i, said in enumerate(verdicts)
    ]
    chain, _ = await solved(Sample(n=1) | judges[0] | judges[1] | FirstPassing(), replies("x"))
    beside, _ = await solved(Sample(n=1) | (judges[0] & judges[1]) | FirstPassing(), replies("x"))
    assert chain.answer == beside.answer == ("x" if passes else None)


@pytest.mark.parametrize("side_by_side", [True, False])
async def test_two_verifiers_of_one_kind_must_both_accept(side_by_side: bool) -> None:
    strict, lenient = Verify(verifier=table({"x": (False, 0.0)})), Verify(verifier=table({"x": (True, 1.0)}))
    judged = Sample(n=1) | (strict & lenient) if side_by_side else Sample(n=1) | strict | lenient
    try:
        outcome, _ = await solved(judged | FirstPassing(), replies("x"))
    except ConfigError:
        return
    assert outcome.answer is None


async def test_where_none_passes_it_abstains_after_all_were_tried() -> None:
    outcome, backend = await solved(until_passing(4), replies("bad", "odd", "bad", "bad"))
    assert (outcome.chosen, outcome.final, outcome.stopped) == (None, (), "complete")
    assert len(backend.calls) == len(outcome.candidates) == 4


@pytest.mark.parametrize(("texts", "answer"), [((), None), (("bad",), None), (("good",), "good")])
async def test_none_and_one(texts: tuple[str, ...], answer: str | None) -> None:
    outcome, _ = await solved(until_passing(len(texts)), replies(*texts))
    assert outcome.answer == answer


def test_without_verdicts_nothing_is_accepted() -> None:
    with pytest.raises(ConfigError, match="needs verdicts"):
        (Sample(n=2) | FirstPassing()).graph()
    assert FirstPassing().choose(PROBLEM, [made("x", judged=False)]) == []


def test_asked_afterwards_it_chooses_the_earliest_accepted() -> None:
    said: list[bool | None] = [None, False, True, True]
    candidates = [made("x", i, accepted=verdict) for i, verdict in enumerate(said)]
    assert ids(FirstPassing().choose(PROBLEM, candidates)) == [2]
    assert FirstPassing().choose(PROBLEM, candidates[:2]) == []
    mixed = candidates[2].with_verdict(Verdict("second", False))
    assert FirstPassing().choose(PROBLEM, [mixed]) == []


# --- what it costs ----------------------------------------------------------------------------------


def racing(**settings: Any) -> Scripted:
    """Sample 2 passes after a second; the others take ten minutes."""

    def reply(call: Call) -> Reply:
        tokens = Tokens(5, completion=7)
        return Reply(
            "good" if call.index == 2 else "bad", latency=1.0 if call.index == 2 else LATE, tokens=tokens
        )

    return Scripted(reply=reply, identity="racing", max_tokens=20, **settings)


def test_it_does_not_wait_for_the_others_and_they_are_billed_as_far_as_they_came() -> None:
    async def work() -> None:
        async with Session(models=racing(), store=InstantStore()) as session:
            outcome = await session.solve(until_passing(5), PROBLEM)
            backend: Any = session.caller("default").backend
            assert now() == 1.0
            assert outcome.stopped == "early" and ids(outcome.final) == [2]
            assert sorted(c.index for c in backend.cancelled) == [0, 1, 3, 4]
            assert backend.in_flight == 0
            usage = outcome.usage
            assert (usage.requests, usage.completion_tokens, usage.estimated) == (5, 7, 0)
            assert usage.prompt_tokens == 5 + 4 * 2, "their prompts were read: `a question`"
            assert usage == session.ledger.total == total(outcome.by_stage.values())

    patiently(work())


def test_where_the_server_does_not_tell_how_far_they_came_it_is_an_estimate_and_marked() -> None:
    outcome, _ = patiently(solved(until_passing(5), racing(reports_partial=False), store=InstantStore()))
    assert (outcome.usage.requests, outcome.usage.estimated) == (5, 4)
    assert outcome.usage.completion_tokens == 7 + 4 * 7, "as fast as the one that was answered"


def test_what_was_never_sent_costs_nothing() -> None:
    model = racing(concurrency=3, max_concurrency=3)
    outcome, backend = patiently(solved(until_passing(50), model, store=InstantStore()))
    assert ids(outcome.final) == [2]
    assert len(backend.calls) <= 4, "three at once, and perhaps one that took the place of the first"
    assert outcome.usage.requests == len(backend.calls)


def test_what_is_cut_off_releases_its_budget_for_the_next_problem() -> None:
    async def work() -> None:
        budget = Budgets(run=Budget(completion_tokens=5 * 20 + 7))
        async with Session(models=racing(), store=InstantStore(), budget=budget) as session:
            await session.solve(until_passing(5), PROBLEM)
            assert session.meter.held == {"completion_tokens": 0}
            assert session.meter.spent == {"completion_tokens": session.ledger.total.completion_tokens}
            again = await session.solve(until_passing(5), PROBLEM.model_copy(update={"id": "again"}))
            assert ids(again.final) == [2]

    patiently(work())


def test_samples_are_asked_for_one_by_one_so_that_each_can_be_cut_off() -> None:
    outcome, _ = patiently(solved(until_passing(5), racing(max_n=5), store=InstantStore()))
    assert outcome.usage.requests == 5
    asked_together = Sample(n=5, per_request=5) | GOOD | FirstPassing()
    outcome, _ = patiently(solved(asked_together, racing(max_n=5), store=InstantStore()))
    assert outcome.usage.requests == 1, "unless the stage says otherwise"


def test_a_verifier_that_is_still_at_work_is_cut_off_too() -> None:
    slow = Verify(verifier=table({"good": (True, 1.0)}, pause=5.0), ahead=1)
    pipeline = Sample(n=3) | slow | FirstPassing()

    async def work() -> float:
        async with Session(models=replies("good", "good", "good"), store=InstantStore()) as session:
            assert ids((await session.solve(pipeline, PROBLEM)).final) == [0]
            return now()

    assert patiently(work()) == 5.0


@pytest.mark.parametrize("passing", [0, 300, 9_999])
def test_ten_thousand_and_one_of_them_passes(passing: int) -> None:
    def reply(call: Call) -> Reply:
        return Reply("good" if call.index == passing else "bad", latency=0.001)

    model = Scripted(reply=reply, identity="many")
    outcome, backend = patiently(solved(until_passing(10_000), model, store=InstantStore()))
    assert ids(outcome.final) == [passing]
    assert passing < len(backend.calls) <= min(10_000, passing + 2_000)
    assert outcome.usage.requests == len(backend.calls)


@pytest.mark.parametrize("store", ["instant", "real"])
def test_over_recorded_generations_only_those_that_were_used_are_counted(store: str) -> None:
    Path("recorded.jsonl").write_text(json.dumps({"id": PROBLEM.id, "samples": ["good"] + ["bad"] * 999}))
    model = Replay(path=Path("recorded.jsonl"))
    run = patiently if store == "instant" else asyncio.run
    opened = InstantStore() if store == "instant" else None
    outcome, _ = run(solved(until_passing(1000), model, store=opened))
    assert ids(outcome.final) == [0]
    assert outcome.usage.requests <= 500, "those at work at once, and not all of them"


def test_closing_reaches_the_source_through_every_stage_and_branch() -> None:
    judges = [Verify(verifier=table({"good": (True, 1.0)}), called=f"judge {i}") for i in range(3)]
    pipeline = Sample(n=5) | (judges[0] & judges[1]) | judges[2] | FirstPassing()

    async def work() -> None:
        async with Session(models=racing(), store=InstantStore()) as session, asyncio.timeout(LATE / 2):
            outcome = await session.solve(pipeline, PROBLEM)
            backend: Any = session.caller("default").backend
            assert outcome.answer == "good" and len(backend.cancelled) == 4

    patiently(work())


def test_other_branches_go_on_where_only_one_has_stopped() -> None:
    sample = Sample(n=3)
    pipeline = sample | GOOD | (FirstPassing() & Verify(verifier=table({}), called="other"))
    outcome, backend = patiently(
        solved(pipeline, replies("good", "bad", "bad", latencies=[0, 1, 2]), store=InstantStore())
    )
    assert len(outcome.candidates) == 3 and backend.cancelled == []


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=6),
    latencies=st.permutations([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
)
def test_replayed_it_stops_at_the_same_one_without_a_call_and_at_the_same_cost(
    texts: list[str], latencies: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("stores") / "store.sqlite"
    runs = []
    for _ in range(2):
        model = replies(*texts, latencies=latencies)
        runs.append(patiently(solved(until_passing(len(texts)), model, store=InstantStore(path))))
    (first, _), (again, backend) = runs
    assert backend.calls == []
    assert (again.chosen, again.final, again.usage) == (first.chosen, first.final, first.usage)
