"""Comparing what a program printed with what it should have printed, as contests do: word by word.

White space between words does not matter. A word that should be a number with a fraction may be written otherwise
and differ by 1e-6 or the test's tolerance, plus 1e-7 of the value, as returned values may (compare.py). A whole
number may be written with a fraction of nothing (2.0 for 2), and differ only where the test gives a tolerance. Any
other word must be the same.
"""

from __future__ import annotations

import math
import re

_RELATIVE = 1e-7
_TOLERANCE = 1e-6
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONGEST = 60


def differs(printed: bytes, expected: str, tolerance: float = 0.0) -> str:
    """Where the two first differ, for people; empty where they do not."""
    given, right = printed.decode("utf-8", "replace").split(), expected.split()
    for place, (a, b) in enumerate(zip(given, right, strict=False), 1):
        if a != b and not _close(a, b, tolerance):
            return f"word {place} is {_short(a)}, expected {_short(b)}"
    if len(given) != len(right):
        return f"printed {len(given)} words, expected {len(right)}"
    return ""


def _close(given: str, expected: str, tolerance: float) -> bool:
    if max(len(given), len(expected)) > 400 or not (_NUMBER.fullmatch(given) and _NUMBER.fullmatch(expected)):
        return False
    if not tolerance and not any(mark in expected for mark in ".eE"):
        whole, point, fraction = given.partition(".")
        return bool(point) and whole == expected and not fraction.strip("0")
    a, b = float(given), float(expected)
    if math.isinf(a) or math.isinf(b):
        return False
    return abs(a - b) <= (tolerance or _TOLERANCE) + _RELATIVE * abs(b)


def _short(word: str) -> str:
    return repr(word if len(word) <= _LONGEST else f"{word[:_LONGEST]}...")
