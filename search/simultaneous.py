"""Intervals that hold together: of the means of several configurations over the same problems.

Of ten intervals that miss with a chance of 5% each, some one misses with a chance of up to 50%. Here each may miss with
the chance alpha / count (Bonferroni), so that some one of `count` misses with a chance of at most alpha, however the
configurations depend on each other: on the same problems they are right and wrong together, and by how much nobody
knows from a few problems. So each interval has to hold by itself at so small a chance, for few problems and for means
near 0 and 1. Wilson's does not (at 99.5% and 50 problems it misses with a chance of up to 8%), nor does a bootstrap,
which has no width where all problems are right. These do:

- of outcomes that are right or wrong, Clopper and Pearson's exact one (1934);
- of other values in [0, 1], that of tests by betting (search/betting.py), which is wider.

The problems are taken as drawn independently from all that there could be. Cost: no calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv

from archon.search.betting import Bounds, bounds

_ALL = 10**12
"""As many problems as there could be: so many that those drawn are none of them."""


def simultaneous(values: ArrayLike, count: int, *, whole: bool = False, alpha: float = 0.05) -> list[Bounds]:
    """An interval of each configuration's mean, which hold all at once with a chance of at least 1 - alpha.

    `values`, in [0, 1], has the shape (configurations, problems). `count` is how many configurations there were to be,
    those that are not here too: it must not depend on the values. `whole` says that a value can only be 0 or 1. Raises
    ValueError where there are more than `count`, no problems, or other values.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1] or len(table) > count:
        raise ValueError(
            f"values should be at most {count} rows of problems, and have the shape {table.shape}"
        )
    if whole and not np.isin(table, (0.0, 1.0)).all():
        raise ValueError("values that are `whole` are 0 or 1")
    if whole:
        return [exact(int(row.sum()), len(row), alpha / count) for row in table]
    found = []
    for row in table:
        low, high = bounds(row, _ALL, alpha / count)
        found.append(Bounds(min(low, float(row.mean())), max(high, float(row.mean()))))
    return found


def exact(right: int, problems: int, alpha: float) -> Bounds:
    """Clopper and Pearson's interval of a share: what two one-sided binomial tests at alpha / 2 do not refute."""
    wrong = problems - right
    low = betaincinv(right, wrong + 1, alpha / 2) if right else 0.0
    high = betaincinv(right + 1, wrong, 1 - alpha / 2) if wrong else 1.0
    return Bounds(float(low), float(high))
