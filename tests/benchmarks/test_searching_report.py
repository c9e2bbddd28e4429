"""`archon report` of a search's folder: one that ended, one that has not, files from elsewhere, and two compared."""

from __future__ import annotations

import copy
import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.progress import Lines, duration
from archon.benchmarks.searching.reading import Searched, growth
from archon.benchmarks.searching.standing import standing
from archon.benchmarks.statistics.paired import compare
from archon.cli import main
from archon.search.objectives import Accuracy, Evaluation
from archon.search.settings import Spending
from archon.usage import Usage

Capture = pytest.CaptureFixture[str]


class Said(NamedTuple):
    code: int
    out: str
    err: str


def archon(capsys: Capture, *words: str | Path) -> Said:
    """Run a command here."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Said(ended.value.code, out, err)


FILE = """
benchmark: BENCHMARK
models: {default: {backend: scripted, replies: {"*": ["1", "2", "2"]}, cycle: true}}
limits: {calls: 8}
proposers: random
effort: {trials: 2}
splits: {search: 0.4, validation: 0.2, test: 0.4}
baselines: {one sample: self_consistency@1}
race: {first: 2, width: 2}
finalists: 1
pipeline:
  - sample: {n: {choose: [1, 3]}}
  - majority_vote
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real search that ended."""
    place = tmp_path_factory.mktemp("live")
    problems = [{"id": f"q{n}", "question": f"{n}?", "answer": str(2 - (n % 3 == 0))} for n in range(20)]
    (place / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    (place / "stacks.yaml").write_text(FILE.replace("BENCHMARK", str(place / "q.jsonl")))
    arguments = [str(place / "stacks.yaml"), "--out", str(place / "found"), "-q", "--no-pictures"]
    found = CliRunner().invoke(search, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return place / "found"


def figure(value: float | None, problems: int = 4) -> dict[str, Any]:
    around = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {
        "value": value,
        "low": around[0],
        "high": around[1],
        "problems": problems if value is not None else 0,
    }


def tried(number: int, state: str, value: float | None, cost: float = 9.0, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "key": f"key{number}", "stack": f"stack {number}", "configuration": {"n": number},
        "state": state, "values": None if value is None else [value, cost], "problems": 4, "fresh_tokens": 10,
        "proposer": "Random", "reason": "", **more,
    }  # fmt: skip


COST = {"requests": 2.0, "tokens": 1234.0, "usd": 0.01, "flops": None}
TOLD: dict[str, Any] = {
    "schema": 1,
    "benchmark": {"name": "lab/arith", "sha256": "abc"},
    "objectives": ["accuracy", "tokens"],
    "target": None,
    "best": {
        "pipeline": "best.yaml", "stack": "sample(n=2) > majority_vote", "configuration": {"n": 2},
        "search": {**figure(0.75), "corrected": 0.625}, "validation": figure(0.5), "test": figure(0.25), "cost": COST,
    },
    "baselines": {
        "plain": {
            "test": figure(0.5), "cost": COST,
            "winner": {"says": "no significant difference", "difference": -0.25, "low": -0.7, "high": 0.2,
                       "p_value": 1.0, "problems": 4, "sentence": "..."},
        }
    },
    "front": [
        {"key": "key1", "stack": "dear one", "value": 0.5, "low": 0.3, "high": 0.7, "cost": 20.0, "cost_low": 18.0,
         "cost_high": 22.0, "problems": 4, "share": 0.97, "on": "surely"},
        {"key": "key2", "stack": "cheap one", "value": 0.25, "low": 0.1, "high": 0.4, "cost": 9.0, "cost_low": 8.0,
         "cost_high": 10.0, "problems": 4, "share": 0.6, "on": "maybe"},
    ],
    "trials": 3, "states": {"complete": 2, "pruned": 1, "failed": 0}, "evaluations": 40,
    "requests": {"fresh": 30, "replayed": 10}, "tokens": {"fresh": 3000, "total": 4000},
    "usd": {"fresh": 0.5, "total": None},
    "importance": {"n": 0.5, "temperature": 0.0},
    "anytime": [[1000, 0.5], [2000, 0.75]],
    "tried": [
        tried(0, "pruned", 1.0, reason="surely worse than key1"), tried(1, "complete", 0.5), tried(2, "complete", 0.75)
    ],
    "by_problem": {"problems": ["a", "b", "c", "d"], "winner": [1.0, 0.0, 0.0, 0.0], "baselines": {}},
    "splits": {"search": 4, "validation": 4, "test": 4},
    "ended": "3 configurations were tried",
    "notes": ["a proposer said so"],
}  # fmt: skip


def made(place: Path, **changes: Any) -> Path:
    """A search's folder with a file of this content; a change is by `key` or by `key__key`."""
    told = copy.deepcopy(TOLD)
    for path, value in changes.items():
        *outer, last = path.split("__")
        inside = told
        for key in outer:
            inside = inside[key]
        if value is ...:
            del inside[last]
        else:
            inside[last] = value
    place.mkdir()
    (place / "search.json").write_text(json.dumps(told))
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if "study" not in p.name}


