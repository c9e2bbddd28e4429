"""The rules of Tree of Thoughts: one operation of a sum a step, judged by whether it and those before it hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from archon.testing.instruct.mind import Mind
from archon.testing.instruct.sums import Sum, arrives_at, solution

_STEP = re.compile(r"(-?\d{1,9}) ([+-]) (\d{1,9}) = (-?\d{1,9})")


class _Way(NamedTuple):
    """How far some steps have come with a sum."""

    total: int
    """What they come to."""
    left: tuple[int, ...]
    """What is still to be added."""
    right: bool
    """Whether each holds, and follows from the one before."""


def next_thought(mind: Mind, which: int = 0) -> str:
    """The next operation; off where solving fails."""
    way = _so_far(mind, mind.question.all("THOUGHT"))
    if way is None:
        return mind.prose(6)
    if not way.left:
        return f"Nothing is left to be done after {way.total}."
    term = way.left[0]
    slip = 0 if mind.succeeds("solving", which) else mind.rng(f"slip {which}").randint(1, 50)
    return f"{way.total} {'+' if term >= 0 else '-'} {abs(term)} = {way.total + term + slip}"


def next_thoughts(mind: Mind) -> str:
    """A list of next operations, each with luck of its own."""
    n = 1 if mind.question.form is None else max(1, mind.question.form.n)
    return "\n".join(f"{i + 1}. {next_thought(mind, i)}" for i in range(n))


def promising(mind: Mind) -> str:
    """Whether a right answer can be reached: the opposite where judging fails."""
    form = mind.question.form
    if form is None or form.kind != "verdict":
        return mind.prose(6)
    thoughts = mind.question.all("THOUGHT")
    way = _so_far(mind, thoughts)
    fine = mind.is_right("\n".join(thoughts)) if way is None else way.right
    verdict = form.options[0] if fine == mind.succeeds("judging") else form.options[-1]
    return f"I checked each step.\nVerdict {form.mark}: {verdict}"


def most_promising(mind: Mind) -> str:
    """The first of the states that hold; any where ranking fails, or none does."""
    form = mind.question.form
    if form is None or form.kind != "choice":
        return mind.prose(6)
    states = [_so_far(mind, text.split("\n")) for text in mind.question.listed(form.n)]
    fine = [i for i, way in enumerate(states) if way is not None and way.right]
    chosen = fine[0] if fine and mind.succeeds("ranking") else mind.rng("vote").randrange(max(1, form.n))
    return f"I compared all {form.n}.\nChoice {form.mark}: {chosen + 1}"


def carried_out(mind: Mind) -> str:
    """An answer that goes on from where the steps have come to, whether they hold or not."""
    way = _so_far(mind, mind.question.all("THOUGHT"))
    if way is None or mind.sum is None:
        return mind.worked()
    if mind.sum.code:
        return solution(Sum((way.total + sum(way.left),), True))
    if not way.left:
        return arrives_at(way.total)
    return mind.worked(Sum((way.total, *way.left)))


def _so_far(mind: Mind, thoughts: Sequence[str]) -> _Way | None:
    """What these steps make of the sum; None where there is none. What is no operation is passed over."""
    if mind.sum is None:
        return None
    terms = mind.sum.terms
    total, left, right = (0, terms, True) if mind.sum.code else (terms[0], terms[1:], True)
    for thought in thoughts:
        for before, sign, number, after in _STEP.findall(thought):
            expected = total + left[0] if left else total
            added = int(number) if sign == "+" else -int(number)
            right &= bool(left) and (int(before), added, int(after)) == (total, left[0], expected)
            total, left = int(after), left[1:]
    return _Way(total, left, right)
