"""Replays of recorded pools: how many samples a rule takes, and that nothing else is compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archon.benchmarks import adaptive
from archon.benchmarks.adaptive import measure, replay, rules, stopped
from archon.benchmarks.results import Record, Results
from archon.benchmarks.statistics.selection import by_vote
from archon.errors import DataError
from archon.strategies.adaptive_self_consistency import AdaptiveSelfConsistency


def voted(name: str, labels: Sequence[int | None], right: int = 1) -> Record:
    return Record(
        id=name,
        outcome="solved",
        truth=[label == right for label in labels],
        ballots={"majority_vote": [None if label is None else [float(label), 1.0] for label in labels]},
    )


def judged(name: str, accepted: Sequence[bool | None], truth: Sequence[bool] | None = None) -> Record:
    n = len(accepted)
    said: dict[str, list[Any]] = {"accepted": [*accepted], "score": [0.0] * n, "status": ["passed"] * n}
    truth = [a is True for a in accepted] if truth is None else list(truth)
    return Record(id=name, outcome="solved", truth=truth, verdicts={"unit_tests": said})


def run(*records: Record, fair: bool = True) -> Results:
    return Results(Path("pools"), {"coverage": {"1": {}} if fair else {}, "benchmark": "made"}, records)


# --- votes -------------------------------------------------------------------------------------------


def test_a_replay_chooses_as_the_vote_does_and_counts_what_was_looked_at() -> None:
    beta = AdaptiveSelfConsistency(rule="beta", threshold=0.95)
    assert stopped([7, 7, 7, 7, 3, 3], beta) == (0, 4)
    assert stopped([None, 3, None, 3, 3, 3, 7], beta) == (1, 6)
    assert stopped([3, 7, 7, 3], beta) == (0, 4), (
        "nothing is certain: all are taken, and the earlier one wins"
    )
    assert stopped([None, None], beta) == (None, 2)
    assert stopped([1, 1, 1, 2, 2], AdaptiveSelfConsistency(rule="majority")) == (0, 3)
    assert stopped([1, 1, 1, 2, 2], AdaptiveSelfConsistency(rule="majority", least=4)) == (0, 4)


def test_of_a_unanimous_pool_every_order_stops_alike() -> None:
    record = voted("a", [1] * 32)
    found = replay(record, "majority_vote", rules()["beta 0.95"], orders=16, seed=0)
    assert found == (1.0, 4.0, (4.0, 7.0, 11.0)), "4 looked at; with 1, 4 and 8 under way"
    short = replay(voted("a", [1] * 8), "majority_vote", rules()["beta 0.95"], orders=16, seed=0)
    assert short.paid == (4.0, 7.0, 8.0), "no more than there are"


def made(*rates: float, problems: int = 40) -> Results:
    """Pools of 40 samples: the problems' samples are right at these rates in turn; else one of four others."""
    rng = np.random.default_rng(3)
    records = []
    for i in range(problems):
        labels = [1 if rng.random() < rates[i % len(rates)] else int(rng.integers(2, 6)) for _ in range(40)]
        records.append(voted(f"problem {i}", labels))
    return run(*records)


@pytest.fixture(scope="module")
def pools() -> Results:
    """Three problems of four are clear; of the fourth the right answer hardly leads."""
    return made(0.95, 0.9, 0.8, 0.25)


@pytest.fixture(scope="module")
def vote(pools: Results) -> Any:
    return measure(pools, orders=8)["voting"]


def test_several_times_fewer_samples_give_the_same_accuracy() -> None:
    vote = measure(made(0.95, 0.9, 0.8, 0.7), orders=8)["voting"]
    beta = vote["adaptive"]["beta 0.95"]
    assert vote["n"] == 40 and vote["problems"] == 40
    assert beta["ratio"] > 4 and beta["ratio"] == pytest.approx(40 / beta["samples"]["value"])
    difference = beta["against_all"]["difference"]
    assert difference["low"] > -0.03 and abs(difference["value"]) < 0.015
    assert beta["against_all"]["problems"] == 40


def test_where_no_answer_leads_there_is_little_to_save(vote: Any) -> None:
    def looked(*rates: float) -> float:
        stage = rules()["beta 0.95"]
        return float(np.mean([replay(r, "majority_vote", stage, 8, 0).looked for r in made(*rates).records]))

    mixed = vote["adaptive"]["beta 0.95"]["samples"]["value"]
    assert looked(0.9) < mixed < 20 < looked(0.25, 0.3)


