"""Random pipelines inside random pipelines, on the virtual clock: books balance, budgets hold, replays are exact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.budget import Budget, Budgets
from archon.candidate import Outcome
from archon.pipeline import Node, Pipeline, pipelines_in
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.usage import NOTHING, total
from tests.archon import wild
from tests.archon.instant import InstantStore, patiently
from tests.archon.solving import QUICK, Mend, Parts
from tests.archon.solving import named as named  # a fixture
from tests.archon.wild import MODELS, PROBLEM, Runs, models, summary, timeless

INNER = st.one_of(
    st.builds(lambda n, m: Pipeline([Sample(n=n, model=m)]), st.integers(0, 3), st.sampled_from("abc")),
    wild.pipelines(most=2),
    wild.stopping(),
)


@st.composite
def deep(draw: st.DrawFn, depth: int = 1) -> Pipeline:
    """Parts solved with a random pipeline; and, one level up, with one that solves parts itself."""
    solver = draw(INNER if depth == 0 or draw(st.booleans()) else deep(depth - 1))
    parts = Parts(
        solver=solver,
        other=draw(INNER),
        parts=draw(st.integers(0, 3)),
        whole=draw(st.booleans()),
        slow=draw(st.integers(0, 2)),
    )
    whole: Any = parts
    if draw(st.booleans()):
        whole = whole & Sample(model="a", n=draw(st.integers(0, 3)))
    if draw(st.booleans()):
        whole = whole | Verify(verifier=wild.ByText(scores=True))
        if draw(st.booleans()):
            whole = whole | Mend(solver=draw(INNER), ahead=draw(st.integers(1, 3)))
    return whole if isinstance(whole, Pipeline) else Pipeline([whole])


def flows(pipeline: Pipeline) -> Iterator[Pipeline]:
    yield pipeline
    for node in pipeline.nodes:
        for _, inner in pipelines_in(node.stage):
            yield from flows(inner)


def stops(pipeline: Pipeline) -> bool:
    return any(stage.stops_early for stage in pipeline.graph().stages)


def judges(pipeline: Pipeline) -> bool:
    return "judge" in pipeline.graph().models


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6), trouble=st.sampled_from([0.0, 0.0, 0.3]))
def test_books_balance_ids_are_unique_and_a_replay_is_exact(
    pipeline: Pipeline, seed: int, trouble: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble)
    first, _ = runs.solve(pipeline)
    assert timeless(total(first.by_stage.values())) == timeless(first.usage)
    assert timeless(total(first.by_model.values())) == timeless(first.usage)
    ids = [c.id for c in first.candidates]
    assert len(set(ids)) == len(ids)
    final = [c.id for c in first.final]
    assert len(set(final)) == len(final) and set(final) <= set(ids)
    assert all(not c.problem for c in first.final)
    again, none = runs.solve(pipeline)
    offline, nothing = runs.solve(pipeline, offline=True)
    assert (none, nothing) == ([], [])
    assert again.fresh == offline.fresh == NOTHING
    said, once = summary(again), summary(first)
    if stops(pipeline):  # what arrived after the one that was chosen is not used again
        assert {c[0] for c in said.pop("candidates")} <= {c[0] for c in once.pop("candidates")}
    else:
        assert summary(offline) == summary(first)
    assert said == once


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6))
def test_the_plan_bounds_what_is_called_and_passed_on(pipeline: Pipeline, seed: int) -> None:
    async def work() -> Outcome:
        async with Session(models=models(seed), store=InstantStore()) as session:
            return await session.solve(pipeline, PROBLEM)

    outcome = patiently(work())
    plans = pipeline.graph().plan()
    for path, plan in plans.items():
        used = sum(u.requests for row, u in outcome.by_stage.items() if f"{row}/".startswith(f"{path}/"))
        assert plan.calls.high is None or used <= plan.calls.high
        assert stops(pipeline) or used >= plan.calls.low
    high = pipeline.plan().passes.high
    assert high is None or len(outcome.final) <= high


@QUICK
@given(
    pipeline=deep(),
    seed=st.integers(0, 10**6),
    limit=st.integers(0, 12),
    mine=st.integers(0, 9),
    whose=st.sampled_from(["problem", "run", "stage"]),
)
def test_a_hard_budget_holds_whoevers_it_is(
    pipeline: Pipeline, seed: int, limit: int, mine: int, whose: str
) -> None:
    first, *others = pipeline.nodes
    if whose == "stage" and isinstance(first.stage, Stage):
        limited = first.stage.model_copy(update={"budget": Budget(requests=mine)})
        pipeline = Pipeline([Node(first.name, limited, first.after), *others])
    budget = Budget(requests=limit)
    budgets = {"problem": Budgets(problem=budget), "run": Budgets(run=budget), "stage": Budgets()}[whose]

    async def work() -> tuple[Outcome, Session]:
        async with Session(models=models(seed), store=InstantStore(), budget=budgets) as session:
            return await session.solve(pipeline, PROBLEM), session

    outcome, session = patiently(work())
    assert not any(session.meter.held.values())
    assert timeless(total(outcome.by_stage.values())) == timeless(outcome.usage)
    if whose == "stage":
        used = sum(u.requests for row, u in outcome.by_stage.items() if row.startswith(f"{first.name}/"))
        assert used <= mine
    else:
        assert outcome.usage.requests <= limit


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6), limit=st.integers(0, 12))
def test_what_a_budget_ended_inside_ends_alike_when_replayed(
    pipeline: Pipeline, seed: int, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if judges(pipeline) or stops(pipeline):
        return  # several that compete: see test_invariants_replay.py
    budget = Budgets(problem=Budget(requests=limit))
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, 0.0, max_n=1, budget=budget)
    first, _ = runs.solve(pipeline)
    again, calls = runs.solve(pipeline)
    assert calls == []
    assert summary(again) == summary(first)


@QUICK
@given(
    pipeline=deep(),
    seed=st.integers(0, 10**6),
    apart=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=3),
    count=st.integers(2, 4),
)
def test_problems_at_once_never_see_each_other(
    pipeline: Pipeline, seed: int, apart: list[float], count: int
) -> None:
    problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(count)]

    async def work(asked: Sequence[Problem], pauses: Sequence[float]) -> list[Outcome]:
        async with Session(models=models(seed), store=InstantStore()) as session:

            async def one(number: int, problem: Problem) -> Outcome:
                await asyncio.sleep(pauses[number % len(pauses)])
                return await session.solve(pipeline, problem)

            outcomes = await asyncio.gather(*(one(i, p) for i, p in enumerate(asked)))
            backends: list[Any] = [session.caller(name).backend for name in MODELS]
            assert session.ledger.fresh.requests == sum(len(b.calls) for b in backends)
            return outcomes

    together = patiently(work(problems, apart))
    for problem, outcome in zip(problems, together, strict=True):
        (alone,) = patiently(work([problem], [0.0]))
        assert summary(outcome) == summary(alone)
