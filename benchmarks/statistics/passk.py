"""pass@k and its kin, without bias and without rounding trouble up to millions of samples.

With n samples of which c are right, the probability that k drawn without replacement hold a right one is
pass@k = 1 - C(n-c, k) / C(n, k)  (Chen et al. 2021, arXiv 2107.03374, section 2.1), and that all are right is
pass^k = C(c, k) / C(n, k)  (Yao et al. 2024, tau-bench, arXiv 2406.12045). Both come from one function: the
probability that a draw of k avoids all marked ones, as a sum of logarithms of ratios near 1, so that no
factorial and no difference of large numbers is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def pass_at_k(n: ArrayLike, c: ArrayLike, ks: Sequence[int]) -> Floats:
    """pass@k per problem.

    `n` and `c` are samples and right samples per problem, shape (problems,). Returns shape (problems,
    len(ks)), NaN where a problem has fewer than k samples. Raises ValueError unless 0 <= c <= n and k >= 1.
    """
    samples, right = _checked(n, c, ks)
    return np.asarray(0.0 - np.expm1(_log_avoid(samples, right, ks)))


def pass_hat_k(n: ArrayLike, c: ArrayLike, ks: Sequence[int]) -> Floats:
    """pass^k per problem: the probability that all of k samples are right. Shapes as `pass_at_k`."""
    samples, right = _checked(n, c, ks)
    return np.asarray(np.exp(_log_avoid(samples, samples - right, ks)))


def avoid(n: int, marked: ArrayLike, ks: Sequence[int]) -> Floats:
    """The probability that k of n drawn without replacement hold none of the marked ones.

    `marked` has shape (m,); returns (m, len(ks)).
    """
    counts = np.atleast_1d(np.asarray(marked, dtype=np.int64))
    return np.asarray(np.exp(_log_avoid(np.full_like(counts, n), counts, ks)))


def _checked(n: ArrayLike, c: ArrayLike, ks: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    samples = np.atleast_1d(np.asarray(n, dtype=np.int64))
    right = np.atleast_1d(np.asarray(c, dtype=np.int64))
    if samples.shape != right.shape:
        raise ValueError(
            f"`n` and `c` must have one entry per problem, but have {samples.shape} and {right.shape}"
        )
    if np.any(right < 0) or np.any(right > samples):
        raise ValueError("`c` must lie between 0 and `n` for every problem")
    if any(k < 1 for k in ks):
        raise ValueError(f"every k must be at least 1, but got {min(ks)}")
    return samples, right


def _log_avoid(n: NDArray[np.int64], marked: NDArray[np.int64], ks: Sequence[int]) -> Floats:
    """log C(n - marked, k) / C(n, k), row by distinct (n, marked); -inf where it is impossible to avoid."""
    pairs, rows = np.unique(np.stack([n, marked], axis=1), axis=0, return_inverse=True)
    table = np.stack([_row(int(a), int(b), ks) for a, b in pairs]) if len(pairs) else np.empty((0, len(ks)))
    return np.asarray(table[rows.reshape(-1)])


def _row(n: int, marked: int, ks: Sequence[int]) -> Floats:
    wanted = np.asarray(ks, dtype=np.int64)
    result = np.full(len(ks), -np.inf)
    result[wanted > n] = np.nan
    possible = wanted <= n - marked
    if not possible.any():
        return result
    if marked == 0:
        result[possible] = 0.0
        return result
    # The ratio is a product over i < k of 1 - marked/(n-i), and as well over i < marked of 1 - k/(n-i):
    # take the one with fewer factors in all.
    deepest = int(wanted[possible].max())
    if deepest <= marked * int(possible.sum()):
        i = np.arange(deepest, dtype=np.float64)
        sums = np.cumsum(np.log1p(-marked / (n - i)), dtype=np.longdouble)
        result[possible] = sums[wanted[possible] - 1].astype(np.float64)
    else:
        i = np.arange(marked, dtype=np.float64)
        for at in np.flatnonzero(possible):
            result[at] = float(np.sum(np.log1p(-float(wanted[at]) / (n - i)), dtype=np.longdouble))
    return result
