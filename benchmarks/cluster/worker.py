"""What a worker of the cluster does with a task: evaluate a batch of problems, and say what came of each.

A request is data: what the run is about (benchmark, store, limits, seed), a configuration as YAML, ids of problems,
and an allowance. A process opens benchmark, store and session once, and keeps them for the tasks that follow. Keys of
APIs come from the worker's own environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from archon.benchmarks.cluster.bell import while_wanted
from archon.benchmarks.cluster.far_store import FarStore
from archon.benchmarks.cluster.faults import packed
from archon.benchmarks.cluster.keeper import knows
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.budget import Budget
from archon.config import Config, load
from archon.errors import ArchonError, StoreError, UserError
from archon.store import SQLiteStore, Store
from archon.tasks import together
from archon.usage import Usage


def work(request: str, number: int, bell: Any) -> str:
    """Do one task; JSON in, JSON out: the records, what was spent, or the error that ended it; null where it was called
    off, so that nobody reads it."""
    asked = json.loads(request)
    return json.dumps(_runner().run(while_wanted(_answer(asked), number, bell)))


def machine() -> str:
    """This machine, whatever containers call it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()


_kept: dict[str, Any] = {}
"""Of this process: its event loop, and what it has open by what that is about."""


def _runner() -> asyncio.Runner:
    if "runner" not in _kept:
        _kept["runner"] = asyncio.Runner()
    runner: asyncio.Runner = _kept["runner"]
    return runner


def _node() -> str:
    """The node of the cluster that this process is on; empty outside one."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


async def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"node": _node(), "process": os.getpid(), "records": []}
    place: _Place | None = None
    try:
        place = await _place(asked["place"], asked["keeper"])
        if place is None:
            return {**answer, "far": True}
        async with place.settling():
            answer["records"] = await place.evaluate(asked)
    except ArchonError as error:
        answer["error"] = packed(error)
    if place is not None:
        answer.update(place.account())
    return answer


async def _place(about: Mapping[str, Any], keeper: str | None) -> _Place | None:
    key = json.dumps(about, sort_keys=True)
    place: _Place | None = _kept.get(key)
    if place is None:
        place = await _Place.open(about, keeper)
        if place is not None:
            _kept[key] = place
    return place


class _Place:
    """A benchmark and its sessions over the shared store, open in this process."""

    def __init__(self, evaluator: LocalEvaluator, store: Store) -> None:
        self._evaluator = evaluator
        self._store = store
        self._before = (Usage(), Usage())

    @classmethod
    async def open(cls, about: Mapping[str, Any], keeper: str | None) -> _Place | None:
        """None where that needs a keeper of the store. Raises UserError where this machine has other data."""
        with suppress(OSError):  # what is named by a relative path is there, if it is anywhere
            os.chdir(about["folder"])
        store = await _shared_store(about, keeper)
        if store is None:
            return None
        dataset = loaded(about["benchmark"], about["limit"])
        if dataset.fingerprint != about["fingerprint"]:
            raise UserError(
                f"the benchmark {dataset.name!r} is not the same on {socket.gethostname()!r} as where the run was "
                "started: give its machine the same data and the same version of archon"
            )
        evaluator = LocalEvaluator(
            dataset,
            {},
            store=store,
            limits=Budget.model_validate(about["limits"]),
            seed=about["seed"],
            concurrency=about["concurrency"],
            offline=about["offline"],
            prices=None if about["prices"] is None else _left(about["prices"]),
        )
        return cls(await evaluator.__aenter__(), store)

    async def evaluate(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records of a task's problems; with `selectors` also what those think of the candidates, and which of
        them cannot be reported."""
        self._before = (self._evaluator.fresh, self._evaluator.used)
        self._evaluator.spend(Budget.model_validate(asked["allowance"]))
        config: Config = load(asked["config"], "yaml")
        session = await self._evaluator.session(config)
        dataset = self._evaluator.dataset = await self._evaluator.dataset.prepared(session)
        if "selectors" not in asked:
            return [asdict(one) for one in await self._evaluator.records(config, asked["problems"])]
        plan = Plan(dataset, config.pipeline.graph(), "", selectors=tuple(asked["selectors"]))
        harness = Harness(plan, session, Path())
        wanted = self._evaluator.known(asked["problems"])
        records = await together(harness.one(problem) for problem in wanted)
        return [{**asdict(one), "left_out": harness.left_out} for one in records]

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """At the end, also of a task that is cancelled, all that was told to a store far away has arrived: between
        tasks nothing moves."""
        try:
            yield
        finally:
            if isinstance(self._store, FarStore):
                await self._store.settled()

    def account(self) -> dict[str, Any]:
        """What the task spent of its allowance, what it used by the ledger, and whether the store is far away."""
        fresh, used = self._before
        return {
            "by_keeper": isinstance(self._store, FarStore),
            "spent": {dimension: str(amount) for dimension, amount in self._evaluator.spent.items()},
            "fresh": (self._evaluator.fresh - fresh).exact(),
            "used": (self._evaluator.used - used).exact(),
        }


async def _shared_store(about: Mapping[str, Any], keeper: str | None) -> Store | None:
    """The store of the run: its file where that is here, and else by way of its keeper. None where there is no keeper
    yet."""
    path = Path(about["store"])
    if machine() == about["machine"] and await knows(path, about["meeting"]):
        return SQLiteStore(path)
    return None if keeper is None else FarStore(_asking(keeper))


def _asking(name: str) -> Callable[[str], Awaitable[str]]:
    """How a worker asks the keeper of that name. What this gives raises StoreError where it is gone."""
    import ray

    async def ask(message: str) -> str:
        try:
            keeper: Any = ray.get_actor(name)
            return str(await keeper.answer.remote(message))
        except (ray.exceptions.RayError, ValueError) as error:  # ValueError: there is nobody of that name
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StoreError(
                f"the machine where the run was started no longer gives its store to others: {why}. What was recorded "
                "is kept: run the same command again"
            ) from error

    return ask


def _left(prices: str) -> Path:
    """A price table as a file of this process, which is gone with it."""
    folder = _kept.setdefault("folder", tempfile.TemporaryDirectory(prefix="archon-"))
    path = Path(folder.name) / f"{hashlib.sha256(prices.encode()).hexdigest()}.yaml"
    path.write_text(prices, encoding="utf-8")
    return path


def loaded(benchmark: Mapping[str, Mapping[str, Any]], limit: int | None) -> Any:
    """A benchmark's problems by its name and settings. Raises UnknownName, DataError, ConfigError."""
    from archon.benchmarks.searching.setting_up import limited, read_benchmark

    return limited(read_benchmark(benchmark, None).load(), limit)
