"""What a selector would have chosen at any k, against every subset and order of small pools."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.benchmarks.statistics.passk import pass_at_k
from archon.benchmarks.statistics.selection import by_score, by_vote, random_orders


def best_of_every_order(merits: Sequence[float | None], right: Sequence[bool], k: int) -> tuple[float, float]:
    """(Selected, abstained) over every ordered draw of k: the earliest of the highest merit is chosen."""
    chosen, silent, draws = 0, 0, 0
    for draw in itertools.permutations(range(len(merits)), k):
        draws += 1
        scored = [(merit, i) for i in draw if (merit := merits[i]) is not None]
        if scored:
            chosen += right[max(scored, key=lambda pair: pair[0])[1]]
        else:
            silent += 1
    return chosen / draws, silent / draws


def vote_of(
    draw: Sequence[int], answers: Sequence[int | None], weights: Sequence[float], right: Sequence[bool]
) -> bool | None:
    """The earliest candidate of the answer with the largest weight; the earliest answer wins a tie."""
    totals: dict[int, float] = {}
    first: dict[int, int] = {}
    for i in draw:
        answer = answers[i]
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weights[i]
            first.setdefault(answer, i)
    if not totals:
        return None
    most = max(totals.values())
    return right[next(first[a] for a, total in totals.items() if total >= most - 1e-9)]


def vote_of_every_order(
    answers: Sequence[int | None], weights: Sequence[float], right: Sequence[bool], k: int
) -> tuple[float, float]:
    found = [
        vote_of(draw, answers, weights, right) for draw in itertools.permutations(range(len(answers)), k)
    ]
    return sum(f is True for f in found) / len(found), sum(f is None for f in found) / len(found)


pools = st.lists(
    st.tuples(st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 2.0])), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(pools)
def test_best_of_k_is_the_mean_over_every_draw(pool: list[tuple[float | None, bool]]) -> None:
    merits, right = [m for m, _ in pool], [r for _, r in pool]
    ks = list(range(1, len(pool) + 1))
    selected, abstained = by_score(merits, right, ks)
    for at, k in enumerate(ks):
        expected = best_of_every_order(merits, right, k)
        assert selected[at] == pytest.approx(expected[0], abs=1e-12)
        assert abstained[at] == pytest.approx(expected[1], abs=1e-12)


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(-5, 5)), st.booleans()), min_size=1, max_size=60))
def test_best_of_k_stays_within_0_and_coverage(pool: list[tuple[float | None, bool]]) -> None:
    merits, right = [m for m, _ in pool], [r for _, r in pool]
    ks = list(range(1, len(pool) + 1))
    selected, abstained = by_score(merits, right, ks)
    coverage = pass_at_k(len(pool), sum(right), ks)[0]
    assert np.all(selected >= 0)
    assert np.all((abstained >= 0) & (abstained <= 1))
    assert np.all(selected <= coverage + 1e-12), "no selector beats a perfect one"


def test_a_selector_of_right_ones_only_never_exceeds_1() -> None:
    for n in range(1, 60):
        for levels in (1, 2, 3, 5):
            merits = [float(i % levels) for i in range(n)]
            selected, _ = by_score(merits, [True] * n, list(range(1, n + 1)))
            assert selected == pytest.approx(1.0)
            assert selected.max() <= 1.0


def test_a_perfect_score_selects_as_well_as_coverage() -> None:
    right = [i % 7 == 0 for i in range(40)]
    ks = [1, 2, 10, 39, 40]
    selected, abstained = by_score([float(r) for r in right], right, ks)
    np.testing.assert_allclose(selected, pass_at_k(40, sum(right), ks)[0], rtol=1e-12)
    assert abstained.tolist() == [0.0] * 5


def test_equal_scores_select_no_better_than_one_sample() -> None:
    selected, _ = by_score([1.0] * 8, [True, False] * 4, [1, 3, 8])
    assert selected == pytest.approx([0.5, 0.5, 0.5])


def test_a_misleading_score_gets_worse_with_k() -> None:
    merits, right = [0.0, 0.0, 0.0, 9.0], [True, True, True, False]
    selected, _ = by_score(merits, right, [1, 2, 3, 4])
    assert selected == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_candidates_without_merit_are_never_chosen() -> None:
    selected, abstained = by_score([None, None, 1.0], [True, True, False], [1, 2, 3])
    assert selected == pytest.approx([0.0, 0.0, 0.0])
    assert abstained == pytest.approx([2 / 3, 1 / 3, 0.0])
    selected, abstained = by_score([None, None], [True, True], [1, 2])
    assert (selected.tolist(), abstained.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_minus_infinity_as_json_holds_it_is_the_lowest_merit() -> None:
    selected, abstained = by_score([-1e308, 0.0], [True, False], [1, 2])
    assert selected == pytest.approx([0.5, 0.0])
    assert abstained.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("pool", [0, 2])
def test_fewer_samples_than_k_have_no_figure(pool: int) -> None:
    for selected, abstained in (
        by_score([1.0] * pool, [True] * pool, [3]),
        by_vote([0] * pool, [1.0] * pool, [True] * pool, [3]),
    ):
        assert np.isnan(selected).all()
        assert np.isnan(abstained).all()


VOTES: list[tuple[list[int | None], list[float], list[bool]]] = [
    ([0, 0, 1, 1, 2], [1.0] * 5, [True, True, False, False, False]),
    ([0, 1, 1, None, 2, 0], [1.0] * 6, [True, False, False, True, False, True]),
    ([0, 1, 2, 3], [1.0] * 4, [True, False, False, False]),
    ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.0], [True, False, False, True]),
    ([None, None, 0], [1.0] * 3, [True, True, True]),
    ([5, 3, 3, 5], [2.0, 1.0, 1.5, 0.25], [False, True, True, False]),
]


@pytest.mark.parametrize(("answers", "weights", "right"), VOTES)
def test_a_vote_at_k_converges_to_the_mean_over_every_draw(
    answers: list[int | None], weights: list[float], right: list[bool]
) -> None:
    n = len(answers)
    ks = list(range(1, n + 1))
    selected, abstained = by_vote(answers, weights, right, ks, orders=40_000, seed=1)
    for at, k in enumerate(ks):
        expected = vote_of_every_order(answers, weights, right, k)
        assert selected[at] == pytest.approx(expected[0], abs=0.012)
        assert abstained[at] == pytest.approx(expected[1], abs=0.012)


@pytest.mark.parametrize(("answers", "weights", "right"), VOTES)
def test_a_vote_at_k_is_the_mean_over_the_very_orders_it_names(
    answers: list[int | None], weights: list[float], right: list[bool]
) -> None:
    n = len(answers)
    ks = list(range(1, n + 1))
    selected, abstained = by_vote(answers, weights, right, ks, orders=30, seed=5)
    orders = random_orders(n, 30, 5).tolist()
    for at, k in enumerate(ks):
        found = [vote_of(order[:k], answers, weights, right) for order in orders]
        assert selected[at] == pytest.approx(sum(f is True for f in found) / len(found), abs=1e-12)
        assert abstained[at] == pytest.approx(sum(f is None for f in found) / len(found), abs=1e-12)


def test_a_vote_of_one_is_exactly_the_mean() -> None:
    right = [i % 3 == 0 for i in range(101)]
    selected, _ = by_vote([i % 5 for i in range(101)], [1.0] * 101, right, [1], orders=200)
    assert selected[0] == pytest.approx(sum(right) / 101, abs=0.005)
    selected, _ = by_vote([i % 5 for i in range(50)], [1.0] * 50, right[:50], [1], orders=200)
    assert selected[0] == pytest.approx(sum(right[:50]) / 50, abs=1e-12)


def test_a_vote_of_all_has_no_luck_in_it_where_a_majority_exists() -> None:
    answers = [0] * 6 + [1] * 4
    selected, abstained = by_vote(answers, [1.0] * 10, [a == 0 for a in answers], [10])
    assert (selected[0], abstained[0]) == (1.0, 0.0)


def test_weights_overrule_numbers() -> None:
    answers: list[int | None] = [0, 0, 0, 1]
    right = [True, True, True, False]
    assert by_vote(answers, [1.0, 1.0, 1.0, 4.0], right, [4])[0][0] == 0.0
    assert by_vote(answers, [1.0, 1.0, 1.0, 2.0], right, [4])[0][0] == 1.0


def test_a_tie_goes_to_whoever_came_first_so_half_the_time_to_each() -> None:
    answers: list[int | None] = [0, 1]
    selected, _ = by_vote(answers, [1.0, 1.0], [True, False], [2], orders=1000)
    assert selected[0] == pytest.approx(0.5, abs=1e-12), "rotations balance two samples exactly"


def test_equal_weights_summed_in_another_order_are_still_a_tie() -> None:
    answers: list[int | None] = [0, 0, 0, 1, 1, 1]
    weights = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]
    selected, _ = by_vote(answers, weights, [a == 0 for a in answers], [6], orders=3000)
    assert selected[0] == pytest.approx(0.5, abs=0.03)


def test_votes_are_the_same_every_time_and_differ_by_seed() -> None:
    answers: list[int | None] = [i % 4 for i in range(30)]
    right = [i % 4 == 1 for i in range(30)]
    ks = [2, 8, 30]
    first = by_vote(answers, [1.0] * 30, right, ks)
    again = by_vote(answers, [1.0] * 30, right, ks)
    other = by_vote(answers, [1.0] * 30, right, ks, seed=9)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("n", "orders"), [(1, 1), (3, 200), (200, 200), (500, 200), (7, 3)])
def test_every_random_order_is_a_permutation(n: int, orders: int) -> None:
    found = random_orders(n, orders, 0)
    assert np.array_equal(np.sort(found, axis=1), np.tile(np.arange(n), (len(found), 1)))
    if n <= orders:
        assert len(set(np.bincount(found[:, 0], minlength=n).tolist())) == 1, "each comes first equally often"
