"""Marginal-gain allocation: curves as they are defined, and an allocation that nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from archon.search.allocation import allocate, beta_prior, concave, coverage_curve, is_concave, vote_curve

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
GAINS = st.lists(st.integers(0, 50), min_size=0, max_size=4).map(lambda gains: sorted(gains, reverse=True))
CURVES = st.lists(GAINS.map(lambda gains: [0.0, *np.cumsum(gains).astype(float)]), min_size=1, max_size=4)


def worth(curves: Sequence[Sequence[float]], counts: Sequence[int]) -> float:
    return sum(curve[n] for curve, n in zip(curves, counts, strict=True))


def best(
    curves: Sequence[Sequence[float]], budget: float, costs: Sequence[float], least: Sequence[int]
) -> float:
    """By trying everything."""
    spaces = [range(have, len(curve)) for have, curve in zip(least, curves, strict=True)]
    return max(
        worth(curves, counts)
        for counts in product(*spaces)
        if sum(c * (n - have) for c, n, have in zip(costs, counts, least, strict=True)) <= budget
    )


@QUICK
@given(CURVES, st.integers(0, 12), st.data())
def test_with_equal_costs_nothing_is_worth_more(
    curves: list[list[float]], budget: int, data: st.DataObject
) -> None:
    least = [data.draw(st.integers(0, len(curve) - 1)) for curve in curves]
    counts = allocate(curves, budget, least=least)
    assert all(have <= n < len(curve) for have, n, curve in zip(least, counts, curves, strict=True))
    assert sum(counts) - sum(least) <= budget
    assert worth(curves, counts) == best(curves, budget, [1] * len(curves), least)


@QUICK
@given(CURVES, st.integers(0, 20), st.data())
def test_with_any_costs_it_lacks_less_than_one_sample_of_the_best(
    curves: list[list[float]], budget: int, data: st.DataObject
) -> None:
    costs = [float(data.draw(st.integers(1, 4))) for _ in curves]
    none = [0] * len(curves)
    counts = allocate(curves, budget, costs)
    spent = sum(c * n for c, n in zip(costs, counts, strict=True))
    assert spent <= budget
    lost = best(curves, budget, costs, none) - worth(curves, counts)
    dearest = max((float(np.diff(curve).max()) for curve in curves if len(curve) > 1), default=0.0)
    assert 0 <= lost <= dearest
    if budget >= sum(c * (len(curve) - 1) for c, curve in zip(costs, curves, strict=True)):
        assert lost == 0


def test_the_next_sample_goes_where_it_gains_most_for_its_cost() -> None:
    curves = [[0, 0.5, 0.75], [0, 0.4, 0.8]]
    assert allocate(curves, 3) == [1, 2]
    assert allocate(curves, 3, costs=[1, 2]) == [2, 0], (
        "0.25 for 1 comes before 0.4 for 2, which no longer fits"
    )


def test_equal_gains_go_to_the_earlier_problem_and_no_gain_is_not_bought() -> None:
    flat = [0.0, 0.3, 0.3]
    assert allocate([flat, flat, flat], 2) == [1, 1, 0]
    assert allocate([flat, flat], 100) == [1, 1]
    assert allocate([], 10) == []


def test_what_does_not_fit_makes_room_for_what_is_cheaper() -> None:
    assert allocate([[0, 10.0], [0, 1.0]], 3, costs=[4, 3]) == [0, 1]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"curves": [[0, 0.1, 0.9]]}, "curve 0 is not concave"),
        ({"curves": [[0, 1]], "costs": [0]}, "above 0"),
        ({"curves": [[0, 1]], "costs": [float("nan")]}, "above 0"),
        ({"curves": [[0, 1]], "costs": [1, 1]}, "1 curves, 2 costs"),
    ],
)
def test_what_cannot_be_allocated_by_is_refused(given: dict[str, list[float]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        allocate(budget=3, **given)  # type: ignore[arg-type]


def test_a_large_run_is_allocated_at_once() -> None:
    curves = [coverage_curve(1 + i % 7, 1 + i % 5, 64) for i in range(500)]
    counts = allocate(curves, 500 * 16)
    assert sum(counts) == 500 * 16


# --- curves ----------------------------------------------------------------------------------------

SHAPES = st.tuples(st.floats(0.05, 20), st.floats(0.05, 20))


@QUICK
@given(SHAPES, st.integers(0, 40))
def test_coverage_is_the_mean_chance_that_some_sample_is_right(shape: tuple[float, float], n: int) -> None:
    a, b = shape
    missed = np.prod([(b + i) / (a + b + i) for i in range(n)])
    curve = coverage_curve(a, b, n)
    assert len(curve) == n + 1 and is_concave(curve)
    assert curve[-1] == pytest.approx(1 - missed, abs=1e-9)


def test_samples_that_were_looked_at_gain_nothing_more() -> None:
    assert coverage_curve(1, 3, 4, known=2) == pytest.approx([0, 0, 0, 1 / 4, 2 / 5])
    assert coverage_curve(1, 3, 1, known=5) == [0, 0]


def vote(m: float, n: int) -> float:
    """The chance that a vote of n finds the answer with the share m, a tie being decided by chance."""
    return sum(
        comb(n, i) * m**i * (1 - m) ** (n - i) * (1.0 if 2 * i > n else 0.5 if 2 * i == n else 0.0)
        for i in range(n + 1)
    )


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (5, 1), (0.5, 4), (12, 11)])
def test_a_vote_finds_the_likelier_answer_as_often_as_integration_says(first: float, second: float) -> None:
    curve = vote_curve(first, second, 12)
    assert curve[0] == 0.5 and is_concave(curve)
    for n in range(1, 12, 2):
        exact, _ = quad(
            lambda x, n=n: vote(max(x, 1 - x), n) * beta.pdf(x, first, second), 0, 1, points=[0.5], limit=200
        )
        assert curve[n] == pytest.approx(exact, abs=1e-6)
        if n > 1:
            assert curve[n - 1] == pytest.approx((curve[n] + curve[n - 2]) / 2)


def test_a_vote_that_is_clear_gains_less_than_one_that_is_open() -> None:
    clear, open_ = vote_curve(9, 1, 32), vote_curve(5, 5, 32)
    assert clear[32] - clear[8] < open_[32] - open_[8]


@QUICK
@given(st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=8))
def test_the_concave_curve_is_the_least_one_above(curve: list[float]) -> None:
    above = concave(curve)
    assert len(above) == len(curve) and is_concave(above)
    for i in range(len(curve)):
        reach = [
            curve[a] + (curve[b] - curve[a]) * (i - a) / (b - a) if a < b else curve[a]
            for a in range(i + 1)
            for b in range(i, len(curve))
        ]
        assert above[i] == pytest.approx(max(reach))


# --- the prior -------------------------------------------------------------------------------------


def test_the_prior_is_found_again_from_what_it_made() -> None:
    rng = np.random.default_rng(3)
    shares = rng.beta(0.5, 1.5, size=4000)
    a, b = beta_prior(rng.binomial(16, shares), np.full(4000, 16))
    assert a / (a + b) == pytest.approx(0.25, abs=0.02)
    assert a + b == pytest.approx(2.0, abs=0.3)


def test_a_prior_of_few_or_equal_problems_is_a_distribution() -> None:
    for right, drawn in (([0], [1]), ([4, 4], [4, 4]), ([0, 0, 0], [8, 8, 8]), ([2, 2], [4, 4])):
        a, b = beta_prior(right, drawn)
        assert a > 0 and b > 0
        assert is_concave(coverage_curve(a, b, 20))
    with pytest.raises(ValueError, match="no problem has samples"):
        beta_prior([0], [0])
