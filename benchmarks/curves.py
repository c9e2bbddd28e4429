"""Accuracy against tokens, problem by problem, and how much more one curve takes than another.

A scaling rate is a factor: how many times as many tokens a method takes for the accuracy that another one reaches.
Between measured budgets a curve is a straight line in the logarithm of its tokens. Intervals resample problems, with
both curves over the same ones (paired).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from archon.benchmarks.statistics.intervals import Interval, wilson
from archon.benchmarks.statistics.passk import Floats

_RESAMPLES = 1000


@dataclass(frozen=True)
class Curve:
    """One method, over problems (rows) and budgets (columns)."""

    budgets: tuple[int, ...]
    tokens: Floats
    """What it used, shape (problems, budgets)."""
    right: Floats
    """How often it was right (0 to 1), shape (problems, budgets)."""

    @cached_property
    def accuracy(self) -> list[Interval]:
        """By budget."""
        return [wilson(self.right[:, i]) for i in range(len(self.budgets))]

    @cached_property
    def mean_tokens(self) -> list[float]:
        """By budget."""
        return [float(mean) for mean in self.tokens.mean(axis=0)]

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {
            "budget": list(self.budgets),
            "tokens": self.mean_tokens,
            "accuracy": [i.value for i in self.accuracy],
            "low": [i.low for i in self.accuracy],
            "high": [i.high for i in self.accuracy],
            "problems": len(self.right),
        }


def rate(one: Curve, other: Curve, *, seed: int = 0) -> dict[str, Any] | None:
    """How many times as many tokens `other` takes for the accuracy of `one`: the geometric mean over the accuracies
    that both reach, with a 95% interval. None where there are none.

    Raises ValueError where they are not over equally many problems.
    """
    if len(one.right) != len(other.right):
        raise ValueError(
            f"curves are of {len(one.right)} and {len(other.right)} problems; both need the same"
        )
    everything = np.arange(len(one.right))
    factor = _factor(one, other, everything)
    if factor is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [
        found
        for _ in range(_RESAMPLES)
        if (found := _factor(one, other, rng.integers(len(everything), size=len(everything)))) is not None
    ]
    low, high = np.exp(np.percentile(np.log(drawn), [2.5, 97.5])) if drawn else (factor, factor)
    return {"factor": factor, "low": float(low), "high": float(high)}


def _factor(one: Curve, other: Curve, rows: Any) -> float | None:
    (x, y), (u, v) = (_line(curve, rows) for curve in (one, other))
    low, high = max(y[0], v[0]), min(y[-1], v[-1])
    if not low < high:
        return None
    levels = np.linspace(low, high, 21)
    return float(np.exp(np.mean(np.interp(levels, v, u) - np.interp(levels, y, x))))


def _line(curve: Curve, rows: Any) -> tuple[Floats, Floats]:
    """Logarithms of tokens, and the accuracy that so many are enough for: it never falls, so that it can be read
    backwards; where it stays the same, the fewest tokens count."""
    x = np.log(np.maximum(curve.tokens[rows].mean(axis=0), 1.0))
    order = np.argsort(x, kind="stable")
    best = np.maximum.accumulate(curve.right[rows].mean(axis=0)[order])
    first = np.concatenate([[True], np.diff(best) > 0])
    return x[order][first], best[first]


def draw(curves: Mapping[str, Curve], title: str, path: Path) -> None:
    """A picture: accuracy against tokens per problem, with 95% intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(8, 5), layout="constrained")
    for number, (name, curve) in enumerate(curves.items()):
        value, low, high = (
            [100 * getattr(i, part) for i in curve.accuracy] for part in ("value", "low", "high")
        )
        colour, line = f"C{number % 10}", "--" if number >= 10 else "-"
        plot.plot(
            curve.mean_tokens, value, marker="o", markersize=3.5, label=name, color=colour, linestyle=line
        )
        plot.fill_between(curve.mean_tokens, low, high, alpha=0.08, color=colour, linewidth=0)
    plot.set_xscale("log")
    plot.set_xlabel("tokens per problem, the reward model's included")
    plot.set_ylabel("right, % of problems")
    problems = len(next(iter(curves.values())).right)
    plot.set_title(f"{title}: {problems} problems, 95% intervals", fontsize=10)
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
