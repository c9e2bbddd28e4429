"""A run for people: tables on the terminal, CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from archon.benchmarks.account import worth_showing
from archon.benchmarks.equal_cost import Line
from archon.benchmarks.idealised import Axis, label
from archon.benchmarks.results import Record, Results, causes, write_whole
from archon.benchmarks.statistics.intervals import Interval
from archon.benchmarks.statistics.paired import Comparison
from archon.engine import EngineFigures
from archon.usage import Usage, describe

_MOST_CAUSES = 3
_VALUE_WIDTH = 22
"""Characters of a column of a label's value: a figure with its interval."""
_COSTS = {
    "tokens": "tokens per problem",
    "usd": "$ per problem",
    "flops": "FLOPs per problem",
    "seconds": "seconds per problem",
}


def show(results: Results, console: Console, axis: Axis | None = None) -> None:
    """Print a run's figures, with what they are over and what they cost, on one axis if that is named."""
    data = results.data
    drawn = f", {data['samples']} samples each" if data["samples"] else ""
    benchmark, pipeline = escape(data["benchmark"]), escape(data["pipeline"])
    console.print(
        f"[bold]{benchmark}[/bold] with [bold]{pipeline}[/bold]: {data['problems']} problems{drawn}"
    )
    if data["interrupted"]:
        console.print("[yellow]interrupted: these figures are over the problems that were finished[/yellow]")
    if data["coverage"] or data["selected"]:
        console.print(_curves(data, ("tokens", "usd") if axis is None else (axis,)))
        console.print(
            "Percent [95% interval over problems]. Coverage: some sample of k is right. "
            "Selectors: the one they choose of k is right, by what is visible.",
            style="dim",
        )
    if axis == "seconds":
        console.print(f"Cost: {label(data)} (docs/costs.md)", style="dim")
    accuracy = data["pipeline_accuracy"]
    if accuracy["value"] is not None:
        console.print(f"The pipeline's own choice: {_cell(accuracy)}% right")
    outcomes = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in data["outcomes"].items() if count
    )
    console.print(f"Problems: {outcomes}")
    if data["candidates"]:
        parts = ", ".join(
            f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(data["candidates"].items())
        )
        console.print(f"Candidates: {parts}")
    _show_causes(results.records, console)
    console.print(f"Recorded cost: {describe(Usage.from_json(data['usage']))}")
    console.print(f"Spent in this run: {describe(Usage.from_json(data['fresh']))}")
    for endpoint, figures in (data.get("engines") or {}).items():
        console.print(f"Engine {escape(endpoint)}: {EngineFigures.from_json(figures).describe()}")
    for note in data["notes"]:
        console.print(f"Note: {note}", style="yellow", markup=False)


def _show_causes(records: Sequence[Record], console: Console) -> None:
    """Why samples failed, the commonest causes first."""
    found = causes(records)
    if not found:
        return
    console.print(f"Samples that could not be had: {found.total():,}", style="yellow")
    for cause, count in found.most_common(_MOST_CAUSES):
        console.print(f"  {count:,} x {cause}", style="yellow", markup=False, highlight=False)
    if len(found) > _MOST_CAUSES:
        console.print(f"  and {len(found) - _MOST_CAUSES:,} other causes (problems.jsonl)", style="yellow")


def show_comparison(comparison: Comparison, a: str, b: str, what: str, console: Console) -> None:
    """Print a paired comparison."""
    d = comparison.difference
    console.print(
        f"[bold]{b}[/bold] against [bold]{a}[/bold], {what}, paired over {d.problems} problems: "
        f"{100 * d.value:+.1f} points [{100 * d.low:+.1f}, {100 * d.high:+.1f}], p = {comparison.p_value:.3g}; "
        f"better on {comparison.better}, worse on {comparison.worse}, equal on {comparison.equal}"
    )


