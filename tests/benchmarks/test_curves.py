"""Accuracy against tokens, and scaling rates."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.benchmarks.curves import Curve, draw, rate

BUDGETS = (1, 2, 4, 8)


def curve(tokens: list[float], share: list[float], problems: int = 200) -> Curve:
    """So many problems of which this share is right at each budget, the easiest first."""
    right = np.array([[float(i < s * problems) for s in share] for i in range(problems)])
    return Curve(BUDGETS[: len(tokens)], np.tile(tokens, (problems, 1)), right)


def test_a_method_that_needs_four_times_the_tokens_everywhere_has_the_rate_four() -> None:
    fast = curve([10, 20, 40, 80], [0.2, 0.4, 0.6, 0.8])
    slow = curve([40, 80, 160, 320], [0.2, 0.4, 0.6, 0.8])
    found = rate(fast, slow)
    assert found is not None
    assert found["factor"] == pytest.approx(4)
    assert found["low"] <= found["factor"] <= found["high"]
    back = rate(slow, fast)
    assert back is not None and back["factor"] == pytest.approx(0.25)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=4, unique=True), st.floats(0.1, 10))
def test_a_rate_is_a_ratio_of_tokens(shares: list[float], factor: float) -> None:
    tokens = [10.0 * 2**i for i in range(len(shares))]
    one = curve(tokens, sorted(shares), 100)
    if one.right.mean(axis=0)[0] == one.right.mean(axis=0)[-1]:
        return
    found = rate(one, curve([t * factor for t in tokens], sorted(shares), 100))
    assert found is not None and math.isclose(found["factor"], factor, rel_tol=1e-6)


def test_a_rate_is_over_the_accuracies_that_both_reach() -> None:
    low = curve([10, 20], [0.1, 0.2])
    high = curve([10, 20], [0.5, 0.6])
    assert rate(low, high) is None
    flat = curve([10, 20], [0.5, 0.5])
    assert rate(flat, flat) is None


def test_what_falls_is_not_what_is_read_backwards() -> None:
    """A larger budget that is worse: the accuracy was to be had with the smaller one."""
    hacked = curve([10, 20, 40, 80], [0.2, 0.6, 0.5, 0.4])
    steady = curve([10, 20, 40, 80], [0.2, 0.4, 0.5, 0.6])
    found = rate(hacked, steady)
    assert found is not None and found["factor"] > 1


def test_curves_over_other_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="200 and 100 problems"):
        rate(curve([1, 2], [0.1, 0.2]), curve([1, 2], [0.1, 0.2], problems=100))


def test_a_curve_as_json_and_as_a_picture(tmp_path: Path) -> None:
    one = curve([10, 20], [0.25, 0.5])
    data = one.as_json()
    assert data["budget"] == [1, 2] and data["tokens"] == [10, 20] and data["accuracy"] == [0.25, 0.5]
    assert data["low"][0] < 0.25 < data["high"][0] and data["problems"] == 200
    draw({"one": one}, "a title", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
