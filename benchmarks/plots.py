"""Pictures of a run: accuracy against samples, tokens, money, FLOPs and idealised time, with intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archon.benchmarks.idealised import Axis, label
from archon.benchmarks.results import Results

_AXES = {
    "k": "samples per problem (k)",
    "tokens": "tokens per problem",
    "usd": "US dollars per problem",
    "flops": "FLOPs per problem",
    "seconds": "seconds per problem",
}


def draw(results: Results, folder: Path, only: Axis | None = None) -> list[Path]:
    """Write one picture per cost axis that is known, or that one; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    written = []
    for axis in _AXES if only is None else (only,):
        places = _places(results.data, axis)
        if places and (results.data["coverage"] or results.data["selected"]):
            path = folder / f"accuracy_by_{axis}.png"
            _picture(results.data, axis, places, path)
            written.append(path)
    return written


def _places(data: Mapping[str, Any], axis: str) -> dict[str, float]:
    """Where each k lies on an axis; empty where that cost is unknown."""
    if axis == "k":
        return {k: float(k) for k in {*data["coverage"], *(k for c in data["selected"].values() for k in c)}}
    places = {k: cost.get(axis) for k, cost in data["cost"].items()}
    return places if places and all(places.values()) else {}


def _picture(data: Mapping[str, Any], axis: str, places: Mapping[str, float], path: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, plot = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    curves = {"coverage (pass@k)": data["coverage"], **data["selected"]}
    for number, (name, curve) in enumerate(curves.items()):
        ks = [k for k in sorted(curve, key=int) if k in places]
        if not ks:
            continue
        x = [places[k] for k in ks]
        y, low, high = ([100 * curve[k][part] for k in ks] for part in ("value", "low", "high"))
        colour, line = ("black", "--") if number == 0 else (f"C{number - 1}", "-")
        plot.plot(x, y, marker="o", markersize=3.5, label=name, color=colour, linestyle=line)
        plot.fill_between(x, low, high, alpha=0.12, color=colour, linewidth=0)
    plot.set_xscale("log", base=2 if axis == "k" else 10)
    if axis == "k":
        ticks = sorted(places.values())
        plot.set_xticks([t for t in ticks if t == ticks[-1] or int(t).bit_count() == 1])
        plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        plot.xaxis.set_minor_formatter(NullFormatter())
    estimated = any(c["estimated"] for c in data["cost"].values())
    what = _AXES[axis] if axis != "seconds" else f"{_AXES[axis]}: {label(data)}"
    plot.set_xlabel(what + (" (estimated)" if axis != "k" and estimated else ""))
    plot.set_ylabel("right, % of problems")
    plot.set_title(
        f"{data['benchmark']}, {data['pipeline']}: {data['problems']} problems, 95% intervals", fontsize=10
    )
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_by_label(by: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write one picture of the coverage of each value of a label; nothing where there is none."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    curves = {one["value"]: one["coverage"] for one in by["values"] if one["coverage"]}
    if not curves:
        return []
    figure, plot = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    for number, (value, curve) in enumerate(curves.items()):
        colour = plt.get_cmap("viridis")(number / max(1, len(curves) - 1) * 0.9)
        _line(plot, curve, _text(f"{by['label']} {value}"), colour, 100)
    plot.set_xscale("log", base=2)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    plot.set_xlabel(_AXES["k"])
    plot.set_ylabel("some sample of k right, % of problems")
    plot.set_ylim(0, 100)
    plot.set_title(
        _text(f"{by['benchmark']}, {by['pipeline']}: coverage by {by['label']}, 95% intervals"), fontsize=10
    )
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    safe = re.sub(r"[^\w-]+", "_", by["label"])
    path = folder / f"coverage_by_{safe}.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return [path]


def _text(words: str) -> str:
    """As it is: a dollar begins no formula."""
    return words.replace("$", r"\$")


def draw_accounts(accounts: Mapping[str, Mapping[str, Any]], title: str, folder: Path) -> list[Path]:
    """Write one picture per verifier that has curves; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    written: list[Path] = []
    for name, data in accounts.items():
        if data["best_of"]:
            safe = re.sub(r"[^\w-]+", "_", name)
            path = folder / f"verifier_{safe}.png"
            if path in written:
                path = folder / f"verifier_{safe}_{len(written)}.png"
            _account(name, data, title, path)
            written.append(path)
    return written


def _account(name: str, data: Mapping[str, Any], title: str, path: Path) -> None:
    """Utility of resampling, false positives among the accepted, and best-of-N under one roof."""
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for number, (cost, one) in enumerate(data["utility"].items()):
        _line(left, one["curve"], f"C = {cost}: best K {one['best_k']}", f"C{number}", 1)
        if one["within"]:
            left.plot([one["within"]], [one["value"]], marker="*", color=f"C{number}", markersize=11)
    lowest = min((p["value"] for one in data["utility"].values() for p in one["curve"].values()), default=0)
    left.set_ylim(bottom=max(lowest, -1.0) - 0.05)
    left.axhline(0, color="black", linewidth=0.8)
    left.set_ylabel("utility per problem")
    left.set_title("resampling until accepted", fontsize=10)
    _line(middle, data["false_positive_share"], "answered within K", "C3", 100)
    _line(middle, data["false_positive_share_at"], "answered at the K-th", "C1", 100)
    middle.set_ylim(0, 100)
    middle.set_ylabel("wrong, % of what is accepted")
    middle.set_title("false positives", fontsize=10)
    _line(right, data["best_of"], "best of N by its score", "C0", 100)
    for what, line in (("coverage", "--"), ("accuracy", ":")):
        label = "any sample right" if what == "coverage" else "resampling without end"
        right.axhline(100 * data["ceiling"][what]["value"], color="black", linestyle=line, label=label)
    right.set_ylim(0, 100)
    right.set_ylabel("right, % of problems")
    right.set_title("best of N", fontsize=10)
    for plot in (left, middle, right):
        plot.set_xscale("log", base=2)
        plot.set_xlim(0.9, 1.1 * max(map(int, data["best_of"])))
        plot.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        plot.set_xlabel("samples (K)")
        plot.grid(alpha=0.25)
        plot.legend(fontsize=8, frameon=False)
    figure.suptitle(f"{name}: {title}, {data['problems']} problems, 95% intervals", fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _line(plot: Any, curve: Mapping[str, Any], label: str, colour: Any, scale: float) -> None:
    ks = [k for k in sorted(curve, key=int) if curve[k]["low"] is not None]
    x = [int(k) for k in ks]
    y, low, high = ([scale * curve[k][part] for k in ks] for part in ("value", "low", "high"))
    plot.plot(x, y, label=label, color=colour)
    plot.fill_between(x, low, high, alpha=0.12, color=colour, linewidth=0)
