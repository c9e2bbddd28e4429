"""Bayesian search that weighs what a configuration may gain against what it costs anew.

Sources: expected improvement per unit of cost, Snoek et al. 2012 (arXiv 1206.2944), section 3.2; several at once by
believing what is under way (Ginsbourger et al. 2010); several objectives by random weights, Knowles 2006 (ParEGO). The
Gaussian process is `surrogate.py`'s. Cost: no calls; an ask takes some 100 ms.

In a search whose samples are kept, many configurations cost little or nothing: fewer samples of what was sampled, and
another choice among them. So it asks the price of every configuration before each proposal, and proposes the one with
the most expected improvement for its price. It buys few samples of several kinds first, learns from what can be made of
them, and buys more where more may help.

Any trial takes work and time, whatever is paid anew: to each price is added that of the median configuration among
those that cost something (`trial` times). A space with no end, or of more than POOL configurations, is seen through so
many drawn at random, and the neighbours of the best. Where no prices are given all cost the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import numpy as np
from pydantic import Field

from archon.search.axes import Axes, Configuration, Space
from archon.search.proposers.base import Price, Proposer, Proposes, Told, Tracking
from archon.search.proposers.surrogate import (
    Coder,
    Floats,
    Results,
    Scales,
    Surrogate,
    expected_improvement,
    fitted,
)

POOL = 3000
"""So many configurations are weighed; of a space with no more, all."""
LEADERS = 5
"""The neighbours of so many are, too, in a larger space."""
BEST, NEWEST = 100, 100
"""It learns from so many of the best, and so many of the newest."""
GROWTH = 1.1
"""When so many times as much is known, lengths are found anew."""
_REMEMBERED = 100_000
_POOLS = 7
"""What tells the chance that draws the pool from any other."""
_SUMMED = 0.05
"""Of several objectives: the share of their weighted sum beside the worst of them (ParEGO's)."""


class Frugal(Proposes):
    """The most expected improvement for what it costs anew."""

    trial: Annotated[float, Field(gt=0)] = 1.0
    """What a trial costs beside what it pays anew, in median prices of those that pay something."""
    pool: Annotated[int, Field(ge=1)] = POOL
    """So many configurations are weighed, and in a larger space the neighbours of the best."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Any space, any number of objectives."""
        return FrugalSearch(space, seed, objectives, self.trial, self.pool)


def listed(axes: Axes, most: int = POOL) -> list[Configuration] | None:
    """All configurations; None where there are more than so many, or no end to them."""
    if any(axis.values is None for axis in axes):
        return None
    found = list(islice(axes.every(), most + 1))
    return None if len(found) > most else found


class FrugalSearch(Tracking):
    """A frugal search that runs."""

    def __init__(self, space: Space, seed: int, objectives: int, trial: float, pool: int) -> None:
        super().__init__(space, seed, objectives)
        self._trial = trial
        self._most = pool
        self._coder = Coder(tuple(self.axes))
        self._rows: dict[str, Floats] = {}
        self._pool: list[Configuration] | None = None
        self._whole = False
        self._price: Price | None = None
        self._waiting: dict[str, Configuration] = {}
        self._fitted: Scales | None = None
        self._known_then: list[tuple[Configuration, Told]] = []
        """What lengths are found from."""
        self._due = 3

    def heed(self, price: Price) -> None:
        """From now on, this is what configurations cost."""
        self._price = price

    def propose(self) -> Configuration | None:
        """The one that promises most for its price; where all that it weighs is known, a random one."""
        found = self._best()
        if found is None:
            found = self.draw()
        if found is not None:
            self._waiting[found.key] = found
        return found

    def learn(self, configuration: Configuration, result: Told) -> None:
        """It is not waited for any more; now and then, lengths are to be found anew from what is known then."""
        self._waiting.pop(configuration.key, None)
        if len(self.told) >= self._due:
            self._due = max(len(self.told) + 1, round(len(self.told) * GROWTH))
            self._fitted, self._known_then = None, list(self.told.values())

    # --- what is weighed ---------------------------------------------------------------------------

    def _best(self) -> Configuration | None:
        candidates = [one for one in self._weighed() if self.fresh(one)]
        if not candidates:
            return None
        merits = self._merits(candidates)
        if self._price is not None:
            prices = np.array([self._price(one) for one in candidates])
            dear = prices[prices > 0]
            if len(dear):
                merits = merits / (prices + self._trial * float(np.median(dear)))
        return candidates[int(np.argmax(merits))]

    def _weighed(self) -> list[Configuration]:
        """In an order that the seed fixes, so that chance decides between equals."""
        if self._pool is None:
            rng = np.random.default_rng([self.seed, _POOLS])
            every = listed(self.axes, self._most)
            self._whole = every is not None
            if every is not None:
                self._pool = [every[place] for place in rng.permutation(len(every))]
            else:
                self._pool = list(dict.fromkeys(self.axes.draw(rng) for _ in range(self._most)))
        if self._whole:
            return self._pool
        told = [(one, result) for one, result in self.told.values() if result.values is not None]
        leaders = sorted(told, key=lambda pair: pair[1].values or (), reverse=True)[:LEADERS]
        rng = self.chance(1)
        near = [other for one, _ in leaders for other in self.axes.neighbours(one, rng)]
        return list(dict.fromkeys([*near, *self._pool]))

    # --- what it promises --------------------------------------------------------------------------

    def _merits(self, candidates: Sequence[Configuration]) -> Floats:
        """The expected improvement of each."""
        results = self._results(list(self.told.values()))
        waiting = self._coded(list(self._waiting.values()))
        if not len(results.rows) and not len(waiting):
            return np.ones(len(candidates))
        scales = self._scales()
        if len(waiting):
            mean = np.zeros(len(waiting))
            if len(results.rows):
                mean = Surrogate(self._coder, results, scales).believed(waiting).mean
            results = results.and_all(waiting, mean)
        fit = Surrogate(self._coder, results, scales)
        best = float(fit.believed(results.rows).mean.max())
        return expected_improvement(fit.believed(self._coded(candidates)), best)

    def _scales(self) -> Scales:
        if self._fitted is None:
            self._fitted = fitted(self._coder, self._results(self._known_then))
        return self._fitted

    def _results(self, told: Sequence[tuple[Configuration, Told]]) -> Results:
        """What it was told, as one figure each: of the best and the newest. What failed counts as the worst."""
        values = np.array([result.values for _, result in told if result.values is not None])
        if not len(values):
            return Results(self._coded([]), np.zeros(0), np.zeros(0, dtype=np.int64))
        known = iter(self._figures(values).tolist())
        worst = float(self._figures(values).min())
        figures = np.array([worst if result.values is None else next(known) for _, result in told])
        places = list(range(len(told)))
        if len(told) > BEST + NEWEST:
            older = np.argsort(-figures[:-NEWEST], kind="stable")[:BEST]
            places = [*sorted(older.tolist()), *places[-NEWEST:]]
        seen = np.array([max(1, told[place][1].problems) for place in places], dtype=np.int64)
        return Results(self._coded([told[place][0] for place in places]), figures[places], seen)

    def _figures(self, values: Floats) -> Floats:
        """Of each one figure: of several objectives by weights that are drawn for each proposal."""
        if self.objectives == 1:
            return values[:, 0]
        low, high = values.min(axis=0), values.max(axis=0)
        weights = self.chance(2).dirichlet(np.ones(self.objectives))
        short = weights * (high - values) / np.where(high > low, high - low, 1.0)
        found: Floats = -(short.max(axis=1) + _SUMMED * short.sum(axis=1))
        return found

    def _coded(self, configurations: Sequence[Configuration]) -> Floats:
        new = [one for one in configurations if one.key not in self._rows]
        if len(self._rows) + len(new) > _REMEMBERED:
            self._rows.clear()
            new = list(configurations)
        self._rows.update(zip((one.key for one in new), self._coder.rows(new), strict=True))
        return np.array([self._rows[one.key] for one in configurations]).reshape(
            len(configurations), len(self.axes)
        )
