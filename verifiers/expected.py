"""What the answer verifiers share: where the expected answer comes from, and when a reply is no clear answer.

The expected answer is what a pipeline may know: a setting, or a key of the problem's `info`. What only the
grader knows never reaches a verifier (D7). A reply that negates its answer, offers several or contradicts
itself reads like a right one to whoever looks for the answer alone; it is undecided, not accepted.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from archon.answers import canonical_formula, canonical_number, extract
from archon.candidate import Candidate, Scale, Status, Verdict
from archon.problem import Problem
from archon.run import Run
from archon.verifier import Verifier


class AnswerVerifier(Verifier):
    """Compares each answer with the expected ones."""

    scale: ClassVar[Scale] = "fraction"

    expected: tuple[str, ...] = ()
    """The accepted answers; those of the problem's `info` where none are given."""
    key: Annotated[str, Field(min_length=1)] = "expected"
    """The key of the problem's `info` that holds the accepted answer, or a list of them."""
    wary: bool = True
    """Undecided, not accepted, where a reply negates its answer, offers several or contradicts itself."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Compare; undecided where nothing is expected."""
        accepted = self.accepts(problem)
        if not accepted:
            why = f"nothing is expected: no `expected` is set, and the problem's info has no {self.key!r}"
            return [Verdict(self.name, None, detail=why)] * len(candidates)
        verdicts = await self.compare(problem, [c.text for c in candidates], accepted, run)
        return [self._wary(problem, c.text, v) for c, v in zip(candidates, verdicts, strict=True)]

    def applies(self, problem: Problem) -> bool:
        """It needs an expected answer."""
        return bool(self.accepts(problem))

    def accepts(self, problem: Problem) -> tuple[str, ...]:
        """The answers that are right, as far as a pipeline may know."""
        return self.expected or texts_of(problem.info, self.key)

    @abstractmethod
    async def compare(
        self, problem: Problem, texts: Sequence[str], accepted: Sequence[str], run: Run
    ) -> Sequence[Verdict]:
        """A verdict on each reply, given what is accepted."""
        raise NotImplementedError

    def said(self, right: bool | None, detail: str = "", status: Status | None = None) -> Verdict:
        """A verdict of right, wrong, or undecided."""
        if right is None:
            return Verdict(self.name, None, None, self.scale, status or "undecided", detail)
        return Verdict(self.name, right, float(right), self.scale, "passed" if right else "wrong", detail)

    def _wary(self, problem: Problem, text: str, verdict: Verdict) -> Verdict:
        if not self.wary or verdict.accepted is not True:
            return verdict
        doubt = why_unclear(problem, text)
        return self.said(None, doubt) if doubt else verdict


def texts_of(info: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts under a key: one, or a list; numbers as texts."""
    found = info.get(key)
    several = found if isinstance(found, list | tuple) else [found]
    return tuple(str(v) for v in several if isinstance(v, str | int | float) and not isinstance(v, bool))


def shown(text: str | None) -> str:
    """An answer as a verdict's detail tells it."""
    return "no answer found" if text is None else f"answered {' '.join(text.split())[:80]}"


# --- when a reply is no clear answer ---------------------------------------------------------------

_LONGEST = 20_000
"""Only so much of a reply's end is looked at."""
_INSIDE = r"(?:[^{}]|\{[^{}]*\}){1,200}"
"""What a box may hold: braces inside braces, one deep."""
_VALUES = {
    "number": r"(?<![\w.])-?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|\.\d)",
    "math": rf"\\boxed\s*\{{{_INSIDE}\}}|" r"(?<![\w.\\{])-?\d+(?:\.\d+)?(?![\w}]|\.\d)",
    "choice": r"(?<![\w'])\(?[A-Z]\)?(?![\w'])",
}
_LISTED = re.compile(
    r"[\s,;/|*$]*(?:(?:or|and|maybe|perhaps|possibly|else|either|even)\b[\s,;/|*$(]*){0,3}", re.IGNORECASE
)
_WIDEST = 40
"""Values that stand farther apart are no list."""
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|isn't|wasn't|can't|isn’t|can’t)\b(?:\s+[\w'’]+){0,3}[\s:*($\\]*"
    r"|≠\s*|!=\s*|\\neq?\s*\$?)$",
    re.IGNORECASE,
)
_NOT_AFTER = re.compile(
    r"[\s*)$}]*(?:,\s*which\s+)?(?:(?:is|was|would be|must be|can|could)\s+(?:[\w'’]+\s+){0,2})?"
    r"(?:not|never|wrong|incorrect|false|impossible|isn't|isn’t|cannot|can't|can’t)\b(?!\s+\d)",
    re.IGNORECASE,
)
_APART = 60
"""Statements that stand closer than so many characters are one list, not a thought and its correction."""


class _Stated(NamedTuple):
    """An answer where the reply marks it as one."""

    start: int
    end: int
    value: str


def why_unclear(problem: Problem, text: str) -> str:
    """Why this reply's answer is none: negated, one of several, contradicted; empty where it is clear."""
    kind = problem.answer
    if kind not in _VALUES:
        return ""
    text = text[-_LONGEST:]
    answer = extract(problem, text)
    if answer is None:
        return ""
    right = _normal(answer)
    stated = list(_statements(text, kind))
    ours = [s for s in stated if s.value == right]
    others = [s for s in stated if s.value != right]
    if ours and any(s.start > ours[-1].end or ours[-1].start - s.end < _APART for s in others):
        return "the reply states several answers"
    if len({s.value for s in stated if text.startswith("####", s.start)}) > 1:
        return "the reply states several answers"
    values = [_Stated(m.start(), m.end(), _normal(m[0])) for m in re.finditer(_VALUES[kind], text)]
    places = [i for i, value in enumerate(values) if value.value == right]
    if not places:
        return ""
    here = places[-1]
    before, after = text[max(0, values[here].start - 80) : values[here].start], text[values[here].end :][:80]
    if _NOT_BEFORE.search(re.split(r"[.!?;,]\s", before)[-1]) or _NOT_AFTER.match(after):
        return "the reply negates its answer"
    for first, second in ((here - 1, here), (here, here + 1)):
        if first < 0 or second >= len(values) or values[first].value == values[second].value:
            continue
        if _listed(text[values[first].end : values[second].start]):
            return "the reply offers several answers"
    return ""


def _listed(gap: str) -> bool:
    return len(gap) <= _WIDEST and _LISTED.fullmatch(gap) is not None


def _statements(text: str, kind: str) -> Iterator[_Stated]:
    """Where the reply says that something is its answer."""
    value = _VALUES[kind]
    for pattern in (
        rf"####\s*({value})",
        rf"\\boxed\s*\{{({_INSIDE})\}}",
        rf"answer\s{{0,3}}(?:is|:|=)[\s:*$(]{{0,8}}({value})(?!\s{{0,3}}[-+*/^=!\\(])",  # a term is not yet the answer
    ):
        for found in re.finditer(pattern, text, re.IGNORECASE if "answer" in pattern else 0):
            yield _Stated(found.start(), found.end(), _normal(found[1]))


def _normal(value: str) -> str:
    boxed = re.fullmatch(r"\\boxed\s*\{(.*)\}", value, re.DOTALL)
    inner = (boxed[1] if boxed else value).strip("()$* \t")
    return canonical_number(inner) or canonical_formula(inner) or inner
