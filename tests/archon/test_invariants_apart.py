"""Invariant 4: problems that run at once through one pipeline never see each other; and the same seed, the same run.

Each problem alone in a session of its own, and all together in one: they must get the same, and pay the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.errors import AllCandidatesFailed, RequestRejected, StageFailed
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.usage import NOTHING, total
from tests.archon.instant import InstantStore, patiently
from tests.archon.wild import MODELS, models, pipelines, sampled, stopping, summary, timeless


def questions(count: int, *, alike: bool = False) -> list[Problem]:
    """Problems; `alike` ones ask the same, and share their samples."""
    return [Problem.ask("a question" if alike else f"question {i}", id=f"p{i}") for i in range(count)]


def solve(
    pipeline: Pipeline,
    problems: Sequence[Problem],
    world: int,
    trouble: float = 0.0,
    apart: Sequence[float] = (),
    **settings: Any,
) -> list[Outcome]:
    """All through one pipeline in one session, begun so many seconds apart."""

    async def work() -> list[Outcome]:
        async with Session(models=models(world, trouble), store=InstantStore(), **settings) as session:

            async def one(number: int, problem: Problem) -> Outcome:
                await asyncio.sleep(apart[number % len(apart)] if apart else 0.0)
                return await session.solve(pipeline, problem)

            outcomes = await asyncio.gather(*(one(i, p) for i, p in enumerate(problems)))
            spent = session.ledger
            assert timeless(total(o.usage for o in outcomes)) == timeless(spent.total)
            assert timeless(total(o.fresh for o in outcomes)) == timeless(spent.fresh)
            calls = [c for name in MODELS for c in _backend(session, name).calls]
            assert spent.fresh.requests == len(calls)
            return outcomes

    return patiently(work())


def _backend(session: Session, name: str) -> Any:
    return session.caller(name).backend


PAUSES = st.lists(st.floats(0.0, 3.0), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    pipeline=pipelines(),
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.0, 0.3]),
    apart=PAUSES,
    count=st.integers(2, 6),
)
def test_together_each_gets_what_it_gets_alone(
    pipeline: Pipeline, seed: int, trouble: float, apart: list[float], count: int
) -> None:
    problems = questions(count)
    together = solve(pipeline, problems, seed, trouble, apart)
    for problem, outcome in zip(problems, together, strict=True):
        (alone,) = solve(pipeline, [problem], seed, trouble)
        assert summary(outcome) == summary(alone)
        assert timeless(outcome.fresh) == timeless(alone.fresh)


@settings(max_examples=40, deadline=None)
@given(pipeline=stopping(), seed=st.integers(0, 10**6), apart=PAUSES, count=st.integers(2, 6))
def test_together_each_stops_where_it_stops_alone_and_cancels_nobody_elses_calls(
    pipeline: Pipeline, seed: int, apart: list[float], count: int
) -> None:
    problems = questions(count)
    together = solve(pipeline, problems, seed, 0.0, apart)
    for problem, outcome in zip(problems, together, strict=True):
        (alone,) = solve(pipeline, [problem], seed)
        assert summary(outcome) == summary(alone)


@settings(max_examples=40, deadline=None)
@given(
    pipeline=pipelines(),
    seed=st.integers(0, 10**6),
    apart=PAUSES,
    count=st.integers(2, 5),
    limit=st.integers(0, 9),
)
def test_a_budget_for_each_problem_is_each_ones_own(
    pipeline: Pipeline, seed: int, apart: list[float], count: int, limit: int
) -> None:
    problems = questions(count)
    budget = Budgets(problem=Budget(requests=limit))
    together = solve(pipeline, problems, seed, 0.0, apart, budget=budget)
    for problem, outcome in zip(problems, together, strict=True):
        (alone,) = solve(pipeline, [problem], seed, budget=budget)
        assert summary(outcome) == summary(alone)


@settings(max_examples=40, deadline=None)
@given(pipeline=pipelines(), seed=st.integers(0, 10**6), apart=PAUSES, count=st.integers(2, 5))
def test_those_that_ask_the_same_share_the_bill_and_get_the_same(
    pipeline: Pipeline, seed: int, apart: list[float], count: int
) -> None:
    problems = questions(count, alike=True)
    together = solve(pipeline, problems, seed, 0.0, apart)
    (alone,) = solve(pipeline, problems[:1], seed)
    for outcome in together:
        texts = [(c.id, c.text, c.accepted) for c in outcome.candidates]
        if "judge" not in outcome.by_model:  # its prompts name the problem
            assert texts == [(c.id, c.text, c.accepted) for c in alone.candidates]
            assert timeless(outcome.usage) == timeless(alone.usage)
        assert [t[:2] for t in texts] == [(c.id, c.text) for c in alone.candidates]
    drawn = [total(u for name, u in o.by_model.items() if name != "judge").requests for o in together]
    assert drawn == [sampled(pipeline)] * count
    judged = sum(o.by_model.get("judge", NOTHING).requests for o in together)
    assert sum(o.fresh.requests for o in together) == sampled(pipeline) + judged, (
        "each sample was paid for once"
    )


@settings(max_examples=40, deadline=None)
@given(pipeline=stopping(), seed=st.integers(0, 10**6), apart=PAUSES, count=st.integers(2, 5))
def test_those_that_ask_the_same_and_stop_early_all_find_one_if_one_does(
    pipeline: Pipeline, seed: int, apart: list[float], count: int
) -> None:
    """What one gives up when it stops, the others go on with."""
    if "judge" in pipeline.graph().models:
        return  # its prompts name the problem, so its verdicts differ
    together = solve(pipeline, questions(count, alike=True), seed, 0.0, apart)
    (alone,) = solve(pipeline, questions(1, alike=True), seed)
    for outcome in together:
        assert (outcome.chosen is None) == (alone.chosen is None)
        assert outcome.chosen is None or outcome.chosen.accepted


def test_one_that_fails_and_one_that_is_cancelled_touch_nobody() -> None:
    def reply(call: Call) -> Any:
        if call.problem == "refused":
            raise RequestRejected("no")
        return Reply(f"{call.problem} {call.index}", latency=1.0)

    async def work() -> list[Any]:
        async with Session(models=Scripted(reply=reply, identity="m"), store=InstantStore()) as session:
            names = ["first", "refused", "cancelled", "last"]
            solving = [
                asyncio.ensure_future(session.solve(Sample(n=3), Problem.ask(name, id=name)))
                for name in names
            ]
            await asyncio.sleep(0.5)
            solving[2].cancel()
            results = await asyncio.gather(*solving, return_exceptions=True)
            assert session.ledger.total.requests == 12
            return results

    first, refused, cancelled, last = patiently(work())
    assert isinstance(refused, AllCandidatesFailed) and isinstance(cancelled, asyncio.CancelledError)
    for name, outcome in (("first", first), ("last", last)):
        assert [c.text for c in outcome.candidates] == [f"{name} {i}" for i in range(3)]
        assert outcome.usage.requests == 3 and not outcome.failures


# --- seeds ------------------------------------------------------------------------------------------


class Shuffle(Stage):
    """Chooses by its generator, and writes what it rolled."""

    ranks = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        gathered = [c async for c in candidates]
        run.rng.shuffle(gathered)
        for candidate in gathered:
            yield candidate
        yield Candidate(f"{run.stage}#0", repr(run.rng.random()), run.stage)


@settings(max_examples=40, deadline=None)
@given(pipeline=pipelines() | stopping(), world=st.integers(0, 10**6), seed=st.none() | st.integers())
def test_the_same_seed_is_the_same_run(pipeline: Pipeline, world: int, seed: int | None) -> None:
    whole = pipeline | Shuffle()
    problems = questions(2)
    first = solve(whole, problems, world, seed=seed)
    again = solve(whole, problems, world, seed=seed)
    assert [summary(o) for o in first] == [summary(o) for o in again]


@settings(max_examples=30, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 10**9), min_size=2, max_size=2, unique=True), world=st.integers(0, 10**6)
)
def test_another_seed_is_another_run_and_pays_for_samples_of_its_own(seeds: list[int], world: int) -> None:
    async def work() -> tuple[list[list[str]], int]:
        store = InstantStore()
        said, calls = [], 0
        for seed in seeds:
            async with Session(models=models(world), store=store, seed=seed) as session:
                outcome = await session.solve(Sample(model="a", n=12) | Shuffle(), Problem.ask("q"))
                said.append([c.text for c in outcome.final])
                calls += len(_backend(session, "a").calls)
        await store.close()
        return said, calls

    said, calls = patiently(work())
    assert said[0] != said[1] and calls == 24


PAIR = (Sample(model="a", n=7) & Sample(model="b", n=5)) | MajorityVote()


@pytest.mark.parametrize("concurrency", [1, 2, 400])
def test_a_vote_does_not_depend_on_how_many_calls_run_at_once(concurrency: int) -> None:
    async def work() -> list[Any]:
        given = models(7, 0.2, concurrency=concurrency, max_concurrency=concurrency)
        async with Session(models=given, store=InstantStore(), seed=1) as session:
            outcomes = await asyncio.gather(*(session.solve(PAIR, p) for p in questions(4)))
            return [(o.answer, [c.text for c in o.candidates], o.usage.requests) for o in outcomes]

    alone = [solve(PAIR, [p], 7, 0.2, seed=1)[0] for p in questions(4)]
    assert patiently(work()) == [(o.answer, [c.text for c in o.candidates], o.usage.requests) for o in alone]


async def test_a_fault_in_a_stage_for_one_problem_is_that_ones_error() -> None:
    class Picky(Stage):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                if problem.id == "p1":
                    raise ValueError("not this one")
                yield candidate

    async with Session(
        models=Scripted(reply=lambda call: "x", identity="m"), store=InstantStore()
    ) as session:
        solving = (session.solve(Sample(n=2) | Picky(), p) for p in questions(3))
        one, two, three = await asyncio.gather(*solving, return_exceptions=True)
    assert isinstance(two, StageFailed)
    assert isinstance(one, Outcome) and isinstance(three, Outcome)
    assert len(one.final) == len(three.final) == 2
