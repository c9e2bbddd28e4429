"""Local search: a random change to one of the best so far.

A change is to one axis, each as likely as the next: another value at random, or, of a number as often as not, one
near by (a normal step, a tenth of its range wide). Axes that begin to matter by it are drawn. The parent is one of the
`elite` best, taken at random; for several objectives, one of those that no other beats in all. After CHANGES that were
refused or known, all neighbours of a parent are looked through, and in the end a random configuration comes.

Source: the (mu + lambda) evolution strategy, one child at a time and by mutation alone; White, Nolen and Savani 2021
(arXiv 2005.02960) find local search a strong baseline of architecture search. Cost: no calls.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from archon.search.axes import Axis, Choice, Configuration, Space
from archon.search.proposers.base import Proposer, Proposes, Told, Tracking

CHANGES = 16
"""So many changes to a parent that are refused or known, and the next parent has its turn."""


class Evolve(Proposes):
    """Neighbours of the best so far."""

    startup: Annotated[int, Field(ge=1)] = 10
    """So many random configurations come first."""
    elite: Annotated[int, Field(ge=1)] = 5
    """How many of the best have neighbours proposed; of several objectives, how many of the front."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Any space, any number of objectives."""
        return LocalSearch(space, seed, objectives, self)


class LocalSearch(Tracking):
    """A local search that runs."""

    def __init__(self, space: Space, seed: int, objectives: int, settings: Evolve) -> None:
        super().__init__(space, seed, objectives)
        self._settings = settings
        self._best: list[tuple[tuple[float, ...], Configuration]] = []

    def propose(self) -> Configuration | None:
        """A new neighbour of one of the best, or a random configuration where there is none."""
        if len(self.known) < self._settings.startup:
            return self.draw()
        rng = self.chance()
        parents = [self._best[int(place)][1] for place in rng.permutation(len(self._best))]
        for parent in parents:
            for _ in range(CHANGES):
                if self.fresh(child := self._changed(parent, rng)):
                    return child
        for parent in parents:
            near = list(self.axes.neighbours(parent, rng))
            for place in rng.permutation(len(near)):
                if self.fresh(near[int(place)]):
                    return near[int(place)]
        return self.draw()

    def _changed(self, parent: Configuration, rng: np.random.Generator) -> Configuration:
        names = list(parent)
        if not names:
            return parent
        axis = self.axes.by_name[names[int(rng.integers(len(names)))]]
        value = axis.draw(rng)
        if axis.kind != "choice" and rng.random() < 0.5:
            value = _near(axis, float(str(parent[axis.name])), rng)
        found: dict[str, Choice] = {}
        for other in self.axes:
            if self.axes.matters(other, found):
                kept = parent[other.name] if other.name in parent else other.draw(rng)
                found[other.name] = value if other is axis else kept
        return Configuration(found)

    def learn(self, configuration: Configuration, result: Told) -> None:
        """Keep it where it is among the best; what failed or lost a race is not."""
        best = [one for one in self._best if one[1] != configuration]
        if result.values is not None and result.finished:
            best.append((result.values, configuration))
        if self.objectives == 1:
            best.sort(key=lambda one: -one[0][0])
        else:
            best = [one for one in best if not any(_beats(other[0], one[0]) for other in best)]
            best = best[-self._settings.elite :]
        self._best = best[: self._settings.elite]


def _near(axis: Axis, value: float, rng: np.random.Generator) -> Choice:
    if axis.log:
        return axis.nearest(value * math.exp(rng.normal(0, math.log(axis.high / axis.low) / 10)))
    return axis.nearest(rng.normal(value, (axis.high - axis.low) / 10))


def _beats(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first != second and all(a >= b for a, b in zip(first, second, strict=True))
