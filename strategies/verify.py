"""Verify every candidate as it arrives; or all together, where the verifier compares them.

The verifier's verdict is attached to the candidate; nothing is filtered (`first_passing`, `best_of` and
`top_k` choose). Cost: the verifier's calls per candidate and per problem, none for visible tests and answer checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.verifier import AnyVerifier


class Verify(Stage):
    """Attach a verifier's verdicts; candidates flow on in their order, several at once in work."""

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "verdicts", "scores"})

    verifier: AnyVerifier
    """Who judges: a verifier's name, or `{name: settings}`."""
    called: Annotated[str, Field(min_length=1)] | None = None
    """What its verdicts go by; the verifier's name where not given (`unit_tests`, then `unit_tests-2`)."""
    ahead: Annotated[int, Field(ge=1)] = 16
    """How many candidates may be in work at once, and so the most that the verifier is given together."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Judge each candidate; those a verifier cannot speak about pass through undecided."""
        verifier = self.verifier
        if verifier.together:
            gathered = [candidate async for candidate in candidates]
            for candidate in await run.verify(verifier, gathered) if gathered else ():
                yield candidate
            return

        async def judge(batch: Sequence[Candidate]) -> Sequence[Candidate]:
            return await run.verify(verifier, batch)

        most = min(verifier.batch, self.ahead)
        async for judged in run.map(judge, run.batches(candidates, most), ahead=self.ahead // most):
            for candidate in judged:
                yield candidate

    def plan(self, incoming: Count) -> Plan:
        """The verifier's calls for each and for all; all candidates pass."""
        for_all = Count(0, 0 if incoming.high == 0 else self.verifier.calls_per_problem)
        return Plan(incoming.times(self.verifier.calls_per_candidate).plus(for_all), incoming)

    @property
    def title(self) -> str:
        """What is said here, or the verifier's name."""
        return self.called or self.verifier.name

    @property
    def models(self) -> tuple[str, ...]:
        """The verifier's models."""
        return self.verifier.models
