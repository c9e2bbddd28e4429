"""Difficulty bins, and the best strategy for each within a budget."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.search.difficulty import bins_of, choose, quantile_bounds, shrunk

QUICK = settings(max_examples=80, deadline=None, derandomize=True)


def test_bins_hold_equally_many() -> None:
    signals = [float(i) for i in range(20)]
    bounds = quantile_bounds(signals, 5)
    assert bounds == (4.0, 8.0, 12.0, 16.0)
    assert np.bincount(bins_of(signals, bounds)).tolist() == [4] * 5


@QUICK
@given(st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0, None]), min_size=1, max_size=30), st.integers(1, 6))
def test_no_bin_is_empty_however_few_values_there_are(signals: list[float | None], bins: int) -> None:
    if all(s is None for s in signals):
        with pytest.raises(ValueError, match="no problem has a signal"):
            quantile_bounds(signals, bins)
        return
    bounds = quantile_bounds(signals, bins)
    assert list(bounds) == sorted(set(bounds)) and len(bounds) < bins
    assert all(np.bincount(bins_of(signals, bounds), minlength=len(bounds) + 1))


def test_a_small_bin_is_drawn_towards_the_whole() -> None:
    worth, bins = [[1, 1, 0, 0, 0, 0]], [0, 0, 1, 1, 1, 1]
    assert shrunk(worth, bins, 2, 0).tolist() == [[1.0, 0.0]]
    drawn = shrunk(worth, bins, 2, 4)
    assert drawn[0] == pytest.approx([(2 + 4 / 3) / 6, (4 / 3) / 8])
    assert shrunk(worth, bins, 3, 4)[0, 2] == pytest.approx(1 / 3), "a bin without problems is like the whole"


@QUICK
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 40),
    st.data(),
)
def test_no_choice_within_the_budget_is_worth_more(
    strategies: int, bins: int, budget: int, data: st.DataObject
) -> None:
    table = st.lists(
        st.lists(st.integers(0, 20).map(float), min_size=bins, max_size=bins),
        min_size=strategies,
        max_size=strategies,
    )
    worth, cost = data.draw(table), data.draw(table)
    shares = [1.0] * bins
    every = [
        (sum(worth[s][b] for b, s in enumerate(one)), -sum(cost[s][b] for b, s in enumerate(one)))
        for one in product(range(strategies), repeat=bins)
    ]
    fitting = [pair for pair in every if -pair[1] <= budget]
    found = choose(worth, cost, shares, budget)
    if not fitting:
        assert found is None
        return
    assert found is not None
    assert (found.worth, -found.cost) == pytest.approx(max(fitting)), "the cheapest of the best"


def test_equal_strategies_go_to_the_earlier_one() -> None:
    found = choose([[1.0], [1.0]], [[2.0], [2.0]], [1.0], 5.0)
    assert found is not None and found.strategies == (0,)
