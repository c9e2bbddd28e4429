"""Archon's greedy search: axis by axis, each axis's best value kept before the next is touched.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.3 and appendices A.4-A.6, where it is a
baseline of the architecture search: coordinate-wise, over the choices of the layers. It finds the best of what is a
sum over axes, and is fooled where the worth of one choice hangs on another. Evaluations: 1 + the sum over the axes
that matter of (values - 1), less those refused, per pass. Cost: no calls.

The paper leaves open, and here it is so:
- The axes are taken in the order of the space, and begin at their first values, or at `start`. An axis that begins to
  matter by a choice begins so too, and its turn comes in the same pass, since it stands after what it needs.
- Of equal values the one that stands first is kept. What failed is never kept, what lost a race only where nothing
  finished.
- A value that the space refuses, the other choices being what they are, is left out. A start that is refused gives way
  to a random one.
- One pass, as in the paper; `passes` goes round again while something changes, `restarts` begins anew at random.
- All values of one axis may be evaluated at once; the next axis waits for them, so that the course does not depend on
  how many are evaluated together. Meanwhile `ask` gives None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain, islice
from typing import Annotated

import numpy as np
from pydantic import Field

from archon.errors import UserError
from archon.search.axes import Axis, Choice, Configuration, Space, described
from archon.search.proposers.base import SCAN, TRIES, Proposer, Proposes, Tracking, one_objective
from archon.search.proposers.grid import grid_values
from archon.suggest import hint


class Greedy(Proposes):
    """Axis by axis, each axis's best value kept before the next."""

    start: Mapping[str, str | int | float | bool | None] = {}
    """Where it begins, by axis; the first value of the axes that are not named."""
    points: Annotated[int, Field(ge=2, le=1000)] = 5
    """How many values of a continuous axis are tried."""
    passes: Annotated[int, Field(ge=1)] = 1
    """How often it goes over all axes, at most; it stops where a pass changes nothing."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """How often it begins again, at a random configuration, when it is through."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises UserError where there are several objectives, or `start` is not of this space."""
        one_objective(self.name, objectives)
        return GreedySearch(space, seed, self)


class GreedySearch(Tracking):
    """A greedy search that runs. Its course is a function of what it is told."""

    def __init__(self, space: Space, seed: int, settings: Greedy) -> None:
        super().__init__(space, seed, 1)
        self._settings = settings
        self._first = {axis.name: grid_values(axis, settings.points)[0] for axis in self.axes}
        for name, value in settings.start.items():
            axis = self.axes.by_name.get(name)
            if axis is None:
                raise UserError(f"`start` names {name!r}, which is no axis. {hint(name, self.axes.by_name)}")
            if not axis.holds(value):
                raise UserError(f"`start` gives {name!r} {value!r}; it is {described(axis)}")
            self._first[name] = value
        self._runs = 0
        self._base: Configuration | None = None
        self._passed: Configuration | None = None
        self._pass = self._place = 0
        self._variants: list[Configuration] = []
        self._begin()

    def propose(self) -> Configuration | None:
        """The next value of the axis whose turn it is. None while it waits for results, and at the end."""
        while self._base is not None:
            new = next((c for c in self._variants if c.key not in self.known), None)
            if new is not None:
                return new
            if any(c.key not in self.told for c in self._variants):
                return None
            self._settle()
        return None

    def _begin(self) -> None:
        """Start over, where there is a start left."""
        self._base = None
        if self._runs > self._settings.restarts:
            return
        self._base = self._passed = self._start(self._runs)
        self._runs += 1
        self._pass, self._place = 0, 0
        self._vary()

    def _start(self, number: int) -> Configuration | None:
        first = Configuration(self._filled({}))
        if number == 0 and self.allowed(first):
            return first
        rng = np.random.default_rng([self.seed, number])
        drawn = (self.axes.draw(rng) for _ in range(TRIES))
        every = islice(self.axes.every(), SCAN) if self.finite else ()
        return next((c for c in chain(drawn, every) if self.allowed(c)), None)

    def _settle(self) -> None:
        """Keep the best value of the axis, and go on to the next."""
        valued = [c for c in self._variants if self.told[c.key][1].values is not None]
        self._base = max(valued, key=self._worth, default=self._base)
        self._place += 1
        if self._place < len(self.axes):
            self._vary()
            return
        self._pass += 1
        if self._pass == self._settings.passes or self._base == self._passed:
            self._begin()
            return
        self._passed, self._place = self._base, 0
        self._vary()

    def _vary(self) -> None:
        """The configurations that differ from the base in the axis whose turn it is, and the base among them."""
        if self._base is None or not len(self.axes):
            self._variants = [] if self._base is None else [self._base]
            return
        axis = self.axes[self._place]
        if axis.name not in self._base:
            self._variants = []
            return
        values = grid_values(axis, self._settings.points)
        own = self._base[axis.name]
        if own not in values:
            values = (own, *values)
        varied = [Configuration(self._filled(self._base, axis, value)) for value in values]
        self._variants = [c for c in varied if c == self._base or self.allowed(c)]

    def _filled(
        self, base: Mapping[str, Choice], axis: Axis | None = None, value: Choice = None
    ) -> dict[str, Choice]:
        """The base with another value of an axis; axes that begin to matter have their first values."""
        found: dict[str, Choice] = {}
        for other in self.axes:
            if self.axes.matters(other, found):
                kept = base[other.name] if other.name in base else self._first[other.name]
                found[other.name] = value if other is axis else kept
        return dict(self.axes.configuration(found))

    def _worth(self, configuration: Configuration) -> tuple[bool, float]:
        result = self.told[configuration.key][1]
        return (result.finished, result.values[0] if result.values else -math.inf)
