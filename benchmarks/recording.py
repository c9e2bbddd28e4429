"""One problem, solved by a pipeline and graded: the record that is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from archon.benchmarks.benchmark import Grader, Truth, fingerprint
from archon.benchmarks.by_label import labels_of
from archon.benchmarks.results import Record
from archon.candidate import Candidate, Outcome
from archon.errors import AllCandidatesFailed
from archon.graph import Graph
from archon.problem import Problem
from archon.session import Session
from archon.usage import Usage

_OUTCOME = {"right": "solved", "wrong": "wrong", "failed": "failed", "timed_out": "timed_out"}


async def recorded(
    session: Session, graph: Graph, grader: Grader, problem: Problem
) -> tuple[Record, list[Candidate]]:
    """Solve and grade one problem: its record, and the candidates that answer it, in the record's order."""
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        outcome = await session.solve(graph, problem)
    except AllCandidatesFailed as error:
        assert error.outcome is not None
        record, candidates = _record(problem, error.outcome, ()), []
        record.outcome, record.error = "failed", str(error)
    else:
        candidates = _answers(outcome)
        truths = await grader.grade(problem, [c.text for c in candidates], session)
        record = _record(problem, outcome, truths)
    record.seconds = round(clock() - started, 3)
    return record, candidates


def never_begun(problem: Problem) -> Record:
    """The record of a problem that the deadline came before."""
    return Record(
        problem.id,
        "cancelled",
        stopped="deadline",
        exhausted="run.seconds",
        fingerprint=fingerprint(problem),
        labels=labels_of(problem),
    )


def _answers(outcome: Outcome) -> list[Candidate]:
    """The candidates that answer the problem itself, and not one that a stage derived from it."""
    return [c for c in outcome.candidates if not c.problem]


def _record(problem: Problem, outcome: Outcome, truths: Sequence[Truth]) -> Record:
    candidates = _answers(outcome)
    position = {c.id: i for i, c in enumerate(candidates)}
    selected = None if outcome.chosen is None else position[outcome.chosen.id]
    if selected is not None:
        what = _OUTCOME[truths[selected].status]
    elif outcome.stopped in ("budget", "deadline", "cancelled"):
        what = "cancelled"
    else:
        what = "abstained"
    verifiers = sorted({name for c in candidates for name in c.verdicts})
    return Record(
        id=problem.id,
        outcome=what,
        selected=selected,
        truth=[t.right for t in truths],
        statuses=[t.status for t in truths],
        samples=[c.id for c in candidates],
        verdicts={name: _verdicts(candidates, name) for name in verifiers},
        failures=[f"{f.stage}#{f.index} {type(f.error).__name__}: {f.error}" for f in outcome.failures],
        usage=_exact(outcome.usage),
        by_stage={name: _exact(u) for name, u in outcome.by_stage.items()},
        by_model={name: _exact(u) for name, u in outcome.by_model.items()},
        fresh=_exact(outcome.fresh),
        stopped=outcome.stopped,
        exhausted=outcome.exhausted,
        fingerprint=fingerprint(problem),
        labels=labels_of(problem),
    )


def _verdicts(candidates: Sequence[Candidate], name: str) -> dict[str, list[Any]]:
    verdicts = [c.verdicts.get(name) for c in candidates]
    return {
        "accepted": [None if v is None else v.accepted for v in verdicts],
        "score": [None if v is None else finite(v.score) for v in verdicts],
        "status": [None if v is None else v.status for v in verdicts],
    }


def _exact(usage: Usage) -> dict[str, Any]:
    return usage.exact()


def finite(score: float | None) -> float | None:
    """A score as JSON can hold it: the largest numbers for the infinities."""
    return None if score is None else max(-1e300, min(1e300, score))