# --- a real one ------------------------------------------------------------------------------------


def test_what_a_search_writes_is_read_and_shown(live: Path, capsys: Capture) -> None:
    searched = Searched.read(live)
    told = searched.told
    assert told.best is not None and told.by_problem is not None and told.tried is not None
    assert sum(told.by_problem.winner) / len(told.by_problem.winner) == told.best.test.value
    assert (
        sum(told.by_problem.baselines["one sample"]) / told.splits.test
        == told.baselines["one sample"].test.value
    )
    assert told.by_problem.problems == (live / "test.txt").read_text().split()
    assert len(told.tried) == told.trials == 2 and told.benchmark is not None
    assert told.objective_settings == [{}]
    assert len(told.benchmark.sha256) == 64
    before = contents(live)
    said = archon(capsys, "report", live)
    assert (said.code, said.err) == (0, "")
    for words in (
        told.best.stack,
        "one sample",
        ": a search for accuracy",
        "majority_vote",
        told.ended,
    ):
        assert words in said.out
    assert contents(live) == before, "reading changes nothing"


def test_json_csv_and_pictures(live: Path, capsys: Capture) -> None:
    data = json.loads((live / "search.json").read_text())
    assert json.loads(archon(capsys, "report", live, "--json").out) == data
    rows = list(csv.DictReader(io.StringIO(archon(capsys, "report", live, "--csv").out)))
    assert {row["sample.n"] for row in rows} == {"1", "3"}
    assert [float(row["accuracy"]) for row in rows] == [one["values"][0] for one in data["tried"]]
    said = archon(capsys, "report", live, "--pictures")
    assert said.code == 0
    assert {*said.err.split()} == {str(p) for p in live.glob("*.png")} != set()


