"""Several weak verifiers as one: how likely an answer is right, given all their votes, without labels.

Source: Saad-Falcon et al. 2025, "Shrinking the Generation-Verification Gap with Weak Verifiers" (Weaver, arXiv
2506.18203): weak supervision over verifiers' votes. Here with the latent-class model of Dawid and Skene, fitted to
the votes on one problem's candidates, or with rates that were estimated before (verifiers/votes.py); a plain average
and logistic weights to compare with. Cost: the members' calls.

What it cannot see: verifiers that err together (two judges of one family) count as two witnesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from archon.candidate import Candidate, Scale, Status, Verdict
from archon.component import Value
from archon.problem import Problem
from archon.run import Run
from archon.verifier import AnyVerifier, Verifier
from archon.verifiers.cascade import chance_of
from archon.verifiers.votes import Array, Logistic, average, fit_latent, logistic, posterior

Rate = Annotated[float, Field(gt=0, lt=1)]


class Member(Value):
    """One verifier of an ensemble, and what is known of it from elsewhere."""

    verifier: AnyVerifier
    """Who votes: a verifier's name, or `{name: settings}`."""
    accepts_right: Rate | None = None
    """Method `latent`: how often it accepts what is right; estimated from the problem's own candidates where
    not given."""
    accepts_wrong: Rate | None = None
    """Method `latent`: how often it accepts what is wrong; estimated likewise."""
    weight: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0
    """Method `average` or `logistic`: what its vote weighs."""


class Ensemble(Verifier):
    """The probability that an answer is right, given several verifiers' votes; undecided where none votes."""

    scale: ClassVar[Scale] = "probability"
    together: ClassVar[bool] = True

    members: tuple[Member, ...]
    """Who votes."""
    method: Literal["latent", "average", "logistic"] = "latent"
    """`latent`: by rates estimated without labels; `average`: the mean score; `logistic`: by weights that were
    fitted to labelled answers."""
    prior: Rate | None = None
    """Method `latent`: the share of right answers; estimated from the problem's own candidates where not given."""
    bias: Annotated[float, Field(ge=-1e6, le=1e6)] = 0.0
    """Method `logistic`: what is added to the weighted sum."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The probability above which it accepts, and below which it rejects."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Ask all members about all candidates, then weigh what they say."""
        if not candidates or not self.members:
            return [Verdict(self.name, None, detail="it has no members")] * len(candidates)
        said = await run.gather(*(m.verifier.verify(problem, candidates, run) for m in self.members))
        votes = np.array([[self._vote(v) for v in verdicts] for verdicts in said], dtype=np.float64).T
        return [
            self._verdict(float(p), row) for p, row in zip(self._probabilities(votes), votes, strict=True)
        ]

    def applies(self, problem: Problem) -> bool:
        """It speaks where one of its members does."""
        return any(member.verifier.applies(problem) for member in self.members)

    @property
    def models(self) -> tuple[str, ...]:
        """Those of all its members."""
        return tuple(dict.fromkeys(name for member in self.members for name in member.verifier.models))

    @property
    def calls_per_candidate(self) -> int:
        """Of all its members."""
        return sum(member.verifier.calls_per_candidate for member in self.members)

    @property
    def calls_per_problem(self) -> int:
        """Of all its members."""
        return sum(member.verifier.calls_per_problem for member in self.members)

    def _vote(self, verdict: Verdict) -> float:
        """From 0 to 1; not a number where it did not vote. Rates are of acceptances, not of scores."""
        score = chance_of(verdict)
        if self.method != "latent" and score is not None:
            return score
        return np.nan if verdict.accepted is None else float(verdict.accepted)

    def _probabilities(self, votes: Array) -> Array:
        if self.method == "average":
            return average(votes, [member.weight for member in self.members])
        if self.method == "logistic":
            return logistic(votes, Logistic(np.array([m.weight for m in self.members]), self.bias))
        fit = fit_latent(
            votes,
            prior=self.prior,
            accepts_right=[member.accepts_right for member in self.members],
            accepts_wrong=[member.accepts_wrong for member in self.members],
        )
        return posterior(votes, fit)

    def _verdict(self, probability: float, votes: Array) -> Verdict:
        cast = votes[~np.isnan(votes)]
        if not len(cast):
            return Verdict(self.name, None, None, self.scale, "undecided", "no member votes")
        accepted = None if probability == self.threshold else probability > self.threshold
        status: Status = "undecided" if accepted is None else "passed" if accepted else "wrong"
        detail = f"{int((cast > 0.5).sum())} of {len(cast)} votes for it"
        return Verdict(self.name, accepted, probability, self.scale, status, detail)
