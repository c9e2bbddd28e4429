"""One zygote, seen from outside: start it, give it jobs, read what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from archon.errors import ExecutionError
from archon.execution import Limits
from archon.verifiers.sandbox import wire

_GRACE = 10.0
"""Seconds beyond the wall limit after which a zygote that says nothing is itself taken for dead."""


_INTERPRETER = [
    os.path.realpath(path)
    for path in (
        *(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")),
        sysconfig.get_config_var("LIBDIR"),
    )
    if path
]
"""What the isolated interpreter reads of itself. With a virtual environment these are its parent's."""
_PATIENCE = 5.0
"""Seconds that a zygote has to end by itself when it is told to."""
_DYING = 60.0
"""Seconds that what was killed may take to end: it has to be given a core first, and memory takes time to free."""
LATE = 1.0
"""Seconds after the wall limit at which a program must have been ended."""


class CannotStart(ExecutionError):
    """The sandbox's interpreter cannot be started on this machine."""


class Exit(NamedTuple):
    """What became of a process."""

    role: str
    reason: str
    """`exit` by itself, `cpu` or `wall` limit, `ended` by us."""
    signal: int
    code: int
    cpu: float
    peak_mb: float


class Channel:
    """Frames to and from one child, with a limit on what it may send."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, seconds: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._left = most
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.overrun = False
        """Whether the child sent more than it may."""

    def send(self, data: bytes) -> None:
        """Queue bytes; a child that does not read them ends by its time limit."""
        self._writer.write(data)

    async def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None where the child has ended, broken the protocol, or had its time (a process that
        it left behind may hold the socket open)."""
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._frame()
        except TimeoutError:
            return None

    async def _frame(self) -> tuple[int, bytes] | None:
        try:
            head = await self._reader.readexactly(wire.FRAME.size)
            size, kind = wire.FRAME.unpack(head)
            self._left -= size + wire.FRAME.size
            if self._left < 0:
                self.overrun = True
                return None
            return kind, await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError):
            return None

    def renew(self, most: int, seconds: float) -> None:
        """From now on it may send so much, and has so much time."""
        self._left = most
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def sent(self) -> None:
        """Wait until everything is on its way. Raises OSError where the child is gone."""
        self._writer.transport.set_write_buffer_limits(0)
        await self._writer.drain()

    def close(self) -> None:
        """Let go of the socket."""
        self._writer.close()


class Kept(Protocol):
    """A child that is kept from one job to the next."""

    def close(self) -> object:
        """Let go of it."""
        ...


