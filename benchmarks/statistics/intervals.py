"""Intervals for means over problems.

Problems are the independent units: samples of one problem share its difficulty, so intervals are clustered by
problem (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640, section 2.2). Two ways: a closed form, and
the bootstrap over problems.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean with its interval, and how many problems it is over."""

    value: float
    low: float
    high: float
    problems: int


def wilson(values: ArrayLike, *, level: float = LEVEL, samples: int | None = None) -> Interval:
    """The mean of per-problem values in [0, 1], with Wilson's score interval at the effective sample size.

    The effective size is the number of coin flips that would have the mean's clustered variance (Kish's
    design effect), at least the number of problems and at most `samples`, the samples in all; the
    quantile is Student's. Unlike mean ± t·se it stays within [0, 1] and does not collapse when every
    problem is solved, or none. NaN values (problems without this figure) are left out.
    """
    data = _finite(values)
    m = len(data)
    if m == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(data.mean())
    if m == 1:
        return Interval(mean, 0.0, 1.0, 1)
    # A handful of problems that are all (nearly) solved say little of how problems vary: one more that is
    # solved and one that is not keep the variance from collapsing (as Agresti and Coull 1998 do for counts).
    padded = np.append(data, (0.0, 1.0))
    middle = float(padded.mean())
    size = middle * (1 - middle) / (float(padded.var(ddof=1)) / m)
    size = min(float(max(samples or m, m)), max(float(m), size))
    z = student(level, m - 1)
    centre = (mean + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(mean * (1 - mean) / size + z**2 / (4 * size**2))
    return Interval(mean, min(mean, max(0.0, centre - half)), max(mean, min(1.0, centre + half)), m)


def student_interval(values: ArrayLike, *, level: float = LEVEL) -> Interval:
    """Mean ± t·se over problems: for differences and costs, which have no bounds."""
    data = _finite(values)
    m = len(data)
    if m == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(data.mean())
    if m == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = student(level, m - 1) * float(data.std(ddof=1)) / math.sqrt(m)
    return Interval(mean, mean - half, mean + half, m)


def bootstrap(
    values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> list[tuple[float, float]]:
    """Percentile intervals of the mean by resampling problems.

    `values` has shape (problems,) or (problems, figures); one (low, high) per figure. The same resamples
    serve every figure, so curves move together.
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[:, None] if data.ndim == 1 else data
    m = len(data)
    if m == 0:
        return [(math.nan, math.nan)] * data.shape[1]
    known = ~np.isnan(data)
    filled = np.where(known, data, 0.0)
    means: list[NDArray[np.float64]] = []
    at_once = max(1, 4_000_000 // m)
    for start in range(0, resamples, at_once):
        weights = _weights(m, min(at_once, resamples - start), seed, start)
        counts = weights @ known
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(np.where(counts > 0, (weights @ filled) / counts, np.nan))
    drawn = np.concatenate(means)
    tail = (1 - level) / 2
    result = []
    for column in drawn.T:
        column = column[~np.isnan(column)]
        if len(column):
            low, high = np.quantile(column, [tail, 1 - tail])
            result.append((float(low), float(high)))
        else:
            result.append((math.nan, math.nan))
    return result


@lru_cache(maxsize=1)
def _weights(problems: int, resamples: int, seed: int, start: int) -> NDArray[np.float64]:
    """How often each problem is drawn in each resample; kept, as one report asks for many intervals."""
    rng = np.random.default_rng([seed, start])
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    return np.asarray(drawn.astype(np.float64))


def student(level: float, degrees: int) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.special import stdtrit  # as scipy.stats.t.ppf, which takes a second to import

    return float(stdtrit(degrees, (1 + level) / 2))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64).reshape(-1)
    return data[~np.isnan(data)]
