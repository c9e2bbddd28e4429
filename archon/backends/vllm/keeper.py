"""A keeper: the process between us and one vLLM server, which ends the server when nobody holds it any more.

A server is several processes, and they outlive the one that is killed: an engine whose API server is gone
keeps its memory and its cores for ever. So the keeper is their parent, and adopts those of them that lose
theirs (a subreaper). Whoever uses the server holds a connection to the keeper's socket; a process that dies,
even by `kill -9`, lets go of it. When the last is gone the keeper waits as long as that one asked it to (`keep`),
then kills everything beneath it and ends. A second process waits for the keeper's own death, to do the same where
that is sudden.

It is a program of its own: `python keeper.py`, with its orders as JSON on standard input. It writes a line of JSON
to each holder whenever its state changes, and needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

TAKEN = 3
"""The exit code where another keeper has the same orders."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_FIRST_HOLDER_WITHIN = 20.0
_TICK = 0.1
_HEALTH_EVERY = 5.0
_ANSWERS_WITHIN = 180.0
"""A server that has not answered for so long is stuck."""
_GRACE = 5.0
"""Seconds between asking a server to end and killing it."""


def main() -> None:
    """Take the orders, and become the keeper of their server."""
    orders = json.load(sys.stdin)
    os.umask(0o077)
    lock = os.open(orders["lock"], os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(TAKEN)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    Path(orders["socket"]).unlink(missing_ok=True)
    door.bind(orders["socket"])
    door.listen(256)
    if os.fork():
        os._exit(0)  # whoever started us may knock now
    ends, end = os.pipe()
    if os.fork() == 0:
        os.close(end)
        door.close()
        _guard(ends, orders["logs"])
    log = os.open(orders["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(ours, number)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    asyncio.run(_Keeper(orders, door).run())


def _guard(ends: int, logs: str) -> NoReturn:
    """Where the keeper itself is killed: kill what it leaves. It has the keeper's lock, so no other starts before."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.read(ends, 1)  # nothing is written: it returns when the keeper is gone
    kill_writers(logs)
    os._exit(0)


class _Keeper:
    def __init__(self, orders: dict[str, Any], door: socket.socket) -> None:
        self._orders = orders
        self._door = door
        self._holders: set[asyncio.StreamWriter] = set()
        self._leaving: list[asyncio.StreamWriter] = []
        """Those that have let go, and wait until nothing is left of the server."""
        self._asked = False
        """Whether a holder wants to know if the server still lives."""
        self._keep = _FIRST_HOLDER_WITHIN
        self._left_at = time.monotonic()
        self._told: dict[str, Any] = {"state": "starting"}
        self._told_to_end = asyncio.Event()
        self._visited = asyncio.Event()

    async def run(self) -> None:
        """Start the server, keep it while it is held, and leave nothing of it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._told_to_end.set)
        kill_writers(self._orders["logs"])  # what a keeper that was killed left behind
        server = await asyncio.start_unix_server(self._held, sock=self._door)
        process = None
        try:
            with contextlib.closing(_Port(self._orders["port"])) as port:
                process = self._start(port.number)
                end = await self._tend(process, port.number)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            end = {"state": "failed", "why": "port" if taken else "refused", "detail": str(error)}
        except Exception as error:  # else whoever started us finds nobody, and starts others without end
            traceback.print_exc()
            end = {"state": "failed", "why": "refused", "detail": f"{type(error).__name__}: {error}"}
        if process is not None:
            _end(process)
        self._tell(end)
        if end["state"] == "failed":  # so fast, perhaps, that whoever started us has not knocked yet
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._visited.wait(), _FIRST_HOLDER_WITHIN)
        Path(self._orders["socket"]).unlink(missing_ok=True)
        server.close()
        for holder in (*self._holders, *self._leaving):
            with contextlib.suppress(OSError):
                await asyncio.wait_for(holder.drain(), 1)
            holder.close()

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._orders["environment"]}
        for name in (*self._orders["without"], "VLLM_API_KEY"):
            environment.pop(name, None)
        if key := os.environ.get(self._orders["key_from"]):
            environment["VLLM_API_KEY"] = key
        return subprocess.Popen(
            [*self._orders["command"], "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )

    async def _tend(self, process: subprocess.Popen[bytes], port: int) -> dict[str, Any]:
        """Watch the server until it ends or nobody wants it; what to tell those who still hold it."""
        started = answered = time.monotonic()
        looked = 0.0
        ready = False
        self._tell({"state": "starting", "pid": process.pid})
        while True:
            now = time.monotonic()
            if process.poll() is not None:
                state = "ended" if ready else "failed"
                return {"state": state, "why": "exit", "code": process.returncode}
            if self._told_to_end.is_set():
                return {"state": "ended", "why": "signal"}
            if not self._holders and now - self._left_at >= self._keep:
                return {"state": "ended", "why": "unused"}
            if self._holders:
                while self._leaving:
                    self._leaving.pop().close()
            if self._asked or now - looked >= (_HEALTH_EVERY if ready else 0.25):
                status = await _health(port)
                looked = time.monotonic()
                if status:
                    answered = looked
                if status == 200 and (self._asked if ready else _listens(port)):
                    ready, self._asked = True, False
                    self._tell({"state": "ready", "pid": process.pid, "port": port})
                if ready and (status == 503 or now - answered > _ANSWERS_WITHIN):
                    return {"state": "ended", "why": "dead" if status else "silent"}
                if not ready and now - started > self._orders["start_timeout"]:
                    return {"state": "failed", "why": "slow"}
            await asyncio.sleep(_TICK)

    async def _held(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One holder, from its first line until it lets go."""
        self._holders.add(writer)
        keep = 0.0
        try:
            keep = float(json.loads(await reader.readline())["keep"])
            self._send(writer, self._told)
            self._visited.set()
            while await reader.readline():
                self._asked = True
        except (ValueError, KeyError, OSError, asyncio.CancelledError):  # cancelled: all is over
            pass
        self._holders.discard(writer)
        self._keep, self._left_at = keep, time.monotonic()
        if keep or self._holders:
            writer.close()
        else:
            self._leaving.append(writer)

    def _tell(self, state: dict[str, Any]) -> None:
        self._told = {"log": self._orders["log"], **state}
        for holder in self._holders:
            self._send(holder, self._told)

    def _send(self, holder: asyncio.StreamWriter, state: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            holder.write(json.dumps(state).encode() + b"\n")


class _Port:
    """Holds a port for the server until it has it. Raises OSError where the port is taken.

    It is bound and not listened on, so that the server can bind it too, and nobody else is given it meanwhile.
    """

    def __init__(self, wanted: int) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", wanted))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


def _listens(port: int) -> bool:
    """Whether what listens there is beneath us, and not another server, or another user, that came in between."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    found = {
        f"socket:[{words[9]}]" for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"
    }
    beneath = _children()
    for pid in beneath:
        for fd in _listed(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if str(fd.readlink()) in found:
                    return True
        for task in _listed(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                beneath += map(int, (task / "children").read_text().split())
    return False


def _listed(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:  # of a process that has ended
        return []


async def _health(port: int) -> int:
    """How our server says it is: an HTTP status, 0 where it does not answer."""
    writer = None
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return int((await reader.read()).split()[1])
    except (OSError, TimeoutError, ValueError, IndexError):
        return 0
    finally:
        if writer is not None:
            writer.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and everything it started: ask, wait a moment, kill until we have no child."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    while True:
        for pid in _children():
            _kill(pid)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.02)
        except ChildProcessError:  # those that lost their parent became ours, and were killed in their turn
            return


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def writers(logs: str) -> list[int]:
    """The processes whose output goes to a log whose path begins so: a server's, whoever their parent is.

    Nothing else tells them for sure: vLLM's processes overwrite their names and environments.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for number in "12":
            with contextlib.suppress(OSError):
                if str((entry / "fd" / number).readlink()).startswith(logs):
                    found.append(int(entry.name))
                    break
    return found


def kill_writers(logs: str) -> None:
    """Kill a server's processes, for where its keeper cannot any more."""
    while pids := writers(logs):
        for pid in pids:
            _kill(pid)
        time.sleep(0.02)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
