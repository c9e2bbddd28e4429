"""Choosing the next tokens of many samples at once, each by its own parameters and its own random numbers.

Temperature first, then min-p (Nguyen et al. 2024), top-k and top-p (Holtzman et al. 2019), in vLLM's order; then the
token at which the cumulative distribution passes the sample's uniform number. Of equal logits the token with the lower
number is the likelier one: greedy decoding takes it, and `top_k` keeps no more than k, where vLLM keeps all that equal
the k-th. In float64, row by row alike, so that a row's choice depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class Choice(NamedTuple):
    """How one sample is drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 is all."""
    min_p: float = 0.0


def choose(logits: NDArray[np.float32], choices: Sequence[Choice], uniform: Doubles) -> NDArray[np.int64]:
    """One token per row of logits."""
    temperature, top_p, top_k, min_p = np.array(choices, np.float64).T
    greedy = temperature == 0
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # at a temperature next to 0, at which one token is left
        weights = np.exp(below / np.where(greedy, 1.0, temperature)[:, None])
    weights[weights < min_p[:, None]] = 0
    cut = (top_k > 0) | (top_p < 1)
    if cut.any():
        weights[cut] = _likeliest(weights[cut], top_k[cut], top_p[cut])
    passed = np.cumsum(weights, axis=1)
    total = passed[:, -1:]
    drawn = np.minimum(uniform[:, None] * total, np.nextafter(total, 0))
    tokens: NDArray[np.int64] = (passed <= drawn).sum(axis=1)
    return np.where(greedy, logits.argmax(axis=1), tokens)


def _likeliest(weights: Doubles, top_k: Doubles, top_p: Doubles) -> Doubles:
    """The `top_k` largest, and of these as many as are needed for `top_p` of their sum; the others are 0."""
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    ranked[np.arange(weights.shape[1]) >= np.where(top_k > 0, top_k, np.inf)[:, None]] = 0
    before = np.cumsum(ranked, axis=1) - ranked
    ranked[before >= top_p[:, None] * ranked.sum(axis=1, keepdims=True)] = 0
    kept = np.zeros_like(weights)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept


def log_probabilities(logits: NDArray[np.float32]) -> Doubles:
    """Natural logarithms of the model's own probabilities, before temperature and cuts, as vLLM gives them."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    logs: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logs
