"""What a particle weighs, by what is thought of it.

Source: Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based
Monte Carlo Methods" (arXiv 2502.01618), section 3: the softmax of the logits of a process reward model's scores, with
a temperature. Cost: none of its own.
"""

from __future__ import annotations

import math
from typing import Literal

from archon.steps import convert

Weighing = Literal["logit", "probability"]
"""A particle's weight is exp(logit(score) / T), the odds; or score ** (1 / T)."""

_TINY = 1e-300
_MOST = 1e300
"""Logarithms of weights are no further from 0: their sums and differences are numbers."""


def log_weight(
    value: float | None, *, calibrated: bool, by: Weighing = "logit", temperature: float = 1.0
) -> float:
    """The logarithm of the weight of a partial answer with this value; 0 (the weight 1) where it has none.

    Uncalibrated scores are taken for logits. Always a finite number.
    """
    if value is None or math.isnan(value):
        return 0.0
    if not calibrated:
        log = value
    elif by == "logit":
        log = convert(value, "probability", "logit")
    else:
        log = math.log(max(value, _TINY))
    return min(max(log / temperature, -_MOST), _MOST)
