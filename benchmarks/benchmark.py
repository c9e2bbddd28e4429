"""The benchmark contract: problems, and a grader that no pipeline can see (D7).

A benchmark of one's own takes a few lines:

    class Capitals(Benchmark):
        '''Capitals of countries, from a CSV file.'''

        def load(self):
            rows = [line.split(",") for line in Path("capitals.csv").read_text().splitlines()]
            problems = [Problem.ask(f"What is the capital of {c}?", id=c) for c, _ in rows]
            return Dataset("capitals", problems, AnswerGrader({c: [capital] for c, capital in rows}))

Register it as an entry point in the group `archon.benchmarks`, or run it from Python (docs/benchmarks.md).
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

from archon.answers import canonical_formula, canonical_number, normal_form
from archon.component import Component
from archon.execution import Suite
from archon.problem import Problem
from archon.session import Session

TruthStatus = Literal["right", "wrong", "failed", "timed_out"]
"""The truth about one candidate; the ways not to be right stay distinct (D9)."""


class Truth(NamedTuple):
    """What the grader says of one candidate."""

    status: TruthStatus
    detail: str = ""

    @property
    def right(self) -> bool:
        """Whether it is right."""
        return self.status == "right"


class Grader(Protocol):
    """Candidates in, truth out. Belongs to a benchmark; pipelines never see it."""

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> Sequence[Truth]:
        """The truth about each reply to a problem, in order. Executions go through the session, which
        remembers them."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A loaded benchmark."""

    name: str
    problems: Sequence[Problem]
    grader: Grader
    notes: tuple[str, ...] = ()
    """What a reader of the results should know."""
    selectors: tuple[str, ...] = field(default=("majority_vote",))
    """Selectors whose curves are reported where none are named."""
    prepare: Callable[[Session], Awaitable[Sequence[Problem]]] | None = None
    """Where its problems take work in the sandbox (expected values of visible tests): makes them."""

    async def prepared(self, session: Session) -> Dataset:
        """This, with its problems as they are run; remembered by the session's store."""
        if self.prepare is None:
            return self
        return replace(self, problems=await self.prepare(session), prepare=None)

    @property
    def fingerprint(self) -> str:
        """What all of its problems ask, as a digest: benchmarks of one name may be different ones."""
        return hashlib.sha256("".join(map(fingerprint, self.problems)).encode()).hexdigest()


def fingerprint(problem: Problem) -> str:
    """What a problem asks, as a digest: all that a pipeline sees of it."""
    seen = {name: value for name, value in problem.given().items() if name != "tests"}
    text = json.dumps(seen, sort_keys=True, default=repr) + Suite(cases=problem.tests).digest
    return hashlib.sha256(text.encode()).hexdigest()


class Benchmark(Component):
    """Where problems come from."""

    kind: ClassVar[str] = "benchmark"

    data: Path | None = None
    """Its data file, or the folder that holds it; found or fetched where not given (benchmarks/data.py)."""

    @abstractmethod
    def load(self) -> Dataset:
        """Read the problems. Raises DataError."""
        raise NotImplementedError


class AnswerGrader:
    """Grades short answers by their normal form: numbers by value, choices by letter, text by its words.

    `right` holds the accepted answers by problem id.
    """

    def __init__(self, right: Mapping[str, Sequence[str]]) -> None:
        self._right = right

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        """Compare normal forms."""
        accepted = {_canonical(problem, answer) for answer in self._right[problem.id]}
        return [self._truth(problem, text, accepted) for text in texts]

    def _truth(self, problem: Problem, text: str, accepted: set[str | None]) -> Truth:
        answer = normal_form(problem, text)
        if answer is None:
            return Truth("wrong", "no answer found")
        return Truth("right") if answer in accepted else Truth("wrong", f"answered {answer[:80]}")


def _canonical(problem: Problem, answer: str) -> str | None:
    if problem.answer == "number":
        return canonical_number(answer)
    if problem.answer == "math":
        return canonical_formula(answer)
    if problem.answer == "choice":
        return answer.strip().casefold()
    return normal_form(problem, answer)
