"""Running a program as a whole: text in on its standard input, text out on its standard output, then its end.

Its input is a sealed file in memory, as `< input.txt` would be; its output is read here while it runs, and no
further than it may print.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from typing import BinaryIO, NamedTuple

from archon.errors import ExecutionError
from archon.execution import Limits
from archon.verifiers.sandbox import wire
from archon.verifiers.sandbox.worker import LATE, Exit, Worker, connected

_SEALED = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_PIECE = 1 << 16


class Run(NamedTuple):
    """What became of one run."""

    printed: bytes
    overrun: bool
    """Whether it printed more than it may."""
    raised: bytes | None
    """The exception that ended it, as it says itself."""
    exit: Exit


async def run_whole(worker: Worker, source: str, stdin: str, limits: Limits) -> Run:
    """Run a program once. Raises ExecutionError where the worker is gone."""
    ours, theirs = socket.socketpair()
    printed_here, printed_there = socket.socketpair()
    given = await asyncio.to_thread(_file_of, stdin)
    try:
        channel = await worker.fork("script", limits, ours, [theirs, given, printed_there])
    except BaseException:
        printed_here.close()
        raise
    exits: list[Exit] = []
    raised = None
    try:
        reader, writer = await connected(printed_here)
        try:
            channel.send(wire.frame(wire.LOAD, wire.encode((source, ""))))
            printed, overrun = await _read(reader, limits)
        finally:
            writer.close()
        if not overrun:
            exits.append(await worker.exited(limits.wall_seconds))
            said = await channel.receive()
            raised = said[1] if said is not None and said[0] == wire.RAISED else None
    finally:
        channel.close()
        exits += await worker.end()
    if not exits:
        raise ExecutionError("the sandbox's interpreter did not say how a program ended")
    return Run(printed, overrun, raised, exits[0])


async def _read(reader: asyncio.StreamReader, limits: Limits) -> tuple[bytes, bool]:
    """Everything printed, and whether it was too much."""
    most = int(limits.output_mb * 2**20)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.wall_seconds + LATE):
            while size <= most and (part := await reader.read(_PIECE)):
                parts.append(part)
                size += len(part)
    except TimeoutError:  # something it left behind holds its output open
        pass
    return b"".join(parts), size > most


def _file_of(text: str) -> BinaryIO:
    file = os.fdopen(os.memfd_create("input", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC), "w+b", buffering=0)
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    while data:
        data = data[file.write(data) :]
    file.seek(0)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALED)
    return file
