"""Ray, as far as it is needed: one text in, one text out, run by some worker of the cluster.

Nothing of ours is pickled: a task is a JSON text and so is its answer. A worker that dies, or whose machine does, is
reported as such, and the task is not run again behind our back, because what it spent must be accounted for first.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from archon.benchmarks.cluster import bell, keeper, worker
from archon.errors import ArchonError, MissingExtra, UserError

_REACH_SECONDS = 10.0
_OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Texts are small."""
_AT_ONCE = 100_000
"""So many workers can listen to one bell."""


class WorkerLost(ArchonError):
    """The process that had a task, or its machine, is gone."""


class RayCluster:
    """A connection to a cluster, or a cluster of this machine that ends with it. An asynchronous context manager.

    `address` is a cluster's, as host:port; where it is None that of RAY_ADDRESS, and else Ray is started here.
    Where this program is connected to Ray already, that connection serves, and stays. Raises MissingExtra, and
    UserError where there is no such cluster.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtra(
                "the executor `ray` needs the extra `ray`: pip install 'archon[ray]'"
            ) from error
        self._ray = ray
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._ours = False
        self._task: Any = None
        self._keeper: Any = None
        self._bell: Any = None
        self._numbers = itertools.count()
        """Of tasks, by which they are called off."""
        self.workers = 1
        """How many tasks run at once: one for each CPU of the cluster."""

    async def __aenter__(self) -> Self:
        ray = self._ray
        if not ray.is_initialized():
            self._connect()
            self._ours = True
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 0)))
        self._task = ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")(worker.work)
        self._bell = self._here(bell.Bell, max_concurrency=_AT_ONCE).remote()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                await self._keeper.close.remote()
            self._keeper = None
        self._bell = None
        if self._ours:
            self._ray.shutdown()  # ends this program's workers, and the cluster where we started it

    def _connect(self) -> None:
        here = self._address == "local"
        if not here:
            _check_reachable(self._address)
        local: dict[str, Any] = (
            {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if here else {}
        )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for reports to Ray's makers
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            what = "start Ray" if here else f"reach a Ray cluster at {self._address!r}"
            raise UserError(
                f"cannot {what}: {why}. `ray status` shows whether one runs; name it with --ray-address HOST:PORT"
            ) from error

    def keep(self, path: Path, meeting: str) -> str:
        """Start a keeper of this store on our own node, for workers that cannot reach the file; its name. It ends with
        the run."""
        name = f"archon-store-{meeting}"
        made = self._here(keeper.Keeper, name=name)
        self._keeper = made.remote(str(path), meeting, keeper.SILENT_SECONDS)
        return name

    def _here(self, actor: type, **options: Any) -> Any:
        """An actor to be started on our own node. It lives as long as somebody has it."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(actor).options(num_cpus=0, scheduling_strategy=here, **options)

    async def do(self, request: Mapping[str, Any]) -> Any:
        """Have a task done, and what it answers (cluster/worker.py). Raises WorkerLost. Cancelling calls the task off:
        it ends soon, and is not waited for."""
        from ray import exceptions as lost

        number = next(self._numbers)
        try:
            return json.loads(await self._task.remote(json.dumps(request), number, self._bell))
        except (
            lost.WorkerCrashedError,
            lost.NodeDiedError,
            lost.LocalRayletDiedError,
            lost.OutOfMemoryError,
            lost.ObjectLostError,
        ) as error:
            raise WorkerLost(str(error).strip().splitlines()[0]) from error
        finally:
            if self._bell is not None and self._ray.is_initialized():  # else Ray would start a cluster for it
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._bell.ring.remote(number)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes. Raises UserError."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"nothing answers at {address!r}, where a Ray cluster should be: {error}. "
            "`ray status` shows whether one runs; name it with --ray-address HOST:PORT"
        ) from error
