"""A Gaussian process over configurations, in numpy: what an untried configuration is worth, and how surely.

Sources: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 5; Jones et al. 1998
for expected improvement. Cost: no calls; a fit to 100 results takes some 30 ms, and no longer to more.

The kernel is a product over the axes. Along one with an order it falls with the squared distance of the two values, in
steps of its list or on its own scale; along one without, it is one figure for any two that differ. Where an axis
matters to one of the two alone, they are a step apart. Each axis has a length, found by coordinates: that with the
highest posterior, from a few that are a factor of 2 apart, and where the data says little a middling one.

A result that rests on the first k of N problems is off by what these problems are easier than all, which it shares with
every other that rests on them, and by a part of its own. Drawn without replacement, both fall as 1/k - 1/N; what two
results on k and on K problems share is that of the larger one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archon.search.axes import Axis, Configuration, exact
from archon.search.proposers.grid import ordered

Floats: TypeAlias = NDArray[np.float64]

LENGTHS = tuple(0.25 * 2.0**step for step in range(6))
"""Of an axis, in the span of its values: what may be found."""
NUGGETS = (1e-3, 1e-2, 0.03, 0.1, 0.3)
"""The share of the variance that no axis explains."""
LUCK = (0.1, 0.3, 1.0, 3.0)
"""The variance of one problem of a configuration's own luck, in units of the variance between configurations, over the
number of problems."""
SHARED = 2.0
"""How many times as much of the luck is shared by all that had the same problems."""
FITTED = 100
"""Lengths are found from so many results at most, of all ranks."""
SWEEPS = 2
_JITTER = 1e-8
_SPREAD = 1.0
"""Of the prior of a length, in logarithms."""
_ABSENT = -1.0
_MIDDLE = 0.5
"""Where an axis does not matter it is as far from all its values as its middle is, and 1 away from them all: so all are
points, and distances fit together."""


class Coder:
    """Configurations as rows of numbers, one per axis."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axes = tuple(axes)
        self.ordered = np.array([ordered(axis) for axis in axes], dtype=np.bool_)

    def rows(self, configurations: Sequence[Configuration]) -> Floats:
        """The place in [0, 1] along an axis with an order; else the number of the option; -1: it does not matter."""
        found = np.full((len(configurations), len(self._axes)), _ABSENT)
        for column, axis in enumerate(self._axes):
            places = {exact(value): place for place, value in enumerate(axis.options)}
            span = max(1, len(places) - 1) if self.ordered[column] else 1
            for row, one in enumerate(configurations):
                if axis.name not in one:
                    continue
                value = one[axis.name]
                found[row, column] = (
                    places[exact(value)] / span if axis.kind == "choice" else _scaled(axis, float(value or 0))
                )
        return found

    def distances(self, one: Floats, other: Floats) -> Floats:
        """By axis, of each row of one to each of the other: axes x rows x rows."""
        first, second = one.T[:, :, None], other.T[:, None, :]
        found: Floats = (first != second).astype(np.float64)
        if self.ordered.any():
            a, b = first[self.ordered], second[self.ordered]
            here, there = a != _ABSENT, b != _ABSENT
            a, b = np.where(here, a, _MIDDLE), np.where(there, b, _MIDDLE)
            found[self.ordered] = (a - b) ** 2 + (here != there)
        return found


def _scaled(axis: Axis, value: float) -> float:
    if axis.high == axis.low:
        return 0.0
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)


class Believed(NamedTuple):
    """What is believed of some configurations, by row."""

    mean: Floats
    spread: Floats
    """The standard deviation."""


class Scales(NamedTuple):
    """How fast the surface falls along each axis, and what is luck."""

    lengths: tuple[float, ...]
    nugget: float
    luck: float


class Results(NamedTuple):
    """What came of configurations, all to be maximised."""

    rows: Floats
    values: Floats
    problems: NDArray[np.int64]
    """How many each rests on; those with the most rest on all."""

    def and_all(self, rows: Floats, values: Floats) -> Results:
        """With these, which rest on all problems."""
        most = np.full(len(rows), self.problems.max(initial=1))
        return Results(
            np.concatenate([self.rows, rows]),
            np.concatenate([self.values, values]),
            np.concatenate([self.problems, most]),
        )


class Surrogate:
    """What is believed, given results."""

    def __init__(self, coder: Coder, results: Results, scales: Scales) -> None:
        self._coder = coder
        self._rows = results.rows
        self._scales = scales
        self._solved = _Solved(_Data(coder, results), scales)
        self._weights = np.linalg.solve(self._solved.factor.T, self._solved.rest)

    def believed(self, rows: Floats) -> Believed:
        """Of any configurations that were not tried, on all problems: with what is each one's own."""
        solved, nugget = self._solved, self._scales.nugget
        across = _kernel(self._coder, self._coder.distances(self._rows, rows), self._scales)
        mean = solved.mean + across.T @ self._weights
        half = np.linalg.solve(solved.factor, across)
        spread = np.sqrt(solved.variance * np.maximum(1.0 + nugget - (half**2).sum(axis=0), 1e-9))
        return Believed(solved.data.middle + solved.data.unit * mean, solved.data.unit * spread)


