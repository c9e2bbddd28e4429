"""`archon import-archon`: the original's configurations as ours, with the calls of the paper's table."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.scripted import Scripted
from archon.config import load, plain
from archon.stage import Count
from archon.strategies.critique import Critique
from archon.strategies.fuse import Fuse
from archon.strategies.importing.conversion import converted, written
from archon.strategies.importing.original import KINDS, parsed, read_original
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.write_tests import WriteTests
from tests.archon.test_cli_terminal import archon
from tests.conftest import DATA
from tests.strategies.originals import SAID, imported, least, part, table, wrong
from tests.strategies.playing import played

CONFIGS = sorted((DATA / "archon_configs").rglob("*.json"))
RANK_ONE = (
    "archon-1-WizardLMRanker1-WizardLMCritic-1-WizardLMFuser2Br-1-WizardLMRanker5-1-WizardLMCritic-8-70BM3S"
)
"""Its last ranker gets the one answer of a fuser, and has nothing to ask."""


def layers_of(path: Path) -> list[Any]:
    layers: list[Any] = json.loads(path.read_text())["layers"]
    return layers


# --- the configurations that the original ships ----------------------------------------------------


@pytest.mark.data
def test_the_shipped_configurations_are_there_and_hold_every_kind_of_component() -> None:
    assert len(CONFIGS) == 103
    text = "".join(path.read_text() for path in CONFIGS)
    assert all(f'"{kind}"' in text for kind in KINDS)


@pytest.mark.data
def test_the_paper_counts_one_call_more_only_where_a_ranker_gets_a_single_candidate() -> None:
    assert [path.stem for path in CONFIGS if table(layers_of(path)) != table(layers_of(path), of_one=1)] == [
        RANK_ONE
    ]


@pytest.mark.data
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_becomes_a_file_of_ours_with_the_calls_of_the_paper_s_table(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, "import-archon", path, "--out", "ours.yaml")
    assert said.code == 0 and said.out == ""
    assert archon(capsys, "validate", "ours.yaml").code == 0
    config = load("ours.yaml")
    assert config == converted(read_original(path)).config, "what was written is what was made"
    calls = json.loads(archon(capsys, "show", "ours.yaml", "--json").out)["calls"]["total"]
    assert calls == {"low": least(layers_of(path)), "high": table(layers_of(path))}
    assert plain(config)["models"] and set(config.pipeline.graph().models) == set(config.models)


@pytest.mark.data
@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if "100" not in path.stem.partition("then")[0]],
    ids=lambda path: path.stem,
)
def test_each_runs_with_as_many_calls_where_no_verdict_ends_it_early(path: Path) -> None:
    numbers = itertools.count()
    model = Scripted(reply=lambda call: f"1. {next(numbers)} holds.\n2. It ends.", identity="any")
    ours = converted(read_original(path)).config
    outcome = played(ours.pipeline, dict.fromkeys(ours.models, model))
    assert outcome.usage.requests == table(layers_of(path)) == next(numbers)
    assert outcome.chosen is not None


@pytest.mark.data
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_temperatures_limits_and_samples_are_those_of_the_original(path: Path) -> None:
    theirs = sorted(
        (p["model"].removeprefix("bedrock/"), p["temperature"], p["max_tokens"])
        for layer in json.loads(path.read_text())["layers"]
        for p in (layer if isinstance(layer, list) else layer.get("models", [layer]))
    )
    config = converted(read_original(path)).config
    ours: list[tuple[str, float, int]] = []
    for stage in config.pipeline.graph().stages:
        model: Any = config.models[stage.models[0]]
        fields: Any = stage
        ours.append((model.model, fields.temperature, fields.max_tokens))
    assert sorted(ours) == theirs


# --- layers ----------------------------------------------------------------------------------------


def test_layers_of_one_are_a_chain_and_components_side_by_side_come_after_the_whole_layer_before() -> None:
    chain = imported(
        [part("generator", samples=5)], [part("critic")], [part("ranker", top_k=3)], [part("fuser")]
    )
    ours: dict[str, Any] = {"model": "m", **SAID}
    asks = {**ours, "again": 0}
    assert chain.config.pipeline == (
        Sample(n=5, **ours) | Critique(**asks) | Rank(keep=3, window=None, **asks) | Fuse(**ours)
    )
    assert isinstance(plain(chain.config)["pipeline"], list)
    wide = imported(
        [part("generator", "a"), part("generator", "b")], [part("fuser", "a"), part("fuser", "b")]
    )
    assert {n.name: n.after for n in wide.config.pipeline.nodes} == {
        "sample": (),
        "sample-2": (),
        "fuse": ("sample", "sample-2"),
        "fuse-2": ("sample", "sample-2"),
    }


def test_verifiers_and_evaluators_keep_what_the_original_keeps() -> None:
    def last(*layers: Any) -> Any:
        return imported([part("generator", samples=4)], *layers).config.pipeline.nodes[-1].stage

    asks: dict[str, Any] = {"model": "m", "again": 0, **SAID}
    tests = [part("unit_test_generator", unit_test_cap=7)]
    assert last([part("verifier")]) == JudgeVerify(**asks)
    assert last([part("verifier", first_k=2)]) == JudgeVerify(first=2, **asks)
    for given_keys, keeps in (
        ({}, {"keep": "all"}),
        ({"top_k": 2}, {"keep": 2}),
        ({"first_pass": True}, {"first": 1}),
        ({"first_pass": False}, {"keep": "all"}),
        ({"first_k": 2, "first_pass": True}, {"first": 2}),
        ({"first_pass": True, "top_k": 1}, {"first": 1, "keep": 1}),
        ({"first_k": 3, "top_k": 1}, {"first": 3, "keep": 3}),
    ):
        evaluator = [part("unit_test_evaluator", remove_unit_tests_from_prompt=True, **given_keys)]
        assert last(tests, evaluator) == TestEvaluate(execute=False, **keeps, **asks), given_keys
    writer = (
        imported([part("generator")], tests, [part("unit_test_evaluator")]).config.pipeline.nodes[1].stage
    )
    assert writer == WriteTests(n=7, written_as="statements", **asks)


def test_tests_that_come_first_are_in_view_of_everything_up_to_the_evaluator() -> None:
    tests, answers = [part("unit_test_generator", unit_test_cap=3)], [part("generator", samples=2)]
    whole = imported(tests, answers, [part("critic")], [part("fuser")]).config.pipeline
    (node,) = whole.nodes
    assert isinstance(node.stage, TestFirst) and node.stage.n == 3
    assert [n.name for n in node.stage.solver.nodes] == ["sample", "critique", "fuse"]
    assert whole.plan().calls == Count(1 + 2 + 1 + 1, 5)
    cut = imported(tests, answers, [part("unit_test_evaluator")], [part("fuser")])
    assert [n.name for n in cut.config.pipeline.nodes] == ["test_first", "test_evaluate", "fuse"]
    assert any("layers[3][0]: from here on" in note for note in cut.notes)


def test_older_forms_of_a_layer_are_read_as_what_they_were() -> None:
    component = part("generator")
    usual, models, bare = (imported(layer) for layer in ([component], {"models": [component]}, component))
    assert usual.config == models.config == bare.config
    assert usual.notes == models.notes == ()
    assert bare.notes == ("layers[0]: a component without its list; read as a layer of one",)


def test_a_fuser_that_comes_first_answers_by_itself() -> None:
    ours = imported([part("generator", "a"), part("fuser", "b", samples=2)], [part("fuser", "a")])
    assert [n.stage.name for n in ours.config.pipeline.nodes if isinstance(n.stage, Sample)] == ["sample"] * 2
    assert ours.config.pipeline.plan().calls == Count(4, 4)
    assert ours.notes == ("layers[0][1]: a fuser in the first layer has nothing to fuse; it answers itself",)


def test_where_a_rule_of_the_paper_is_broken_it_is_relaxed_there_and_said() -> None:
    ours = imported([part("generator")], [part("critic")], [part("verifier")])
    strict = {n.name: getattr(n.stage, "strict", None) for n in ours.config.pipeline.nodes}
    assert strict == {"sample": None, "critique": False, "judge_verify": True}
    (note,) = ours.notes
    assert note.startswith("layers[1][0]: breaks Archon's rule 'a critic before a ranker or fuser'")
    inside = imported([part("unit_test_generator", unit_test_cap=1)], [part("generator")], [part("critic")])
    inside.config.pipeline.graph()
    assert inside.notes[0].startswith("layers[2][0]: breaks")


def test_asking_again_can_be_allowed_for() -> None:
    layers = [[part("generator", samples=2)], [part("critic")], [part("ranker", top_k=1)]]
    assert imported(*layers).config.pipeline.plan().calls == Count(4, 4)
    assert imported(*layers, again=2).config.pipeline.plan().calls == Count(4, 8)


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (
            [[part("ranker")]],
            "layers[0][0]: a ranker needs candidates, and stands first. Put a generator before it",
        ),
        (
            [[part("generator")], [part("generator")]],
            "layers[1][0]: a layer of generators sees nothing of what comes before it, which would be lost. "
            "Put the generators into the first layer",
        ),
        (
            [[part("generator")], [part("critic"), part("ranker")]],
            "layers[1][1]: a ranker stands beside a critic. Put it in a layer of its own",
        ),
        (
            [[part("generator")], [part("critic"), part("critic")]],
            "layers[1][1]: a critic stands beside another. Put it in a layer of its own",
        ),
        (
            [[part("generator")], [part("critic"), part("fuser")]],
            "layers[1][1]: a fuser stands beside a critic. Put the critic in a layer of its own",
        ),
        (
            [[part("generator")], [part("unit_test_evaluator")]],
            "layers[1][0]: no unit test generator comes before it. Put one before it",
        ),
        (
            [[part("unit_test_generator", unit_test_cap=1)]],
            "layers[0][0]: it writes tests, and nothing answers the question. Put a generator after it",
        ),
        (
            [[part("unit_test_generator", unit_test_cap=1)], [part("unit_test_evaluator")]],
            "layers[0][0]: it writes tests, and nothing answers the question. Put a generator after it",
        ),
    ],
)
def test_layers_that_make_no_pipeline_are_refused_with_their_place(layers: list[Any], says: str) -> None:
    assert wrong(*layers) == says


# --- any stack -------------------------------------------------------------------------------------

_NUMBER = st.integers(1, 4)
_WRITERS = st.lists(
    st.builds(lambda n, m: part("fuser", m, samples=n), _NUMBER, st.sampled_from("ab")),
    min_size=1,
    max_size=3,
)
_LATER = st.one_of(
    st.tuples(_WRITERS),
    st.tuples(st.just([part("critic")])),
    st.builds(lambda k: ([part("ranker", top_k=k)],), _NUMBER),
    st.builds(lambda k: ([part("verifier", first_k=k)],), st.none() | _NUMBER),
    st.builds(
        lambda k, first: (
            [part("unit_test_generator", unit_test_cap=2)],
            [part("unit_test_evaluator", top_k=k, first_k=first)],
        ),
        st.none() | _NUMBER,
        st.none() | _NUMBER,
    ),
)
_STACK = st.builds(
    lambda n, first, later: [
        *([[part("unit_test_generator", unit_test_cap=1)]] * first),
        [part("generator", samples=n)],
        *itertools.chain(*later),
    ],
    _NUMBER,
    st.booleans(),
    st.lists(_LATER, max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(_STACK)
def test_any_stack_has_the_calls_of_the_paper_s_table(layers: list[Any]) -> None:
    ours = imported(*layers)
    calls = ours.config.pipeline.plan().calls
    assert calls == Count(least(layers), table(layers))
    said = any("ranks one candidate" in note for note in ours.notes)
    assert said == (table(layers) < table(layers, of_one=1))
    assert load(written(parsed(json.dumps({"layers": layers})), ours), "yaml") == ours.config
