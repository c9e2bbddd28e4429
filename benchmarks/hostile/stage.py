"""A machine to be attacked: one check of one hostile program, in namespaces of its own, seen from outside.

The process that checks, all it starts and what is attacked live in new process, mount, network, IPC and host-name
namespaces (and a user namespace, where we are not root), with 64 MB in memory as their temporary folder and a wall
limit; afterwards everything in there is ended by the kernel. What is attacked: a file anybody may use, the home of
a user, temporary files of others, a process (its memory, environment, open files, limits), a server.

Checkers that protect nothing are *guarded* in addition: everything else is read-only and no capability is left,
as for an ordinary user. Whether an attack took effect is read off what is attacked, off the processes and files
that there are, and off secrets that a program can only have found; never believed of the program.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import select
import signal
import socket
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from archon.errors import ExecutionError
from archon.verifiers.sandbox import kernel

WALL = 15.0
"""Seconds after which a check that has not returned hangs."""
MEMORY_MB, OUTPUT_MB = 1024, 8
"""What a program may use and write, told to every checker that can be told."""
_MOST_MEMORY = 2**30 + 2**27
_MOST_PROCESSES = 15
"""Beyond what any of the checkers starts itself."""
_MOST_DISK = 12 * 2**20
_LINGER = {"persist": 1.0}
"""Seconds for what stays to show itself."""
_REMOUNT = 32
_CANARY = """
import signal, sys, time
signal.signal(signal.SIGWINCH, lambda *a: sys.exit())
mine = sys.argv[1]
while True: time.sleep(1)
"""


class Trial(NamedTuple):
    """A program, and what a right one returns."""

    source: str
    cases: tuple[tuple[tuple[Any, ...], Any], ...]
    """Arguments and the value expected."""
    right: str
    """A right program: some checkers hold one."""
    seconds: float
    """Its limit for each case."""


Check = Callable[[Trial], bool]
"""Whether a checker passes a program."""


class Attack(NamedTuple):
    """A hostile program, and what it wants."""

    category: str
    name: str
    source: str
    aim: str
    """`pass`; something to be seen (contained.SEEN); or nothing, where only the program knows."""
    anywhere: bool = True
    """Whether it means something to other checkers than ours."""


class Seen(NamedTuple):
    """What came of it."""

    verdict: str
    """passed, refused, ended (who checks, by an exception or a signal), hung."""
    effects: tuple[str, ...]
    detail: str = ""

    def fooled(self, aim: str) -> bool:
        """Whether the attack got what it wants: what `aim` names, or a pass."""
        if aim in ("", "pass", "secret"):
            return self.verdict == "passed"
        return aim == self.verdict or aim in self.effects


def staged(check: Check, attack: Attack, right: str, *, guarded: bool) -> Seen:
    """Put one program to a checker, and see what comes of it."""
    base = tempfile.mkdtemp(prefix="archon-stage-")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # whoever calls may have threads
        outside = os.fork()
    if outside == 0:
        try:
            os.close(reading)
            _enter(base, check, attack, right, writing, guarded)
        finally:
            os._exit(70)
    os.close(writing)
    text = b""
    try:
        deadline = time.monotonic() + WALL + 15
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            some = os.read(reading, 65536)
            if not some:
                break
            text += some
    finally:
        os.close(reading)
        os.kill(outside, signal.SIGKILL)
        os.waitpid(outside, 0)
        Path(base).rmdir()
    try:
        verdict, effects, detail = json.loads(text)
    except ValueError:
        verdict, effects, detail = "broken", (), "nothing was heard of it"
    if verdict == "impossible":
        raise ExecutionError(f"this kernel grants no machine to be attacked: {detail}")
    if verdict == "broken":
        raise ExecutionError(f"the machine attacked by {attack.category}: {attack.name} broke: {detail}")
    return Seen(verdict, tuple(effects), detail)


def _enter(base: str, check: Check, attack: Attack, right: str, answer: int, guarded: bool) -> NoReturn:
    """In a new process: make the namespaces, and wait outside them for what is inside."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        uid, gid = os.geteuid(), os.getegid()
        kinds = kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
        kernel.unshare(kinds | (kernel.NEWUSER if uid else 0))
        if uid:
            for name, text in (
                ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")
            ):  # fmt: skip
                Path(f"/proc/self/{name}").write_text(text)
        first = os.fork()
        if first == 0:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            _be_first(base, check, attack, right, answer, guarded)
    except OSError as error:
        _say(answer, ("impossible", (), str(error)))
    else:
        os.close(answer)
        os.waitpid(first, 0)
    os._exit(0)


def _say(answer: int, seen: tuple[str, tuple[str, ...], str]) -> None:
    os.write(answer, json.dumps(seen).encode())


