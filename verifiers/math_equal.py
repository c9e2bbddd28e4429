"""Equal to an expected formula as mathematics: `1/2`, `0.5` and `\\frac{2}{4}` are one answer.

By math-verify (https://github.com/huggingface/Math-Verify), in the sandbox, as parsing a reply can hang or worse;
comparisons are remembered. No model calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from archon.answers import canonical_formula, normal_form
from archon.candidate import Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifiers.expected import AnswerVerifier, shown
from archon.verifiers.mathematics import equal_answers

_KINDS = ("math", "number")


class MathEqual(AnswerVerifier):
    """Accept a formula that equals an expected one; undecided where that cannot be told in time."""

    batch: ClassVar[int] = 64

    def applies(self, problem: Problem) -> bool:
        """It needs an expected answer, of a kind that is mathematics."""
        return problem.answer in _KINDS and super().applies(problem)

    async def compare(
        self, problem: Problem, texts: Sequence[str], accepted: Sequence[str], run: Run
    ) -> Sequence[Verdict]:
        """Equal in normal form is equal; the rest is compared as mathematics."""
        if problem.answer not in _KINDS:
            return [self.said(None, f"answers of kind {problem.answer!r} are no formulas")] * len(texts)
        answers = [normal_form(problem, text) for text in texts]
        equal: dict[str, bool | None] = {c: True for gold in accepted if (c := canonical_formula(gold))}
        for gold in accepted:
            todo = sorted({a for a in answers if a is not None and equal.get(a) is not True})
            for answer, one in zip(todo, await equal_answers(gold, todo, run.session), strict=True):
                # Undecided for one expected answer and unequal to another is still undecided.
                equal[answer] = one if one is not False or answer not in equal else equal[answer]
        return [self._said(answer, equal) for answer in answers]

    def _said(self, answer: str | None, equal: dict[str, bool | None]) -> Verdict:
        if answer is None:
            return self.said(False, shown(None))
        if equal[answer] is None:
            return self.said(None, "the comparison did not end in time", "timed_out")
        return self.said(equal[answer], shown(answer))
