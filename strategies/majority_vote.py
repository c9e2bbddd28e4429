"""Self-consistency: the answer that most candidates give.

Source: Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning in Language Models"
(arXiv 2203.11171), section 2: sample diverse reasoning paths, marginalise them out, keep the most
consistent answer. Cost: none of its own.

Answers are compared in a normal form (archon/answers.py): numbers by value, formulas without their
typography, code by its syntax tree.
"""

from __future__ import annotations

from collections.abc import Sequence

from archon.answers import normal_form
from archon.candidate import Candidate
from archon.problem import Problem
from archon.strategies.selection import Ballot, VoteSelector


class MajorityVote(VoteSelector):
    """One candidate, one vote; candidates without an answer do not vote."""

    def ballots(self, problem: Problem, candidates: Sequence[Candidate]) -> list[Ballot | None]:
        """A vote for each candidate's answer in its normal form."""
        answers = [normal_form(problem, c.text) for c in candidates]
        return [None if answer is None else Ballot(answer, 1.0) for answer in answers]
