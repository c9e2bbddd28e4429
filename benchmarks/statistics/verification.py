"""A verifier against the truth: what it accepts and rejects, and how far the shares can be trusted.

Counts are kept per problem, as samples of one problem share its difficulty: every interval here is clustered
by problem. The terms are those of Stroebl, Kapoor and Narayanan 2024, "The Limits of Inference Scaling Through
Resampling" (arXiv 2411.17501): completeness is P(accepted | right), soundness is P(rejected | wrong), and
conditional accuracy is P(right | accepted).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from archon.benchmarks.statistics.intervals import LEVEL, RESAMPLES, student
from archon.benchmarks.statistics.passk import Floats, avoid, pass_at_k

_AT_ONCE = 4_000_000


class Tally(NamedTuple):
    """One problem's samples, by what the verifier says and what is true."""

    true_positives: int = 0
    """Accepted and right."""
    false_positives: int = 0
    """Accepted and wrong."""
    true_negatives: int = 0
    """Rejected and wrong."""
    false_negatives: int = 0
    """Rejected and right."""
    undecided_right: int = 0
    """Neither accepted nor rejected, and right."""
    undecided_wrong: int = 0

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(self)

    @property
    def accepted(self) -> int:
        """How many the verifier accepts."""
        return self.true_positives + self.false_positives

    @property
    def right(self) -> int:
        """How many are right."""
        return self.true_positives + self.false_negatives + self.undecided_right

    @property
    def conditional_accuracy(self) -> float | None:
        """P(right | accepted); None where nothing is accepted."""
        return self.true_positives / self.accepted if self.accepted else None

    @property
    def shows_false_negatives(self) -> bool:
        """Whether more samples are right than are accepted: the paper's filter drops such a problem."""
        return self.right > self.accepted


def tally(accepted: Sequence[bool | None], right: Sequence[bool]) -> Tally:
    """Count one problem's samples. Raises ValueError unless there is one verdict per sample."""
    if len(accepted) != len(right):
        raise ValueError(f"there are {len(accepted)} verdicts for {len(right)} samples")
    pairs = [(None if a is None else bool(a), bool(r)) for a, r in zip(accepted, right, strict=True)]
    kinds = ((True, True), (True, False), (False, False), (False, True), (None, True), (None, False))
    return Tally(*(pairs.count(kind) for kind in kinds))


def total(tallies: Sequence[Tally]) -> Tally:
    """All problems together."""
    return Tally(*(sum(column) for column in zip(*tallies, strict=True))) if tallies else Tally()


def accepted_within(tallies: Sequence[Tally], ks: Sequence[int]) -> Floats:
    """The probability that some of k samples is accepted, shape (problems, ks); NaN beyond the samples."""
    return pass_at_k([t.samples for t in tallies], [t.accepted for t in tallies], ks)


def accepted_at(tallies: Sequence[Tally], ks: Sequence[int]) -> Floats:
    """The probability that the k-th sample is the first that is accepted, shape (problems, ks)."""
    table = np.full((len(tallies), len(ks)), np.nan)
    for row, one in zip(table, tallies, strict=True):
        within = np.array([k <= one.samples for k in ks])
        places = np.asarray(ks)[within]
        before = _avoid(one, [int(k) - 1 for k in places])
        row[within] = before * one.accepted / (one.samples - places + 1)
    return table


def _avoid(one: Tally, ks: Sequence[int]) -> Floats:
    """The probability that none of k samples is accepted; 1 for none."""
    drawn = avoid(one.samples, [one.accepted], [max(k, 1) for k in ks])[0] if ks else np.empty(0)
    return np.asarray(np.where(np.asarray(ks) == 0, 1.0, drawn))


class Ratio(NamedTuple):
    """A ratio of sums over problems, with two intervals that are clustered by problem."""

    value: float
    low: float
    """Wilson's score interval at the effective sample size."""
    high: float
    bootstrap_low: float
    """The percentile bootstrap over problems."""
    bootstrap_high: float
    problems: int
    """Problems that have a share in it."""


def ratio(
    numerators: ArrayLike,
    denominators: ArrayLike,
    *,
    samples: int | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Ratio]:
    """Sum of numerators over sum of denominators, for each column of shape (problems, figures).

    Numerators lie between 0 and their denominators. The variance is that of the linearised ratio; NaN rows are
    left out; `samples`, those behind all of it, bounds the effective size.
    """
    over = _columns(denominators)
    part = np.where(over > 0, _columns(numerators), 0.0)
    over = np.where(over > 0, over, 0.0)
    ends = _bootstrap(part, over, level, resamples, seed)
    return [
        _ratio(part[:, at], over[:, at], samples, level, (float(ends[0, at]), float(ends[1, at])))
        for at in range(over.shape[1])
    ]


def _columns(values: ArrayLike) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    return np.nan_to_num(table[:, None] if table.ndim == 1 else table)


def _ratio(part: Floats, over: Floats, samples: int | None, level: float, ends: tuple[float, float]) -> Ratio:
    part, over = part[over > 0], over[over > 0]
    m, whole = len(over), float(over.sum())
    if m == 0:
        return Ratio(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
    value = min(1.0, float(part.sum()) / whole)
    if m == 1:
        return Ratio(value, 0.0, 1.0, *ends, 1)
    # As in `wilson`: a problem more that is all right and one that is all wrong keep the variance from collapsing.
    mean = whole / m
    padded, weights = np.append(part, (0.0, mean)), np.append(over, (mean, mean))
    middle = float(padded.sum() / weights.sum())
    residuals = padded - middle * weights
    variance = float((residuals**2).sum()) / (m + 1) / mean**2
    least = whole**2 / float((over**2).sum())  # Kish: problems of unequal weight count for fewer
    size = min(max(samples or math.inf, least), max(least, middle * (1 - middle) / (variance / m)))
    z = student(level, m - 1)
    centre = (value + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(value * (1 - value) / size + z**2 / (4 * size**2))
    low, high = min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))
    return Ratio(value, low, high, *ends, m)


def _bootstrap(part: Floats, over: Floats, level: float, resamples: int, seed: int) -> Floats:
    """Both ends for every column, by resampling problems; numerator and denominator move together."""
    m, figures = over.shape
    if m == 0:
        return np.full((2, figures), np.nan)
    drawn = []
    at_once = max(1, _AT_ONCE // m)
    for start in range(0, resamples, at_once):
        counts = _draws(m, min(at_once, resamples - start), seed, start)
        below = counts @ over
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(np.where(below > 0, (counts @ part) / below, np.nan))
    values = np.concatenate(drawn)
    tail = (1 - level) / 2
    known = ~np.isnan(values).all(axis=0)
    ends = np.full((2, figures), np.nan)
    ends[:, known] = np.nanquantile(values[:, known], [tail, 1 - tail], axis=0)
    return np.asarray(np.clip(ends, 0.0, 1.0))


@lru_cache(maxsize=1)
def _draws(problems: int, resamples: int, seed: int, start: int) -> Floats:
    """How often each problem is drawn in each resample; kept, as one account asks for many intervals."""
    rng = np.random.default_rng([seed, start])
    drawn = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples)
    return np.asarray(drawn.astype(np.float64))
