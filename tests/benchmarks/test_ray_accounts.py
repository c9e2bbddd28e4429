"""What drivers of a cluster give to their workers out of one budget; without Ray, the workers' code runs here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from archon.backends.scripted import Scripted
from archon.benchmarks.cluster import worker
from archon.benchmarks.cluster.ray_cluster import WorkerLost
from archon.benchmarks.searching import ray_evaluator
from archon.benchmarks.searching.ray_evaluator import RayEvaluator
from archon.benchmarks.searching.setting_up import read_benchmark
from archon.budget import Budget
from archon.config import load
from archon.search.claims import Claims
from archon.search.objectives import Evaluation
from archon.search.spending import StudyPurse

BENCHMARK: dict[str, dict[str, Any]] = {"lab/arith": {"level": [2], "problems": 8}}
MODELS = {"default": Scripted(replies={"*": ("4", "5")}, cycle=True)}
CONFIG = "pipeline: [{sample: {n: 2, max_tokens: 4}}, majority_vote]"


class Here:
    """A cluster whose tasks run in this process, one after another; of some, the worker is lost when it is done."""

    workers = 2
    losing = 0

    def __init__(self, address: str | None) -> None:
        self._line = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def do(self, request: Mapping[str, Any]) -> Any:
        async with self._line:
            answer = await worker._answer(json.loads(json.dumps(request)))
        if Here.losing:
            Here.losing -= 1
            raise WorkerLost("its node died")
        return json.loads(json.dumps(answer))


@pytest.mark.parametrize("losing", [0, 2])
async def test_drivers_share_one_limit_and_a_lost_task_has_spent_its_allowance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losing: int
) -> None:
    monkeypatch.setattr(ray_evaluator, "RayCluster", Here)
    monkeypatch.setattr(worker, "_node", lambda: "here")
    monkeypatch.setattr(worker, "_kept", {})
    monkeypatch.setattr(Here, "losing", 0)
    dataset, config = read_benchmark(BENCHMARK, None).load(), load(CONFIG, "yaml")
    problems, spent = [one.id for one in dataset.problems], 0
    for life in range(2):  # each with a store of its own, so that it pays for everything
        arrived: list[Evaluation] = []
        async with RayEvaluator(
            dataset, MODELS, benchmark=BENCHMARK, store=tmp_path / f"{life}.sqlite", concurrency=4
        ) as evaluator:
            with Claims(tmp_path / "study.sqlite", "s") as claims:
                limit = 3 * spent // 2 if life else 100_000
                purse = StudyPurse(claims, Budget(tokens=limit, counts="fresh"))
                with evaluator.spending_from(purse):
                    await evaluator.evaluate(config, problems[:2])  # what a problem needs is known
                    Here.losing = losing if life == 0 else 0
                    found = await evaluator.evaluate(config, problems, arrived.append)
                assert {one.problem for one in arrived} == {one.problem for one in found if one is not None}
                assert (None in found) == bool(life), "the first has spent most of what there is"
                spent += evaluator.fresh.tokens
                assert purse.fresh.tokens == spent <= limit
                with claims.transaction() as db:
                    others = purse._others(db)
                assert others.returning == {"tokens": 0} and (others.taken["tokens"] > 0) == bool(life)
        for place in [one for one in worker._kept.values() if hasattr(one, "_evaluator")]:
            await place._evaluator.__aexit__(None, None, None)
        worker._kept.clear()
