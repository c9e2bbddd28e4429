"""The search of Tree of Thoughts: which states are continued next. Pure: no model, no clock, no chance.

Source: Yao et al. 2023, "Tree of Thoughts: Deliberate Problem Solving with Large Language Models" (arXiv 2305.10601),
section 3, algorithms 1 and 2. Cost: none of its own; `levels_of` and `expansions_of` say how
many states are continued.

    tree = start
    while wanted := search.ask(tree):
        tree = search.tell(tree, what_they_were_continued_by(wanted))
    leaves = search.found(tree)

A tree is a frozen value of plain values, so it is JSON whenever it is to be (`stepping/search.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class State:
    """A question with the thoughts on it so far, in order, and what it was judged to be worth."""

    thoughts: tuple[str, ...] = ()
    value: float | None = None
    """Higher is better; None where it is not known."""

    @property
    def depth(self) -> int:
        """How many thoughts."""
        return len(self.thoughts)


ROOT = State()
"""The question alone."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How far a search is."""

    open: tuple[State, ...] = (ROOT,)
    """What may be continued: breadth-first the level's best; depth-first a stack, whose last is the next."""
    ended: tuple[State, ...] = ()
    """What is not continued any more, as it is deep enough or has no continuation, in the order in which it came."""
    expanded: int = 0
    """How many states were continued."""


class Search(Protocol):
    """One of the two algorithms."""

    def ask(self, tree: Tree) -> Sequence[State]:
        """What is continued next, all at once; nothing where the search is over."""
        ...

    def tell(self, tree: Tree, grown: Sequence[Sequence[State]]) -> Tree:
        """The tree after each that was asked for has been continued: by these, and by none where calls failed.

        Of those that were asked for, as many may be continued as the budget allows: the first so many.
        """
        ...

    def found(self, tree: Tree) -> Sequence[State]:
        """The leaves, best first; where the search was cut off before there was any, the deepest states."""
        ...


class Breadth(NamedTuple):
    """Breadth-first (algorithm 1): of every level the n best states go on, all at once."""

    n: int
    depth: int

    def ask(self, tree: Tree) -> Sequence[State]:
        """The level."""
        return tree.open if tree.open and tree.open[0].depth < self.depth else ()

    def tell(self, tree: Tree, grown: Sequence[Sequence[State]]) -> Tree:
        """The best of the next level. Where nothing continues it, this one is the last."""
        done = tree.expanded + len(grown)
        level = best_first(distinct(state for some in grown for state in some))[: self.n]
        return Tree(tuple(level), (), done) if level else Tree((), tree.open, done)

    def found(self, tree: Tree) -> Sequence[State]:
        """The last level."""
        return best_first(tree.open or tree.ended)


class Depth(NamedTuple):
    """Depth-first (algorithm 2): the best continuation first; back to the next best where a state has none that is
    worth the threshold, or a leaf was reached; until there are n leaves, or so many states have been continued."""

    n: int
    depth: int
    threshold: float
    expansions: int

    def ask(self, tree: Tree) -> Sequence[State]:
        """The top of the stack."""
        leaves = sum(state.depth == self.depth for state in tree.ended)
        over = not tree.open or leaves >= self.n or tree.expanded >= self.expansions
        return () if over else tree.open[-1:]

    def tell(self, tree: Tree, grown: Sequence[Sequence[State]]) -> Tree:
        """Its continuations on the stack, the best on top; leaves are taken off as they are reached."""
        *rest, state = tree.open
        (children,) = grown
        worthy = [c for c in best_first(distinct(children)) if c.value is None or c.value >= self.threshold]
        ended = list(tree.ended)
        if not worthy:
            ended.append(state)
        leaves = [c for c in worthy if c.depth == self.depth]
        missing = self.n - sum(one.depth == self.depth for one in ended)
        ended += leaves[:missing]
        stack = (*rest, *reversed([c for c in worthy if c.depth < self.depth]))
        return Tree(stack, tuple(ended), tree.expanded + 1)

    def found(self, tree: Tree) -> Sequence[State]:
        """The leaves; without any, the states that came deepest, those on the stack included."""
        reached = [state for state in tree.ended if state.depth == self.depth]
        if reached:
            return best_first(reached)
        return sorted(best_first((*tree.ended, *reversed(tree.open))), key=lambda state: -state.depth)


def best_first(states: Iterable[State]) -> list[State]:
    """By value, the highest first; the earlier of equal ones first, and those without a value last."""
    return sorted(states, key=lambda s: float("inf") if s.value is None else -s.value)


def distinct(states: Iterable[State]) -> list[State]:
    """The first of those with the same thoughts."""
    first: dict[tuple[str, ...], State] = {}
    for state in states:
        first.setdefault(state.thoughts, state)
    return list(first.values())


# --- sizes -----------------------------------------------------------------------------------------


class Level(NamedTuple):
    """So many levels, one after the other, of so many states that are continued."""

    levels: int
    width: int


def levels_of(n: int, k: int, depth: int) -> list[Level]:
    """The levels of a breadth-first search in which every state has k different continuations."""
    found, width = list[Level](), 1
    while depth and (wider := min(n, width * k)) != width:
        found.append(Level(1, width))
        width, depth = wider, depth - 1
    return [*found, Level(depth, width)] if depth else found


def expansions_of(k: int, depth: int, most: int) -> int:
    """How many states can be continued at most in a tree in which every state has k continuations: all that are not
    leaves, or so many."""
    if k == 1:
        return min(depth, most)
    total, width = 0, 1
    while depth and total < most:
        total, width, depth = total + width, width * k, depth - 1
    return min(total, most)
