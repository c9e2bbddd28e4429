"""Run a candidate's code against the problem's visible tests.

Visible tests are what a user would see: examples in a docstring, asserts in a prompt. They are few, so a
wrong program can pass them; the harness counts how often. The score is the fraction of tests passed. No
model calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from archon.candidate import Candidate, Scale, Status, Verdict
from archon.code import program_of
from archon.execution import Limits, Program, Suite, TestReport
from archon.problem import Problem
from archon.run import Run
from archon.verifier import Verifier

_STATUS: dict[str, Status] = {
    "passed": "passed",
    "wrong": "wrong",
    "failed": "failed",
    "timed_out": "timed_out",
    "violation": "failed",
}


class UnitTests(Verifier):
    """Accept a program that passes every visible test; undecided where the problem has none."""

    scale: ClassVar[Scale] = "fraction"

    limits: Limits = Limits()
    """What a program may use for all its tests together."""
    packages: bool = True
    """Whether programs can import this environment's third-party packages."""
    stop_at_first_failure: bool = False
    """Only the verdict counts: stop at the first failing test. Without it the score is the fraction of
    tests passed."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Run each program, in isolation."""
        if not problem.tests or problem.entry_point is None:
            return [Verdict(self.name, None, detail="the problem has no visible tests")] * len(candidates)
        suite = run.kept("visible tests", lambda: Suite(cases=problem.tests))
        return [await self._judge(problem, candidate, suite, run) for candidate in candidates]

    def applies(self, problem: Problem) -> bool:
        """It needs visible tests."""
        return bool(problem.tests) and problem.entry_point is not None

    async def _judge(self, problem: Problem, candidate: Candidate, suite: Suite, run: Run) -> Verdict:
        source = program_of(problem, candidate.text)
        if source is None:
            return Verdict(self.name, False, 0.0, self.scale, "wrong", "the reply holds no program")
        program = Program(source=source, entry_point=problem.entry_point or "", packages=self.packages)
        report = await run.test(program, suite, self.limits, stop_at_first_failure=self.stop_at_first_failure)
        passed = report.status == "passed"
        score = report.passed / len(suite)
        return Verdict(self.name, passed, score, self.scale, _STATUS[report.status], _reason(report))


def _reason(report: TestReport) -> str:
    return next((t.detail for t in report.tests if t.status not in ("passed", "skipped")), "")
