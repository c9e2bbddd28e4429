"""Resampling: which particles go on, and how often, given their weights.

Sources: Douc, Cappé and Moulines 2005, "Comparison of Resampling Schemes for Particle Filtering" (sections 2 and 3);
Kong, Liu and Wong 1994 for the effective sample size. Every scheme gives particle i a number of offspring whose mean is
n times its weight; they differ in its variance: systematic's offspring are within one of that mean. That is of each
particle: the noise of a group of them depends on their order, and is large where heavy and light ones alternate. So
sort them by weight before. Cost: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

Scheme = Literal["multinomial", "residual", "stratified", "systematic"]
"""How particles are drawn: independently; n times the weight rounded down, and the rest independently; one from each
of n equal parts of the cumulative weights; the same with one random number for all parts."""


def normalised(log_weights: Sequence[float] | Floats) -> Floats:
    """Weights that sum to 1, of their logarithms. Where no particle has any weight, all have the same.

    Raises ValueError where there are none, or where one is not a number.
    """
    logs = np.asarray(log_weights, dtype=np.float64)
    if not logs.size or np.isnan(logs).any():
        raise ValueError(f"log-weights are numbers, and there is at least one; they are {list(logs)[:8]}")
    most = logs.max()
    if most == -np.inf:
        return np.full(logs.size, 1 / logs.size)
    weights = np.where(logs == np.inf, 1.0, 0.0) if most == np.inf else np.exp(logs - most)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def log_mean(log_weights: Sequence[float] | Floats) -> float:
    """The logarithm of the mean of weights, of their logarithms."""
    logs = np.asarray(log_weights, dtype=np.float64)
    most = logs.max()
    return float(most if np.isinf(most) else most + np.log(np.exp(logs - most).mean()))


def ess(log_weights: Sequence[float] | Floats) -> float:
    """The effective sample size: 1 where one particle has all the weight, their number where all have the same."""
    return float(1 / np.square(normalised(log_weights)).sum())


def resampled(weights: Floats, n: int, scheme: Scheme, rng: np.random.Generator) -> Indices:
    """The indices of n particles drawn by these normalised weights, ascending."""
    if scheme == "multinomial":
        return _at(weights, np.sort(rng.random(n)))
    if scheme == "stratified":
        return _at(weights, (np.arange(n) + rng.random(n)) / n)
    if scheme == "systematic":
        return _at(weights, (np.arange(n) + rng.random()) / n)
    sure = np.floor(n * weights + 1e-12).astype(np.int64)
    rest = n - int(sure.sum())
    certain = np.repeat(np.arange(weights.size), sure)
    if rest <= 0:
        return certain[:n]
    left = np.maximum(n * weights - sure, 0)
    drawn = _at(left / left.sum(), np.sort(rng.random(rest))) if left.sum() > 0 else certain[:rest]
    return np.sort(np.concatenate([certain, drawn]))


def _at(weights: Floats, points: Floats) -> Indices:
    """Who holds each point of the unit interval, when it is divided by weight."""
    edges = np.cumsum(weights)
    found = np.searchsorted(edges / edges[-1], points, side="right")
    return np.asarray(np.minimum(found, np.flatnonzero(weights)[-1]), dtype=np.int64)
