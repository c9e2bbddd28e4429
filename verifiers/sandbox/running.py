"""One program in its process: load it, let it answer or have it judged, and tell how it ended."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import cast

from archon.errors import ExecutionError
from archon.execution import Limits, Program, Suite, TestResult, TestStatus
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.commons import Commons, opened_commons
from archon.verifiers.sandbox.judge import Verdict, appointed
from archon.verifiers.sandbox.tidy import tidy
from archon.verifiers.sandbox.worker import Channel, Exit, Worker, opened

LARGE = 16 * 1024
"""Bytes that take so long to read (some milliseconds) that others should get their turn."""
_LONGEST_DETAIL = 300
_A_MOMENT, _A_WHILE = 0.1, 5.0
"""Seconds that a shared process has to see that nobody wants more of a program: while that may be at work; after it."""
_BROKEN_LIMITS = ("MemoryError", f"OSError: [Errno {errno.EFBIG}]", f"OSError: [Errno {errno.ENOSPC}]")
"""Exceptions that a limit of memory, file size or files causes."""


@dataclass
class Ending:
    """How a program's process ended, for those it left without an answer."""

    status: TestStatus
    detail: str


def reachable(worker: Worker) -> bool:
    """Whether programs could reach other processes than their own."""
    return "namespaces" in worker.missing


class Running:
    """A program in its process, or in one that it shares with others."""

    channel: Channel

    def __init__(self, worker: Worker, program: Program, limits: Limits, *, together: bool = False) -> None:
        self._worker = worker
        self._program = program
        self._limits = limits
        self._commons: Commons | None = None
        self._together = together
        self._role = "commons" if together else "candidate"
        self._exits: dict[str, Exit] = {}
        self._ended = False
        self.apart = False
        """Whether nothing that was found counts, and the program needs a process of its own."""
        self.cpu = 0.0
        self.peak_mb = 0.0

    async def _started(self) -> socket.socket:
        """Our end of the program's socket."""
        ours, theirs = socket.socketpair()
        try:
            if not self._together:
                self._worker.launch("candidate", self._limits, [theirs])
                return ours
            with contextlib.closing(theirs):
                self._worker.begin(self._limits)
                self._commons = await opened_commons(self._worker, self._limits)
                self._commons.enter(theirs)
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError):
                raise ExecutionError(f"the process that programs share is gone: {error}") from error
            raise
        return ours

    async def load(self) -> TestResult | None:
        """Start and load the program; what is wrong with it, if it does not load."""
        self.channel = await opened(await self._started(), self._limits)
        body = wire.encode((self._program.source, self._program.entry_point))
        self.channel.send(wire.frame(wire.LOAD, body))
        answer = await self.channel.receive()
        if answer is None:
            ending = await self.end(complete=False)
            assert ending is not None or self.apart
            return TestResult(ending.status, ending.detail) if ending is not None else TestResult("skipped")
        kind, data = answer
        if kind == wire.LOADED:
            return None
        self.apart = kind == wire.APART
        return raised(data)

    async def judged(self, suite: Suite, *, first: bool) -> TestResult | None:
        """Start the program and let a judge check it: one that checks its first program, or any. None where
        something happened that an earlier program might have caused."""
        if first:
            self._worker.dismiss("judge")
        try:
            with contextlib.closing(await self._started()) as ours:
                judge = await appointed(self._worker, self._limits)
                verdict = await judge.check(ours, self._program, suite, self._limits)
        except BaseException:
            self._worker.dismiss()  # it is in the middle of something
            raise
        if verdict is None or not verdict.plain or not self._may_stay(suite):
            self._worker.dismiss("judge")
        decided = verdict is not None and verdict.status != "lost"
        ending = await self.end(complete=decided)
        if self.apart:
            return None
        if judge.checked > 1 and not (verdict.plain if verdict is not None else self._ran_out()):
            return None
        if verdict is None or ending is not None:  # it lost its candidate; why that ended is known here
            assert ending is not None
            return TestResult(ending.status, ending.detail)
        self.apart = self.apart or verdict.status == "apart"
        return _told(verdict)

    async def end(self, *, complete: bool, early: bool = False) -> Ending | None:
        """End the job. Where the program did not answer everything, how it ended. `early`: it may still be at work."""
        if self._ended or not self._worker.busy:
            return None
        self._ended = True
        overrun = hasattr(self, "channel") and self.channel.overrun
        try:
            if not complete and not overrun:
                # It closed its socket or is gone: give it the moment to die by itself, to know why.
                while self._role not in self._exits and not self._left_by_judge():
                    exit = await self._worker.exited(self._limits.wall_seconds)
                    self._exits[exit.role] = exit
        finally:
            if hasattr(self, "channel"):
                self.channel.close()
        if self._together:
            await self._leave(complete and not overrun, _A_MOMENT if early else _A_WHILE)
        for exit in await self._worker.end():
            self._exits.setdefault(exit.role, exit)
        candidate = self._exits.get(self._role)
        if candidate is not None:
            self.cpu, self.peak_mb = candidate.cpu, candidate.peak_mb
        if complete or self.apart:
            return None
        if overrun:
            return Ending("violation", f"it returned more than {self._limits.output_mb:g} MB")
        judge = self._exits.get("judge")
        assert candidate is not None
        if (
            judge is not None
            and judge.reason == "exit"
            and judge.signal
            and candidate.reason == "exit"
            and not candidate.signal
        ):
            return Ending("violation", f"its answers ended the checking process (signal {judge.signal})")
        return explained(candidate, self._limits)

    async def _leave(self, complete: bool, seconds: float) -> None:
        """See the program out of the process that it shares, or end that. Where it answered everything that anybody
        wanted, its answers count, unless they had to do with being there."""
        left = None
        if complete and self._commons is not None and self._worker.kept.get("commons") is self._commons:
            left = await self._commons.left(seconds)
        if left is not None:
            self.cpu, self.peak_mb = left.cpu, left.peak_mb
            well = left.well
        else:
            well = seconds == _A_MOMENT if complete else self._ran_out()
        if left is None or not well:
            self._worker.dismiss("commons")
        self.apart = self.apart or not well

    def _may_stay(self, suite: Suite) -> bool:
        """Whether a judge of this suite can judge more programs: no program can reach it, nor its own tests harm it."""
        return not reachable(self._worker) and tidy(suite.namespace, suite.check or "")

    def _left_by_judge(self) -> bool:
        """Whether it is there, and waits for a judge that is not."""
        judge = self._exits.get("judge")
        return self._together and judge is not None and judge.reason == "exit"

    def _ran_out(self) -> bool:
        """Whether its time is what ended it."""
        return any(exit.reason in ("cpu", "wall") for exit in self._exits.values())