def test_what_was_tried_is_found_in_the_study_of_an_older_search(
    live: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(live, tmp_path / "old")
    data = json.loads((live / "search.json").read_text())
    new = archon(capsys, "report", live).out
    for name in ("benchmark", "tried", "by_problem"):
        del data[name]
    (tmp_path / "old" / "search.json").write_text(json.dumps(data))
    old = archon(capsys, "report", tmp_path / "old").out
    assert "Tried: the best 2 of 2" in old
    assert old[old.index("Tried") :] == new[new.index("Tried") :]


def test_one_that_has_not_ended_says_how_it_stands_and_what_to_do(
    live: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(live, tmp_path / "cut")
    (tmp_path / "cut" / "search.json").unlink()
    said = archon(capsys, "report", tmp_path / "cut")
    assert (said.code, said.err) == (0, "")
    assert "has not ended" in said.out and "2 configurations done" in said.out
    assert "run the same `archon search` command again" in said.out and "majority_vote" in said.out
    shown = json.loads(archon(capsys, "report", tmp_path / "cut", "--json").out)
    assert [one["state"] for one in shown["tried"]] == [
        one["state"] for one in Searched.read(live).data["tried"]
    ]
    assert standing(tmp_path / "cut").objectives == ["accuracy"]
    data, spent = Searched.read(live).data, shown["spent"]
    assert spent == {
        "requests": data["requests"]["fresh"],
        "tokens": data["tokens"]["fresh"],
        "usd": data["usd"]["fresh"],
    }
    tokens = sum(one["fresh_tokens"] for one in data["tried"])
    assert tokens < spent["tokens"], "validation and test took some too"
    assert f"{tokens} fresh tokens spent on those that are done, and {spent['tokens']} in all" in said.out
    refused = archon(capsys, "report", tmp_path / "cut", "--pictures")
    assert refused.code == 2 and "has not ended" in refused.err


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\0" * 84])
def test_a_study_that_is_none_is_an_error_with_its_name(
    tmp_path: Path, capsys: Capture, content: bytes
) -> None:
    (tmp_path / "study.sqlite").write_bytes(content)
    said = archon(capsys, "report", tmp_path)
    assert said.code in (1, 2) and "study.sqlite" in said.err and not said.out


# --- what is shown ---------------------------------------------------------------------------------


def test_the_report_has_every_part(tmp_path: Path, capsys: Capture) -> None:
    out = archon(capsys, "report", made(tmp_path / "s")).out
    assert "a search for accuracy against tokens" in out
    assert "25.0 [15.0, 35.0]" in out and "62.5" in out, (
        "the test's figure, and the corrected one of the search split"
    )
    assert (
        "no significant difference from plain: -25.0 points [-70.0, +20.0], paired over 4 test problems"
        in out
    )
    assert out.index("cheap one") < out.index("dear one"), "the front begins with the cheapest"
    assert "surely, in 97% of draws" in out and "maybe, in 60% of draws" in out
    assert "50.0% │ " + "█" * 20 in out
    assert "3,000 tokens and $0.5 anew" in out and "1,000 tokens replayed" in out and "unpriced" in out
    assert "It ended because 3 configurations were tried." in out and "Note: a proposer said so" in out
    assert "1,234 tokens, 2.0 calls, $0.01" in out


def test_finished_ones_come_first_and_reasons_name_others_by_number(tmp_path: Path, capsys: Capture) -> None:
    out = archon(capsys, "report", made(tmp_path / "s")).out
    lines = [
        line
        for line in out[out.index("Tried") :].splitlines()
        if "stack 0" in line or "stack 1" in line or "stack 2" in line
    ]
    assert ["stack 2" in lines[0], "stack 1" in lines[1], "stack 0" in lines[2]] == [True] * 3
    assert "surely worse than #1" in lines[2]
    out = archon(capsys, "report", tmp_path / "s", "--top", "1").out
    assert "stack 2" in out and "stack 1" not in out and "the best 1 of 3" in out


def test_the_winner_leads_whoever_was_ahead_on_the_search_split(tmp_path: Path, capsys: Capture) -> None:
    out = archon(capsys, "report", made(tmp_path / "s", best__configuration={"n": 1}), "--top", "1").out
    assert "stack 1" in out and "the winner │" in out and "stack 2" not in out


def test_with_a_target_the_cheapest_that_is_there_leads(tmp_path: Path, capsys: Capture) -> None:
    trials = [tried(0, "complete", 0.9, 50.0), tried(1, "complete", 0.7, 5.0), tried(2, "complete", 0.6, 1.0)]
    out = archon(capsys, "report", made(tmp_path / "s", target=0.7, tried=trials, best__configuration={})).out
    assert "a search for the least tokens at accuracy 70.0" in out
    assert out.index("stack 1") < out.index("stack 0") < out.index("stack 2")


def test_what_is_no_share_is_not_shown_in_percent(tmp_path: Path, capsys: Capture) -> None:
    out = archon(capsys, "report", made(tmp_path / "s", objectives=["utility"], best__test=figure(-1.5))).out
    assert "-1.500 [-1.600, -1.400]" in out and "-0.250 [-0.700, +0.200]" in out and "points" not in out


def test_where_nothing_could_be_evaluated_it_says_so(tmp_path: Path, capsys: Capture) -> None:
    place = made(tmp_path / "s", best=None, baselines={}, front=[], tried=[], anytime=[], importance={})
    said = archon(capsys, "report", place, "--pictures")
    assert said.code == 0 and "Nothing could be evaluated" in said.out and not list(place.glob("*.png"))


def test_where_all_was_replayed_the_best_so_far_goes_by_configurations() -> None:
    assert growth(TOLD) == ("fresh tokens", [(1000, 0.5), (2000, 0.75)], 3000)
    replayed = {**TOLD, "tokens": {"fresh": 0, "total": 5}, "anytime": [[0, 0.75]]}
    assert growth(replayed) == ("configurations tried", [(2, 0.5), (3, 0.75)], 3)


# --- files from elsewhere --------------------------------------------------------------------------

WILD = "[bold red]x[/bold red] [/] :smile: \x1b[31mred\x07 \u202e 模 $\\frac{$ \\ end[/"
SHOWN = "[bold red]x[/bold red] [/] :smile: \ufffd[31mred\ufffd \ufffd 模 $\\frac{$ \\ end[/"


def test_names_from_elsewhere_are_data(tmp_path: Path, capsys: Capture) -> None:
    place = made(
        tmp_path / "s",
        best__stack=WILD, benchmark__name=WILD, objectives=[WILD, WILD], ended=WILD, notes=[WILD],
        importance={WILD: 0.5}, baselines={WILD: TOLD["baselines"]["plain"]},
        front=[{**one, "stack": WILD} for one in TOLD["front"]],
        tried=[tried(1, "complete", 0.5, stack=WILD, reason=WILD)],
    )  # fmt: skip
    (place / "best.yaml").write_text(WILD)
    said = archon(capsys, "report", place, "--pictures")
    assert said.code == 0 and len(said.err.split()) == 3, "the pictures are drawn"
    assert not {"\x1b", "\x07", "\u202e"} & {*said.out}
    assert said.out.count(SHOWN) >= 5
    assert archon(capsys, "report", place, "--csv").code == 0


def test_half_a_letter_in_a_name_is_shown_and_written(tmp_path: Path, capsys: Capture) -> None:
    place = made(tmp_path / "s", best__stack="a\ud800b", tried=[tried(1, "complete", 0.5, stack="a\ud800b")])
    for option in ("--json", "--csv", "--top=3"):
        assert archon(capsys, "report", place, option).code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        ("{", "damaged"),
        ("[]", "schema"),
        ("[" * 100_000, "nested"),
        ('{"schema": 1}', "objectives"),
        (json.dumps({**TOLD, "schema": 2}), "newer schema"),
        (json.dumps({**TOLD, "schema": "1"}), "schema"),
        (json.dumps({**TOLD, "trials": -1}), "trials"),
        (json.dumps({**TOLD, "trials": "3"}), "trials"),
        (json.dumps({**TOLD, "importance": {"n": None}}), "importance.n"),
        (json.dumps({**TOLD, "importance": {"n": float("nan")}}), "NaN"),
        (json.dumps({**TOLD, "later": 0}).replace('"later": 0', '"later": 1e999'), "Out of range"),
        (json.dumps({**TOLD, "best": {**TOLD["best"], "test": figure(None) | {"problems": 4}}}), "best.test"),
        (json.dumps({**TOLD, "objective_settings": [{}]}), "settings of 1 objectives"),
        (json.dumps({**TOLD, "tried": [tried(1, "complete", None)]}), "tried.0"),
        (json.dumps({**TOLD, "by_problem": {**TOLD["by_problem"], "winner": [1.0]}}), "by_problem"),
        (json.dumps({**TOLD, "by_problem": {**TOLD["by_problem"], "problems": ["a"] * 4}}), "twice"),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(
    tmp_path: Path, capsys: Capture, text: str, words: str
) -> None:
    (tmp_path / "search.json").write_text(text)
    said = archon(capsys, "report", tmp_path)
    assert said.code == 2 and not said.out
    assert "search.json" in said.err and words in said.err
    assert "archon search" in said.err or "Update archon" in said.err


def test_an_error_shows_no_letter_that_a_terminal_would_obey(tmp_path: Path, capsys: Capture) -> None:
    said = archon(capsys, "report", made(tmp_path / "s", importance={"\x1b[31m": None}))
    assert said.code == 2 and "importance.\ufffd[31m" in said.err and "\x1b" not in said.err
    one, two = made(tmp_path / "one"), made(tmp_path / "two", best=None, ended="\x1b[31m")
    assert "(\ufffd[31m)" in archon(capsys, "report", one, "--compare", two).err


def test_what_later_versions_add_is_left_alone(tmp_path: Path, capsys: Capture) -> None:
    assert archon(capsys, "report", made(tmp_path / "s", later={"x": 1})).code == 0


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--verifiers",), ("--by", "level"), ("--beat", "other"), ("--selector", "majority_vote"),
        ("--costs", "1"), ("--cost", "tokens"), ("--hardware", "h100-sxm"), ("--batch", "2"), ("--devices", "2"),
        ("--drop-false-negatives",),
    ],
)  # fmt: skip
def test_options_of_runs_are_refused_of_a_search(
    tmp_path: Path, capsys: Capture, options: tuple[str, ...]
) -> None:
    said = archon(capsys, "report", made(tmp_path / "s"), *options)
    assert said.code == 2 and not said.out
    assert f"{options[0]} goes with runs of `archon bench`" in said.err


