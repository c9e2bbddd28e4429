"""Tests that a model writes: executed where the answer is code, put to a judge where it is prose.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: a unit-test generator and a
unit-test evaluator; how tests are sampled and read follows Chen et al. 2022, "CodeT" (arXiv 2207.10397), 2.1.
Cost: `n` calls per problem. With a `judge` one call per problem, and one per candidate and check.

Of code tests only assertions about a call with literal arguments are read (archon/assertions.py); nothing is
evaluated. The tests are a model's, so they may be wrong and contradict one another: a score says more than acceptance.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from archon.assertions import read_assertions
from archon.candidate import Candidate, Scale, Status, Verdict
from archon.code import program_of
from archon.execution import Limits, Program, Suite, TestResult, run_all
from archon.problem import Case, Message, Problem
from archon.prompting import (
    Asked,
    ask,
    chat,
    filled,
    items_form,
    mark_of,
    question_of,
    quoted,
    read_items,
    read_verdict,
    verdict_form,
)
from archon.run import Run
from archon.verifier import Verifier
from archon.verifiers.sandbox import wire

_STATUS: dict[str, Status] = {"wrong": "wrong", "timed_out": "timed_out"}

_ASK_TESTS = """\
A function named `{name}` is to be written. What it must do is said in this task:

<task>
{task}
</task>

Do not write the function. Write {count} tests of it instead. Each is one line of the form

assert {name}(ARGUMENTS) == VALUE

where ARGUMENTS and VALUE are literals: no variables, imports or other calls. Take ordinary inputs and the edges
of what the task allows, and expect only what the task settles. Put all lines into one Python code block."""

_ASK_CHECKS = """\
Somebody will answer the question below, and the answer will be examined by yes-or-no checks.

{question}

Write {count} such checks. Each is a short statement about the answer that a reader of the question and the answer can
find to be true or false, and that a good answer makes true. {form}"""

_ASK_JUDGE = """\
Is a statement about an answer true?

{question}

{answer}

{statement}

Think it over briefly if you must; yes is for a statement that is true of the answer, no for one that is not. {form}"""


class Tests(NamedTuple):
    """Distinct tests, and how often each was written."""

    suite: Suite
    counts: tuple[int, ...]


class WritesTests(Verifier):
    """What the verifiers have in common that let a model write tests and run them."""

    model: str = "default"
    """Which model writes the tests."""
    n: Annotated[int, Field(ge=1)] = 4
    """Replies with tests that are sampled for each problem."""
    per_reply: Annotated[int, Field(ge=1)] = 5
    """Only the first so many tests of a reply (CodeT takes 5)."""
    most: Annotated[int, Field(ge=1)] | None = None
    """At most so many distinct tests in all, the most often written first; all where not given."""
    limits: Limits = Limits()
    """What a program may use for all its tests together."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Where a test is timed out or ends the process, the tests behind it run in a new process; so many times."""
    packages: bool = True
    """Whether programs can import this environment's third-party packages."""

    def applies(self, problem: Problem) -> bool:
        """It needs a function to call."""
        return problem.entry_point is not None

    @property
    def models(self) -> tuple[str, ...]:
        """The one that writes tests."""
        return (self.model,)

    @property
    def calls_per_problem(self) -> int:
        """The replies with tests."""
        return self.n

    @abstractmethod
    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """One verdict per candidate, in order."""
        raise NotImplementedError

    async def tests(self, problem: Problem, run: Run) -> Tests:
        """The tests for a problem: written once, for all that this stage judges."""
        key = f"{run.stage} tests {self!r}"
        return await asyncio.shield(run.kept(key, lambda: run.spawn(self._write(problem, run))))

    async def _write(self, problem: Problem, run: Run) -> Tests:
        name = problem.entry_point or ""
        messages, prompt = None, None
        if problem.prompt is not None and run.session.caller(self.model).config.continues_text:
            prompt = f"{problem.prompt.rstrip()}\n    ...\n\n\n# What {name} returns, one assertion a line:\nassert "
        else:
            text = _ASK_TESTS.format(name=name, task=problem.question, count=self.per_reply)
            messages = (Message(role="user", content=text),)
        replies = [r async for r in run.sample(self.model, n=self.n, messages=messages, prompt=prompt)]
        replies.sort(key=lambda reply: reply.index)
        return collected(
            (read_tests(r.text, name, self.per_reply, cut_off=r.finish == "length") for r in replies),
            self.most,
        )

    def program(self, problem: Problem, candidate: Candidate) -> Program | None:
        """The program that a candidate proposes."""
        source = program_of(problem, candidate.text)
        if source is None:
            return None
        return Program(source=source, entry_point=problem.entry_point or "", packages=self.packages)

    async def results(self, program: Program, suite: Suite, run: Run) -> list[TestResult]:
        """What each test gave; what hangs in one does not take those behind it along."""
        return await run_all(run.test, program, suite, self.limits, self.restarts)


