"""Resampling schemes do what their names promise; weights and what is computed of them are numbers, whatever comes."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.strategies.stepping.resampling import Scheme, ess, log_mean, normalised, resampled
from archon.strategies.stepping.search import generator
from archon.strategies.stepping.weights import Weighing, log_weight

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
LOGS = st.lists(st.floats(-60, 60), min_size=1, max_size=30)


def offspring(logs: list[float], n: int, scheme: Scheme, seed: int) -> np.ndarray:
    drawn = resampled(normalised(logs), n, scheme, generator(seed))
    assert len(drawn) == n and list(drawn) == sorted(drawn)
    return np.bincount(drawn, minlength=len(logs))


@given(logs=LOGS, n=st.integers(0, 60), seed=st.integers(0, 2**63 - 1))
def test_systematic_offspring_are_within_one_of_their_mean(logs: list[float], n: int, seed: int) -> None:
    assert np.all(np.abs(offspring(logs, n, "systematic", seed) - n * normalised(logs)) < 1 + 1e-9)


@given(logs=LOGS, n=st.integers(0, 60), seed=st.integers(0, 2**63 - 1))
def test_stratified_offspring_are_within_two_of_their_mean(logs: list[float], n: int, seed: int) -> None:
    assert np.all(np.abs(offspring(logs, n, "stratified", seed) - n * normalised(logs)) < 2 + 1e-9)


@given(logs=LOGS, n=st.integers(0, 60), seed=st.integers(0, 2**63 - 1))
def test_residual_gives_everyone_their_mean_rounded_down(logs: list[float], n: int, seed: int) -> None:
    assert np.all(offspring(logs, n, "residual", seed) >= np.floor(n * normalised(logs) - 1e-9))


@given(logs=LOGS, n=st.integers(1, 60), seed=st.integers(0, 2**63 - 1), scheme=st.sampled_from(SCHEMES))
def test_who_has_no_weight_has_no_offspring(logs: list[float], n: int, seed: int, scheme: Scheme) -> None:
    counts = offspring([*logs, -math.inf, -math.inf], n, scheme, seed)
    assert counts[-2:].sum() == 0 and counts.sum() == n
    assert offspring([-math.inf, *logs], n, scheme, seed)[0] == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [1, 5, 16])
def test_mean_offspring_are_n_times_the_weight(scheme: Scheme, n: int) -> None:
    weights = np.array([0.42, 0.0, 0.31, 0.2, 0.07])
    draws = 2000
    counts = np.array(
        [np.bincount(resampled(weights, n, scheme, generator(s, n)), minlength=5) for s in range(draws)]
    )
    errors = counts.std(axis=0, ddof=1) / math.sqrt(draws)
    assert np.all(np.abs(counts.mean(axis=0) - n * weights) <= 4.5 * errors + 1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_its_own_noise(scheme: Scheme) -> None:
    """The variance of each offspring, by what the scheme is: sums of independent draws, of the rests of n w alone, of
    one draw per stratum; of one that rounds n w up or down."""
    n, weights = 16, np.array([0.42, 0.31, 0.2, 0.07])
    rests = n * weights - np.floor(n * weights)
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    strata = np.arange(n) / n
    inside = np.minimum(edges[1:, None], strata + 1 / n) - np.maximum(edges[:-1, None], strata)
    parts = n * np.maximum(inside, 0)
    exact = {
        "multinomial": n * weights * (1 - weights),
        "residual": rests * (1 - rests / rests.sum()),
        "stratified": (parts * (1 - parts)).sum(axis=1),
        "systematic": rests * (1 - rests),
    }[scheme]
    draws = [np.bincount(resampled(weights, n, scheme, generator(s)), minlength=4) for s in range(2000)]
    squares = (np.array(draws) - n * weights) ** 2
    errors = squares.std(axis=0, ddof=1) / math.sqrt(len(draws))
    assert np.all(np.abs(squares.mean(axis=0) - exact) <= 4.5 * errors + 1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equal_weights_lose_nobody_but_by_multinomial_chance(scheme: Scheme) -> None:
    counts = offspring([0.0] * 12, 12, scheme, 3)
    assert (list(counts) == [1] * 12) is (scheme != "multinomial")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_seed_draws_the_same(scheme: Scheme) -> None:
    weights = normalised([0.1 * i for i in range(20)])
    first = [list(resampled(weights, 20, scheme, generator(s))) for s in range(6)]
    assert first == [list(resampled(weights, 20, scheme, generator(s))) for s in range(6)]
    assert len({tuple(one) for one in first}) > 1


@given(logs=LOGS, shift=st.floats(-600, 600))
def test_weights_are_shares_and_do_not_mind_their_level(logs: list[float], shift: float) -> None:
    weights = normalised(logs)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert normalised([log + shift for log in logs]) == pytest.approx(weights, abs=1e-9)
    assert 1 - 1e-9 <= ess(logs) <= len(logs) + 1e-9
    assert log_mean([log + shift for log in logs]) == pytest.approx(log_mean(logs) + shift, abs=1e-6)


def test_weights_at_the_ends() -> None:
    assert list(normalised([-math.inf, -math.inf])) == [0.5, 0.5]
    assert list(normalised([0.0, math.inf])) == [0.0, 1.0]
    assert list(normalised([-1e300, 1e300])) == [0.0, 1.0]
    assert log_mean([-math.inf, 0.0]) == pytest.approx(-math.log(2))
    assert log_mean([-math.inf]) == -math.inf
    assert ess([0.0, -math.inf]) == 1 and ess([3.0] * 7) == pytest.approx(7)
    for wrong in ([], [math.nan], [0.0, math.nan]):
        with pytest.raises(ValueError, match="log-weights"):
            normalised(wrong)


@settings(max_examples=200)
@given(
    value=st.none() | st.floats(),
    calibrated=st.booleans(),
    by=st.sampled_from(get_args(Weighing)),
    temperature=st.floats(1e-300, 1e300),
)
def test_a_log_weight_is_a_finite_number(
    value: float | None, calibrated: bool, by: Weighing, temperature: float
) -> None:
    log = log_weight(value, calibrated=calibrated, by=by, temperature=temperature)
    assert math.isfinite(log) and math.isfinite(log - -log)


def test_weights_are_odds_or_the_probability_itself() -> None:
    assert log_weight(0.8, calibrated=True) == pytest.approx(math.log(4))
    assert log_weight(0.8, calibrated=True, temperature=2) == pytest.approx(math.log(2))
    assert log_weight(0.8, calibrated=True, by="probability") == pytest.approx(math.log(0.8))
    assert log_weight(0.8, calibrated=True, by="probability", temperature=0.5) == pytest.approx(
        math.log(0.64)
    )
    assert log_weight(-3.0, calibrated=False, by="probability", temperature=2) == -1.5
    assert log_weight(None, calibrated=True) == 0