@pytest.mark.parametrize(
    "options", [("--json", "--csv"), ("--csv", "--top", "3"), ("--compare", "s", "--pictures"), ("s",)]
)
def test_options_that_do_not_go_together(
    tmp_path: Path, capsys: Capture, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "s")
    assert archon(capsys, "report", "s", *options).code == 2


def test_options_of_a_search_are_refused_of_a_run(tmp_path: Path, capsys: Capture) -> None:
    for options in (("--csv",), ("--top", "3")):
        said = archon(capsys, "report", tmp_path, *options)
        assert said.code == 2 and "go with the folder of a search" in said.err


# --- two searches ----------------------------------------------------------------------------------


def test_the_winners_of_two_searches_are_compared_by_problem(tmp_path: Path, capsys: Capture) -> None:
    values = {"a": 0.0, "d": 1.0, "c": 1.0, "b": 0.0}
    other = {"problems": [*values], "winner": [*values.values()], "baselines": {}}
    one, two = made(tmp_path / "one"), made(tmp_path / "two", by_problem=other, best__stack="another")
    data = json.loads(archon(capsys, "report", one, "--compare", two, "--json").out)
    expected = compare([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]).as_json()
    assert data["winners"] == expected and data["left_out"] == 0
    out = archon(capsys, "report", one, "--compare", two).out
    assert "paired over 4 test problems: +25.0 points" in out and "better on 2, worse on 1, equal on 1" in out
    assert "another" in out


