"""Comparing two runs problem by problem.

The same problems are answered by both, so their difference per problem has far less noise than two separate
means (Miller 2024, arXiv 2411.00640, section 4.2).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from archon.benchmarks.statistics.intervals import Interval, student_interval

_EXACT_UP_TO = 20
_FLIPS = 20_000


class Comparison(NamedTuple):
    """B against A on the problems both have."""

    difference: Interval
    """Mean of B - A, with Student's interval."""
    p_value: float
    """Two-sided, by random sign flips of the differences (exact up to 20 problems that differ)."""
    better: int
    """Problems on which B is better."""
    worse: int
    equal: int

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON; an infinite bound (over a single problem) is null."""
        return {
            "difference": {
                "value": _number(self.difference.value),
                "low": _number(self.difference.low),
                "high": _number(self.difference.high),
            },
            "problems": self.difference.problems,
            "p_value": self.p_value,
            "better": self.better,
            "worse": self.worse,
            "equal": self.equal,
        }


def compare(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> Comparison:
    """Compare per-problem values, paired by position. Raises ValueError where the lengths differ."""
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(
            f"paired values must have one entry per problem, but have {one.shape} and {other.shape}"
        )
    difference = other - one
    return Comparison(
        student_interval(difference),
        sign_flip_test(difference, seed=seed),
        int((difference > 0).sum()),
        int((difference < 0).sum()),
        int((difference == 0).sum()),
    )


def sign_flip_test(differences: ArrayLike, *, seed: int = 0) -> float:
    """P(|sum of randomly signed differences| >= the one seen): the exchangeability of A and B as the null."""
    data = np.asarray(differences, dtype=np.float64)
    data = data[data != 0]
    m = len(data)
    if m == 0:
        return 1.0
    seen = abs(data.sum()) - 1e-12
    if m <= _EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
        return float((np.abs(signs @ data) >= seen).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(0, _FLIPS, 2000):
        signs = rng.integers(0, 2, size=(2000, m)) * 2 - 1
        hits += int((np.abs(signs @ data) >= seen).sum())
    return (hits + 1) / (_FLIPS + 1)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
