"""A judge, seen from outside: it checks one candidate after the other by one suite's checking program.

The candidate's socket is handed to it with each program, so nothing of the candidate's comes here but the verdict.
What a judge may have kept from earlier programs decides nothing: any end of a check that is not plainly a verdict
ends the judge, and another one looks again (executor.py).
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from archon.execution import Limits, Program, Suite
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.worker import LATE, Channel, Worker

_SAID = frozenset(("passed", "wrong", "failed", "violation", "raised", "lost"))


class Verdict(NamedTuple):
    """What a judge says of a candidate."""

    status: str
    """`passed`, `wrong`, `failed`, `violation`; `raised` while it was loaded; `lost` where it is gone."""
    detail: str | bytes
    plain: bool
    """Whether the judge is as good as new."""


class Judge:
    """A judge's process."""

    def __init__(self, suite: Suite, limits: Limits, link: socket.socket, channel: Channel) -> None:
        self.suite = suite.digest
        self._limits = limits
        self._link = link
        self._channel = channel
        self.checked = 0
        """Candidates so far."""

    def serves(self, suite: Suite, limits: Limits) -> bool:
        """Whether it judges by this suite, within these limits."""
        return self.suite == suite.digest and self._limits == limits

    async def check(self, candidate: socket.socket, program: Program, limits: Limits) -> Verdict | None:
        """Judge the candidate behind a socket; None where the judge is gone."""
        self.checked += 1
        most = int(limits.output_mb * 2**20)
        self._channel.renew(most, limits.wall_seconds + LATE)
        try:
            await self._channel.sent()
            socket.send_fds(self._link, [b"c"], [candidate.fileno()])
        except OSError:
            return None
        finally:
            candidate.close()
        self._channel.send(wire.frame(wire.CHECK, wire.encode((program.source, program.entry_point, most))))
        answer = await self._channel.receive()
        return _verdict(answer[1]) if answer is not None and answer[0] == wire.VERDICT else None

    def close(self) -> None:
        """Let it go."""
        self._channel.close()


def _verdict(body: bytes) -> Verdict | None:
    try:
        status, detail, plain = wire.decode(body)
    except (wire.WireError, TypeError, ValueError):
        return None  # no judge of ours says that
    known = isinstance(status, str) and isinstance(detail, str | bytes) and isinstance(plain, bool)
    return Verdict(status, detail, plain) if known and status in _SAID else None


async def appointed(worker: Worker, suite: Suite, limits: Limits) -> Judge:
    """The worker's judge for a suite: the one that is there, or a new one in its place."""
    judge = worker.judge
    if isinstance(judge, Judge) and judge.serves(suite, limits):
        return judge
    worker.dismiss()
    ours, theirs = socket.socketpair()
    channel = await worker.fork("judge", limits, ours, [theirs])
    body = wire.encode((suite.namespace, suite.check or "", tuple(suite.names)))
    channel.send(wire.frame(wire.SUITE, body))
    worker.judge = judge = Judge(suite, limits, ours, channel)
    return judge


def knows(worker: Worker, suite: Suite) -> bool:
    """Whether the worker's judge judges by this suite."""
    return isinstance(worker.judge, Judge) and worker.judge.suite == suite.digest