def test_problems_that_only_one_was_tested_on_are_left_out_and_counted(
    tmp_path: Path, capsys: Capture
) -> None:
    other = {"problems": ["c", "d", "e"], "winner": [1.0, 1.0, 1.0], "baselines": {}}
    one, two = made(tmp_path / "one"), made(tmp_path / "two", by_problem=other)
    out = archon(capsys, "report", one, "--compare", two).out
    assert (
        "paired over 2 test problems: +100.0 points" in out
        and "3 problems are in the test split of one" in out
    )


def test_two_searches_on_part_of_a_benchmark_share_the_problems_that_ask_the_same(
    tmp_path: Path, capsys: Capture
) -> None:
    """Another --limit gives another digest of all problems; a problem of the same id may still be another one."""

    def told(name: str, problems: str, digests: list[str]) -> Path:
        row = {"problems": [*problems], "sha256": digests, "winner": [1.0] * len(problems), "baselines": {}}
        return made(tmp_path / name, by_problem=row, benchmark__sha256=name)

    one, two = told("one", "abcd", ["1", "2", "3", "4"]), told("two", "bcd", ["2", "3", "other"])
    data = json.loads(archon(capsys, "report", one, "--compare", two, "--json").out)
    assert data["winners"]["problems"] == 2 and data["left_out"] == 3
    said = archon(capsys, "report", one, "--compare", told("three", "d", ["other"]))
    assert said.code == 2 and "other problems of lab/arith" in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"by_problem": {"problems": ["x"], "winner": [1.0], "baselines": {}}},
            "no problem is in the test split",
        ),
        ({"benchmark__sha256": "other"}, "other problems of lab/arith"),
        ({"benchmark__name": "gsm8k"}, "lab/arith and gsm8k"),
        ({"objectives": ["coverage"]}, "coverage"),
        ({"by_problem": ...}, "older archon"),
        ({"by_problem__winner": []}, "no winner that was tested"),
        ({"best": None}, "no winner that was tested"),
    ],
)
def test_where_two_searches_cannot_be_compared_it_says_why(
    tmp_path: Path, capsys: Capture, changes: dict[str, Any], words: str
) -> None:
    said = archon(capsys, "report", made(tmp_path / "one"), "--compare", made(tmp_path / "two", **changes))
    assert said.code == 2 and "cannot be compared" in said.err and words in said.err


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_values_of_two_kinds_are_not_compared(
    tmp_path: Path, capsys: Capture, as_json: tuple[str, ...]
) -> None:
    """A utility with another price of a false positive is another unit."""

    def told(name: str, price: float | None) -> Path:
        settings = {"false_positive": price, "accepted_only": False}
        more = {} if price is None else {"objective_settings": [settings, {}]}
        return made(tmp_path / name, objectives=["utility", "tokens"], **more)

    one, same, other, older = told("one", 4.0), told("same", 4.0), told("other", 1.5), told("older", None)
    assert archon(capsys, "report", one, "--compare", same, *as_json).code == 0
    said = archon(capsys, "report", one, "--compare", other, *as_json)
    assert said.code == 2 and not said.out and "cannot be compared" in said.err
    assert "utility with false_positive 4.0" in said.err and "utility with false_positive 1.5" in said.err
    assert "accepted_only" not in said.err, "that is the same"
    for pair in ((one, older), (older, one), (older, older)):
        said = archon(capsys, "report", pair[0], "--compare", pair[1], *as_json)
        assert said.code == 2 and "older archon" in said.err and "with which settings" in said.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": 0.7}, ["the best value", "a target of 70.0%"]),
        ({"objectives": ["accuracy", "usd"]}, ["weighed tokens", "the second usd"]),
        ({"objectives": ["accuracy"]}, ["weighed tokens", "the second no cost"]),
        ({}, []),
    ],
)
def test_winners_that_were_chosen_for_other_things_are_compared_and_it_is_said(
    tmp_path: Path, capsys: Capture, changes: dict[str, Any], words: list[str]
) -> None:
    one, two = made(tmp_path / "one"), made(tmp_path / "two", **changes)
    said = archon(capsys, "report", one, "--compare", two)
    assert said.code == 0 and "paired over 4 test problems" in said.out
    assert all(word in said.out for word in words)
    assert ("chosen for different things" in said.out) == bool(words)
    notes = json.loads(archon(capsys, "report", one, "--compare", two, "--json").out)["notes"]
    assert len(notes) == bool(words) and all(word in notes[0] for word in words)


