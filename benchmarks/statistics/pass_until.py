"""PassUntil: sample until the r-th pass, and know a small probability as well as a large one.

Source: Hu et al. 2023, "Predicting Emergent Abilities with Infinite Resolution Evaluation" (arXiv 2310.03262): with a
fixed number of samples, a task that passes once in a thousand looks impossible; sampling until it passes has a
resolution without end. The number of samples until the r-th pass is negative binomial, and (r - 1) / (N - 1) is the
unbiased estimate of the pass rate (Haldane 1945); r / N is too high on average, by most where r is small.

Where sampling ends at a limit before the r-th pass, c / n is the estimate. Both together are unbiased whatever the
limit is (Girshick, Mosteller and Savage 1946): the share of the ways to the end that begin with a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from archon.benchmarks.statistics.intervals import LEVEL


class PassRate(NamedTuple):
    """An estimate of a pass rate, with how it came about."""

    value: float
    """Unbiased."""
    low: float
    """Of the exact interval (Clopper and Pearson's, for sampling that stops)."""
    high: float
    passes: int
    samples: int
    """That were drawn."""
    reached: bool
    """Whether as many passed as were waited for; else sampling ended at its limit."""


def pass_until(outcomes: Iterable[bool], passes: int = 2) -> PassRate:
    """The pass rate by sampling until so many have passed, or until the outcomes end.

    `outcomes` says of each sample, in the order in which they were drawn, whether it passes; it is read no further
    than needed. That order must not depend on the samples: by index, and not by arrival, where the quick ones come
    first. Raises ValueError unless `passes` is 2 or more (a first pass alone has no unbiased estimate but "it was the
    first sample"), and where there are no outcomes.
    """
    if passes < 2:
        raise ValueError(f"`passes` is {passes}, and an estimate needs 2 or more")
    found = drawn = 0
    for passed in outcomes:
        drawn += 1
        found += bool(passed)
        if found == passes:
            break
    if not drawn:
        raise ValueError("there are no outcomes, and so nothing to estimate from")
    return rate_of(found, drawn, passes)


def rate_of(found: int, drawn: int, passes: int) -> PassRate:
    """The pass rate where so many of the drawn samples passed, and `passes` were waited for."""
    reached = found == passes
    value = (passes - 1) / (drawn - 1) if reached else found / drawn
    return PassRate(value, *_interval(found, drawn, reached), found, drawn, reached)


def _interval(found: int, drawn: int, reached: bool, level: float = LEVEL) -> tuple[float, float]:
    """The rates at which neither this end nor one beyond it is improbable.

    An end is the further up the sooner it was reached. At this one or further up: `found` passes within `drawn`
    samples. At this one or further down: fewer than `found` in the samples before the last, where it was reached; else
    no more than `found` in all.
    """
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(found, drawn - found + 1, tail)) if found else 0.0
    wins, losses = (found, drawn - found) if reached else (found + 1, drawn - found)
    high = float(betaincinv(wins, losses, 1 - tail)) if losses else 1.0
    return low, high


def expected_samples(rate: float, passes: int, limit: int | None = None) -> float:
    """How many samples it takes on average until so many have passed, or until the limit."""
    if rate <= 0:
        return math.inf if limit is None else float(limit)
    if limit is None:
        return passes / rate
    from scipy.special import betainc

    # The sum over k < limit of P(fewer than `passes` among k), where P(no fewer) is a regularised beta function.
    return math.fsum(
        1.0 if k < passes else 1.0 - float(betainc(passes, k - passes + 1, rate)) for k in range(limit)
    )
