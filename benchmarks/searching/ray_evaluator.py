"""Evaluates stacks on a Ray cluster: a batch of problems of one configuration is one task.

The driver keeps the study and its claims; workers share the store, which claims each sample before it is drawn, so
nothing is paid for twice. The limits of the whole search are given out as allowances (cluster/allowances.py). A worker
that is killed costs its batch: the batch is evaluated again, what it had stored is replayed, and its allowance counts
as spent. Cost: the calls of the pipelines, as far as they are not stored.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from archon.backends.base import Model
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.cluster.allowances import Allowance, Allowances
from archon.benchmarks.cluster.faults import unpacked
from archon.benchmarks.cluster.ray_cluster import RayCluster, WorkerLost
from archon.benchmarks.cluster.worker import MEETING, machine
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.budget import Budget
from archon.config import Config, dump
from archon.errors import UserError
from archon.search.objectives import Evaluation
from archon.tasks import together
from archon.usage import NOTHING, Usage

_MOST_LOST = 3
"""How often a batch may lose its worker."""


class RayEvaluator(LocalEvaluator):
    """Evaluates on a cluster's workers; sessions of its own serve what needs no evaluation. An asynchronous context
    manager: it connects, and ends what it started."""

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
        `address` is the cluster's (cluster/ray_cluster.py). `concurrency` problems are in work at once on all workers
        together, and one on each at least. Raises MissingExtra."""
        super().__init__(
            dataset, models, store=store, limits=limits, seed=seed, concurrency=concurrency, offline=offline,
            prices=prices,
        )  # fmt: skip
        self._cluster = RayCluster(address)
        self._concurrency = concurrency
        self._elsewhere = (NOTHING, NOTHING)
        self._about: dict[str, Any] = {
            "benchmark": benchmark,
            "limit": limit,
            "fingerprint": dataset.fingerprint,
            "store": str(store.resolve()),
            "meeting": secrets.token_hex(16),
            "machine": machine(),
            "folder": str(Path.cwd()),
            "limits": self._limits.model_dump(mode="json"),
            "seed": seed,
            "concurrency": concurrency,
            "offline": offline,
            "prices": None if prices is None else str(prices.resolve()),
        }

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self._stack.enter_async_context(self._cluster)
        await self._store.remember(MEETING, {self._about["meeting"]: b""})
        workers = self._cluster.workers
        self._slots = asyncio.Semaphore(workers)
        self._allowances = Allowances(self._limits, workers)
        return self

    @property
    def fresh(self) -> Usage:
        """What was spent by this process and its workers, as far as they told."""
        return super().fresh + self._elsewhere[0]

    @property
    def used(self) -> Usage:
        """The same with what was replayed."""
        return super().used + self._elsewhere[1]

    async def evaluate(self, config: Config, problems: Sequence[str]) -> Sequence[Evaluation | None]:
        """What came of each problem; None where the budget of the whole search ended first. Raises UserErrors where
        the pipeline or its models cannot run, as the worker raised them."""
        self._known(problems)
        text = dump(config.model_copy(update={"models": {**self._models, **config.models}}))
        found: dict[str, Evaluation] = {}
        for some in await together(self._batch(text, batch) for batch in self._batches(problems)):
            found.update(some)
        return [found.get(problem) for problem in problems]

    def _batches(self, problems: Sequence[str]) -> Iterator[Sequence[str]]:
        """Something for every worker, and no more at once than is wanted."""
        workers = self._cluster.workers
        size = max(1, min(-(-len(problems) // workers), -(-self._concurrency // workers)))
        for start in range(0, len(problems), size):
            yield problems[start : start + size]

    async def _batch(self, config: str, problems: Sequence[str]) -> dict[str, Evaluation]:
        """One task, and again as far as its worker was lost or its allowance was too small."""
        found: dict[str, Evaluation] = {}
        before: dict[str, Usage] = {}
        """What problems spent in vain: their samples are replayed, and were paid for here."""
        left, everything, lost = list(problems), False, 0
        async with self._slots:
            while left:
                allowance = await self._allowances.take(len(left), everything=everything)
                if allowance is None:
                    break
                try:
                    records = await self._task(config, left, allowance)
                except WorkerLost as error:
                    lost += 1
                    if lost >= _MOST_LOST:
                        raise UserError(
                            f"{lost} workers were lost with the same {len(left)} problems, such as {left[0]!r} "
                            f"({error}). If memory is short, lower --concurrency"
                        ) from error
                    continue
                for record in records:
                    one = Evaluation.of_record(record)
                    paid = before.get(one.problem, NOTHING) + one.fresh
                    if record["exhausted"].startswith("run"):
                        before[one.problem] = paid
                    else:
                        found[one.problem] = replace(one, fresh=paid)
                left = [problem for problem in left if problem not in found]
                if everything:
                    break
                everything = True
        return found

    async def _task(
        self, config: str, problems: Sequence[str], allowance: Allowance
    ) -> Sequence[Mapping[str, Any]]:
        """The records of a task. Raises WorkerLost, and what the worker raised; its allowance is settled."""
        request = {
            "place": self._about,
            "config": config,
            "problems": list(problems),
            "allowance": allowance.budget(self._limits).model_dump(mode="json"),
        }
        try:
            answer = await self._cluster.do(request)
        except BaseException:  # lost, or cancelled
            self._allowances.lose(allowance)
            raise
        spent = {d: Decimal(a) if d == "usd" else int(Decimal(a)) for d, a in answer.get("spent", {}).items()}
        self._allowances.settle(allowance, spent)
        fresh, used = self._elsewhere
        self._elsewhere = (
            fresh + Usage.from_json(answer.get("fresh", {})),
            used + Usage.from_json(answer.get("used", {})),
        )
        if "error" in answer:
            raise unpacked(answer["error"])
        records: Sequence[Mapping[str, Any]] = answer["records"]
        return records
