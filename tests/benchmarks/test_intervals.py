"""Intervals over problems: closed form and bootstrap, with their coverage simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from archon.benchmarks.statistics.intervals import Interval, bootstrap, student, student_interval, wilson


def per_problem(rng: np.random.Generator, problems: int, samples: int) -> NDArray[np.float64]:
    """Shares of right samples of problems whose difficulties differ: the mean of Beta(0.8, 1.2) is 0.4."""
    difficulty = rng.beta(0.8, 1.2, size=problems)
    return np.asarray(rng.binomial(samples, difficulty) / samples)


MEAN = 0.4


def covered(problems: int, samples: int, times: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    hits = {"wilson": 0, "bootstrap": 0, "student": 0, "as if independent": 0}
    for number in range(times):
        values = per_problem(rng, problems, samples)
        closed = wilson(values, samples=problems * samples)
        hits["wilson"] += closed.low <= MEAN <= closed.high
        ((low, high),) = bootstrap(values, resamples=400, seed=number)
        hits["bootstrap"] += low <= MEAN <= high
        t = student_interval(values)
        hits["student"] += t.low <= MEAN <= t.high
        p, size = values.mean(), problems * samples
        half = 1.96 * math.sqrt(p * (1 - p) / size)
        hits["as if independent"] += abs(p - MEAN) <= half
    return {name: count / times for name, count in hits.items()}


@pytest.mark.parametrize(("problems", "samples", "seed"), [(60, 1, 1), (60, 20, 2), (164, 100, 3)])
def test_a_95_percent_interval_covers_the_truth_about_95_percent_of_the_time(
    problems: int, samples: int, seed: int
) -> None:
    found = covered(problems, samples, 700, seed)
    assert 0.92 <= found["wilson"] <= 0.98
    assert 0.92 <= found["bootstrap"] <= 0.98
    assert 0.92 <= found["student"] <= 0.98


def test_counting_samples_as_independent_would_not_cover() -> None:
    assert covered(60, 20, 200, 4)["as if independent"] < 0.6


def test_the_bootstrap_moves_with_a_lower_level() -> None:
    values = per_problem(np.random.default_rng(1), 50, 10)
    ((low95, high95),) = bootstrap(values)
    ((low50, high50),) = bootstrap(values, level=0.5)
    assert low95 < low50 < values.mean() < high50 < high95
    wide, narrow = wilson(values), wilson(values, level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(1, 100))
def test_every_interval_contains_its_estimate_within_0_and_1(values: list[float], samples: int) -> None:
    found = wilson(values, samples=len(values) * samples)
    assert found.problems == len(values)
    assert found.value == pytest.approx(float(np.mean(values)))
    assert 0 <= found.low <= found.value <= found.high <= 1
    ((low, high),) = bootstrap(values, resamples=300)
    assert 0 <= low <= found.value + 1e-12
    assert found.value - 1e-12 <= high <= 1 + 1e-12


def test_one_problem_says_next_to_nothing() -> None:
    assert wilson([0.3]) == Interval(0.3, 0.0, 1.0, 1)
    assert student_interval([0.3]) == Interval(0.3, -math.inf, math.inf, 1)
    assert bootstrap([0.3]) == [(0.3, 0.3)]


def test_no_problem_has_no_interval() -> None:
    for found in (wilson([]), student_interval([]), wilson([math.nan])):
        assert found.problems == 0
        assert all(math.isnan(x) for x in found[:3])
    assert all(math.isnan(x) for x in bootstrap([])[0])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_the_same_at_the_edge_does_not_collapse(value: float) -> None:
    found = wilson([value] * 20)
    assert found.value == value
    assert found.high - found.low > 0.1
    assert found.low == 0.0 if value == 0.0 else found.high == 1.0


def test_all_the_same_in_the_middle_is_as_many_coin_flips_as_there_are_samples() -> None:
    few, many = wilson([0.5] * 20, samples=20), wilson([0.5] * 20, samples=2000)
    assert few.high - few.low > many.high - many.low > 0
    assert bootstrap([0.5] * 20) == [(0.5, 0.5)]


def test_right_or_wrong_problems_give_wilson_s_own_interval_with_student_s_quantile() -> None:
    values = [1.0] * 13 + [0.0] * 37
    m, p, z = 50, 13 / 50, float(stats.t.ppf(0.975, 49))
    found = wilson(values)
    size = m  # as many coin flips as problems
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(p * (1 - p) / size + z * z / (4 * size * size))
    assert found[:3] == pytest.approx((p, centre - half, centre + half))


def test_student_s_interval_is_scipy_s() -> None:
    values = np.random.default_rng(7).normal(2, 3, size=31)
    expected = stats.t.interval(0.95, 30, loc=values.mean(), scale=stats.sem(values))
    found = student_interval(values)
    assert (found.low, found.high) == pytest.approx(expected)
    assert student(0.95, 30) == pytest.approx(2.0422724563)


def test_problems_without_a_figure_are_left_out() -> None:
    assert wilson([0.25, math.nan, 0.75]) == wilson([0.25, 0.75])
    assert student_interval([1.0, math.nan, 4.0]) == student_interval([1.0, 4.0])
    ((low, high),) = bootstrap([0.25, math.nan, 0.75])
    assert (low, high) == (0.25, 0.75)


def test_a_figure_that_no_problem_has_is_nan_and_harms_no_other() -> None:
    table = np.array([[0.1, math.nan], [0.9, math.nan], [0.4, math.nan]])
    first, second = bootstrap(table)
    assert first == bootstrap(table[:, 0])[0]
    assert all(math.isnan(x) for x in second)


def test_the_bootstrap_is_the_same_for_the_same_seed() -> None:
    values = per_problem(np.random.default_rng(2), 40, 5)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, resamples=99, seed=3) != bootstrap(values, resamples=99, seed=4)


def test_the_same_resamples_serve_every_figure() -> None:
    values = per_problem(np.random.default_rng(2), 40, 5)
    table = np.stack([values, values / 2, 1 - values], axis=1)
    (low, high), half, mirrored = bootstrap(table)
    assert half == pytest.approx((low / 2, high / 2))
    assert mirrored == pytest.approx((1 - high, 1 - low))


def test_the_bootstrap_agrees_with_scipy_s() -> None:
    values = per_problem(np.random.default_rng(8), 80, 10)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0))
    ((low, high),) = bootstrap(values)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.006)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.006)


def test_many_problems_are_resampled_in_parts_without_a_seam() -> None:
    values = (np.arange(9000) % 10 == 0).astype(float)
    ((low, high),) = bootstrap(values, resamples=1000)
    half = 1.96 * math.sqrt(0.09 / 9000)
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half), abs=0.002)
