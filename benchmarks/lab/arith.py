"""lab/arith: an expression is rewritten line by line, one operation a line, until one number is left.

Steps can be checked one by one, a chain fails at its first wrong step, and answers can be voted on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from archon.benchmarks.lab.family import Task

_INNERMOST = re.compile(r"\(([^()]*)\)")
_MOST = 999


class _Level(NamedTuple):
    operations: int
    largest: int
    """Of the numbers in it."""
    most: int
    """That a value on the way may be."""
    groups: int
    """Pairs of parentheses."""
    factor: int = 9
    """Of a product's smaller factor."""


_LEVELS = {
    1: _Level(2, 12, 50, 0),
    2: _Level(3, 20, 99, 0),
    3: _Level(4, 30, 99, 1),
    4: _Level(6, 40, 99, 2),
    5: _Level(8, 60, 199, 3),
    6: _Level(10, 99, 999, 4, 99),
    7: _Level(12, 99, 999, 5, 99),
    8: _Level(14, 99, 999, 6, 99),
}


class Arith:
    """Expressions of + - * and parentheses; no value on the way is negative or above 999."""

    name: ClassVar[str] = "arith"
    levels: ClassVar[Sequence[int]] = tuple(_LEVELS)

    def draw(self, rng: random.Random, level: int) -> Task:
        """An expression that keeps to its level's limits, with its rewriting."""
        while True:
            expression = _expression(rng, _LEVELS[level])
            lines = rewritten(expression, _LEVELS[level].factor, _LEVELS[level].most)
            if lines is not None:
                question = f"Compute {expression} step by step."
                return Task(self.name, level, question, "\n".join(lines), lines[-1])


def rewritten(expression: str, factor: int = _MOST, most: int = _MOST) -> list[str] | None:
    """What is left after each operation; None where a value on the way is out of bounds.

    Innermost parentheses first, products before sums, from the left.
    """
    lines = []
    while not expression.isdigit():
        following = _step(expression, factor, most)
        if following is None:
            return None
        expression = following
        lines.append(expression)
    return lines


def _step(text: str, factor: int, most: int) -> str | None:
    inner = _INNERMOST.search(text)
    start, end = (inner.start(1), inner.end(1)) if inner else (0, len(text))
    parts = re.findall(r"\d+|[+*-]", text[start:end])
    at = parts.index("*") if "*" in parts else 1
    left, right = int(parts[at - 1]), int(parts[at + 1])
    if parts[at] == "*" and min(left, right) > factor:
        return None
    value = {"+": left + right, "-": left - right, "*": left * right}[parts[at]]
    if not 0 <= value <= most:
        return None
    parts[at - 1 : at + 2] = [str(value)]
    whole = "".join(parts)
    if inner and len(parts) > 1:
        whole = f"({whole})"
    before, after = (text[: inner.start()], text[inner.end() :]) if inner else ("", "")
    return before + whole + after


def _expression(rng: random.Random, level: _Level) -> str:
    parts: list[str] = [str(rng.randint(0, level.largest))]
    for _ in range(level.operations):
        operation = rng.choice("++--*")
        most = level.factor if operation == "*" else level.largest
        parts += [operation, str(rng.randint(2 if operation == "*" else 0, most))]
    for _ in range(level.groups):
        first = rng.randrange(0, len(parts) - 2, 2)
        last = min(len(parts) - 1, first + 2 * rng.randint(1, 2))
        inside = parts[first : last + 1]
        if len(parts) - len(inside) >= 2:
            parts[first : last + 1] = ["(" + "".join(inside) + ")"]
    return "".join(parts)
