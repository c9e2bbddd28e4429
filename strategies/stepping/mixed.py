"""The mixed model of AB-MCTS-M: scores in groups, and what the next score of each group, or of a new one, may be.

Source: Inoue et al. 2025, "Wider or Deeper? Scaling LLM Inference-Time Compute with Adaptive Branching Tree Search"
(arXiv 2503.04412), section 3.3 and appendices A.3 and B.2. Score k of group j is α_j + σ_y ε_jk, and the groups' means
α_j = μ + σ_α ε_j, with all ε standard normal; μ ~ N(0.5, 0.2²), σ_α ~ half-normal(0.2), σ_y ~ half-normal(0.3). So a
group of few scores is drawn towards the others, and a new group is judged by how good the groups are and how much they
differ. Given σ_α and σ_y all else is normal and is integrated in closed form; these two are on a grid, so that draws
are exact up to the grid; the paper samples by Markov chains. σ_y is at least 0.01: where the scores within each group
are equal, as shares of tests passed often are, the paper's posterior has no integral near σ_y = 0.
Cost: no calls; the grid's size times the number of different group sizes, in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

MEAN, MEAN_SD = 0.5, 0.2
"""The prior of μ."""
BETWEEN_SD, WITHIN_SD = 0.2, 0.3
"""The scales of the priors of σ_α, between groups, and of σ_y, within them."""
LEAST = 0.01
"""The least σ_y."""
_SIDE = 64
_BEND = 0.002
"""The grid of σ_α is even below this, and geometric far above."""


class Group(NamedTuple):
    """The scores of one group: how many, their mean, and the sum of their squared distances from it."""

    known: int = 0
    mean: float = MEAN
    spread: float = 0.0


class Draws(NamedTuple):
    """Draws from the posterior: a row for each, and in it a column for each group and a last one for a new group.

    Every cell of the table is drawn by itself, with values of the shared parameters of its own.
    """

    mu: Numbers
    alpha: Numbers
    """The group's mean."""
    score: Numbers
    """The next score of the group."""


def _grid() -> tuple[Numbers, Numbers, Numbers]:
    """σ_α and σ_y of the grid's cells, and the logarithm of the prior's weight of each."""
    steps = (np.arange(_SIDE) + 0.5) / _SIDE
    bent = np.exp(steps * np.log1p(5 * BETWEEN_SD / _BEND))
    between, within = _BEND * (bent - 1), LEAST * (5 * WITHIN_SD / LEAST) ** steps
    a = np.log(bent) - (between / BETWEEN_SD) ** 2 / 2
    y = np.log(within) - (within / WITHIN_SD) ** 2 / 2
    return np.repeat(between, _SIDE), np.tile(within, _SIDE), np.add.outer(a, y).ravel()


_BETWEEN, _WITHIN, _PRIOR = _grid()


@dataclass(frozen=True, slots=True, eq=False)
class Mixed:
    """The posterior: weights of the grid's cells, and in each a normal distribution of μ."""

    groups: tuple[Group, ...]
    weights: Numbers
    """They sum to 1."""
    centre: Numbers
    """The mean of μ."""
    deviation: Numbers
    """Its standard deviation."""

    def draw(self, rng: np.random.Generator, times: int = 1) -> Draws:
        """So many draws for each group and for a new one."""
        shape = times, len(self.groups) + 1
        reached = np.cumsum(self.weights)
        cells = np.searchsorted(reached, rng.random(shape) * reached[-1], side="right")
        between, within = _BETWEEN[cells] ** 2, _WITHIN[cells] ** 2
        known = np.array([*(group.known for group in self.groups), 0], float)
        means = np.array([*(group.mean for group in self.groups), MEAN])
        noise = rng.standard_normal((3, *shape))
        mu = self.centre[cells] + self.deviation[cells] * noise[0]
        # What a group's own scores weigh against μ: all that is known of a new group is μ.
        own = known * between / (known * between + within)
        alpha = mu + own * (means - mu) + np.sqrt(between * (1 - own)) * noise[1]
        return Draws(mu, alpha, alpha + _WITHIN[cells] * noise[2])


def posterior(groups: Sequence[Group]) -> Mixed:
    """Of scores from 0 to 1. The order of the groups changes nothing but that of the columns."""
    known = np.array([group.known for group in groups if group.known], int)
    means = np.array([group.mean for group in groups if group.known]) - MEAN
    sizes, which = np.unique(known, return_inverse=True)
    # Of the groups of each size: how many, the sum of their means, and that of the means' squares.
    sums = np.array([np.bincount(which, some, len(sizes)) for some in (np.ones_like(means), means, means**2)])
    # The variance of a group's mean about μ, by size and cell.
    variance = _BETWEEN**2 + np.multiply.outer(1 / sizes, _WITHIN**2)
    precision, pull, squares = sums @ (1 / variance)
    precision += MEAN_SD**-2
    inner = int(known.sum()) - len(known)
    spread = sum(group.spread for group in groups)
    logs = (
        _PRIOR
        - inner * np.log(_WITHIN)
        - spread / _WITHIN**2 / 2
        - (sums[0] @ np.log(variance) + squares - pull**2 / precision + np.log(precision)) / 2
    )
    weights = np.exp(logs - logs.max())
    return Mixed(tuple(groups), weights / weights.sum(), MEAN + pull / precision, np.sqrt(1 / precision))
