"""Programs that want out, everything, to know, or to stay: none gets what it wants, and nothing shows it was there.

Returning what it got is the right answer here, so that an attack that works is a pass.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from archon.benchmarks.hostile.contained import CONTAINED
from archon.benchmarks.hostile.forgeries import QUICK, SLOW
from archon.errors import ExecutionError
from archon.execution import Limits, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import BARE, CASES, PATIENT, RIGHT, opened, processes, program, zygotes

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="LOUDLY: raw calls here have x86-64's numbers"),
]

TIGHT = Limits(cpu_seconds=1, wall_seconds=3, memory_mb=256, output_mb=1)
ATTACKS = {f"{category}: {name}": s for category, those in CONTAINED.items() for name, s in those.items()}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, socket.socket]]:
    """What is attacked: a file anybody may use, and a server."""
    file = tmp_path_factory.mktemp("target") / "file"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        server.setblocking(False)
        local.bind(f"\0archon-attack-{server.getsockname()[1]}")
        local.listen()
        yield file, server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(scratch: Path) -> AsyncIterator[Sandbox]:
    """One with every layer; where this kernel lacks one these tests say so and are skipped."""
    async with opened() as sandbox:
        try:
            lacking = [f"{x.name}: {x.why}" for x in await sandbox.layers() if not x.active]
        except ExecutionError as error:
            lacking = [str(error)]
        if lacking:
            pytest.skip(f"LOUDLY: this kernel lacks {lacking}")
        yield sandbox


def suite(target: tuple[Path, socket.socket]) -> Suite:
    file, server = target
    file.write_text("secret")
    file.chmod(0o666)
    args: tuple[Any, ...] = (str(file), os.getpid(), server.getsockname()[1])
    return Suite(cases=(Case(args=args, expected="GOT IT"),))


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
async def test_no_attack_gets_what_it_wants(
    sandbox: Sandbox, scratch: Path, target: tuple[Path, socket.socket], source: str
) -> None:
    tests, before = suite(target), zygotes(scratch)
    for _ in range(2):  # what stays is found by the second
        report = await sandbox.test(program(source), tests, TIGHT)
        assert report.status in ("wrong", "failed", "timed_out", "violation"), report
    file, server = target
    assert file.read_text() == "secret" and file.stat().st_mode & 0o777 == 0o666
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(BlockingIOError):
        server.accept()
    assert processes(scratch) == before or "fork" not in source
    assert (await sandbox.test(program(RIGHT), CASES, PATIENT)).status == "passed"


async def test_nothing_of_them_is_left(scratch: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    sandbox = Sandbox(1)
    await sandbox.test(program(RIGHT), CASES, PATIENT)
    assert Path("/proc/self/mountinfo").read_text() == mounts, "mounts are in namespaces of their own"
    await sandbox.close()
    assert Path("/proc/self/mountinfo").read_text() == mounts


HARMLESS = ("spy: a file", "spy: a folder", "escape: write a file")


@pytest.mark.parametrize("name", HARMLESS)
async def test_they_work_where_nothing_guards_and_so_can_fail(
    scratch: Path, target: tuple[Path, socket.socket], name: str
) -> None:
    async with opened(without=BARE) as bare:
        report = await bare.test(program(ATTACKS[name]), suite(target), PATIENT)
    assert report.status == "passed", report


async def test_there_are_enough_of_every_kind() -> None:
    assert all(len(those) >= 15 for those in CONTAINED.values())
    assert len(ATTACKS) + len(QUICK) + len(SLOW) >= 60 and len(QUICK) + len(SLOW) >= 15