def show_equal_cost(lines: Sequence[Line], plain: Results, selector: str, console: Console) -> None:
    """Print techniques beside plain sampling that costs as much (equal_cost.py)."""
    table = Table(show_edge=False, pad_edge=False)
    for column in (
        "pipeline",
        "tokens a problem",
        "right, %",
        "plain samples for that",
        "right, %",
        "difference",
        "p",
    ):
        table.add_column(column, justify="left" if column == "pipeline" else "right")
    for line in lines:
        d = line.difference.difference
        table.add_row(
            escape(line.pipeline),
            f"{line.tokens:,.0f}",
            _hundredths(line.accuracy),
            f"{line.samples}{'*' if line.short else ''}",
            _hundredths(line.plain),
            f"{100 * d.value:+.1f} \\[{100 * d.low:+.1f}, {100 * d.high:+.1f}]",
            f"{line.difference.p_value:.3g}",
        )
    console.print(table)
    console.print(
        f"Percent [95% interval] of {_problems(lines[0].accuracy.problems)} of {escape(plain.data['benchmark'])}, "
        f"paired. Plain: {escape(plain.data['pipeline'])}, chosen by {escape(selector)}, with as many tokens.",
        style="dim",
    )
    if any(line.short for line in lines):
        console.print("* the plain run has no more samples; more would cost as much", style="yellow")


