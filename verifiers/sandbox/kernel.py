"""The few calls of the Linux kernel that Python has no names for. Loaded by the isolated interpreters: standard
library only.

Each raises OSError with the kernel's reason. Numbers and flags are those of the kernel's public headers.
"""

from __future__ import annotations

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_SET_SECUREBITS, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 28, 36, 38
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID = 1, 2
_CAPABILITY_VERSION_3 = 0x20080522
_NOROOT_FOR_EVER = 0b11

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}.get(platform.machine(), "")
"""Whose table of system calls applies; empty where none of ours does."""
_NUMBERS = {
    "x86_64": {"capset": 126, "pivot_root": 155},
    "aarch64": {"capset": 91, "pivot_root": 41},
}
_MOUNT_SETATTR = 442  # since 5.12 numbers are the same everywhere


def syscall(number: int, *arguments: int) -> int:
    """A system call by its number; pointers go in as integers."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments)))
    return _checked(result, f"system call {number}")


def prctl(option: int, *arguments: int) -> None:
    """Change something about this process."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _checked(_libc.prctl(option, *map(ctypes.c_ulong, padded)), f"prctl {option}")


def named(name: str) -> None:
    """Give this process a name for `ps`."""
    text = ctypes.create_string_buffer(name.encode()[:15])
    prctl(PR_SET_NAME, ctypes.addressof(text))


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
    where = ctypes.c_ulong(_AT_FDCWD & 0xFFFF_FFFF_FFFF_FFFF).value
    syscall(
        _MOUNT_SETATTR, where, ctypes.addressof(path), _AT_RECURSIVE if below else 0,
        ctypes.addressof(attributes), ctypes.sizeof(attributes),
    )  # fmt: skip


def pivot_root_here() -> None:
    """Make the folder we stand in, a mount of its own, the root, and let go of the old one."""
    here = ctypes.create_string_buffer(b".")
    syscall(_NUMBERS[ARCHITECTURE]["pivot_root"], ctypes.addressof(here), ctypes.addressof(here))
    unmount(".")
    os.chdir("/")


def drop_capabilities() -> None:
    """Give up every capability, for good: being root inside regains none."""
    try:
        prctl(PR_SET_SECUREBITS, _NOROOT_FOR_EVER)
    except PermissionError:
        pass  # then we are not root inside either, or have nothing to lose
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    syscall(_NUMBERS[ARCHITECTURE]["capset"], ctypes.addressof(header), ctypes.addressof(none))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
