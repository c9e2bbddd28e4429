"""What a search has tried, and what it says: how much each choice matters, and how the best grew with what was spent.

Importance is a variance analysis (Fisher 1925; "type II" sums of squares): a model with an effect for every axis is
fitted to the values of all trials, and an axis is worth what the fit loses without it, less what chance alone would
lose (epsilon squared, Kelley 1935). Why not Optuna's evaluators: PED-ANOVA, the one for conditional spaces, compares
the best tenth with all that was tried, so an alternative that the search soon kept to seems of no importance; fANOVA
needs scikit-learn and has no conditional axes. Here axes that were chosen together are told apart by the trials in
which they were not. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from archon.search.axes import Axes, Axis, Configuration

State = Literal["running", "complete", "pruned", "failed"]
Direction = Literal["maximize", "minimize"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried, or is being tried."""

    configuration: Configuration
    number: int | None = None
    """Its number in Optuna's study; None where the process that began it was gone before it had one."""
    state: State = "running"
    """`pruned` where it lost its race, `failed` where it could not be evaluated."""
    values: tuple[float, ...] | None = None
    """One per objective; of a pruned one, over the problems so far. None where it runs or failed."""
    problems: int = 0
    """How many problems the values rest on."""
    fresh_tokens: int = 0
    """Tokens that were newly paid for by it: not what the store had."""
    proposer: str = ""
    reason: str = ""
    """Why it failed or was pruned."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else was recorded with it (JSON): the stack in words, its cost, the split, its race."""
    began: datetime | None = None
    ended: datetime | None = None
    """Local time of the machine that ended it."""
    again: bool = False
    """Whether it was taken up after the process that began it was gone."""

    @property
    def key(self) -> str:
        """The configuration's."""
        return self.configuration.key


def anytime(
    history: Sequence[Trial], *, objective: int = 0, direction: Direction = "maximize"
) -> list[tuple[int, float]]:
    """The best value so far, by the fresh tokens spent so far: a point for every trial that improves on it.

    The tokens of a trial count where it ends, whatever came of it; the best is among those that completed.
    """
    points: list[tuple[int, float]] = []
    spent = 0
    for trial in history:
        spent += trial.fresh_tokens
        if trial.state != "complete" or trial.values is None:
            continue
        value = trial.values[objective]
        if not points or (value > points[-1][1] if direction == "maximize" else value < points[-1][1]):
            points.append((spent, value))
    return points


def importance(history: Sequence[Trial], axes: Axes, *, objective: int = 0) -> dict[str, float]:
    """How much each choice matters: the share, from 0 to 1, of the differences in value between trials that is due to
    this axis and to no other; largest first.

    Trials count by the problems their values rest on. A choice has an effect per option, a number a line or a parabola
    (of its logarithm, where that is its scale). An axis that matters only under some choices is worth what it changes
    there, so little where it seldom mattered. What is missing from 1 is what axes do together, and chance. Empty where
    there are too few trials for so many effects.
    """
    trials = [trial for trial in history if trial.values is not None and trial.problems >= 0]
    if len(trials) < 3:
        return {}
    counts = np.array([max(trial.problems, 1) for trial in trials], dtype=np.float64)
    weights = counts / counts.mean()
    values = np.array([trial.values[objective] for trial in trials if trial.values is not None])
    values = values - np.average(values, weights=weights)
    in_all = float(weights @ values**2)
    if in_all <= 1e-18 * max(len(trials), 1):
        return {axis.name: 0.0 for axis in axes}
    columns = {axis.name: _effects(axis, trials, weights) for axis in axes}
    constant = np.ones((len(trials), 1))

    def missed(without: str | None) -> tuple[float, int]:
        """What is left unexplained, and how many effects were fitted."""
        kept = [columns[name] for name in columns if name != without]
        design = np.concatenate([constant, *kept], axis=1) * np.sqrt(weights)[:, None]
        fit, _, rank, _ = np.linalg.lstsq(design, values * np.sqrt(weights), rcond=1e-9)
        return float(np.sum((values * np.sqrt(weights) - design @ fit) ** 2)), int(rank)

    left, effects = missed(None)
    free = len(trials) - effects
    if free < 1:
        return {}
    chance = left / free
    found = {}
    for name in columns:
        more, fewer = missed(name)
        found[name] = float(np.clip((more - left - (effects - fewer) * chance) / in_all, 0.0, 1.0))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _effects(axis: Axis, trials: Sequence[Trial], weights: Floats) -> Floats:
    """The columns of an axis in the model, shape (trials, effects): 0 where it does not matter, and 0 in the mean over
    the trials where it does, so that it does not stand for the choice that it depends on."""
    on = np.array([axis.name in trial.configuration for trial in trials])
    chosen = [trial.configuration[axis.name] for trial in trials if axis.name in trial.configuration]
    if not chosen:
        return np.zeros((len(trials), 0))
    if axis.kind == "choice":
        options = [(type(option), option) for option in axis.options]
        seen = np.array([[(type(value), value) == option for option in options] for value in chosen])
        inside = seen[:, seen.any(axis=0)].astype(np.float64)
    else:
        numbers = np.array(chosen, dtype=np.float64)
        numbers = np.log(numbers) if axis.log else numbers
        spread = float(np.ptp(numbers)) or 1.0
        scaled = (numbers - numbers.min()) / spread - 0.5
        inside = np.stack([scaled, scaled**2], axis=1)
    inside = inside - np.average(inside, axis=0, weights=weights[on])
    found = np.zeros((len(trials), inside.shape[1]))
    found[on] = inside
    return found
