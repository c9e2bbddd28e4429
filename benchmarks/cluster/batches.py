"""Batches of problems as tasks of a cluster, within one budget: what a search and a benchmark have in common.

A batch whose worker is lost is done again: what it had stored is replayed, and its allowance counts as spent. Problems
that an allowance was too small for get everything that is left, once. Cost: the calls of the pipelines.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from archon.benchmarks.cluster.allowances import Allowances
from archon.benchmarks.cluster.faults import unpacked
from archon.benchmarks.cluster.keeper import MEETING
from archon.benchmarks.cluster.ray_cluster import RayCluster, WorkerLost
from archon.benchmarks.cluster.worker import machine
from archon.budget import Budget
from archon.errors import UserError
from archon.prices import read_table
from archon.search.accounts import Account, Allowance, Amounts
from archon.store import Store
from archon.usage import NOTHING, Usage, total

_MOST_LOST = 3
"""How often a batch may lose its worker."""


class Batches:
    """The tasks of one run. `benchmark` is what workers load, by name and settings, and `limit` how many of its
    problems; `fingerprint` says whether they have the same. `store` is open at `path`. `concurrency` problems are in
    work at once on all workers together, and one on each at least."""

    def __init__(
        self,
        cluster: RayCluster,
        store: Store,
        path: Path,
        *,
        benchmark: Mapping[str, Mapping[str, Any]],
        limit: int | None,
        fingerprint: str,
        limits: Budget,
        seed: int | None,
        concurrency: int,
        offline: bool,
        prices: Path | None,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._limits = limits
        self._size = -(-concurrency // cluster.workers)
        self._slots = asyncio.Semaphore(cluster.workers)
        self._allowances = Allowances(Account(limits, cluster.workers))
        self._path = path.resolve()
        self._met = False
        self._keeper: str | None = None
        self.fresh = NOTHING
        """What workers spent, as far as they told."""
        self.used = NOTHING
        """The same with what was replayed."""
        self._about: dict[str, Any] = {
            "benchmark": benchmark,
            "limit": limit,
            "fingerprint": fingerprint,
            "store": str(self._path),
            "meeting": secrets.token_hex(16),
            "machine": machine(),
            "folder": str(Path.cwd()),
            "limits": limits.model_dump(mode="json"),
            "seed": seed,
            "concurrency": concurrency,
            "offline": offline,
            "prices": _table(prices),
        }

    def spend_from(self, account: Account, limit: Budget) -> None:
        """Let what comes be paid from an account, whose limit holds in the place of ours."""
        self._limits = limit
        self._allowances = Allowances(account)

    def split(self, problems: Sequence[str]) -> list[Sequence[str]]:
        """Something for every worker, and no more at once than is wanted."""
        size = max(1, min(-(-len(problems) // self._cluster.workers), self._size))
        return [problems[start : start + size] for start in range(0, len(problems), size)]

    async def records(self, config: str, problems: Sequence[str], **more: Any) -> list[dict[str, Any]]:
        """The records of a batch, in order; those that the run's budget cut off say so. Raises what a worker raised,
        as it was."""
        found: dict[str, dict[str, Any]] = {}
        cut: dict[str, dict[str, Any]] = {}
        left, everything, lost = list(problems), False, 0
        async with self._slots:
            await self._meet()
            while left:
                allowance = await self._allowances.take(len(left), everything=everything)
                if allowance is None and cut:
                    break
                try:
                    told = await self._task(config, left, allowance, self._counted(cut), more)
                except WorkerLost as error:
                    lost += 1
                    if lost >= _MOST_LOST:
                        raise UserError(
                            f"{lost} workers were lost with the same {len(left)} problems, such as {left[0]!r} "
                            f"({error}). If memory is short, lower --concurrency"
                        ) from error
                    continue
                for record in told:
                    record = _with(record, cut.get(record["id"]))
                    (cut if record["exhausted"].startswith("run") else found)[record["id"]] = record
                left = [problem for problem in left if problem not in found]
                if everything or allowance is None or not allowance.amounts:
                    break
                everything = True
        return [found.get(problem) or cut[problem] for problem in problems]

    async def _meet(self) -> None:
        """Leave in the store what workers know it by."""
        if not self._met:
            await self._store.remember(MEETING, {self._about["meeting"]: b""})
            self._met = True

    def _counted(self, cut: Mapping[str, Mapping[str, Any]]) -> Usage:
        """What a second attempt will be charged again, where replayed samples count: it has been paid for."""
        if self._limits.counts == "fresh":
            return NOTHING
        return total(Usage.from_json(record["usage"]) for record in cut.values())

    async def _task(
        self,
        config: str,
        problems: Sequence[str],
        allowance: Allowance | None,
        counted: Usage,
        more: Mapping[str, Any],
    ) -> Sequence[dict[str, Any]]:
        """The records of a task. Without an allowance it may use what is stored, and no more."""
        allowed: dict[Any, Any] = (
            dict.fromkeys(self._limits.limits, 0) if allowance is None else allowance.amounts
        )
        allowed = {dimension: amount + getattr(counted, dimension) for dimension, amount in allowed.items()}
        request = {
            "place": self._about,
            "config": config,
            "problems": list(problems),
            "allowance": Budget(**allowed, counts=self._limits.counts).model_dump(mode="json"),
            **more,
        }
        try:
            answer = await self._answer(request)
        except BaseException:  # lost, or cancelled
            if allowance is not None:
                self._allowances.lose(allowance)
            raise
        self.fresh += Usage.from_json(answer.get("fresh", {}))
        self.used += Usage.from_json(answer.get("used", {}))
        if allowance is not None:
            self._allowances.settle(allowance, _beyond(answer.get("spent", {}), counted))
        if "error" in answer:
            raise unpacked(answer["error"])
        records: Sequence[dict[str, Any]] = answer["records"]
        return records

    async def _answer(self, request: Mapping[str, Any]) -> Any:
        """What a worker says. One that is the first not to reach the store's file has done nothing, and is asked again
        when there is a keeper."""
        answer = await self._cluster.do({**request, "keeper": self._keeper})
        if "far" in answer:
            if self._keeper is None:
                self._keeper = self._cluster.keep(self._path, self._about["meeting"])
            answer = await self._cluster.do({**request, "keeper": self._keeper})
        return answer


def _table(prices: Path | None) -> str | None:
    """The user's price table, as text: other machines do not have the file."""
    found = prices or os.environ.get("ARCHON_PRICES")
    if not found:
        return None
    read_table(Path(found))  # raises what is wrong with it
    return Path(found).read_text(encoding="utf-8")


def _beyond(spent: Mapping[str, str], counted: Usage) -> Amounts:
    """What was spent, by dimension, beyond what had been counted already."""
    exact = {d: Decimal(text) if d == "usd" else int(Decimal(text)) for d, text in spent.items()}
    return {d: max(0, amount - getattr(counted, d)) for d, amount in exact.items()}


def _with(record: dict[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """A record with what an attempt that was cut off had spent: its samples were replayed, and paid for then."""
    if before is None:
        return record
    fresh = Usage.from_json(before["fresh"]) + Usage.from_json(record["fresh"])
    return {**record, "fresh": fresh.exact(), "seconds": round(before["seconds"] + record["seconds"], 3)}