class File(Protocol):
    """Something to hand to a child: a socket or a file."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...

    def close(self) -> object:
        """Let go of it."""
        ...


class _ToTheEnd(asyncio.StreamReaderProtocol):
    """A connection that breaks has an end: what came before it can still be read. (Where a process ends with
    questions unread, its socket is reset.)"""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


async def connected(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over a socket, which can be read to the end of what came."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20, loop=loop)
    protocol = _ToTheEnd(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, sock=end)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def opened(end: socket.socket, limits: Limits) -> Channel:
    """Frames over a socket to a child with these limits."""
    reader, writer = await connected(end)
    return Channel(reader, writer, int(limits.output_mb * 2**20), limits.wall_seconds + LATE)


@functools.lru_cache(maxsize=64)
def _as_message(limits: Limits) -> dict[str, Any]:
    return limits.model_dump()


class Worker:
    """A zygote process. Use it for one job at a time."""

    def __init__(self, preload: tuple[str, ...], packages: bool, missing: dict[str, str]) -> None:
        self._preload = preload
        self._packages = packages
        self.missing = missing
        """Layers that are not there, and why: known before it starts, and more afterwards."""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._events: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._scratch = ""
        self._inside: list[tuple[int, int]] = []
        """Descriptors and their events that tell when all inside has ended: the process outside ends after it,
        unless that is killed."""
        self._forked = 0
        self._numbers: dict[str, int] = {}
        """The youngest child of each role."""
        self.kept: dict[str, Kept] = {}
        """Children by role that the next job may use."""
        self.busy = True
        """Whether it cannot take a job: not started, in the middle of one, or broken in one."""

    async def start(self) -> None:
        """Start the zygote, without the layers that turn out to be impossible here. Raises ExecutionError where
        that fails."""
        while True:
            ready = await self._started()
            if ready.get("event") != "unable" or ready["layer"] in self.missing:
                break
            self.missing[ready["layer"]] = ready["why"]
            await self.close()
        if ready.get("event") != "ready":
            raise CannotStart(f"the sandbox's interpreter did not start (it said {ready!r})")
        self.missing.update(ready["missing"])
        self._inside = _children(self._process)
        self.busy = False

    async def _started(self) -> dict[str, Any]:
        """Start the process; the first thing it says."""
        ours, theirs = socket.socketpair()
        scratch = self._scratch = tempfile.mkdtemp(prefix="archon-")
        paths = [p for p in sys.path if "site-packages" in p] if self._packages else []
        settings = {
            "control": theirs.fileno(),
            "scratch": scratch,
            "paths": paths,
            "preload": list(self._preload),
            "readable": [*_INTERPRETER, *map(os.path.realpath, paths), *paths],
            "without": self.missing,
        }
        command = [
            getattr(sys, "_base_executable", None) or sys.executable,
            "-s", "-S", "-P", "-B",
            str(Path(__file__).with_name("zygote.py")),
            json.dumps(settings),
        ]  # fmt: skip
        environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        try:
            starting = asyncio.ensure_future(
                asyncio.to_thread(
                    subprocess.Popen,
                    command,
                    env=environment,
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            try:
                self._process = await asyncio.shield(starting)
            except asyncio.CancelledError:  # it starts all the same, and is for `close` to end
                self._process = await starting
                ours.close()
                raise
        except OSError as error:
            ours.close()
            raise CannotStart(f"cannot start the sandbox's interpreter: {error}") from error
        finally:
            theirs.close()
        self._control = ours
        self._events, self._writer = await asyncio.open_connection(sock=ours)
        return await self._event(30.0)

    def launch(self, role: str, limits: Limits, theirs: Sequence[File]) -> None:
        """Fork a child that gets these files. Raises ExecutionError where the zygote is gone."""
        self._forked += 1
        self._numbers[role] = self._forked
        try:
            message = {"op": "fork", "role": role, "id": self._forked, "files": len(theirs)}
            self._tell({**message, "limits": _as_message(limits)}, theirs)
        finally:
            for one in theirs:
                one.close()

    def begin(self, limits: Limits) -> None:
        """Begin a job of a child that is there. Raises ExecutionError where the zygote is gone."""
        self._tell({"op": "begin", "limits": _as_message(limits)}, [])

    def _tell(self, message: dict[str, Any], files: Sequence[File]) -> None:
        assert self._control is not None
        self.busy = True
        try:
            data = json.dumps(message).encode() + b"\n"
            socket.send_fds(self._control, [data], [s.fileno() for s in files])
        except OSError as error:
            raise ExecutionError(f"the sandbox's interpreter is gone: {error}") from error

    async def fork(self, role: str, limits: Limits, ours: socket.socket, theirs: Sequence[File]) -> Channel:
        """Fork a child that gets their sockets; frames over ours, the other end of the first."""
        try:
            self.launch(role, limits, theirs)
            return await opened(ours, limits)
        except BaseException:
            ours.close()
            raise

    async def exited(self, wall_seconds: float) -> Exit:
        """Wait for a child's end. Raises ExecutionError where the zygote itself is gone or silent."""
        while True:
            event = await self._event(wall_seconds + _GRACE)
            if event.get("event") != "exit":
                raise ExecutionError(
                    f"the sandbox's interpreter said {event!r} instead of how a program ended"
                )
            if (exit := self._exit(event)) is not None:
                return exit

    async def end(self) -> list[Exit]:
        """End the job: kill what is left but who is kept, and clean up; what ended only now."""
        assert self._writer is not None
        self._writer.write(json.dumps({"op": "end", "keep": [*self.kept]}).encode() + b"\n")
        exits: list[Exit] = []
        while True:
            event = await self._event(_GRACE)
            if event.get("event") == "clean":
                self.busy = False
                return exits
            if event.get("event") != "exit":
                raise ExecutionError(f"the sandbox's interpreter said {event!r}")
            if (exit := self._exit(event)) is not None:
                exits.append(exit)

    def _exit(self, event: dict[str, Any]) -> Exit | None:
        """What became of a child; None of one that was let go before."""
        if event["id"] != self._numbers[event["role"]]:
            return None
        self.dismiss(event["role"])
        return Exit(*(event[name] for name in Exit._fields))

    def dismiss(self, *roles: str) -> None:
        """Let go of who was kept in these roles (or in any): the next program gets another one."""
        for role in roles or tuple(self.kept):
            kept = self.kept.pop(role, None)
            if kept is not None:
                kept.close()

    async def _event(self, seconds: float) -> dict[str, Any]:
        assert self._events is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._events.readline()
        except TimeoutError:
            return {"event": "silence"}
        except OSError:  # it is gone, and we wrote to it
            return {"event": "end"}
        if not line:
            return {"event": "end"}
        event: dict[str, Any] = json.loads(line)
        return event

    async def close(self) -> None:
        """End the zygote and everything under it, in the middle of a job too, and wait until it has ended."""
        self.dismiss()
        if self._writer is not None and self._control is not None:
            with contextlib.suppress(OSError):
                self._inside.append((os.dup(self._control.fileno()), select.POLLHUP))
                self._control.shutdown(socket.SHUT_WR)  # it sees that, and knows best what there is to end
            self._writer.close()
        process, self._process = self._process, None
        inside, self._inside = self._inside, []
        await asyncio.to_thread(_gone, process, inside, self._scratch)


def _children(process: subprocess.Popen[bytes] | None) -> list[tuple[int, int]]:
    """Descriptors of a process's children, with the event of their end."""
    found: list[tuple[int, int]] = []
    if process is not None:
        with contextlib.suppress(OSError):  # it is gone, or this kernel does not list them
            listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            found.extend((os.pidfd_open(int(pid)), select.POLLIN) for pid in listed.split())
    return found


def _gone(process: subprocess.Popen[bytes] | None, inside: Sequence[tuple[int, int]], scratch: str) -> None:
    """Wait until a zygote is gone with everything in it, and its folder."""
    if process is not None:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for descriptor, event in inside:
        ended = select.poll()
        ended.register(descriptor, event)
        ended.poll(_DYING * 1000)
        os.close(descriptor)
    if scratch and Path(scratch).exists():  # the zygote could not remove it itself
        subprocess.run(["/bin/rm", "-rf", scratch], stderr=subprocess.DEVNULL, check=False)
