"""PassUntil: the estimate is unbiased, the obvious one is not, and the interval covers as often as it says."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.benchmarks.statistics.pass_until import PassRate, expected_samples, pass_until, rate_of


def ends(passes: int, limit: int) -> list[tuple[PassRate, int]]:
    """Every way that sampling can end, with how many sequences end so."""
    reached = [
        (rate_of(passes, drawn, passes), math.comb(drawn - 1, passes - 1))
        for drawn in range(passes, limit + 1)
    ]
    return reached + [
        (rate_of(found, limit, passes), math.comb(limit, found)) for found in range(min(passes, limit + 1))
    ]


def probability(end: PassRate, ways: int, rate: float) -> float:
    return ways * rate**end.passes * (1 - rate) ** (end.samples - end.passes)


@pytest.mark.parametrize(("passes", "limit"), [(2, 2), (2, 7), (3, 20), (5, 12), (2, 400)])
@pytest.mark.parametrize("rate", [Fraction(1, 100), Fraction(1, 7), Fraction(1, 2), Fraction(9, 10)])
def test_whatever_the_limit_it_is_exactly_unbiased(passes: int, limit: int, rate: Fraction) -> None:
    mean = total = Fraction(0)
    for end, ways in ends(passes, limit):
        chance = ways * rate**end.passes * (1 - rate) ** (end.samples - end.passes)
        estimate = Fraction(passes - 1, end.samples - 1) if end.reached else Fraction(end.passes, end.samples)
        assert end.value == pytest.approx(float(estimate))
        mean, total = mean + chance * estimate, total + chance
    assert total == 1 and mean == rate


@pytest.mark.parametrize("passes", [2, 3, 8])
@pytest.mark.parametrize("rate", [0.002, 0.05, 0.4])
def test_in_simulation_it_is_unbiased_and_the_naive_estimate_is_too_high(passes: int, rate: float) -> None:
    runs = 40_000
    drawn = passes + np.random.default_rng([1, passes, int(1000 * rate)]).negative_binomial(
        passes, rate, size=runs
    )
    ours = np.array([rate_of(passes, int(n), passes).value for n in drawn])
    naive = passes / drawn
    for estimates, biased in ((ours, False), (naive, True)):
        error = (estimates.mean() - rate) / (estimates.std(ddof=1) / math.sqrt(runs))
        assert error > 8 if biased else abs(error) < 4


def test_a_fixed_number_of_samples_sees_nothing_where_this_sees_a_rate() -> None:
    rng = np.random.default_rng(5)
    outcomes = (bool(rng.random() < 1e-3) for _ in range(10**6))
    found = pass_until(outcomes, passes=20)
    assert found.reached and found.low < 1e-3 < found.high and found.value < 2e-3


@pytest.mark.parametrize(("passes", "limit"), [(2, 60), (4, 30), (3, 2)])
@pytest.mark.parametrize("rate", [0.01, 0.08, 0.3, 0.75])
def test_the_interval_covers_no_less_often_than_it_says(passes: int, limit: int, rate: float) -> None:
    missed_low = missed_high = 0.0
    for end, ways in ends(passes, limit):
        chance = probability(end, ways, rate)
        missed_low += chance * (rate > end.high)
        missed_high += chance * (rate < end.low)
        assert end.low <= end.value <= end.high
    assert max(missed_low, missed_high) <= 0.025 + 1e-9


def test_by_hand() -> None:
    assert pass_until([False, True, False, False, True])[:1] == (1 / 4,)
    assert tuple(pass_until([True, True])) == pytest.approx((1.0, math.sqrt(0.025), 1.0, 2, 2, True))
    nothing = pass_until([False] * 10)
    assert (nothing.value, nothing.low, nothing.reached) == (0.0, 0.0, False)
    assert nothing.high == pytest.approx(1 - 0.025**0.1)
    assert pass_until([True, False, False]).value == 1 / 3
    assert tuple(pass_until([True])) == pytest.approx((1.0, 0.025, 1.0, 1, 1, False))


def test_it_reads_no_further_than_it_must() -> None:
    endless = chain([False, True, True], repeat(False))
    assert pass_until(endless).samples == 3
    assert next(iter(endless)) is False, "and the rest is still there"


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(2, 6))
def test_the_estimate_is_within_its_interval(outcomes: list[bool], passes: int) -> None:
    found = pass_until(outcomes, passes)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.passes == min(passes, sum(outcomes))
    assert found.reached is (sum(outcomes) >= passes)


@pytest.mark.parametrize(("rate", "passes", "limit"), [(0.3, 2, 9), (0.05, 3, 40), (1.0, 2, 5), (0.2, 2, 1)])
def test_how_many_samples_it_takes(rate: float, passes: int, limit: int) -> None:
    if limit >= passes:
        exact = sum(probability(end, ways, rate) * end.samples for end, ways in ends(passes, limit))
    else:
        exact = float(limit)
    assert expected_samples(rate, passes, limit) == pytest.approx(exact)
    assert expected_samples(rate, passes) == pytest.approx(passes / rate)
    assert expected_samples(rate, passes, 2000) == pytest.approx(passes / rate)
    assert expected_samples(0.0, passes) == math.inf and expected_samples(0.0, passes, 7) == 7


@pytest.mark.parametrize(("outcomes", "passes", "why"), [([True], 1, "2 or more"), ([], 2, "no outcomes")])
def test_what_cannot_be_estimated_is_said(outcomes: list[bool], passes: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        pass_until(outcomes, passes)
