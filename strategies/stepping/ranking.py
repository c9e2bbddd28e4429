"""The order of partial answers, and which of them are the same. Cost: none, no model is asked."""

from __future__ import annotations

from collections.abc import Iterable

from archon.strategies.stepping.partial import Ending, Partial


def best_first(partials: Iterable[Partial]) -> list[Partial]:
    """By value, the highest first; the earlier of equal ones first, and those without a value last."""
    return sorted(partials, key=lambda p: float("inf") if p.value is None else -p.value)


def distinct(partials: Iterable[Partial]) -> list[Partial]:
    """The first of those that have written the same, in their order. One that has ended is not the same as one that
    goes on."""
    first: dict[tuple[str, Ending | None], Partial] = {}
    for partial in partials:
        first.setdefault((partial.text, partial.ending), partial)
    return list(first.values())
