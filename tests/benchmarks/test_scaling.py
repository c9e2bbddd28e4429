"""Scaling curves: a study over the lab, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from archon.benchmarks.results import Results
from archon.benchmarks.scaling import SAMPLED, SEARCHED, VOTE, main, rates, sized
from archon.errors import UserError
from archon.graph import Graph
from archon.usage import Usage

METHODS = "best_of_n,self_consistency,beam_search,beam_search+vote,beam_search+certainty"


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 128])
def test_every_searched_method_has_every_size(name: str, n: int) -> None:
    graph = sized(name, n).graph()
    assert isinstance(graph, Graph)
    assert [getattr(s, "n", None) for s in graph.stages if not s.takes] == [n]


@pytest.mark.parametrize("name", SEARCHED)
def test_a_search_can_go_without_its_reward_model(name: str) -> None:
    with_it, without = sized(name, 4).graph(), sized(f"{name}+certainty", 4).graph()
    assert "reward" in with_it.models and "reward" not in without.models
    assert sized(f"{name}+certainty+vote", 4) == sized(f"{name}+certainty", 4)
    with pytest.raises(UserError, match="no reward model"):
        sized("self_consistency+certainty", 4)


def test_a_method_can_have_fewer_budgets(tmp_path: Path) -> None:
    arguments = [
        "--level", "2", "--problems", "2", "--budgets", "1,2", "--out", str(tmp_path),
        "--methods", "best_of_n,beam_search@1,beam_search+vote@1",
    ]  # fmt: skip
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    line = json.loads(found.stdout.splitlines()[-1])["arith"]
    assert {name: curve["budget"] for name, curve in line.items()} == {
        "best_of_n": [1, 2],
        "beam_search": [1],
        "beam_search+vote": [1],
    }
    for wrong in ("beam_search@0", "beam_search@", "beam_search@x"):
        refused = CliRunner().invoke(main, [*arguments[:-1], wrong])
        assert refused.exit_code == 1 and f"{wrong!r}: after @" in refused.output


def test_what_has_no_single_source_cannot_be_sized() -> None:
    with pytest.raises(UserError, match="0 sources"):
        sized("atom_of_thoughts", 2)


def test_a_study_runs_is_read_and_is_not_run_again(tmp_path: Path) -> None:
    arguments = [
        "--level", "2,4", "--problems", "2", "--budgets", "1,2,4", "--methods", METHODS, "--out", str(tmp_path)
    ]  # fmt: skip
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    line = json.loads(found.stdout.splitlines()[-1])
    assert [*line] == ["arith"] and [*line["arith"]] == METHODS.split(",")
    for curve in line["arith"].values():
        assert curve["budget"] == [1, 2, 4] and curve["problems"] == 4
        assert all(
            low <= a <= high
            for a, low, high in zip(curve["accuracy"], curve["low"], curve["high"], strict=True)
        )
        assert curve["tokens"] == sorted(curve["tokens"])
    run = Results.read(tmp_path / "arith" / "beam_search" / "4")
    used = [Usage.from_json(record.usage) for record in run.records]
    tokens = line["arith"]["beam_search"]["tokens"][2]
    assert tokens == pytest.approx(sum(u.tokens - u.cached_tokens for u in used) / 4)
    assert "reward" in run.data["by_model"], "what the reward model reads counts"
    pool = Results.read(tmp_path / "arith" / "reward_best_of_n" / "4")
    both = [
        Usage.from_json(record.by_model[name]) for record in pool.records for name in ("default", "reward")
    ]
    question = sum(u.prompt_tokens - u.cached_tokens for u in both[::2]) / 4
    assert question > 10
    written, read = (
        sum(u.tokens - u.cached_tokens for u in some) / 4 - question for some in (both[::2], both[1::2])
    )
    judged = [2 * question + (written + read) * k / 4 for k in (1, 2, 4)]
    assert line["arith"]["best_of_n"]["tokens"] == pytest.approx(judged), (
        "both compute the question, and once"
    )
    plain = [question + written * k / 4 for k in (1, 2, 4)]
    assert line["arith"]["self_consistency"]["tokens"] == pytest.approx(plain), "a vote is judged by nobody"
    assert {*json.loads((tmp_path / "scaling.json").read_text())} == {"arith", "rates"}
    assert (tmp_path / "scaling_arith.png").exists()

    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0 and json.loads(again.stdout.splitlines()[-1]) == line
    assert "n = " not in again.stderr, "nothing is run again"
    everything = CliRunner().invoke(main, [*arguments, "--count", "all"])
    counted = json.loads(everything.stdout.splitlines()[-1])["arith"]["beam_search"]
    assert counted["tokens"][2] == pytest.approx(sum(u.tokens for u in used) / 4)
    assert counted["tokens"][2] > tokens
    assert counted["accuracy"] == line["arith"]["beam_search"]["accuracy"]


def test_a_method_that_does_not_exist_is_refused_before_anything_runs(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["--methods", "beam_serch", "--out", str(tmp_path / "new")])
    assert found.exit_code == 1 and "beam_search" in found.output
    assert not (tmp_path / "new").exists()


def test_names_tell_how_the_answer_is_chosen() -> None:
    assert {*SAMPLED} & {*SEARCHED} == set() and VOTE.startswith("+")
    assert rates({}) == {}
