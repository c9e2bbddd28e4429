"""What a worker of the cluster does with a task: evaluate a batch of problems, and say what came of each.

A request is data: what the run is about (benchmark, store, limits, seed), a configuration as YAML, ids of problems,
and an allowance. A process opens benchmark, store and session once, and keeps them for the tasks that follow. Keys of
APIs come from the worker's own environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from archon.benchmarks.cluster.faults import packed
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.budget import Budget
from archon.config import Config, load
from archon.errors import ArchonError, UserError
from archon.store import SQLiteStore
from archon.tasks import together
from archon.usage import Usage

MEETING = "meeting"
"""What the driver leaves in the store, so that a worker knows it for the same."""


def work(request: str) -> str:
    """Do one task; JSON in, JSON out: the records, what was spent, or the error that ended it."""
    asked = json.loads(request)
    return json.dumps(_runner().run(_answer(asked)))


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
        place = await _place(asked["place"])
        answer["records"] = await place.evaluate(asked)
    except ArchonError as error:
        answer["error"] = packed(error)
    if place is not None:
        answer.update(place.account())
    return answer


async def _place(about: Mapping[str, Any]) -> _Place:
    key = json.dumps(about, sort_keys=True)
    if key not in _kept:
        _kept[key] = await _Place.open(about)
    place: _Place = _kept[key]
    return place


class _Place:
    """A benchmark and its sessions over the shared store, open in this process."""

    def __init__(self, evaluator: LocalEvaluator) -> None:
        self._evaluator = evaluator
        self._before = (Usage(), Usage())

    @classmethod
    async def open(cls, about: Mapping[str, Any]) -> _Place:
        """Raises UserError where this is no machine for it, or it has other data."""
        with suppress(OSError):  # what is named by a relative path is there, if it is anywhere
            os.chdir(about["folder"])
        store = await _shared_store(about)
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
            prices=None if about["prices"] is None else Path(about["prices"]),
        )
        return cls(await evaluator.__aenter__())

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

    def account(self) -> dict[str, Any]:
        """What the task spent of its allowance, and what it used by the ledger."""
        fresh, used = self._before
        return {
            "spent": {dimension: str(amount) for dimension, amount in self._evaluator.spent.items()},
            "fresh": (self._evaluator.fresh - fresh).exact(),
            "used": (self._evaluator.used - used).exact(),
        }


async def _shared_store(about: Mapping[str, Any]) -> SQLiteStore:
    """The store of the run. Raises UserError where this process cannot share it with the driver."""
    here, path = socket.gethostname(), about["store"]
    if machine() != about["machine"]:
        raise UserError(
            f"a worker on {here!r} cannot share the store {path!r} with the machine where the run was started: SQLite "
            "shares a file between the processes of one machine. Use a cluster whose nodes are all on that machine"
        )
    if not Path(path).exists():
        raise UserError(
            f"a worker on {here!r} does not see the store {path!r}. Name with --store (or --out) a path that every "
            "node of the cluster sees"
        )
    store = SQLiteStore(path)
    if about["meeting"] not in await store.recall(MEETING, [about["meeting"]]):
        await store.close()
        raise UserError(
            f"a worker on {here!r} sees another file at {path!r} than the one the run was started with. Name with "
            "--store (or --out) a path that is the same on every node of the cluster"
        )
    return store


def loaded(benchmark: Mapping[str, Mapping[str, Any]], limit: int | None) -> Any:
    """A benchmark's problems by its name and settings. Raises UnknownName, DataError, ConfigError."""
    from archon.benchmarks.searching.setting_up import limited, read_benchmark

    return limited(read_benchmark(benchmark, None).load(), limit)
