"""The executor: programs against tests, several at once, compared where no program can reach (D8).

Cases: the program's process gets the arguments of every case and returns values; each is compared here,
first as bytes with the expected value's, then by the rules of compare.py: in a thread where it is large, and
not at all where it holds more items than a right answer can. Checking programs: a judge in a process of its
own calls the program through a socket.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple, TypeVar

from archon.errors import ExecutionError, UserError
from archon.execution import (
    Call,
    Exchange,
    Limits,
    Program,
    Returned,
    Suite,
    TestReport,
    TestResult,
    TestStatus,
)
from archon.problem import Case
from archon.verifiers.compare import matches, shown
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.layers import CHOICE, Isolation, Layer, layers, refusal, unguarded
from archon.verifiers.sandbox.output import differs
from archon.verifiers.sandbox.running import LARGE, Running, described, explained, raised, reachable
from archon.verifiers.sandbox.whole import Run, run_whole
from archon.verifiers.sandbox.worker import CannotStart, Worker

T = TypeVar("T")

_FRESH_STARTS = 3
_SMALL = 20_000
_MOST_ITEMS = 1_000_000
"""Items up to which an answer is read whatever was expected: by the rule `equal`, and by others."""


class _Target(NamedTuple):
    """What the answers to a case are compared with."""

    case: Case
    data: bytes
    """The expected value."""
    most: int
    """Items beyond which no answer is right: each item of an equal value takes a byte or more."""


class Sandbox:
    """Runs programs in forked, limited, isolated processes; one more at once than there are cores, as each is waited
    for now and then.

    `isolation` is `strict` unless it, or ARCHON_SANDBOX in the environment, says `weak` (layers.py). `without`
    names layers to do without, as if the kernel refused them. `together`: whether programs that only compute with
    values (plain.py) may share a process, one after the other.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        isolation: Isolation | None = None,
        without: Sequence[str] = (),
        together: bool = True,
    ) -> None:
        self._isolation = isolation or _asked_for()
        self._size = workers or len(os.sched_getaffinity(0)) + 1
        self._idle: dict[tuple[tuple[str, ...], bool], list[Worker]] = {}
        self._slots: asyncio.Semaphore | None = None
        self._suites: dict[str, asyncio.Future[tuple[bytes, list[_Target]]]] = {}
        self._closed = False
        self._busy: set[Worker] = set()
        self._missing = dict.fromkeys(without, "not used, as asked")
        self._together = together

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        """Run a program against tests. Never raises for anything the program does."""
        reports: list[TestReport] = []
        try:
            if suite.cases:
                reports.append(
                    await self._somehow(self._cases, program, suite, limits, stop_at_first_failure)
                )
            if suite.exchanges and not (
                stop_at_first_failure and _first_failure([r.status for r in reports]) != "passed"
            ):
                reports.append(
                    await self._retried(self._exchanges, program, suite, limits, stop_at_first_failure)
                )
            if suite.check is not None and not (
                stop_at_first_failure and _first_failure([r.status for r in reports]) != "passed"
            ):
                reports.append(await self._somehow(self._check, program, suite, limits))
        except CannotStart:
            raise
        except ExecutionError as error:
            if self._closed:
                raise
            result = TestResult("violation", f"it ended the sandbox around it, again and again: {error}")
            reports.append(TestReport("violation", (result,)))
        results = [t for r in reports for t in r.tests]
        return TestReport(
            _first_failure([r.status for r in reports]),
            (*results, *[TestResult("skipped")] * (len(suite) - len(results))),
            sum(r.cpu_seconds for r in reports),
            max((r.peak_mb for r in reports), default=0.0),
        )

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        """Call a program's function with each of the arguments, in one process, in order."""
        results: Sequence[Returned] = await self._somehow(self._evaluate, program, calls, limits)
        return results

    async def close(self) -> None:
        """End every process."""
        self._closed = True
        workers = [*self._busy, *(w for idle in self._idle.values() for w in idle)]
        self._idle.clear()
        await asyncio.gather(*(worker.close() for worker in workers))

    async def layers(self) -> tuple[Layer, ...]:
        """What protects here, and what does not and why."""
        async with self._worker((), False) as worker:
            return layers(worker.missing)

    # --- the ways to run a program -------------------------------------------------------------------

    async def _somehow(self, way: Any, program: Program, *args: Any) -> Any:
        """Together with other programs where that is possible, else alone."""
        found = await self._retried(way, program, *args, True) if self._together else None
        return found if found is not None else await self._retried(way, program, *args, False)

    async def _cases(
        self, program: Program, suite: Suite, limits: Limits, stop: bool, together: bool
    ) -> TestReport | None:
        calls, targets = await self._prepare(suite)
        results: list[TestResult] = []
        decided = False
        async with self._running(program, limits, together) as running:
            problem = await running.load()
            if problem is None:
                running.channel.send(calls)
                for target in targets:
                    answer = await running.channel.receive()
                    if answer is None:
                        break
                    results.append(await _judged(target, answer))
                    decided = stop and results[-1].status != "passed"
                    if decided:
                        break
            done = problem is not None or len(results) == len(suite.cases)
            ending = await running.end(complete=done or decided, early=decided)
        if running.apart:
            return None
        if problem is not None:
            results = [problem]
        elif ending is not None:
            results.append(TestResult(ending.status, ending.detail))
        first = _first_failure([r.status for r in results])
        skipped = [TestResult("skipped")] * (len(suite.cases) - len(results))
        return TestReport(first, (*results, *skipped), running.cpu, running.peak_mb)

    async def _exchanges(self, program: Program, suite: Suite, limits: Limits, stop: bool) -> TestReport:
        results: list[TestResult] = []
        cpu = peak = 0.0
        async with self._worker(program.preload, program.packages) as worker:
            for exchange in suite.exchanges:
                if stop and results and results[-1].status != "passed":
                    break
                run = await run_whole(worker, program.source, exchange.stdin, limits)
                results.append(await _printed(run, exchange, limits))
                cpu, peak = cpu + run.exit.cpu, max(peak, run.exit.peak_mb)
        first = _first_failure([r.status for r in results])
        skipped = [TestResult("skipped")] * (len(suite.exchanges) - len(results))
        return TestReport(first, (*results, *skipped), cpu, peak)

    async def _check(
        self, program: Program, suite: Suite, limits: Limits, together: bool
    ) -> TestReport | None:
        """By a judge that may have checked others before, where that decides nothing; else by one of its own."""
        for first in (False, True):
            async with self._running(program, limits, together) as running:
                result = await running.judged(suite, first=first)
            if running.apart:
                return None
            if result is not None:
                return TestReport(result.status, (result,), running.cpu, running.peak_mb)
        raise AssertionError("a judge's first verdict counts")

    async def _evaluate(
        self, program: Program, calls: Sequence[Call], limits: Limits, together: bool
    ) -> list[Returned] | None:
        results: list[Returned] = []
        async with self._running(program, limits, together) as running:
            problem = await running.load()
            if problem is None:
                running.channel.send(b"".join(_call(c.args, c.kwargs) for c in calls))
                while len(results) < len(calls):
                    answer = await running.channel.receive()
                    if answer is None:
                        break
                    results.append(await _apart(len(answer[1]), _returned, answer))
            ending = await running.end(complete=problem is not None or len(results) == len(calls))
        if running.apart:
            return None
        if problem is not None:
            return [Returned(_without_value(problem.status), detail=problem.detail)] * len(calls)
        if ending is not None and len(results) < len(calls):
            results.append(Returned(_without_value(ending.status), detail=ending.detail))
        return [*results, *[Returned("skipped")] * (len(calls) - len(results))]

    # --- processes ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def _running(self, program: Program, limits: Limits, together: bool) -> AsyncIterator[Running]:
        async with self._worker(program.preload, program.packages) as worker:
            running = Running(worker, program, limits, together=together and not reachable(worker))
            try:
                yield running
            finally:
                await running.end(complete=True, early=True)

    @asynccontextmanager
    async def _worker(self, preload: tuple[str, ...], packages: bool) -> AsyncIterator[Worker]:
        """A zygote to oneself: an idle one, or a new one. One that failed is not used again."""
        if self._slots is None:
            self._slots = asyncio.Semaphore(self._size)
        async with self._slots:
            self._still_open()
            idle = self._idle.setdefault((preload, packages), [])
            worker = idle.pop() if idle else Worker(preload, packages, self._missing)
            try:
                if worker.busy:
                    await worker.start()
                    self._still_open()
                if self._isolation == "strict" and unguarded(worker.missing):
                    raise CannotStart(refusal(worker.missing))
                self._busy.add(worker)
                yield worker
            finally:
                self._busy.discard(worker)
                if worker.busy or self._closed:
                    await asyncio.shield(worker.close())
                else:
                    idle.append(worker)

    def _still_open(self) -> None:
        if self._closed:
            raise ExecutionError("the sandbox is closed")

    async def _retried(self, way: Any, *args: Any) -> Any:
        """Again with a new zygote where one broke: a program must not be able to spoil another's run."""
        for attempt in range(_FRESH_STARTS):
            try:
                return await way(*args)
            except ExecutionError:
                if attempt == _FRESH_STARTS - 1 or self._closed:
                    raise
        raise AssertionError

    async def _prepare(self, suite: Suite) -> tuple[bytes, list[_Target]]:
        """A suite's calls and targets; kept, as a suite serves many programs."""
        known = self._suites.get(suite.digest)
        if known is None:
            if len(self._suites) > 64:
                self._suites.pop(next(iter(self._suites)))
            known = asyncio.ensure_future(asyncio.to_thread(_encoded, suite))
            self._suites[suite.digest] = known
        return await asyncio.shield(known)


