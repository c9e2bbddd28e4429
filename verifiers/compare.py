"""Comparing what a program returned with what was expected, outside its process.

The rules are evalplus's: equal is equal; floats may differ by 1e-6 (or the test's own tolerance) plus
1e-7 of the expected value, element by element in lists and tuples. Only exact built-in types get here
(sandbox/wire.py), so nothing of the program's making takes part.
"""

from __future__ import annotations

import cmath
from typing import Any

from archon.problem import Case
from archon.verifiers.sandbox import wire

_RELATIVE = 1e-7
_FLOAT_TOLERANCE = 1e-6
_MOST_ITEMS = 10_000_000


def matches(case: Case, value: Any) -> bool:
    """Whether a returned value is what the case expects."""
    expected = case.expected
    if case.rule == "anything":
        return True
    if case.rule == "is_not_none":
        return bool(value == expected if isinstance(value, bool) else expected == (value is not None))
    if case.rule == "same_set":
        return _same_set(value, expected)
    if any(_equal(value, right) for right in (expected, *case.alternatives)):
        return True
    tolerance = case.tolerance or (_FLOAT_TOLERANCE if _of_floats(expected) else 0.0)
    return bool(tolerance) and type(value) is type(expected) and _close(value, expected, tolerance)


def _equal(value: Any, expected: Any) -> bool:
    try:
        return bool(value == expected)
    except (RecursionError, ValueError, OverflowError):
        return False


def _same_set(value: Any, expected: Any) -> bool:
    try:
        if isinstance(value, range) and len(value) > _MOST_ITEMS:
            return False
        return set(wire.hashable(list(value))) == set(expected)
    except OverflowError:  # a range of astronomic length
        return False
    except (TypeError, wire.WireError):
        return False


def _of_floats(value: Any) -> bool:
    if isinstance(value, float):
        return True
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, float) for v in value)


def _close(value: Any, expected: Any, tolerance: float) -> bool:
    """Element by element, as `numpy.allclose` would; anything that is not numbers is not close."""
    if isinstance(expected, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            return False
        return all(_close(v, e, tolerance) for v, e in zip(value, expected, strict=True))
    if not isinstance(value, int | float | complex) or not isinstance(expected, int | float | complex):
        return False
    try:
        a, b = complex(value), complex(expected)
        if cmath.isinf(a) or cmath.isinf(b):
            return a == b
        return abs(a - b) <= tolerance + _RELATIVE * abs(b)
    except OverflowError:
        return False


def shown(value: Any, most: int = 120) -> str:
    """A value for people, never long and never slow."""
    try:
        text = repr(value) if not isinstance(value, int) or value.bit_length() < 4096 else "a huge integer"
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= most else f"{text[: most - 3]}..."
