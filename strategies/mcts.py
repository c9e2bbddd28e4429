"""Monte Carlo tree search over steps, guided by a process reward model or by roll-outs.

Sources: Kocsis and Szepesvári 2006, "Bandit based Monte-Carlo Planning" (UCT); its four parts, and the constant, as in
Browne et al. 2012, "A Survey of Monte Carlo Tree Search Methods", sections 3.1 and 3.3. Selection goes from the root to
a node that has no children yet, at each node to the child with the highest Q + c √(ln N / n): its value, and what
it is worth to try it again where the node was visited N times and the child n times. Expansion has it continued
`children` times; equal continuations are one child. Each is judged: by the score of the reward model (`value: reward`),
or by that of the answer that it is rolled out to (`value: rollout`). What they are worth is backed up to the root: a
node's value is the mean of its own and of all below it, or the maximum (`backup`).

Cost: at most n expansions, each of `children` calls and as many scores; with roll-outs, a second call for each child
that is not finished. Where no whole answer was met by then, one node is completed, the leaf that one comes to by the
children most visited: two calls and a score at most.

Where a textbook's search would go to a finished node again, and learn nothing, this one goes elsewhere, so every
expansion writes something new; the search is over when the whole tree is finished. Values that are not probabilities
are taken relative to the lowest and highest so far. `batch` expansions are in flight in one round (Chaslot et al.
2008, "Parallel Monte-Carlo Tree Search": virtual loss): each counts, until it is told, as a visit to
all nodes on its way that found the lowest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archon.stage import Count, Plan
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.ranking import best_first, distinct
from archon.strategies.stepping.search import Given, Wish
from archon.strategies.stepping.stage import Stepping
from archon.strategies.stepping.tree import (
    EMPTY_TREE,
    UNIT,
    Born,
    Node,
    Span,
    Tree,
    added,
    closed,
    path,
    span,
)


@dataclass(frozen=True, slots=True)
class Searched:
    """The state: the tree, what stands at each place of it, and what is in flight."""

    tree: Tree
    partials: tuple[Partial, ...]
    """The partial answer of each node."""
    left: int
    """Expansions that may still be asked for, those in flight included."""
    chosen: tuple[int, ...] = ()
    """The nodes in flight."""
    answers: tuple[Partial, ...] = ()
    """Whole answers met so far, in the order in which they came."""
    cut: tuple[Partial, ...] = ()
    """What a limit or a filter cut off."""
    completing: bool = False
    """Whether what is in flight is completed."""
    calibrated: bool = True
    """Whether values are probabilities."""


def uct(value: float, visits: int, parent_visits: int, exploration: float) -> float:
    """What it is worth to go to a child."""
    return value + exploration * math.sqrt(math.log(parent_visits) / visits)


class MCTS(Stepping):
    """Grow a tree of steps where it is most promising, or least known."""

    name: ClassVar[str] = "mcts"

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many nodes are expanded at most."""
    children: Annotated[int, Field(ge=2, le=1_000_000)] = 4
    """How often a node is continued when it is expanded."""
    exploration: Annotated[float, Field(ge=0, allow_inf_nan=False)] = math.sqrt(2)
    """The constant c. √2 is that of UCB1 for values from 0 to 1; with 0 the best child is always gone to."""
    value: Literal["reward", "rollout"] = "reward"
    """How a node is judged: by the reward model's score of it, or of the answer that it is rolled out to."""
    backup: Literal["mean", "max"] = "mean"
    """What a node is worth: the mean of all values from it on, or the highest: of its children, and with roll-outs of
    its own too."""
    batch: Annotated[int, Field(ge=1)] = 1
    """How many expansions are in flight in one round; 1 is the textbook's algorithm."""

    def start(self, given: Given) -> Searched:
        """The root is expanded first."""
        return Searched(EMPTY_TREE, (EMPTY,), self.n, (0,), calibrated=given.calibrated)

    def ask(self, state: Searched) -> Sequence[Wish]:
        """The chosen nodes, each continued; or one, to its end."""
        if state.completing:
            return [Wish(state.partials[place], 1, ahead=None) for place in state.chosen]
        ahead = None if self.value == "rollout" else 0
        return [Wish(state.partials[place], self.children, ahead, greedy=False) for place in state.chosen]

    def tell(self, state: Searched, grown: Sequence[Sequence[Partial]]) -> Searched:
        """What came is backed up, and the next are chosen."""
        ends = _ended(partial for some in grown for partial in some)
        answers = (*state.answers, *(end for end in ends if end.whole))
        cut = (*state.cut, *(end for end in ends if not end.whole))
        state = replace(state, answers=answers, cut=cut)
        if state.completing:
            return replace(state, chosen=())
        kept = [distinct(some) for some in grown]
        births = [[Born(_number(partial.value), partial.finished) for partial in some] for some in kept]
        tree = added(
            closed(state.tree, state.chosen),
            zip(state.chosen, births, strict=True),
            reached=self.value == "rollout",
        )
        partials = (*state.partials, *(replace(p, ahead=None) for some in kept for p in some))
        state = replace(state, tree=tree, partials=partials, left=state.left - len(state.chosen))
        chosen = self._chosen(state)
        if chosen or answers or tree[0].over:
            return replace(state, chosen=chosen)
        return replace(state, chosen=(_robust(state.tree),), completing=True)

    def found(self, state: Searched) -> Sequence[Partial]:
        """The answers that are whole, the best first, then what was cut off; where there is none, the leaves too."""
        if state.answers:
            return [*best_first(state.answers), *best_first(state.cut)]
        return best_first([*state.cut, *(state.partials[place] for place in _leaves(state))])

    def plan(self, incoming: Count) -> Plan:
        """At most so many calls for each child, and those of a completion."""
        nodes = self.n * self.children
        writes = nodes * (2 if self.value == "rollout" else 1) + 2
        scores = 0 if self.reward is None else nodes + 1
        return Plan(Count(1, writes + scores), Count(0, nodes + 1))

    # --- selection ---------------------------------------------------------------------------------

    def _chosen(self, state: Searched) -> tuple[int, ...]:
        """The nodes to expand next: each as if those before it had found nothing."""
        chosen: list[int] = []
        flying: dict[int, int] = {}
        taken: set[int] = set()
        scale = UNIT if state.calibrated else span(state.tree)
        while len(chosen) < min(self.batch, state.left) and not (state.tree[0].over or 0 in taken):
            place = self._selected(state.tree, scale, flying, taken)
            chosen.append(place)
            for up in path(state.tree, place):
                flying[up] = flying.get(up, 0) + 1
                node = state.tree[up]
                if node.closed and not all(state.tree[c].over or c in taken for c in node.children):
                    continue
                taken.add(up)
        return tuple(chosen)

    def _selected(self, tree: Tree, scale: Span, flying: Mapping[int, int], taken: set[int]) -> int:
        """Down from the root, to a node that is to be expanded; the earlier child of equals."""
        place, value = 0, 0.0
        while tree[place].closed:
            parent = tree[place]
            visits = parent.visits + flying.get(place, 0)
            value = self._worth(parent, scale, 0, value)
            children = [child for child in parent.children if not (tree[child].over or child in taken)]

            def worth(child: int, visits: int = visits, unknown: float = value) -> float:
                more = flying.get(child, 0)
                known = self._worth(tree[child], scale, more, unknown)
                return uct(known, tree[child].visits + more, visits, self.exploration)

            place = max(children, key=worth)
        return place

    def _worth(self, node: Node, scale: Span, flying: int, unknown: float) -> float:
        """A node's value, from 0 to 1; its parent's where none is known."""
        if not node.known:
            return unknown
        raw = node.total / node.known if self.backup == "mean" or node.best is None else node.best
        return scale.scaled(raw) * node.known / (node.known + flying)


def _ended(came: Iterable[Partial]) -> list[Partial]:
    """What is finished of them, and of what they were rolled out to."""
    ends = [partial if partial.ahead is None else partial.ahead for partial in came]
    return [end for end in ends if end.finished]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _robust(tree: Tree) -> int:
    """Down from the root, to a node that could be expanded: to the child most visited, and of equals the best."""
    place = 0
    while tree[place].closed:
        nodes = {child: tree[child] for child in tree[place].children if not tree[child].over}
        place = max(nodes, key=lambda child: (nodes[child].visits, _mean(nodes[child])))
    return place


def _mean(node: Node) -> float:
    return node.total / node.known if node.known else -math.inf


def _leaves(state: Searched) -> tuple[int, ...]:
    """The nodes that could be expanded, the best first; not the root, where nothing is written."""
    values = {
        place: -math.inf if node.value is None else node.value
        for place, node in enumerate(state.tree)
        if place and not node.closed
    }
    return tuple(sorted(values, key=lambda place: -values[place]))
