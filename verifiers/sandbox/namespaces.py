"""Namespaces: a small machine of its own for a zygote and its programs, and a pen in it for the programs.

The zygote moves into new user, mount, process, network, IPC and host-name namespaces. Its root is a file system
in memory that holds, read-only, the interpreter and its libraries; nobody else's processes, sockets or files can
be named there. Started by root it first becomes `nobody`, so that whatever got out would be nobody outside too.
When the zygote ends, however it ends, the kernel ends everything in there.

Programs are born in a second process namespace, the *pen*, where nothing is but its keeper (process 1, which
waits): a program can name neither the zygote nor the judge. Loaded by the isolated interpreters.

Order matters, and each step says why.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archon.verifiers.sandbox import kernel
else:
    import kernel

JOBS = "/scratch"
_NOBODY = 65534
_DEVICES = ("null", "zero", "full", "random", "urandom")
_ALL = kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
_ALWAYS = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
)


def readable(paths: list[str]) -> list[str]:
    """Everything a program may read: the interpreter's files, shared libraries, time zones, and these. Folders
    come before what would lie in them, which is left out."""
    found: list[str] = []
    for path in sorted({*paths, *_ALWAYS}):
        if os.path.exists(path) and not any(path.startswith(f"{p}/") for p in found):  # noqa: PTH110
            found.append(path)
    return found


def enter(scratch: str, paths: list[str], control: int) -> Pen:
    """Return in the zygote-to-be, inside. The process that called stays outside, and ends when that ends."""
    orphaned, announce = os.pipe()
    outside = os.pidfd_open(os.getpid())
    if os.fork():
        os.close(control)
        os.close(orphaned)
        _wait_and_tidy(scratch, announce)
    os.close(announce)
    links = {p: os.readlink(p) for p in readable(paths) if os.path.islink(p)}  # noqa: PTH114, PTH115
    sources = {p: p for p in readable(paths) if p not in links}
    if os.geteuid() == 0:
        sources = _staged(scratch, sources)
        _become_nobody()
    else:
        os.chdir(scratch)
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(_ALL)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    if os.fork():
        os._exit(0)  # only what is born from now on is inside the process namespace
    os.read(orphaned, 1)  # until our parent is the process outside,
    os.close(orphaned)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # whose end shall be ours
    if select.select([outside], [], [], 0)[0]:  # also where it came before we said so
        os._exit(0)
    os.close(outside)
    kernel.named("archon-zygote")
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    socket.sethostname("archon")
    _build_root(sources, links)
    pen = Pen()
    os.chdir("root")
    kernel.pivot_root_here()
    kernel.read_only("/", below=False)
    return pen


def _wait_and_tidy(scratch: str, announce: int) -> None:
    """Outside: end when everything inside has ended, and leave no folder."""
    kernel.named("archon-outside")
    os.wait()  # for the process between outside and inside
    os.close(announce)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    for folder in (f"{scratch}/root", scratch):
        try:
            os.rmdir(folder)  # noqa: PTH106
        except OSError:
            pass
    os._exit(0)


def _staged(scratch: str, sources: dict[str, str]) -> dict[str, str]:
    """As root: put what is to be read where nobody can reach it (an interpreter may live in root's own folder),
    in a mount namespace of our own, and stand there."""
    kernel.unshare(kernel.NEWNS)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=777,size=1m")
    os.chdir(scratch)
    staged = {}
    for number, (path, source) in enumerate(sources.items()):
        staged[path] = _like(source, str(number))
        kernel.mount(source, staged[path], flags=kernel.MS_BIND | kernel.MS_REC)
    return staged


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else our files in /proc stay root's, and the maps unwritable


def _build_root(sources: dict[str, str], links: dict[str, str]) -> None:
    os.mkdir("root")  # noqa: PTH102
    kernel.mount("tmpfs", "root", "tmpfs", kernel.MS_NOSUID, "mode=755,size=1m")
    for path, source in sources.items():
        os.makedirs(os.path.dirname(f"root{path}"), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        target = _like(source, f"root{path}")
        kernel.mount(source, target, flags=kernel.MS_BIND | kernel.MS_REC)
        kernel.read_only(target, below=True)
    for path, target in links.items():
        os.makedirs(os.path.dirname(f"root{path}"), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        os.symlink(target, f"root{path}")  # noqa: PTH211
    for folder in ("dev", "proc", "tmp", JOBS[1:], f"{JOBS[1:]}/job"):
        os.makedirs(f"root/{folder}", 0o755, exist_ok=True)  # noqa: PTH103 - an interpreter may live in /tmp
    for device in _DEVICES:
        kernel.mount(f"/dev/{device}", _like("/dev/null", f"root/dev/{device}"), flags=kernel.MS_BIND)


def _like(source: str, target: str) -> str:
    """Make an empty folder or file for something to be bound to."""
    if os.path.isdir(source):  # noqa: PTH112
        os.mkdir(target, 0o755)  # noqa: PTH102
    else:
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o644))
    return target


class Pen:
    """Where programs are born: a process namespace with nothing in it but its keeper, which ends what is left."""

    def __init__(self) -> None:
        self._outer = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        ours, theirs = os.pipe(), os.pipe()
        kernel.unshare(kernel.NEWPID)
        self.keeper = os.fork()
        if self.keeper == 0:
            try:
                self._keep(theirs[0], ours[1])
            finally:
                os._exit(70)
        self._inner = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        os.close(ours[1])
        os.close(theirs[0])
        self._outer, self._inner = kernel.high(self._outer), kernel.high(self._inner)
        self._born_inside = True
        self._said, self._ask = kernel.high(ours[0]), kernel.high(theirs[1])
        self.has_proc = self._answer() == b"p"

    def _keep(self, asked: int, answer: int) -> None:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.named("archon-keeper")
        low, high = sorted((asked, answer))
        for first, end in ((3, low), (low + 1, high), (high + 1, 4096)):
            os.closerange(first, end)
        os.write(answer, b"p" if _mount_proc() else b"n")
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no program may look into it
        while os.read(asked, 1):
            try:
                os.kill(-1, signal.SIGKILL)  # everybody here but ourselves
                while True:
                    os.wait()
            except (ProcessLookupError, ChildProcessError):
                pass
            os.write(answer, b"e")

    def _answer(self) -> bytes:
        said = os.read(self._said, 1)
        if not said:
            raise OSError("the keeper of the programs' pen is gone")
        return said

    def births(self, inside: bool) -> None:
        """Where the next process we fork is born: in the pen, or beside us."""
        if inside != self._born_inside:
            kernel.setns(self._inner if inside else self._outer, kernel.NEWPID)
            self._born_inside = inside

    def clear(self) -> None:
        """End whatever a program left behind."""
        os.write(self._ask, b"x")
        self._answer()

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors that are the zygote's only."""
        return (self._outer, self._inner, self._said, self._ask)


def _mount_proc() -> bool:
    """The pen's own /proc: its processes, and nothing of the machine."""
    for options in ("subset=pid", ""):
        try:
            kernel.mount(
                "proc", "root/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options
            )
        except OSError:
            continue
        return True
    return False
