"""The order of partial answers, and which of them are the same."""

from __future__ import annotations

from collections.abc import Iterable

from archon.strategies.stepping.partial import Partial


def best_first(partials: Iterable[Partial]) -> list[Partial]:
    """By value, the highest first; the earlier of equal ones first, and those without a value last."""
    return sorted(partials, key=lambda p: float("inf") if p.value is None else -p.value)


def distinct(partials: Iterable[Partial]) -> list[Partial]:
    """The first of those that have written the same."""
    return list({(p.text, p.ending): p for p in reversed(list(partials))}.values())[::-1]