def test_the_majority_rule_loses_nothing_on_any_problem(vote: Any) -> None:
    majority = vote["adaptive"]["majority"]
    assert (majority["against_all"]["better"], majority["against_all"]["worse"]) == (0, 0)
    assert 1 < majority["ratio"] < 2, "more than half of all must agree"


def test_a_stricter_threshold_takes_more_samples(vote: Any) -> None:
    found = vote["adaptive"]
    for rule in ("beta", "dirichlet"):
        taken = [found[f"{rule} {threshold:g}"]["samples"]["value"] for threshold in (0.8, 0.9, 0.95, 0.99)]
        assert taken == sorted(taken) and taken[0] < taken[-1]
    assert found["dirichlet 0.9"]["samples"]["value"] >= found["beta 0.9"]["samples"]["value"]


def test_the_fixed_vote_is_the_one_that_reports_have(pools: Results, vote: Any) -> None:
    each = []
    for record in pools.records:
        labels = [int(ballot[0]) for ballot in record.ballots["majority_vote"] if ballot is not None]
        each.append(by_vote(labels, [1.0] * 40, record.truth, [40], orders=8)[0][0])
    assert vote["fixed"]["value"] == pytest.approx(np.mean(each))


# --- verifiers ---------------------------------------------------------------------------------------


def test_until_a_verifier_accepts() -> None:
    found = measure(run(judged("a", [True] * 10), judged("b", [False] * 10)), orders=10)["verified"]
    assert found[0]["samples"]["value"] == (1 + 10) / 2 and found[0]["accuracy"]["value"] == 0.5
    assert found[0]["ratio"] == pytest.approx(20 / 11)
    assert found[0]["paid"] == {"1": 5.5, "4": (4 + 10) / 2, "8": (8 + 10) / 2}


def test_in_all_orders_the_first_pass_comes_where_it_should() -> None:
    """Each order is rotated, so one pass of ten stands in each place once: 5.5 on average, and 5.5 at 2 of 10."""
    one = measure(run(judged("a", [True] + [None] * 9)), orders=10)["verified"][0]
    assert one["samples"]["value"] == 5.5 and one["accuracy"]["value"] == 1.0


def test_a_false_positive_ends_it_as_well() -> None:
    fooled = judged("a", [True] * 4 + [False] * 4, truth=[False] * 8)
    assert measure(run(fooled), orders=8)["verified"][0]["accuracy"]["value"] == 0.0


def test_pass_until_is_unbiased_on_pools_and_the_naive_estimate_is_not() -> None:
    rng = np.random.default_rng(8)
    rates = rng.uniform(0.02, 0.6, size=60)
    pool = [judged(str(i), [bool(x) for x in rng.random(60) < rate]) for i, rate in enumerate(rates)]
    found = measure(run(*pool), orders=60)["verified"][0]["pass_until"]["2"]
    assert found["bias"]["low"] < 0 < found["bias"]["high"]
    assert found["naive_bias"]["low"] > 0.02
    assert found["samples"]["value"] < 30


# --- what it cannot do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "why"),
    [
        (run(voted("a", [1, 1]), fair=False), "stopped early"),
        (run(voted("a", [1, 1]), voted("b", [1])), r"\[1, 2\] samples"),
        (run(Record(id="a", outcome="wrong", truth=[False])), "no votes"),
        (run(judged("a", [None, None])), "no verifier"),
    ],
)
def test_pools_that_say_nothing_are_refused(results: Results, why: str) -> None:
    with pytest.raises(DataError, match=why):
        measure(results, orders=2)


def test_it_prints_a_table_and_one_line_of_json(
    pools: Results, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(folder: Any) -> Results:
        return pools

    monkeypatch.setattr(Results, "read", read)
    monkeypatch.setattr(sys, "argv", ["adaptive", "runs/arith", "--orders", "4"])
    adaptive.main()
    *lines, last = capsys.readouterr().out.splitlines()
    data = json.loads(last)
    assert data["benchmark"] == "adaptive" and data["runs"][0]["orders"] == 4
    assert any("beta 0.95" in line and "×" in line for line in lines)
