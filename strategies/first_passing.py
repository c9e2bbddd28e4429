"""The first candidate that every verifier accepts; then nothing more is sampled.

Source: repeated sampling with an automatic verifier (Brown et al. 2024, arXiv 2407.21787, section 2),
stopped at the first success. Cost: none of its own; it closes its input, which cancels what is
outstanding.
"""

from __future__ import annotations

from typing import ClassVar

from archon.candidate import Candidate
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Fact, Stream
from archon.strategies.selection import ScoreSelector


class FirstPassing(ScoreSelector):
    """Keep the first accepted candidate and stop; abstain where none is accepted.

    First means first to arrive. What is outstanding is cancelled all the way to the engine, and billed
    as far as it came.
    """

    requires: ClassVar[frozenset[Fact]] = frozenset({"verdicts"})
    stops_early: ClassVar[bool] = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Take candidates until one is accepted."""
        async for candidate in candidates:
            if candidate.accepted:
                yield candidate
                return

    def merit(self, candidate: Candidate) -> float | None:
        """Accepted ones are equally good, so the earliest wins; others must not be chosen."""
        return 1.0 if candidate.accepted else None
