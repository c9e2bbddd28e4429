"""Evaluates stacks on a Ray cluster: a batch of problems of one configuration is one task.

The driver keeps the study and its claims; workers share the store, which claims each sample before it is drawn, so
nothing is paid for twice. The limits of the whole search are given out as allowances (search/accounts.py), and a
worker that is killed costs its batch (cluster/batches.py). Cost: the calls of the pipelines, as far as they are not
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from archon.backends.base import Model
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.cluster.batches import Batches
from archon.benchmarks.cluster.ray_cluster import RayCluster
from archon.benchmarks.searching.evaluator import LocalEvaluator, evaluation_of, tell
from archon.budget import Budget
from archon.config import Config, dump
from archon.search.accounts import Purse, SharedAccount
from archon.search.objectives import Evaluation
from archon.tasks import together
from archon.usage import Usage


class RayEvaluator(LocalEvaluator):
    """Evaluates on a cluster's workers; sessions of its own serve what needs no evaluation. An asynchronous context
    manager: it connects, and ends what it started."""

    batches: Batches

    def __init__(
        self,
        dataset: Dataset,
        models: Mapping[str, Model],
        *,
        benchmark: Mapping[str, Mapping[str, Any]],
        store: Path,
        limit: int | None = None,
        address: str | None = None,
        limits: Budget | None = None,
        seed: int = 0,
        concurrency: int = 16,
        offline: bool = False,
        prices: Path | None = None,
    ) -> None:
        """`benchmark` is the one of the dataset by name and settings, `limit` how many of its problems are in it;
        `address` is the cluster's (cluster/ray_cluster.py). Raises MissingExtra."""
        self._cluster = RayCluster(address)
        super().__init__(
            dataset, models, store=store, limits=limits, seed=seed, concurrency=concurrency, offline=offline,
            prices=prices,
        )  # fmt: skip
        self._path = store
        self._account: SharedAccount | None = None
        self._run: dict[str, Any] = {
            "benchmark": benchmark,
            "limit": limit,
            "fingerprint": dataset.fingerprint,
            "limits": self._limits,
            "seed": seed,
            "concurrency": concurrency,
            "offline": offline,
            "prices": prices,
        }

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            cluster = await self._stack.enter_async_context(self._cluster)
        except BaseException:
            await self._stack.aclose()
            raise
        self.batches = Batches(cluster, self._store, self._path, **self._run)
        return self

    @property
    def fresh(self) -> Usage:
        """What was spent by this process and its workers, as far as they told."""
        return super().fresh + self.batches.fresh

    @property
    def used(self) -> Usage:
        """The same with what was replayed."""
        return super().used + self.batches.used

    @contextmanager
    def spending_from(self, purse: Purse) -> Iterator[None]:
        """As a `LocalEvaluator`: allowances of the workers come out of it."""
        self._account = SharedAccount(purse, self._cluster.workers, lambda: self.fresh)
        self.batches.spend_from(self._account, purse.limit)
        try:
            yield
        finally:
            self._report()

    def _report(self) -> None:
        if self._account is not None:
            self._account.report()

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Callable[[Evaluation], None] | None = None
    ) -> Sequence[Evaluation | None]:
        """What came of each problem; None where the budget of the whole search ended first. `arrived` is told of those
        of each batch as soon as it is done. Raises UserErrors where the pipeline or its models cannot run, as the
        worker raised them."""
        self.known(problems)
        text = dump(config.model_copy(update={"models": {**self._models, **config.models}}))

        async def one(batch: Sequence[str]) -> list[dict[str, Any]]:
            records = await self.batches.records(text, batch)
            for record in records:
                tell(arrived, record)
            return records

        with self._working():
            found = await together(one(batch) for batch in self.batches.split(problems))
        return [evaluation_of(record) for records in found for record in records]
