"""`archon report` and `archon show`: a run's report again, two runs compared, pipelines as pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from archon import shelf
from archon.config import load, plain
from tests.archon.test_cli_bench import arrange, bench, everything, results
from tests.archon.test_cli_terminal import archon

# --- report ----------------------------------------------------------------------------------------


def test_the_report_is_the_one_that_bench_showed(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    shown = bench(capsys)
    before = everything()
    again = archon(capsys, "report", "run")
    assert (again.code, again.err) == (0, "")
    assert shown.out.startswith(again.out.rstrip()), "and bench adds where it was written"
    assert everything() == before, "reading a run changes nothing"


def test_the_report_as_json_is_results_json(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    said = archon(capsys, "report", "run", "--json")
    assert (said.code, said.err) == (0, "")
    assert said.out == Path("run/results.json").read_text(encoding="utf-8")


def test_a_report_needs_no_store_no_model_and_no_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    shown = archon(capsys, "report", "run")
    for path in Path().iterdir():
        if path.name != "run":
            path.unlink()
    for name in ("run.json", "pipeline.yaml", "curves.csv"):
        (Path("run") / name).unlink()
    assert archon(capsys, "report", "run") == shown


def test_pictures_can_be_drawn_again(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    said = archon(capsys, "report", "run", "--pictures")
    assert said.code == 0
    assert set(said.err.split()) == {str(p) for p in Path("run").glob("*.png")} != set()


def test_two_runs_are_compared_problem_by_problem(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--samples", "1", out="one")
    bench(capsys, "--samples", "3", out="three")
    said = archon(capsys, "report", "one", "--compare", "three")
    assert said.code == 0
    assert "paired over 3 problems" in said.out
    data = json.loads(archon(capsys, "report", "one", "--compare", "three", "--json").out)
    assert (data["a"], data["b"]) == ("one", "three")
    chosen = data["chosen"]
    assert (chosen["problems"], chosen["better"], chosen["worse"], chosen["equal"]) == (3, 2, 0, 1)
    assert chosen["difference"]["value"] == pytest.approx(2 / 3)
    assert data["single_sample"]["difference"]["value"] == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3 - 1 / 3)


def test_comparing_the_other_way_round_turns_the_sign(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--samples", "1", out="one")
    bench(capsys, "--samples", "3", out="three")
    there = json.loads(archon(capsys, "report", "one", "--compare", "three", "--json").out)["chosen"]
    back = json.loads(archon(capsys, "report", "three", "--compare", "one", "--json").out)["chosen"]
    assert there["difference"]["value"] == pytest.approx(-back["difference"]["value"])
    assert there["difference"]["low"] == pytest.approx(-back["difference"]["high"])
    assert there["p_value"] == pytest.approx(back["p_value"])
    assert (there["better"], there["worse"]) == (back["worse"], back["better"])


def test_a_run_compared_with_itself_does_not_differ(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    data = json.loads(archon(capsys, "report", "run", "--compare", "run", "--json").out)
    for part in ("chosen", "single_sample"):
        assert data[part]["difference"] == {"value": 0, "low": 0, "high": 0}
        assert data[part]["p_value"] == 1


def test_problems_of_one_run_only_are_left_out_and_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys, "--limit", "2", out="two")
    bench(capsys, out="three")
    said = archon(capsys, "report", "two", "--compare", "three")
    assert "paired over 2 problems" in said.out
    assert "1 problems are in one run only" in said.out


def test_runs_without_a_problem_in_common_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    Path("six.jsonl").write_text('{"id": "z", "question": "?", "answer": "1"}\n')
    Path("vote.yaml").write_text(
        "models: {default: {backend: scripted, replies: {z: ['1']}}}\npipeline: [sample]\n"
    )
    bench(capsys, out="other")
    said = archon(capsys, "report", "run", "--compare", "other")
    assert (said.code, said.errors) == (2, ["error: the two runs have no problem in common"])


def test_runs_of_different_benchmarks_are_not_compared_silently(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    Path("seven.jsonl").write_text('{"id": "a", "question": "Something else?", "answer": "42"}\n')
    archon(capsys, "bench", "seven.jsonl", "-p", "vote.yaml", "--out", "seven", "--no-pictures", "-q")
    said = archon(capsys, "report", "run", "--compare", "seven")
    assert said.code == 2 or "seven" in said.out.replace("seven against run", "")


def _damage(name: str, text: str | None) -> None:
    path = Path("run") / name
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("results.json", "{", "damaged"),
        ("results.json", "[]", "damaged"),
        ("results.json", "", "damaged"),
        ("results.json", '{"schema": 99}', "newer schema"),
        ("results.json", None, "no finished run"),
        ("problems.jsonl", "not json\n", "damaged"),
        ("problems.jsonl", '{"id": "a", "nonsense": 1}\n', "damaged"),
        ("problems.jsonl", None, "no finished run"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--json",), ("--compare", "run")])
def test_a_damaged_run_is_one_clear_error(
    name: str, text: str | None, says: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    bench(capsys)
    _damage(name, text)
    said = archon(capsys, "report", "run", *more)
    assert (said.code, said.out) == (2, "")
    assert len(said.errors) == len(said.err.splitlines()) == 1
    assert "'run'" in said.err and says in said.err


@pytest.mark.parametrize("words", [("absent",), ("six.jsonl",), ("run", "--compare", "absent")])
def test_what_is_no_run_is_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    said = archon(capsys, "report", *words)
    assert (said.code, said.out) == (2, "")
    assert f"'{words[-1]}'" in said.err and "archon bench --out" in said.err


def test_an_interrupted_run_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    data = {**results(), "interrupted": True}
    _damage("results.json", json.dumps(data))
    said = archon(capsys, "report", "run")
    assert said.code == 0
    assert "interrupted" in said.out


# --- show ------------------------------------------------------------------------------------------

GRAPH = """\
pipeline:
  draft: {sample: {n: 3}}
  check: {verify: {verifier: unit_tests}, after: draft}
  vote: {weighted_vote: {}, after: check}
