"""The zygote: a clean interpreter that forks one process per program, and watches it.

Started with an empty environment and without site packages, it never sees a program, an input or an
expected value: it forks, and its children read their work from sockets of their own. Its parent tells it
over a control socket what to fork and passes the sockets along; it answers with what became of them. When
the control socket closes (the parent ended, however it ended) it kills its children, removes the scratch
folder and ends.

One job at a time: one `candidate` (or a plain program in the `commons`), and for checking programs one `judge` beside
it. The judge and the commons may be kept for the next job.
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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - before anything else
_register = os.register_at_fork
os.register_at_fork = lambda **_: None
"""What modules want to do after each fork (take stock of threads, of which there are none; draw a new seed) costs more
than the fork. They are not asked to; so programs that draw at random draw the same in every run."""
if TYPE_CHECKING:
    from archon.verifiers.sandbox import child, jail, kernel
else:
    import child
    import jail
    import kernel

KEPT = ("judge", "commons")
"""Roles that outlive a job."""


def main() -> None:
    """Serve jobs until the control socket closes."""
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for its children
    sys.path.pop(0)
    sys.path.extend(settings["paths"])
    control = socket.socket(fileno=settings["control"])
    control.setblocking(True)
    try:
        held = jail.Jail(settings)
    except jail.Unable as error:
        _tell(control, {"event": "unable", "layer": error.layer, "why": str(error)})
        return
    control = socket.socket(fileno=kernel.high(control.detach()))
    child.warm_up(settings["preload"])
    os.register_at_fork = _register
    gc.collect()
    gc.freeze()
    _tell(control, {"event": "ready", "missing": held.missing})
    buffer = b""
    job: Job | None = None
    kept: dict[int, Child] = {}
    waiting: list[int] = []
    """Descriptors of messages to come: they may arrive with the one before."""
    try:
        while True:
            message, buffer = _receive(control, buffer, waiting, job)
            if job is None and message["op"] != "end":
                job = Job(control, held, message["limits"], kept)
            if message["op"] == "fork" and job is not None:
                fds = [waiting.pop(0) for _ in range(message["files"])]
                job.fork(message["role"], message["id"], fds)
            elif message["op"] == "end" and job is not None:
                kept = job.end(message["keep"])
                job = None
                _tell(control, {"event": "clean"})
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    finally:
        if job is not None:
            job.end()
        held.close(settings["scratch"])


def _receive(
    control: socket.socket, buffer: bytes, waiting: list[int], job: Job | None
) -> tuple[dict[str, Any], bytes]:
    """The next message; in the meantime the job is watched."""
    while b"\n" not in buffer:
        if job is not None and job.running:
            job.watch(control)
            if not select.select([control], [], [], 0)[0]:
                continue
        data, passed, _, _ = socket.recv_fds(control, 65536, 8)
        waiting.extend(passed)
        if not data:
            raise EOFError
        buffer += data
    line, _, rest = buffer.partition(b"\n")
    return json.loads(line), rest


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # nobody listens any more; the next read will tell


class Child(NamedTuple):
    """A process that was forked."""

    role: str
    number: int
    """The parent's, to know it by."""
    fd: int
    """Tells its end."""


class Job:
    """The processes of one execution, and what they may use."""

    def __init__(
        self, control: socket.socket, held: jail.Jail, limits: dict[str, float], kept: dict[int, Child]
    ) -> None:
        self._control = control
        self._jail = held
        self._limits = limits
        self._deadline = time.monotonic() + limits["wall_seconds"]
        self._alone = False
        """Whether a program has a process of its own, which leaves things behind."""
        self.running = kept
        """Children by process number."""
        self._used = {pid: _cpu_of(pid) for pid in kept}

    def fork(self, role: str, number: int, fds: list[int]) -> None:
        """Start a candidate (fds: its data socket), a script (that, its input, its output), a judge or the commons
        (fds: to the parent). There is one of each at most: another one takes the place of one that was kept."""
        if role in KEPT:
            for pid in [pid for pid, child in self.running.items() if child.role == role]:
                self._reap(pid, "ended")
        elif not self._alone:
            self._alone = True
            self._jail.open_folder(self._limits)
        self._jail.ready(role, self._limits)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                self._jail.enter(fds, role)
                if role == "candidate":
                    child.be_candidate()
                elif role == "script":
                    child.be_script()
                elif role == "commons":
                    child.be_commons()
                else:
                    child.be_judge()
                status = 0
            finally:
                os._exit(status)
        for fd in fds:
            os.close(fd)
        self.running[pid] = Child(role, number, kernel.high(os.pidfd_open(pid)))

    def watch(self, control: socket.socket) -> None:
        """Wait for a message, an exit, or a broken limit, whichever comes first."""
        poller = select.poll()
        poller.register(control, select.POLLIN)
        watched = {child.fd: pid for pid, child in self.running.items()}
        for fd in watched:
            poller.register(fd, select.POLLIN)
        while True:
            now = time.monotonic()
            pause, reason = self._deadline - now, "wall"
            for pid, child in self.running.items():
                if child.role != "judge":
                    left = self._limits["cpu_seconds"] - _cpu_of(pid) + self._used.get(pid, 0.0)
                    if left < pause:
                        pause, reason = left, "cpu"
            if pause <= 0:
                for pid in tuple(self.running):
                    self._reap(pid, reason)
                return
            ready = {fd for fd, _ in poller.poll(max(1, int(min(pause + 0.001, 5.0) * 1000)))}
            for fd in ready & watched.keys():
                self._reap(watched[fd], "exit")
            if ready:
                return

    def end(self, keep: Sequence[str] = ()) -> dict[int, Child]:
        """Kill what is left, strays included, and clean up; these roles are kept."""
        for pid, child in tuple(self.running.items()):
            if child.role not in keep:
                self._reap(pid, "ended")
        if self._alone:
            self._jail.clear()
        return self.running

    def _reap(self, pid: int, reason: str) -> None:
        """Kill a process (if it still lives), wait for it, report."""
        jail.kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
        role, number, fd = self.running.pop(pid)
        os.close(fd)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if reason == "exit" and killed_by == signal.SIGXCPU:
            reason = "cpu"
        _tell(
            self._control,
            {
                "event": "exit",
                "role": role,
                "id": number,
                "reason": reason,
                "signal": killed_by,
                "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
                "cpu": usage.ru_utime + usage.ru_stime - self._used.get(pid, 0.0),
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
