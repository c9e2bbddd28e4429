"""Diverse verifier tree search: independent greedy trees, so that a reward model's favourite cannot take every beam.

Source: Beeching, Tunstall and Rush 2024, "Scaling test-time compute with open models" (Hugging Face), and its code,
search-and-learn: n / m trees that share nothing; in each, a step is sampled m times and the best one goes on.
`lookahead` judges a step by a greedy roll-out of so many further steps, as in Snell et al. 2024 (arXiv 2408.03314),
section 5.2. With m = 1 it is n independent chains; with m = n it is one tree, step-level best-of-N.
Cost: at most n calls per step (m for each tree that goes on), each with as many again as there are steps of lookahead,
and a score for each.

A tree is over when its best step ends the answer. The code then gives all m variants of that last step as answers, n
in all, some of which may go on: `answers: variants`. They share all but their last step, so they are m votes of much
the same opinion. `whole` leaves out those that were not ended; `best` gives one answer per tree, and these are
independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archon.stage import Count, Plan
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.ranking import best_first
from archon.strategies.stepping.search import Given, Wish
from archon.strategies.stepping.stage import Stepping


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree: the path that goes on, and what its last step might have been."""

    live: Partial | None = EMPTY
    """None where it is over."""
    variants: tuple[Partial, ...] = ()
    """The last step's, the one that was chosen included."""

    @property
    def over(self) -> bool:
        """Whether its best step ended the answer; not where its calls failed."""
        return any(partial.finished for partial in _chosen(self.variants))


@dataclass(frozen=True, slots=True)
class Trees:
    """The state."""

    trees: tuple[Tree, ...]


class DVTS(Stepping):
    """Search n / m independent trees, each step the best of m."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many continuations per step, in all trees together; so many answers."""
    m: Annotated[int, Field(ge=1)] = 4
    """How often a tree's step is sampled; `n` is a multiple of it, and n / m is how many trees there are."""
    lookahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps of the greedy roll-out by which a step is judged."""
    answers: Literal["variants", "whole", "best"] = "variants"
    """What a tree gives: the m variants of its last step; those of them that are whole; the best one."""

    @model_validator(mode="after")
    def _whole_trees(self) -> DVTS:
        if self.n % self.m:
            raise ValueError(
                f"`n` {self.n} is not a multiple of `m` {self.m}, and there are n / m trees. Change one of them"
            )
        return self

    def start(self, given: Given) -> Trees:
        """n / m trees, all at their roots."""
        return Trees((Tree(),) * (self.n // self.m))

    def ask(self, state: Trees) -> Sequence[Wish]:
        """Every path that goes on, continued m times."""
        return [Wish(tree.live, self.m, self.lookahead) for tree in state.trees if tree.live is not None]

    def tell(self, state: Trees, grown: Sequence[Sequence[Partial]]) -> Trees:
        """In each tree the best goes on."""
        came = iter(grown)
        return Trees(tuple(t if t.live is None else _stepped(t, next(came)) for t in state.trees))

    def found(self, state: Trees) -> Sequence[Partial]:
        """What the trees that are over give, tree by tree; where none is, the best of each as far as it came."""
        picked = [partial for tree in state.trees if tree.over for partial in self._given(tree)]
        return picked or [partial for tree in state.trees for partial in _chosen(tree.variants)]

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step."""
        return self.calls(self.n * self.max_steps * (1 + self.lookahead), self.n)

    def _given(self, tree: Tree) -> Sequence[Partial]:
        if self.answers == "best":
            return _chosen(tree.variants)
        if self.answers == "whole":
            return [partial for partial in tree.variants if partial.whole]
        return tree.variants


def _chosen(variants: Sequence[Partial]) -> list[Partial]:
    """The best; what was cut off only where everything was. Empty where there is none."""
    able = [partial for partial in variants if partial.whole or not partial.finished]
    return best_first(able or variants)[:1]


def _stepped(tree: Tree, variants: Sequence[Partial]) -> Tree:
    """The tree after its step was sampled."""
    if not variants:  # every call failed: it ends as far as it came
        return Tree(None, tree.variants)
    (best,) = _chosen(variants)
    return Tree(None if best.finished else best, tuple(variants))
