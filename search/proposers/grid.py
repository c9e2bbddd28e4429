"""Grid search: every configuration, the coarse grid first.

The values of a number are taken coarse to fine: first its two ends, then the middle, then the middles between, and so
on; so are options that are numbers in ascending order (`choose: [1, 2, 4, 8]`). Other options are all of the coarsest
grid. Grid by grid, each configuration has some value that only this grid has; within a grid the last axis is the
fastest. An axis without steps, or with more than 10,000 values, is tried at `points` values, evenly spaced on its
scale. Cost: no calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field

from archon.search.axes import Axis, Choice, Configuration, Space
from archon.search.proposers.base import Proposer, Proposes, Tracking


class Grid(Proposes):
    """Every configuration, the coarse grid first."""

    points: Annotated[int, Field(ge=2, le=1000)] = 5
    """How many values of a continuous axis are tried."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Any space, any number of objectives; the seed has no say."""
        return GridSearch(space, seed, objectives, self.points)

    @property
    def alike(self) -> bool:
        """Nothing is learnt, so any order does."""
        return True


class GridSearch(Tracking):
    """A grid search that runs."""

    def __init__(self, space: Space, seed: int, objectives: int, points: int) -> None:
        super().__init__(space, seed, objectives)
        self._values = {axis.name: coarse_first(axis, points) for axis in self.axes}
        self._levels = 1 + max((level for found in self._values.values() for level, _ in found), default=0)
        self._grid = self._all()

    def propose(self) -> Configuration | None:
        """The next of the grid. None at its end, or after SCAN refused ones in a row."""
        return self.first(self._grid)

    def _all(self) -> Iterator[Configuration]:
        for level in range(self._levels):
            yield from map(Configuration, self._at(level, 0, {}, level == 0))

    def _at(
        self, level: int, place: int, values: Mapping[str, Choice], own: bool
    ) -> Iterator[Mapping[str, Choice]]:
        """The grid of a level beyond a place; `own`: some value before it is of this level."""
        if place == len(self.axes):
            if own:
                yield values
            return
        axis = self.axes[place]
        if not self.axes.matters(axis, values):
            yield from self._at(level, place + 1, values, own)
            return
        for depth, value in self._values[axis.name]:
            if depth <= level:
                yield from self._at(level, place + 1, {**values, axis.name: value}, own or depth == level)


def ordered(axis: Axis) -> bool:
    """Whether its values have an order: numbers, or options that are numbers in ascending order."""
    if axis.kind != "choice":
        return True
    numbers = [o for o in axis.options if isinstance(o, (int, float)) and not isinstance(o, bool)]
    return len(numbers) == len(axis.options) and all(a < b for a, b in pairwise(numbers))


def grid_values(axis: Axis, points: int) -> tuple[Choice, ...]:
    """All its values in order; so many evenly spaced ones, both ends among them, where those are not to be listed."""
    if axis.values is not None:
        return axis.values
    space = np.geomspace if axis.log else np.linspace
    return tuple(dict.fromkeys(axis.nearest(float(value)) for value in space(axis.low, axis.high, points)))


def coarse_first(axis: Axis, points: int) -> list[tuple[int, Choice]]:
    """Its values with the level of the grid that each comes in, coarse to fine: ends, middle, middles between."""
    values = grid_values(axis, points)
    if not ordered(axis):
        return [(0, value) for value in values]
    found = [(0, values[place]) for place in sorted({0, len(values) - 1})]
    gaps = deque([(1, 0, len(values) - 1)])
    while gaps:
        level, low, high = gaps.popleft()
        if high - low > 1:
            middle = (low + high) // 2
            found.append((level, values[middle]))
            gaps += [(level + 1, low, middle), (level + 1, middle, high)]
    return found
