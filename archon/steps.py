"""The steps of an answer, and the arithmetic of their scores.

Used by what judges steps (archon/verifiers/reward.py) and by what searches over them (archon/strategies/stepping).
How the scores of steps become one is compared in Lightman et al. 2023, "Let's Verify Step by Step" (arXiv
2305.20050), appendix F (product, minimum) and in Snell et al. 2024 (arXiv 2408.03314), appendix E (last).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from archon.candidate import Scale
from archon.component import Value

Aggregation = Literal["last", "min", "product", "mean"]
"""How the scores of steps become one: the last step's, the lowest, their product as probabilities, their mean."""

_TINY, _ALMOST_ONE = 5e-324, 1 - 2**-53
"""The probabilities next to 0 and 1, whose logits are finite."""


class Delimiter(Value):
    """Steps end with this text."""

    delimiter: Annotated[str, Field(min_length=1)]
    """What ends a step."""


Steps = Literal["newline", "blank_line"] | Delimiter
"""Where a step ends."""

_PATTERNS = {"newline": r"\n", "blank_line": r"\n(?:[ \t\r]*\n)+"}


_STRINGS = {"newline": "\n", "blank_line": "\n\n"}


def end_of(steps: Steps) -> str:
    """The stop string that ends a step."""
    return _STRINGS[steps] if isinstance(steps, str) else steps.delimiter


def cut(text: str, by: Steps = "newline") -> tuple[str, ...]:
    """A text's steps, each with what ends it; what is only space belongs to a step beside it."""
    end = _PATTERNS[by] if isinstance(by, str) else re.escape(by.delimiter)
    pieces = re.findall(rf".*?{end}|.+\Z", text, re.DOTALL)
    steps: list[str] = []
    for piece in pieces:
        if steps and not (piece.strip() and steps[0].strip()):
            steps[-1] += piece
        else:
            steps.append(piece)
    return tuple(steps) or ("",)


# --- arithmetic ------------------------------------------------------------------------------------


def aggregated(scores: Sequence[float], by: Aggregation, scale: Scale = "probability") -> float:
    """One score of several, on their scale. A product is of probabilities, a mean of what the scores are."""
    if not scores:
        raise ValueError("no scores, and so nothing to make one of")
    if by == "last":
        return scores[-1]
    if by == "min":
        return min(scores)
    if by == "mean":
        return math.fsum(scores) / len(scores)
    if scale == "logit":
        return _logit_of_log(math.fsum(_log_sigmoid(score) for score in scores))
    if min(scores) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, scores)))


def convert(score: float, given: Scale, wanted: Scale) -> float:
    """A probability as its logit, or a logit as its probability; finite at the ends."""
    if given == wanted:
        return score
    if wanted == "probability":
        return math.exp(_log_sigmoid(score))
    bounded = min(max(score, _TINY), _ALMOST_ONE)
    return math.log(bounded) - math.log1p(-bounded)


def _log_sigmoid(logit: float) -> float:
    return -math.log1p(math.exp(-logit)) if logit >= 0 else logit - math.log1p(math.exp(logit))


def _logit_of_log(log: float) -> float:
    """The logit of a probability by its logarithm."""
    log = min(log, -_TINY)
    return log - (math.log(-math.expm1(log)) if log > -1 else math.log1p(-math.exp(log)))
