"""Grading programs: suites of hidden tests, and reference programs that give expected values.

Every program runs in the session's sandbox, and every result is remembered by (program, tests, limits), so
nothing is graded twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence

from archon.benchmarks.benchmark import Truth, TruthStatus
from archon.code import program_of
from archon.errors import DataError
from archon.execution import Call, Limits, Program, Returned, Suite, TestReport
from archon.problem import Case, Problem
from archon.session import Session
from archon.verifiers.sandbox import wire

_STATUS: dict[str, TruthStatus] = {
    "passed": "right",
    "wrong": "wrong",
    "failed": "failed",
    "timed_out": "timed_out",
    "violation": "failed",
}
DEFAULT_LIMITS = Limits(cpu_seconds=2.0, wall_seconds=15.0, memory_mb=2048)
_PATIENT = Limits(cpu_seconds=120, wall_seconds=300, memory_mb=8192, output_mb=256)
"""For reference programs, which may take their time."""
_FACTOR, _LEAST = 4.0, 1.0
"""CPU time that a program has: so many times its reference's, and so many seconds (evalplus's rule, taken over
all tests together)."""
_STALLS = 50.0
"""Seconds of waiting beyond that: where seven programs shared a core, a right one of some milliseconds waited for more
than 20."""


class SuiteGrader:
    """Grades programs by one hidden suite per problem; every test must pass.

    Where a problem has a reference program, its CPU time on this machine says how much the others get; where it has
    none, `limits` does.
    """

    def __init__(
        self,
        suites: Mapping[str, Suite],
        references: Mapping[str, Program] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._suites = suites
        self._references = references or {}
        self._limits = limits

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        """Run each program against the hidden suite, equal programs once."""
        suite = self._suites[problem.id]
        limits = self._limits
        reference = self._references.get(problem.id)
        if reference is not None:
            report = await session.test(reference, suite, _PATIENT)
            limits = calibrated(limits, report.cpu_seconds)
        return await graded(problem, texts, suite, limits, session)


class ReferenceGrader:
    """Grades programs by what a reference program returns for the same inputs.

    Limits follow the reference: its CPU time on this machine, and twice what it returns.
    """

    def __init__(
        self,
        inputs: Mapping[str, Callable[[], Sequence[Call]]],
        references: Mapping[str, Program],
        cases: Callable[[str, Call, object], Case],
        extra: Mapping[str, Suite] | None = None,
    ) -> None:
        self._inputs = inputs
        self._references = references
        self._cases = cases
        self._extra = extra or {}
        self._suites: dict[str, asyncio.Task[tuple[Suite, Limits]]] = {}

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        """Run the reference once, then each program, stopping at its first wrong value."""
        task = self._suites.get(problem.id)
        if task is None:
            task = self._suites[problem.id] = asyncio.ensure_future(self._prepare(problem.id, session))
        try:
            suite, limits = await asyncio.shield(task)
        except BaseException:
            self._suites.pop(problem.id, None)
            raise
        return await graded(problem, texts, suite, limits, session)

    async def _prepare(self, name: str, session: Session) -> tuple[Suite, Limits]:
        extra = self._extra.get(name)
        calls = tuple(self._inputs[name]())
        values, seconds, size = await reference_values(self._references[name], calls, session)
        cases = tuple(self._cases(name, call, value) for call, value in zip(calls, values, strict=True))
        suite = Suite(cases=cases, check=None if extra is None else extra.check)
        cpu = _LEAST + _rounded_up(_FACTOR * seconds)
        output = max(64.0, _rounded_up(2 * size / 2**20))
        return suite, Limits(
            cpu_seconds=cpu, wall_seconds=10 * cpu + _STALLS, memory_mb=4096, output_mb=output
        )


async def graded(
    problem: Problem, texts: Sequence[str], suite: Suite, limits: Limits, session: Session
) -> list[Truth]:
    """The truth about each reply, by a suite."""
    sources = [program_of(problem, text) for text in texts]
    programs = [
        Program(source=source, entry_point=problem.entry_point or "", packages=True)
        for source in sources
        if source is not None
    ]
    reports = iter(await session.test_many(programs, suite, limits, stop_at_first_failure=True))
    return [
        Truth("wrong", "the reply holds no program") if s is None else _truth(next(reports)) for s in sources
    ]


async def reference_values(
    program: Program, calls: Sequence[Call], session: Session
) -> tuple[list[object], float, int]:
    """What a reference program returns for each call, its CPU time, and the size of it all in bytes;
    remembered. Raises DataError where it fails on its own inputs."""
    inputs = wire.encode([(c.args, c.kwargs) for c in calls])
    key = hashlib.sha256(program.digest.encode() + inputs).hexdigest()
    found = (await session.store.recall("reference", [key])).get(key)
    if found is None:
        executor = await session.executor()
        returned: Sequence[Returned] = await executor.evaluate(program, calls, _PATIENT)
        for call, one in zip(calls, returned, strict=True):
            if one.status != "returned":
                raise DataError(
                    f"the reference program {program.entry_point!r} fails on its own input {str(call.args)[:80]} "
                    f"({one.status}: {one.detail})"
                )
        seconds, values = sum(r.seconds for r in returned), [r.value for r in returned]
        found = wire.encode([seconds, values])
        await session.store.remember("reference", {key: found})
    else:
        seconds, values = wire.decode(found)
    return values, seconds, len(found)


def _truth(report: TestReport) -> Truth:
    detail = next((t.detail for t in report.tests if t.status not in ("passed", "skipped")), "")
    return Truth(_STATUS[report.status], detail)


def calibrated(limits: Limits, seconds: float) -> Limits:
    """What programs get whose reference takes so much CPU time here."""
    cpu = _rounded_up(_LEAST + _FACTOR * seconds)
    return limits.model_copy(update={"cpu_seconds": cpu, "wall_seconds": 5 * cpu + _STALLS})


def _rounded_up(seconds: float) -> float:
    """To two digits, so that remembered results stay valid when a clock jitters."""
    if seconds <= 0:
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(seconds)) - 1)
    return math.ceil(seconds / scale) * scale
