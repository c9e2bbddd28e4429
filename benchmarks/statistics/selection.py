"""What a selector would have chosen at any k, from one pool of samples per problem.

Selected accuracy at k is the probability, over k samples drawn from the pool in random order, that the
candidate the selector chooses is right. For selectors by score that is a closed form; for votes it is an
average over random orders, the same for every selector and k, so curves are comparable (common random
numbers). Coverage (pass@k) is what a perfect selector would have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archon.benchmarks.statistics.passk import Floats, avoid

ORDERS = 200


def by_score(
    merits: Sequence[float | None], right: Sequence[bool], ks: Sequence[int]
) -> tuple[Floats, Floats]:
    """Exact (selected accuracy, abstention) at each k, where the highest merit is chosen.

    `merits` may hold None: never chosen. Equal merits are chosen in random order, as the earliest of equals
    in a random order is any of them. NaN where there are fewer than k samples.
    """
    n = len(merits)
    truth = np.asarray(right, dtype=np.float64)
    scored = np.array([np.nan if m is None else m for m in merits], dtype=np.float64)
    levels = np.unique(scored[~np.isnan(scored)])[::-1]
    above = np.array([0, *(int((scored >= level).sum()) for level in levels)])
    # The chance to avoid everything at or above each level; differences are the chances that it is the best.
    clear = avoid(n, above, ks) if n else np.full((len(above), len(ks)), np.nan)
    chances = clear[:-1] - clear[1:]
    accuracy = np.array([truth[scored == level].mean() for level in levels])
    selected = np.clip(accuracy @ chances, 0.0, 1.0) if len(levels) else np.zeros(len(ks))
    selected = np.where(np.asarray(ks) > n, np.nan, selected)
    return selected, clear[-1]


def by_vote(
    answers: Sequence[int | None],
    weights: Sequence[float],
    right: Sequence[bool],
    ks: Sequence[int],
    *,
    orders: int = ORDERS,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """(Selected accuracy, abstention) at each k, where the answer with the largest total weight is chosen.

    `answers` are labels (None does not vote), `weights` their votes. The earliest answer wins a tie, and the
    earliest candidate that gave it is chosen. Averaged over random orders.
    """
    n = len(answers)
    selected, abstained = np.full(len(ks), np.nan), np.full(len(ks), np.nan)
    if n == 0:
        return selected, abstained
    labels = np.array([-1 if a is None else a for a in answers])
    known = np.unique(labels[labels >= 0])
    truth, weight = np.asarray(right, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    order = random_orders(n, orders, seed)
    orders, width = len(order), len(known) + 1  # the last column is for those that do not vote
    columns = np.where(labels >= 0, np.searchsorted(known, labels), width - 1)[order]
    cells = np.arange(orders)[:, None] * width + columns
    first = np.full(orders * width, n)
    for place in reversed(range(n)):
        first[cells[:, place]] = place
    first = first.reshape(orders, width)[:, :-1]
    totals, counted = np.zeros(orders * width), 0
    for at, k in sorted(enumerate(ks), key=lambda pair: pair[1]):
        if k > n:
            continue
        if not len(known):
            selected[at], abstained[at] = 0.0, 1.0
            continue
        votes = weight[order[:, counted:k]].reshape(-1)
        totals += np.bincount(cells[:, counted:k].reshape(-1), votes, minlength=orders * width)
        counted = k
        voted = first < k
        score = np.where(voted, totals.reshape(orders, width)[:, :-1], -np.inf)
        best = score.max(axis=1, keepdims=True)
        tied = voted & (score >= best - 1e-9 * np.abs(best))
        chosen = np.where(tied, first, n).min(axis=1)
        none = chosen >= n
        picked = np.where(none, 0.0, truth[order[np.arange(orders), np.minimum(chosen, n - 1)]])
        selected[at], abstained[at] = picked.mean(), none.mean()
    return selected, abstained


def random_orders(n: int, orders: int, seed: int) -> NDArray[np.int64]:
    """Random orders of n samples, shape (about `orders`, n): the same for the same arguments.

    Each random order is used in rotations, so that every sample comes first equally often: at k = 1 the
    average is exact, and elsewhere it varies less.
    """
    rng = np.random.default_rng([seed, n])
    rotations = min(n, orders)
    starts = np.arange(rotations) * n // rotations
    rounds = max(1, round(orders / rotations))
    shuffled = np.argsort(rng.random((rounds, n)), axis=1)
    places = (starts[:, None] + np.arange(n)[None, :]) % n
    return np.asarray(shuffled[:, places].reshape(-1, n))
