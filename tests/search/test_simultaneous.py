"""Intervals that hold together: by exact sums over the binomial, and by draws where a value may be anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from archon.benchmarks.statistics.intervals import student_interval, wilson
from archon.search.simultaneous import simultaneous

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def coverage(ends: list[tuple[float, float]], shares: np.ndarray) -> np.ndarray:
    """With what chance the true share is within the interval of what is seen, for each true share; without a draw."""
    low, high = np.array(ends).T
    chances = binom.pmf(np.arange(len(ends)), len(ends) - 1, shares[:, None])
    held = (low <= shares[:, None]) & (shares[:, None] <= high)
    return np.asarray((chances * held).sum(axis=1))


def rows(problems: int) -> np.ndarray:
    """Every number of right ones that there can be."""
    return (np.arange(problems) < np.arange(problems + 1)[:, None]).astype(float)


@pytest.mark.parametrize("problems", [1, 4, 16, 50, 83])
@pytest.mark.parametrize("count", [1, 3, 10, 40])
def test_each_misses_with_no_more_than_its_part_of_the_chance(problems: int, count: int) -> None:
    ends = [simultaneous([row], count, whole=True)[0] for row in rows(problems)]
    edges = np.array(ends).ravel()  # where coverage is least: just beyond an end
    shares = np.concatenate([np.linspace(0, 1, 501), edges - 1e-9, edges + 1e-9]).clip(0, 1)
    assert coverage([*ends], shares).min() >= 1 - 0.05 / count
    assert count > 1 or problems < 50 or coverage([*ends], shares).min() < 0.96, "no wider than it must be"


def test_wilsons_intervals_at_the_same_level_do_not_hold_so() -> None:
    """Why they are not these: near 1 one of ten misses with a chance of 8%, and should with one of 0.5%."""
    ends = [wilson(row, level=1 - 0.05 / 10)[1:3] for row in rows(50)]
    assert coverage([*ends], np.linspace(0.9, 0.999, 500)).min() < 0.93


def test_values_between_0_and_1_are_covered_too_also_where_one_in_many_is_bad() -> None:
    """50 problems of which each is 0 with a chance of 2%, and 0.9 or 1 else: half of the draws see no 0, or a single
    one. Student's interval misses with a chance of some 40%."""
    draws, alpha = 300, 0.1
    kinds, chances = np.array([0.0, 0.9, 1.0]), np.array([0.02, 0.49, 0.49])
    table = np.random.default_rng(5).choice(kinds, p=chances, size=(draws, 50))
    true = float(kinds @ chances)

    def missed(ends: list[tuple[float, float]]) -> int:
        return sum(not low <= true <= high for low, high in ends)

    ours = missed([simultaneous([row], 1, alpha=alpha)[0] for row in table])
    assert ours <= binom.ppf(0.999, draws, alpha)
    students = missed([student_interval(row, level=1 - alpha)[1:3] for row in table])
    assert students > binom.ppf(0.9999999, draws, alpha), "so that this can fail"


@QUICK
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=25), st.integers(1, 20))
def test_a_mean_is_in_its_interval_and_more_company_makes_it_no_shorter(
    values: list[float], count: int
) -> None:
    for whole in (False, True):
        shown = [round(value) for value in values] if whole else values
        alone, among = (simultaneous([shown], n, whole=whole)[0] for n in (1, 1 + count))
        assert 0 <= among.low <= alone.low <= np.mean(shown) <= alone.high <= among.high <= 1


def test_all_right_is_not_surely_right() -> None:
    (ten,) = simultaneous([[1.0] * 20], 10, whole=True)
    assert ten.low == pytest.approx((0.05 / 10 / 2) ** (1 / 20)) and ten.high == 1


@pytest.mark.parametrize(
    ("values", "whole", "words"),
    [
        ([[1.0], [0.0], [1.0]], True, "at most 2"),
        ([[]], True, "of problems"),
        ([1.0], True, "of problems"),
        ([[0.5]], True, "0 or 1"),
        ([[1.5]], False, "lie in"),
    ],
)
def test_what_is_no_table_of_bounded_values_is_refused(
    values: list[list[float]], whole: bool, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        simultaneous(values, 2, whole=whole)
