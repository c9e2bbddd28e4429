"""The k candidates with the highest scores, best first. Cost: none of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.stage import Count, Fact, Plan
from archon.strategies.selection import Selector, check_name


class TopK(Selector):
    """Keep the k best by score; equal ones in their order, unscored ones last."""

    requires: ClassVar[frozenset[Fact]] = frozenset({"scores"})

    k: Annotated[int, Field(ge=1)]
    """How many to keep."""
    by: str | None = None
    """Whose score; the only verifier's where not given."""

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The k best."""
        check_name(self.by, candidates)
        scored = [(c, c.score(self.by)) for c in candidates]
        ranked = sorted(scored, key=lambda pair: (True, 0.0) if pair[1] is None else (False, -pair[1]))
        return [candidate for candidate, _ in ranked[: self.k]]

    def plan(self, incoming: Count) -> Plan:
        """No calls; at most k candidates."""
        most = self.k if incoming.high is None else min(self.k, incoming.high)
        return Plan(Count(0, 0), Count(min(self.k, incoming.low), most))
