"""Equal to an expected answer, in normal form: numbers by value, choices by letter, text by its words.

The answer is read out of the reply as votes and graders read it (archon/answers.py), and never searched for
in it: the right number in the wrong place is not an answer. No model calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from archon.answers import canonical_formula, canonical_number, extract, normal_form
from archon.candidate import Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifiers.expected import AnswerVerifier, shown


class Exact(AnswerVerifier):
    """Accept an answer that equals an expected one; undecided where none is expected."""

    literal: bool = False
    """Compare the answer as it is written, capitals, spaces and digits included."""

    async def compare(
        self, problem: Problem, texts: Sequence[str], accepted: Sequence[str], run: Run
    ) -> Sequence[Verdict]:
        """Compare texts."""
        read = _as_written if self.literal else normal_form
        wanted = {a.strip() if self.literal else normal(problem, a) for a in accepted}
        answers = [read(problem, text) for text in texts]
        return [self.said(a is not None and a in wanted, shown(a)) for a in answers]


def _as_written(problem: Problem, text: str) -> str | None:
    answer = extract(problem, text)
    return None if answer is None else answer.strip()


def normal(problem: Problem, answer: str) -> str | None:
    """The normal form of an answer that stands by itself, with nothing around it to read it out of."""
    if problem.answer == "number":
        return canonical_number(answer)
    if problem.answer == "math":
        return canonical_formula(answer)
    if problem.answer == "choice":
        return answer.strip().strip("().").casefold()
    return normal_form(problem, answer)
