"""Small scripted benchmarks for the tests of the harness, and how to run and read them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.benchmark import Dataset, Truth
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.programs import SuiteGrader
from archon.benchmarks.results import Results
from archon.budget import Budgets
from archon.candidate import Verdict
from archon.execution import Limits, Program, Suite, TestReport
from archon.execution import TestResult as Tested
from archon.pipeline import Pipeline
from archon.problem import Case, Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.best_of import BestOf
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from archon.verifiers.unit_tests import UnitTests

NAMES = ("solved", "wrong", "failed", "timed_out", "cancelled", "abstained")


class Grading:
    """Counts what it grades: a reply is right if it says so, and may say how it is wrong instead."""

    def __init__(self) -> None:
        self.graded: Counter[str] = Counter()

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        self.graded[problem.id] += 1
        return [_truth(text) for text in texts]


def _truth(text: str) -> Truth:
    if text in ("failed", "timed_out"):
        return Truth("failed" if text == "failed" else "timed_out")
    return Truth("right" if text.startswith("right") else "wrong")


class Executing:
    """An executor that counts: a program passes if it holds the word right."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        self.ran[f"{program.source}|{suite.digest[:6]}"] += 1
        await asyncio.sleep(0)
        status: Any = "passed" if "right" in program.source else "wrong"
        return TestReport(status, (Tested(status),))

    async def evaluate(self, program: Program, calls: Sequence[Any], limits: Limits) -> Sequence[Any]:
        raise AssertionError("not asked for")

    async def close(self) -> None:
        pass


class Odd(Verifier):
    """Accepts what is right; its score is whatever the reply names after a colon."""

    async def verify(self, problem: Problem, candidates: Sequence[Any], run: Any) -> Sequence[Verdict]:
        return [
            Verdict(self.name, c.text.startswith("right"), float(c.text.partition(":")[2] or 0))
            for c in candidates
        ]


class Faulty(Stage):
    """Raises for the problem named `bad`."""

    async def run(self, problem: Problem, candidates: Any, run: Any) -> Any:
        async for candidate in candidates:
            if problem.id == "bad":
                raise ZeroDivisionError("a fault of the stage")
            yield candidate


def dataset(count: int | Iterable[str] = 4, grader: Any = None, name: str = "small") -> Dataset:
    names = [f"p{i}" for i in range(count)] if isinstance(count, int) else list(count)
    return Dataset(name, [Problem.ask(f"question {n}", id=n) for n in names], grader or Grading())


def alternating(call: Call) -> str:
    """Problem pI has every (I+1)-th sample right."""
    return f"right {call.index}" if call.index % (int(call.problem[1:]) + 1) == 0 else f"wrong {call.index}"


def voting(n: int) -> Pipeline:
    return Sample(n=n) | MajorityVote()


async def harness_run(
    folder: Path,
    *,
    reply: Callable[[Call], str | Reply | Exception] = alternating,
    data: Dataset | None = None,
    n: int = 4,
    pipeline: Pipeline | Stage | None = None,
    budget: Budgets | None = None,
    store: Path | None = None,
    concurrency: int = 16,
    selectors: tuple[str, ...] = (),
    executor: Any = None,
    seen: list[Session] | None = None,
    model: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Results:
    folder.mkdir(exist_ok=True)
    built = pipeline if pipeline is not None else voting(n)
    graph = (built if isinstance(built, Pipeline) else Pipeline([built])).graph()
    scripted = Scripted(
        reply=reply, identity="script", **{"price": {"input": 1, "output": 2}, **(model or {})}
    )
    plan = Plan(data or dataset(), graph, "mine", samples=n, concurrency=concurrency, selectors=selectors)
    async with Session(models=scripted, budget=budget, store=store, executor=executor, seed=seed) as session:
        if seen is not None:
            seen.append(session)
        return await Harness(plan, session, folder).run()


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def written(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """results.json and problems.jsonl as other programs read them: strictly, lines ended by newlines only."""
    data = strict((folder / "results.json").read_text(encoding="utf-8"))
    text = (folder / "problems.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return data, [strict(line) for line in text.split("\n")[:-1]]


def counts(**given: int) -> dict[str, int]:
    return {name: given.get(name, 0) for name in NAMES}


def code(count: int = 4) -> Dataset:
    names = [f"p{i}" for i in range(count)]
    problems = [
        Problem.ask(
            f"write {n}", id=n, answer="code", entry_point="f", tests=(Case(args=(1,), expected=number),)
        )
        for number, n in enumerate(names)
    ]
    suites = {n: Suite(cases=(Case(args=(2,), expected=number),)) for number, n in enumerate(names)}
    return Dataset("coding", problems, SuiteGrader(suites), selectors=("best_of", "first_passing"))


def coding(n: int) -> Pipeline:
    return Sample(n=n) | Verify(verifier=UnitTests()) | BestOf()


def votes(call: Call) -> str:
    """p0 and p1 have a right majority, p2 and p3 a wrong one; no ties."""
    good = call.index % 3 != 0 if call.problem in ("p0", "p1") else call.index % 3 == 0
    return "right" if good else "wrong"
