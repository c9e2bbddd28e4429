"""Put every candidate to the tests that were written for it: executed where they are assertions, judged where not.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the unit test evaluator is shown an answer
and all tests, and says which hold; answers that pass all tests go on. Its code sorts by the tests passed and keeps
`top_k` (`keep: 3`), or the first that pass all (`first`). The paper has a model judge tests of code, too (`execute:
false`); where the tests are assertions about a function, we run them in the sandbox.

Cost: 1 call per candidate, with up to `again` more, none where the tests are executed; equal candidates are judged
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archon.assertions import Assertion, read_assertions
from archon.candidate import Candidate, Status, Verdict
from archon.code import program_of
from archon.execution import Limits, Program, Suite, run_all
from archon.problem import Problem
from archon.prompting import Places, asked, read_scores, scores_form
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.layers import Layer, Shown, at_most, best_first, judged, unread
from archon.strategies.write_tests import TESTS

PROMPT = """\
An answer was given to a question, and it is put to tests: statements that hold of the answer, or do not.

{question}

{answer}

{tests}

Go through the tests in their order. For each, find what the answer says to it; what the answer claims of itself proves
nothing. A test scores 1 where it holds, and 0 where it does not or where you cannot tell. {form}"""
_LOW, _HIGH = 0.0, 1.0
_WITHIN = 1e-9
_STATUS: dict[str, Status] = {"wrong": "wrong", "timed_out": "timed_out"}


class TestEvaluate(Layer):
    """Score each candidate by the share of its tests that it passes, and pass on those that pass, the best first.

    Candidates whose tests could not be read, or judged, go on undecided, after the others.
    """

    __test__ = False  # not a test class of pytest's

    requires: ClassVar[frozenset[Fact]] = frozenset({"tests"})
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "verdicts", "scores"})
    ranks: ClassVar[bool] = True

    keep: Annotated[int, Field(ge=1)] | Literal["passing", "all"] = "passing"
    """Who goes on: who passes, and all where nobody does; so many of the best; or all."""
    at_least: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Who passes this share of the tests passes."""
    first: Annotated[int, Field(ge=1)] | None = None
    """Test one candidate after the other, the best or earliest first and no more at once than are still wanted, until
    so many pass; the others do not go on."""
    tests: Annotated[str, Field(min_length=1)] = TESTS
    """The note that holds a candidate's tests, one a line."""
    execute: bool = True
    """Run tests that are assertions about the function that the problem names, instead of having a model judge them."""
    limits: Limits = Limits()
    """What a program may use for all its tests together."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Where a test is timed out or ends the process, the tests behind it run in a new process; so many times."""
    packages: bool = True
    """Whether programs can import this environment's third-party packages."""
    prompt: Annotated[
        str, Places("question|question_text", "answer|answer_text", "tests|tests_text", "form")
    ] = PROMPT
    """Asks for a score of 0 or 1 for each test."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Test each as it arrives; wait for all, as the best come first."""
        verdicts: dict[str, Verdict] = {}
        found: list[Candidate] = []
        evaluate = partial(self._verdict, problem, run)
        async with aclosing(judged(self, evaluate, candidates, run, self.first)) as stream:
            async for candidate, verdict in stream:
                found.append(candidate)
                verdicts[candidate.id] = verdict
        ordered = best_first(found, run)
        if self.keep == "passing":
            ordered = [c for c in ordered if verdicts[c.id].accepted is not False] or ordered
        for candidate in ordered[: self.keep if isinstance(self.keep, int) else None]:
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        """With `execute`, at most: what is executed needs no call."""
        least = incoming.low if self.first is None else min(self.first, incoming.low)
        calls = asked(Count(0 if self.execute else least, incoming.high), self.again)
        if self.keep == "passing":
            return Plan(calls, Count(min(1, incoming.low), incoming.high))
        return Plan(calls, at_most(Count(least, incoming.high), None if self.keep == "all" else self.keep))

    async def _verdict(self, problem: Problem, run: Run, candidate: Candidate) -> Verdict:
        tests = candidate.notes.get(self.tests, "").splitlines()
        if not tests:
            return Verdict(self.name, None, scale="fraction", detail="it has no tests")
        if not candidate.text.strip():
            return Verdict(self.name, False, 0.0, "fraction", "wrong", "the answer is empty")
        if self.execute and problem.entry_point is not None:
            assertions = read_assertions("\n".join(tests), problem.entry_point)
            if len(assertions) == len(tests):
                return await self._executed(problem, problem.entry_point, candidate, assertions, run)
        posed = Shown(problem, (candidate,), ()).posed_alone(
            self.prompt, lambda mark: scores_form(len(tests), mark, low=_LOW, high=_HIGH), tests=tests
        )
        reader = partial(read_scores, n=len(tests), mark=posed.mark, low=_LOW, high=_HIGH)
        said = await self.ask(run, posed, reader, parents=(candidate,))
        if said.value is None:
            return Verdict(self.name, None, scale="fraction", detail=unread(said.why))
        failed = next((test for test, holds in zip(tests, said.value, strict=True) if holds < _HIGH), "")
        return self._said(sum(said.value) / len(tests), "wrong", f"does not hold: {failed}")

    async def _executed(
        self, problem: Problem, name: str, candidate: Candidate, tests: Sequence[Assertion], run: Run
    ) -> Verdict:
        source = program_of(problem, candidate.text)
        if source is None:
            return Verdict(self.name, False, 0.0, "fraction", "wrong", "the reply holds no program")
        program = Program(source=source, entry_point=name, packages=self.packages)
        suite = Suite(cases=tuple(test.case for test in tests))
        results = await run_all(run.test, program, suite, self.limits, self.restarts)
        passed = sum(result.status == "passed" for result in results)
        first = next((result for result in results if result.status != "passed"), results[0])
        return self._said(passed / len(tests), _STATUS.get(first.status, "failed"), first.detail)

    def _said(self, share: float, status: Status, detail: str) -> Verdict:
        if share >= self.at_least - _WITHIN:
            return Verdict(self.name, True, share, "fraction", "passed")
        return Verdict(self.name, False, share, "fraction", status, detail[:200])
