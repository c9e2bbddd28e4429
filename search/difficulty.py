"""Difficulty bins, and what to do in each: a policy learnt from problems whose answers are known.

Source: Snell et al. 2024 (arXiv 2408.03314), section 3.2: bins are quantiles of an estimate of the difficulty, and each
takes the strategy that was best on problems set apart. Cost: no calls.

Here a bin's budget is chosen too. All choices together cost no more than the budget in the mean over all problems, and
are worth as much as any that cost so little (exact: a knapsack with a choice per bin). A bin has few problems, so what
a strategy is worth there is drawn towards what it is worth over all: as if it had been seen on some more problems, of
average luck.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_TIE = 1e-9


class Choice(NamedTuple):
    """A strategy for each bin, and what they are expected to do together."""

    strategies: tuple[int, ...]
    """The place of the strategy, by bin."""
    cost: float
    """The mean cost of a problem."""
    worth: float
    """The mean worth of a problem, after shrinking."""


def quantile_bounds(signals: Sequence[float | None], bins: int) -> tuple[float, ...]:
    """The bounds between so many bins that hold equally many problems each; fewer where the signal has few values.

    A problem whose signal is a bound belongs to the upper bin. Raises ValueError where no signal is known.
    """
    known = sorted(signal for signal in signals if signal is not None)
    if not known:
        raise ValueError("no problem has a signal to make bins of")
    at = [
        known[round(len(known) * i / bins)]
        for i in range(1, bins)
        if round(len(known) * i / bins) < len(known)
    ]
    return tuple(sorted({bound for bound in at if bound > known[0]}))


def bins_of(signals: Sequence[float | None], bounds: Sequence[float]) -> NDArray[np.int64]:
    """The bin of each problem; the first (the hardest) where its signal is not known."""
    return np.array([0 if s is None else bisect_right(bounds, s) for s in signals], dtype=np.int64)


def shrunk(worth: ArrayLike, bins: ArrayLike, count: int, strength: float) -> Floats:
    """What each strategy is worth in each bin, shape (strategies, bins), drawn towards what it is worth over all.

    `worth` has shape (strategies, problems). A bin's mean counts as many problems as it has, the mean over all
    `strength` problems.
    """
    values, at = np.asarray(worth, dtype=np.float64), np.asarray(bins)
    sizes = np.bincount(at, minlength=count)
    sums = np.stack([np.bincount(at, row, minlength=count) for row in values])
    whole = values.mean(axis=1, keepdims=True)
    return np.asarray((sums + strength * whole) / np.maximum(sizes + strength, 1e-300))


def choose(worth: ArrayLike, cost: ArrayLike, shares: ArrayLike, budget: float) -> Choice | None:
    """The strategy for each bin that together are worth the most and cost no more than `budget` in the mean.

    `worth` and `cost` have shape (strategies, bins); `shares` is the share of the problems in each bin. Of choices
    worth the same the cheaper one, then the one with earlier strategies. None where even the cheapest cost more.
    """
    value, price, share = (np.asarray(a, dtype=np.float64) for a in (worth, cost, shares))
    best = [Choice((), 0.0, 0.0)]
    for place in range(value.shape[1]):
        grown = [
            Choice(
                (*one.strategies, s),
                one.cost + float(share[place] * price[s, place]),
                one.worth + float(share[place] * value[s, place]),
            )
            for one in best
            for s in range(value.shape[0])
        ]
        grown.sort(key=lambda c: (c.cost, -c.worth, c.strategies))
        best = []
        for one in grown:  # only what no cheaper choice reaches
            if one.cost <= budget * (1 + _TIE) and (not best or one.worth > best[-1].worth + _TIE):
                best.append(one)
    return best[-1] if best else None
