"""Tasks of a cluster that nobody waits for any more: they end, and neither side comes to harm."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from archon.benchmarks.cluster.bell import Bell, while_wanted
from tests.benchmarks.clustered import MARKS


class Handle:
    """A bell as a worker has it: what is asked of it comes later."""

    def __init__(self, bell: Bell) -> None:
        self.rung = self
        self.listened: list[int] = []
        self._bell = bell

    async def remote(self, number: int) -> None:
        self.listened.append(number)
        await self._bell.rung(number)


class Gone:
    """The bell of a program that has ended."""

    def __init__(self) -> None:
        self.rung = self

    def remote(self, number: int) -> Any:
        raise ConnectionError(f"nobody has bell {number}")


async def done(seconds: float = 0.0) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def test_what_is_wanted_is_done() -> None:
    bell = Bell()
    await bell.ring(2)
    assert await while_wanted(done(), 1, Handle(bell)) == "done"


async def test_what_is_called_off_ends_and_tidies_up_before_the_next() -> None:
    bell, tidied = Bell(), []

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            tidied.append(True)
        return "never"

    handle = Handle(bell)
    working = asyncio.ensure_future(while_wanted(work(), 7, handle))
    while not handle.listened:
        await asyncio.sleep(0)
    await bell.ring(6)
    await asyncio.sleep(0)
    assert not working.done(), "another's bell"
    await bell.ring(7)
    assert await working is None
    assert tidied


async def test_a_task_that_begins_after_it_was_called_off_ends_at_once() -> None:
    bell = Bell()
    await bell.ring(3)
    assert await while_wanted(done(600), 3, Handle(bell)) is None


async def test_all_who_listen_hear_it() -> None:
    bell = Bell()
    working = [asyncio.ensure_future(while_wanted(done(600), 3, Handle(bell))) for _ in range(3)]
    await asyncio.sleep(0)
    await bell.ring(3)
    assert await asyncio.gather(*working) == [None] * 3
    await bell.ring(3)


async def test_a_bell_that_is_gone_calls_nothing_off() -> None:
    assert await while_wanted(done(0.01), 1, Gone()) == "done"


async def test_a_mistake_is_the_workers_own() -> None:
    async def work() -> str:
        raise ValueError("what it says")

    bell = Bell()
    with pytest.raises(ValueError, match="what it says"):
        await while_wanted(work(), 1, Handle(bell))


STORM = """
import asyncio, json, os, random, time
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
import ray
from archon.benchmarks.cluster.ray_cluster import RayCluster

def nap(request, *others):
    time.sleep(json.loads(request))
    return "{}"

async def main():
    rng = random.Random(0)
    async with RayCluster() as cluster:
        cluster._task = ray.remote(num_cpus=1, max_retries=0)(nap)
        assert await cluster.do(0) == {}
        for _ in range(1000):
            tasks = [asyncio.ensure_future(cluster.do(rng.choice([0, 0.001, 0.01]))) for _ in range(3)]
            await asyncio.sleep(0.02 * rng.random())
            for task in tasks:
                task.cancel()
            for found in await asyncio.gather(*tasks, return_exceptions=True):
                assert found == {} or isinstance(found, asyncio.CancelledError), found
        assert await cluster.do(0) == {}
    print("there is still a program")

asyncio.run(main())
"""

LATE = """
import asyncio, os, time
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
import ray
from archon.benchmarks.cluster.ray_cluster import RayCluster

def nap(*_):
    time.sleep(600)

async def main():
    async with RayCluster() as cluster:
        cluster._task = ray.remote(num_cpus=1, max_retries=0)(nap)
        waiting = asyncio.ensure_future(cluster.do({}))
        await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait([waiting])
    print("there is a Ray" if ray.is_initialized() else "there is no Ray")

asyncio.run(main())
"""


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=600, check=False
    )


class TestWithRay:
    pytestmark = MARKS

    def test_calling_off_what_ends_in_the_same_moment_ends_nothing_else(self) -> None:
        """With `ray.cancel` the program was ended by Ray, after 54, 1131, 2532 and 3507 of them."""
        pytest.importorskip("ray")
        found = run(STORM)
        assert "there is still a program" in found.stdout, found.stderr[-2000:]

    def test_calling_off_after_the_end_starts_no_ray(self) -> None:
        """A call of an actor begins a cluster where there is none; the program hung."""
        pytest.importorskip("ray")
        found = run(LATE)
        assert "there is no Ray" in found.stdout, found.stdout + found.stderr[-2000:]
