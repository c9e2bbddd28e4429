"""Names: what is registered, what is near, and the ready pipelines."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archon import registry, shelf
from archon.config import dump, load
from archon.errors import ArchonError, UnknownName
from archon.pipeline import Pipeline
from archon.stage import Stage
from archon.strategies.sample import Sample
from archon.suggest import hint, nearest
from archon.verifier import Verifier
from tests.archon.test_cli_terminal import archon

ROOT = Path(__file__).resolve().parent.parent.parent
WORDS = st.text("abcdefghij_-", min_size=1, max_size=10)

# --- the nearest name ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("temprature", "temperature"),
        ("TEMPERATURE", "temperature"),
        ("max-tokens", "max_tokens"),
        ("temp", "temperature"),
        ("smaple", "sample"),
        ("xyzzy", None),
        ("", None),
    ],
)
def test_a_near_name_is_found_and_a_far_one_is_not(name: str, expected: str | None) -> None:
    assert nearest(name, ["temperature", "max_tokens", "sample", "verify"]) == expected


@settings(deadline=None, derandomize=True)
@given(names=st.sets(WORDS, min_size=1, max_size=8), wanted=WORDS)
def test_what_is_suggested_is_valid_and_does_not_depend_on_the_order(names: set[str], wanted: str) -> None:
    found = nearest(wanted, sorted(names))
    assert found is None or found in names
    assert found == nearest(wanted, sorted(names, reverse=True))
    said = hint(wanted, names)
    assert said == (f"Did you mean {found!r}?" if found else f"Valid: {', '.join(sorted(names))}.")


@settings(deadline=None, derandomize=True)
@given(names=st.sets(WORDS, min_size=1, max_size=8), data=st.data())
def test_a_valid_name_is_nearest_to_itself(names: set[str], data: st.DataObject) -> None:
    assume(len({n.replace("-", "_") for n in names}) == len(names))
    name = data.draw(st.sampled_from(sorted(names)))
    assert nearest(name, names) == name


@settings(deadline=None, derandomize=True)
@given(name=st.text("abcdefghij", min_size=5, max_size=10), at=st.integers(0, 4), swap=st.booleans())
def test_one_wrong_letter_is_near_enough(name: str, at: int, swap: bool) -> None:
    wrong = name[:at] + "z" + name[at + 1 :] if swap else name[:at] + name[at + 1 :]
    assert nearest(wrong, [name, "unlike_zzzzzzzzzzz"]) == name


def test_where_there_is_nothing_to_suggest_that_is_said() -> None:
    assert hint("x", []) == "There are none."


# --- the registry ----------------------------------------------------------------------------------

KINDS = ("stage", "verifier", "backend", "benchmark", "command", "executor")


@pytest.mark.parametrize("kind", KINDS)
def test_every_declared_name_is_found_and_the_names_are_sorted(kind: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = registry.names(kind)
    assert names == sorted(set(names))
    assert set(project["entry-points"][f"archon.{kind}s"]) <= set(names)
    for name in names:
        assert registry.find(kind, name) is registry.find(kind, name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_an_error_with_its_kind(kind: str) -> None:
    with pytest.raises(UnknownName, match=f"there is no {kind} named 'qqqqq'. Valid: "):
        registry.find(kind, "qqqqq")


def test_a_kind_of_which_there_is_nothing_says_so() -> None:
    assert registry.names("nonsense") == []
    with pytest.raises(UnknownName, match="There are none"):
        registry.find("nonsense", "x")


class Shortest(Stage):
    """A stage of a notebook."""

    async def run(self, problem: Any, candidates: Any, run: Any) -> Any:
        async for candidate in candidates:
            yield candidate


def test_what_is_added_from_python_can_be_named_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})
    pipeline = Sample(n=2) | Shortest()
    with pytest.raises(UnknownName, match=r"registry\.add\('stage', 'shortest', Shortest\)"):
        dump(pipeline)
    registry.add("stage", "shortest", Shortest)
    assert "shortest" in registry.names("stage")
    assert load(dump(pipeline), "yaml").pipeline == pipeline
    assert registry.name_of("stage", Shortest) == "shortest"


def test_what_is_added_replaces_what_had_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})
    registry.add("stage", "sample", Shortest)
    assert registry.find("stage", "sample") is Shortest
    assert registry.names("stage").count("sample") == 1
    with pytest.raises(UnknownName, match="Sample is not registered"):
        registry.name_of("stage", Sample)


def test_a_package_that_cannot_be_imported_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_package_at_all:Broken", "archon.stages")
    monkeypatch.setattr(registry, "_entries", lambda kind: {"broken": broken})
    with pytest.raises(ArchonError, match=r"stage 'broken' .*no_such_package_at_all.*cannot be imported"):
        registry.find("stage", "broken")


def test_a_package_without_the_class_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "archon.strategies.sample:Smaple", "archon.stages")
    monkeypatch.setattr(registry, "_entries", lambda kind: {"broken": broken})
    with pytest.raises(ArchonError, match="stage 'broken'"):
        registry.find("stage", "broken")


# --- the ready pipelines ---------------------------------------------------------------------------

FILES = sorted((ROOT / "strategies" / "pipelines").glob("*.yaml"))


def test_every_file_is_a_ready_pipeline() -> None:
    assert FILES
    assert shelf.names() == sorted(shelf.names())
    assert {file.stem for file in FILES} <= set(shelf.names())


@pytest.mark.parametrize("name", shelf.names())
def test_a_ready_pipeline_makes_sense_and_says_what_it_is(name: str) -> None:
    config = shelf.ready(name)
    graph = config.pipeline.graph()
    assert "default" in graph.models, "the name that --model gives"
    assert not config.models, "nobody's server is built in"
    assert load(dump(config), "yaml") == config
    assert shelf.ready(name) == config
    assert len(shelf.summary(name)) > 20
    assert not shelf.summary(name).startswith("#")


def test_an_unknown_ready_pipeline_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no ready pipeline named 'best_of'\. Did you mean 'best_of_n'?"):
        shelf.ready("best_of")


def test_a_file_of_that_name_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("best_of_n").write_text("- sample: {n: 3}\n")
    said = archon(capsys, "show", "best_of_n", "--json")
    assert json.loads(said.out)["calls"]["total"] == {"low": 3, "high": 3}
    Path("best_of_n").unlink()
    Path("best_of_n").mkdir()
    said = archon(capsys, "show", "best_of_n", "--json")
    assert "verify" in json.loads(said.out)["stages"]


def test_only_registered_verifiers_can_stand_in_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Verifier):
        """A verifier of a notebook."""

        async def verify(self, problem: Any, candidates: Any, run: Any) -> Any:
            return []

    from archon.strategies.verify import Verify

    monkeypatch.setattr(registry, "_added", {})
    pipeline = Pipeline([Verify(verifier=Mine())])
    with pytest.raises(UnknownName, match="Mine is not registered as a verifier"):
        dump(pipeline)
    registry.add("verifier", "mine", Mine)
    assert "verifier: mine" in dump(pipeline)
    assert Verify.model_validate({"verifier": "mine"}) == pipeline.nodes[0].stage
