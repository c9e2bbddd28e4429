"""The few calls of the Linux kernel that Python has no names for. Loaded by the isolated interpreters: standard
library only.

Each raises OSError with the kernel's reason. Numbers and flags are those of the kernel's public headers. What is done
in each forked process is prepared before it is forked: every page of memory that it touches has to be copied.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 28, 36, 38
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 1, 2, 4, 8, 1024
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2
_CAPABILITY_VERSION_3 = 0x20080522
_NOROOT_FOR_EVER = 0b11

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(platform.machine(), "")
"""Whose table of system calls applies; empty where none of ours does."""
_NUMBERS = {
    "x86_64": {"capset": 126, "pivot_root": 155, "prlimit64": 302},
    "aarch64": {"capset": 91, "pivot_root": 41, "prlimit64": 261},
}.get(ARCHITECTURE, {})
_NOTHING = (0,) * 6
_TEXTS: list[ctypes.Array[ctypes.c_char]] = []
_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
_MOUNT_SETATTR = 442  # since 5.12 numbers are the same everywhere


def syscall(number: int, *arguments: int) -> int:
    """A system call by its number; pointers go in as integers."""
    result = int(_libc.syscall(number, *arguments, *_NOTHING[len(arguments) :]))
    return _checked(result, number)


def prctl(option: int, argument: int = 0) -> None:
    """Change something about this process."""
    _checked(_libc.prctl(option, argument, 0, 0, 0), "prctl")


@functools.cache
def text(name: str) -> int:
    """Where the text lies, for good."""
    _TEXTS.append(ctypes.create_string_buffer(name.encode()))
    return ctypes.addressof(_TEXTS[-1])


def named(name: str) -> None:
    """Give this process a name for `ps`, of which the kernel keeps 15 letters."""
    prctl(PR_SET_NAME, text(name))


def high(fd: int) -> int:
    """The same file under a number that leaves the low ones free."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    return moved


class Limits:
    """Limits of this process's use of things, ready to be put on."""

    def __init__(self, most: dict[int, int]) -> None:
        """By what is limited (RLIMIT_...): soft and hard alike."""
        self._pairs = (ctypes.c_uint64 * (2 * len(most)))()
        start = ctypes.addressof(self._pairs)
        self._number = _number("prlimit64")
        self._calls = []
        for place, (what, value) in enumerate(most.items()):
            self._pairs[2 * place] = self._pairs[2 * place + 1] = value
            self._calls.append((what, start + 16 * place))

    def put_on(self) -> None:
        """Limit this process; hard limits cannot be raised again."""
        for what, where in self._calls:
            _checked(_libc.syscall(self._number, 0, what, where, 0, 0, 0), "prlimit64")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    _checked(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Join a namespace; for one of processes: let the next fork be born there."""
    _checked(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "none", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or bind one to another place."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _checked(result, f"mount {kind} on {target}")


def unmount(target: str) -> None:
    """Let go of a file system, in use or not."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def read_only(target: str, *, below: bool) -> None:
    """Make a mount unwritable, and every one below it."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID, 0, 0, 0)
    path = ctypes.create_string_buffer(os.fsencode(target))
    syscall(
        _MOUNT_SETATTR, _AT_FDCWD, ctypes.addressof(path), _AT_RECURSIVE if below else 0,
        ctypes.addressof(attributes), ctypes.sizeof(attributes),
    )  # fmt: skip


def pivot_root_here() -> None:
    """Make the folder we stand in, a mount of its own, the root, and let go of the old one."""
    here = ctypes.create_string_buffer(b".")
    syscall(_number("pivot_root"), ctypes.addressof(here), ctypes.addressof(here))
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for good: being root inside regains none."""
    try:
        prctl(PR_SET_SECUREBITS, _NOROOT_FOR_EVER)
    except PermissionError:
        pass  # then we are not root inside either, or have nothing to lose
    syscall(_number("capset"), ctypes.addressof(_HEADER), ctypes.addressof(_NO_CAPABILITIES))


def _number(name: str) -> int:
    if name not in _NUMBERS:
        raise OSError(errno.ENOSYS, f"{name}: not known for this kind of processor")
    return _NUMBERS[name]


def _checked(result: int, what: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"system call {what}: {os.strerror(number)}")
    return result
