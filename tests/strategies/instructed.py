"""What tests with the rule-based model share: books that balance, programs that need no sandbox, accuracy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from archon.candidate import Outcome
from archon.execution import Call, Limits, Program, Returned, Suite, TestReport, TestResult
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.testing.instruct import Instruct, is_right, value_of
from archon.usage import Usage, total
from tests.archon.instant import InstantStore, patiently


class Adding:
    """Runs programs that add to x, by reading them: an executor without a process."""

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        """Each case by itself."""
        results = [self._case(program, case.args, case.expected) for case in suite.cases]
        return TestReport(next((r.status for r in results if r.status != "passed"), "passed"), tuple(results))

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        """What each call gives."""
        adds = value_of(program.source)
        if adds is None:
            return [Returned("failed", detail="no program of ours")] * len(calls)
        return [Returned("returned", call.args[0] + adds) for call in calls]

    async def close(self) -> None:
        """Nothing to end."""

    def _case(self, program: Program, args: Sequence[Any], expected: Any) -> TestResult:
        adds = value_of(program.source)
        if adds is None:
            return TestResult("failed", "no program of ours")
        return TestResult("passed" if args[0] + adds == expected else "wrong")


def timeless(usage: Usage) -> Usage:
    """Without seconds, which are sums of floats in another order."""
    return usage._replace(seconds=0.0)


def check_books(outcome: Outcome, calls: int | None = None) -> None:
    """Every call is in every account once; every candidate is there once, and what it was made from before it."""
    for accounts in (outcome.by_stage, outcome.by_model):
        assert timeless(total(accounts.values())) == timeless(outcome.usage)
    if calls is not None:
        assert outcome.usage.requests == calls
    known = {c.id: c for c in outcome.candidates}
    assert len(known) == len(outcome.candidates)
    assert all(known[c.id] == c for c in outcome.final)
    assert len({c.id for c in outcome.final}) == len(outcome.final)
    if outcome.chosen is not None:
        assert outcome.chosen == outcome.final[0]


def solved_by_rules(
    pipeline: Pipeline | Stage,
    problems: Sequence[Problem],
    instruct: Instruct,
    **settings: Any,
) -> list[Outcome]:
    """Every problem through the pipeline, on a clock that jumps; a run that is stuck is an error.

    What the account says was spent is what the models were asked.
    """
    whole = Pipeline([pipeline]) if isinstance(pipeline, Stage) else pipeline
    named = {name: instruct.model(name) for name in whole.graph().models}

    async def work() -> list[Outcome]:
        store = InstantStore()
        async with Session(models=named, store=store, executor=Adding(), **settings) as session:
            outcomes = await asyncio.gather(*(session.solve(whole, problem) for problem in problems))
            backends: list[Any] = [session.caller(name).backend for name in named]
            assert session.ledger.fresh.requests == sum(len(backend.calls) for backend in backends)
            assert timeless(session.ledger.total) == timeless(total(o.usage for o in outcomes))
            assert not any(session.meter.held.values())
        await store.close()
        return outcomes

    return patiently(work())


def accuracy(pipeline: Pipeline | Stage, problems: Sequence[Problem], instruct: Instruct) -> float:
    """The share of problems of which the chosen answer is right."""
    outcomes = solved_by_rules(pipeline, problems, instruct)
    return sum(is_right(p, o.answer) for p, o in zip(problems, outcomes, strict=True)) / len(problems)
