"""pass@k and pass^k against exact fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.benchmarks.results import ladder
from archon.benchmarks.statistics.passk import avoid, pass_at_k, pass_hat_k


def exact_pass_at_k(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


def exact_pass_hat_k(n: int, c: int, k: int) -> Fraction:
    return Fraction(math.comb(c, k), math.comb(n, k))


@st.composite
def small(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 300))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@st.composite
def large(draw: st.DrawFn) -> tuple[int, int, int]:
    """Up to a million samples, where one of c, n - c and k is small enough for exact fractions."""
    n = draw(st.integers(1000, 10**6))
    few = draw(st.integers(0, 300))
    many = draw(st.integers(1, n))
    return draw(st.sampled_from([(n, few, many), (n, many, max(1, few)), (n, n - few, max(1, few))]))


def exact_avoid(n: int, marked: int, k: int) -> Fraction:
    """C(n - marked, k) / C(n, k), as a short product whichever of the two is small."""
    short, other = min(marked, k), max(marked, k)
    if marked + k > n:
        return Fraction(0)
    top = math.prod(range(n - other - short + 1, n - other + 1))
    return Fraction(top, math.prod(range(n - short + 1, n + 1)))


@given(small())
def test_pass_at_k_is_the_exact_fraction(case: tuple[int, int, int]) -> None:
    n, c, k = case
    assert pass_at_k(n, c, [k])[0, 0] == pytest.approx(float(exact_pass_at_k(n, c, k)), rel=1e-12, abs=1e-300)


@given(small())
def test_pass_hat_k_is_the_exact_fraction(case: tuple[int, int, int]) -> None:
    n, c, k = case
    exact = float(exact_pass_hat_k(n, c, k))
    assert pass_hat_k(n, c, [k])[0, 0] == pytest.approx(exact, rel=1e-11, abs=1e-300)


@settings(max_examples=60, deadline=None)
@given(large())
def test_it_is_exact_up_to_a_million_samples(case: tuple[int, int, int]) -> None:
    n, c, k = case
    value = float(pass_at_k(n, c, [k])[0, 0])
    assert 0.0 <= value <= 1.0
    if min(c, k) <= 300:
        missing = exact_avoid(n, c, k)
        assert value == pytest.approx(float(1 - missing), rel=1e-10)
    if min(n - c, k) <= 300:
        assert float(pass_hat_k(n, c, [k])[0, 0]) == pytest.approx(
            float(exact_avoid(n, n - c, k)), rel=1e-9, abs=1e-300
        )


def test_a_single_right_one_in_a_million_is_not_rounded_away() -> None:
    assert pass_at_k(10**6, 1, [1])[0, 0] == pytest.approx(1e-6, rel=1e-12)
    assert pass_at_k(10**6, 1, [10**6])[0, 0] == 1.0
    assert pass_hat_k(10**6, 10**6 - 1, [2])[0, 0] == pytest.approx(1 - 2e-6, rel=1e-15)


@given(small())
def test_pass_at_k_never_falls_and_pass_hat_k_never_rises_with_k(case: tuple[int, int, int]) -> None:
    n, c, _ = case
    ks = list(range(1, n + 1))
    up, down = pass_at_k(n, c, ks)[0], pass_hat_k(n, c, ks)[0]
    assert np.all(np.diff(up) >= -1e-15)
    assert np.all(np.diff(down) <= 1e-15)
    for values in (up, down):
        assert np.all((values >= 0) & (values <= 1))


@given(small())
def test_both_are_the_mean_at_k_1(case: tuple[int, int, int]) -> None:
    n, c, _ = case
    assert pass_at_k(n, c, [1])[0, 0] == pytest.approx(c / n, rel=1e-14)
    assert pass_hat_k(n, c, [1])[0, 0] == pytest.approx(c / n, rel=1e-12)


def test_it_is_what_drawing_every_subset_gives() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            right = [i < c for i in range(n)]
            for k in range(1, n + 1):
                draws = list(itertools.combinations(right, k))
                some = sum(any(d) for d in draws) / len(draws)
                every = sum(all(d) for d in draws) / len(draws)
                assert pass_at_k(n, c, [k])[0, 0] == pytest.approx(some, rel=1e-13, abs=1e-15)
                assert pass_hat_k(n, c, [k])[0, 0] == pytest.approx(every, rel=1e-13, abs=1e-15)


def test_none_right_is_0_and_all_right_is_1_exactly() -> None:
    ks = [1, 2, 10, 100]
    assert pass_at_k(100, 0, ks).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert pass_at_k(100, 100, ks).tolist() == [[1.0, 1.0, 1.0, 1.0]]
    assert pass_hat_k(100, 0, ks).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert pass_hat_k(100, 100, ks).tolist() == [[1.0, 1.0, 1.0, 1.0]]


def test_none_right_is_not_minus_zero() -> None:
    assert not np.signbit(pass_at_k([100, 5], [0, 0], [1, 5])).any()


def test_too_few_wrong_ones_to_fill_k_is_exactly_1() -> None:
    assert pass_at_k(10, 3, [8])[0, 0] == 1.0
    assert pass_at_k(10, 3, [7])[0, 0] < 1.0
    assert pass_hat_k(10, 3, [4])[0, 0] == 0.0


def test_a_problem_with_fewer_than_k_samples_has_no_figure_there() -> None:
    values = pass_at_k([3, 10], [1, 1], [1, 3, 4])
    assert np.isnan(values).tolist() == [[False, False, True], [False, False, False]]
    assert np.isnan(pass_hat_k([3], [3], [4])).all()


def test_no_samples_is_no_figure_never_0() -> None:
    assert np.isnan(pass_at_k(0, 0, [1, 2])).all()
    assert np.isnan(pass_hat_k([0], [0], [1])).all()


def test_many_problems_at_once_are_each_on_their_own() -> None:
    rng = np.random.default_rng(3)
    n = rng.integers(1, 60, size=500)
    c = (rng.random(500) * (n + 1)).astype(int)
    ks = [1, 2, 5, 30]
    together = pass_at_k(n, c, ks)
    assert together.shape == (500, 4)
    for row, (a, b) in enumerate(zip(n.tolist(), c.tolist(), strict=True)):
        np.testing.assert_array_equal(together[row], pass_at_k(a, b, ks)[0])


def test_the_order_and_repetition_of_ks_are_kept() -> None:
    plain = pass_at_k(20, 7, [1, 5, 20])[0]
    assert pass_at_k(20, 7, [20, 1, 5, 1])[0].tolist() == [plain[2], plain[0], plain[1], plain[0]]


def test_no_problems_and_no_ks_are_empty_tables() -> None:
    assert pass_at_k([], [], [1, 2]).shape == (0, 2)
    assert pass_at_k([4], [2], []).shape == (1, 0)


@pytest.mark.parametrize("count", [pass_at_k, pass_hat_k])
@pytest.mark.parametrize(
    ("n", "c", "ks", "match"),
    [
        (5, 6, [1], "between 0 and"),
        (5, -1, [1], "between 0 and"),
        (5, 2, [0], "at least 1"),
        (5, 2, [3, -2], "-2"),
        ([5, 5], [1], [1], "one entry per problem"),
    ],
)
def test_impossible_counts_are_errors(count, n, c, ks, match) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=match):
        count(n, c, ks)


@given(small())
def test_avoiding_is_the_complement_of_finding(case: tuple[int, int, int]) -> None:
    n, marked, k = case
    exact = float(Fraction(math.comb(n - marked, k), math.comb(n, k)))
    assert avoid(n, marked, [k])[0, 0] == pytest.approx(exact, rel=1e-11, abs=1e-300)


def test_the_reported_ks_are_powers_of_two_and_of_ten_and_all_samples() -> None:
    assert ladder(0) == []
    assert ladder(1) == [1]
    assert ladder(12) == [1, 2, 4, 8, 10, 12]
    assert ladder(100) == [1, 2, 4, 8, 10, 16, 32, 64, 100]
    assert ladder(128)[-3:] == [64, 100, 128]
