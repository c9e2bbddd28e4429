"""Seccomp: the kernel refuses a process most ways to reach beyond itself, whatever its rights.

A list of what is refused, as a program for the kernel's filter machine: becoming or making other processes (but
threads are fine), looking into or signalling others, new namespaces and mounts, sockets but local ones, memory
that counts as nobody's, and corners of the kernel that no program here needs. Refused calls fail with EPERM;
`clone3`, whose arguments a filter cannot see, with ENOSYS, so that libc falls back to `clone`. Loaded by the
isolated interpreters: standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archon.verifiers.sandbox import kernel
else:
    import kernel

_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1

# Numbers by name: x86-64, then 64-bit Arm (None where it has no such call).
_REFUSED: dict[str, tuple[int, int | None]] = {
    # other processes, and becoming another program
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "kcmp": (312, 272), "tkill": (200, 130),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "get_robust_list": (274, 100),
    # namespaces, mounts and roots
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "file_setattr": (469, 469),
    # what outlives a process, or counts as nobody's memory
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semctl": (66, 191), "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219),
    # corners of the kernel
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "fanotify_init": (300, 262), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "syslog": (103, 116),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "vhangup": (153, 58),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "seccomp": (317, 277),
}  # fmt: skip
_ONLY_ITSELF: dict[str, tuple[int, int | None]] = {
    "kill": (62, 129), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "prlimit64": (302, 261), "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
}  # fmt: skip
"""Calls whose first argument is a process: its own number or 0."""
_CLONE, _CLONE3 = (56, 220), 435
_SOCKETS: dict[str, tuple[int, int | None]] = {"socket": (41, 198), "socketpair": (53, 199)}
_AF_UNIX, _CLONE_THREAD = 1, 0x00010000
_FCNTL, _OWNERS = (72, 25), (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: letters to others in the kernel's hand."""
_IOCTL = (16, 29)
_IOCTLS = (0x8901, 0x8902, 0x5412, 0x541C, 0x40086602, 0x40046602, 0x401C5820)
"""FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX; FS_IOC_SETFLAGS, its 32-bit form, and FS_IOC_FSSETXATTR: marks on a folder
that nothing else shows."""

_LD_W_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS

Instruction = tuple[int, int, int, int]


class Unsupported(OSError):
    """No list of system calls for this kind of processor."""


def _program(architecture: str, pid: int) -> list[Instruction]:
    """The filter. Each block below reads the number again, tests it, and falls through to the next."""
    place = 0 if architecture == "x86_64" else 1
    code: list[Instruction] = [
        (_LD_W_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT[architecture]),
        (_RET, 0, 0, _KILL_PROCESS),
        (_LD_W_ABS, 0, 0, _NR),
    ]
    if architecture == "x86_64":  # the same calls under other numbers
        code += [(_JGE, 0, 1, _X32), (_RET, 0, 0, _KILL_PROCESS)]

    def block(number: int, tests: list[Instruction]) -> None:
        code.append((_JEQ, 0, len(tests), number))
        code.extend(tests)

    block(_CLONE3, [(_RET, 0, 0, _ENOSYS)])
    threads: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARG0), (_JSET, 1, 0, _CLONE_THREAD)]
    block(_CLONE[place], [*threads, (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)])
    for numbers in _SOCKETS.values():
        local: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARG0), (_JEQ, 1, 0, _AF_UNIX)]
        block(numbers[place] or 0, [*local, (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)])
    for call, arguments in ((_FCNTL, _OWNERS), (_IOCTL, _IOCTLS)):
        left = len(arguments)
        tests: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARG1)]
        tests += [(_JEQ, left - i, 0, value) for i, value in enumerate(arguments)]
        block(call[place], [*tests, (_RET, 0, 0, _ALLOW), (_RET, 0, 0, _EPERM)])
    for numbers in _ONLY_ITSELF.values():
        itself: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARG0), (_JEQ, 2, 0, pid), (_JEQ, 1, 0, 0)]
        block(numbers[place] or 0, [*itself, (_RET, 0, 0, _EPERM), (_RET, 0, 0, _ALLOW)])
    for numbers in _REFUSED.values():
        number = numbers[place]
        if number is not None:
            block(number, [(_RET, 0, 0, _EPERM)])
    code.append((_RET, 0, 0, _ALLOW))
    return code


class Filter:
    """The filter, ready to be put on: only the process's own number is still to be filled in."""

    _UNKNOWN = 0x0DDBA11

    def __init__(self) -> None:
        if kernel.ARCHITECTURE not in _AUDIT:
            raise Unsupported(errno.ENOSYS, "no list of system calls for this kind of processor")
        program = _program(kernel.ARCHITECTURE, self._UNKNOWN)
        code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        unknown = struct.pack("=I", self._UNKNOWN)
        self._own = [8 * i + 4 for i in range(len(program)) if code[8 * i + 4 : 8 * i + 8] == unknown]
        self._code = ctypes.create_string_buffer(code, len(code))
        head = struct.pack("@HP", len(program), ctypes.addressof(self._code))
        self._head = ctypes.create_string_buffer(head)

    def put_on(self) -> None:
        """Limit this process and its threads; there is no way back. It must have given up new privileges."""
        pid = os.getpid()
        for place in self._own:
            struct.pack_into("=I", self._code, place, pid)
        kernel.syscall(_SECCOMP[kernel.ARCHITECTURE], _SET_MODE_FILTER, 0, ctypes.addressof(self._head))