def _told(verdict: Verdict) -> TestResult:
    status, detail, _ = verdict
    if isinstance(detail, bytes):
        return raised(detail)
    if status == "failed" and detail.startswith(_BROKEN_LIMITS):
        status = "violation"
    return TestResult(cast("TestStatus", status), detail)


def explained(exit: Exit, limits: Limits) -> Ending:
    """What an exit says about a program that left something unanswered."""
    if exit.reason == "cpu":
        return Ending("timed_out", f"more than {limits.cpu_seconds:g} s of CPU time")
    if exit.reason == "wall":
        return Ending("timed_out", f"more than {limits.wall_seconds:g} s of waiting")
    if exit.signal == 25:
        return Ending("violation", f"it wrote a file of more than {limits.output_mb:g} MB")
    if exit.signal:
        return Ending("failed", f"its process was ended by signal {exit.signal}")
    return Ending("failed", f"its process ended by itself, with exit code {exit.code}")


def raised(body: bytes) -> TestResult:
    """What an exception says; one that a broken limit caused is no fault of the program's logic."""
    detail = described(body)
    return TestResult("violation" if detail.startswith(_BROKEN_LIMITS) else "failed", detail)


def described(body: bytes) -> str:
    """What an exception says of itself."""
    try:
        if len(body) > LARGE:  # nothing that child.py wrote
            raise ValueError
        name, message = wire.decode(body)
        text = f"{name}: {message}" if message else str(name)
        return " ".join(text.split())[:_LONGEST_DETAIL]
    except (wire.WireError, ValueError, TypeError):
        return "an exception it did not describe"