def _asked_for() -> Isolation:
    choice = os.environ.get(CHOICE) or "strict"
    if choice not in ("strict", "weak"):
        raise UserError(f"{CHOICE} is {choice!r}, and should be strict or weak")
    return "weak" if choice == "weak" else "strict"


def _first_failure(statuses: Sequence[TestStatus]) -> TestStatus:
    for status in statuses:
        if status != "passed":
            return status
    return "passed"


def _call(args: Sequence[Any], kwargs: Any) -> bytes:
    return wire.frame(wire.CALL, wire.encode((tuple(args), dict(kwargs))))


def _encoded(suite: Suite) -> tuple[bytes, list[_Target]]:
    """Every call of a suite as bytes, and what its answers are compared with."""
    targets = []
    for case in suite.cases:
        forms = [wire.encode(value) for value in (case.expected, *case.alternatives)]
        least = _SMALL if case.rule == "equal" else _MOST_ITEMS
        targets.append(_Target(case, forms[0], max(least, *map(len, forms))))
    return b"".join(_call(case.args, case.kwargs) for case in suite.cases), targets


async def _judged(target: _Target, answer: tuple[int, bytes]) -> TestResult:
    """One answer compared with what was expected."""
    kind, body = answer
    if kind == wire.RAISED:
        return raised(body)
    if kind != wire.RETURNED:
        return TestResult("violation", "its process broke the protocol")
    if target.case.rule == "equal" and len(body) == 9 + len(target.data) and body.endswith(target.data):
        return TestResult("passed")
    return await _apart(max(len(body), len(target.data)), _compared, target, body)


