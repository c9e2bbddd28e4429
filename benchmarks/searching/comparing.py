"""The winners of two searches, paired by the problems that both were tested on and neither was chosen by."""

from __future__ import annotations

import json

from rich.console import Console

from archon.benchmarks.searching.reading import NAME, Searched, Told, plain
from archon.benchmarks.searching.wording import cell, costs, difference, is_share, row, say, table, unit
from archon.benchmarks.statistics.paired import Comparison
from archon.benchmarks.statistics.paired import compare as paired
from archon.errors import DataError


def compare(a: Searched, b: Searched, as_json: bool, console: Console) -> None:
    """Print the winners of two searches side by side. Raises DataError, saying why, where they cannot be compared."""
    shared, left_out = _shared(a, b)
    rows = [_by_id(one) for one in (a, b)]
    found = paired(*([row[problem] for problem in shared] for row in rows))
    objective = a.told.objectives[0]
    if as_json:
        data = {
            "a": str(a.folder),
            "b": str(b.folder),
            "objective": objective,
            "winners": found.as_json(),
            "left_out": left_out,
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
