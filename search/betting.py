"""Tests by betting: claims about a mean over finitely many problems that may be looked at as often as one likes.

Source: Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting" (arXiv 2010.09686),
section 5 for draws without replacement; time-uniform in the sense of Howard et al. 2021 (arXiv 1810.08240). Cost: no
calls.

N problems have fixed values in [0, 1] and are seen in a shuffled order. Suppose that their mean is at most `null`.
After values that add up to S, the next of the N - t + 1 that are left is in expectation at most
m = (N null - S) / (N - t + 1). So a bet that multiplies its stake by 1 - c + c y / m on seeing y does not gain in
expectation, for any share c of the stake in [0, 1]: the capital is a non-negative supermartingale, also when it is the
mean over several c, and by Ville's inequality it ever reaches 1 / alpha with a chance of at most alpha. Where m falls
below zero the supposition is refuted for certain. The capital falls as `null` rises, whatever the values, so what is
claimed at one null is claimed at every lower one, and an interval is found by bisection.

The chance is over the order alone. It must be drawn without regard to the values, and a claim must see them in that
order; when to look, when to stop and whom to compare may depend on anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

BETS = np.array([0.05, 0.1, 0.2, 0.4, 0.7, 0.95])
"""Shares of the stake: small ones find small differences among many problems, large ones large ones among few."""
NOT_YET = -1
_ROUNDING = 1e-9
_GRID = 33
_ROUNDS = 5


class Bounds(NamedTuple):
    """An interval that holds at every look at once."""

    low: float
    high: float


class Claims:
    """Claims that the mean over all problems is above `null`, each with the values that it has seen so far.

    They are rows of arrays, so that all claims of a race are tested together. What a claim says depends on its values
    in order, and not on how they came in pieces.
    """

    def __init__(self, problems: int) -> None:
        """`problems` is N, of which each gives a claim at most one value."""
        self.problems = problems
        self.null = np.empty(0)
        self.threshold = np.empty(0)
        """The logarithm of the capital that proves it."""
        self.seen: Places = np.empty(0, dtype=np.int64)
        self.above: Places = np.empty(0, dtype=np.int64)
        """After how many values it was proved that the mean is above `null`; `NOT_YET`."""
        self.reached: Places = np.empty(0, dtype=np.int64)
        """The same of a mean of at least `null`: the two differ only where nothing is left to chance."""
        self._sum = np.empty(0)
        self._stakes = np.empty((0, len(BETS)))

    def add(self, null: ArrayLike, threshold: ArrayLike) -> Places:
        """New claims, and their rows. Those that cannot fail are proved at once."""
        nulls, needed = np.broadcast_arrays(np.atleast_1d(null).astype(np.float64), threshold)
        count, first = len(nulls), len(self.null)
        self.null = np.append(self.null, nulls)
        self.threshold = np.append(self.threshold, needed)
        self.seen = np.append(self.seen, np.zeros(count, dtype=np.int64))
        self.above = np.append(self.above, np.where(nulls < -_ROUNDING, 0, NOT_YET))
        self.reached = np.append(self.reached, np.where(nulls <= _ROUNDING, 0, NOT_YET))
        self._sum = np.append(self._sum, np.zeros(count))
        self._stakes = np.concatenate([self._stakes, np.zeros((count, len(BETS)))])
        return np.arange(first, first + count)

    def see(self, rows: ArrayLike, values: ArrayLike) -> None:
        """Show each claim of `rows` its next values: shape (rows, values), in [0, 1], the same number for each."""
        at = np.asarray(rows, dtype=np.int64)
        shown = np.asarray(values, dtype=np.float64)
        if not shown.size:
            return
        if shown.min() < -_ROUNDING or shown.max() > 1 + _ROUNDING:
            raise ValueError(f"values lie in [0, 1], and these in [{shown.min():g}, {shown.max():g}]")
        seen = self.seen[at][:, None] + np.arange(shown.shape[1])
        if seen.max() >= self.problems:
            raise ValueError(f"a claim about {self.problems} problems has no room for so many values")
        sums = self._sum[at][:, None] + np.cumsum(shown, axis=1)
        goal = self.problems * self.null[at][:, None]
        mean = np.minimum((goal - (sums - shown)) / (self.problems - seen), 1.0)
        bets = mean > _ROUNDING  # below it the next value decides for certain, or nothing can be won
        gain = np.where(bets, shown / np.where(bets, mean, 1.0), 1.0)
        stakes = self._stakes[at][:, None, :] + np.cumsum(
            np.log((1 - BETS) + BETS * gain[:, :, None]), axis=1
        )
        most = stakes.max(axis=2)
        capital = most + np.log(np.exp(stakes - most[:, :, None]).mean(axis=2))
        likely, slack = capital >= self.threshold[at][:, None], _ROUNDING * self.problems
        for proved, certain in ((self.above, sums > goal + slack), (self.reached, sums >= goal - slack)):
            proof = likely | certain
            found = np.where(proof.any(axis=1), seen[:, 0] + proof.argmax(axis=1) + 1, NOT_YET)
            proved[at] = np.where(proved[at] == NOT_YET, found, proved[at])
        self.seen[at] += shown.shape[1]
        self._sum[at] = sums[:, -1]
        self._stakes[at] = stakes[:, -1]


def bounds(values: Sequence[float] | Floats, problems: int, alpha: float) -> Bounds:
    """An interval for the mean over all `problems`, from the values in [0, 1] of the first ones in shuffled order.

    With a chance of at least 1 - alpha the mean is in the intervals of all looks. The whole [0, 1] where there is no
    value yet, and a point where there are all. Looks that contradict each other, as they may with that chance, give
    what lies between them.
    """
    shown = np.asarray(values, dtype=np.float64)
    if len(shown) >= problems:
        mean = float(shown.mean())
        return Bounds(mean, mean)
    least, most = float(shown.sum()) / problems, 1.0 - float((1.0 - shown).sum()) / problems
    ends = _below(shown, problems, alpha / 2), 1.0 - _below(1.0 - shown, problems, alpha / 2)
    low, high = (min(max(end, least), most) for end in sorted(ends))
    return Bounds(low, high)


def _below(values: Floats, problems: int, alpha: float) -> float:
    """The highest null, to some 1e-7, that the values refute; 0 where they refute none."""
    low, high = 0.0, 1.0
    if not len(values):
        return low
    for _ in range(_ROUNDS):
        nulls = np.linspace(low, high, _GRID)
        claims = Claims(problems)
        rows = claims.add(nulls, -math.log(alpha))
        claims.see(rows, np.broadcast_to(values, (_GRID, len(values))))
        refuted = int((claims.above != NOT_YET).sum())
        low, high = float(nulls[max(refuted - 1, 0)]), float(nulls[min(refuted, _GRID - 1)])
    return low
