"""The winners of two searches, paired by the problems that both were tested on and neither was chosen by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from archon.benchmarks.searching.reading import NAME, Searched, Told, plain
from archon.benchmarks.searching.wording import (
    amount,
    cell,
    costs,
    difference,
    is_share,
    row,
    say,
    table,
    unit,
)
from archon.benchmarks.statistics.paired import Comparison
from archon.benchmarks.statistics.paired import compare as paired
from archon.errors import DataError

_PLAIN = ("accuracy", "coverage")
"""Objectives that have no settings."""


def compare(a: Searched, b: Searched, as_json: bool, console: Console) -> None:
    """Print the winners of two searches side by side. Raises DataError, saying why, where they cannot be compared."""
    shared, left_out = _shared(a, b)
    rows = [_by_id(one) for one in (a, b)]
    found = paired(*([row[problem] for problem in shared] for row in rows))
    objective = a.told.objectives[0]
    notes = _otherwise(a.told, b.told)
    if as_json:
        data = {
            "a": str(a.folder),
            "b": str(b.folder),
            "objective": objective,
            "winners": found.as_json(),
            "left_out": left_out,
            "notes": notes,
        }
        print(json.dumps(data, indent=1, allow_nan=False))
        return
    share = is_share(objective)
    made = table(
        ("", ""), (unit(f"{objective}, test", share), "right"), ("cost of a problem", ""), ("winner", "")
    )
    for one in (a, b):
        best = one.told.best
        assert best is not None
        row(made, str(one.folder), cell(best.test, share), costs(best.cost), best.stack)
    console.print(made)
    say(console, _held(a, b, found, share))
    if left_out:
        say(
            console,
            f"Note: {left_out} problems are in the test split of one search only, and left out",
            "yellow",
        )
    for note in notes:
        say(console, f"Note: {note}", "yellow")


def _held(a: Searched, b: Searched, found: Comparison, share: bool) -> str:
    d = found.as_json()["difference"]
    return (
        f"The winner of {b.folder} less that of {a.folder}, paired over {found.difference.problems} test problems: "
        f"{difference(d['value'], d['low'], d['high'], share)}, p = {found.p_value:.3g}; better on {found.better}, "
        f"worse on {found.worse}, equal on {found.equal}"
    )


def _shared(a: Searched, b: Searched) -> tuple[list[str], int]:
    """The problems that both winners were tested on, and how many only one was. Raises DataError, saying why, where
    they cannot be compared."""

    def refuse(why: str) -> DataError:
        return DataError(f"{str(a.folder)!r} and {str(b.folder)!r} cannot be compared: {plain(why)}")

    for one in (a, b):
        if one.told.benchmark is None or one.told.by_problem is None:
            raise refuse(
                f"{str(one.folder / NAME)!r} was written by an older archon, and does not hold the values of each "
                "problem. Run the same `archon search` again: it writes them, and pays for nothing twice"
            )
        if one.told.best is None or not one.told.by_problem.winner:
            raise refuse(f"{str(one.folder)!r} has no winner that was tested ({one.told.ended})")
    first, second = a.told, b.told
    assert first.benchmark and second.benchmark and first.by_problem and second.by_problem
    if first.objectives[0] != second.objectives[0]:
        raise refuse(f"one searched for {first.objectives[0]}, the other for {second.objectives[0]}")
    if (why := _other_values(a, b)) is not None:
        raise refuse(why)
    each = bool(first.by_problem.sha256 and second.by_problem.sha256)  # else an older archon wrote one
    ours, theirs = _asked(first, each), _asked(second, each)
    shared = [problem for problem, digest in ours.items() if theirs.get(problem) == digest]
    same = first.benchmark.name == second.benchmark.name
    if not same or (not shared and first.benchmark != second.benchmark):
        names = f"{first.benchmark.name} and {second.benchmark.name}"
        what = f"other problems of {first.benchmark.name}" if same else names
        raise refuse(
            f"they are about {what}. Search both with the same `benchmark` and --seed; or grade both "
            "best.yaml with `archon bench` on problems that neither was chosen by, and compare the runs"
        )
    if not shared:
        raise refuse("no problem is in the test split of both. Give both the same `splits`")
    return shared, len(first.by_problem.problems) + len(second.by_problem.problems) - 2 * len(shared)


def _other_values(a: Searched, b: Searched) -> str | None:
    """Why the values of the two are not of one kind: their objective has other settings; None where it has the same."""
    name = a.told.objectives[0]
    given = [
        None if one.told.objective_settings is None else one.told.objective_settings[0] for one in (a, b)
    ]
    for one, settings in zip((a, b), given, strict=True):
        if settings is None and name not in _PLAIN:
            return (
                f"{str(one.folder / NAME)!r} was written by an older archon, and does not say with which settings it "
                f"searched for {name}. Run the same `archon search` again: it writes them, and pays for nothing twice"
            )
    first, second = (settings or {} for settings in given)
    if first == second:
        return None
    return (
        f"one searched for {_named(name, first, second)}, the other for {_named(name, second, first)}, so their values "
        "are of two kinds. Search again with the same settings; or grade both best.yaml with `archon bench`, and "
        "compare the runs"
    )


def _named(name: str, settings: Mapping[str, Any], others: Mapping[str, Any]) -> str:
    """An objective with those of its settings that others have otherwise."""
    names = [one for one in {**settings, **others} if settings.get(one) != others.get(one)]
    return f"{name} with {', '.join(f'{one} {json.dumps(settings.get(one))}' for one in names)}"


def _otherwise(a: Told, b: Told) -> list[str]:
    """What the two winners were chosen for, where it is not the same: their values can be compared all the same."""
    notes = []
    if a.target != b.target:
        wanted = [_wanted(one.target, is_share(one.objectives[0])) for one in (a, b)]
        notes.append(f"the first search was for {wanted[0]}, and the second for {wanted[1]}")
    costs = [_cost(one) for one in (a, b)]
    if costs[0] != costs[1]:
        notes.append(f"the first search weighed {costs[0]}, and the second {costs[1]}")
    why = "; so their winners were chosen for different things, and each may be the better one at its own"
    return [note + why for note in notes]


def _wanted(target: float | None, share: bool) -> str:
    return "the best value" if target is None else f"a target of {amount(target, share)}{'%' * share}"


def _cost(told: Told) -> str:
    """The cost that was searched for, with its settings, in words."""
    if len(told.objectives) == 1:
        return "no cost"
    settings = {} if told.objective_settings is None else told.objective_settings[-1]
    given = ", ".join(f"{name} {json.dumps(value)}" for name, value in settings.items())
    return told.objectives[-1] + (f" with {given}" if given else "")


def _asked(told: Told, each: bool) -> dict[str, str]:
    """The tested problems by id, with the digest of what each asks, or else that of all problems of the benchmark."""
    found, benchmark = told.by_problem, told.benchmark
    assert found is not None and benchmark is not None
    if each and found.sha256:
        return dict(zip(found.problems, found.sha256, strict=True))
    return dict.fromkeys(found.problems, benchmark.sha256)


def _by_id(one: Searched) -> dict[str, float]:
    found = one.told.by_problem
    assert found is not None
    return dict(zip(found.problems, found.winner, strict=True))
