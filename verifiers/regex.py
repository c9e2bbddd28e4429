"""A pattern that a reply must match.

Patterns are Python's `re`. They are matched in the sandbox: on the right text, a harmless pattern can take
longer than the universe. A pattern knows no meaning, so what it accepts is worth an `archon audit regex`. No
model calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from archon.answers import extract
from archon.candidate import Candidate, Scale, Verdict
from archon.errors import UserError
from archon.execution import Call, Limits, Program
from archon.problem import Problem
from archon.run import Run
from archon.verifier import Verifier
from archon.verifiers.expected import shown, texts_of

_SOURCE = """
import re

def matches(pattern, text, whole):
    return bool((re.fullmatch if whole else re.search)(pattern, text))
"""
_PROGRAM = Program(source=_SOURCE, entry_point="matches")
_LIMITS = Limits(cpu_seconds=2, wall_seconds=20, memory_mb=512)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


class Regex(Verifier):
    """Accept what matches a pattern; undecided where there is none, or it takes too long."""

    scale: ClassVar[Scale] = "fraction"

    pattern: Annotated[str, AfterValidator(_pattern)] = ""
    """The pattern; that of the problem's `info` where none is given. `(?i)` at its start ignores case."""
    key: Annotated[str, Field(min_length=1)] = "pattern"
    """The key of the problem's `info` that holds the pattern, or a list of them, of which one must match."""
    match: Literal["anywhere", "whole"] = "anywhere"
    """Whether the pattern must be found, or cover all."""
    of: Literal["reply", "answer"] = "reply"
    """What is matched: the whole reply, or the answer read out of it."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Match each, in isolation."""
        patterns = self.patterns(problem)
        if not patterns:
            why = f"no `pattern` is set, and the problem's info has no {self.key!r}"
            return [Verdict(self.name, None, detail=why)] * len(candidates)
        for pattern in patterns:
            try:
                _pattern(pattern)
            except ValueError as error:
                raise UserError(f"problem {problem.id!r}: {pattern!r} is {error}") from None
        return [await self._judge(problem, candidate, patterns, run) for candidate in candidates]

    def applies(self, problem: Problem) -> bool:
        """It needs a pattern."""
        return bool(self.patterns(problem))

    def patterns(self, problem: Problem) -> tuple[str, ...]:
        """Those of which one must match."""
        return (self.pattern,) if self.pattern else texts_of(problem.info, self.key)

    async def _judge(
        self, problem: Problem, candidate: Candidate, patterns: Sequence[str], run: Run
    ) -> Verdict:
        text = candidate.text if self.of == "reply" else extract(problem, candidate.text)
        if text is None:
            return Verdict(self.name, False, 0.0, self.scale, "wrong", shown(None))
        text = text.strip() if self.of == "answer" else text
        late = False
        for pattern in patterns:
            (found,) = await run.evaluate(
                _PROGRAM, [Call(args=(pattern, text, self.match == "whole"))], _LIMITS
            )
            if found.value is True:
                return Verdict(self.name, True, 1.0, self.scale, "passed")
            late |= found.status != "returned"
        if late:
            return Verdict(self.name, None, None, self.scale, "timed_out", "matching did not end in time")
        return Verdict(self.name, False, 0.0, self.scale, "wrong", "it does not match")