def test_a_search_is_not_compared_with_a_run(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run").mkdir()
    for order in (("s", "run"), ("run", "s")):
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        made(tmp_path / "s")
        said = archon(capsys, "report", tmp_path / order[0], "--compare", tmp_path / order[1])
        assert said.code == 2 and "is a search, and" in said.err and "archon bench" in said.err


# --- while it goes on ------------------------------------------------------------------------------


def under_way(spending: Spending, done: int, problems: int) -> Any:
    """A search of which so many configurations ended, and one is under way with so many of 10 problems."""
    ids = tuple(str(n) for n in range(10))
    known = {
        key: {p: Evaluation(p, right=1.0, fresh=Usage(requests=1, prompt_tokens=10)) for p in ids[:count]}
        for key, count in ({f"done {n}": 10 for n in range(done)} | {"open": problems}).items()
    }
    race = SimpleNamespace(keys=list(known), seen=lambda key: len(known[key]), leader=lambda: "open")
    return SimpleNamespace(
        settings=SimpleNamespace(spending=spending, value=Accuracy()),
        study=SimpleNamespace(history=lambda: [SimpleNamespace(key=f"done {n}") for n in range(done)]),
        race=race, known=known, parts=SimpleNamespace(search=ids),
        ended_trials=done, begun_trials=done + 1, evaluations=10 * done + problems,
    )  # fmt: skip


def lines() -> Lines:
    return Lines(SimpleNamespace(fresh=Usage(), used=Usage()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spending", "share"),
    [
        (Spending(trials=10), 0.25),
        (Spending(evaluations=50), 0.5),
        (Spending(tokens=1000), 0.25),
        (Spending(trials=10, tokens=500), 0.5),
        (Spending(trials=1), 1.0),
    ],
)
def test_the_share_of_the_effort_is_that_of_what_ends_first(spending: Spending, share: float) -> None:
    assert lines().share(under_way(spending, 2, 5)) == pytest.approx(share)


def test_a_line_says_what_was_spent_and_how_long_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("archon.benchmarks.searching.progress.time.monotonic", lambda: clock[0])
    one = lines()
    one.tried(under_way(Spending(trials=10), 2, 0))  # 0.2 is made, perhaps before us
    clock[0] += 60
    line = one.line(under_way(Spending(trials=10), 4, 0), clock[0])
    assert line.startswith("1:00: 4 of 10 configurations done, 1 under way, 40 evaluations")
    assert "0 fresh of 0 tokens, $0" in line and "about 3:00 left, then validation and test" in line
    line = one.line(under_way(Spending(trials=4), 4, 3), clock[0])
    assert line.endswith("finishing, validating and testing") and "best so far 100.0 over 3 problems" in line


def test_nothing_is_said_of_the_rest_before_anything_is_known() -> None:
    one = lines()
    searching = under_way(Spending(trials=10), 2, 0)
    one.tried(searching)
    assert "left" not in one.line(searching, 1e9)


def test_durations_are_for_people() -> None:
    assert [duration(s) for s in (0, 59.6, 187, 3787)] == ["0:00", "1:00", "3:07", "1:03:07"]
