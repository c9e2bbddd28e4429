"""`archon search` over the lab with the nano models: what it writes, that it is reproduced, that it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from archon.backends.nano.backend import Nano
from archon.benchmarks.cli import bench
from archon.benchmarks.lab.bench import LabArith
from archon.benchmarks.results import Record, Results
from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.cli import main
from archon.config import Config
from archon.errors import EndpointDown
from archon.pipeline import Pipeline
from archon.strategies.sample import Sample

FILE = """
benchmark: {lab/arith: {level: [2, 4], problems: 12}}
objectives: accuracy
limits: {calls: 8}
proposers: random
effort: {trials: 4}
splits: {search: 0.5, validation: 0.25, test: 0.25}
baselines: {one sample: self_consistency@1, vote: self_consistency@4}
race: {first: 4, width: 2}
finalists: 2
pipeline:
  - sample: {n: {choose: [1, 2, 4, 100]}, temperature: {choose: [0.6, 1.0]}}
  - majority_vote
"""


def run(*arguments: str, code: int = 0) -> Any:
    found = CliRunner().invoke(search, list(arguments), catch_exceptions=False)
    assert found.exit_code == code, found.output
    return found


def refused(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("search")
    (place / "stacks.yaml").write_text(FILE)
    run(str(place / "stacks.yaml"), "--out", str(place / "found"), "-q")
    return place


def test_it_writes_what_it_found(folder: Path) -> None:
    told = json.loads((folder / "found" / "search.json").read_text())
    splits = json.loads((folder / "found" / "splits.json").read_text())
    assert told["trials"] == 4 and told["states"]["failed"] == 0
    best = told["best"]
    assert best["test"]["low"] <= best["test"]["value"] <= best["test"]["high"]
    assert best["test"]["problems"] == len(splits["test"]) == told["splits"]["test"]
    assert not {*splits["search"]} & {*splits["test"]} and not {*splits["validation"]} & {*splits["test"]}
    assert {*told["baselines"]} == {"one sample", "vote"}
    assert (
        "winner" in told["baselines"]["vote"]
        and "test problem" in told["baselines"]["vote"]["winner"]["sentence"]
    )
    assert told["tokens"]["fresh"] < told["tokens"]["total"], "configurations share samples"
    assert told["requests"]["replayed"] > 0
    assert best["configuration"]["sample.n"] != 100, "it is above the limit of 8 calls"
    assert yaml.safe_load((folder / "found" / "best.yaml").read_text())["pipeline"][1] == "majority_vote"
    assert {*told["importance"]} == {"sample.n", "sample.temperature"}


def test_the_winner_gives_the_same_figure_when_it_is_benched(folder: Path) -> None:
    told = json.loads((folder / "found" / "search.json").read_text())
    place = folder / "found"
    arguments = [
        "lab/arith", "--level", "2,4", "--benchmark-set", "problems=12", "--seed", "0",
        "--pipeline", str(place / "best.yaml"), "--ids", str(place / "test.txt"),
        "--store", str(place / "store.sqlite"), "--out", str(folder / "bench"), "--offline", "-q", "--no-pictures",
    ]  # fmt: skip
    found = CliRunner().invoke(bench, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    results = Results.read(folder / "bench")
    right = sum(record.outcome == "solved" for record in results.records) / len(results.records)
    assert right == pytest.approx(told["best"]["test"]["value"])
    tokens = sum(
        r.usage.get("prompt_tokens", 0) + r.usage.get("completion_tokens", 0) for r in results.records
    )
    assert tokens / len(results.records) == pytest.approx(told["best"]["cost"]["tokens"])


def test_it_goes_on_where_it_was_and_spends_nothing_again(folder: Path) -> None:
    before = json.loads((folder / "found" / "search.json").read_text())
    run(str(folder / "stacks.yaml"), "--out", str(folder / "found"), "-q", "--offline")
    again = json.loads((folder / "found" / "search.json").read_text())
    assert again == before


def test_another_search_is_not_gone_on_with(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.yaml"
    other.write_text(FILE.replace("[0.6, 1.0]", "[0.5, 1.0]"))
    refused("search", str(other), "--out", str(folder / "found"), "-q")
    assert "begun with" in capsys.readouterr().err


def test_a_dry_run_says_what_is_in_it_and_spends_nothing(folder: Path) -> None:
    found = run(str(folder / "stacks.yaml"), "--out", str(folder / "never"), "--dry-run")
    assert "sample.n: one of 1, 2, 4, 100" in found.output
    assert "8 configurations before limits" in found.output
    assert "8 calls" in found.output, "why a hundred samples are refused"
    assert not (folder / "never").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("benchmark: {lab/arith", "benchmark: {lab/arit"), "lab/arith"),
        (("effort: {trials: 4}", "effort: huge"), "effort"),
        (("proposers: random", "proposers: radnom"), "random"),
        (("n: {choose: [1, 2, 4, 100]}", "n: {chose: [1, 2]}"), "choose"),
        (("finalists: 2", "finalist: 2"), "finalists"),
        (("self_consistency@4", "self_consistency@four"), "number of samples"),
        (("level: [2, 4]", "level: [2, 400]"), "level"),
    ],
)
def test_mistakes_are_named_before_anything_is_spent(
    tmp_path: Path, change: tuple[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(FILE.replace(*change))
    refused("search", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "found"), "-q")
    assert words in capsys.readouterr().err
    assert not (tmp_path / "found" / "search.json").exists()


def test_a_hard_limit_on_tokens_is_never_exceeded(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(FILE)
    run(str(tmp_path / "s.yaml"), "--out", str(tmp_path / "found"), "-q", "--tokens", "20000", code=0)
    told = json.loads((tmp_path / "found" / "search.json").read_text())
    assert told["tokens"]["fresh"] <= 20000
    assert "budget" in told["ended"] or told["trials"] == 4


async def test_a_server_that_is_down_ends_the_search_and_is_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record("p", "failed", error="all failed", failures=["sample#0 ConnectionDropped: refused"])

    async def down(*_: Any) -> tuple[Record, list[Any]]:
        return record, []

    monkeypatch.setattr("archon.benchmarks.searching.evaluator.recorded", down)
    dataset = LabArith(level=2, problems=1).load()
    config = Config(pipeline=Pipeline([Sample(n=1)]))
    async with LocalEvaluator(dataset, {"default": Nano()}, store=tmp_path / "s.sqlite") as evaluator:
        with pytest.raises(EndpointDown, match="run it again"):
            await evaluator.evaluate(config, [dataset.problems[0].id])
        record.failures.append("sample#1 ContextOverflow: too long")
        (kept,) = await evaluator.evaluate(config, [dataset.problems[0].id])
        assert kept is not None and kept.outcome == "failed", "what the stack itself brings about counts"
