"""What selectors have in common: a pure choice among candidates.

A selector's choice is a function of the candidates alone, so the harness can ask what it would have
chosen at any k from one pool of samples (benchmarks/statistics/selection.py), and a pipeline can run it
live: the same code answers both. Ties go to the earlier candidate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar, NamedTuple

from archon.candidate import Candidate
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.suggest import nearest


class Ballot(NamedTuple):
    """One candidate's vote: for which answer, with what weight."""

    answer: Hashable
    weight: float


class Selector(Stage):
    """Chooses among candidates, best first."""

    ranks: ClassVar[bool] = True

    @abstractmethod
    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The chosen ones, best first; none is an abstention. Pure."""
        raise NotImplementedError

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, then choose."""
        gathered = sorted([c async for c in candidates], key=run.birth)
        for candidate in self.choose(problem, gathered):
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        """No calls; at most one candidate."""
        most = 1 if incoming.high is None else min(1, incoming.high)
        return Plan(Count(0, 0), Count(0, most))


def check_name(by: str | None, candidates: Sequence[Candidate]) -> None:
    """Raise LookupError where no verdict is by this verifier, and one is by another of nearly that name.

    A name that is like none of them may be that of a branch that gave no candidate.
    """
    names = {name for c in candidates for name in c.verdicts}
    if by is not None and by not in names and (meant := nearest(by, names)) is not None:
        raise LookupError(f"no verifier called {by!r} judged these candidates. Did you mean {meant!r}?")


class ScoreSelector(Selector):
    """Chooses the candidate with the highest merit."""

    @abstractmethod
    def merit(self, candidate: Candidate) -> float | None:
        """How good a candidate is; None where it must not be chosen."""
        raise NotImplementedError

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The one with the highest merit; the earliest of equals."""
        check_name(getattr(self, "by", None), candidates)
        merits = [(merit, c) for c in candidates if (merit := self.merit(c)) is not None]
        return [max(merits, key=lambda pair: pair[0])[1]] if merits else []


class VoteSelector(Selector):
    """Chooses the answer with the most votes, and the earliest candidate that gave it."""

    @abstractmethod
    def ballots(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Ballot | None]:
        """One ballot per candidate; None where it has no answer to vote for."""
        raise NotImplementedError

    def choose(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The earliest candidate of the winning answer; the earliest answer wins a tie."""
        totals: dict[Hashable, float] = {}
        first: dict[Hashable, Candidate] = {}
        for candidate, ballot in zip(candidates, self.ballots(problem, candidates), strict=True):
            if ballot is None:
                continue
            totals[ballot.answer] = totals.get(ballot.answer, 0.0) + ballot.weight
            first.setdefault(ballot.answer, candidate)
        if not totals:
            return []
        most = max(totals.values())
        within = 1e-9 * abs(most)  # sums of the same votes in another order are still a tie
        return [next(first[answer] for answer, votes in totals.items() if votes >= most - within)]
