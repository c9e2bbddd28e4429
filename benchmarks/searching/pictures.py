"""Pictures of a search: how the best grew with what was spent, which choices mattered, and the front."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archon.benchmarks.searching.reading import growth
from archon.benchmarks.searching.wording import is_share

_MOST_AXES = 20
_MOST_LETTERS = 90


def draw(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what `search.json` says; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    found = []
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph", UserWarning
        )  # a letter that the font lacks is drawn as a box
        if growth(told)[1]:
            found.append(_anytime(told, folder / "anytime.png"))
        if any(told["importance"].values()):
            found.append(_importance(told["importance"], folder / "importance.png"))
        if told["front"]:
            found.append(_front(told, folder / "front.png"))
    return found


def _anytime(told: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(7, 4.2), layout="constrained")
    scale, label = _scale(told)
    against, points, end = growth(told)
    at, values = [x for x, _ in points], [scale * value for _, value in points]
    plot.step([*at, end], [*values, values[-1]], where="post", label="best so far, on the search split")
    best = told["best"]
    if best is not None and best["test"]["problems"]:
        test = best["test"]
        value, low, high = (scale * _known(test, name) for name in ("value", "low", "high"))
        plot.errorbar([end], [value], yerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o",
                      capsize=3, color="black", label="the winner, on the test split")  # fmt: skip
    plot.set_xlim(0, 1.05 * end or 1)
    plot.set_xlabel(against)
    plot.set_ylabel(label, parse_math=False)
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _importance(shares: Mapping[str, float], path: Path) -> Path:
    from matplotlib import pyplot as plt

    names = list(shares)[:_MOST_AXES][::-1]
    figure, plot = plt.subplots(figsize=(7, 1.2 + 0.32 * len(names)), layout="constrained")
    plot.barh(range(len(names)), [100 * shares[name] for name in names])
    plot.set_yticks(range(len(names)), [_short(name) for name in names], parse_math=False)
    plot.set_xlabel("share of the differences between configurations, %")
    plot.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _front(told: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(7, 4.4), layout="constrained")
    scale, label = _scale(told)
    for point in told["front"]:
        held = point.get("together") or point
        value, low, high = (scale * one for one in (point["value"], held["low"], held["high"]))
        cost, cheap, dear = (point[name] for name in ("cost", "cost_low", "cost_high"))
        plot.errorbar(
            [cost], [value],
            xerr=[[max(0.0, cost - cheap)], [max(0.0, dear - cost)]],
            yerr=[[max(0.0, value - low)], [max(0.0, high - value)]],
            fmt="o", capsize=2, color="C0" if point["on"] == "surely" else "C7",
            fillstyle="full" if _tested(point) else "none",
        )  # fmt: skip
        plot.annotate(
            _short(point["stack"]),
            (cost, value),
            fontsize=6,
            xytext=(4, 4),
            textcoords="offset points",
            parse_math=False,
        )
    if all(point["cost"] > 0 for point in told["front"]):
        plot.set_xscale("log")
    plot.set_xlabel(f"{_short(told['objectives'][-1])} per problem", parse_math=False)
    hollow = "" if all(map(_tested, told["front"])) else " (hollow: not tested)"
    plot.set_ylabel(f"{label}, test split{hollow}", parse_math=False)
    if any(point.get("together") for point in told["front"]):
        plot.set_title("bars of tested values hold all at once at 95%; those of costs each alone", fontsize=8)
    plot.grid(alpha=0.25)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _tested(point: Mapping[str, Any]) -> bool:
    return bool(point.get("split", "test") == "test")


def _scale(told: Mapping[str, Any]) -> tuple[float, str]:
    """What values are multiplied with, and the name of the axis."""
    name = told["objectives"][0]
    return (100.0, f"{_short(name)}, %") if is_share(name) else (1.0, _short(name))


def _known(figure: Mapping[str, Any], name: str) -> float:
    return float(figure["value"] if figure[name] is None else figure[name])


def _short(text: str) -> str:
    """A name that fits, of letters that can be drawn."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= _MOST_LETTERS else f"{plain[: _MOST_LETTERS - 3]}..."
