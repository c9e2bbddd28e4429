"""Resampling until a verifier accepts: what it is worth, and how many attempts are best.

A right answer is worth 1, a wrong one that is accepted costs C, and to abstain is worth 0. Source: Stroebl,
Kapoor and Narayanan 2024 (arXiv 2411.17501), who simulate it. Here it is exact: the first accepted sample of a
random order is any of the accepted ones, so with q = P(right | accepted) a problem's utility at K attempts is
P(some of K is accepted) * (q - C * (1 - q)).

Whether the best number of attempts is finite is decided by the sign of the last increments, which are compared
on a common scale and, where they are close, as fractions. Sums of floats stop growing somewhere: their argmax
is a number where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from archon.benchmarks.statistics.passk import Floats
from archon.benchmarks.statistics.verification import Tally, accepted_within

Attempts = int | Literal["unbounded"]
"""A number of attempts: 0 is to abstain always, unbounded is that each further attempt helps."""
Number = int | float | str | Fraction
_CLOSE = 1e-9
_EXACT_UP_TO = 5_000


class Best(NamedTuple):
    """The number of attempts with the highest expected utility."""

    attempts: Attempts
    value: float
    """The utility there; in the limit, where it is unbounded."""
    within: int
    """The fewest attempts that reach the highest value the samples at hand can show."""


def utility(tallies: Sequence[Tally], ks: Sequence[int], cost: Number) -> Floats:
    """Expected utility of K attempts per problem, shape (problems, ks); NaN beyond a problem's samples."""
    worth = np.array([float(_worth(t, Fraction(str(cost)))) for t in tallies])
    return np.asarray(accepted_within(tallies, ks) * worth[:, None])


def _worth(one: Tally, cost: Fraction) -> Fraction:
    """Of an accepted sample; 0 where there is none."""
    if not one.accepted:
        return Fraction(0)
    return (one.true_positives - cost * one.false_positives) / Fraction(one.accepted)


def best_attempts(tallies: Sequence[Tally], cost: Number) -> Best:
    """The best number of attempts at this cost of a false positive.

    Every problem must have as many samples as the others. Unbounded: at the rates seen, the mean utility rises
    for ever. Raises ValueError where the numbers of samples differ.
    """
    sizes = {t.samples for t in tallies}
    if len(sizes) > 1:
        raise ValueError(f"problems must have the same number of samples, but have {sorted(sizes)}")
    n = sizes.pop() if sizes else 0
    weights: dict[int, Fraction] = {}
    for one in tallies:
        if one.accepted:
            weights[one.accepted] = weights.get(one.accepted, Fraction(0)) + _worth(one, Fraction(str(cost)))
    weights = {accepted: weight for accepted, weight in weights.items() if weight}
    if not weights:
        return Best(0, 0.0, 0)
    peaks = _peaks(_signs(n, weights))
    values = {k: sum(w * (1 - _avoided(n, b, k)) for b, w in weights.items()) for k in peaks}
    best = max(values, key=lambda k: (values[k], -k), default=0)
    if not values or values[best] <= 0:
        return Best(0, 0.0, 0)
    least = min(weights)
    last = n - least + 1  # from here on every problem that has an accepted sample has shown one
    rising = best == last and least < n
    return Best("unbounded" if rising else best, float(values[best] / len(tallies)), best)


def _avoided(n: int, accepted: int, k: int) -> Fraction:
    return Fraction(math.comb(n - accepted, k), math.comb(n, k))


def _signs(n: int, weights: dict[int, Fraction]) -> list[int]:
    """The signs of what attempts 1, 2, ..., n add: the sum of weight * accepted * P(none accepted before)."""
    counts = sorted(weights)
    places = np.arange(n, dtype=np.float64)
    scale = np.array([float(weights[b]) * b for b in counts])
    logs = np.full((len(counts), n), -np.inf)
    for row, b in zip(logs, counts, strict=True):
        reach = n - b  # beyond it one of the accepted has been drawn
        row[0] = 0.0
        row[1 : reach + 1] = np.cumsum(np.log1p(-b / (n - places[:reach])))
    top = logs.max(axis=0)
    terms = scale[:, None] * np.exp(logs - np.where(np.isinf(top), 0.0, top))
    sums, sizes = terms.sum(axis=0), np.abs(terms).sum(axis=0)
    signs = np.sign(sums).astype(int)
    for k in np.flatnonzero((np.abs(sums) <= _CLOSE * sizes) & (sizes > 0)):
        exact = sum(weights[b] * b * math.comb(n - b, int(k)) for b in counts)
        signs[k] = (exact > 0) - (exact < 0)
    return [int(sign) for sign in signs]


