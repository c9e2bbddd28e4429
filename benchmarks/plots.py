"""Pictures of a run: accuracy against samples, tokens, money and FLOPs, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archon.benchmarks.results import Results

_AXES = {
    "k": "samples per problem (k)",
    "tokens": "tokens per problem",
    "usd": "US dollars per problem",
    "flops": "FLOPs per problem",
}


def draw(results: Results, folder: Path) -> list[Path]:
    """Write one picture per cost axis that is known; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    written = []
    for axis in _AXES:
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
    places = {k: cost[axis] for k, cost in data["cost"].items()}
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
    label = _AXES[axis] + (" (estimated)" if axis != "k" and estimated else "")
    plot.set_xlabel(label)
    plot.set_ylabel("right, % of problems")
    plot.set_title(
        f"{data['benchmark']}, {data['pipeline']}: {data['problems']} problems, 95% intervals", fontsize=10
    )
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
