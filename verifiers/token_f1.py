"""How many words an answer shares with the expected one: the F1 of reading-comprehension benchmarks.

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (arXiv 1606.05250),
section 6.1: the harmonic mean of precision and recall over words, without case, punctuation and articles; the
best over the accepted answers. It sees no word order and no "not": `archon audit token_f1`. No model calls.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from archon.answers import extract
from archon.candidate import Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifiers.expected import AnswerVerifier

_ARTICLES = frozenset(("a", "an", "the"))


class TokenF1(AnswerVerifier):
    """Accept an answer that shares enough words with an expected one; the score is the F1."""

    name = "token_f1"

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The least F1 that it accepts."""

    async def compare(
        self, problem: Problem, texts: Sequence[str], accepted: Sequence[str], run: Run
    ) -> Sequence[Verdict]:
        """Compare words."""
        wanted = [words(answer) for answer in accepted]
        scores = [max(f1(words(extract(problem, t) or ""), right) for right in wanted) for t in texts]
        return [self._said(score) for score in scores]

    def _said(self, score: float) -> Verdict:
        right = score >= self.threshold
        return Verdict(self.name, right, score, self.scale, "passed" if right else "wrong", f"F1 {score:.2f}")


def words(text: str) -> Counter[str]:
    """A text's words, without case, punctuation and articles."""
    plain = "".join(c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
    return Counter(word for word in plain.split() if word not in _ARTICLES)


def f1(given: Counter[str], right: Counter[str]) -> float:
    """The harmonic mean of precision and recall; two texts without a word are not equal but empty."""
    shared = (given & right).total()
    return 2 * shared / (given.total() + right.total()) if shared else 0.0
