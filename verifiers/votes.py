"""How likely each answer is right, given the votes of several verifiers: three models, numpy only.

`fit_latent` needs no labels: the latent-class model of Dawid and Skene 1979 ("Maximum Likelihood Estimation of
Observer Error-Rates Using the EM Algorithm"), in which votes are independent given the truth. `average` fits
nothing. `fit_logistic` needs labels. Votes are arrays, a row per answer and a column per verifier: from 0 to 1, and
NaN where a verifier did not vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_MORE_OFTEN, _LESS_OFTEN = 3.0, 1.5
"""The Beta prior of a rate: verifiers accept what is right more often than not, and what is wrong less often. It
is worth four and a half answers, so it decides where there are few and is outvoted where there are many."""
_EVEN = 1.5
"""The Beta prior of the share of right answers."""
_ROUNDS = 1000
_STILL = 1e-9


class Fit(NamedTuple):
    """What is known of a group of verifiers."""

    prior: float
    """The share of right answers."""
    accepts_right: Array
    """How often each verifier accepts what is right."""
    accepts_wrong: Array
    """How often each verifier accepts what is wrong."""


def fit_latent(
    votes: ArrayLike,
    *,
    prior: float | None = None,
    accepts_right: Sequence[float | None] | None = None,
    accepts_wrong: Sequence[float | None] | None = None,
) -> Fit:
    """Estimate every rate from the votes alone, by expectation-maximisation; what is given is kept."""
    table = np.asarray(votes, dtype=np.float64)
    members = table.shape[1]
    known = [_known(rates, members) for rates in (accepts_right, accepts_wrong)]
    right = average(table)  # the majority is where it begins
    fit = _maximised(table, right, prior, known)
    for _ in range(_ROUNDS):
        before, right = right, posterior(table, fit)
        fit = _maximised(table, right, prior, known)
        if not len(right) or np.abs(right - before).max() < _STILL:
            break
    return fit


def posterior(votes: ArrayLike, fit: Fit) -> Array:
    """The probability that each answer is right, given its votes. The prior where nobody voted."""
    table = np.asarray(votes, dtype=np.float64)
    voted = ~np.isnan(table)
    yes = np.where(voted, table, 0.0)
    no = np.where(voted, 1.0 - table, 0.0)
    weight_yes = np.log(fit.accepts_right) - np.log(fit.accepts_wrong)
    weight_no = np.log1p(-fit.accepts_right) - np.log1p(-fit.accepts_wrong)
    return _sigmoid(np.log(fit.prior) - np.log1p(-fit.prior) + yes @ weight_yes + no @ weight_no)


def average(votes: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """The mean vote of those who voted; one half where nobody did."""
    table = np.asarray(votes, dtype=np.float64)
    each = np.ones(table.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    voted = ~np.isnan(table)
    weight = voted @ each
    total = np.where(voted, table, 0.0) @ each
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), 0.5)


class Logistic(NamedTuple):
    """Weights of votes, and what is added to their sum."""

    weights: Array
    bias: float


def fit_logistic(votes: ArrayLike, labels: ArrayLike, *, ridge: float = 1.0) -> Logistic:
    """Fit weights to labelled answers: logistic regression with a ridge, by Newton's method.

    A vote counts from -1/2 (rejected) to 1/2 (accepted), and 0 where there is none.
    """
    x = np.column_stack([centred(votes), np.ones(len(np.asarray(votes)))])
    y = np.asarray(labels, dtype=np.float64)
    penalty = np.diag([*[ridge] * (x.shape[1] - 1), 1e-6])  # the bias is free, but finite
    theta = np.zeros(x.shape[1])
    for _ in range(100):
        p = _sigmoid(x @ theta)
        gradient = x.T @ (p - y) + penalty @ theta
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + penalty, gradient)
        theta = theta - step / max(1.0, float(np.abs(step).max()))  # never more than one at a time
        if np.abs(step).max() < _STILL:
            break
    return Logistic(theta[:-1], float(theta[-1]))


def logistic(votes: ArrayLike, fit: Logistic) -> Array:
    """The probability that each answer is right by these weights."""
    return _sigmoid(centred(votes) @ fit.weights + fit.bias)


def centred(votes: ArrayLike) -> Array:
    """Votes around 0, which is what a missing one counts."""
    return np.nan_to_num(np.asarray(votes, dtype=np.float64) - 0.5, nan=0.0)


def _maximised(table: Array, right: Array, prior: float | None, known: Sequence[Array]) -> Fit:
    """The likeliest rates, if `right` says how likely each answer is right."""
    voted = ~np.isnan(table)
    yes = np.where(voted, table, 0.0)
    rates = []
    for chance, plus, minus, given in (
        (right, _MORE_OFTEN, _LESS_OFTEN, known[0]),
        (1 - right, _LESS_OFTEN, _MORE_OFTEN, known[1]),
    ):
        estimated = (chance @ yes + plus - 1) / (chance @ voted + plus + minus - 2)
        rates.append(np.where(np.isnan(given), estimated, given))
    share = (right.sum() + _EVEN - 1) / (len(right) + 2 * _EVEN - 2) if prior is None else prior
    return Fit(float(share), rates[0], rates[1])


def _known(rates: Sequence[float | None] | None, members: int) -> Array:
    return np.array([np.nan if r is None else r for r in rates or [None] * members], dtype=np.float64)


def _sigmoid(logits: Array) -> Array:
    bounded: Array = np.clip(logits, -700.0, 700.0)
    return np.asarray(1.0 / (1.0 + np.exp(-bounded)), dtype=np.float64)
