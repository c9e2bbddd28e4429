"""How good scores that are probabilities are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.benchmarks.statistics.probabilities import area_under_curve, calibration, order_within

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from("abc")), min_size=1, max_size=30)


def by_hand(pairs: list[tuple[int, bool, str]], within: bool) -> tuple[float, int]:
    found = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, good, a in pairs
        for other, better, b in pairs
        if good and not better and (a == b or not within)
    ]
    return (sum(found) / len(found) if found else math.nan), len(found)


@settings(deadline=None)
@given(PAIRS)
def test_both_areas_are_shares_of_pairs_in_the_right_order(pairs: list[tuple[int, bool, str]]) -> None:
    scores = np.array([score for score, _, _ in pairs], dtype=np.float64)
    right = np.array([good for _, good, _ in pairs])
    assert area_under_curve(scores, right) == pytest.approx(by_hand(pairs, False)[0], nan_ok=True)
    found, many = order_within(scores, right, [name for _, _, name in pairs])
    assert found == pytest.approx(by_hand(pairs, True)[0], nan_ok=True) and many == by_hand(pairs, True)[1]


def test_scores_that_tell_easy_questions_from_hard_ones_need_not_tell_right_from_wrong() -> None:
    """The easy question's replies all score high, the hard one's all low; within each the wrong one scores higher."""
    scores = np.array([0.9, 0.9, 0.9, 0.95, 0.1, 0.15, 0.15, 0.15])
    right = np.array([True, True, True, False, True, False, False, False])
    assert area_under_curve(scores, right) == 9 / 16
    assert order_within(scores, right, ["easy"] * 4 + ["hard"] * 4) == (0.0, 6)


def test_what_says_what_happens_is_calibrated() -> None:
    outcomes = np.array([1.0] * 7 + [0.0] * 3)
    assert calibration(np.full(10, 0.7), outcomes)[0] == pytest.approx(0)
    error, table = calibration(np.full(10, 0.95), outcomes)
    assert error == pytest.approx(0.25) and np.allclose(table, [(0.95, 0.7, 10)])
