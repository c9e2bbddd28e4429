"""What the tests of a Ray cluster share: a cluster of two nodes on this machine, and what it was asked."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from archon.backends.nano.backend import Nano
from archon.benchmarks.cluster.ray_cluster import RayCluster, WorkerLost
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.benchmarks.searching.ray_evaluator import RayEvaluator
from archon.benchmarks.searching.setting_up import read_benchmark
from archon.config import Config, load
from archon.search.objectives import Evaluation
from archon.store import SQLiteStore
from archon.usage import Usage, total

# No two stacks share samples: which of them pays for what they share, and in how many requests, is a matter of time.
FILE = """
benchmark: {lab/arith: {level: [2, 4], problems: 12}}
objectives: accuracy
limits: {calls: 8}
proposers: random
effort: {trials: 3}
splits: {search: 0.5, validation: 0.25, test: 0.25}
baselines: {vote: self_consistency@4}
race: {first: 4, width: 2}
finalists: 2
pipeline:
  - sample: {n: 2, temperature: {choose: [0.5, 0.65, 1.0]}}
  - majority_vote
"""
BENCHMARK: dict[str, dict[str, Any]] = {"lab/arith": {"level": [4], "problems": 12}}
MODELS = {"default": Nano()}


def stack(n: int, most: int = 500) -> Config:
    return load(
        f"pipeline: [{{sample: {{n: {n}, temperature: 0.8, max_tokens: {most}}}}}, majority_vote]",
        format="yaml",
    )


MARKS = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Ray's own: files and processes that it leaves to the end of the interpreter, and its notices of change.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]
"""Of every test of a cluster."""
SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}


@contextmanager
def nodes(count: int) -> Iterator[Any]:
    """A cluster of so many raylets, one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = Cluster(initialize_head=True, head_node_args={**SMALL, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            found.add_node(**SMALL)
        found.wait_for_nodes()
        yield found
    finally:
        with suppress(Exception):
            ray.shutdown()
        found.shutdown()  # type: ignore[no-untyped-call]
        patch.undo()


def connect(cluster: Any) -> Any:
    """The cluster, with workers that stay from test to test."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    return cluster


async def _awake(cluster: RayCluster) -> None:
    """Have a worker of this program's on every node. It takes seconds to start one, in which the others may do all the
    work."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as At

    def begin() -> None:
        return None

    begun: Any = ray.remote(num_cpus=1)(begin)
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    started = [begun.options(scheduling_strategy=At(node, soft=False)).remote() for node in alive]
    await asyncio.gather(*started)


class Log:
    """What was asked of the cluster, whose workers are all there from the start, and what it answered."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[Sequence[str]] = []
        self.lost: list[Sequence[str]] = []
        self.answers: list[Mapping[str, Any]] = []
        do, enter = RayCluster.do, RayCluster.__aenter__

        async def entered(cluster: RayCluster) -> RayCluster:
            await enter(cluster)
            await _awake(cluster)
            return cluster

        async def logged(cluster: RayCluster, request: Mapping[str, Any]) -> Any:
            self.asked.append(request["problems"])
            try:
                answer = await do(cluster, request)
            except WorkerLost:
                self.lost.append(request["problems"])
                raise
            self.answers.append(answer)
            return answer

        patch.setattr(RayCluster, "do", logged)
        patch.setattr(RayCluster, "__aenter__", entered)

    @property
    def by_keeper(self) -> set[bool]:
        """Whether workers reached the store by way of its keeper."""
        return {answer["by_keeper"] for answer in self.answers if "by_keeper" in answer}

    @property
    def nodes(self) -> set[str]:
        return {answer["node"] for answer in self.answers}


@asynccontextmanager
async def on(cluster: Any, store: Path, **options: Any) -> AsyncIterator[RayEvaluator]:
    dataset = read_benchmark(BENCHMARK, None).load()
    async with RayEvaluator(
        dataset, MODELS, benchmark=BENCHMARK, store=store, address=cluster.address, **options
    ) as evaluator:
        yield evaluator


async def locally(store: Path, config: Config, problems: Sequence[str]) -> list[Evaluation | None]:
    dataset = read_benchmark(BENCHMARK, None).load()
    async with LocalEvaluator(dataset, MODELS, store=store) as evaluator:
        return list(await evaluator.evaluate(config, problems))


def ids(count: int) -> list[str]:
    return [problem.id for problem in read_benchmark(BENCHMARK, None).load().problems][:count]


def same(one: Evaluation | None, other: Evaluation | None, *, fresh: bool = True) -> bool:
    """But for time, and for work: how much of a prompt a model has read before is each process's own."""
    assert one is not None and other is not None
    plain = [one.as_json(), other.as_json()]
    for data in plain:
        for name in ("seconds", *(() if fresh else ("fresh",))):
            del data[name]
        for usage in ("usage", "fresh"):
            for name in ("flops", "seconds", "cached_tokens"):
                data.get(usage, {}).pop(name, None)
    return plain[0] == plain[1]


def paid(store: Path) -> Usage:
    """Everything that is recorded as spent."""

    async def found() -> Usage:
        opened = SQLiteStore(store)
        try:
            return total([one.usage for one in await opened.summaries()])
        finally:
            await opened.close()

    return asyncio.run(found())


def stored(store: Path) -> int:
    """How many samples there are; 0 where there is no store yet."""
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM samples").fetchone()[0])
        finally:
            connection.close()
    return 0


def at_work(cluster: Any) -> list[int]:
    """The processes of the cluster that have a task of ours in hand."""
    raylets = {
        info.process.pid
        for node in cluster.list_all_nodes()
        for kind, infos in node.all_processes.items()
        if kind == "raylet"
        for info in infos
    }
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (place / "cmdline").read_bytes().startswith(b"ray::work"):
                found.append(int(place.name))
    return found
