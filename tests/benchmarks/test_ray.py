"""A real Ray cluster of two nodes on this machine: the same results as without, one budget, and killed workers.
Workers on other machines, and nodes that die: tests/benchmarks/test_ray_machines.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archon.benchmarks.cli import bench
from archon.benchmarks.cluster import worker
from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.ray_evaluator import RayEvaluator
from archon.benchmarks.searching.setting_up import read_benchmark
from archon.budget import Budget
from archon.config import Config, load
from archon.errors import UserError
from archon.search.objectives import Evaluation
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
    same,
    stack,
    stored,
)

ray = pytest.importorskip("ray")
pytestmark = MARKS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes(2) as found:
        yield found


@pytest.fixture(scope="module")
def connected(cluster: Any) -> Any:
    return connect(cluster)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def test_a_search_finds_the_same_as_without(cluster: Any, tmp_path: Path, log: Log) -> None:
    file = tmp_path / "stacks.yaml"
    file.write_text(FILE)
    told = []
    for name, more in (("local", ()), ("ray", ("--executor", "ray", "--ray-address", cluster.address))):
        arguments = [str(file), "--out", str(tmp_path / name), "-q", "--no-pictures", *more]
        found = CliRunner().invoke(search, arguments, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        told.append(json.loads((tmp_path / name / "search.json").read_text()))
        for one in (told[-1]["best"], *told[-1]["baselines"].values()):
            assert one["cost"].pop("flops") > 0  # less where a process has read a prompt's beginning before
    assert told[0] == told[1]
    for name in ("best.yaml", "splits.json", "test.txt"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()
    assert len(log.nodes) == 2, "both nodes did work"
    assert not log.lost


def test_a_benchmark_has_the_same_records_as_without(cluster: Any, tmp_path: Path, log: Log) -> None:
    told = []
    for name, more in (("local", ()), ("ray", ("--executor", "ray", "--ray-address", cluster.address))):
        arguments = [
            "lab/arith", "--level", "2,4", "--benchmark-set", "problems=6", "--seed", "0", "-p", "self_consistency",
            "--samples", "4", "--store", str(tmp_path / f"{name}.sqlite"), "--out", str(tmp_path / name), "-q",
            "--no-pictures", *more,
        ]  # fmt: skip
        found = CliRunner().invoke(bench, arguments, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        lines = (tmp_path / name / "problems.jsonl").read_text().splitlines()
        told.append([_timeless(json.loads(line)) for line in lines])
        told.append([(tmp_path / name / file).read_bytes() for file in ("info.json", "run.json")])
    assert told[0] == told[2] and len(told[0]) == 12
    assert told[1] == told[3]
    assert len(log.nodes) == 2, "both nodes did work"


def _timeless(record: Any) -> Any:
    """A record but for time and work, as `same` says."""
    if isinstance(record, dict):
        odd = ("seconds", "flops", "cached_tokens")
        return {key: _timeless(value) for key, value in record.items() if key not in odd}
    return record


async def test_a_killed_worker_costs_its_batch(connected: Any, tmp_path: Path, log: Log) -> None:
    problems, config, store = ids(8), stack(24), tmp_path / "ray.sqlite"
    async with on(connected, store, concurrency=4) as evaluator:
        task = asyncio.create_task(_evaluated(evaluator, config, problems))
        while stored(store) < 20 or not (busy := held(connected)):
            assert not task.done(), "it was too quick to be killed"
            await asyncio.sleep(0.05)
        os.kill(busy, signal.SIGKILL)
        found = await task
    assert len(log.lost) == 1 and len(log.lost[0]) == 2
    assert sorted(map(tuple, log.asked)).count(tuple(log.lost[0])) == 2, "its batch was evaluated again"
    assert sum(map(len, log.asked)) == len(problems) + len(log.lost[0]), "and no other"
    here = await locally(tmp_path / "local.sqlite", config, problems)
    assert all(same(one, other, fresh=False) for one, other in zip(found, here, strict=True))
    fresh = total(one.fresh for one in found if one is not None)
    assert 0 < fresh.tokens <= total(one.fresh for one in here if one is not None).tokens


def held(cluster: Any) -> int:
    """A process that has been stopped with a task in hand; 0 where there is none."""
    for process in at_work(cluster):
        os.kill(process, signal.SIGSTOP)
        if process in at_work(cluster):
            return process
        os.kill(process, signal.SIGCONT)  # it had just done it
    return 0


async def _evaluated(evaluator: RayEvaluator, config: Config, problems: Sequence[str]) -> list[Any]:
    return list(await evaluator.evaluate(config, problems))


async def test_stacks_that_share_samples_pay_for_them_once(connected: Any, tmp_path: Path) -> None:
    problems = ids(4)
    async with on(connected, tmp_path / "ray.sqlite") as evaluator:
        small, large = await asyncio.gather(
            evaluator.evaluate(stack(3), problems), evaluator.evaluate(stack(6), problems)
        )
        fresh = evaluator.fresh
    spent = total(one.fresh for one in (*small, *large) if one is not None)
    store = tmp_path / "ray.sqlite"
    assert stored(store) == 6 * len(problems)
    assert spent.tokens == fresh.tokens == (await asyncio.to_thread(paid, store)).tokens
    here = await locally(tmp_path / "local.sqlite", stack(6), problems)
    assert [one and one.right for one in large] == [one and one.right for one in here]


async def test_the_limit_holds_over_all_workers(connected: Any, tmp_path: Path) -> None:
    problems, store = ids(12), tmp_path / "ray.sqlite"
    whole = await locally(tmp_path / "local.sqlite", stack(4, 200), problems)
    needed = total(one.usage for one in whole if one is not None).tokens
    limit = 2 * needed // 3
    async with on(connected, store, limits=Budget(tokens=limit, counts="fresh")) as evaluator:
        first = await evaluator.evaluate(stack(4, 200), problems)
        second = await evaluator.evaluate(stack(4, 200), problems)
        fresh = evaluator.fresh
    assert 0 < fresh.tokens <= limit
    assert (await asyncio.to_thread(paid, store)).tokens <= limit
    assert any(one is None for one in second), "there was not enough for all"
    done = [(one, other) for one, other in zip(first, whole, strict=True) if one is not None]
    assert done and all(written(one) == written(other) for one, other in done), (
        "who ran out got another allowance"
    )


async def test_a_mistake_is_raised_as_the_worker_raised_it(connected: Any, tmp_path: Path) -> None:
    wrong = load(
        "models: {default: {backend: openai, model: m}}\npipeline: [{sample: {n: 1}}]", format="yaml"
    )
    with pytest.raises(UserError) as here:
        await locally(tmp_path / "local.sqlite", wrong, ids(1))
    async with on(connected, tmp_path / "ray.sqlite") as evaluator:
        with pytest.raises(UserError) as there:
            await evaluator.evaluate(wrong, ids(2))
        assert type(there.value) is type(here.value) and str(there.value) == str(here.value)
        assert "needs a key" in str(there.value)
        assert None not in await evaluator.evaluate(stack(1), ids(2)), "and the next one runs"


async def test_being_cancelled_ends_what_runs(connected: Any, tmp_path: Path) -> None:
    async with on(connected, tmp_path / "ray.sqlite") as evaluator:
        task = asyncio.create_task(_evaluated(evaluator, stack(200), ids(8)))
        while not at_work(connected):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while at_work(connected):  # the test's time limit is the assertion
            await asyncio.sleep(0.05)
        assert None not in await evaluator.evaluate(stack(1), ids(2))


async def test_other_data_and_another_store_are_refused(connected: Any, tmp_path: Path) -> None:
    store = tmp_path / "ray.sqlite"
    for change, words in (
        ({"fingerprint": "other"}, "same data"),
        ({"meeting": "other"}, "not where the keeper"),
    ):
        async with on(connected, store) as evaluator:
            await evaluator.evaluate(stack(1), ids(1))
            evaluator.batches._about |= change
            with pytest.raises(UserError, match=words):
                await evaluator.evaluate(stack(1), ids(1))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "bad address:6379"])
async def test_a_cluster_that_is_not_there_is_named(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    dataset = read_benchmark(BENCHMARK, None).load()
    evaluator = RayEvaluator(
        dataset, MODELS, benchmark=BENCHMARK, store=tmp_path / "s.sqlite", address=address
    )
    with pytest.raises(UserError, match=r"nothing answers at .*--ray-address"):
        async with evaluator:
            pass


def written(one: Evaluation | None) -> object:
    """Without prompts: in how many requests the samples come depends on what an allowance was enough for."""
    assert one is not None
    return one.right, one.samples, one.usage.completion_tokens, one.fresh.completion_tokens


def test_no_key_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    from archon.backends.openai import OpenAI
    from archon.config import dump

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret")
    config = stack(1).model_copy(update={"models": {"default": OpenAI(model="m")}})
    assert "secret" not in dump(config)
    assert worker.machine()
