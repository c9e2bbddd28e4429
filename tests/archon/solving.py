"""Stages that solve with pipelines, and what runs them, for the tests of solving inside a stage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings

from archon import registry
from archon.backends.scripted import Call, Scripted
from archon.candidate import Candidate, Outcome
from archon.pipeline import AnyPipeline, Pipeline
from archon.problem import Message, Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.strategies.sample import Sample
from tests.archon.instant import InstantStore, patiently
from tests.archon.wild import PROBLEM

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def about(problem: Problem, text: str) -> Problem:
    """A problem derived from this one."""
    return problem.model_copy(update={"messages": (Message(role="user", content=text),)})


class Parts(Stage):
    """Solves the problem and parts of it, all at once, and passes on what they gave, in order."""

    takes: ClassVar[bool] = False

    solver: AnyPipeline = Pipeline([Sample()])
    """Solves each."""
    other: AnyPipeline = Pipeline([Sample()])
    """Solves the problem itself."""
    parts: int = 2
    """How many parts."""
    whole: bool = True
    """Whether the problem itself is solved too."""
    slow: int = 0
    """How long it thinks between."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        work = [self._part(problem, number, run) for number in range(self.parts)]
        if self.whole:
            work.append(run.solve(self.other, problem, "whole"))
        for found in await run.gather(*work):
            for candidate in found:
                yield candidate

    async def _part(self, problem: Problem, number: int, run: Run) -> Sequence[Candidate]:
        await asyncio.sleep(self.slow * (number % 3) * 0.1)
        return await run.solve(self.solver, about(problem, f"{problem.id} part {number}"), "part", number)

    def plan(self, incoming: Count) -> Plan:
        part, whole = self.solver.plan(), self.other.plan()
        often = int(self.whole)
        return Plan(
            part.calls.times(self.parts).plus(whole.calls.times(often)),
            part.passes.times(self.parts).plus(whole.passes.times(often)),
        )


class Streamed(Stage):
    """Hands on what leaves the solver as it does, at most so many."""

    takes: ClassVar[bool] = False

    solver: AnyPipeline
    most: int = 99

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        left = self.most
        async with aclosing(
            run.stream(self.solver, about(problem, f"{problem.id} again"), "streamed")
        ) as stream:
            async for candidate in stream:
                yield candidate
                left -= 1
                if left == 0:
                    return


class Mend(Stage):
    """Solves a problem about every candidate, several at once, and passes on candidate and answers."""

    solver: AnyPipeline = Pipeline([Sample()])
    ahead: Annotated[int, "at once"] = 2

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async def mend(candidate: Candidate) -> list[Candidate]:
            label = candidate.id.replace("/", ".").replace("#", ".")
            found = await run.solve(self.solver, about(problem, f"{problem.id} mend {candidate.id}"), label)
            return [candidate, *found]

        async for answers in run.map(mend, candidates, ahead=self.ahead):
            for one in answers:
                yield one

    def plan(self, incoming: Count) -> Plan:
        inner = self.solver.plan()
        if incoming.high is None:
            return Plan(Count(0, None), Count(0, None))
        high = None if inner.calls.high is None else inner.calls.high * incoming.high
        most = None if inner.passes.high is None else (1 + inner.passes.high) * incoming.high
        return Plan(Count(0, high), Count(0, most))


class Broken(Stage):
    """Solves under labels of its own."""

    takes: ClassVar[bool] = False
    labels: tuple[str, ...]

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for label in self.labels:
            for candidate in await run.solve(Sample(), problem, label):
                yield candidate


async def solved(pipeline: Stage | Pipeline, model: Any, **settings: Any) -> Outcome:
    async with Session(models=model, store=InstantStore(), **settings) as session:
        return await session.solve(pipeline, PROBLEM)


def echo(call: Call) -> str:
    return f"{call.text} -> {call.index}"


ECHO = Scripted(reply=echo, identity="echo")


def run(pipeline: Stage | Pipeline, model: Any = ECHO, **settings: Any) -> Outcome:
    return patiently(solved(pipeline, model, **settings))


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can name these stages."""
    stages = {cls.name: cls for cls in (Parts, Streamed, Mend)}
    monkeypatch.setattr(registry, "_added", {**registry._added, "stage": stages})
