"""Adaptive branching: wider or deeper, by Thompson sampling at every node of a tree. Cost: none.

Source: Inoue et al. 2025, "Wider or Deeper? Scaling LLM Inference-Time Compute with Adaptive Branching Tree Search"
(arXiv 2503.04412). A node without children is given one. At any other, by variant:

- Node aggregation (AB-MCTS-A, section 3.4; priors as in the authors' code): what a new child would be worth (GEN) is
  judged by the values of the children that it has; what going on below its children would be worth (CONT) by the
  values of all that stands below them. A value is drawn from the posterior of each, and the higher one decides. Where
  it is CONT, a value is drawn for each child, from the posterior of its own value and of those below it, and the
  highest is gone to.
- Mixed model (AB-MCTS-M, section 3.3; `mixed.py`): a child's own value and those below it are a group. A value is
  drawn for each group and for a new one, each from what the mixed model of all groups predicts for its next value.
  Where the new group's is the highest the node is given a child, else the highest is gone to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, NamedTuple

import numpy as np

from archon.strategies.stepping.mixed import Group, Mixed, posterior
from archon.strategies.stepping.search import generator
from archon.strategies.stepping.tree import EMPTY_TREE, UNIT, Born, Node, Span, Tree, added, closed, span

Posterior = Literal["gaussian", "beta"]
"""What values are taken to be drawn from: a normal distribution of unknown mean and variance; a Bernoulli
distribution whose successes may be fractions."""

Variant = Literal["node_aggregation", "mixed_model"]
"""AB-MCTS-A and AB-MCTS-M."""

_TINY = 1e-300


class Observed(NamedTuple):
    """Values that were seen: how many, their sum, and the sum of their squares."""

    known: int = 0
    total: float = 0.0
    squares: float = 0.0

    def scaled(self, scale: Span) -> Observed:
        """What it were if each value were taken from low to high."""
        if scale == UNIT:
            return self
        width = scale.high - scale.low
        if width <= 0:
            return Observed(self.known, self.known / 2, self.known / 4)
        total = (self.total - self.known * scale.low) / width
        squares = (self.squares - 2 * scale.low * self.total + self.known * scale.low**2) / width**2
        return Observed(self.known, total, max(squares, 0.0))


class Normal(NamedTuple):
    """Normal-inverse-χ²: the variance is scaled inverse-χ² (`nu`, `tau2`), the mean normal about `mean` with the
    variance divided by `kappa`."""

    mean: float = 0.0
    kappa: float = 1.0
    nu: float = 1.0
    tau2: float = 0.1

    def given(self, seen: Observed) -> Normal:
        """The posterior (Murphy 2023, "Probabilistic Machine Learning: Advanced Topics", section 3.4.3.3)."""
        if not seen.known:
            return self
        mean = seen.total / seen.known
        spread = max(seen.squares - seen.known * mean * mean, 0.0)
        kappa, nu = self.kappa + seen.known, self.nu + seen.known
        between = seen.known * self.kappa / kappa * (self.mean - mean) ** 2
        return Normal(
            (self.kappa * self.mean + seen.total) / kappa,
            kappa,
            nu,
            (self.nu * self.tau2 + spread + between) / nu,
        )

    def draw(self, rng: np.random.Generator) -> float:
        """A mean."""
        variance = self.nu * self.tau2 / 2 / max(rng.standard_gamma(self.nu / 2), _TINY)
        return float(self.mean + math.sqrt(variance / self.kappa) * rng.standard_normal())


class Beta(NamedTuple):
    """Beta; the prior is that of Jeffreys."""

    a: float = 0.5
    b: float = 0.5

    def given(self, seen: Observed) -> Beta:
        """The posterior, of values from 0 to 1."""
        return Beta(self.a + seen.total, self.b + max(seen.known - seen.total, 0.0))

    def draw(self, rng: np.random.Generator) -> float:
        """A mean."""
        return float(rng.beta(self.a, self.b))


def drawn(seen: Observed, by: Posterior, rng: np.random.Generator) -> float:
    """A mean drawn from the posterior."""
    return (Normal().given(seen) if by == "gaussian" else Beta().given(seen)).draw(rng)


def wider(tree: Tree, place: int) -> Observed:
    """What is known of new children of a node: the values of those that it has."""
    values = [value for child in tree[place].children if (value := tree[child].value) is not None]
    return Observed(len(values), math.fsum(values), math.fsum(value * value for value in values))


def deeper(tree: Tree, place: int) -> Observed:
    """What is known of going on below a node's children: the values of all that stands below them."""
    return _sum(_below(tree[child]) for child in tree[place].children)


def within(tree: Tree, place: int) -> Observed:
    """What is known of going to a node: its own value, and those of all below it."""
    node = tree[place]
    return Observed(node.known, node.total, node.squares)


