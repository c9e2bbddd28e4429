"""`archon report` of a search's folder: what was found, or how it stands; from its files alone.

Names and stacks may come from anywhere: they are shown as plain text, and never read as markup.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from archon.benchmarks.searching import pictures
from archon.benchmarks.searching.comparing import compare
from archon.benchmarks.searching.elsewhere import where_of
from archon.benchmarks.searching.reading import (
    NAME,
    Against,
    Figure,
    OnFront,
    Searched,
    Together,
    Told,
    Tried,
    growth,
    is_search,
    plain,
)
from archon.benchmarks.searching.standing import Standing, standing, tried_of
from archon.benchmarks.searching.wording import (
    amount,
    bar,
    cell,
    costs,
    difference,
    heading,
    is_share,
    money,
    row,
    say,
    table,
    unit,
)
from archon.errors import UserError

_TAKES = ("runs", "compare", "as_json", "as_csv", "top", "pictures", "study")
"""Parameters of `archon report` that go with a search."""
_BEFORE = ("number", "key", "state")
_AFTER = ("problems", "fresh_tokens", "proposer", "stack", "reason")
"""Columns of the CSV before and after the values."""
_STATES = {"complete": "finished", "pruned": "dropped", "running": "under way", "failed": "failed"}
_TOP = 10
_MOST_MILESTONES = 8
_MOST_LINES = 60
_MOST_AXES = 20


class Wanted(NamedTuple):
    """What `archon report` was asked for."""

    runs: Sequence[Path]
    compare: Path | None
    as_json: bool
    as_csv: bool
    top: int | None
    pictures: bool
    study: str | None = None
    """Where the study is, if it is not in the folder."""


def answered(wanted: Wanted, given: Collection[str]) -> bool:
    """Report on a search, if it is one that was asked about; `given` are the parameters of the command line.

    Raises UsageError for what does not go with it, DataErrors for what cannot be read.
    """
    folders = [*wanted.runs] + ([] if wanted.compare is None else [wanted.compare])
    searches = [folder for folder in folders if is_search(folder)]
    if not searches and wanted.study is not None and (folders[0] / "results.json").exists():
        raise click.UsageError("--study goes with the folder of a search (`archon search`)")
    if not searches and wanted.study is not None:  # of an older archon, or what there was is gone
        searches = [folder for folder in folders if folder.is_dir()]
    if not searches:
        if wanted.as_csv or wanted.top is not None or wanted.study is not None:
            raise click.UsageError(
                "--csv, --top and --study go with the folder of a search (`archon search`)"
            )
        return False
    _check(wanted, given, searches)
    console = Console(width=None if sys.stdout.isatty() else 160)
    (folder,) = wanted.runs
    if wanted.compare is not None:
        for other in folders:
            if not is_search(other):
                raise UserError(
                    f"{str(searches[0])!r} is a search, and {str(other)!r} is none. Compare two searches; or grade its "
                    "best.yaml with `archon bench --ids` and its test.txt, and compare two runs"
                )
        compare(Searched.read(folder), Searched.read(wanted.compare), wanted.as_json, console)
        return True
    if not (folder / NAME).is_file():
        _standing(folder, wanted, console)
        return True
    searched = Searched.read(folder)
    if wanted.as_json:
        print(json.dumps(searched.data, indent=1, ensure_ascii=True))
    elif wanted.as_csv:
        print(as_csv(searched.told.objectives, tried_of(searched)), end="")
    else:
        show(searched, console, wanted.top or _TOP)
    if wanted.pictures:
        for path in pictures.draw(_with_tried(searched), folder):
            print(path, file=sys.stderr)
    return True


def _check(wanted: Wanted, given: Collection[str], searches: Sequence[Path]) -> None:
    for name in given:
        if name not in _TAKES:
            option = {"label": "by", "plain": "beat"}.get(name, name.replace("_", "-"))
            raise click.UsageError(
                f"--{option} goes with runs of `archon bench`, and {str(searches[0])!r} is a search: "
                "it takes --compare, --json, --csv, --top, --pictures and --study"
            )
    if len(wanted.runs) > 1:
        raise click.UsageError("name one search; a second one goes with --compare")
    if wanted.as_json and wanted.as_csv:
        raise click.UsageError("--json and --csv are two formats: ask for one of them")
    others = (wanted.as_csv, wanted.pictures, wanted.top is not None, wanted.study is not None)
    if wanted.compare is not None and any(others):
        raise click.UsageError("--compare of two searches goes with --json alone")
    if wanted.top is not None and (wanted.as_json or wanted.as_csv):
        raise click.UsageError("--top goes with neither --json nor --csv: they have them all")


# --- a search that ended ---------------------------------------------------------------------------


def show(searched: Searched, console: Console, top: int = _TOP) -> None:
    """Print what a search found, with the `top` best of what it tried."""
    told, tried = searched.told, tried_of(searched)
    share = is_share(told.objectives[0])
    console.print(_title(told))
    states, splits = told.states, told.splits
    say(
        console,
        f"{told.trials:,} configurations tried ({states.complete:,} finished, {states.pruned:,} dropped or left, "
        f"{states.failed:,} failed) on {splits.search:,} problems; {splits.validation:,} to validate and "
        f"{splits.test:,} to test; {told.evaluations:,} evaluations",
    )
    if told.best is None:
        say(console, "Nothing could be evaluated.", "yellow")
    else:
        _winner(searched, share, console)
    if told.baselines:
        _baselines(told, share, console)
    if told.front:
        heading(console, "Front", f"{told.objectives[0]} against {told.objectives[-1]}; {_intervals(told)}")
        console.print(_front(told, share))
        if untested := sum(one.split != "test" for one in told.front):
            say(
                console,
                f"{untested} of them {'is' if untested == 1 else 'are'} not tested: the figures are of a split that "
                "was chosen by, and may be too good",
                "yellow",
            )
    if any(told.importance.values()):
        heading(console, "Importance", "the share of the differences that is due to a choice alone")
        console.print(_importance(told.importance, console))
    _grown(_with_tried(searched), share, console)
    if tried:
        heading(
            console,
            "Tried",
            f"the best {min(top, len(tried))} of {len(tried):,}; the winner, then finished ones",
        )
        winner = None if told.best is None else told.best.configuration
        console.print(_tried(told.objectives, told.target, tried, top, winner))
    heading(console, "Spent")
    say(console, _spent(told))
    if told.ended:
        say(console, f"It ended because {told.ended}.")
    for note in told.notes:
        say(console, f"Note: {note}", "yellow")


def _with_tried(searched: Searched) -> dict[str, Any]:
    """`search.json` with what was tried, where the study has it and the file has not."""
    tried = [one.model_dump() for one in tried_of(searched)]
    return {"tried": tried, **searched.data}


def _title(told: Told) -> Text:
    name, *cost = told.objectives
    wanted = f"{name} against {cost[0]}" if cost else name
    if told.target is not None and cost:
        wanted = f"the least {cost[0]} at {name} {amount(told.target, is_share(name))}"
    on = Text("") if told.benchmark is None else Text(plain(f"{told.benchmark.name}: "), "bold")
    return on + Text("a search for ") + Text(plain(wanted), "bold")


def _winner(searched: Searched, share: bool, console: Console) -> None:
    best = searched.told.best
    assert best is not None
    heading(console, "Winner")
    say(console, best.stack, "bold")
    console.print(_figures(searched.told, share))
    say(console, f"A problem costs {costs(best.cost)}.")
    path = searched.folder / "best.yaml"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    say(console, f"{path}, ready for `archon run --pipeline`:", "dim")
    for line in lines[:_MOST_LINES]:
        say(console, f"  {line}")
    if len(lines) > _MOST_LINES:
        say(console, f"  ... and {len(lines) - _MOST_LINES} more lines", "dim")


def _figures(told: Told, share: bool) -> Table:
    best = told.best
    assert best is not None
    made = table(("split", ""), (unit(told.objectives[0], share), "right"), ("problems", "right"), ("", ""))
    rows: tuple[tuple[str, Figure, str], ...] = (
        ("test", best.test, "the figure to quote: nothing was chosen by these problems"),
        ("validation", best.validation, "it was chosen by these"),
        ("search", best.search, "and found by these"),
    )
    for name, figure, about in rows:
        row(made, name, cell(figure, share), f"{figure.problems:,}", about)
    if best.search.corrected is not None:
        about = "what to expect of whoever leads on the search split"
        row(made, "search, corrected", amount(best.search.corrected, share), "", about)
    return made


def _baselines(told: Told, share: bool, console: Console) -> None:
    heading(console, "Baselines", "on the test split")
    made = table(("", ""), (unit(told.objectives[0], share), "right"), ("cost of a problem", ""))
    if told.best is not None:
        row(made, "the winner", cell(told.best.test, share), costs(told.best.cost))
    for name, one in told.baselines.items():
        row(made, name, cell(one.test, share), costs(one.cost))
    console.print(made)
    for name, one in told.baselines.items():
        if one.winner is not None:
            say(console, _sentence(one.winner, name, share))


def _sentence(held: Against, name: str, share: bool) -> str:
    figures = (
        f"{difference(held.difference, held.low, held.high, share)}, paired over {held.problems} test "
        f"problem{'s' * (held.problems != 1)}, p = {held.p_value:.3g}"
        + ("" if held.p_adjusted in (None, held.p_value) else f" ({held.p_adjusted:.3g} among all baselines)")
    )
    if held.says == "no significant difference":
        return f"The winner shows no significant difference from {name}: {figures}"
    return f"The winner is {held.says} than {name}: {figures}"


def _intervals(told: Told) -> str:
    """What the intervals of the front are worth."""
    held = next((one.together for one in told.front if one.together is not None), None)
    if held is None:
        return "intervals are each one's own, not adjusted for their number"
    return (
        "intervals at 95%, each of its point alone; those `all at once` hold together, of all "
        f"{held.points} that were to be tested: go by these where several are looked at"
    )


def _front(told: Told, share: bool) -> Table:
    value, cost = unit(told.objectives[0], share), told.objectives[-1]
    made = table(
        (value, "right"), ("all at once", "right"), (f"{cost} per problem", "right"), ("on the front", ""),
        ("split", ""), ("stack", ""),
    )  # fmt: skip

    def ends(one: OnFront | Together) -> str:
        return f"[{amount(one.low, share)}, {amount(one.high, share)}]"

    for one in sorted(told.front, key=lambda point: (point.cost, -point.value)):
        value = f"{amount(one.value, share)} {ends(one)}"
        held = "" if one.together is None else ends(one.together)
        price = f"{one.cost:,.6g} [{one.cost_low:,.6g}, {one.cost_high:,.6g}]"
        row(made, value, held, price, f"{one.on}, in {100 * one.share:.0f}% of draws", one.split, one.stack)
    return made


def _importance(shares: Mapping[str, float], console: Console) -> Table:
    made = table(("", ""), ("", "right"), ("", ""))
    for name, one in list(shares.items())[:_MOST_AXES]:
        row(made, name, f"{100 * one:.1f}%", bar(one, console))
    return made


def _grown(data: Mapping[str, Any], share: bool, console: Console) -> None:
    """The milestones of the best so far: the first, the last, and some between."""
    against, points, end = growth(data)
    if not points:
        return
    heading(console, "Best so far", "on the search split")
    if len(points) > _MOST_MILESTONES:
        last = len(points) - 1
        points = [points[round(n * last / (_MOST_MILESTONES - 1))] for n in range(_MOST_MILESTONES)]
    made = table((against, "right"), ("best so far", "right"), ("", ""))
    for at, value in points:
        row(made, f"{at:,.0f}", amount(value, share), bar(value, console) if share else "")
    if end > points[-1][0]:
        row(made, f"{end:,.0f}", "the end", "")
    console.print(made)


def _spent(told: Told) -> str:
    requests, tokens, usd = told.requests, told.tokens, told.usd
    return (
        f"{requests.fresh:,} calls, {tokens.fresh:,} tokens and {money(usd.fresh)} anew; {requests.replayed:,} "
        f"calls and {tokens.total - tokens.fresh:,} tokens replayed. Without a store it would have been "
        f"{tokens.total:,} tokens, {money(usd.total)}."
    )


# --- what was tried --------------------------------------------------------------------------------


def _tried(
    objectives: Sequence[str],
    target: float | None,
    tried: Sequence[Tried],
    top: int,
    winner: Mapping[str, Any] | None = None,
) -> Table:
    numbers = {one.key: f"#{one.number}" for one in tried if one.number is not None}
    share = is_share(objectives[0])
    made = table(
        ("#", "right"), (unit(objectives[0], share), "right"), *((name, "right") for name in objectives[1:]),
        ("problems", "right"), ("fresh tokens", "right"), ("", ""), ("stack", ""), ("why", ""),
    )  # fmt: skip
    for one in sorted(tried, key=lambda one: (one.configuration != winner, _rank(one, target)))[:top]:
        values = list(one.values or ())[: len(objectives)]
        shown_values = [amount(value, share) if n == 0 else f"{value:,.6g}" for n, value in enumerate(values)]
        shown_values += [""] * (len(objectives) - len(values))
        why = " ".join(numbers.get(word, word) for word in one.reason.split())
        number = "" if one.number is None else str(one.number)
        counts = (f"{one.problems:,}", f"{one.fresh_tokens:,}")
        state = "the winner" if one.configuration == winner else _STATES[one.state]
        row(made, number, *shown_values, *counts, state, one.stack, why)
    return made


def _rank(one: Tried, target: float | None) -> tuple[Any, ...]:
    """Finished ones first, failed ones last, then the better one: by value; with a target the cheapest that is there.
    Of equals the one that rests on more problems."""
    value, *cost = one.values or (-math.inf,)
    merit = (0.0, cost[0]) if target is not None and cost and value >= target else (1.0, -value)
    return (one.state != "complete", one.state == "failed", *merit, -one.problems, one.number or 0)


def as_csv(objectives: Sequence[str], tried: Iterable[Tried]) -> str:
    """One row for each configuration; a column for each axis."""
    rows = list(tried)
    axes = list(dict.fromkeys(axis for one in rows for axis in one.configuration))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_BEFORE, *objectives, *_AFTER, *axes])
    for one in rows:
        told = one.model_dump()
        values: list[Any] = list(one.values or ())[: len(objectives)]
        values += [""] * (len(objectives) - len(values))
        chosen = [one.configuration.get(axis, "") for axis in axes]
        chosen = [each if isinstance(each, str) else json.dumps(each) for each in chosen]
        writer.writerow(
            [*(told[name] for name in _BEFORE), *values, *(told[name] for name in _AFTER), *chosen]
        )
    return text.getvalue().encode("utf-8", "replace").decode("utf-8")


# --- a search that has not ended -------------------------------------------------------------------


def _standing(folder: Path, wanted: Wanted, console: Console) -> None:
    if wanted.pictures:
        raise UserError(
            f"the search in {str(folder)!r} has not ended, so there is nothing to draw yet. Run the same "
            "`archon search` again: it goes on where it stopped"
        )
    found = standing(folder, where_of(folder, wanted.study))
    if wanted.as_json:
        print(json.dumps({"ended": None, **found.model_dump()}, indent=1, ensure_ascii=True))
    elif wanted.as_csv:
        print(as_csv(found.objectives, found.tried), end="")
    else:
        show_standing(folder, found, console, wanted.top or _TOP)


def show_standing(folder: Path, found: Standing, console: Console, top: int = _TOP) -> None:
    """Print how a search stands that has not ended."""
    name = found.objectives[0]
    share = is_share(name)
    counts = {
        state: sum(one.state == state for one in found.tried) for state in ("complete", "pruned", "failed")
    }
    under_way = len(found.tried) - sum(counts.values())
    fresh, spent = sum(one.fresh_tokens for one in found.tried), found.spent
    say(console, f"{folder}: a search for {' against '.join(found.objectives)} that has not ended", "bold")
    say(
        console,
        f"{sum(counts.values()):,} configurations done ({counts['complete']:,} finished, {counts['pruned']:,} dropped, "
        f"{counts['failed']:,} failed), {under_way:,} under way; "
        f"{fresh:,} fresh tokens spent on those that are done, and {spent.tokens:,} in all ({money(spent.usd)}), as "
        "far as the study knows",
    )
    complete = [one for one in found.tried if one.state == "complete"]
    if complete:
        best = min(complete, key=lambda one: _rank(one, found.target))
        value = amount(None if best.values is None else best.values[0], share)
        say(
            console,
            f"Best so far: {best.stack}, {name} {value}{'%' * share} over {best.problems:,} problems of the search "
            "split, by which it was chosen: too high",
        )
    else:
        say(console, "None has had all problems of the search split yet.")
    grown = {
        "tokens": {"fresh": spent.tokens},
        "anytime": found.anytime,
        "tried": found.model_dump()["tried"],
    }
    _grown(grown, share, console)
    if found.tried:
        heading(
            console, "Tried", f"the best {min(top, len(found.tried))}, finished ones first; values so far"
        )
        console.print(_tried(found.objectives, found.target, found.tried, top))
    say(
        console,
        "If its process is gone, run the same `archon search` command again: it goes on where it stopped, and pays for "
        "nothing twice. Validation and test come at its end.",
        "yellow",
    )
