"""Holding a method against plain ones at equal tokens: what they would have got right with as many, paired by problem.

The plain ones (more and more samples, say) are points of mean tokens and accuracy. Between two points lies what one
gets by using each for a share of the problems, chosen at random: so the plain line can be read at exactly the method's
tokens, for every problem by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archon.benchmarks.statistics.intervals import LEVEL, wilson
from archon.benchmarks.statistics.paired import Comparison, compare

Floats = NDArray[np.float64]

_RESAMPLES = 2000


class Point(NamedTuple):
    """One way to solve the problems, over the same problems in the same order."""

    name: str
    tokens: Floats
    """By problem."""
    right: Floats
    """By problem: whether it was right, or how often."""


class Against(NamedTuple):
    """A method beside the plain line."""

    method: Point
    plain: Floats
    """By problem, how often the plain ones are right with the method's mean tokens."""
    names: str
    """Which plain ones these are."""
    difference: Comparison
    """The method's less the plain ones', paired by problem."""
    fewer: float
    """How many times the method's tokens the plain ones need for its accuracy."""
    low: float
    high: float
    reached: bool
    """Whether the plain ones reach its accuracy at all; `fewer` is at least this where they do not."""
    outside: bool
    """Whether the method's tokens lie outside of the plain line, which is then read at its nearer end."""

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        mine, theirs = wilson(self.method.right), wilson(self.plain)
        return {
            "method": self.method.name,
            "tokens": float(self.method.tokens.mean()),
            "accuracy": {"value": mine.value, "low": mine.low, "high": mine.high},
            "plain": self.names,
            "plain_accuracy": {"value": theirs.value, "low": theirs.low, "high": theirs.high},
            **self.difference.as_json(),
            "times_fewer_tokens": {"value": self.fewer, "low": self.low, "high": self.high},
            "reached": self.reached,
            "outside": self.outside,
        }


def against(method: Point, plain: Sequence[Point], *, seed: int = 0) -> Against:
    """Hold a method against the plain line. Raises ValueError where the plain ones are none.

    The interval of `fewer` is a percentile one, by resampling problems; a resample in which the plain ones do not reach
    the method's accuracy counts their most tokens.
    """
    if not plain:
        raise ValueError("there is no plain run to hold it against")
    line = sorted(plain, key=lambda point: (float(point.tokens.mean()), point.name))
    means = np.array([point.tokens.mean() for point in line])
    tokens = float(method.tokens.mean())
    right, names = _mixed(line, means, tokens)
    accuracy = np.stack([point.right for point in line])
    costs = np.stack([point.tokens for point in line])
    rng = np.random.default_rng(seed)
    count = len(method.right)
    whole = np.full((1, count), 1 / count)
    weights = np.concatenate([whole, rng.multinomial(count, whole[0], size=_RESAMPLES) / count])
    ratios, reaches = _fewer(
        weights @ costs.T, weights @ accuracy.T, weights @ method.tokens, weights @ method.right
    )
    fewer, reached = float(ratios[0]), bool(reaches[0])
    low, high = np.quantile(ratios[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    outside = not means[0] * (1 - 1e-9) <= tokens <= means[-1] * (1 + 1e-9)
    difference = compare(right, method.right)
    return Against(method, right, names, difference, fewer, float(low), float(high), reached, outside)


def upper_line(points: Sequence[Point]) -> list[Point]:
    """Those that are best at some budget: the corners of the concave line above all, from the cheapest to the most
    accurate."""
    ranked = sorted(points, key=lambda p: (float(p.tokens.mean()), -float(p.right.mean()), p.name))
    line: list[Point] = []
    for point in ranked:
        if line and point.right.mean() <= line[-1].right.mean():
            continue
        while len(line) >= 2 and _slope(line[-2], point) >= _slope(line[-2], line[-1]):
            line.pop()
        line.append(point)
    return line


def _slope(one: Point, other: Point) -> float:
    run = max(float(other.tokens.mean() - one.tokens.mean()), 1e-9)
    return float(other.right.mean() - one.right.mean()) / run


def _mixed(line: Sequence[Point], means: Floats, tokens: float) -> tuple[Floats, str]:
    """By problem, how often the two around these tokens are right, each used for its share."""
    at = int(np.searchsorted(means, tokens))
    if at == 0 or at == len(line):
        end = line[0 if at == 0 else -1]
        return end.right, end.name
    lower, upper = line[at - 1], line[at]
    share = float((tokens - means[at - 1]) / (means[at] - means[at - 1]))
    mixed = np.asarray((1 - share) * lower.right + share * upper.right)
    return mixed, f"{lower.name} ({1 - share:.0%}), {upper.name} ({share:.0%})"


def _fewer(
    costs: Floats, accuracy: Floats, tokens: Floats, wanted: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """By row, the plain ones' tokens for the wanted accuracy over the method's, and whether they get there."""
    order = np.argsort(costs, axis=1, kind="stable")
    spent, got = np.take_along_axis(costs, order, 1), np.take_along_axis(accuracy, order, 1)
    enough = got >= wanted[:, None] - 1e-12
    reached = enough.any(axis=1)
    rows = np.arange(len(spent))
    at = np.where(reached, enough.argmax(axis=1), spent.shape[1] - 1)
    before = np.maximum(at - 1, 0)
    rise = got[rows, at] - got[rows, before]
    share = np.where(reached & (rise > 0), (wanted - got[rows, before]) / np.where(rise > 0, rise, 1.0), 1.0)
    need = spent[rows, before] + share * (spent[rows, at] - spent[rows, before])
    return np.asarray(need / tokens), np.asarray(reached)
