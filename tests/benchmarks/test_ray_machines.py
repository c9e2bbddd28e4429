"""A real Ray cluster whose workers do not reach the file of the run's store: they go by its keeper."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archon.benchmarks.cluster import batches, keeper
from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.benchmarks.searching.setting_up import read_benchmark
from archon.budget import Budget
from archon.errors import StoreError
from archon.store import SQLiteStore
from archon.usage import total
from tests.benchmarks.clustered import (
    BENCHMARK,
    FILE,
    MARKS,
    MODELS,
    Log,
    at_work,
    connect,
    ids,
    locally,
    nodes,
    on,
    paid,
    stack,
    stored,
)

ray = pytest.importorskip("ray")
pytestmark = MARKS


@pytest.fixture(scope="module")
def connected() -> Iterator[Any]:
    with nodes(2) as found:
        yield connect(found)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is on a machine that no worker is on."""
    monkeypatch.setattr(batches, "machine", lambda: "the machine of the run")


@pytest.mark.usefixtures("far")
def test_a_search_finds_the_same_by_way_of_the_keeper(connected: Any, tmp_path: Path, log: Log) -> None:
    file = tmp_path / "stacks.yaml"
    file.write_text(FILE)
    told = []
    for name, more in (("local", ()), ("ray", ("--executor", "ray", "--ray-address", connected.address))):
        arguments = [str(file), "--out", str(tmp_path / name), "-q", "--no-pictures", *more]
        found = CliRunner().invoke(search, arguments, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        told.append(json.loads((tmp_path / name / "search.json").read_text()))
        for one in (told[-1]["best"], *told[-1]["baselines"].values()):
            assert one["cost"].pop("flops") > 0  # less where a process has read a prompt's beginning before
    assert told[0] == told[1]
    assert log.by_keeper == {True} and len(log.nodes) == 2
    assert not log.lost


@pytest.mark.usefixtures("far")
async def test_far_workers_share_samples_and_keep_the_limit(connected: Any, tmp_path: Path, log: Log) -> None:
    problems, store = ids(8), tmp_path / "ray.sqlite"
    whole = await locally(tmp_path / "local.sqlite", stack(4, 200), problems)
    needed = total(one.usage for one in whole if one is not None).tokens
    limit = 2 * needed // 3
    async with on(connected, store, limits=Budget(tokens=limit, counts="fresh")) as evaluator:
        few, many = await asyncio.gather(
            evaluator.evaluate(stack(2, 200), problems[:4]), evaluator.evaluate(stack(4, 200), problems)
        )
        fresh = evaluator.fresh
    assert log.by_keeper == {True}
    assert 0 < fresh.tokens == (await asyncio.to_thread(paid, store)).tokens <= limit
    assert any(one is None for one in (*few, *many)), "there was not enough for all"
    done = [(one, other) for one, other in zip(many, whole, strict=True) if one is not None]
    assert done and all(one.right == other.right for one, other in done if other is not None)


@pytest.mark.usefixtures("far")
async def test_a_far_worker_that_is_cancelled_lets_go(
    connected: Any, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SILENT_SECONDS", 3600.0)
    store = tmp_path / "ray.sqlite"
    async with on(connected, store) as evaluator:
        task = asyncio.create_task(evaluator.evaluate(stack(100), ids(2)))
        while stored(store) < 5:
            assert not task.done()
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while at_work(connected):
            await asyncio.sleep(0.05)
        async with LocalEvaluator(
            read_benchmark(BENCHMARK, None).load(), MODELS, store=SQLiteStore(store)
        ) as near:
            async with asyncio.timeout(600):  # nobody waits for it to be taken for dead
                found = await near.evaluate(stack(20), ids(2))
        assert None not in found


@pytest.mark.usefixtures("far")
async def test_a_keeper_that_is_killed_ends_the_run_and_nothing_is_lost(
    connected: Any, tmp_path: Path
) -> None:
    store = tmp_path / "ray.sqlite"
    async with on(connected, store) as evaluator:
        task = asyncio.create_task(evaluator.evaluate(stack(60), ids(4)))
        while stored(store) < 5:
            assert not task.done()
            await asyncio.sleep(0.05)
        ray.kill(ray.get_actor(evaluator.batches._keeper))
        with pytest.raises(StoreError, match="run the same command again"):
            await task
    before = stored(store)
    async with on(connected, store) as evaluator:
        assert None not in await evaluator.evaluate(stack(60), ids(4))
    assert before >= 5 and stored(store) == 240
