"""Landlock: a process limits itself to a few folders, and everything it becomes later with it.

Needs no rights and no namespaces (Linux 5.13 and later, where it is switched on). A limited process reads below
the folders it is given and writes below its scratch folder; it executes nothing. Newer kernels also keep it
from signalling, from tracing, from abstract sockets and from TCP outside. Loaded by the isolated interpreters.
"""

from __future__ import annotations

import ctypes
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archon.verifiers.sandbox import kernel
else:
    import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_BELOW_PATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | 1 << 14 | 1 << 15
"""Those that make sense for what is no folder: the rest is EINVAL there."""
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights over files each version knows; from the fifth on, 16."""
_DEVICES = 1 << 6 | 1 << 11
"""Making character and block devices, which nobody here may."""


def version() -> int:
    """What the kernel offers. Raises OSError where it offers nothing."""
    return kernel.syscall(_CREATE_RULESET, 0, 0, _ASK_VERSION)


class Ruleset:
    """What may be read and written, ready for any process to put on."""

    def __init__(self, readable: list[str], writable: list[str]) -> None:
        offered = version()
        self._handled = (1 << _RIGHTS.get(offered, 16)) - 1
        network = 0b11 if offered >= 4 else 0
        scoped = 0b11 if offered >= 6 else 0
        attributes = (ctypes.c_uint64 * 3)(self._handled, network, scoped)
        size = 8 if offered < 4 else 16 if offered < 6 else 24
        self._fd = kernel.syscall(_CREATE_RULESET, ctypes.addressof(attributes), size, 0)
        for path in readable:
            self._allow(path, _READ_FILE | _READ_DIR)
        for path in writable:
            self._allow(path, self._handled & ~_EXECUTE & ~_DEVICES)
        self._allow("/dev/null", _READ_FILE | _WRITE_FILE)
        self._fd = kernel.high(self._fd)

    def _allow(self, path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return  # what is not there needs no rule
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                rights &= _FILE_RIGHTS
            rule = ctypes.create_string_buffer(
                (rights & self._handled).to_bytes(8, "little") + fd.to_bytes(4, "little")
            )
            kernel.syscall(_ADD_RULE, self._fd, _BELOW_PATH, ctypes.addressof(rule), 0)
        finally:
            os.close(fd)

    def put_on(self) -> None:
        """Limit this process; there is no way back."""
        kernel.syscall(_RESTRICT_SELF, self._fd, 0)