def _peaks(signs: Sequence[int]) -> list[int]:
    """Where a curve that starts at 0 has risen and does not rise further next."""
    peaks, rising = [], 0
    for k, sign in enumerate(signs, start=1):
        if sign > 0:
            rising = k
        elif sign < 0 and rising:
            peaks.append(rising)
            rising = 0
    return [*peaks, rising] if rising else peaks


class TwoTypes(NamedTuple):
    """The theory of the paper: tasks are easy or hard, and nobody can tell which until attempts fail."""

    easy_share: float
    """How many tasks are easy (p1); the others are hard (p2)."""
    easy: float
    """P(right) of one sample on an easy task (r1)."""
    hard: float
    """The same on a hard one (r2)."""
    soundness: float
    """P(rejected | wrong)."""
    completeness: float = 1.0
    """P(accepted | right)."""

    @property
    def threshold(self) -> float:
        """The cost of a false positive below which it pays to go on for ever: an accepted answer to a hard
        task is then worth something, and only those are left after many attempts."""
        wrong = (1 - self.hard) * (1 - self.soundness)
        return self.completeness * self.hard / wrong if wrong else math.inf


def two_types_of(tallies: Sequence[Tally]) -> TwoTypes | None:
    """The paper's estimate of its parameters: easy is right more often than not. None without both types, or
    where nothing is accepted or all is right."""
    having = [t for t in tallies if t.samples]
    rates = [t.right / t.samples for t in having]
    easy, hard = [r for r in rates if r > 0.5], [r for r in rates if r <= 0.5]
    given = [q for t in having if (q := t.conditional_accuracy) is not None]
    if not (easy and hard and given):
        return None
    right = sum(rates) / len(rates)
    accepted = sum(t.accepted / t.samples for t in having) / len(having)
    soundness = (1 - accepted - right + accepted * sum(given) / len(given)) / (1 - right)
    return TwoTypes(
        len(easy) / len(rates), sum(easy) / len(easy), sum(hard) / len(hard), min(1.0, max(0.0, soundness))
    )


def two_type_optimal_k(
    model: TwoTypes, cost: Number, *, saturated: bool = False, most: int = 800
) -> Attempts:
    """The best number of attempts in the two-type model, decided exactly.

    `saturated` is what the paper printed: running sums of floats up to `most` attempts, in which the belief
    stands where the prior should in the chance to get that far. Where the true answer is "unbounded", it is the
    attempt at which the sum stops growing in floating point (Llama-3.1-8B: 76 to 82); elsewhere the two agree.
    """
    if saturated:
        return _saturated(model, float(Fraction(str(cost))), most)
    share, soundness, completeness = map(Fraction, (model.easy_share, model.soundness, model.completeness))
    terms: dict[Fraction, Fraction] = {}
    for prior, rate in ((share, Fraction(model.easy)), (1 - share, Fraction(model.hard))):
        worth = completeness * rate - Fraction(str(cost)) * (1 - rate) * (1 - soundness)
        reject = (1 - completeness) * rate + soundness * (1 - rate)
        terms[reject] = terms.get(reject, Fraction(0)) + prior * worth
    return _geometric_peak({reject: gain for reject, gain in terms.items() if gain})


def _geometric_peak(terms: dict[Fraction, Fraction]) -> Attempts:
    """Where the running sum of gain * reject**(k-1) over at most two terms is highest."""
    if not terms:
        return 0
    slow, fast = max(terms), min(terms)
    late, early = terms[slow], terms[fast]
    if slow == fast or (early > 0) == (late > 0):
        return 0 if late < 0 else "unbounded" if slow else 1
    if late > 0:
        return "unbounded" if early / (1 - fast) + late / (1 - slow) > 0 else 0
    if early + late <= 0:
        return 0
    if not fast:
        return 1
    k = 1 + math.floor(math.log(early / -late) / math.log(slow / fast))
    if k <= _EXACT_UP_TO:
        while k and early * fast ** (k - 1) + late * slow ** (k - 1) <= 0:
            k -= 1
        while early * fast**k + late * slow**k > 0:
            k += 1
    return k


def _saturated(model: TwoTypes, cost: float, most: int) -> int:
    priors = np.array([[model.easy_share], [1 - model.easy_share]])
    rates = np.array([[model.easy], [model.hard]])
    worth = model.completeness * rates - cost * (1 - rates) * (1 - model.soundness)
    survive = ((1 - model.completeness) * rates + model.soundness * (1 - rates)) ** np.arange(most)
    with np.errstate(invalid="ignore"):
        belief = survive * priors / (survive * priors).sum(axis=0)
    added = (worth * belief).sum(axis=0) * (survive * belief).sum(axis=0)
    sums = np.cumsum(np.nan_to_num(added))
    best = int(np.argmax(sums))
    return best + 1 if sums[best] >= 0 else 0
