"""Figures for each value of a label of the problems: each value's problems as a run by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.by_label import by_label, labels_of
from archon.benchmarks.results import Results
from archon.errors import DataError, RequestRejected
from archon.problem import Problem
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from tests.archon.test_cli_terminal import archon
from tests.benchmarks.small import Grading, Odd, dataset, harness_run, written

INFO: dict[str, dict[str, Any]] = {
    "p0": {"level": 10, "subject": "sums"},
    "p1": {"level": 2, "subject": "sums"},
    "p2": {"level": 2},
    "p3": {"level": "hard"},
}


def labelled(info: dict[str, dict[str, Any]] | None = None) -> Dataset:
    given = INFO if info is None else info
    return Dataset("small", [Problem.ask(f"question {n}", id=n, info=i) for n, i in given.items()], Grading())


async def run(folder: Path, names: tuple[str, ...] = tuple(INFO)) -> Results:
    return await harness_run(folder, data=labelled({name: INFO[name] for name in names}))


async def test_each_value_has_the_figures_of_a_run_of_its_problems_alone(tmp_path: Path) -> None:
    found = by_label(await run(tmp_path / "all"), "level")
    for value, names in ((2, ("p1", "p2")), (10, ("p0",)), ("hard", ("p3",))):
        alone = (await run(tmp_path / str(value), names)).data
        (one,) = (one for one in found["values"] if one["value"] == value)
        for name in (
            "problems",
            "outcomes",
            "coverage",
            "all_right",
            "selected",
            "pipeline_accuracy",
            "cost",
        ):
            assert one[name] == alone[name], name
    assert [one["value"] for one in found["values"]] == [2, 10, "hard"], "numbers by size, before text"


async def test_problems_without_the_label_are_left_out_and_counted(tmp_path: Path) -> None:
    found = by_label(await run(tmp_path), "subject")
    (sums,) = found["values"]
    assert (sums["problems"], found["without"]) == (2, 2)


async def test_true_and_one_are_two_values(tmp_path: Path) -> None:
    data = labelled({"p0": {"hard": True}, "p1": {"hard": 1}, "p2": {"hard": 1}})
    found = by_label(await harness_run(tmp_path, data=data), "hard")
    assert [(repr(one["value"]), one["problems"]) for one in found["values"]] == [("1", 2), ("True", 1)]


def test_only_plain_values_are_labels() -> None:
    info = {
        "level": 1, "easy": False, "share": 0.5, "subject": "sums",
        "tags": ["a"], "more": {"a": 1}, "nothing": None, "story": "x" * 201, "odd": float("nan"),
    }  # fmt: skip
    assert labels_of(Problem.ask("?", info=info)) == {
        "level": 1, "easy": False, "share": 0.5, "subject": "sums",
    }  # fmt: skip


async def test_labels_are_kept_of_every_problem_whatever_became_of_it(tmp_path: Path) -> None:
    def fails(call: Any) -> str | Exception:
        return RequestRejected("not today") if call.problem == "p1" else "right"

    await harness_run(tmp_path, reply=fails, data=labelled())
    _, lines = written(tmp_path)
    assert {line["id"]: line["labels"] for line in lines} == INFO
    (two,) = (one for one in by_label(Results.read(tmp_path), "level")["values"] if one["value"] == 2)
    assert two["outcomes"]["failed"] == 1
    assert (two["problems"], two["coverage"]["1"]["problems"]) == (2, 1)


async def test_samples_that_are_no_fair_draw_have_no_coverage_by_label_either(tmp_path: Path) -> None:
    stops = Sample(n=4) | Verify(verifier=Odd()) | FirstPassing()
    found = by_label(await harness_run(tmp_path, data=labelled(), pipeline=stops), "level")
    assert all(one["coverage"] == {} and one["selected"] == {} for one in found["values"])
    assert [one["pipeline_accuracy"]["value"] for one in found["values"]] == [1, 1, 1]
    assert any("stops early" in note for note in found["notes"])


async def test_it_is_shown_as_a_table_as_json_and_as_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    await run(tmp_path / "run")
    shown = archon(capsys, "report", folder, "--by", "level")
    assert (shown.code, shown.err) == (0, "")
    head, values, problems, _, first, *_ = shown.out.splitlines()
    assert "by level" in head
    assert [cell.strip() for cell in values.split("┃")] == ["", "level 2", "level 10", "level hard"]
    assert "2 problems" in problems
    assert first.split("│")[0].strip() == "1" and first.split("│")[2].strip().startswith("100.0 [")
    said = archon(capsys, "report", folder, "--by", "subject", "--json", "--pictures")
    assert json.loads(said.out) == by_label(Results.read(folder), "subject")
    assert said.err.split() == [f"{folder}/coverage_by_subject.png"]
    assert (tmp_path / "run/coverage_by_subject.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "without subject, and left out: 2 problems" in archon(capsys, "report", folder, "--by", "subject").out
    )


async def test_many_values_are_shown_in_as_many_tables_as_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"p{i}" for i in range(20)]
    await harness_run(tmp_path, data=labelled({name: {"of": f"[{name}]"} for name in names}))
    shown = archon(capsys, "report", str(tmp_path), "--by", "of")
    assert all(f"of [{name}]" in shown.out for name in names), "whole, whatever it looks like"
    assert shown.out.count("choice │") == 4


async def test_a_label_that_no_problem_has_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(tmp_path / "run")
    wrong = archon(capsys, "report", str(tmp_path / "run"), "--by", "levl")
    assert wrong.code == 2 and "'levl'. Did you mean 'level'?" in wrong.err
    await harness_run(tmp_path / "bare", data=dataset())
    bare = archon(capsys, "report", str(tmp_path / "bare"), "--by", "level")
    assert bare.code == 2 and "have no labels on record" in bare.err
    for other in (("--verifiers",), ("--compare", str(tmp_path / "bare")), ("--cost", "usd")):
        assert archon(capsys, "report", str(tmp_path / "run"), "--by", "level", *other).code == 2


async def test_a_run_from_before_labels_can_be_read(tmp_path: Path) -> None:
    await run(tmp_path)
    _, lines = written(tmp_path)
    old = [{name: value for name, value in line.items() if name != "labels"} for line in lines]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    with pytest.raises(DataError, match="run the same command again"):
        by_label(Results.read(tmp_path), "level")
