"""Candidates made by hand, and a problem for each kind of answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Candidate, Outcome, Scale, Verdict
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.verifier import Verifier

PROBLEM = Problem.ask("a question", id="p")
NUMBER = Problem.ask("how many?", id="number", answer="number")
MATH = Problem.ask("which formula?", id="math", answer="math")
CHOICE = Problem.ask("which of them?", id="choice", answer="choice", choices=("one", "two", "three"))
CODE = Problem.ask("write f", id="code", answer="code", entry_point="f")


def made(
    text: str,
    index: int = 0,
    score: float | None = None,
    *,
    accepted: bool | None = None,
    scale: Scale = "score",
    stage: str = "sample",
    verifier: str = "v",
    judged: bool = True,
) -> Candidate:
    """A candidate with one verdict, or with none."""
    candidate = Candidate(f"{stage}#{index}", text, stage, index)
    return candidate.with_verdict(Verdict(verifier, accepted, score, scale)) if judged else candidate


def scored(*scores: float | None, scale: Scale = "score") -> list[Candidate]:
    """Candidates of different texts with these scores; None is a verdict without a score."""
    return [made(f"text {i}", i, score, scale=scale) for i, score in enumerate(scores)]


def ids(candidates: Sequence[Candidate]) -> list[int]:
    return [c.index for c in candidates]


class Table(Verifier):
    """Says what a table says of each text: (accepted, score). What is not in it is undecided."""

    table: Mapping[str, tuple[bool | None, float | None]]
    scale_: Scale = "score"
    pause: float = 0.0

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        if self.pause:
            await asyncio.sleep(self.pause)
        said = [self.table.get(c.text, (None, None)) for c in candidates]
        return [Verdict(self.name, accepted, score, self.scale_) for accepted, score in said]


def table(entries: Mapping[str, tuple[bool | None, float | None]], **settings: Any) -> Table:
    return Table(table=MappingProxyType(dict(entries)), **settings)


def replies(*texts: str, latencies: Sequence[float] = (), **settings: Any) -> Scripted:
    """A model whose i-th sample is the i-th text, after the i-th latency."""

    def reply(call: Call) -> Reply:
        return Reply(texts[call.index], latency=latencies[call.index] if latencies else 0.0)

    return Scripted(reply=reply, identity="made", **settings)


async def solved(
    pipeline: Stage | Pipeline,
    model: Model | Mapping[str, Model],
    problem: Problem = PROBLEM,
    **settings: Any,
) -> tuple[Outcome, Any]:
    """The outcome, and the backend of the model named `default`."""
    async with Session(models=model, **settings) as session:
        outcome = await session.solve(pipeline, problem)
        return outcome, session.caller("default").backend
