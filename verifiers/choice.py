"""The right option of a multiple-choice question.

The expected answer is a letter, or an option's text. A reply that names its option only by the option's text,
and only one of them, has chosen it. No model calls.
"""

from __future__ import annotations

from collections.abc import Sequence

from archon.answers import extract
from archon.candidate import Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifiers.expected import AnswerVerifier, shown


class Choice(AnswerVerifier):
    """Accept a reply that chooses the expected option; undecided where none is expected."""

    def applies(self, problem: Problem) -> bool:
        """It needs an expected answer that is one of the options."""
        return any(letter_of(problem, answer) for answer in self.accepts(problem))

    async def compare(
        self, problem: Problem, texts: Sequence[str], accepted: Sequence[str], run: Run
    ) -> Sequence[Verdict]:
        """Compare letters."""
        right = {letter_of(problem, answer) for answer in accepted} - {None}
        if not right:
            return [self.said(None, "the expected answer is none of the options")] * len(texts)
        chosen = [_chosen(problem, text) for text in texts]
        return [self.said(letter in right, shown(letter)) for letter in chosen]


def letter_of(problem: Problem, answer: str) -> str | None:
    """The letter that an expected answer names, by itself or by its option's text."""
    options = [_plain(option) for option in problem.choices]
    if _plain(answer) in options:
        return chr(ord("A") + options.index(_plain(answer)))
    letter = answer.strip().strip("().").upper()
    known = len(letter) == 1 and "A" <= letter <= "Z"
    return letter if known and ord(letter) - ord("A") < (len(options) or 26) else None


def _chosen(problem: Problem, text: str) -> str | None:
    letter = extract(problem.model_copy(update={"answer": "choice"}), text)
    if letter is not None or not problem.choices:
        return letter
    last = _plain(next((line for line in reversed(text.splitlines()) if line.strip()), ""))
    for start in ("the answer is ", "answer: ", "answer is "):
        last = last.removeprefix(start)
    return letter_of(problem, last) if len(last) > 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip(" .*").casefold()
