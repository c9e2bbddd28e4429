"""Weighted voting: each candidate votes for its answer with its verifier's score.

Source: Li et al. 2022, "Making Language Models Better Reasoners with Step-Aware Verifier" (arXiv
2206.02336), section 3.2 (voting verifier); as `weighted best-of-N` in Snell et al. 2024 (arXiv
2408.03314), section 5.1. Cost: none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from archon.answers import normal_form
from archon.candidate import Candidate
from archon.problem import Problem
from archon.stage import Fact
from archon.strategies.selection import Ballot, VoteSelector, check_name

_MOST = 1e300
"""An infinite score outweighs every other, and sums of it are still numbers."""


class WeightedVote(VoteSelector):
    """Sum scores per answer. Logits count as their probabilities, ranks as their reciprocals; unscored
    candidates count nothing.

    Other scores count as they are, as in the papers, whose scores are probabilities. A negative one is an
    error: it would count against the answer that has it, and a popular answer would lose by being popular.
    The verifier should say what its scores are: those of a reward model are logits.
    """

    requires: ClassVar[frozenset[Fact]] = frozenset({"scores"})

    by: str | None = None
    """Whose score; the only verifier's where not given."""

    def ballots(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Ballot | None]:
        """A vote for each candidate's answer, weighted."""
        check_name(self.by, candidates)
        return [self._ballot(problem, c) for c in candidates]

    def _ballot(self, problem: Problem, candidate: Candidate) -> Ballot | None:
        answer = normal_form(problem, candidate.text)
        if answer is None:
            return None
        score = candidate.score(self.by)
        if score is None:
            return Ballot(answer, 0.0)
        verdict = next(
            v for v in candidate.verdicts.values() if v.score is not None and self.by in (None, v.verifier)
        )
        if verdict.scale == "logit":
            score = 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, score))))
        elif verdict.scale == "rank":
            score = 1.0 / max(1.0, -score)
        elif score < 0:
            raise ValueError(
                f"{verdict.verifier!r} scored candidate {candidate.id} {score:g}, and a vote cannot weigh less than "
                "nothing. If its scores are logits (a reward model's are), its `scale` should say so; "
                "or choose with `best_of`"
            )
        return Ballot(answer, min(score, _MOST))
