"""Betting on a mean over finitely many problems: errors as rare as stated at all looks, and none at the end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from archon.search.betting import NOT_YET, Claims, bounds

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
VALUES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


def claims(values: np.ndarray, nulls: list[float], alpha: float = 0.05) -> Claims:
    made = Claims(len(values))
    rows = made.add(nulls, -math.log(alpha))
    made.see(rows, np.broadcast_to(values, (len(nulls), len(values))))
    return made


def orders(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(values) for _ in range(count)])


@pytest.mark.parametrize("right", [3, 30, 50, 57])
def test_a_true_null_is_refuted_at_some_look_no_more_often_than_stated(right: int) -> None:
    alpha, count = 0.1, 4000
    values = np.array([1.0] * right + [0.0] * (60 - right))
    made = Claims(60)
    rows = made.add(np.full(count, right / 60), -math.log(alpha))
    made.see(rows, orders(values, count, seed=right))
    wrong = int((made.above != NOT_YET).sum())
    assert wrong <= binom.ppf(0.999, count, alpha)
    assert wrong > 0, "it would never say anything"


def test_a_test_for_one_look_does_not_hold_at_all_looks() -> None:
    """So that the test above can fail: a normal test at the same level, looked at after every value."""
    alpha, count = 0.1, 4000
    shown = orders(np.array([1.0] * 30 + [0.0] * 30), count, seed=0)
    seen = np.arange(1, 61)
    z = (shown.cumsum(axis=1) - seen / 2) / np.sqrt(seen / 4 * np.maximum(1 - (seen - 1) / 59, 1e-9))
    assert (z[:, 5:-1] > 1.2816).any(axis=1).sum() > 2 * binom.ppf(0.999, count, alpha)


def test_intervals_hold_at_all_looks_at_once() -> None:
    alpha, runs, missed = 0.1, 150, 0
    values = np.array([1.0] * 20 + [0.5] * 5 + [0.0] * 15)
    for order in orders(values, runs, seed=1):
        looks = [bounds(order[:n], 40, alpha) for n in (0, 5, 15, 30, 40)]
        missed += not all(low - 1e-9 <= values.mean() <= high + 1e-9 for low, high in looks)
        assert looks[0] == (0.0, 1.0)
        assert looks[-1] == (values.mean(), values.mean())
        widths = [high - low for low, high in looks]
        assert widths[0] > widths[2] > widths[3] >= widths[4] == 0
    assert missed <= binom.ppf(0.999, runs, alpha)


@QUICK
@given(VALUES, st.integers(1, 30), st.floats(0.01, 0.5))
def test_an_interval_holds_what_is_still_possible_and_not_what_is_not(
    values: list[float], more: int, alpha: float
) -> None:
    low, high = bounds(values, len(values) + more, alpha)
    least, most = sum(values) / (len(values) + more), (sum(values) + more) / (len(values) + more)
    assert least <= low <= high <= most


@QUICK
@given(VALUES, st.lists(st.integers(0, 30), max_size=3), st.floats(0, 1))
def test_a_claim_does_not_depend_on_the_pieces_that_it_saw(
    values: list[float], cuts: list[int], null: float
) -> None:
    whole = claims(np.array(values), [null], alpha=0.2)
    pieces = Claims(len(values))
    rows = pieces.add(null, -math.log(0.2))
    for piece in np.split(np.array(values), sorted(min(cut, len(values)) for cut in cuts)):
        pieces.see(rows, piece[None, :])
    assert pieces.above.tolist() == whole.above.tolist()
    assert pieces.reached.tolist() == whole.reached.tolist()
    assert pieces.seen.tolist() == [len(values)]


@QUICK
@given(VALUES)
def test_in_the_end_everything_is_known(values: list[float]) -> None:
    mean = float(np.mean(values))
    made = claims(np.array(values), [mean - 1e-4, mean, mean + 1e-4], alpha=1e-12)
    assert (made.above != NOT_YET).tolist() == [True, False, False]
    assert (made.reached != NOT_YET).tolist() == [True, True, False]


@QUICK
@given(VALUES, st.floats(0.01, 0.9))
def test_what_is_claimed_at_a_null_is_claimed_at_every_lower_one(values: list[float], alpha: float) -> None:
    """The values are the first ones of twice as many."""
    made = Claims(2 * len(values))
    rows = made.add(np.linspace(0, 1, 41), -math.log(alpha))
    made.see(rows, np.broadcast_to(values, (41, len(values))))
    proved = (made.above != NOT_YET).tolist()
    assert proved == sorted(proved, reverse=True)


def test_a_claim_that_cannot_fail_needs_no_value() -> None:
    made = Claims(10)
    made.add([-0.1, 0.0, 0.1], 3.0)
    assert made.above.tolist() == [0, NOT_YET, NOT_YET]
    assert made.reached.tolist() == [0, 0, NOT_YET]


def test_more_values_than_problems_and_values_beyond_the_range_are_refused() -> None:
    made = Claims(2)
    rows = made.add(0.5, 3.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        made.see(rows, [[1.5]])
    with pytest.raises(ValueError, match="no room"):
        made.see(rows, [[1.0, 1.0, 1.0]])