def _be_first(base: str, check: Check, attack: Attack, right: str, answer: int, guarded: bool) -> NoReturn:
    """Process 1 of the machine: set it up, have the program checked, look, and so end everything."""
    try:
        ground = _Ground(base, answer, guarded)
        try:
            _say(answer, ground.watch(check, attack, right, guarded))
        except Exception as error:
            _say(answer, ("broken", (), f"{type(error).__name__}: {error}"))
    except OSError as error:
        _say(answer, ("impossible", (), str(error)))
    finally:
        os._exit(0)


class _Ground:
    """What is attacked."""

    def __init__(self, base: str, answer: int, guarded: bool) -> None:
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        if guarded:
            kernel.read_only("/", below=True)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("tmpfs", base, "tmpfs", flags, "mode=755,size=64m")
        kernel.mount("tmpfs", "/dev/shm", "tmpfs", flags, "mode=1777,size=64m")
        kernel.mount("proc", "/proc", "proc", flags)
        _loopback()
        self.base, self.answer = Path(base), answer
        self.secret = f"secret-{os.urandom(12).hex()}"
        self._furnish()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", self.port))
        local = socket.socket(socket.AF_UNIX)
        local.bind(f"\0archon-attack-{self.port}")
        local.listen()
        self.doors = [self.server, datagrams, local]
        self.another = self._start_another()
        if guarded:
            kernel.mount("none", "/proc", flags=_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY)

    def _furnish(self) -> None:
        """Files: one for anybody, a home, and what others have in the temporary folder."""
        for name in ("target", "home", "tmp", "later"):
            (self.base / name).mkdir()
            (self.base / name).chmod(0o777)
        self.path = self.base / "target" / "file"
        for path in (self.path, self.base / "home" / ".netrc", self.base / "tmp" / "of-another"):
            path.write_text(self.secret)
            path.chmod(0o666)
        (self.base / "target" / self.secret).touch()

    def _start_another(self) -> int:
        """A process: its number is one that no small namespace reaches."""
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text("20000")
        except OSError:
            pass
        with (
            (self.base / "tmp" / "of-another").open() as given,
            (self.base / "home" / "log").open("w") as log,
        ):
            pid = os.fork()
            if pid == 0:
                try:
                    kernel.drop_capabilities()  # an ordinary process, which others of its user may look into
                    os.dup2(given.fileno(), 0)
                    os.dup2(log.fileno(), 1)
                    command = [sys.executable, "-I", "-S", "-c", _CANARY, self.secret]
                    os.execve(sys.executable, command, {"CANARY": self.secret})
                finally:
                    os._exit(70)
        while not _handles(pid, signal.SIGWINCH):
            time.sleep(0.005)
        return pid

    def watch(
        self, check: Check, attack: Attack, right: str, guarded: bool
    ) -> tuple[str, tuple[str, ...], str]:
        """Have the program checked, looking all the time; and once more when it is over."""
        before, others = self._files(), self._of_another()
        reading, writing = os.pipe()
        token = os.urandom(8).hex()
        trial = self._trial(attack, right)
        checker = multiprocessing.get_context("fork").Process(
            target=self._be_checker, args=(check, trial, writing, token, guarded)
        )
        checker.start()
        assert checker.pid is not None
        os.close(writing)
        effects: set[str] = set()
        text, deadline = b"", time.monotonic() + WALL
        while time.monotonic() < deadline and not _gone(checker.pid):
            time.sleep(0.03)
            effects |= self._now(others)
        os.set_blocking(reading, False)
        with contextlib.suppress(BlockingIOError):
            text = os.read(reading, 65536)
        said = _said(text, token, checker.pid)
        verdict, seconds, detail = said or ("ended" if _gone(checker.pid) else "hung", 0.0, "")
        if said is None and _gone(checker.pid):
            detail = "who checks was ended"
        if verdict == "passed" and seconds > trial.seconds + 0.3:
            effects.add("late")
        if verdict != "hung":
            time.sleep(_LINGER.get(attack.category, 0.1))
            effects |= self._now(others) | self._left(before)
        if self._target(self._files()) != self._target(before):
            effects.add("file")
        return verdict, tuple(sorted(effects)), detail

    def _trial(self, attack: Attack, right: str) -> Trial:
        if attack.category == "forge":
            return Trial(attack.source, tuple(((i,), i + 1) for i in range(4)), right, 1.0)
        wanted = self.secret if attack.aim == "secret" else "GOT IT"
        case = ((str(self.path), self.another, self.port), wanted)
        return Trial(attack.source, (case,), f"def f(path, pid, port): return {wanted!r}\n", 3.0)

    def _be_checker(self, check: Check, trial: Trial, answer: int, token: str, guarded: bool) -> None:
        """The process in which a checker does its work."""
        os.close(self.answer)  # what only we may write to
        for door in self.doors:
            door.close()
        os.setsid()
        tempfile.tempdir = str(self.base / "tmp")
        os.environ.update(
            TMPDIR=tempfile.tempdir, HOME=str(self.base / "home"), CANARY=self.secret,
            EVALPLUS_MAX_MEMORY_BYTES=str(MEMORY_MB * 2**20),
        )  # fmt: skip
        os.chdir(self.base / "home")
        os.open(self.base / "tmp" / "of-another", os.O_RDONLY)  # whoever checks has files of its own open
        sys.path.append(str(self.base / "later"))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        quiet = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(quiet, standard)
        if guarded:
            resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
            kernel.drop_capabilities()
        started = time.monotonic()
        try:
            verdict, detail = ("passed" if check(trial) else "refused"), ""
        except Exception as error:
            verdict, detail = "ended", f"{type(error).__name__}: {error}"[:200]
        took = time.monotonic() - started
        os.write(answer, f"{token}{json.dumps([os.getpid(), verdict, took, detail])}\n".encode())

    # --- what there is to see ----------------------------------------------------------------------------

    def _now(self, others: tuple[str, ...]) -> set[str]:
        """What is to be seen only while it is there."""
        found = set()
        ours = [pid for pid in _numbers() if pid not in (1, self.another) and not _gone(pid)]
        if len(ours) > _MOST_PROCESSES:
            found.add("processes")
        if sum(map(_memory, ours)) > _MOST_MEMORY:
            found.add("memory")
        if _disk(ours, self.base) > _MOST_DISK:
            found.add("disk")
        if select.select(self.doors, [], [], 0)[0]:
            found.add("connection")
        if self._of_another() != others:
            found.add("another")
        return found

    def _left(self, before: dict[str, tuple[Any, ...]]) -> set[str]:
        """What there is when it is over, and was not before."""
        found = set()
        if [pid for pid in _numbers() if pid not in (1, self.another) and not _gone(pid)]:
            found.add("left process")
        if {p for p in self._files() if p not in before and not self._is_target(p)}:
            found.add("left file")
        if any(Path(f"/proc/sysvipc/{kind}").read_text().count("\n") > 1 for kind in ("shm", "sem", "msg")):
            found.add("left memory")
        return found

    def _files(self) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = {}
        for root in (self.base, Path("/dev/shm")):
            for path in root.rglob("*"):
                try:
                    status = path.lstat()
                    content = path.read_bytes()[:1000] if path.is_file() and not path.is_symlink() else b""
                except OSError:  # gone meanwhile
                    continue
                found[str(path)] = (status.st_mode, status.st_nlink, status.st_size, content)
        return found

    def _is_target(self, path: str) -> bool:
        return any(path.startswith(f"{self.base}/{name}") for name in ("target", "home", "later"))

    def _target(self, files: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        return {p: status for p, status in files.items() if self._is_target(p)}

    def _of_another(self) -> tuple[str, ...]:
        """State, tracer, priority and limits of the process that is attacked."""
        entry = Path(f"/proc/{self.another}")
        try:
            status = (entry / "status").read_text()
            nice = (entry / "stat").read_text().rpartition(")")[2].split()[16]
            limits = (entry / "limits").read_text()
        except OSError:
            return ("gone",)
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        stopped = fields["State"][0] in "TtZX"
        return (str(stopped), fields["TracerPid"], nice, limits)


def _said(text: bytes, token: str, checker: int) -> tuple[str, float, str] | None:
    """What the process that checks said; a child that goes on as if it were that one says nothing."""
    for line in text.decode(errors="replace").splitlines():
        if line.startswith(token):
            pid, verdict, seconds, detail = json.loads(line[len(token) :])
            if pid == checker:
                return verdict, seconds, detail
    return None


def _numbers() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _handles(pid: int, number: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    caught = int(text.partition("SigCgt:\t")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def _memory(pid: int) -> int:
    """Bytes of its own: in memory, shared ones divided, and in files that are nowhere."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if str(link.readlink()).startswith("/memfd:"):
                total += link.stat().st_blocks * 512
    except OSError:
        pass
    return total


def _disk(pids: list[int], base: Path) -> int:
    """Bytes used of the file systems in memory in which they stand, and of ours."""
    used: dict[int, int] = {}
    for place in (base, *(Path(f"/proc/{pid}/cwd") for pid in pids)):
        try:
            number, room = place.stat().st_dev, os.statvfs(place)
        except OSError:
            continue
        if room.f_blocks * room.f_frsize <= 2**30:
            used[number] = (room.f_blocks - room.f_bfree) * room.f_frsize
    return sum(used.values())


def _loopback() -> None:
    """A new network has one interface, and it is down."""
    get, set_, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        state = ioctl(any_socket, get, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", state)[1]
        ioctl(any_socket, set_, struct.pack("16sh14x", b"lo", flags | up))
