"""What a particle weighs, by what is thought of it.

Source: Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based
Monte Carlo Methods" (arXiv 2502.01618), section 3: the softmax of the logits of a process reward model's scores, with
a temperature.
"""

from __future__ import annotations

import math
from typing import Literal

from archon.steps import convert

Weighing = Literal["logit", "probability"]
"""A particle's weight is exp(logit(score) / T), the odds; or score ** (1 / T)."""

_TINY = 1e-300


def log_weight(
    value: float | None, *, calibrated: bool, by: Weighing = "logit", temperature: float = 1.0
) -> float:
    """The logarithm of the weight of a partial answer with this value; 0 (the weight 1) where it has none.

    Uncalibrated scores are taken for logits.
    """
    if value is None:
        return 0.0
    if not calibrated:
        return value / temperature
    if by == "logit":
        return convert(value, "probability", "logit") / temperature
    return math.log(max(value, _TINY)) / temperature
