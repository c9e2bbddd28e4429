"""One program in its process: load it, let it answer or have it judged, and tell how it ended."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import cast

from archon.execution import Limits, Program, Suite, TestResult, TestStatus
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.judge import Verdict, appointed
from archon.verifiers.sandbox.tidy import tidy
from archon.verifiers.sandbox.worker import Channel, Exit, Worker

LARGE = 16 * 1024
"""Bytes that take so long to read (some milliseconds) that others should get their turn."""
_LONGEST_DETAIL = 300
_BROKEN_LIMITS = ("MemoryError", f"OSError: [Errno {errno.EFBIG}]", f"OSError: [Errno {errno.ENOSPC}]")
"""Exceptions that a limit of memory, file size or files causes."""


@dataclass
class Ending:
    """How a program's process ended, for those it left without an answer."""

    status: TestStatus
    detail: str


class Running:
    """A program in its process."""

    channel: Channel

    def __init__(self, worker: Worker, program: Program, limits: Limits) -> None:
        self._worker = worker
        self._program = program
        self._limits = limits
        self._exits: dict[str, Exit] = {}
        self._ended = False
        self.cpu = 0.0
        self.peak_mb = 0.0

    async def load(self) -> TestResult | None:
        """Start and load the program; what is wrong with it, if it does not load."""
        ours, theirs = socket.socketpair()
        self.channel = await self._worker.fork("candidate", self._limits, ours, [theirs])
        body = wire.encode((self._program.source, self._program.entry_point))
        self.channel.send(wire.frame(wire.LOAD, body))
        answer = await self.channel.receive()
        if answer is None:
            ending = await self.end(complete=False)
            assert ending is not None
            return TestResult(ending.status, ending.detail)
        kind, data = answer
        if kind == wire.LOADED:
            return None
        return raised(data)

    async def judged(self, suite: Suite, *, first: bool) -> TestResult | None:
        """Start the program and let a judge check it: one that checks its first program, or any. None where
        something happened that an earlier program might have caused."""
        if first:
            self._worker.dismiss()
        ours, theirs = socket.socketpair()
        with contextlib.closing(ours):
            try:
                self._worker.launch("candidate", self._limits, [theirs])
                judge = await appointed(self._worker, self._limits)
                verdict = await judge.check(ours, self._program, suite, self._limits)
            except BaseException:
                self._worker.dismiss()  # it is in the middle of something
                raise
        if verdict is None or not verdict.plain or not self._may_stay(suite):
            self._worker.dismiss()
        decided = verdict is not None and verdict.status != "lost"
        ending = await self.end(complete=decided)
        if judge.checked > 1 and not (verdict.plain if verdict is not None else self._ran_out()):
            return None
        if (
            verdict is None or ending is not None
        ):  # the judge lost its candidate; why that ended is known here
            assert ending is not None
            return TestResult(ending.status, ending.detail)
        return _told(verdict)

    async def end(self, *, complete: bool) -> Ending | None:
        """End the job. Where the program did not answer everything, how it ended."""
        if self._ended or not self._worker.busy:
            return None
        self._ended = True
        overrun = hasattr(self, "channel") and self.channel.overrun
        try:
            if not complete and not overrun:
                # It closed its socket or is gone: give it the moment to die by itself, to know why.
                while "candidate" not in self._exits:
                    exit = await self._worker.exited(self._limits.wall_seconds)
                    self._exits[exit.role] = exit
        finally:
            if hasattr(self, "channel"):
                self.channel.close()
        for exit in await self._worker.end():
            self._exits.setdefault(exit.role, exit)
        candidate = self._exits.get("candidate")
        if candidate is not None:
            self.cpu, self.peak_mb = candidate.cpu, candidate.peak_mb
        if complete:
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

    def _may_stay(self, suite: Suite) -> bool:
        """Whether a judge of this suite can judge more programs: no program can reach it, nor its own tests harm it."""
        if "namespaces" in self._worker.missing:
            return False
        return tidy(suite.namespace, suite.check or "")

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
