"""What a given continuation of a partial answer makes of it, and how likely the writer finds it. All of it is pure.

Cost: none; the engine asks (`engine.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from archon.run import Likelihood
from archon.strategies.stepping.continuing import Rules
from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.stepping.search import Weigh


def joined(wish: Weigh, rules: Rules) -> list[Partial]:
    """The partial answer after each of its rounds; nothing where the writer could not have come to them that way, as
    it would have ended earlier, or not there."""
    if wish.ending == "filtered":  # by whom, and how likely, nobody knows
        return []
    found: list[Partial] = []
    steps = wish.partial.steps
    for number, added in enumerate(wish.rounds, 1):
        steps = (*steps, *added)
        text = "".join(steps)
        last = number == len(wish.rounds) and wish.ending is not None
        matches = rules.until is not None and rules.until.search(text) is not None
        full = len(steps) >= rules.max_steps
        if len(steps) > rules.max_steps:
            return []
        ending: Ending | None = None
        if not last:
            if matches or full:
                return []
        elif matches:
            ending = "until"
        elif closed(wish, rules):
            ending = "stop"
        elif wish.ending == "length" or (wish.ending == "steps" and full):
            ending = wish.ending
        else:
            return []
        found.append(Partial(steps, ending=ending))
    return found


def closed(wish: Weigh, rules: Rules) -> bool:
    """Whether it holds the end of the answer as the writer ended it: that has a probability of its own. Where a step
    ends by a delimiter, an answer that is finished for what it says was ended so, too, if the delimiter is not last."""
    if wish.ending != "until":
        return wish.ending == "stop"
    text = "".join(step for added in wish.rounds for step in added) or wish.partial.text
    return rules.end is None or not text.endswith(rules.end)


def reply(wish: Weigh, *, each: bool = False) -> tuple[str, ...]:
    """The text whose likelihood is asked for: the beginning, as one or (`each`) step by step, and what is added."""
    beginning = wish.partial.steps if each else (wish.partial.text,)
    return (*beginning, *(step for added in wish.rounds for step in added or ("",)))


def likely(
    wish: Weigh, partials: Sequence[Partial], told: Sequence[Likelihood], *, certain: bool = False
) -> list[Partial]:
    """The joined partial answers with the log-probability of what each round added, which was told for `reply`; and
    (`certain`) with the writer's certainty of each step as its scores."""
    left = list(told)
    before = [left.pop(0) for _ in (wish.partial.steps if certain else ("",))]
    found = []
    for partial, added in zip(partials, wish.rounds, strict=True):
        here = [left.pop(0) for _ in added or ("",)]
        logprob = math.fsum(one.logprob for one in here)
        tokens = sum(one.tokens for one in here)
        if added or not before:
            before += here
        else:  # the end alone belongs to the last step
            before[-1] = Likelihood(before[-1].logprob + logprob, before[-1].tokens + tokens)
        known = certain and all(one.tokens for one in before)
        scores = tuple(math.exp(one.logprob / one.tokens) for one in before) if known else ()
        found.append(replace(partial, scores=scores, logprob=logprob, logprobs=tokens))
    return found