class _Data:
    """Results, such that their mean is 0 and their spread 1."""

    def __init__(self, coder: Coder, results: Results) -> None:
        self.coder = coder
        self.middle = float(results.values.mean())
        self.unit = float(results.values.std()) or 1.0
        self.values = (results.values - self.middle) / self.unit
        seen = np.maximum(1, results.problems).astype(np.float64)
        most = seen.max()
        self.alone = most / seen - 1.0
        self.together = most / np.maximum(seen[:, None], seen[None, :]) - 1.0
        self.distances = coder.distances(results.rows, results.rows)


class _Solved:
    """The covariance of results, solved."""

    def __init__(self, data: _Data, scales: Scales) -> None:
        self.data = data
        kernel = _kernel(data.coder, data.distances, scales)
        kernel += SHARED * scales.luck * data.together
        kernel[np.diag_indices_from(kernel)] += scales.nugget + scales.luck * data.alone + _JITTER
        self.factor = np.linalg.cholesky(kernel)
        ones, values = np.linalg.solve(
            self.factor, np.stack([np.ones_like(data.values), data.values], axis=1)
        ).T
        # One result's worth of belief that mean and unit are those of the results.
        self.mean = float(ones @ values) / (float(ones @ ones) + 1.0)
        self.rest = values - self.mean * ones
        self.variance = (float(self.rest @ self.rest) + 1.0) / (len(values) + 1)

    @property
    def likelihood(self) -> float:
        """In logarithms, but for a constant."""
        half = -0.5 * (len(self.rest) + 1) * math.log(self.variance)
        return half - float(np.log(np.diag(self.factor)).sum())


def _kernel(coder: Coder, distances: Floats, scales: Scales) -> Floats:
    lengths = np.array(scales.lengths)
    rates = np.where(coder.ordered, 0.5 / lengths**2, 1.0 / lengths)
    found: Floats = np.exp(-np.tensordot(rates, distances, 1))
    return found


def fitted(coder: Coder, results: Results) -> Scales:
    """The scales of the highest posterior, axis by axis, SWEEPS times; the usual ones for fewer than 3 results."""
    axes, count = len(coder.ordered), len(results.values)
    usual = max(1.0, math.sqrt(axes) / 2)
    scales = Scales((_nearest(LENGTHS, usual),) * axes, NUGGETS[2], LUCK[1])
    if count < 3:
        return scales
    ranks = np.argsort(np.argsort(-results.values, kind="stable"), kind="stable")
    kept = np.flatnonzero(ranks % math.ceil(count / FITTED) == 0)
    data = _Data(coder, Results(results.rows[kept], results.values[kept], results.problems[kept]))

    def posterior(one: Scales) -> float:
        prior = sum((math.log(length / usual) / _SPREAD) ** 2 for length in one.lengths)
        prior += (math.log(one.nugget / NUGGETS[2]) / (2 * _SPREAD)) ** 2
        return _Solved(data, one).likelihood - prior / 2

    def better(known: tuple[Scales, float], others: Iterable[Scales]) -> tuple[Scales, float]:
        tried = [(one, posterior(one)) for one in others if one != known[0]]
        return max([known, *tried], key=lambda pair: pair[1])

    best = (scales, posterior(scales))
    for _ in range(SWEEPS):
        before = best
        for axis in range(axes):
            if data.distances[axis].any():
                best = better(best, [_with(best[0], axis, length) for length in LENGTHS])
        best = better(best, [best[0]._replace(nugget=one) for one in NUGGETS])
        if data.alone.any():
            best = better(best, [best[0]._replace(luck=one) for one in LUCK])
        if best == before:
            break
    return best[0]


def _with(scales: Scales, axis: int, length: float) -> Scales:
    lengths = (*scales.lengths[:axis], length, *scales.lengths[axis + 1 :])
    return scales._replace(lengths=lengths)


def _nearest(options: Sequence[float], value: float) -> float:
    return min(options, key=lambda one: abs(math.log(one / value)))


def expected_improvement(believed: Believed, over: float) -> Floats:
    """How far above this each is expected to be, where what is below it counts as nothing."""
    z = (believed.mean - over) / believed.spread
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-one / math.sqrt(2)) for one in z.tolist()])
    found: Floats = np.maximum(believed.spread * (z * below + density), 0.0)
    return found
