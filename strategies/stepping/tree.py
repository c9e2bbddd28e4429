"""A search tree as a value: nodes by their place, and what is known of each and of all below it. Cost: none.

A tree is a tuple of nodes; place 0 is the root, and a node stands after its parent. What a node stands for (a partial
answer, a whole one) the algorithm keeps beside it, under the same place. Every function returns a new tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True)
class Node:
    """One node, with the statistics of the part of the tree that it is the root of."""

    parent: int | None = None
    """Its parent's place; None for the root."""
    value: float | None = None
    """Its own value; None where it is not known, as for the root."""
    children: tuple[int, ...] = ()
    """Their places, in the order in which they came."""
    closed: bool = False
    """Whether it is given no children (any more)."""
    over: bool = False
    """Whether that is so of it and of all below it: the search has nothing to do there."""
    visits: int = 0
    """How often it was come by: once when it was made, and its children's visits. The root was not made."""
    known: int = 0
    """How many values are known, of it and of those below it."""
    total: float = 0.0
    """Their sum."""
    squares: float = 0.0
    """The sum of their squares."""
    best: float | None = None
    """Its value backed up by maximum (`added`); None where none is known."""


Tree: TypeAlias = tuple[Node, ...]

EMPTY_TREE: Tree = (Node(),)
"""A root, and nothing else."""


class Born(NamedTuple):
    """A new node, as its parent's algorithm knows it."""

    value: float | None
    """None where it is not known."""
    closed: bool = False
    """Whether it is to have no children."""


class Span(NamedTuple):
    """The lowest and the highest value, by which values that are not probabilities are taken from 0 to 1."""

    low: float = 0.0
    high: float = 1.0

    def scaled(self, value: float) -> float:
        """The value as a part of the way from low to high; the middle where all are the same."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


UNIT = Span()
"""That of probabilities."""


def span(tree: Tree) -> Span:
    """From the lowest value in the tree to the highest; 0 to 1 where there is none.

    Schrittwieser et al. 2020, "Mastering Atari, Go, Chess and Shogi by Planning with a Learned Model" (arXiv
    1911.08265), appendix B, so that exploration means the same on any scale.
    """
    values = [node.value for node in tree if node.value is not None]
    return Span(min(values), max(values)) if values else UNIT


def path(tree: Tree | Sequence[Node], place: int) -> list[int]:
    """The places from here to the root, both included."""
    found = [place]
    while (parent := tree[found[-1]].parent) is not None:
        found.append(parent)
    return found


def added(tree: Tree, grown: Iterable[tuple[int, Sequence[Born]]], *, reached: bool = False) -> Tree:
    """The tree with children given to some of its nodes; they stand at its end, in this order.

    Visits, sums and maxima are backed up to the root. By maximum, a node is worth what its best child is worth;
    `reached` says that a node's own value is that of a whole answer, which it keeps where no child is better.
    """
    nodes = list(tree)
    for parent, births in grown:
        line = path(nodes, parent)
        for value, closed in births:
            nodes[parent] = replace(nodes[parent], children=(*nodes[parent].children, len(nodes)))
            known = value is not None
            worth = value or 0.0
            nodes.append(
                Node(parent, value, (), closed, closed, 1, int(known), worth, worth * worth, best=value)
            )
            for place in line:
                node = nodes[place]
                nodes[place] = replace(
                    node,
                    visits=node.visits + 1,
                    known=node.known + known,
                    total=node.total + worth,
                    squares=node.squares + worth * worth,
                )
        for place in line:
            nodes[place] = replace(nodes[place], best=_best(nodes, place, reached), over=_over(nodes, place))
    return tuple(nodes)


def closed(tree: Tree, places: Iterable[int]) -> Tree:
    """The tree with these nodes closed: they are given no children any more."""
    nodes = list(tree)
    for shut in places:
        nodes[shut] = replace(nodes[shut], closed=True)
        for place in path(nodes, shut):
            nodes[place] = replace(nodes[place], over=_over(nodes, place))
    return tuple(nodes)


def _best(nodes: Sequence[Node], place: int, reached: bool) -> float | None:
    node = nodes[place]
    below = [best for child in node.children if (best := nodes[child].best) is not None]
    if node.value is not None and (reached or not below):
        below.append(node.value)
    return max(below, default=None)


def _over(nodes: Sequence[Node], place: int) -> bool:
    node = nodes[place]
    return node.closed and all(nodes[child].over for child in node.children)
