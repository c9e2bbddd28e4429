"""Best-of-N: the candidate with the highest score.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv 2110.14168), section 4:
sample many, choose the one the verifier ranks highest. Cost: none of its own.
"""

from __future__ import annotations

from typing import ClassVar

from archon.candidate import Candidate
from archon.stage import Fact
from archon.strategies.selection import ScoreSelector

_LEAST = -1e300
"""The worst score there is, above none at all."""


class BestOf(ScoreSelector):
    """Keep the candidate with the highest score; the earliest of equals. Unscored ones come last."""

    requires: ClassVar[frozenset[Fact]] = frozenset({"scores"})

    by: str | None = None
    """Whose score; the only verifier's where not given."""

    def merit(self, candidate: Candidate) -> float | None:
        """Its score."""
        score = candidate.score(self.by)
        return float("-inf") if score is None else max(score, _LEAST)
