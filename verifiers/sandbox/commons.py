"""The commons, seen from outside: a process in which plain programs (plain.py) run one after the other.

Most programs need less time than a process takes to start and end. What runs in the commons is limited, guarded and
compared as anywhere. Whatever does not end well there (memory, recursion, a process that is gone) says nothing: the
program runs again, in a process of its own, and the commons are made anew.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from archon.execution import Limits
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.worker import Channel, Worker


class Left(NamedTuple):
    """What a program had used when it left."""

    cpu: float
    peak_mb: float
    """Of the process so far."""
    well: bool
    """Whether its answers count, and others may follow."""


class Commons:
    """The process."""

    def __init__(self, limits: Limits, link: socket.socket, channel: Channel) -> None:
        self._room = (limits.memory_mb, limits.output_mb)
        self._link = link
        self._channel = channel

    def has_room(self, limits: Limits) -> bool:
        """Whether it has the memory that these limits say, no less and no more."""
        return self._room == (limits.memory_mb, limits.output_mb)

    def enter(self, theirs: socket.socket) -> None:
        """Let a program in by its socket. Raises OSError where the process is gone."""
        socket.send_fds(self._link, [b"p"], [theirs.fileno()])

    async def left(self, seconds: float) -> Left | None:
        """Wait for the program to leave, not long; None where it does not, or the process is gone."""
        self._channel.renew(1 << 16, seconds)
        answer = await self._channel.receive()
        if answer is None or answer[0] != wire.LEFT:
            return None
        try:
            cpu, peak, well = wire.decode(answer[1])
        except (wire.WireError, TypeError, ValueError):
            return None
        return Left(cpu, peak, well) if isinstance(cpu, float) and isinstance(peak, float) else None

    def close(self) -> None:
        """Let it go."""
        self._channel.close()


async def opened_commons(worker: Worker, limits: Limits) -> Commons:
    """The worker's commons: those that are there, or new ones in their place."""
    commons = worker.kept.get("commons")
    if isinstance(commons, Commons) and commons.has_room(limits):
        return commons
    worker.dismiss("commons")
    ours, theirs = socket.socketpair()
    channel = await worker.fork("commons", limits, ours, [theirs])
    worker.kept["commons"] = commons = Commons(limits, ours, channel)
    return commons


__all__ = ["Commons", "Left", "opened_commons"]
