"""A judge, seen from outside: it checks one candidate after the other, each by its suite's checking program.

The candidate's socket is handed to it with each program, so nothing of the candidate's comes here but the verdict.
What a judge may have kept from earlier programs decides nothing: any end of a check that is not plainly a verdict
ends the judge, and another one looks again (running.py). It is kept only after tests that leave nothing behind
(tidy.py), and only where no program can reach it.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from archon.execution import Limits, Program, Suite
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.worker import LATE, Channel, Worker

_MOST_SUITES = 8
_SAID = frozenset(("passed", "wrong", "failed", "violation", "raised", "lost", "apart"))


class Verdict(NamedTuple):
    """What a judge says of a candidate."""

    status: str
    """`passed`, `wrong`, `failed`, `violation`; `raised` while it was loaded; `lost` where it is gone; `apart` where it
    needs a process of its own."""
    detail: str | bytes
    plain: bool
    """Whether the judge is as good as new."""


class Judge:
    """A judge's process."""

    def __init__(self, limits: Limits, link: socket.socket, channel: Channel) -> None:
        self._room = (limits.memory_mb, limits.output_mb)
        self._link = link
        self._channel = channel
        self._suites: list[str] = []
        """Digests of what it judges by, by place."""
        self._given = 0
        self.checked = 0
        """Candidates so far."""

    def has_room(self, limits: Limits) -> bool:
        """Whether it has the memory that these limits say, no less and no more."""
        return self._room == (limits.memory_mb, limits.output_mb)

    async def check(
        self, candidate: socket.socket, program: Program, suite: Suite, limits: Limits
    ) -> Verdict | None:
        """Judge the candidate behind a socket; None where the judge is gone."""
        self.checked += 1
        most = int(limits.output_mb * 2**20)
        self._channel.renew(most, limits.wall_seconds + LATE)
        try:
            place = self._place(suite)
            await self._channel.sent()
            socket.send_fds(self._link, [b"c"], [candidate.fileno()])
        except OSError:
            return None
        finally:
            candidate.close()
        body = wire.encode((place, program.source, program.entry_point, most))
        self._channel.send(wire.frame(wire.CHECK, body))
        answer = await self._channel.receive()
        return _verdict(answer[1]) if answer is not None and answer[0] == wire.VERDICT else None

    def _place(self, suite: Suite) -> int:
        """Where it keeps the suite, which it is given if it has not got it."""
        if suite.digest in self._suites:
            return self._suites.index(suite.digest)
        place = self._given % _MOST_SUITES
        self._given += 1
        self._suites[place : place + 1] = [suite.digest]
        body = wire.encode((place, suite.namespace, suite.check or "", tuple(suite.names)))
        self._channel.send(b"s" + wire.frame(wire.SUITE, body))
        return place

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


async def appointed(worker: Worker, limits: Limits) -> Judge:
    """The worker's judge: the one that is there, or a new one in its place."""
    judge = worker.kept.get("judge")
    if isinstance(judge, Judge) and judge.has_room(limits):
        return judge
    worker.dismiss("judge")
    ours, theirs = socket.socketpair()
    worker.kept["judge"] = judge = Judge(limits, ours, await worker.fork("judge", limits, ours, [theirs]))
    return judge
