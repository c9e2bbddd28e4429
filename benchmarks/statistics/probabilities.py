"""How good scores that are probabilities are: their order, and whether they mean what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def area_under_curve(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The chance that a right one scores above a wrong one (ties half): the area under the ROC curve."""
    from scipy.stats import rankdata

    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def order_within(
    scores: NDArray[np.float64], right: NDArray[np.bool_], whose: Sequence[str]
) -> tuple[float, int]:
    """The same over pairs that belong together (replies to one question), and how many pairs that is.

    Scores that tell easy questions from hard ones have a large area under the curve over all of them; what chooses
    among the replies to one question, or steers them, lives on this figure alone.
    """
    by: dict[str, list[int]] = {}
    for place, name in enumerate(whose):
        by.setdefault(name, []).append(place)
    won, pairs = 0.0, 0
    for places in by.values():
        high, low = (scores[[p for p in places if right[p] == side]] for side in (True, False))
        won += float((high[:, None] > low).sum() + (high[:, None] == low).sum() / 2)
        pairs += high.size * low.size
    return won / pairs if pairs else float("nan"), pairs


def calibration(
    scores: NDArray[np.float64], outcomes: NDArray[np.float64], bins: int = 10
) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error, and per bin of equal width: mean score, mean outcome, how many."""
    at = np.minimum((scores * bins).astype(int), bins - 1)
    table = [
        (float(scores[at == b].mean()), float(outcomes[at == b].mean()), int((at == b).sum()))
        for b in range(bins)
        if (at == b).any()
    ]
    return sum(n * abs(s - o) for s, o, n in table) / max(1, len(scores)), table
