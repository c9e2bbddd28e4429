"""The tree of observations that PlanSearch grows, and which part of it is taken. Pure: no model, no clock, no chance.

Source: Wang et al. 2024, "Planning In Natural Language Improves LLM Search For Code Generation" (arXiv 2409.03733),
sections 4.3.1 and 4.3.2. Cost: none of its own; `tree` counts the calls of PlanSearch.

A node is a set of observations; asked for more, it has as children every subset of what it found, of size 0 to S, the
empty one included. After L levels the nodes are leaves. Where n observations are found everywhere, a node has
l = C(n,0) + ... + C(n,S) children, and the tree (l^L - 1) / (l - 1) nodes that are asked and l^L leaves.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import combinations
from math import comb
from typing import NamedTuple


class Node(NamedTuple):
    """A node by the way that leads to it."""

    way: tuple[tuple[str, ...], ...] = ()
    """The observations that were chosen at each level."""
    turn: tuple[int, ...] = ()
    """At each level, as which of its siblings it is taken, from 0."""

    def known(self, alone: bool = False) -> tuple[str, ...]:
        """All observations on the way, each once; or `alone` those of its last level that has any."""
        if alone:
            return next((chosen for chosen in reversed(self.way) if chosen), ())
        return tuple(dict.fromkeys(one for chosen in self.way for one in chosen))


def children(node: Node, found: Sequence[str], subset: int, salt: int) -> list[Node]:
    """Every subset of what was found, of at most so many, in an order that the salt shuffles."""
    found = tuple(dict.fromkeys(found))
    chosen = [c for size in range(min(subset, len(found)) + 1) for c in combinations(range(len(found)), size)]
    chosen.sort(key=lambda c: hashlib.sha256(f"{salt} {node.turn} {c}".encode()).digest())
    return [
        Node((*node.way, tuple(found[i] for i in c)), (*node.turn, turn)) for turn, c in enumerate(chosen)
    ]


def shared(total: int | None, branches: int) -> list[int | None]:
    """A total divided fairly; None is everything, for every branch."""
    if total is None:
        return [None] * branches
    least, more = divmod(total, branches)
    return [least + (branch < more) for branch in range(branches)]


class Harvest:
    """The leaves to take: each branch's share of them as soon as it is known, the branches taking turns.

    Leaves with equal observations are taken once. What a branch lacks for its share, the others make up for once all
    are known (`close`), so that in the end those are taken that would have come first in a tree known from the start.
    """

    def __init__(self, alone: bool = False) -> None:
        self._alone = alone
        self._ready: list[tuple[tuple[int, ...], Node]] = []
        self._spare: list[tuple[tuple[int, ...], Node]] = []
        self._seen: set[tuple[str, ...]] = set()

    def offer(self, leaves: Sequence[Node], share: int | None) -> None:
        """The leaves of one branch, of which so many may be taken; all where that is None."""
        for leaf in leaves:
            turn = leaf.turn[::-1]  # the first leaf of every branch comes before the second of any
            if share == 0:
                self._spare.append((turn, leaf))
            elif self._new(leaf):
                heappush(self._ready, (turn, leaf))
                share = None if share is None else share - 1

    def close(self, wanted: int | None) -> None:
        """All leaves are known: of those that are left, take as many as are missing."""
        for turn, leaf in sorted(self._spare):
            if wanted is not None and len(self._seen) >= wanted:
                return
            if self._new(leaf):
                heappush(self._ready, (turn, leaf))

    def __bool__(self) -> bool:
        return bool(self._ready)

    def pop(self) -> Node:
        """The next one."""
        return heappop(self._ready)[1]

    def _new(self, leaf: Node) -> bool:
        known = leaf.known(self._alone)
        new = known not in self._seen
        self._seen.add(known)
        return new


# --- sizes -----------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """Which steps are taken."""

    layers: int = 2
    """L: how many levels of observations."""
    subset: int = 2
    """S: how many observations are combined at most."""
    filter: bool = True
    """Whether observations are filtered."""
    sketch: bool = True
    """Whether a sketch is made of them."""
    fix: bool = True
    """Whether a sketch is criticised and a second one made."""
    pseudocode: bool = True
    """Whether a sketch becomes pseudocode before it becomes code."""


PAPER = Shape()
"""The paper's."""


class Size(NamedTuple):
    """What a tree comes to."""

    nodes: int
    """Nodes that are asked for observations."""
    tuples: int
    """Sets of observations of which sketches are made."""
    codes: int
    """Solutions."""
    asked: int
    """Calls whose replies are read, and may be asked for again."""

    @property
    def calls(self) -> int:
        """All of them, where none is asked for again."""
        return self.asked + self.codes


def tree(found: int, shape: Shape = PAPER, *, codes: int | None = None, root: int | None = None) -> Size:
    """The size of a tree in which every node finds so many observations, or of the part of it that gives so many
    codes. `root` says how many children the root has, where that is known."""
    width = sum(comb(found, size) for size in range(min(shape.subset, found) + 1))
    levels = [1]
    for layer in range(shape.layers):
        levels.append(levels[-1] * (root if root is not None and not layer else width))
    each = 1 + shape.fix
    taken = levels[-1] * each if codes is None else min(codes, levels[-1] * each)
    tuples = -(-taken // each)
    nodes = sum(min(tuples, level) for level in levels[:-1])
    per_node = 1 + (shape.filter and found > 0)
    asked = nodes * per_node + tuples * shape.sketch + 2 * (taken - tuples) + taken * shape.pseudocode
    return Size(nodes, tuples, taken, asked)


def affordable(calls: int, found: int, shape: Shape, *, root: int) -> int:
    """How many codes so many calls are enough for, once the root has been asked and has so many children."""
    most = tree(found, shape, root=root).codes
    spent = 1 + shape.filter if shape.layers else 0

    def costs(codes: int) -> int:
        return tree(found, shape, codes=codes, root=root).calls - spent

    return bisect_right(range(1, most + 1), calls, key=costs)
