"""Hierarchical selection: choose within each chain of revisions; what comes after chooses across the chains.

Source: Snell et al. 2024 (arXiv 2408.03314), section 6, where answers of several revision chains are selected first
within and then across chains. Cost: none of its own.

A chain is read off the candidates' lineage: who was written from whom. Candidates that were written from nothing, and
from which nothing was written, are chains of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from archon.candidate import Candidate
from archon.component import Nested
from archon.errors import Flaw
from archon.problem import Problem
from archon.stage import Count, Fact, Plan, Stage
from archon.strategies.selection import Selector

if TYPE_CHECKING:
    from archon.graph import Graph


class PerChain(Selector):
    """Apply a selector to every chain by itself; the chosen ones flow on, in the order of their chains.

    Where chains met (an answer was written from several chains) they count as the first of them. Put it before
    whatever drops candidates, since a chain with a gap may read as two.
    """

    ranks: ClassVar[bool] = False

    selector: Annotated[Selector, Nested("stage")]
    """What chooses within a chain: `majority_vote`, `{weighted_vote: {by: reward}}`, `best_of`, ..."""

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """What the selector chooses of each chain."""
        return [chosen for chain in chains_of(candidates) for chosen in self.selector.choose(problem, chain)]

    def plan(self, incoming: Count) -> Plan:
        """No calls."""
        return Plan(Count(0, 0), Count(0, incoming.high))

    def rules(self, before: tuple[Stage, ...], after: tuple[Stage, ...]) -> Iterable[str]:
        """The selector's needs are this stage's."""
        given: set[Fact] = {fact for stage in before for fact in stage.provides}
        for fact in sorted(self.selector.requires - given):
            yield f"its selector {self.selector.name!r} needs {fact}, and no stage before it gives any"

    def misplaced(self, graph: Graph, path: str) -> Iterable[Flaw]:
        """Whose score the selector goes by must be clear."""
        if unclear := graph.whose_score(self.selector, graph.upstream[path]):
            yield Flaw(path, unclear)


def chains_of(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """The candidates by chain, the chains in the order of their first ones; parents stand before what is made of
    them."""
    chains: list[list[Candidate]] = []
    known: dict[str, int] = {}
    for candidate in candidates:
        kin = (candidate.id, *candidate.parents)
        number = min((known[one] for one in kin if one in known), default=len(chains))
        if number == len(chains):
            chains.append([])
        chains[number].append(candidate)
        for one in kin:
            known.setdefault(one, number)
    return chains
