"""The harness on a Ray cluster: batches of problems are solved and graded by its workers, each with the same record as
here. Samples go to the one store, so a run may go on with either executor where the other left it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archon.benchmarks.cluster.batches import Batches
from archon.benchmarks.cluster.ray_cluster import RayCluster
from archon.benchmarks.harness import Harness, Plan, Watcher
from archon.benchmarks.results import Record
from archon.config import Config, dump
from archon.errors import UserError
from archon.problem import Problem
from archon.session import Session
from archon.tasks import together
from archon.usage import Usage


class RayHarness(Harness):
    """Runs a plan into a folder, on the workers of a cluster at `address`.

    `benchmark` is what they load, by name and settings, and `fingerprint` that of its problems before any are left
    out. `path` is where the session's store is. Raises UserError for what one process alone can do.
    """

    def __init__(
        self,
        plan: Plan,
        session: Session,
        folder: Path,
        watcher: Watcher | None,
        *,
        address: str | None,
        config: Config,
        benchmark: Mapping[str, Mapping[str, Any]],
        fingerprint: str,
        path: Path,
        prices: Path | None,
    ) -> None:
        super().__init__(plan, session, folder, watcher)
        if config.budget.run.seconds is not None:
            raise UserError(
                "a deadline for the whole run holds within one process; with --executor ray give one for each problem "
                "(--problem-budget seconds=...)"
            )
        self._cluster = RayCluster(address)
        self._config = config
        self._path = path
        self._run: dict[str, Any] = {
            "benchmark": benchmark,
            "limit": None,
            "fingerprint": fingerprint,
            "limits": config.budget.run,
            "seed": session.seed,
            "concurrency": plan.concurrency,
            "offline": session.offline,
            "prices": prices,
        }

    async def _all(self, problems: Sequence[Problem]) -> None:
        """Every problem, as batches; the first fatal error ends all."""
        async with self._cluster as cluster:
            batches = Batches(cluster, self.session.store, self._path, **self._run)
            text = dump(self._config)

            async def work(ids: Sequence[str]) -> None:
                for told in await batches.records(text, ids, selectors=list(self._selectors)):
                    for name, why in told.pop("left_out").items():
                        if name in self._selectors:
                            self._leave_out(name, why)
                    self._take(Record(**told))

            await together(work(ids) for ids in batches.split([problem.id for problem in problems]))

    def _take(self, record: Record) -> None:
        for kept in (record.merits, record.ballots):
            for name in [name for name in kept if name not in self._selectors]:
                del kept[name]
        used, fresh = Usage.from_json(record.usage), Usage.from_json(record.fresh)
        self.session.ledger.enter("", "", fresh, fresh=True)
        self.session.ledger.enter("", "", used - fresh, fresh=False)
        self._keep(record)
