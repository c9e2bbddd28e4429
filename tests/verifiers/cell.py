"""What the sandbox's tests share: a right program, tests for it, and a look at what a sandbox leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from archon.execution import Limits, Program, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox

RIGHT = "def f(x):\n    return x + 1\n"
"""What every suite here asks for."""
CASES = Suite(cases=tuple(Case(args=(i,), expected=i + 1) for i in range(4)))
CHECK = Suite(check="def check(candidate):\n    for i in range(4):\n        assert candidate(i) == i + 1\n")
ASSERTS = Suite(check="assert f(0) == 1\nassert f(41) == 42\n", names=("f",))
FORMS = {"cases": CASES, "check": CHECK, "asserts": ASSERTS}
"""The forms that benchmarks come in: data, HumanEval's, MBPP's."""

PATIENT = Limits(cpu_seconds=10, wall_seconds=60)
"""For programs that must pass however busy the machine is."""
SHORT = Limits(cpu_seconds=1, wall_seconds=2)
"""For programs that must not."""

BARE = ("namespaces", "landlock", "seccomp")
"""Without these, what is left is what was there before them: limits, a folder, no environment, strays killed."""
NO_FILTER = ("seccomp",)
"""Where programs can fork."""


def program(source: str, *, packages: bool = False) -> Program:
    """A program whose function is `f`."""
    return Program(source=source, entry_point="f", packages=packages)


def case(expected: object, *args: object) -> Suite:
    """One test: these arguments, this value."""
    return Suite(cases=(Case(args=args, expected=expected),))


def processes(folder: Path) -> set[int]:
    """Living processes that belong to sandboxes whose scratch folders are in here.

    A zygote has the path on its command line, its forks with it; what they execute has it in its environment
    or stands in it. What every zygote has beside it (the process outside its namespaces, the keeper of its
    pen) goes with it: they count as one.
    """
    alive = _families(folder)
    return {pid for pid, parent in alive.items() if parent not in alive or _name(pid) not in _STANDING}


def zygotes(folder: Path) -> set[int]:
    """Those of them that no other of them started: whose parent is somebody else, and lives. (One that is ending has
    lost what we know it by before its children get another parent.)"""
    alive = _families(folder)
    return {pid for pid, parent in alive.items() if parent not in alive and _lives(parent)}


def end(pids: set[int]) -> None:
    """Kill them. Some may end by themselves between the listing and the signal."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


_STANDING = {"archon-zygote", "archon-keeper", "archon-judge", "archon-commons"}


def members(folder: Path) -> set[int]:
    """All of their processes."""
    return set(_families(folder))


def _families(folder: Path) -> dict[int, int]:
    """All of their processes with their parents. One that ends while we look is not among them: nobody could say
    whose child it was, and it would pass for a zygote."""
    mark = str(folder).encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _bears(entry, mark) and (parent := _parent(entry)) is not None:
            found[int(entry.name)] = parent
    return found


def called(folder: Path, name: str) -> set[int]:
    """Those of them with this name."""
    return {pid for pid in members(folder) if _name(pid) == name}


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _bears(entry: Path, mark: bytes) -> bool:
    try:
        return (
            mark in (entry / "cmdline").read_bytes()
            or mark in (entry / "environ").read_bytes()
            or mark in str((entry / "cwd").readlink()).encode()
        )
    except OSError:  # gone, or not ours to see
        return False


def _parent(entry: Path) -> int | None:
    try:
        return int(_state(entry)[1])
    except OSError:
        return None


_ENDING = 0x4
"""The kernel's flag (PF_EXITING) of a process that is on its way out, which takes a while."""


def _lives(pid: int) -> bool:
    try:
        return not int(_state(Path(f"/proc/{pid}"))[6]) & _ENDING
    except OSError:
        return False


def _state(entry: Path) -> list[str]:
    """What the kernel says of a process after its name: state, parent, group, session, terminal, its group, flags."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


@asynccontextmanager
async def opened(workers: int = 1, *, without: Sequence[str] = ()) -> AsyncIterator[Sandbox]:
    """A sandbox that is closed again; `BARE` stands for the weakest level, which has to be asked for."""
    sandbox = Sandbox(workers, without=without, isolation="weak" if without == BARE else "strict")
    try:
        yield sandbox
    finally:
        await sandbox.close()
