"""Learning a compute-optimal policy, and holding it against the same candidate for every problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.compute_optimal import (
    PROBES,
    Candidate,
    candidates_of,
    evaluate,
    learn,
    main,
    policy,
    probe,
    table,
)
from archon.benchmarks.statistics.equal_tokens import Point
from archon.config import dump, load
from archon.errors import DataError, UserError
from archon.pipeline import Pipeline
from archon.session import Session
from archon.strategies.compute_optimal import ComputeOptimal
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from tests.benchmarks.small import dataset

CHEAP = Candidate("cheap@2", Sample(n=2) | MajorityVote())
DEAR = Candidate("dear@2", Sample(model="m", n=2) | MajorityVote())


def small(call: Call) -> Reply:
    """Sure and right where the problem's number is even, else another wrong answer each time."""
    text = "right" if int(call.problem[1:]) % 2 == 0 else f"wrong {call.index}"
    return Reply(text, tokens=Tokens(5, completion=5))


def large(call: Call) -> Reply:
    """Right everywhere, at five times the cost."""
    return Reply("right", tokens=Tokens(5, completion=45))


def models() -> dict[str, Any]:
    return {"default": Scripted(reply=small, identity="small"), "m": Scripted(reply=large, identity="large")}


async def learnt(folder: Path, calls: list[int] | None = None, **given: Any) -> Any:
    async with Session(models=models(), store=folder / "store.sqlite") as session:
        data = dataset(12)
        settings = {"probes": 2, "bins": 2, "budgets": (1, 8), **given}
        found = await learn(data, data.problems, [CHEAP, DEAR], session, folder, **settings)
        if calls is not None:
            calls.append(session.ledger.fresh.requests)
        return found


def stage_of(pipeline: Pipeline) -> ComputeOptimal:
    stage = pipeline.nodes[0].stage
    assert isinstance(stage, ComputeOptimal)
    return stage


async def test_each_bin_gets_what_serves_it_best_for_its_cost(tmp_path: Path) -> None:
    found = await learnt(tmp_path)
    one, eight = stage_of(found.pipeline).policies
    assert (one.n, one.probes, [b.solver for b in one.bins]) == (1, 1, [None]), "no more than one sample"
    assert (eight.n, eight.probes, eight.bounds) == (8, 2, (1.0,))
    assert [b.solver for b in eight.bins] == [DEAR.pipeline, None], (
        "the easy ones need no more than the probes"
    )
    (report,) = found.data["policies"]
    assert [row["candidate"] for row in report["bins"]] == ["dear@2", PROBES]
    assert [row["problems"] for row in report["bins"]] == [6, 6]
    assert report["bins"][0]["accuracy"] == {PROBES: 0.0, "cheap@2": 0.0, "dear@2": 1.0}
    assert report["bins"][0]["tokens"] == {PROBES: 20, "cheap@2": 40, "dear@2": 120}
    assert report["tokens"] == (120 + 20) / 2 <= report["allowance"] == 80
    assert found.data["plain"] == ["one sample", "dear@2"], "two of the cheap are no better than one"


async def test_what_costs_more_than_the_budget_in_the_mean_is_not_taken(tmp_path: Path) -> None:
    found = await learnt(tmp_path, budgets=(4,))
    assert [b.solver for b in stage_of(found.pipeline).policies[0].bins] == [None, None]


async def test_learning_again_costs_nothing_and_finds_the_same(tmp_path: Path) -> None:
    calls: list[int] = []
    first = await learnt(tmp_path, calls)
    second = await learnt(tmp_path, calls)
    assert first == second
    assert calls[0] > 0 == calls[1]


async def test_what_was_learnt_is_a_pipeline_that_a_file_holds(tmp_path: Path) -> None:
    found = await learnt(tmp_path)
    assert load(dump(found.pipeline), "yaml").pipeline == found.pipeline


async def test_the_policy_is_held_against_the_candidates_at_equal_tokens(tmp_path: Path) -> None:
    found = await learnt(tmp_path)
    async with Session(models=models(), store=tmp_path / "store.sqlite") as session:
        data = dataset([f"p{i}" for i in range(20, 32)])
        one, eight = await evaluate(
            data, data.problems, found.pipeline, [CHEAP, DEAR], session, tmp_path / "e"
        )
    assert eight.method.right.tolist() == [1.0] * 12
    assert eight.method.tokens.mean() == 70, "probes included"
    assert eight.plain.mean() == pytest.approx(0.5 + 0.5 * (70 - 20) / (100 - 20))
    assert eight.fewer == pytest.approx(100 / 70) and eight.reached
    assert eight.difference.better == 6
    assert one.method.tokens.mean() == 10 and one.outside, "cheaper than every plain run given"
    assert "compute_optimal@8" in table([one, eight]) and "(outside)" in table([one, eight])


async def test_problems_whose_probes_all_fail_have_no_signal() -> None:
    model = Scripted(replies={"p0": ("right",) * 2, "p1": ()})
    async with Session(models=model) as session:
        told = await probe("agreement", 2, dataset(2).problems, session, 4)
    assert told.signals == [1.0, None]


def test_a_lucky_candidate_in_a_small_bin_does_not_win() -> None:
    """Of three problems it had one more right; over all twelve it was much worse."""
    at = np.array([0] * 3 + [1] * 9)
    lucky = Point("lucky", np.full(12, 10.0), np.array([1, 1, 1] + [0] * 9, dtype=float))
    steady = Point("steady", np.full(12, 10.0), np.array([1, 1, 0] + [1] * 9, dtype=float))
    solvers = {"lucky": CHEAP.pipeline, "steady": DEAR.pipeline}
    for shrink, first in ((0.0, CHEAP.pipeline), (4.0, DEAR.pipeline)):
        made, _ = policy(8, 2, [0.5], at, [lucky, steady], solvers, 100.0, shrink)
        assert [b.solver for b in made.bins] == [first, DEAR.pipeline]


def test_a_budget_that_nothing_keeps_to_is_an_error() -> None:
    one = Point("one", np.full(4, 50.0), np.ones(4))
    with pytest.raises(DataError, match="costs 50 tokens with its probes, and the budget 2 is worth 20"):
        policy(2, 1, [], np.zeros(4, dtype=np.int64), [one], {"one": None}, 20.0, 4.0)


def test_candidates_are_named_with_their_samples() -> None:
    found, named = candidates_of(["self_consistency@3", "reward_best_of_n@2"], [], None)
    assert [c.pipeline.plan().calls.high for c in found] == [3, 4]
    assert set(named) == {"default", "reward"}
    for wrong in ("self_consistency", "self_consistency@", "@4", "self_consistency@0"):
        with pytest.raises(UserError, match="looks like NAME@N"):
            candidates_of([wrong], [], None)


def test_the_commands_learn_and_evaluate_with_the_model_that_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on = ["lab/arith", "--level", "2", "--limit", "2"]
    learning = ["--candidates", "self_consistency@2", "--probes", "2", "--budgets", "2,6", "--bins", "2"]
    main(["learn", *on, "--split", "dev", *learning, "--out", str(tmp_path / "l")])
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (data["problems"], data["benchmark"]) == (2, "lab/arith")
    assert [p.n for p in stage_of(load(tmp_path / "l" / "compute_optimal.yaml").pipeline).policies] == [2, 6]
    main(["evaluate", *on, "--learnt", str(tmp_path / "l")])
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [b["method"] for b in data["budgets"]] == ["compute_optimal@2", "compute_optimal@6"]
    with pytest.raises(SystemExit, match="nothing was learnt"):
        main(["evaluate", *on, "--learnt", str(tmp_path / "none")])
