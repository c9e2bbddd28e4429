"""Comparing what a program returned with what was expected, outside its process.

The rules are evalplus's: equal is equal; floats may differ by 1e-6 (or the test's own tolerance) plus
1e-7 of the expected value, element by element in lists and tuples. Where a NaN is expected, any NaN is
right. Only exact built-in types get here (sandbox/wire.py), so nothing of the program's making takes part.
"""

from __future__ import annotations

import cmath
from collections.abc import Iterator
from typing import Any

from archon.problem import Case
from archon.verifiers.sandbox import wire

_RELATIVE = 1e-7
_FLOAT_TOLERANCE = 1e-6
_BRACKETS = {
    "list": ("[", "]"),
    "tuple": ("(", ")"),
    "set": ("{", "}"),
    "frozenset": ("frozenset({", "})"),
    "dict": ("{", "}"),
}


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
        return bool(value == expected) or _same(value, expected)
    except (RecursionError, ValueError, OverflowError):
        return False


def _same(value: Any, expected: Any) -> bool:
    """Equal, but that one NaN is as good as another."""
    if isinstance(expected, list | tuple):
        return (
            type(value) is type(expected) and len(value) == len(expected) and all(map(_same, value, expected))
        )
    if isinstance(expected, dict):
        return (
            type(value) is dict
            and len(value) == len(expected)
            and all(key in value and _same(value[key], item) for key, item in expected.items())
        )
    return bool(value == expected) or (_is_nan(value) and _is_nan(expected))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | complex) and cmath.isnan(value)


def _same_set(value: Any, expected: Any) -> bool:
    try:
        if isinstance(value, range) and len(value) > len(expected):
            return False
        if isinstance(value, str | bytes | bytearray):
            return set(value) == set(expected)
        distinct = {wire.encode(item): item for item in value}  # what is there often is no attack
        return set(wire.hashable([*distinct.values()])) == set(expected)
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
        if cmath.isnan(a) or cmath.isnan(b):
            return cmath.isnan(a) and cmath.isnan(b)
        if cmath.isinf(a) or cmath.isinf(b):
            return a == b
        return abs(a - b) <= tolerance + _RELATIVE * abs(b)
    except OverflowError:
        return False


def shown(value: Any, most: int = 120) -> str:
    """A value for people, never long and never slow."""
    text = ""
    try:
        for piece in _pieces(value, most):
            text += piece
            if len(text) > most:
                return f"{text[: most - 3]}..."
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text


def _pieces(value: Any, most: int) -> Iterator[str]:
    """The value's `repr`, piece by piece."""
    kind = type(value)
    if kind.__name__ in _BRACKETS and value:
        opening, closing = _BRACKETS[kind.__name__]
        yield opening
        for place, item in enumerate(value):
            yield ", " if place else ""
            yield from _pieces(item, most)
            if kind is dict:
                yield ": "
                yield from _pieces(value[item], most)
        yield f",{closing}" if kind is tuple and len(value) == 1 else closing
    elif kind is int and value.bit_length() >= 4096:
        yield "a huge integer"
    else:
        yield repr(value[:most] if kind in (str, bytes, bytearray) else value)
