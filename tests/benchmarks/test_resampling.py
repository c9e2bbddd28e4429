"""What resampling is worth and how often to try, against enumeration, and the two-type theory of the paper."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.benchmarks.statistics.resampling import (
    Attempts,
    TwoTypes,
    best_attempts,
    two_type_optimal_k,
    two_types_of,
    utility,
)
from archon.benchmarks.statistics.verification import Tally

LLAMA_8B = TwoTypes(easy_share=82 / 150, easy=0.8918, hard=0.138224, soundness=0.751634)
"""Found from what was published: mean accuracy .5502 over 150 tasks, the threshold .6458, and the row below."""
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 4, 10)
PUBLISHED = (82, 81, 81, 80, 79, 76, 3, 2, 2, 2, 1, 1, 0)


def pool(n: int, accepted: int, right: int) -> Tally:
    """n samples of which some are accepted, and so many of those are right."""
    return Tally(right, accepted - right, n - accepted, 0)


def by_enumeration(one: Tally, k: int, cost: float) -> float:
    samples = [1.0] * one.true_positives + [-cost] * one.false_positives
    samples += [0.0] * (one.samples - len(samples))
    draws = list(itertools.permutations(samples, k))
    return sum(next((s for s in draw if s), 0.0) for draw in draws) / len(draws)


pools = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda p: pool(n, max(p), min(p)))
)


@settings(deadline=None)
@given(pools, st.sampled_from([0.5, 1, 2, 8]))
def test_utility_is_the_mean_over_every_draw(one: Tally, cost: float) -> None:
    ks = range(1, one.samples + 1)
    found = utility([one], list(ks), cost)[0]
    assert found == pytest.approx([by_enumeration(one, k, cost) for k in ks], abs=1e-12)


same_size = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda p: pool(n, max(p), min(p))),
        min_size=1,
        max_size=5,
    )
)


@settings(deadline=None)
@given(same_size, st.sampled_from(["0", "0.3", "1", "2", "4"]))
def test_the_best_attempts_are_the_fewest_with_the_highest_value(tallies: list[Tally], cost: str) -> None:
    ks = list(range(1, tallies[0].samples + 1))
    curve = utility(tallies, ks, cost).mean(axis=0)
    best = best_attempts(tallies, cost)
    assert best.value == pytest.approx(max(0.0, curve.max()), abs=1e-9)
    if best.within:
        assert curve[best.within - 1] == pytest.approx(curve.max(), abs=1e-9)
        assert (curve[: best.within - 1] < curve[best.within - 1] + 1e-12).all()


def test_a_verifier_that_is_never_wrong_is_worth_asking_for_ever() -> None:
    best = best_attempts([pool(100, 3, 3), pool(100, 60, 60)], 8)
    assert best.attempts == "unbounded"
    assert best.value == pytest.approx(1.0)
    assert best.within == 98


def test_where_every_sample_is_accepted_one_attempt_is_all() -> None:
    best = best_attempts([pool(50, 50, 30)], 1)
    assert (best.attempts, best.within) == (1, 1)
    assert best.value == pytest.approx(0.2)
    assert best_attempts([pool(1, 1, 1)], 4).attempts == 1


@pytest.mark.parametrize("tallies", [[], [Tally()], [pool(10, 0, 0)], [pool(10, 4, 0)], [pool(1, 1, 0)]])
def test_where_nothing_can_be_won_it_is_best_to_abstain(tallies: list[Tally]) -> None:
    assert best_attempts(tallies, 1) == (0, 0.0, 0)
    assert best_attempts(tallies, 0) == (0, 0.0, 0)


def test_a_curve_that_bends_down_has_its_best_where_it_bends() -> None:
    tallies = [pool(100, 80, 80), pool(100, 5, 0)]
    best = best_attempts(tallies, 1)
    ks = list(range(1, 101))
    curve = utility(tallies, ks, 1).mean(axis=0)
    assert best.attempts == ks[int(np.argmax(curve))] == 2
    assert best.value == pytest.approx(curve.max())


def test_a_gain_too_small_for_floats_is_still_a_gain() -> None:
    """One task with 1 of 4,000 accepted and right beside one that is accepted nearly always."""
    tallies = [pool(4000, 3999, 3999), pool(4000, 1, 1)]
    assert best_attempts(tallies, 1).attempts == "unbounded"
    worse = [pool(4000, 3999, 3999), pool(4000, 1, 0)]
    assert best_attempts(worse, "0.0000000001").attempts == 2


def test_gains_and_losses_that_cancel_are_told_from_those_that_nearly_do() -> None:
    """At C = 1 the two tasks cancel at every K; one part in 10**18 decides."""
    tallies = [pool(100, 10, 10), pool(100, 10, 0)]
    assert best_attempts(tallies, 1) == (0, 0.0, 0)
    assert best_attempts(tallies, "0.999999999999999999").attempts == "unbounded"
    assert best_attempts(tallies, Fraction(10**18 + 1, 10**18)).attempts == 0


def test_a_curve_that_first_falls_may_still_be_worth_it_in_the_end() -> None:
    tallies = [pool(100, 90, 0), *[pool(100, 2, 2)] * 3]
    best = best_attempts(tallies, 1)
    assert best.attempts == "unbounded"
    assert best.value == pytest.approx(0.5)
    assert utility(tallies, [1], 1).mean() < 0


def test_problems_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        best_attempts([pool(2, 1, 1), pool(3, 1, 1)], 1)


# --- the two-type theory ---------------------------------------------------------------------------


def test_the_published_row_is_floating_point_saturation() -> None:
    assert tuple(two_type_optimal_k(LLAMA_8B, r, saturated=True) for r in RATIOS) == PUBLISHED


def test_below_the_threshold_the_true_optimum_is_unbounded_and_above_it_the_row_stands() -> None:
    assert pytest.approx(0.6458, abs=5e-5) == LLAMA_8B.threshold
    for cost, printed in zip(RATIOS, PUBLISHED, strict=True):
        expected: Attempts = "unbounded" if cost < LLAMA_8B.threshold else printed
        assert two_type_optimal_k(LLAMA_8B, cost) == expected


@pytest.mark.parametrize("cost", ["0.64", "0.6458", "0.65", "0.651"])
def test_near_the_threshold_the_optimum_grows_without_limit(cost: str) -> None:
    found = two_type_optimal_k(LLAMA_8B, cost)
    if float(cost) < LLAMA_8B.threshold:
        assert found == "unbounded"
    else:
        assert isinstance(found, int) and found > 3


@settings(deadline=None)
@given(
    st.floats(0.05, 0.95), st.floats(0.55, 0.95), st.floats(0.05, 0.45), st.floats(0.1, 0.9), st.floats(0, 9)
)
def test_a_finite_optimum_is_where_an_attempt_stops_paying(
    share: float, easy: float, hard: float, soundness: float, cost: float
) -> None:
    model = TwoTypes(share, easy, hard, soundness)
    found = two_type_optimal_k(model, cost)
    if found == "unbounded":
        assert cost <= model.threshold * (1 + 1e-12)
        return

    def gain(k: int) -> float:
        parts = ((share, easy), (1 - share, hard))
        return sum(
            p * (r - cost * (1 - r) * (1 - soundness)) * (soundness * (1 - r)) ** (k - 1) for p, r in parts
        )

    assert gain(found + 1) <= 1e-12
    assert found == 0 or gain(found) >= -1e-12


@pytest.mark.parametrize(
    ("model", "cost", "best"),
    [
        (TwoTypes(0.5, 0.9, 0.1, 1.0), 8, "unbounded"),  # a perfect verifier
        (
            TwoTypes(0.5, 0.9, 0.0, 1.0),
            8,
            "unbounded",
        ),  # hard tasks that are never solved, and never accepted
        (TwoTypes(0.5, 0.9, 0.1, 0.0), 1, 1),  # one that accepts all
        (TwoTypes(0.5, 1.0, 0.1, 0.5), 2, 1),  # easy tasks are over after one attempt
        (TwoTypes(0.0, 0.9, 0.1, 0.5), 8, 0),
        (TwoTypes(1.0, 0.9, 0.1, 0.5), 1, "unbounded"),
        (TwoTypes(0.5, 0.0, 0.0, 0.5), 0, 0),
    ],
)
def test_the_corners(model: TwoTypes, cost: float, best: Attempts) -> None:
    assert two_type_optimal_k(model, cost) == best


def test_a_perfect_verifier_has_no_threshold() -> None:
    assert TwoTypes(0.5, 0.9, 0.1, 1.0).threshold == float("inf")


def test_the_parameters_are_those_the_paper_takes_from_its_samples() -> None:
    model = two_types_of([Tally(8, 1, 1, 0), Tally(2, 2, 6, 0), Tally(0, 0, 10, 0)])
    assert model is not None
    assert [model.easy_share, model.easy, model.hard] == pytest.approx([1 / 3, 0.8, 0.1])
    base, plus, given_base = 13 / 30, 1 / 3, (8 / 9 + 1 / 2) / 2
    assert model.soundness == pytest.approx((1 - base - plus + given_base * base) / (1 - plus))


@pytest.mark.parametrize(
    "tallies", [[], [Tally(9, 0, 1, 0)], [Tally(1, 0, 9, 0)], [Tally(0, 0, 1, 9), Tally(0, 0, 9, 1)]]
)
def test_without_both_types_or_an_acceptance_there_is_no_model(tallies: list[Tally]) -> None:
    assert two_types_of(tallies) is None
