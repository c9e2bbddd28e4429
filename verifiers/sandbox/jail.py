"""What a forked process gives up before it runs a program.

Here: its parent's descriptors, environment, session and terminal, the network (in a namespace of its
own, where the kernel allows), the right to gain privileges, and any use of CPU, memory, files and
descriptors beyond its limits. It dies with the zygote. Loaded by the isolated interpreters: standard
library only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_layers = ["rlimits", "scratch folder", "no environment"]


def layers() -> list[str]:
    """What protects here, in words."""
    return list(_layers)


def become_subreaper() -> None:
    """Orphans of our children become ours, so that they can be found and killed."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def leave_network() -> None:
    """Move into a network namespace that has nothing in it, where the kernel allows."""
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNET if uid == 0 else _CLONE_NEWNET | _CLONE_NEWUSER
    if _libc.unshare(flags) != 0 and _libc.unshare(_CLONE_NEWNET | _CLONE_NEWUSER) != 0:
        return
    _layers.append("no network")
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(text)
    except OSError:
        pass  # without a user namespace there is nothing to map


def enter(fds: list[int], folder: str, limits: dict[str, float], role: str) -> None:
    """Give up everything but the sockets, which become descriptors 3, 4, ..."""
    os.setsid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    high = [os.dup2(fd, 200 + i) for i, fd in enumerate(fds)]
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for i, fd in enumerate(high):
        os.dup2(fd, 3 + i)
    os.closerange(3 + len(fds), 4096)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "OPENBLAS_NUM_THREADS": "1"})
    memory = int(limits["memory_mb"] * 2**20)
    written = int(limits["output_mb"] * 2**20)
    cpu = int(limits["cpu_seconds"] if role == "candidate" else limits["wall_seconds"]) + 1
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def kill_group(pid: int) -> None:
    """Kill a process and its session."""
    for kill, target in ((os.killpg, pid), (os.kill, pid)):
        try:
            kill(target, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def kill_strays() -> None:
    """Kill processes that a program left behind: they are our children now, as we are the subreaper."""
    for _ in range(100):
        try:
            with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
                strays = [int(pid) for pid in file.read().split()]
        except (OSError, ValueError):
            return
        if not strays:
            return
        for pid in strays:
            kill_group(pid)
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass
