"""A run's figures for each value of a label of its problems: a level, a subject, a family.

Problems carry labels in `Problem.info`, and a run records those that are plain values (docs/results.md). The problems
of one value are taken as a run by themselves: the same estimators and the same intervals, over fewer problems.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from archon.benchmarks.results import Record, Results, RunInfo, summarise
from archon.errors import DataError
from archon.problem import Problem
from archon.suggest import hint

Label = str | int | float | bool
_LONGEST = 200
"""Characters of a label; what is longer is text, and no label."""
_FIGURES = (
    "problems", "outcomes", "candidates", "coverage", "all_right", "selected", "pipeline_accuracy", "cost",
)  # fmt: skip
"""What is said of each value, as `results.json` says it of all problems."""


def labels_of(problem: Problem) -> dict[str, Label]:
    """What a problem can be grouped by: the plain values of its `info`."""
    return {name: value for name, value in problem.info.items() if _plain(value)}


def by_label(results: Results, label: str) -> dict[str, Any]:
    """The figures of each value of a label. Raises DataError where no problem of the run has it."""
    groups: dict[str, list[Record]] = {}
    for record in results.records:
        if label in record.labels:
            groups.setdefault(json.dumps(record.labels[label]), []).append(record)
    if not groups:
        raise DataError(_lacking(results, label))
    known = [json.loads(value) for value in groups]
    data = results.data
    return {
        "benchmark": data["benchmark"],
        "pipeline": data["pipeline"],
        "interrupted": data["interrupted"],
        "label": label,
        "without": len(results.records) - sum(map(len, groups.values())),
        "values": [
            {"value": value, **_figures(data, groups[json.dumps(value)])}
            for value in sorted(known, key=_order)
        ],
        "notes": data["notes"],
    }


def _plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _LONGEST
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _figures(data: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Of one value's problems. A run without coverage is one whose samples are no fair draw."""
    info = RunInfo(data["benchmark"], data["pipeline"], None, None, early_stopping=not data["coverage"])
    found = summarise(info, records)
    return {name: found[name] for name in _FIGURES}


def _order(value: Label) -> tuple[bool, float, str]:
    """Numbers by their size, before text by its letters."""
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _lacking(results: Results, label: str) -> str:
    names = sorted({name for record in results.records for name in record.labels})
    if names:
        return f"no problem of the run at {str(results.folder)!r} has a label {label!r}. {hint(label, names)}"
    return (
        f"the problems of the run at {str(results.folder)!r} have no labels on record: what a benchmark says of them "
        "in `info`. Where it does, run the same command again: nothing stored is asked for again"
    )