def branch(tree: Tree, by: Posterior, rng: np.random.Generator, scale: Span = UNIT) -> int:
    """The node that is to have a child, by node aggregation. Closed nodes have none; the tree is not over."""

    def value(seen: Observed) -> float:
        return drawn(seen.scaled(scale), by, rng)

    place = 0
    while True:
        open_children = [child for child in tree[place].children if not tree[child].over]
        if not open_children:
            return place
        if not tree[place].closed and value(wider(tree, place)) >= value(deeper(tree, place)):
            return place
        draws = [value(within(tree, child)) for child in open_children]
        place = open_children[draws.index(max(draws))]


def fitted(tree: Tree, scale: Span, place: int) -> Mixed:
    """The mixed model of what stands below a node: a group for each child."""
    return posterior([_group(within(tree, child).scaled(scale)) for child in tree[place].children])


def branch_mixed(tree: Tree, model: Callable[[int], Mixed], rng: np.random.Generator) -> int:
    """The node that is to have a child, by the mixed model of each node (`fitted`). Closed nodes have none; the tree is
    not over."""
    place = 0
    while True:
        node = tree[place]
        if all(tree[child].over for child in node.children):
            return place
        *scores, new = model(place).draw(rng).score[0]
        arms = [
            (score, child) for score, child in zip(scores, node.children, strict=True) if not tree[child].over
        ]
        highest, child = max(arms, key=lambda arm: arm[0])
        if not node.closed and new >= highest:
            return place
        place = child


# --- the algorithm ----------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What is wanted: so many children of a node."""

    place: int
    times: int


@dataclass(frozen=True, slots=True)
class Branched:
    """The state: the tree, and what is in flight."""

    seed: int
    left: int
    """How many nodes may still be asked for, those in flight included."""
    tree: Tree = EMPTY_TREE
    made: int = 0
    """How many were asked for before those in flight."""
    flying: tuple[Asked, ...] = ()
    """What is asked for now: each place once."""
    calibrated: bool = True
    """Whether values are from 0 to 1 as they are; else they are taken relative to the lowest and highest so far."""


class Branching(NamedTuple):
    """The algorithm, as a pure function of its state."""

    n: int
    """How many nodes are made."""
    batch: int = 1
    """How many are in flight in one round. They do not know of each other."""
    posterior: Posterior = "gaussian"
    """For node aggregation."""
    variant: Variant = "node_aggregation"

    def start(self, seed: int) -> Branched:
        """Nothing is made, and the first are chosen."""
        return self._chosen(Branched(seed, self.n))

    def ask(self, state: Branched) -> Sequence[Asked]:
        """Where nodes are made next; nothing where the search is over."""
        return state.flying

    def tell(self, state: Branched, grown: Sequence[Sequence[Born]], calibrated: bool = True) -> Branched:
        """The state when what was asked for has come, in order; the next are chosen.

        Where nothing came of a node other than the root, it is not given children again. `calibrated` says whether
        values are from 0 to 1 as they are.
        """
        places = [place for place, _ in state.flying]
        tree = added(state.tree, zip(places, grown, strict=True))
        tree = closed(tree, [place for place, some in zip(places, grown, strict=True) if place and not some])
        asked = sum(times for _, times in state.flying)
        return self._chosen(
            replace(
                state,
                tree=tree,
                made=state.made + asked,
                left=state.left - asked,
                calibrated=state.calibrated and calibrated,
            )
        )

    def _chosen(self, state: Branched) -> Branched:
        """With what is asked for next."""
        scale = UNIT if state.calibrated else span(state.tree)
        model = cache(partial(fitted, state.tree, scale))
        counts: dict[int, int] = {}
        for number in range(state.made, state.made + min(self.batch, state.left)):
            rng = generator(state.seed, number)
            if self.variant == "mixed_model":
                place = branch_mixed(state.tree, model, rng)
            else:
                place = branch(state.tree, self.posterior, rng, scale)
            counts[place] = counts.get(place, 0) + 1
        return replace(state, flying=tuple(Asked(place, times) for place, times in counts.items()))


def _group(seen: Observed) -> Group:
    """Values from 0 to 1: their spread is within its bounds, whatever their sums have lost to rounding."""
    if not seen.known:
        return Group()
    mean = seen.total / seen.known
    spread = seen.squares - seen.known * mean * mean
    return Group(seen.known, mean, min(max(spread, 0.0), seen.known / 4))


def _below(node: Node) -> Observed:
    if node.value is None:
        return Observed(node.known, node.total, node.squares)
    return Observed(node.known - 1, node.total - node.value, node.squares - node.value * node.value)


def _sum(several: Iterable[Observed]) -> Observed:
    some = list(several)
    return Observed(
        sum(one.known for one in some),
        math.fsum(one.total for one in some),
        math.fsum(one.squares for one in some),
    )
