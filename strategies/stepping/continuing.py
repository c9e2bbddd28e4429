"""What a sample adds to a partial answer: its steps, why it ended, how certain the writer was. All of it is pure.

Cost: none; the sample is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from archon.candidate import Candidate, TokenLogprob
from archon.steps import Steps, cut, end_of
from archon.strategies.stepping.partial import Ending, Partial


class Rules(NamedTuple):
    """What ends a step, and what ends an answer."""

    steps: Steps | int
    """A delimiter, or so many tokens."""
    stops: tuple[str, ...] = ()
    """Stop strings of a whole answer."""
    until: re.Pattern[str] | None = None
    """An answer in which this matches is finished."""
    max_steps: int = 40
    certain: bool = False
    """Whether the scores of steps are the writer's own certainty."""

    @property
    def end(self) -> str | None:
        """The stop string that ends a step, where one does."""
        return None if isinstance(self.steps, int) else end_of(self.steps)


def continued(
    partial: Partial, sample: Candidate, rules: Rules, *, before: str | None = None, to_the_end: bool = False
) -> Partial:
    """A partial answer with what a sample adds to it. It was written to the end, or as one step.

    `before` is the partial answer's text, where that is at hand. A stop string counts also where a step ends within
    it: the server, which is asked for one step, cannot see it. An answer ends before it, as it does on a server.
    """
    before = partial.text if before is None else before
    end = rules.end
    at_end = not to_the_end and end is not None and sample.stop == end
    added = sample.text + (end or "") if at_end else sample.text
    by_tokens = isinstance(rules.steps, int) and not to_the_end
    more = at_end or (by_tokens and sample.finish == "length" and bool(added))

    within = not more and bool(partial.steps) and not added.strip()
    """It ends, and added nothing or only space: that belongs to the last step."""
    new = (added,) if at_end else _cut(added, rules.steps)
    steps = (*partial.steps[:-1], partial.steps[-1] + added) if within else (*partial.steps, *new)
    text = before + added
    stopped = _first(rules.stops, text, len(before))
    if stopped is not None:
        text = text[:stopped]
        steps = _shortened(steps, stopped)
    over = len(steps) > rules.max_steps  # of a roll-out to the end
    if over:
        steps = steps[: rules.max_steps]
        text = "".join(steps)

    ending: Ending | None
    if rules.until is not None and rules.until.search(text):
        ending = "until"
    elif over:
        ending = "steps"
    elif stopped is not None:
        ending = "stop"
    elif sample.finish == "content_filter":
        ending = "filtered"
    elif more:
        ending = "steps" if len(steps) >= rules.max_steps else None
    else:
        ending = "length" if sample.finish == "length" else "stop"

    sums = _sums(sample.logprobs or (), new)
    logprob, logprobs = sums[-1]
    if within:
        logprob, logprobs = partial.logprob + logprob, partial.logprobs + logprobs
        sums = [(logprob, logprobs)]
    return Partial(
        steps=steps,
        scores=_certainties(partial, sums, within, len(steps)) if rules.certain else (),
        ending=ending,
        tokens=partial.tokens + sample.usage.completion_tokens,
        logprob=logprob,
        logprobs=logprobs,
        samples=(*partial.samples, sample.id),
    )


def _cut(text: str, steps: Steps | int) -> tuple[str, ...]:
    """Into steps: what was written to the end holds several, and so does the reply of a server that knows no stop
    strings."""
    if isinstance(steps, int) or end_of(steps) not in text[:-1]:
        return (text,)
    return cut(text, steps)


def _first(stops: Sequence[str], text: str, known: int) -> int | None:
    """Where the first stop string begins that ends in what is new; None where there is none."""
    if not stops:
        return None
    found = [text.find(stop, max(0, known - len(stop) + 1)) for stop in stops if stop]
    return min((place for place in found if place >= 0), default=None)


def _shortened(steps: Sequence[str], length: int) -> tuple[str, ...]:
    """The steps of the first so many characters."""
    kept: list[str] = []
    for step in steps:
        if length <= 0:
            break
        kept.append(step[:length])
        length -= len(step)
    return tuple(kept) or ("",)


def _sums(logprobs: Sequence[TokenLogprob], steps: Sequence[str]) -> list[tuple[float, int]]:
    """Of each step's tokens, the sum of the log-probabilities and their number; a token belongs where it begins."""
    if not logprobs:
        return [(0.0, 0)] * len(steps)
    if len(steps) == 1:
        return [(math.fsum(token.logprob for token in logprobs), len(logprobs))]
    ends = list(accumulate(map(len, steps)))
    of: list[list[float]] = [[] for _ in steps]
    step = place = 0
    for token in logprobs:
        while step < len(steps) - 1 and place >= ends[step]:
            step += 1
        of[step].append(token.logprob)
        place += len(token.token)
    return [(math.fsum(some), len(some)) for some in of]


def _certainties(
    partial: Partial, sums: Sequence[tuple[float, int]], within: bool, steps: int
) -> tuple[float, ...]:
    """How certain the writer was of each step; nothing where that is not known of one of them."""
    old = partial.scores[:-1] if within else partial.scores
    if len(partial.scores) != len(partial.steps) or not all(number for _, number in sums):
        return ()
    new = [math.exp(total / number) for total, number in sums]
    return (*old, *new)[:steps]
