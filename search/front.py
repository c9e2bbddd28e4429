"""The front of value against cost: what nothing else beats in both, and how sure that is.

A configuration is on the front where none is at least as good and at most as dear, and better or cheaper. Whether it
truly is, is not known from a few problems: problems are drawn again with replacement, the same ones for all
configurations (paired bootstrap; Efron 1979), and the share of draws in which it is on the front is shown. The area
under a front (hypervolume; Zitzler and Thiele 1999) says in one number how far a search has come. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Point(NamedTuple):
    """A configuration in the plane of value and cost, with intervals of both."""

    key: str
    value: float
    low: float
    high: float
    cost: float
    cost_low: float
    cost_high: float
    problems: int
    """How many problems it was evaluated on."""
    share: float
    """In how many of the draws it is on the front, from 0 to 1."""
    on: Literal["surely", "maybe", "no"]
    """`surely`: in nearly all draws, and evaluated on as many problems as any. `no`: in hardly any, and not on the
    front of the means either."""

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return self._asdict()


def on_front(values: ArrayLike, costs: ArrayLike) -> Bools:
    """Which points are on the front; several that are equal in both are all on it, or all not.

    `values` (to be maximised) and `costs` (to be minimised) have the shape (points,), or (draws, points) for a front
    of each draw. A point with NaN is on none.
    """
    value, cost = (np.asarray(one, dtype=np.float64) for one in (values, costs))
    known = ~(np.isnan(value) | np.isnan(cost))
    value, cost = np.where(known, value, -np.inf), np.where(known, cost, np.inf)
    order = np.lexsort((-value, cost), axis=-1)
    value, cost = np.take_along_axis(value, order, -1), np.take_along_axis(cost, order, -1)
    before = np.full_like(value, -np.inf)
    before[..., 1:] = np.maximum.accumulate(value, axis=-1)[..., :-1]
    new = np.ones(value.shape, dtype=np.bool_)
    new[..., 1:] = (value[..., 1:] != value[..., :-1]) | (cost[..., 1:] != cost[..., :-1])
    alike = np.maximum.accumulate(np.where(new, np.arange(value.shape[-1]), 0), axis=-1)
    found = np.zeros(value.shape, dtype=np.bool_)
    np.put_along_axis(found, order, np.take_along_axis(value > before, alike, -1), -1)
    return np.asarray(found & known)


def front(
    keys: Sequence[str],
    values: ArrayLike,
    costs: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Point]:
    """Every configuration with its place, the cheapest first; the front of the means is what is on it in `on_front`.

    `values` and `costs` have the shape (configurations, problems), NaN where a configuration was not evaluated on a
    problem. Intervals and shares are at `level`. What one has on few problems says little: see `problems`. Raises
    ValueError where shapes differ, or a configuration has no problem.
    """
    value, cost = (np.asarray(one, dtype=np.float64) for one in (values, costs))
    if value.ndim != 2 or value.shape != cost.shape or len(value) != len(keys):
        raise ValueError(
            f"values and costs should be {len(keys)} rows of problems, and are {value.shape} and {cost.shape}"
        )
    known = ~(np.isnan(value) | np.isnan(cost))
    problems = known.sum(axis=1)
    if not problems.all():
        raise ValueError(f"{keys[int(problems.argmin())]!r} was evaluated on no problem")
    weights = drawn(value.shape[1], resamples, seed)
    means = [weighted(np.where(known, one, 0.0), known, weights) for one in (value, cost)]
    share = on_front(*means).mean(axis=0)
    mean, price = (np.where(known, one, 0.0).sum(axis=1) / problems for one in (value, cost))
    there = on_front(mean, price)
    tail = (1 - level) / 2
    ends = [np.nanquantile(one, (tail, 1 - tail), axis=0) for one in means]
    points = []
    for at, key in enumerate(keys):
        on: Literal["surely", "maybe", "no"] = "maybe" if there[at] or share[at] > 1 - level else "no"
        if share[at] >= level and problems[at] == problems.max():
            on = "surely"
        low, high, cost_low, cost_high = (float(end[at]) for pair in ends for end in pair)
        place = (float(mean[at]), low, high, float(price[at]), cost_low, cost_high)
        points.append(Point(key, *place, int(problems[at]), float(share[at]), on))
    order = np.lexsort((np.arange(len(keys)), -mean, price))
    return [points[at] for at in order]


def hypervolume(points: Iterable[tuple[float, float]], *, value: float, cost: float) -> float:
    """The area that points (value, cost) dominate, down to a `value` and up to a `cost` that are as bad as can be.

    What is worse than these adds nothing.
    """
    area, height, reached = 0.0, 0.0, 0.0
    for worth, price in sorted(points, key=lambda point: (point[1], -point[0])):
        if price >= cost:
            break
        if worth - value > height:
            area += height * (price - reached)
            height, reached = worth - value, price
    return area + height * (cost - reached)


def hypervolumes(points: Iterable[tuple[float, float]], *, value: float, cost: float) -> list[float]:
    """The area after each point, in order: a search's anytime curve where it has two objectives."""
    best: list[tuple[float, float]] = []
    areas = []
    for point in points:
        if not any(worth >= point[0] and price <= point[1] for worth, price in best):
            best = [one for one in best if not (point[0] >= one[0] and point[1] <= one[1])] + [point]
        areas.append(hypervolume(best, value=value, cost=cost))
    return areas


def drawn(problems: int, resamples: int, seed: int) -> Floats:
    """How often each problem is drawn in each of so many draws with replacement: shape (resamples, problems)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples).astype(np.float64)


def weighted(values: Floats, known: Bools, weights: Floats) -> Floats:
    """The mean of each configuration in each draw, shape (draws, configurations), over the problems that are `known`
    of it; NaN where a draw has none of them."""
    counts = weights @ known.T
    return np.asarray(np.where(counts > 0, (weights @ values.T) / np.where(counts > 0, counts, 1.0), np.nan))
