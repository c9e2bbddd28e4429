"""Pictures of a tuning: throughput against latency of all trials, and which options mattered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(told: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what `tune.json` says; returns the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    found = []
    if any(trial["throughput"] is not None and trial["latency"] for trial in told["trials"]):
        found.append(_trials(told, folder / "trials.png"))
    if any(told["importance"].values()):
        found.append(_importance(told["importance"], folder / "importance.png"))
    return found


def _trials(told: Mapping[str, Any], path: Path) -> Path:
    from matplotlib import pyplot as plt

    percent = f"p{told['limits']['percentile']:g}"
    figure, plot = plt.subplots(figsize=(7, 4.4), layout="constrained")
    groups: dict[str, list[tuple[float, float]]] = {}
    for trial in told["trials"]:
        if trial["throughput"] is None or not trial["latency"]:
            continue
        within = "all rounds" if trial["state"] == "complete" else "ended early"
        name = within if trial["within"] else "over the limit"
        groups.setdefault(name, []).append((trial["latency"][percent], trial["throughput"]))
    looks = {"all rounds": ("C0", "o"), "ended early": ("C7", "o"), "over the limit": ("C3", "x")}
    for name, (colour, mark) in looks.items():
        if name in groups:
            seconds, rates = zip(*groups[name], strict=True)
            plot.scatter(seconds, rates, color=colour, marker=mark, s=24, label=name)
    confirmed = told["confirmation"]
    sides = [("the baseline", told["baseline"] if confirmed is None else confirmed["baseline"], "s")]
    if told["best"] is not None:
        sides.append(("the winner", told["best"], "*"))
    speeds = [speed for points in groups.values() for _, speed in points]
    for name, one, mark in sides:
        if one["latency"] is None:
            continue
        speeds.append(one["throughput"]["value"])
        speed = one["throughput"]
        low, high = (speed["value"] if speed[end] is None else speed[end] for end in ("low", "high"))
        plot.errorbar(
            [one["latency"][percent]], [speed["value"]],
            yerr=[[speed["value"] - low], [high - speed["value"]]],
            fmt=mark, color="black", capsize=3, markersize=9,
            label=name if confirmed is None else f"{name}, side by side",
        )  # fmt: skip
    if told["limits"]["latency"] is not None:
        plot.axvline(told["limits"]["latency"], color="C3", linewidth=1, linestyle="--", label="the limit")
    plot.set_xlabel(f"{percent} latency of a request, s")
    plot.set_ylabel(told["unit"])
    if max(speeds) > 0:
        plot.set_ylim(0, 1.25 * max(speeds))  # an interval over two rounds would hide everything else
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
    plot.set_xlabel("share of the differences in throughput between configurations, %")
    plot.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path
