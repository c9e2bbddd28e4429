"""Cheap verifiers first, dear ones only where the cheap cannot decide.

Source: Chen et al. 2023, "FrugalGPT: How to Use Large Language Models While Reducing Cost and Improving
Performance" (arXiv 2305.05176), section 3 (LLM cascade), with verifiers in the place of models. Cost: at most
the sum of its verifiers' calls, and those of the first alone where it always decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifier import AnyVerifier, Verifier

Fraction = Annotated[float, Field(ge=0, le=1)]


class Cascade(Verifier):
    """The verdict of the first verifier that decides; undecided where none does.

    With `reject_below` and `accept_above` a score between them is no decision, except the last one's. They
    are for scores from 0 to 1 (probabilities, fractions; logits count as their probabilities).
    """

    verifiers: tuple[AnyVerifier, ...]
    """The cheapest first: names, or `{name: settings}`."""
    reject_below: Fraction | None = None
    """A rejection counts only with a score below this."""
    accept_above: Fraction | None = None
    """An acceptance counts only with a score above this."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Ask one verifier after the other about what is still open."""
        verdicts = [Verdict(self.name, None, detail="no verifier decides")] * len(candidates)
        todo = list(range(len(candidates)))
        for number, verifier in enumerate(self.verifiers, 1):
            said = await verifier.verify(problem, [candidates[i] for i in todo], run) if todo else ()
            for i, verdict in zip(todo, said, strict=True):
                detail = f"{verifier.name}: {verdict.detail}" if verdict.detail else verifier.name
                verdicts[i] = replace(verdict, verifier=self.name, detail=detail)
                if number < len(self.verifiers) and not self._decided(verdict):
                    verdicts[i] = replace(verdicts[i], accepted=None, status="undecided")
            todo = [i for i in todo if verdicts[i].accepted is None]
        return verdicts

    def applies(self, problem: Problem) -> bool:
        """It speaks where one of its verifiers does."""
        return any(verifier.applies(problem) for verifier in self.verifiers)

    @property
    def together(self) -> bool:  # type: ignore[override]
        """Where one of them compares candidates, it must be given all."""
        return any(verifier.together for verifier in self.verifiers)

    @property
    def models(self) -> tuple[str, ...]:
        """Those of all its verifiers."""
        return tuple(dict.fromkeys(name for verifier in self.verifiers for name in verifier.models))

    @property
    def calls_per_candidate(self) -> int:
        """At most, where nobody but the last decides."""
        return sum(verifier.calls_per_candidate for verifier in self.verifiers)

    @property
    def calls_per_problem(self) -> int:
        """Of all its verifiers."""
        return sum(verifier.calls_per_problem for verifier in self.verifiers)

    def _decided(self, verdict: Verdict) -> bool:
        if verdict.accepted is None:
            return False
        bound = self.accept_above if verdict.accepted else self.reject_below
        score = chance_of(verdict)
        if bound is None or score is None:
            return True
        return score > bound if verdict.accepted else score < bound


def chance_of(verdict: Verdict) -> float | None:
    """A verdict's score from 0 to 1; None where its scale has no such meaning."""
    if verdict.score is None or verdict.scale not in ("probability", "fraction", "logit"):
        return None
    if verdict.scale == "logit":
        return 1.0 / (1.0 + math.exp(-max(-700.0, min(700.0, verdict.score))))
    return verdict.score
