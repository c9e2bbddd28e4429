"""Pictures of a search: how the best grew with what was spent, which choices mattered, and the front."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what `search.json` says; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    found = []
    if told["anytime"]:
        found.append(_anytime(told, folder / "anytime.png"))
    if any(told["importance"].values()):
        found.append(_importance(told["importance"], folder / "importance.png"))
    if told["front"]:
        found.append(_front(told, folder / "front.png"))
    return found


def _anytime(told: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(7, 4.2), layout="constrained")
    tokens, values = zip(*told["anytime"], strict=True)
    end = max(told["tokens"]["fresh"], tokens[-1])
    plot.step([*tokens, end], [*values, values[-1]], where="post", label="best so far, on the search split")
    best = told["best"]
    if best is not None and best["test"]["problems"]:
        test = best["test"]
        low, high = (test["value"] if test[name] is None else test[name] for name in ("low", "high"))
        plot.errorbar([end], [test["value"]], yerr=[[test["value"] - low], [high - test["value"]]], fmt="o",
                      capsize=3, color="black", label="the winner, on the test split")  # fmt: skip
    plot.set_xlabel("fresh tokens spent")
    plot.set_ylabel(told["objectives"][0])
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _importance(shares: Mapping[str, float], path: Path) -> Path:
    from matplotlib import pyplot as plt

    names = list(shares)[:20][::-1]
    figure, plot = plt.subplots(figsize=(7, 1.2 + 0.32 * len(names)), layout="constrained")
    plot.barh(names, [100 * shares[name] for name in names])
    plot.set_xlabel("share of the differences between configurations, %")
    plot.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _front(told: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    figure, plot = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for point in told["front"]:
        plot.errorbar(
            [point["cost"]], [point["value"]],
            xerr=[[point["cost"] - point["cost_low"]], [point["cost_high"] - point["cost"]]],
            yerr=[[point["value"] - point["low"]], [point["high"] - point["value"]]],
            fmt="o", capsize=2, color="C0" if point["on"] == "surely" else "C7",
        )  # fmt: skip
        plot.annotate(
            point["stack"],
            (point["cost"], point["value"]),
            fontsize=6,
            xytext=(4, 4),
            textcoords="offset points",
        )
    plot.set_xscale("log")
    plot.set_xlabel(f"{told['objectives'][1]} per problem")
    plot.set_ylabel(f"{told['objectives'][0]}, test split")
    plot.grid(alpha=0.25)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
