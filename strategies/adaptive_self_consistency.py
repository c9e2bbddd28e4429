"""Adaptive self-consistency: sampling stops when the samples agree enough.

Source: Aggarwal et al. 2023, "Let's Sample Step by Step: Adaptive-Consistency for Efficient Reasoning and Coding with
LLMs" (arXiv 2305.11860), section 3: after each sample, how likely is it that the answer in the lead is the model's most
likely one? `beta` compares it with the runner-up, `dirichlet` with every answer seen. `majority` asks nothing of
probabilities: it stops when the vote is decided, whatever the samples that are left would say.
Cost: none of its own; it closes its input, which cancels what is outstanding. How many samples are under way when it
does is the source's `wave`:

    - sample: {n: 40, wave: 4}
    - adaptive_self_consistency
    - majority_vote

Answers are compared as `majority_vote` compares them (archon/answers.py). A sample without one counts as drawn.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from archon.answers import normal_form
from archon.errors import Flaw
from archon.problem import Problem
from archon.run import Run
from archon.stage import NONE, Candidates, Count, Plan, Stage, Stream

if TYPE_CHECKING:
    from archon.graph import Graph

_NODES = 256


class AdaptiveSelfConsistency(Stage):
    """Pass candidates on until their answers agree enough; then nothing more is sampled.

    A choice comes after it: `majority_vote`, `weighted_vote`, any other. Candidates are looked at in order of arrival,
    so where many are under way at once, the quick ones are heard first.
    """

    stops_early: ClassVar[bool] = True

    rule: Literal["beta", "dirichlet", "majority"] = "beta"
    """When to stop: the leading answer is likelier than the runner-up, or than all others that were seen, with
    probability `threshold`; or no other can overtake it, or draw level, in the samples that are left."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """How probable that must be. The rule `majority` knows nothing of it."""
    least: Annotated[int, Field(ge=1)] = 1
    """Candidates that are looked at in any case."""
    n: Annotated[int, Field(ge=1)] | None = None
    """Candidates that are looked at, at most; all where not given."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Take candidates until it is clear how they vote."""
        most = self._most(run.flow.graph.incoming(run.place))
        votes: Counter[str] = Counter()
        taken = 0
        async for candidate in candidates:
            taken += 1
            answer = normal_form(problem, candidate.text)
            if answer is not None:
                votes[answer] += 1
            yield candidate
            if taken == self.n or (taken >= self.least and self.decided(list(votes.values()), most - taken)):
                return

    def decided(self, votes: Sequence[int], left: float) -> bool:
        """Whether so many votes for each answer are enough, where at most so many samples are left."""
        if not votes:
            return False
        lead, second = first_two(votes)
        if self.rule == "majority":
            return lead - second > left
        sure = leads(lead, second) if self.rule == "beta" else is_mode(votes)
        return sure >= self.threshold

    def plan(self, incoming: Count) -> Plan:
        """No calls; all candidates, or fewer."""
        most = self._most(incoming)
        return Plan(NONE, Count(min(1, incoming.low), None if math.isinf(most) else int(most)))

    def misplaced(self, graph: Graph, path: str) -> Iterable[Flaw]:
        """Whether the vote is decided depends on how many can still come."""
        if self.rule == "majority" and math.isinf(self._most(graph.incoming(path))):
            yield Flaw(
                path,
                "the rule `majority` must know how many candidates there will be, and those before it are unbounded",
                "Give `n`, how many it looks at",
            )

    def _most(self, incoming: Count) -> float:
        """How many candidates there can be."""
        known = [most for most in (self.n, incoming.high) if most is not None]
        return min(known, default=math.inf)


# --- probabilities ---------------------------------------------------------------------------------


def first_two(votes: Sequence[int]) -> tuple[int, int]:
    """The votes for the leading answer and for the runner-up, which may have none."""
    ordered = sorted(votes, reverse=True)
    return ordered[0], ordered[1] if len(ordered) > 1 else 0


@lru_cache(maxsize=65536)
def leads(lead: int, second: int) -> float:
    """P(p > 1/2), where p is the leading answer's share of what it and the runner-up have.

    A uniform prior makes of the votes the posterior Beta(lead + 1, second + 1).
    """
    from scipy.special import betainc

    return float(betainc(second + 1, lead + 1, 0.5))


def is_mode(votes: Sequence[int]) -> float:
    """P(the leading answer is the likeliest of those seen), after a uniform prior over their probabilities.

    Of a single answer, whether it beats one that is yet to be seen: else one sample would settle everything. For one
    and two answers it is what `leads` says.
    """
    return _is_mode(tuple(sorted(votes if len(votes) > 1 else [*votes, 0], reverse=True)))


@lru_cache(maxsize=65536)
def _is_mode(votes: tuple[int, ...]) -> float:
    """Shares drawn from Dirichlet(votes + 1) stand in the order of independent draws from Gamma(votes + 1). So it is
    an integral over the leader's draw, of the chance that all others are below: smooth, and of one dimension."""
    import numpy as np
    from scipy.special import gammainc, gammaln

    nodes, weights = _gauss_legendre()
    shape = votes[0] + 1.0
    low = max(0.0, shape - 12 * math.sqrt(shape))
    high = shape + 12 * math.sqrt(shape) + 40
    x = low + (high - low) * (nodes + 1) / 2
    density = np.exp(votes[0] * np.log(x) - x - gammaln(shape))
    for count, times in Counter(votes[1:]).items():
        density *= gammainc(count + 1.0, x) ** times
    return min(1.0, float(density @ weights) * (high - low) / 2)


@lru_cache(maxsize=1)
def _gauss_legendre():  # type: ignore[no-untyped-def]
    import numpy as np

    return np.polynomial.legendre.leggauss(_NODES)
