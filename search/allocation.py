"""Marginal-gain allocation: one budget, many problems, and the next sample goes where it is expected to help most.

Source: Damani et al. 2024, "Learning How Hard to Think: Input-Adaptive Allocation of LM Computation" (arXiv
2410.04707), section 3: a prediction of what each further sample gains on each problem, and a greedy allocation of the
shared budget by it. Cost: no calls; n log m for n samples over m problems.

A gain curve says what a problem is expected to be worth with so many samples: `curve[i]` with i of them. Greedy is
optimal where the curves are concave (each further sample gains no more than the one before) and the samples cost the
same; where costs differ, nothing that costs no more than what it spent is worth more, up to the first sample that it
had no room for. Curves that are not concave are replaced by their least concave majorant: `concave`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln

Curve: TypeAlias = Sequence[float]
"""What a problem is expected to be worth with 0, 1, 2, ... samples."""
Floats: TypeAlias = NDArray[np.float64]

_ROUNDING = 1e-12


def allocate(
    curves: Sequence[Curve],
    budget: float,
    costs: Sequence[float] | None = None,
    least: Sequence[int] | int = 0,
) -> list[int]:
    """How many samples each problem gets, so that what all are worth together is as much as `budget` can buy.

    `costs` is what one sample of each problem costs, in the budget's unit (1 where not given). `least` is what each
    problem has already: it is neither paid for here nor taken back. A curve's length bounds what its problem can get.
    What gains nothing is not bought, so some of the budget may be left. Equal gains per cost go to the earlier problem.

    Raises ValueError where a curve is not concave, a cost is not positive, or the lengths differ.
    """
    count = len(curves)
    each = [1.0] * count if costs is None else [float(cost) for cost in costs]
    got = [least] * count if isinstance(least, int) else list(least)
    if not len(each) == len(got) == count:
        raise ValueError(f"there are {count} curves, {len(each)} costs and {len(got)} of `least`")
    if any(not cost > 0 for cost in each):
        raise ValueError("a sample's cost is above 0")
    for place, curve in enumerate(curves):
        if not is_concave(curve[got[place] :]):
            raise ValueError(f"curve {place} is not concave; take `concave` of it")
    left = float(budget)
    heap: list[tuple[float, int]] = []

    def offer(place: int) -> None:
        curve, n = curves[place], got[place]
        if n + 1 < len(curve) and (gain := curve[n + 1] - curve[n]) > _ROUNDING:
            heapq.heappush(heap, (-gain / each[place], place))

    for place in range(count):
        offer(place)
    while heap:
        _, place = heapq.heappop(heap)
        if each[place] > left + _ROUNDING:
            continue  # cheaper ones may still fit
        got[place] += 1
        left -= each[place]
        offer(place)
    return got


def is_concave(curve: Curve) -> bool:
    """Whether each further sample gains no more than the one before, but for rounding."""
    return bool(np.all(np.diff(np.asarray(curve, dtype=np.float64), 2) <= 1e-9))


def concave(curve: Curve) -> list[float]:
    """The least concave curve that is nowhere below this one: what greedy allocation needs.

    Where a curve first pays after several samples, their gain is spread over them evenly.
    """
    hull: list[int] = []
    for i, value in enumerate(curve):
        while len(hull) >= 2:
            a, b = hull[-2:]
            if (curve[b] - curve[a]) * (i - a) > (value - curve[a]) * (b - a):
                break
            hull.pop()
        hull.append(i)
    return [float(v) for v in np.interp(np.arange(len(curve)), hull, [curve[i] for i in hull])]


def coverage_curve(right: float, wrong: float, most: int, *, known: int = 0) -> list[float]:
    """The chance that some of 0 to `most` samples is right, where the share p of right ones is Beta(right, wrong).

    The mean of 1 - (1 - p)^n over p, which is concave. `known` samples were looked at and none was right, which the
    distribution says already: the curve is 0 up to there, and counts the further ones from there.

    Raises ValueError where a parameter of the distribution is not positive.
    """
    if not (right > 0 and wrong > 0):
        raise ValueError(f"a Beta distribution has positive parameters, and these are {right} and {wrong}")
    further = np.maximum(np.arange(most + 1) - known, 0)
    missed = np.exp(betaln(right, wrong + further) - betaln(right, wrong))
    return [float(1 - m) for m in missed]


def vote_curve(first: float, second: float, most: int) -> list[float]:
    """The chance that a vote of 0 to `most` samples finds the likelier of the two leading answers.

    The share of the first among the votes for the two is Beta(first, second): how many samples gave each, and a prior
    (1 each: all shares are alike). A tie is decided by chance, so an even number finds no more than the odd one before
    it (Condorcet); over odd numbers the chance is concave, and so is this curve, which joins them by lines. It says how
    surely a vote finds what the model believes, and not whether that is right.
    """
    pairs = np.arange(1.0, most // 2 + 1)
    # From 2k - 1 to 2k + 1 votes gains C(2k - 1, k) m^k (1 - m)^k (2m - 1), m being the likelier one's share.
    ways = -np.log(pairs) - betaln(pairs, pairs)
    weight = np.exp(ways + betaln(first + pairs, second + pairs) - betaln(first, second))
    gains = weight * _distance(first + pairs, second + pairs)
    single = 0.5 + 0.5 * _distance(np.array([first]), np.array([second]))
    odd = single + np.append(0.0, np.cumsum(gains))
    known = np.append(0, 2 * np.arange(len(odd)) + 1)
    return [float(v) for v in np.interp(np.arange(most + 1), known, np.append(0.5, odd))]


def beta_prior(right: ArrayLike, drawn: ArrayLike) -> tuple[float, float]:
    """The Beta distribution of the share of right samples over problems, from how many were right of how many drawn.

    Fitted by its first two moments, what chance alone adds to the variance taken off; never more even than 50 samples'
    knowledge, nor less than a twentieth of one. Raises ValueError where nothing was drawn.
    """
    won, tried = np.asarray(right, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
    won, tried = won[tried > 0], tried[tried > 0]
    if not len(tried):
        raise ValueError("no problem has samples to fit a distribution to")
    share = won / tried
    mean = float(np.clip((won.sum() + 0.5) / (tried.sum() + 1), 1e-3, 1 - 1e-3))
    noise = float(np.mean(mean * (1 - mean) / tried))
    inverse = float(np.mean(1 / tried))
    spread = float(np.mean((share - mean) ** 2))
    between = max((spread - noise) / max(1 - inverse, 1e-9), 1e-9)
    size = float(np.clip(mean * (1 - mean) / between - 1, 0.05, 50.0))
    return mean * size, (1 - mean) * size


def _distance(a: Floats, b: Floats) -> Floats:
    """The mean of |2x - 1| where x is Beta(a, b)."""
    mean = a / (a + b)
    below = betainc(a, b, 0.5) - 2 * mean * betainc(a + 1, b, 0.5)
    return np.asarray(2 * mean - 1 + 2 * below, dtype=np.float64)
