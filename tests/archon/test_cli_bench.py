"""`archon bench`: a pipeline over a benchmark, from the command line, on a script and on a small file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from archon.benchmarks.results import SCHEMA
from archon.config import load
from archon.testing import Answer
from tests.archon.test_cli_terminal import Said, archon, served

REPLIES = {"a": ["42", "41", "42", "42"], "b": ["47", "48", "48", "1"], "c": ["x", "y", "54", "9"]}
"""Four samples of each problem; right are 3, 2 and 1 of them."""
ANSWERS = {"a": "42", "b": "48", "c": "54"}


def arrange(n: int = 3, chooses: str = ", majority_vote") -> None:
    """A benchmark of three problems, and a pipeline whose model is a script."""
    Path("six.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "question": f"What is {name}?", "answer": answer, "kind": "number"})
            + "\n"
            for name, answer in ANSWERS.items()
        )
    )
    Path("vote.yaml").write_text(
        f"models:\n  default: {{backend: scripted, replies: {json.dumps(REPLIES)}, price: {{input: 1, output: 2}}}}\n"
        f"pipeline: [{{sample: {{n: {n}}}}}{chooses}]\n"
    )


def bench(capsys: pytest.CaptureFixture[str], *more: str, out: str = "run") -> Said:
    return archon(
        capsys,
        "bench",
        "six.jsonl",
        "--pipeline",
        "vote.yaml",
        "--out",
        out,
        "--no-pictures",
        "--quiet",
        *more,
    )


def results(out: str = "run") -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(out) / "results.json").read_text())
    return data


def lines(out: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / "problems.jsonl").read_text().splitlines()]


def everything(folder: str = ".") -> dict[str, bytes]:
    """Every file below a folder, with its content."""
    return {str(p): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


# --- a run and its folder --------------------------------------------------------------------------


def test_it_writes_what_the_documents_list(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = bench(capsys)
    assert (said.code, said.err) == (0, "")
    assert {p.name for p in Path("run").iterdir()} == {
        "results.json", "problems.jsonl", "curves.csv", "pipeline.yaml", "run.json", "info.json",
    }  # fmt: skip
    data = results()
    assert (data["schema"], data["benchmark"], data["pipeline"]) == (SCHEMA, "six", "vote")
    assert (data["problems"], data["samples"], data["seed"], data["interrupted"]) == (3, 3, None, False)
    assert data["outcomes"]["solved"] == 3
    assert data["candidates"] == {"right": 5, "wrong": 4}
    assert data["coverage"]["1"]["value"] == pytest.approx((2 + 2 + 1) / 9)
    assert list(data["selected"]) == ["majority_vote"]
    assert data["usage"]["requests"] == data["fresh"]["requests"] == 9
    assert data["usage"]["usd"] == pytest.approx(sum(u["usd"] for u in data["by_stage"].values()))
    assert load("run/pipeline.yaml") == load("vote.yaml"), "the effective configuration can be run again"


def test_it_shows_the_report_and_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = bench(capsys)
    for words in ("six", "pass@k", "majority_vote", "3 solved", "9 requests", "run/results.json"):
        assert words in said.out


def test_pictures_are_drawn_unless_they_are_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    archon(capsys, "bench", "six.jsonl", "-p", "vote.yaml", "--out", "run", "--quiet")
    pictures = {p.name: p.read_bytes() for p in Path("run").glob("*.png")}
    assert set(pictures) == {"accuracy_by_k.png", "accuracy_by_tokens.png", "accuracy_by_usd.png"}
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())


def test_progress_goes_to_standard_error_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = archon(capsys, "bench", "six.jsonl", "-p", "vote.yaml", "--out", "run", "--no-pictures")
    assert "3/3 problems, 3 solved, 0 failed" in said.err
    assert "3/3 problems" not in said.out


def test_the_curves_are_a_table_too(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    with Path("run/curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert {row["k"] for row in rows} == {"1", "2", "3"}


# --- going on, growing, replacing ------------------------------------------------------------------


def test_the_same_command_again_costs_nothing_and_finds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    first = results()
    said = bench(capsys)
    again = results()
    assert said.code == 0
    assert again["fresh"]["requests"] == 0
    assert "Spent in this run: nothing" in said.out
    assert {**first, "fresh": None} == {**again, "fresh": None}


def test_more_samples_add_to_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--samples", "2")
    assert (results()["samples"], results()["fresh"]["requests"]) == (2, 6)
    bench(capsys, "--samples", "4")
    assert (results()["samples"], results()["fresh"]["requests"]) == (4, 6)
    assert [sum(line["truth"]) for line in lines()] == [3, 2, 1]
    assert [line["usage"]["requests"] for line in lines()] == [4, 4, 4]


@pytest.mark.parametrize("first", [(), ("--samples", "1")])
def test_a_run_of_one_sample_can_grow_too(first: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    arrange(n=1)
    assert bench(capsys, *first).code == 0
    assert bench(capsys, "--samples", "4").code == 0
    assert results()["fresh"]["requests"] == 9


def test_another_seed_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--seed", "1")
    before = everything("run")
    said = bench(capsys, "--seed", "2")
    assert said.code == 2
    assert len(said.errors) == 1
    for words in ("'run' holds another run", "seed was 1 and is 2", "--out", "--overwrite"):
        assert words in said.err
    assert everything("run") == before, "what is there is left alone"
    assert bench(capsys, "--seed", "2", out="other").code == 0
    assert results("other")["fresh"]["requests"] == 9, "its samples are its own"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--set", "sample.temperature=0.5"), "temperature"),
        (("--budget", "requests=5"), "budget"),
        (("--model", "openai:m", "--base-url", "http://localhost:1/v1"), "openai"),
    ],
)
def test_another_configuration_is_another_run(
    more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    bench(capsys)
    before = everything("run")
    said = bench(capsys, *more)
    assert said.code == 2
    assert "another run" in said.err and says in said.err
    assert everything("run") == before


def test_overwrite_replaces_another_run_and_keeps_the_samples(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--seed", "1")
    assert bench(capsys, "--seed", "2", "--overwrite").code == 0
    assert results()["seed"] == 2
    assert bench(capsys, "--seed", "1", "--overwrite").code == 0
    assert (results()["seed"], results()["fresh"]["requests"]) == (1, 0)


def test_overwrite_leaves_no_trace_of_the_run_it_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--trace", "--set", "sample.temperature=0.5")
    bench(capsys, "--trace", "--overwrite", "--limit", "1")
    problems = [json.loads(line)["problem"] for line in Path("run/trace.jsonl").read_text().splitlines()]
    assert set(problems) == {"a"}


@pytest.mark.parametrize("less", [("--samples", "2"), ("--limit", "2"), ("--set", "sample.n=1")])
def test_a_smaller_run_does_not_replace_a_larger_one(
    less: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    bench(capsys)
    before = everything("run")
    said = bench(capsys, *less)
    assert said.code == 2
    assert len(said.errors) == 1
    for words in ("results of 3", "--out", "--overwrite"):
        assert words in said.err
    assert everything("run") == before
    assert bench(capsys, *less, "--overwrite").code == 0
    assert bench(capsys).code == 0, "and it may grow again"


def test_a_run_that_never_began_does_not_claim_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    assert bench(capsys, "--model", "replay:absent.jsonl").code == 2
    assert bench(capsys).code == 0


def test_a_run_whose_model_cannot_be_used_does_not_claim_its_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrange()
    with served(lambda asked: Answer("no such model", status=404)) as server:
        assert bench(capsys, "--model", "openai:m", "--base-url", server.url).code == 2
    assert bench(capsys).code == 0


def test_another_benchmark_of_the_same_name_is_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    Path("other").mkdir()
    Path("other/six.jsonl").write_text('{"id": "a", "question": "Something else?", "answer": "7"}\n')
    said = archon(
        capsys,
        "bench",
        "other/six.jsonl",
        "--pipeline",
        "vote.yaml",
        "--out",
        "run",
        "--no-pictures",
        "--quiet",
    )
    assert said.code == 2


# --- options ---------------------------------------------------------------------------------------


def test_a_dry_run_prints_what_would_run_and_its_cost(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = bench(capsys, "--dry-run", "--samples", "4")
    assert (said.code, said.err) == (0, "")
    text, _, table = said.out.partition("\n\n")
    assert yaml.safe_load(text)["pipeline"] == [{"sample": {"n": 4}}, "majority_vote"]
    assert "4" in table and "3 problems, in all: $" in table
    assert not Path("run").exists()


def test_a_dry_run_asks_nothing_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    before = everything()
    with served() as server:
        said = bench(
            capsys,
            "--dry-run",
            "--model",
            "openai:m",
            "--base-url",
            server.url,
            "--trace",
            "--store",
            "d/s.sqlite",
        )
    assert said.code == 0
    assert server.asked == []
    assert everything() == before


@pytest.mark.parametrize(("limit", "names"), [("1", ["a"]), ("2", ["a", "b"]), ("99", ["a", "b", "c"])])
def test_a_limit_takes_the_first_problems(
    limit: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    assert bench(capsys, "--limit", limit).code == 0
    assert [line["id"] for line in lines()] == names
    assert results()["problems"] == len(names)


def test_a_limit_may_grow(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--limit", "1")
    bench(capsys)
    assert (results()["problems"], results()["fresh"]["requests"]) == (3, 6)


def test_offline_takes_what_is_stored_and_calls_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    with served(lambda asked: "42") as server:
        live = ("--model", "openai:m", "--base-url", server.url)
        bench(capsys, *live, "--samples", "2")
        asked = len(server.asked)
        said = bench(capsys, *live, "--samples", "3", "--offline")
        assert len(server.asked) == asked == 6
    assert said.code == 0
    assert [len(line["truth"]) for line in lines()] == [2, 2, 2]
    assert all("offline" in line["failures"][0] for line in lines())


def test_where_everything_failed_the_report_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = bench(capsys, "--offline")
    assert results()["outcomes"]["failed"] == 3
    assert said.code == 1
    assert "could not be had: 9" in said.out
    assert "9 x NotRecorded: " in said.out and "offline" in said.out


def test_the_named_selectors_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--selectors", "majority_vote")
    assert list(results()["selected"]) == ["majority_vote"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("majorityvote", ("'majorityvote'", "Did you mean 'majority_vote'?")),
        ("majority_vote,sample", ("'sample'", "does not choose")),
        ("best_of", ("'best_of'", "scores")),
    ],
)
def test_a_selector_that_cannot_be_reported_is_refused(
    names: str, says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    said = bench(capsys, "--selectors", names)
    assert said.code == 2
    for words in says:
        assert words in said.err


def test_a_selector_that_needs_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arrange(chooses=", {verify: {verifier: unit_tests}}, best_of")
    row = {"id": "a", "question": "f?", "entry_point": "f", "tests": [{"args": [], "expected": 1}]}
    Path("six.jsonl").write_text(json.dumps(row) + "\n")
    said = bench(capsys, "--selectors", "top_k")
    assert said.code == 2
    assert "'top_k'" in said.err


def test_a_trace_holds_every_event_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--trace")
    events = [json.loads(line) for line in Path("run/trace.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds.count("sampled"), kinds.count("solved")) == (9, 3)
    assert {event["problem"] for event in events} == set("abc")
    assert all(event["at"] >= 0 for event in events)
    assert sum(event["fresh"] is True for event in events if event["event"] == "sampled") == 9


def test_recorded_generations_stand_in_for_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    Path("recorded.jsonl").write_text(
        "".join(json.dumps({"id": name, "samples": samples}) + "\n" for name, samples in REPLIES.items())
    )
    bench(capsys, "--samples", "4")
    said = archon(
        capsys, "bench", "six.jsonl", "--pipeline", "self_consistency", "--replay", "recorded.jsonl",
        "--samples", "4", "--out", "replayed", "--no-pictures", "--quiet",
    )  # fmt: skip
    assert said.code == 0
    assert results("replayed")["coverage"] == results("run")["coverage"]
    assert results("replayed")["selected"] == results("run")["selected"]
    assert results("replayed")["fresh"]["requests"] == 0
    assert results("replayed")["usage"]["estimated"] == 12, (
        "tokens that were not recorded are said to be estimated"
    )


def test_code_is_verified_and_graded(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "id": "double", "question": "Write double(x).", "entry_point": "double",
        "tests": [{"args": [1], "expected": 2}], "hidden_tests": [{"args": [3], "expected": 6}],
    }  # fmt: skip
    Path("code.jsonl").write_text(json.dumps(row) + "\n")
    Path("code.yaml").write_text(
        "models: {default: {backend: scripted, replies: {double: "
        "['def double(x): return x + 1', 'def double(x): return 2 * x', 'no']}}}\n"
        "pipeline: [{sample: {n: 3}}, {verify: {verifier: unit_tests}}, best_of]\n"
    )
    words = ("bench", "code.jsonl", "-p", "code.yaml", "--out", "run", "--no-pictures", "--quiet")
    assert archon(capsys, *words).code == 0
    (line,) = lines()
    assert line["truth"] == [False, True, False]
    assert line["verdicts"]["unit_tests"]["accepted"] == [True, True, False], (
        "the first one fools the visible test"
    )
    assert line["selected"] == 0
    assert line["outcome"] == "wrong"


def test_a_gzipped_file_is_a_benchmark_too(capsys: pytest.CaptureFixture[str]) -> None:
    import gzip

    arrange()
    Path("six.jsonl.gz").write_bytes(gzip.compress(Path("six.jsonl").read_bytes()))
    words = ("bench", "six.jsonl.gz", "-p", "vote.yaml", "--out", "run", "--no-pictures", "--quiet")
    assert archon(capsys, *words).code == 0
    assert results()["problems"] == 3


def test_the_folder_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    said = archon(capsys, "bench", "six.jsonl", "-p", "vote.yaml")
    assert said.code == 2
    assert "--out" in said.err
