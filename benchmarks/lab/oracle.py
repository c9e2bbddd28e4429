"""A process reward model that is never wrong: what search could reach with a perfect one, on lab/arith.

    archon bench lab/arith --pipeline beam_search --model reward=lab_oracle: --out runs/oracle

A line is right where it has the value of the line before it (the first: of the question's expression), and fewer
operations left. The score after a step is the probability of that: all but certain while every line so far is right,
all but nothing from the first wrong one on. A reply that is finished before one number is left is wrong at its end. A
step that ends within a line is judged by the lines before that one.

It knows questions of lab/arith only, and counts a token per character that it is given, as the nano models do.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, ClassVar

from archon.backends.base import (
    Capabilities,
    Completion,
    Model,
    Progress,
    Request,
    Scored,
    ScoreRequest,
    Tokens,
)
from archon.backends.nano.tokens import chat
from archon.benchmarks.lab.arith import rewritten
from archon.errors import CapabilityError
from archon.prices import Price

RIGHT, WRONG = 1 - 1e-3, 1e-3
"""What it says. Certainty itself would have no logit."""

_QUESTION = re.compile(r"Compute ([0-9+*()-]+) step by step\.")
_NUMBER = "(?:0|[1-9][0-9]{0,2})"
_OPERATIONS = f"{_NUMBER}(?:[+*-]{_NUMBER})+"
_GROUP = re.compile(rf"\({_OPERATIONS}\)")
_WHOLE = re.compile(f"{_NUMBER}|{_OPERATIONS}")


class LabOracle(Model):
    """A perfect process reward model of lab/arith."""

    short: ClassVar[str] = ""
    of_the_lab: ClassVar[bool] = True

    price: Price | None = Price(input=0, output=0)
    """It runs here and costs nothing."""

    @property
    def label(self) -> str:
        """Its price is its own."""
        return self.name

    def connect(self) -> LabOracleBackend:
        """Ready at once."""
        return LabOracleBackend()


class LabOracleBackend:
    """Reads replies line by line."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What it says depends on nothing else."""
        return {"backend": LabOracle.name}

    @property
    def endpoint(self) -> str:
        """One for all."""
        return LabOracle.name

    @property
    def capabilities(self) -> Capabilities:
        """It scores steps, and writes nothing."""
        return Capabilities(
            completes=False, scores="steps", score_scale="probability", max_replies=4096, aborts=True
        )

    def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Not what it is for. Raises CapabilityError."""
        raise CapabilityError(f"{LabOracle.name!r} is a reward model: it scores replies and writes none")

    async def score(self, request: ScoreRequest, progress: Progress) -> Sequence[Scored]:
        """A probability per step. Raises CapabilityError for a question that is not of lab/arith."""
        asked = [m.content for m in request.messages if m.role == "user"]
        question = _QUESTION.search(asked[-1]) if asked else None
        if question is None or _value(question[1]) is None:
            raise CapabilityError(
                f"{LabOracle.name!r} knows the questions of lab/arith only; for others give another reward model"
            )
        progress.sent = True
        before = len(chat(request.messages))
        return [
            Scored(
                judged(question[1], steps, finished=request.finished),
                Tokens(before + sum(map(len, steps))),
                requests=int(place == 0),
            )
            for place, steps in enumerate(request.replies)
        ]

    async def close(self) -> None:
        """Nothing to let go of."""


def judged(expression: str, steps: Sequence[str], *, finished: bool) -> tuple[float, ...]:
    """The score after each step of a reply to the computing of an expression."""
    *lines, rest = "".join(steps).split("\n")
    good = _right(expression, lines)
    ends = list(accumulate(len(line) + 1 for line in lines))
    off = ends[good] if good < len(lines) else None  # where the first wrong line ends
    scores = [WRONG if off is not None and past >= off else RIGHT for past in accumulate(map(len, steps))]
    if finished:
        whole = [*lines, rest] if rest else lines
        solved = bool(whole) and _right(expression, whole) == len(whole) and not _operations(whole[-1])
        scores[-1] = RIGHT if solved else WRONG
    return tuple(scores)


def _right(expression: str, lines: Sequence[str]) -> int:
    """How many of the first lines are right."""
    value, left = _value(expression), _operations(expression)
    for count, line in enumerate(lines):
        fewer = _operations(line)
        if fewer >= left or _value(line) != value:
            return count
        left = fewer
    return len(lines)


def _operations(text: str) -> int:
    return sum(map(text.count, "+-*"))


@lru_cache(maxsize=4096)
def _value(text: str) -> int | None:
    """What an expression comes to; None where it is none, or leaves the family's bounds on the way."""
    groups, form = 1, text
    while groups:
        form, groups = _GROUP.subn("0", form)
    if not _WHOLE.fullmatch(form):
        return None
    lines = [text] if text.isdigit() else rewritten(text)
    return int(lines[-1]) if lines else None
