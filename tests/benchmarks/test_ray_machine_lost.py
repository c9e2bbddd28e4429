"""A machine of a real Ray cluster has other disks, and dies in the middle of its work.

It is a raylet in a mount namespace of its own, in which the store's folder is another one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from archon.benchmarks.cluster import keeper
from tests.benchmarks.clustered import (
    MARKS,
    SMALL,
    Log,
    connect,
    ids,
    locally,
    nodes,
    on,
    stack,
    stored,
)

ray = pytest.importorskip("ray")
pytestmark = MARKS


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


@asynccontextmanager
async def machine(head: Any, hidden: Path) -> AsyncIterator[Machine]:
    """Another machine of the cluster, which has a folder of its own in the place of this one."""
    options = [
        "--num-cpus=1",
        f"--object-store-memory={SMALL['object_store_memory']}",
        "--disable-usage-stats",
    ]
    start = [f"{Path(sys.executable).parent}/ray", "start", f"--address={head.address}", "--block", *options]
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(hidden), *start],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = len(ray.nodes())
    try:
        while sum(node["Alive"] for node in ray.nodes()) < before + 1:
            assert process.poll() is None, "it did not start"
            await asyncio.sleep(0.2)
        found = Machine(process)
        try:
            yield found
        finally:
            found.end()
    finally:
        process.kill()
        process.wait()


class Machine:
    """All processes in the mount namespace of this one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._space = Path(f"/proc/{process.pid}/ns/mnt").readlink()
        assert self._space != Path("/proc/self/ns/mnt").readlink()

    def processes(self) -> Iterator[tuple[int, bytes]]:
        """Their numbers and command lines."""
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (place / "ns/mnt").readlink() == self._space:
                    yield int(place.name), (place / "cmdline").read_bytes()

    def at_work(self) -> list[int]:
        """Its processes that have a task of ours in hand."""
        return [pid for pid, command in self.processes() if command.startswith(b"ray::work")]

    def held(self) -> bool:
        """Whether it has one, and cannot end it: its process has been stopped."""
        for pid in self.at_work():
            os.kill(pid, signal.SIGSTOP)
            if pid in self.at_work():
                return True
            os.kill(pid, signal.SIGCONT)  # it had just done it
        return False

    def end(self) -> None:
        """Pull its plug."""
        while there := [pid for pid, command in self.processes() if command]:  # a dead one has none
            for pid in there:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()


def can_hide(folder: Path) -> bool:
    command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0"', str(folder)]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
    )


async def test_a_machine_with_other_disks_does_its_part_and_dies(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SILENT_SECONDS", 20.0)
    if not can_hide(tmp_path):
        pytest.skip("no mount namespace can be made here (unshare --mount)")
    problems, config, store = ids(8), stack(24), tmp_path / "ray.sqlite"
    with nodes(1) as head:
        connect(head)
        async with machine(head, tmp_path) as other, on(head, store, concurrency=4) as evaluator:
            await evaluator.evaluate(stack(2), problems)
            assert log.by_keeper == {True, False} and len(log.nodes) == 2
            task = asyncio.create_task(evaluator.evaluate(config, problems))
            while stored(store) < 2 * len(problems) + 20 or not other.held():
                assert not task.done(), "it was too quick"
                await asyncio.sleep(0.05)
            other.end()
            found = await task
    here = await locally(tmp_path / "local.sqlite", config, problems)
    assert None not in found and [one and one.right for one in found] == [one and one.right for one in here]
    assert log.lost, "a batch was lost with its machine, and evaluated again"
    assert stored(store) == 24 * len(problems)
