"""The executor contract: run candidate code where it can neither escape nor judge itself (D8).

A program goes in as text, values come back as data, and the comparison with what was expected happens
in a process the program cannot touch. Expected values never enter the program's process. The built-in
executor is `archon.verifiers.sandbox`; stages and verifiers reach it through `run.test` and
`run.evaluate`, which remember results by (program, tests, limits).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from archon.component import Value
from archon.problem import Case

TestStatus = Literal["passed", "wrong", "failed", "timed_out", "violation", "skipped"]
"""Passed; a wrong value; an exception or a crash; out of time; a limit broken (memory, output);
not run, because an earlier test decided."""

_Positive = Annotated[float, Field(gt=0)]


class Limits(Value):
    """What a program may use. CPU time and wall time are counted apart, so that a busy machine does not
    turn a right program into a wrong one."""

    cpu_seconds: _Positive = 2.0
    """CPU time for loading the program and all its tests together."""
    wall_seconds: _Positive = 20.0
    """Wall-clock time, for programs that wait instead of computing."""
    memory_mb: _Positive = 1024.0
    """Address space."""
    output_mb: _Positive = 16.0
    """Bytes it may return, and the largest file it may write."""

    @cached_property
    def digest(self) -> str:
        """For the memory of results."""
        return self.model_dump_json()


class Program(Value):
    """Source text and the function in it to call."""

    source: str
    entry_point: str
    packages: bool = False
    """Whether third-party packages of this environment can be imported."""
    preload: tuple[str, ...] = ()
    """Modules to import once for all programs that name the same ones, as they are slow to import. Trusted."""

    @cached_property
    def digest(self) -> str:
        """For the memory of results."""
        return _digest(self.source, self.entry_point, str(self.packages))


class Exchange(Value):
    """One run of a whole program: what it reads from its standard input, and what a right one prints.

    Printed text is compared word by word, whatever the white space between; words that are numbers with a
    fraction may differ by the tolerance.
    """

    stdin: str = ""
    """Its standard input."""
    stdout: str
    """What it should print."""
    tolerance: float = Field(default=0.0, ge=0)
    """Absolute tolerance for numbers; 0 gives those with a fraction 1e-6, and others none."""


class Suite(Value):
    """Tests of a function: cases as data, or a trusted checking program, or both. Tests of a whole program:
    exchanges, each with a process and limits of its own.

    `check` is a program text that raises where the candidate is wrong: by itself, calling the candidate by
    one of `names` (MBPP's form), or in a function `check(candidate)` that it defines (HumanEval's). It runs
    in a process of its own; the candidate there is a stand-in whose calls are answered by the program's
    process, arguments and values crossing as data. `namespace` is text that runs before it (imports, helper
    functions).
    """

    cases: tuple[Case, ...] = ()
    check: str | None = None
    namespace: str = ""
    names: tuple[str, ...] = ()
    """Further names the stand-in goes by inside `check` (tests that call the function by its name)."""
    exchanges: tuple[Exchange, ...] = ()
    """Runs of the program as a whole; the function's name does not matter for them."""

    @cached_property
    def digest(self) -> str:
        """For the memory of results."""
        cases = (
            "|".join(map(_stable, (c.args, c.kwargs, c.expected, c.alternatives, c.tolerance, c.rule)))
            for c in self.cases
        )
        runs = (_digest(e.stdin, e.stdout, repr(e.tolerance)) for e in self.exchanges)
        return _digest(self.check or "", self.namespace, ",".join(self.names), *cases, *runs)

    def __len__(self) -> int:
        return len(self.cases) + len(self.exchanges) + (self.check is not None)


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test's result."""

    __test__ = False  # not a test class of pytest's

    status: TestStatus
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TestReport:
    """What running a program against a suite gave."""

    __test__ = False

    status: TestStatus
    """Of the whole: passed if every test passed, else the first other status."""
    tests: tuple[TestResult, ...] = ()
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def passed(self) -> int:
        """How many tests passed."""
        return sum(t.status == "passed" for t in self.tests)

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {
            "status": self.status,
            "tests": [[t.status, t.detail] if t.detail else [t.status] for t in self.tests],
            "cpu_seconds": self.cpu_seconds,
            "peak_mb": self.peak_mb,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TestReport:
        """The inverse of `as_json`."""
        tests = tuple(TestResult(*t) for t in data["tests"])
        return cls(data["status"], tests, data["cpu_seconds"], data["peak_mb"])


class Call(Value):
    """Arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Returned:
    """What one call gave: a value as plain data, or why there is none."""

    status: Literal["returned", "failed", "timed_out", "violation", "skipped"]
    value: Any = None
    detail: str = ""
    seconds: float = 0.0
    """CPU time of the call, as the program's own process measured it: trust it for reference programs only."""


class Executor(Protocol):
    """Runs programs in isolation. Safe for concurrent use."""

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        """Run a program against tests. Never raises for anything the program does."""
        ...

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        """Call a program's function with each of the arguments, in one process, in order."""
        ...

    async def close(self) -> None:
        """End every process."""
        ...


async def run_all(
    test: Callable[[Program, Suite, Limits], Awaitable[TestReport]],
    program: Program,
    suite: Suite,
    limits: Limits,
    restarts: int,
) -> list[TestResult]:
    """What each case of a suite gave: where one is timed out or ends the process, those behind it run in a new
    process, so many times. `test` is `run.test`."""
    results: list[TestResult] = []
    for _ in range(restarts + 1):
        rest = suite if not results else Suite(cases=suite.cases[len(results) :])
        report = await test(program, rest, limits)
        done = [t for t in report.tests if t.status != "skipped"]
        results += done
        if len(results) == len(suite.cases) or (len(done) == 1 and done[0].status == "failed"):
            break  # it does not load
    return [*results, *[TestResult("skipped")] * (len(suite.cases) - len(results))]


_SCALARS: frozenset[type] = frozenset((int, float, str, bool, type(None)))


def _stable(value: Any) -> str:
    """`repr`, but the same in every process: sets have no order of their own."""
    if isinstance(value, list | tuple):
        if _SCALARS.issuperset(map(type, value)):
            with contextlib.suppress(ValueError):  # an integer of more digits than Python turns into text
                return f"{type(value).__name__}{json.dumps(value)}"
        return f"{type(value).__name__}({','.join(map(_stable, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({','.join(sorted(map(_stable, value)))})"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_stable(k)}:{_stable(v)}" for k, v in value.items()) + "}"
    if type(value) is int:
        return f"int:{value:x}"  # decimal digits of a huge one are slow, and refused
    return f"{type(value).__name__}:{value!r}"


def _digest(*parts: str) -> str:
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()