class GeneratedTests(WritesTests):
    """Accept what passes the tests that a model wrote; the score is the fraction passed."""

    scale: ClassVar[Scale] = "fraction"

    judge: str | None = None
    """Answers are prose: this model says of each check that was written whether it holds. Nothing is executed."""
    at_least: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Accept from this fraction of tests passed."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Put every candidate to every test."""
        if not self.applies(problem):
            return [Verdict(self.name, None, detail="there is no function to test")] * len(candidates)
        if self.judge is not None:
            checks = await self._checks(problem, run)
            return await run.gather(*(self._judged(problem, c, checks, run) for c in candidates))
        tests = await self.tests(problem, run)
        return await run.gather(*(self._tested(problem, c, tests, run) for c in candidates))

    def applies(self, problem: Problem) -> bool:
        """Executed tests need a function to call; a judge needs nothing."""
        return self.judge is not None or super().applies(problem)

    @property
    def models(self) -> tuple[str, ...]:
        """The one that writes, and the one that judges."""
        return (self.model,) if self.judge in (None, self.model) else (self.model, str(self.judge))

    @property
    def calls_per_problem(self) -> int:
        """The replies with tests; one where they are checks for a judge."""
        return self.n if self.judge is None else 1

    @property
    def calls_per_candidate(self) -> int:
        """None for execution; the judge is asked about each check."""
        return 0 if self.judge is None else min(self.per_reply, self.most or self.per_reply)

    async def _tested(self, problem: Problem, candidate: Candidate, tests: Tests, run: Run) -> Verdict:
        if not tests.suite.cases:
            return Verdict(self.name, None, detail="no test could be read")
        program = self.program(problem, candidate)
        if program is None:
            return Verdict(self.name, False, 0.0, self.scale, "wrong", "the reply holds no program")
        results = await self.results(program, tests.suite, run)
        score = sum(r.status == "passed" for r in results) / len(results)
        first = next((r for r in results if r.status != "passed"), None)
        if score >= self.at_least or first is None:
            return Verdict(self.name, True, score, self.scale, "passed")
        return Verdict(self.name, False, score, self.scale, _STATUS.get(first.status, "failed"), first.detail)

    # --- prose -------------------------------------------------------------------------------------

    async def _checks(self, problem: Problem, run: Run) -> tuple[str, ...]:
        key = f"{run.stage} checks {self!r}"
        return await asyncio.shield(run.kept(key, lambda: run.spawn(self._write_checks(problem, run))))

    async def _write_checks(self, problem: Problem, run: Run) -> tuple[str, ...]:
        question, count = question_of(problem), self.calls_per_candidate
        form = items_form(count)
        block = quoted("QUESTION", question, mark_of(question))
        text = filled(_ASK_CHECKS, question=block, count=str(count), form=form)
        asked = Asked(self.model, chat(text), again=0, form=form, cut_off=True)
        said = await ask(run, asked, partial(read_checks, most=count))
        return said.value or ()

    async def _judged(
        self, problem: Problem, candidate: Candidate, checks: Sequence[str], run: Run
    ) -> Verdict:
        if not checks:
            return Verdict(self.name, None, detail="no check could be read")
        said = await run.gather(*(self._holds(problem, candidate, check, run) for check in checks))
        known = [holds for holds in said if holds is not None]
        if not known:
            return Verdict(self.name, None, detail="the judge gave no verdict")
        score = sum(known) / len(checks)
        if score >= self.at_least:
            return Verdict(self.name, True, score, self.scale, "passed")
        if (sum(known) + len(checks) - len(known)) / len(checks) >= self.at_least:
            return Verdict(self.name, None, score, self.scale, detail="the judge left a check undecided")
        failed = next(check for check, holds in zip(checks, said, strict=True) if holds is False)
        return Verdict(self.name, False, score, self.scale, "wrong", f"does not hold: {failed[:200]}")

    async def _holds(self, problem: Problem, candidate: Candidate, check: str, run: Run) -> bool | None:
        assert self.judge is not None
        question = question_of(problem)
        mark = mark_of(question, candidate.text, check)
        form = verdict_form(mark)
        text = filled(
            _ASK_JUDGE,
            question=quoted("QUESTION", question, mark_of(question)),
            answer=quoted("ANSWER", candidate.text, mark),
            statement=quoted("STATEMENT", check, mark),
            form=form,
        )
        asked = Asked(self.judge, chat(text), again=0, form=form, parents=(candidate,))
        said = await ask(run, asked, partial(read_verdict, mark=mark))
        return said.value == "yes" if said.read else None


# --- reading ---------------------------------------------------------------------------------------


def collected(replies: Iterable[Sequence[Case]], most: int | None = None) -> Tests:
    """The distinct tests of all replies, in the order in which they first appear, or the commonest first."""
    found: dict[bytes, list[Case]] = {}
    for cases in replies:
        for case in cases:
            key = wire.encode(
                (case.args, dict(case.kwargs), case.expected, case.tolerance, len(case.alternatives))
            )
            found.setdefault(key, []).append(case)
    kept = list(found.values())
    if most is not None:
        kept = sorted(kept, key=len, reverse=True)[:most]
    return Tests(Suite(cases=tuple(same[0] for same in kept)), tuple(map(len, kept)))


def read_tests(text: str, entry_point: str, most: int | None = None, *, cut_off: bool = False) -> list[Case]:
    """The first tests in a reply, repetitions included (archon/assertions.py)."""
    return [one.case for one in read_assertions(text, entry_point, most, cut_off=cut_off)]


def read_checks(text: str, most: int) -> tuple[str, ...]:
    """The first items of a list, each in one line, without repetitions. Raises Unread."""
    items = [" ".join(item.split()) for item in read_items(text)]
    return tuple(list({item.casefold(): item for item in items}.values())[:most])
