"""A verifier against the truth: counts, chances of acceptance, and ratios with intervals clustered by problem."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.benchmarks.statistics.verification import (
    Tally,
    accepted_at,
    accepted_within,
    ratio,
    tally,
    total,
)

verdicts = st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), min_size=1, max_size=7)


def made(pairs: list[tuple[bool | None, bool]]) -> Tally:
    return tally([a for a, _ in pairs], [r for _, r in pairs])


def test_each_sample_is_counted_once_where_it_belongs() -> None:
    one = made([(True, True), (True, False), (True, False), (False, False), (False, True), (None, True)])
    assert one == Tally(1, 2, 1, 1, 1, 0)
    assert (one.samples, one.accepted, one.right) == (6, 3, 3)
    assert one.conditional_accuracy == pytest.approx(1 / 3)


def test_where_nothing_is_accepted_there_is_no_conditional_accuracy() -> None:
    assert made([(False, True), (None, False)]).conditional_accuracy is None
    assert Tally().conditional_accuracy is None


def test_a_verdict_is_needed_for_every_sample() -> None:
    with pytest.raises(ValueError, match="2 verdicts for 1 samples"):
        tally([True, False], [True])


def test_all_problems_together_are_the_sums() -> None:
    assert total([Tally(1, 2, 3, 4, 5, 6), Tally(1, 1, 1, 1, 1, 1)]) == Tally(2, 3, 4, 5, 6, 7)
    assert total([]) == Tally()


@pytest.mark.parametrize(
    ("pairs", "shows"),
    [
        ([(True, True), (True, False), (False, True)], False),  # as many right as accepted
        ([(True, True), (False, True)], True),
        ([(None, True)], True),
        ([(False, False)], False),
    ],
)
def test_the_filter_sees_problems_with_more_right_than_accepted(
    pairs: list[tuple[bool | None, bool]], shows: bool
) -> None:
    assert made(pairs).shows_false_negatives is shows


@given(verdicts)
def test_the_first_acceptance_is_where_every_order_has_it(pairs: list[tuple[bool | None, bool]]) -> None:
    ks = list(range(1, len(pairs) + 1))
    firsts = [0] * len(pairs)
    orders = list(itertools.permutations(a is True for a, _ in pairs))
    for order in orders:
        if True in order:
            firsts[order.index(True)] += 1
    expected = np.array(firsts) / len(orders)
    assert accepted_at([made(pairs)], ks)[0] == pytest.approx(expected, abs=1e-12)
    assert accepted_within([made(pairs)], ks)[0] == pytest.approx(np.cumsum(expected), abs=1e-12)


def test_beyond_the_samples_nothing_is_said() -> None:
    assert np.isnan(accepted_at([Tally(1, 0, 1, 0)], [1, 2, 3])[0]).tolist() == [False, False, True]
    assert np.isnan(accepted_at([Tally()], [1])).all()


def test_a_ratio_is_of_the_sums_not_the_mean_of_ratios() -> None:
    (found,) = ratio([1, 90], [1, 100])
    assert found.value == pytest.approx(91 / 101)
    assert found.low < found.value < found.high
    assert found.bootstrap_low <= found.value <= found.bootstrap_high
    assert found.problems == 2


def test_problems_without_a_share_change_nothing() -> None:
    assert ratio([1, 5], [2, 6])[0][:3] == ratio([1, 0, 5, 0], [2, 0, 6, 0])[0][:3]


def test_where_nothing_is_counted_there_is_no_ratio() -> None:
    (found,) = ratio([0, 0], [0, 0])
    assert found.problems == 0
    assert np.isnan(found.value)
    assert ratio(np.empty((0, 2)), np.empty((0, 2)))[1].problems == 0


def test_one_problem_says_nothing_of_others() -> None:
    assert ratio([40], [80])[0][:3] == (0.5, 0.0, 1.0)


def test_all_right_everywhere_still_has_an_interval() -> None:
    (found,) = ratio([10] * 20, [10] * 20)
    assert found.value == found.high == 1.0
    assert 0.8 < found.low < 1.0


def test_samples_of_one_problem_do_not_count_as_independent() -> None:
    alike = ratio([0, 100] * 10, [100] * 20, samples=2000)[0]
    mixed = ratio([50] * 20, [100] * 20, samples=2000)[0]
    assert alike.value == mixed.value == 0.5
    assert alike.high - alike.low > 2 * (mixed.high - mixed.low)


def test_one_problem_with_most_of_the_weight_widens_the_interval() -> None:
    equal = ratio([6] * 10 + [4] * 10, [10] * 20)[0]
    heavy = ratio([60] + [6] * 9 + [4] * 10, [100] + [10] * 19)[0]
    assert heavy.high - heavy.low > equal.high - equal.low


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(300):
        over = rng.integers(0, 60, size=40)
        part = rng.binomial(over, rng.beta(3, 1.5, size=40))
        (found,) = ratio(part, over, samples=int(over.sum()), resamples=50)
        hits += found.low <= 2 / 3 <= found.high
    assert 0.9 <= hits / 300 <= 1.0