"""


@pytest.mark.parametrize("name", [*shelf.names(), "graph.yaml"])
@pytest.mark.parametrize("form", ["terminal", "mermaid", "svg", "json", "yaml"])
def test_every_pipeline_has_every_form(form: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH)
    said = archon(capsys, "show", name, "--format", form)
    assert (said.code, said.err) == (0, "")
    graph = (load(name) if name.endswith(".yaml") else shelf.ready(name)).pipeline.graph()
    for path in graph.places:
        assert path in said.out


def test_the_terminal_shows_stages_settings_and_calls(capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH)
    out = archon(capsys, "show", "graph.yaml").out
    assert "draft" in out and "n=3" in out and "[3 calls]" in out
    assert out.rstrip().endswith("3 model calls per problem")
    assert out == archon(capsys, "show", "graph.yaml", "--format", "terminal").out


def test_mermaid_has_a_node_per_stage_and_an_arrow_per_edge(capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH)
    lines = archon(capsys, "show", "graph.yaml", "--format", "mermaid").out.splitlines()
    assert lines[0] == "flowchart LR"
    assert sum("-->" in line for line in lines) == 2
    assert sum("[" in line for line in lines) == 3


def test_svg_is_one_well_formed_picture(capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH.replace("draft", '"<draft> & co"'))
    root = ET.fromstring(archon(capsys, "show", "graph.yaml", "--format", "svg").out)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert any("<draft> & co" in (text or "") for text in root.itertext())


def test_json_says_stages_edges_and_calls(capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH)
    said = archon(capsys, "show", "graph.yaml", "--json")
    assert said.out == archon(capsys, "show", "graph.yaml", "--format", "json").out
    data: dict[str, Any] = json.loads(said.out)
    assert {name: s["after"] for name, s in data["stages"].items()} == {
        "draft": [], "check": ["draft"], "vote": ["check"],
    }  # fmt: skip
    assert data["stages"]["draft"] == {
        "stage": "sample", "settings": {"n": 3}, "after": [], "models": ["default"],
    }  # fmt: skip
    assert data["calls"] == {
        "total": {"low": 3, "high": 3},
        "by_stage": {
            "draft": {"low": 3, "high": 3},
            "check": {"low": 0, "high": 0},
            "vote": {"low": 0, "high": 0},
        },
    }


def test_yaml_is_the_effective_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    Path("graph.yaml").write_text(GRAPH)
    text = archon(capsys, "show", "graph.yaml", "--format", "yaml").out
    assert load(text, "yaml") == load("graph.yaml")
    assert yaml.safe_load(text) == plain(load("graph.yaml"))


@pytest.mark.parametrize("form", ["terminal", "mermaid", "svg", "json", "yaml"])
def test_a_picture_can_go_to_a_file(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = archon(capsys, "show", "best_of_n", "--format", form)
    said = archon(capsys, "show", "best_of_n", "--format", form, "--out", "picture")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert Path("picture").read_text(encoding="utf-8") == shown.out


def test_all_lists_every_ready_pipeline_with_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "show", "--all")
    assert (said.code, said.err) == (0, "")
    assert [line.split()[0] for line in said.out.splitlines()] == shelf.names()
    for line in said.out.splitlines():
        assert " calls " in line and shelf.summary(line.split()[0]) in line


def test_show_needs_a_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "show")
    assert said.code == 2
    assert "--all" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "best_of"), ("'best_of'", "Did you mean 'best_of_n'?")),
        (("show", "absent.yaml"), ("'absent.yaml'", "No such file")),
        (("show", "best_of_n", "--format", "pdf"), ("'pdf'", "mermaid", "svg")),
    ],
)
def test_a_wrong_word_is_named(
    words: tuple[str, ...], says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, *words)
    assert (said.code, said.out) == (2, "")
    for text in says:
        assert text in said.err


@pytest.mark.parametrize("out", ["no/such/folder/picture.svg", "."])
def test_a_file_that_cannot_be_written_is_named(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "show", "best_of_n", "--format", "svg", "--out", out)
    assert said.code in (1, 2)
    assert len(said.errors) == 1
    assert f"'{out}'" in said.err
