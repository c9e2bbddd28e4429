"""The zygote: a clean interpreter that forks one process per program, and watches it.

Started with an empty environment and without site packages, it never sees a program, an input or an
expected value: it forks, and its children read their work from sockets of their own. Its parent tells it
over a control socket what to fork and passes the sockets along; it answers with what became of them. When
the control socket closes (the parent ended, however it ended) it kills its children, removes the scratch
folder and ends.

One job at a time: one `candidate`, and for checking programs one `judge` beside it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before anything else
if TYPE_CHECKING:
    from archon.verifiers.sandbox import child, jail
else:
    import child
    import jail

_TICK = 0.02


def main() -> None:
    """Serve jobs until the control socket closes."""
    settings = json.loads(sys.argv[1])
    sys.path.pop(0)
    sys.path.extend(settings["paths"])
    control = socket.socket(fileno=settings["control"])
    control.setblocking(True)
    try:
        held = jail.Jail(settings)
    except jail.Unable as error:
        _tell(control, {"event": "unable", "layer": error.layer, "why": str(error)})
        return
    child.warm_up(settings["preload"])
    gc.collect()
    gc.freeze()
    _tell(control, {"event": "ready", "missing": held.missing})
    buffer = b""
    job: Job | None = None
    try:
        while True:
            message, buffer, fds = _receive(control, buffer, job)
            if message is None:
                continue
            if message["op"] == "fork":
                if job is None:
                    job = Job(control, held, message["limits"])
                job.fork(message["role"], fds)
            elif message["op"] == "end" and job is not None:
                job.end()
                job = None
                _tell(control, {"event": "clean"})
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        if job is not None:
            job.end()
        held.close(settings["scratch"])


def _receive(control: socket.socket, buffer: bytes, job: Job | None) -> tuple[Any, bytes, list[int]]:
    """The next message with its descriptors; in the meantime the job is watched."""
    fds: list[int] = []
    while b"\n" not in buffer:
        if job is not None and job.running:
            job.watch(control)
            if not select.select([control], [], [], 0)[0]:
                continue
        data, passed, _, _ = socket.recv_fds(control, 65536, 4)
        fds.extend(passed)
        if not data:
            raise EOFError
        buffer += data
    line, _, rest = buffer.partition(b"\n")
    return json.loads(line), rest, fds


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more; the next read will tell


class Job:
    """The processes of one execution, and what they may use."""

    def __init__(self, control: socket.socket, held: jail.Jail, limits: dict[str, float]) -> None:
        self._control = control
        self._jail = held
        self._limits = limits
        self._deadline = time.monotonic() + limits["wall_seconds"]
        held.open_folder(limits)
        self.running: dict[int, str] = {}
        """Roles by process number."""
        self._watched: dict[int, int] = {}
        """Process numbers by pidfd."""

    def fork(self, role: str, fds: list[int]) -> None:
        """Start a candidate (fds: its data socket), a script (that, its input, its output) or a judge (fds: to the
        parent, to the candidate)."""
        self._jail.births(role)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                self._jail.enter(fds, self._limits, role)
                if role == "candidate":
                    child.be_candidate()
                elif role == "script":
                    child.be_script()
                else:
                    child.be_judge(int(self._limits["output_mb"] * 2**20))
                status = 0
            finally:
                os._exit(status)
        for fd in fds:
            os.close(fd)
        self.running[pid] = role
        self._watched[os.pidfd_open(pid)] = pid

    def watch(self, control: socket.socket) -> None:
        """Wait for a message, an exit, or a broken limit, whichever comes first."""
        poller = select.poll()
        poller.register(control, select.POLLIN)
        for fd in self._watched:
            poller.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            pause, reason = self._deadline - now, "wall"
            for pid, role in self.running.items():
                if role != "judge":
                    left = self._limits["cpu_seconds"] - _cpu_of(pid)
                    if left < pause:
                        pause, reason = left, "cpu"
            if pause <= 0:
                for pid in tuple(self.running):
                    self._reap(pid, reason)
                return
            ready = {fd for fd, _ in poller.poll(max(1, int(min(pause + 0.001, 5.0) * 1000)))}
            for fd in ready & self._watched.keys():
                self._reap(self._watched[fd], "exit")
            if ready:
                return

    def end(self) -> None:
        """Kill what is left, strays included, and clean up."""
        for pid in tuple(self.running):
            self._reap(pid, "ended")
        self._jail.clear()

    def _reap(self, pid: int, reason: str) -> None:
        """Kill a process (if it still lives), wait for it, report."""
        jail.kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        role = self.running.pop(pid)
        for fd in [fd for fd, watched in self._watched.items() if watched == pid]:
            os.close(fd)
            del self._watched[fd]
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if reason == "exit" and killed_by == signal.SIGXCPU:
            reason = "cpu"
        _tell(
            self._control,
            {
                "event": "exit",
                "role": role,
                "reason": reason,
                "signal": killed_by,
                "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
                "cpu": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss / 1024,
            },
        )


def _cpu_of(pid: int) -> float:
    """CPU seconds a process has used so far."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's clock of that process
    except OSError:
        return 0.0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