async def _apart(size: int, work: Callable[..., T], *args: Any) -> T:
    """Do the work on so many bytes without keeping others waiting."""
    if size > LARGE:
        return await asyncio.to_thread(work, *args)
    await asyncio.sleep(0)
    return work(*args)


async def _printed(run: Run, exchange: Exchange, limits: Limits) -> TestResult:
    """What a whole program printed, compared with what it should; first whether it came to a good end."""
    if run.overrun:
        return TestResult("violation", f"it printed more than {limits.output_mb:g} MB")
    exit = run.exit
    if exit.reason != "exit" or exit.signal:
        ending = explained(exit, limits)
        return TestResult(ending.status, ending.detail)
    if exit.code:
        said = raised(run.raised) if run.raised is not None else None
        return said or TestResult("failed", f"its process ended with exit code {exit.code}")
    size = len(run.printed) + len(exchange.stdout)
    difference = await _apart(size, differs, run.printed, exchange.stdout, exchange.tolerance)
    return TestResult("wrong", difference) if difference else TestResult("passed")


def _compared(target: _Target, body: bytes) -> TestResult:
    expected = target.case.expected
    try:
        value = wire.decode(body[9:], target.most)
    except wire.TooManyItems:
        return TestResult("wrong", f"returned more than {target.most} items, expected {shown(expected)}")
    except wire.WireError as error:
        return TestResult("violation", f"its answer cannot be read: {error}")
    if matches(target.case, value):
        return TestResult("passed")
    return TestResult("wrong", f"returned {shown(value)}, expected {shown(expected)}")


def _returned(answer: tuple[int, bytes]) -> Returned:
    kind, body = answer
    if kind == wire.RAISED:
        return Returned("failed", detail=described(body))
    try:
        spent, value = wire.decode(body[:9]), wire.decode(body[9:])
    except wire.WireError as error:
        return Returned("violation", detail=f"its answer cannot be read: {error}")
    return Returned("returned", value, seconds=spent if isinstance(spent, float) and spent >= 0 else 0.0)


def _without_value(status: TestStatus) -> Literal["failed", "timed_out", "violation"]:
    if status == "timed_out" or status == "violation":
        return status
    return "failed"


__all__ = ["Sandbox"]
