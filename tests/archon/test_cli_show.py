"""`archon show`: the calls of a pipeline, and of all that are ready, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from archon import shelf
from archon.cli import cli
from archon.stage import Count

GRAPH = """\
pipeline:
  a: {sample: {model: a, n: 3}}
  b: {sample: {model: b, n: 2}}
  order: {rank: {model: judge, method: pairwise, keep: 3}, after: [a, b]}
  one: {fuse: {model: a, n: 2}, after: order}
  other: {fuse: {model: b, n: 1}, after: order}
  check: {judge_verify: {model: judge, again: 0}, after: [one, other]}
"""


def show(*words: str) -> str:
    said = CliRunner().invoke(cli, ["show", *words], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    return said.output


def test_json_has_the_calls_of_the_whole_and_of_each_stage() -> None:
    Path("graph.yaml").write_text(GRAPH)
    data: dict[str, Any] = json.loads(show("graph.yaml", "--json"))
    assert data["calls"] == {
        "total": {"low": 14, "high": 22},
        "by_stage": {
            "a": {"low": 3, "high": 3},
            "b": {"low": 2, "high": 2},
            "order": {"low": 4, "high": 8},
            "one": {"low": 2, "high": 2},
            "other": {"low": 1, "high": 1},
            "check": {"low": 2, "high": 6},
        },
    }
    assert data["candidates"]["order"] == {"low": 3, "high": 3}
    assert data["candidates"]["check"] == {"low": 1, "high": 3}
    assert data["stages"]["check"]["after"] == ["one", "other"]


def test_every_ready_pipeline_has_its_calls_in_json() -> None:
    for name in shelf.names():
        calls = json.loads(show(name, "--json"))["calls"]
        graph = shelf.ready(name).pipeline.graph()
        assert calls["total"] == {"low": graph.total.calls.low, "high": graph.total.calls.high}
        assert list(calls["by_stage"]) == list(graph.places)
        assert sum(stage["low"] for stage in calls["by_stage"].values()) == calls["total"]["low"]


def test_all_lists_every_ready_pipeline_with_its_calls_in_columns() -> None:
    lines = show("--all").splitlines()
    names = shelf.names()
    assert [line.split()[0] for line in lines] == names
    column = lines[0].index(" calls  ")
    for name, line in zip(names, lines, strict=True):
        calls = shelf.ready(name).pipeline.plan().calls
        assert line.index(" calls  ") == column and line[len(name) : column].strip() == str(calls)
        assert line[column + len(" calls  ") :] == shelf.summary(name)


def test_all_is_json_too_and_can_go_to_a_file() -> None:
    listed: dict[str, Any] = json.loads(show("--all", "--json"))
    assert list(listed) == shelf.names()
    for name, entry in listed.items():
        calls = Count(entry["calls"]["low"], entry["calls"]["high"])
        assert calls == shelf.ready(name).pipeline.plan().calls
        assert entry["summary"] == shelf.summary(name)
    assert show("--all", "--format", "json", "--out", "all.json") == ""
    assert json.loads(Path("all.json").read_text(encoding="utf-8")) == listed
