"""How confident a model was of what it wrote, from its log-probabilities: the measures of DeepConf.

Source: Fu et al. 2025, "Deep Think with Confidence" (arXiv 2508.15260), section 2. A token's confidence is the mean
negative log-probability of the likeliest k tokens in its place: the more one of them stands out, the less likely
the others are, and the higher it is. A group's is the mean over a sliding window of tokens. An answer's is one of

- `mean`: over all its tokens, which a weak passage hardly moves;
- `bottom`: over the weakest tenth of its groups;
- `lowest`: of its weakest group alone, the one measure that is known while the answer is written;
- `tail`: over its last tokens, as many as a group has.

Cost: none; whoever samples asks for log-probabilities with alternatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from archon.candidate import TokenLogprob

Measure = Literal["mean", "bottom", "lowest", "tail"]

BOTTOM = 0.1
"""The share of groups that `bottom` is the mean of (section 2)."""


def token_confidence(token: TokenLogprob, k: int) -> float | None:
    """The mean negative log-probability of the k likeliest tokens in this place; None where none are known."""
    likeliest = sorted((logprob for _, logprob in token.top if math.isfinite(logprob)), reverse=True)[:k]
    return -_mean(likeliest) if likeliest else None


def confidences(logprobs: Iterable[TokenLogprob] | None, k: int) -> list[float]:
    """The confidence of every token of which it is known."""
    return [c for token in logprobs or () if (c := token_confidence(token, k)) is not None]


def groups(tokens: Sequence[float], window: int, start: int = 0) -> list[float]:
    """The mean confidence of each window of so many tokens, of those that end at token `start` or later.

    Of fewer tokens than that there is one group, all of them; of none there is none.
    """
    if len(tokens) < window:
        return [_mean(tokens)] if tokens else []
    first = max(0, start - window + 1)
    total = math.fsum(tokens[first : first + window])
    means = [total / window]
    for end in range(first + window, len(tokens)):
        total += tokens[end] - tokens[end - window]
        means.append(total / window)
    return means


# --- of an answer, in the confidence of its tokens and the size of a group; of none it is None ------------


def mean(tokens: Sequence[float], window: int) -> float | None:
    """The confidence of the average token, whatever the groups."""
    return _mean(tokens) if tokens else None


def bottom_groups(tokens: Sequence[float], window: int) -> float | None:
    """The mean over the weakest tenth of groups, rounded down, and at least one."""
    found = sorted(groups(tokens, window))
    return _mean(found[: max(1, math.floor(BOTTOM * len(found)))]) if found else None


def lowest_group(tokens: Sequence[float], window: int) -> float | None:
    """The confidence of the weakest group."""
    return min(groups(tokens, window), default=None)


def tail(tokens: Sequence[float], window: int) -> float | None:
    """The mean over the last tokens, as many as a group has: over the last group."""
    return _mean(tokens[-window:]) if tokens else None


MEASURES: Mapping[Measure, Callable[[Sequence[float], int], float | None]] = {
    "mean": mean,
    "bottom": bottom_groups,
    "lowest": lowest_group,
    "tail": tail,
}


def bar(known: Sequence[float], keep: float) -> float:
    """The confidence that a share `keep` of these reach: their percentile 100 (1 - keep), interpolated."""
    ordered = sorted(known)
    place = (1 - keep) * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
