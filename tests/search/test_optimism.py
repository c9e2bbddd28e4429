"""Honest figures: a winner of equals is not as good as it looks, splits stay, and no difference is an answer."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from archon.benchmarks.statistics.paired import compare
from archon.errors import UserError
from archon.search.optimism import PARTS, Splits, optimism, verdict, verdicts

QUICK = settings(max_examples=50, deadline=None, derandomize=True)
IDS = st.lists(st.text(max_size=6), unique=True, min_size=60, max_size=120)


# --- the winner's figure ---------------------------------------------------------------------------


def table(seed: int, abilities: np.ndarray, problems: int) -> np.ndarray:
    """Right or not: problems differ in difficulty, and configurations in ability."""
    rng = np.random.default_rng(seed)
    chance = np.clip(abilities[:, None] + rng.uniform(-0.3, 0.3, problems), 0, 1)
    return (rng.random((len(abilities), problems)) < chance).astype(float)


def test_the_best_of_200_equals_on_50_problems_looks_better_than_it_is() -> None:
    found = [optimism(table(seed, np.full(200, 0.5), 50), resamples=200, seed=seed) for seed in range(60)]
    raw = float(np.mean([one.raw for one in found])) - 0.5
    corrected = float(np.mean([one.corrected for one in found])) - 0.5
    print(f"\n200 equals on 50 problems: raw {raw:+.3f}, corrected {corrected:+.3f}")
    assert raw > 0.1
    assert abs(corrected) < 0.02
    assert all(one.optimism > 0.05 and one.configurations == 200 for one in found)


def test_a_winner_by_far_is_hardly_corrected() -> None:
    abilities = np.array([0.9] + [0.4] * 30)
    found = [optimism(table(seed, abilities, 100), resamples=200, seed=seed) for seed in range(40)]
    assert {one.winner for one in found} == {0}
    assert abs(np.mean([one.optimism for one in found])) < 0.005


def test_among_unequal_ones_the_corrected_figure_is_near_the_winner_s_true_one() -> None:
    abilities = np.linspace(0.35, 0.6, 60)
    errors, raws = [], []
    for seed in range(60):
        one = optimism(table(seed, abilities, 60), resamples=200, seed=seed)
        errors.append(one.corrected - abilities[one.winner])
        raws.append(one.raw - abilities[one.winner])
    print(f"\nunequal ones: raw {np.mean(raws):+.3f}, corrected {np.mean(errors):+.3f}")
    assert np.mean(raws) > 0.04
    assert -0.03 < np.mean(errors) < 0.015


def test_what_lost_its_race_early_does_not_win_by_a_few_lucky_problems() -> None:
    values = table(0, np.full(20, 0.5), 80)
    values[5, :4], values[5, 4:] = 1.0, np.nan
    one = optimism(values)
    assert one.winner != 5 and one.configurations == 19 and one.problems == 80
    assert optimism(values, least=0.0).winner == 5
    values[:, 60:] = np.nan
    assert optimism(values).problems == 60, "problems that nobody had do not count"


def test_with_a_target_it_is_what_to_expect_of_the_cheapest_that_is_there() -> None:
    """Two cheap ones above the target and a dear one far above: who leads is no dear one."""
    rng = np.random.default_rng(5)
    values = (rng.random((3, 400)) < [[0.7], [0.72], [0.95]]).astype(float)
    costs = np.repeat([[1.0], [1.1], [9.0]], 400, axis=1)
    costs[0, 3] = values[0, 3] = np.nan
    found = optimism(values, costs=costs, target=0.6, resamples=200)
    assert found.winner == 0 and found.raw == pytest.approx(np.nanmean(values[0]))
    assert found.corrected == pytest.approx(0.7, abs=0.05)
    assert optimism(values, resamples=200).winner == 2
    assert optimism(values, costs=costs, target=0.99, resamples=200).winner == 2, "none is there"


def test_it_is_the_same_for_the_same_seed_and_the_earlier_of_equals_wins() -> None:
    values = table(1, np.full(10, 0.5), 30)
    values[7] = values[2] = 1.0
    assert optimism(values, seed=3) == optimism(values, seed=3)
    assert optimism(values).winner == 2
    assert json.loads(json.dumps(optimism(values).as_json()))["optimism"] == optimism(values).optimism


@pytest.mark.parametrize("wrong", [np.empty((0, 5)), np.ones(5), np.ones((3, 1)), np.full((2, 5), np.nan)])
def test_there_must_be_something_to_choose_by(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="problems"):
        optimism(wrong)


# --- splits ----------------------------------------------------------------------------------------


@QUICK
@given(IDS, st.integers(0, 5))
def test_every_problem_is_in_one_part_and_stays_there_whatever_is_added(ids: list[str], seed: int) -> None:
    splits = Splits(seed=seed)
    parts = splits.assign(ids)
    assert sorted(one for part in parts.values() for one in part) == sorted(ids)
    for part, members in parts.items():
        assert list(members) == [one for one in ids if splits.part(one) == part]
    more = splits.assign([*reversed(ids), "one more", "another more"])
    assert all(set(parts[part]) <= set(more[part]) for part in PARTS)


def test_parts_have_about_their_shares() -> None:
    parts = Splits(search=0.6, validation=0.1, test=0.3).assign([f"p{i}" for i in range(4000)])
    shares = [len(parts[part]) / 4000 for part in PARTS]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.03)
    assert set(parts["test"]) != set(
        Splits(search=0.6, validation=0.1, test=0.3, seed=1).assign([f"p{i}" for i in range(4000)])["test"]
    )


@QUICK
@given(
    st.lists(st.sampled_from(["easy", "hard", "odd"]), min_size=60, max_size=150),
    st.sampled_from([(0.5, 0.25, 0.25), (0.55, 0.44, 0.01), (0.4, 0.0, 0.6), (0.3, 0.3, 0.4)]),
)
def test_labels_are_shared_out_evenly_and_stay_when_problems_are_appended(
    labels: list[str], shares: tuple[float, float, float]
) -> None:
    splits = Splits(search=shares[0], validation=shares[1], test=shares[2])
    ids = [f"p{i}" for i in range(len(labels) + 200)]
    labels = [*labels, *["easy", "hard"] * 100]
    parts = splits.assign(ids, labels)
    of = dict(zip(ids, labels, strict=True))
    for label in ("easy", "hard"):
        total = Counter(labels)[label]
        for part, share in zip(PARTS, shares, strict=True):
            have = sum(of[one] == label for one in parts[part])
            assert abs(have - share * total) <= 5
            if total % 10 == 0:
                assert abs(have - share * total) <= 1
    more = splits.assign([*ids, "last"], [*labels, "odd"])
    assert all(set(parts[part]) <= set(more[part]) for part in PARTS)


def test_a_part_without_problems_and_an_id_that_is_there_twice_are_mistakes() -> None:
    with pytest.raises(UserError, match="has none of the 1 problems"):
        Splits().assign(["a"])
    with pytest.raises(UserError, match="twice"):
        Splits().assign(["a", "a"])
    with pytest.raises(ValidationError, match="add up to 1"):
        Splits(search=0.5, validation=0.5, test=0.5)
    assert Splits(search=0.5, validation=0, test=0.5).assign([f"p{i}" for i in range(20)])["validation"] == ()


# --- against the baseline --------------------------------------------------------------------------


def values(rights: np.ndarray) -> dict[str, float]:
    return {f"p{i}": float(right) for i, right in enumerate(rights)}


def test_better_worse_or_no_significant_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(100) < 0.5
    good = base | (rng.random(100) < 0.4)
    ahead = verdict(values(good), values(base), compare)
    assert ahead.says == "better" and ahead.low > 0 and ahead.problems == 100
    assert ahead.difference == pytest.approx(good.mean() - base.mean())
    behind = verdict(values(base), values(good), compare)
    assert behind.says == "worse" and behind.high < 0
    same = verdict(values(base), values(rng.permutation(base)), compare)
    assert same.says == "no significant difference" and same.low < 0 < same.high
    assert "no significant difference from majority" in same.sentence("the winner", "majority")
    assert "better than majority: +0." in ahead.sentence("the winner", "majority")


def test_equals_are_called_different_no_more_often_than_stated() -> None:
    called = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = rng.random((2, 20)) < 0.5
        called += verdict(values(a), values(b), compare).says != "no significant difference"
    assert 0 < called <= binom.ppf(0.999, 200, 0.05)


def test_equals_of_the_winner_are_called_different_all_together_no_more_often_than_stated() -> None:
    """Six baselines, none of which is better or worse: each for itself, one in five searches would call one so."""

    def quick(a: Sequence[float], b: Sequence[float]) -> Any:
        gap = np.subtract(b, a)
        mean, error = float(gap.mean()), float(gap.std(ddof=1)) / math.sqrt(len(gap))
        interval = SimpleNamespace(value=mean, low=mean - 1.96 * error, high=mean + 1.96 * error)
        return SimpleNamespace(difference=interval, p_value=math.erfc(abs(mean) / error / math.sqrt(2)))

    together = alone = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        own, *others = rng.random((7, 100)) < 0.5
        found = verdicts(values(own), {str(i): values(one) for i, one in enumerate(others)}, quick)
        together += any(one.says != "no significant difference" for one in found.values())
        alone += any(one.p_value < 0.05 for one in found.values())
        assert all(one.p_adjusted >= one.p_value for one in found.values())
    assert alone > binom.ppf(0.999, 200, 0.05) >= together


def test_p_values_are_adjusted_one_after_the_other() -> None:
    base = {f"p{i:02d}": 0.0 for i in range(40)}
    ahead = {
        name: {**base, **{f"p{i:02d}": -1.0 for i in range(n)}} for name, n in (("a", 10), ("b", 6), ("c", 0))
    }
    found = verdicts(base, ahead, compare)
    a, b, c = (found[name] for name in "abc")
    assert a.p_adjusted == pytest.approx(3 * a.p_value) and b.p_adjusted == pytest.approx(2 * b.p_value)
    assert (a.says, b.says, c.says) == ("better", "no significant difference", "no significant difference")
    assert c.p_adjusted == c.p_value == 1.0
    assert "among all baselines" in b.sentence("the winner", "b")


def test_a_single_problem_and_no_difference_at_all_are_no_verdict() -> None:
    one = verdict({"p": 1.0}, {"p": 0.0}, compare)
    assert one.says == "no significant difference"
    assert json.loads(json.dumps(one.as_json(), allow_nan=False))["low"] is None
    assert verdict(values(np.ones(9)), values(np.ones(9)), compare).says == "no significant difference"


def test_other_problems_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="2 and 1 problems, of which 1 are the same"):
        verdict({"a": 1.0, "b": 1.0}, {"a": 1.0}, compare)
    with pytest.raises(ValueError, match="0 and 0"):
        verdict({}, {}, compare)