def _hundredths(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} \\[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def show_by_label(data: Mapping[str, Any], console: Console) -> None:
    """Print coverage and the pipeline's own choice for each value of a label (by_label.py)."""
    name, values = data["label"], data["values"]
    benchmark, pipeline = escape(data["benchmark"]), escape(data["pipeline"])
    console.print(f"[bold]{benchmark}[/bold] with [bold]{pipeline}[/bold], by [bold]{escape(name)}[/bold]")
    if data["interrupted"]:
        console.print("[yellow]interrupted: these figures are over the problems that were finished[/yellow]")
    abreast = max(1, (console.width - 8) // _VALUE_WIDTH)
    for start in range(0, len(values), abreast):
        console.print(_values(name, values[start : start + abreast]))
    console.print(
        "Percent [95% interval over the problems of that value]. By k: coverage, some sample of k is right (pass@k). "
        "Choice: the pipeline's own is right.",
        style="dim",
    )
    if data["without"]:
        console.print(
            f"Note: without {name}, and left out: {_problems(data['without'])}", style="yellow", markup=False
        )
    for note in data["notes"]:
        console.print(f"Note: {note}", style="yellow", markup=False)


def _problems(count: int) -> str:
    return f"{count} problem" + "s" * (count != 1)


def _values(name: str, values: Sequence[Mapping[str, Any]]) -> Table:
    """One column for each value."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("k", justify="right")
    for one in values:
        table.add_column(f"{escape(name)} {escape(str(one['value']))}\n{_problems(one['problems'])}")
    for k in sorted({k for one in values for k in one["coverage"]}, key=int):
        table.add_row(k, *(_cell(one["coverage"].get(k)) for one in values))
    table.add_row("choice", *(_cell(one["pipeline_accuracy"]) for one in values))
    return table


def show_account(accounts: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print every verifier's account against the truth."""
    for name, data in accounts.items():
        console.print(
            f"[bold]{escape(name)}[/bold] against the truth: {data['problems']} problems, {data['samples']:,} samples"
        )
        console.print(_confusion(data))
        console.print(_shares(data))
        if data["utility"]:
            console.print(_attempts(data))
        if data["best_of"]:
            console.print(_growing(data))
        ceiling = data["ceiling"]
        if data["problems"]:
            console.print(
                f"With attempts without end: {_cell(ceiling['accuracy'])}% right, "
                f"{_cell(ceiling['abstained'])}% unanswered; a perfect verifier: {_cell(ceiling['coverage'])}% right"
            )
        theory = data["two_types"]
        if theory is not None and theory["threshold"] is not None:
            console.print(
                f"As two types of problems ({100 * theory['easy_share']:.0f}% easy; right {100 * theory['easy']:.0f}% "
                f"and {100 * theory['hard']:.0f}% of the time): "
                f"going on pays for ever below C = {theory['threshold']:.2f}"
            )
        missed = data["false_negative_filter"]
        if missed["problems"]:
            done = "left out" if missed["applied"] else "--drop-false-negatives leaves them out"
            console.print(
                f"More are right than accepted in {len(missed['problems'])} problems ({done}): "
                + ", ".join(missed["problems"]),
                markup=False,
            )
        for note in data["notes"]:
            console.print(f"Note: {note}", style="yellow", markup=False)
    console.print(
        "Percent [95% interval over problems]. Conditional accuracy: right, given accepted, as the mean over problems "
        "with an accepted sample. Utility: a right answer is worth 1, a wrong one -C, none 0.",
        style="dim",
    )


def _confusion(data: Mapping[str, Any]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for column in ("", "accepted", "rejected", "undecided"):
        table.add_column(column, justify="right" if column else "left")
    rows = (("right", "true_positives", "false_negatives"), ("wrong", "false_positives", "true_negatives"))
    for truth, accepted, rejected in rows:
        table.add_row(truth, f"{data[accepted]:,}", f"{data[rejected]:,}", f"{data['undecided'][truth]:,}")
    return table


def _shares(data: Mapping[str, Any]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    given = data["conditional_accuracy"]
    cells = {
        "precision": _cell(data["precision"]),
        "recall (completeness)": _cell(data["recall"]),
        "soundness": _cell(data["soundness"]),
        f"conditional accuracy ({given['problems']} problems)": _cell(given),
        "worst to best case": ""
        if given["worst"] is None
        else f"{100 * given['worst']:.1f} to {100 * given['best']:.1f}",
    }
    for name in cells:
        table.add_column(name)
    table.add_row(*cells.values())
    return table


def _attempts(data: Mapping[str, Any]) -> Table:
    """The best number of attempts, by what a false positive costs."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("C", justify="right")
    table.add_column("best K", justify="right")
    table.add_column("utility there")
    ks = worth_showing(next(iter(data["utility"].values()))["curve"])
    for k in ks:
        table.add_column(f"K={k}", justify="right")
    for cost, one in data["utility"].items():
        best = "none (abstain)" if one["best_k"] == 0 else str(one["best_k"])
        table.add_row(
            cost,
            best,
            f"{one['value']:.3f}" + _ends(one),
            *(f"{one['curve'][k]['value']:.3f}" for k in ks),
        )
    return table


def _ends(point: Mapping[str, Any]) -> str:
    if point["low"] is None:
        return ""
    return f" \\[{point['low']:.3f}, {point['high']:.3f}]"


def _growing(data: Mapping[str, Any]) -> Table:
    """What changes as K grows."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("K", justify="right")
    table.add_column("wrong among the accepted")
    table.add_column("best of K by its score")
    for k in worth_showing(data["best_of"]):
        table.add_row(k, _cell(data["false_positive_share"].get(k)), _cell(data["best_of"][k]))
    return table


def write_csv(results: Results, path: Path) -> None:
    """Every figure of every curve as one row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["figure", "k", "value", "low", "high", "problems", "tokens", "usd", "flops"])
    cost = results.data["cost"]
    curves = {"coverage": results.data["coverage"], "all_right": results.data["all_right"]}
    curves |= {f"selected:{name}": curve for name, curve in results.data["selected"].items()}
    for name, curve in curves.items():
        for k, point in curve.items():
            at = cost.get(k, {})
            writer.writerow(
                [name, k, point["value"], point["low"], point["high"], point["problems"],
                 at.get("tokens"), at.get("usd"), at.get("flops")]
            )  # fmt: skip
    write_whole(path, text.getvalue())


def _curves(data: Mapping[str, Any], axes: Sequence[Axis]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("k", justify="right")
    table.add_column("coverage (pass@k)")
    for name in data["selected"]:
        table.add_column(name)
    for axis in axes:
        table.add_column(_COSTS[axis], justify="right")
    ks = sorted({*data["coverage"], *(k for curve in data["selected"].values() for k in curve)}, key=int)
    for k in ks:
        cost = data["cost"].get(k, {})
        table.add_row(
            k,
            _cell(data["coverage"].get(k)),
            *(_cell(curve.get(k)) for curve in data["selected"].values()),
            *(_price(cost, axis) for axis in axes),
        )
    return table


def _price(cost: Mapping[str, Any], axis: Axis) -> str:
    amount = cost.get(axis)
    if axis == "usd":
        return "unpriced" if amount is None else f"{amount:.6f}"
    if amount is None:
        return ""
    about = "~" if cost["estimated"] else ""
    return f"{about}{amount:,.0f}" if axis == "tokens" else f"{about}{amount:.3g}"


def _cell(point: Mapping[str, Any] | None) -> str:
    if not point or point["value"] is None:
        return ""
    return f"{100 * point['value']:.1f} \\[{100 * point['low']:.1f}, {100 * point['high']:.1f}]"
