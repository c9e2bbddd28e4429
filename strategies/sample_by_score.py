"""Choose one candidate at random, in proportion to its weight.

Source: the final draw of a particle filter, Puri et al. 2025 (arXiv 2502.01618), section 3, and the reference draw of
Particle Gibbs, Andrieu, Doucet and Holenstein 2010. Cost: none of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.steps import convert
from archon.strategies.selection import check_name
from archon.strategies.stepping.resampling import normalised, resampled
from archon.strategies.stepping.search import generator
from archon.strategies.stepping.weights import Weighing, log_weight


class SampleByScore(Stage):
    """Draw one candidate with probability proportional to the odds of its score, or to the score.

    Scores that are no probabilities, logits or fractions weigh exp(score / temperature). One without a score is drawn
    only where none has one, all the same then. The draw is the run's: the same seed draws the same.
    """

    requires: ClassVar[frozenset[Fact]] = frozenset({"scores"})
    ranks: ClassVar[bool] = True

    by: str | None = None
    """Whose score; the only verifier's where not given."""
    weigh: Weighing = "logit"
    """What a candidate weighs: the odds of its score as a probability, or that probability."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The weight is raised to one over this."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, then draw."""
        gathered = sorted([c async for c in candidates], key=run.birth)
        seed = run.rng.getrandbits(63)
        if (chosen := self.drawn(problem, gathered, seed)) is not None:
            yield chosen

    def plan(self, incoming: Count) -> Plan:
        """No calls; at most one candidate."""
        most = 1 if incoming.high is None else min(1, incoming.high)
        return Plan(Count(0, 0), Count(min(1, incoming.low), most))

    def drawn(self, problem: Problem, candidates: Sequence[Candidate], seed: int) -> Candidate | None:
        """The one that this seed draws; None of none. Pure."""
        check_name(self.by, candidates)
        scored = [(c, log) for c in candidates if (log := self._log_weight(c)) is not None]
        pool = scored or [(c, 0.0) for c in candidates]
        if not pool:
            return None
        weights = normalised([log for _, log in pool])
        return pool[int(resampled(weights, 1, "multinomial", generator(seed))[0])][0]

    def _log_weight(self, candidate: Candidate) -> float | None:
        """None where it has no score."""
        score = candidate.score(self.by)
        if score is None:
            return None
        verdict = next(
            v for v in candidate.verdicts.values() if v.score is not None and self.by in (None, v.verifier)
        )
        value, calibrated = _as_probability(verdict, score)
        return log_weight(value, calibrated=calibrated, by=self.weigh, temperature=self.temperature)


def _as_probability(verdict: Verdict, score: float) -> tuple[float, bool]:
    """A score as a probability where it can be one, and whether it can."""
    if verdict.scale == "logit":
        return convert(score, "logit", "probability"), True
    if verdict.scale in ("probability", "fraction"):
        return min(max(score, 0.0), 1.0), True
    return score, False
