"""`archon import-archon`: the original's configurations as ours, with the calls of the paper's table; what is dead,
misspelt or wrong in them is said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.openai import OpenAI
from archon.backends.scripted import Scripted
from archon.backends.vllm.config import VLLM
from archon.config import load, plain
from archon.errors import ConfigError, DataError
from archon.stage import Count
from archon.strategies.critique import Critique
from archon.strategies.fuse import Fuse
from archon.strategies.importing.conversion import PROVIDERS, Imported, converted, written
from archon.strategies.importing.original import KINDS, parsed, read_original
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.write_tests import WriteTests
from tests.archon.test_cli_terminal import archon
from tests.conftest import DATA
from tests.strategies.playing import played

CONFIGS = sorted((DATA / "archon_configs").rglob("*.json"))
SAID = {"temperature": 0.7, "max_tokens": 2048}
RANK_ONE = (
    "archon-1-WizardLMRanker1-WizardLMCritic-1-WizardLMFuser2Br-1-WizardLMRanker5-1-WizardLMCritic-8-70BM3S"
)
"""Its last ranker gets the one answer of a fuser, and has nothing to ask."""


def part(kind: str, model: str = "m", **more: Any) -> dict[str, Any]:
    return {"type": kind, "model": model, "model_type": "OpenAI_API", "samples": 1, **SAID, **more}


def imported(*layers: Any, again: int = 0, **top: Any) -> Imported:
    return converted(parsed(json.dumps({"name": "x", "layers": layers, **top})), again)


def flaws(text: str | Mapping[str, Any], name: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        converted(parsed(text if isinstance(text, str) else json.dumps(text), name), name=name)
    return [str(flaw) for flaw in caught.value.flaws]


def wrong(*layers: Any, **top: Any) -> str:
    """The only thing that is wrong with these layers."""
    (said,) = flaws({"layers": layers, **top})
    return said


def table(layers: list[Any], of_one: int = 0) -> int:
    """The paper's table 3 on a configuration as it stands: calls of each component, by the candidates before it.

    A verifier or evaluator is asked about as many as may reach it. A ranker that only one can reach makes a call in
    the paper (`of_one` is 1), and none here.
    """
    calls = candidates = 0
    for kind, parts in components(layers):
        if kind in ("generator", "fuser"):
            candidates = sum(p.get("samples") or 1 for p in parts)
            calls += candidates
        elif kind == "verifier":
            calls += 2 * candidates
        elif kind == "unit_test_evaluator":
            calls += candidates
        else:
            calls += of_one if kind == "ranker" and candidates == 1 else 1
        candidates = min(candidates, kept(parts[0]) or candidates)
    return calls


def least(layers: list[Any]) -> int:
    """The same where as few as can be reach each component, and what wants the first k finds them at once."""
    calls = candidates = 0
    for kind, parts in components(layers):
        first = parts[0].get("first_k") or (1 if parts[0].get("first_pass") else None)
        tried = min(candidates, first or candidates)
        if kind in ("generator", "fuser"):
            candidates = sum(p.get("samples") or 1 for p in parts)
            calls += candidates
        elif kind == "verifier":
            calls += 2 * tried
            candidates = 1
        elif kind == "unit_test_evaluator":
            calls += tried
            candidates = tried if kept(parts[0]) or first is None else 1
        elif kind != "ranker" or candidates > 1:
            calls += 1
        candidates = min(candidates, kept(parts[0]) or candidates)
    return calls


def components(layers: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for layer in layers:
        parts = layer if isinstance(layer, list) else layer.get("models", [layer])
        yield parts[0]["type"], parts


def kept(component: Mapping[str, Any]) -> int:
    """How many a component keeps; 0 is all."""
    ranks = component["type"] in ("ranker", "unit_test_evaluator") and component.get("top_k")
    return max(component["top_k"], component.get("first_k") or 0) if ranks else 0


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


# --- keys ------------------------------------------------------------------------------------------


def test_a_misspelt_key_is_left_out_and_the_one_that_is_meant_is_named() -> None:
    ours = imported([part("generator")], [part("fuser", length_contorl=True)], [part("fuser", sampels=3)])
    assert ours.config.pipeline.plan().calls == Count(3, 3)
    first, second = ours.notes
    assert first.startswith("layers[1][0]: `length_contorl`") and first.endswith("`length_control` is meant")
    assert second.startswith("layers[2][0]: `sampels`") and second.endswith("`samples` is meant")
    (flaw,) = flaws({"layers": [[{**part("generator"), "modle": "m", "model": None}]]})
    assert flaw == "layers[0][0].model: it is missing. Is 'modle' meant to be it?"
    assert flaws({"layrs": []}) == ["layers: it is missing. Is 'layrs' meant to be it?"]
    assert (
        wrong([part("generatr")])
        == "layers[0][0].type: there is no component 'generatr'. Did you mean 'generator'?"
    )


@pytest.mark.parametrize(
    ("kind", "key", "says"),
    [
        ("generator", "top_k", "a generator does not go by it"),
        ("fuser", "checkpoint", "it never had an effect"),
        ("verifier", "batch_num", "it never had an effect"),
        ("ranker", "ranker_batch_size", "only PairRM went by it"),
        ("ranker", "use_critiques", "critiques are shown to a ranker wherever there are some"),
        ("critic", "length_control", "a critic does not go by it"),
    ],
)
def test_a_key_without_effect_is_noted_as_such(kind: str, key: str, says: str) -> None:
    layers = [
        [part("generator", samples=2)],
        [part("critic")],
        [part(kind, **{key: "a secret"})],
        [part("fuser")],
    ]
    if kind == "generator":
        layers = [[part(kind, samples=2, **{key: "a secret"})]]
    ours = imported(*layers)
    assert [n for n in ours.notes if f"`{key}`" in n] == [
        f"layers[{2 * (kind != 'generator')}][0]: `{key}` is left out: {says}"
    ]
    assert "secret" not in written(parsed(json.dumps({"layers": layers})), ours)


def test_notes_that_say_the_same_are_one() -> None:
    (note,) = imported([part("generator", str(i), top_k=1) for i in range(3)]).notes
    assert note == "layers[0][0] and 2 more: `top_k` is left out: a generator does not go by it"


def test_length_control_is_said_to_be_left_out_and_whether_that_matters() -> None:
    fuser = part("fuser", length_control=True)
    without = imported([part("generator")], [fuser]).notes
    with_some = imported([part("generator")], [part("critic")], [fuser]).notes
    assert without[0].endswith("without critiques it has no effect")
    assert with_some[0].endswith("say it in the `prompt` of `fuse`")
    assert imported([part("generator")], [part("fuser", length_control=False)]).notes == ()


def test_what_is_carried_over_otherwise_than_it_was_is_said() -> None:
    notes = imported(
        [part("generator", no_system=True)],
        [part("unit_test_generator", samples=4)],
        [part("unit_test_evaluator", remove_unit_tests_from_prompt=False)],
        name="x",
        note="?",
    ).notes
    for said in (
        "`note` is no key",
        "`no_system` is left out",
        "answers once",
        "no `unit_test_cap`",
        "without them",
    ):
        assert sum(said in note for note in notes) == 1, said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("samples", 0),
        ("samples", "5"),
        ("samples", True),
        ("samples", 1.5),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("max_tokens", 0),
        ("model", ""),
        ("model", 5),
        ("model", "a\nb"),
        ("model", "\ud800"),
        ("model_type", ["OpenAI_API"]),
        ("no_system", "yes"),
        ("type", ["generator"]),
    ],
)
def test_a_value_that_cannot_be_meant_is_an_error_with_its_place(key: str, value: Any) -> None:
    assert wrong([part("generator", **{key: value})]).startswith(f"layers[0][0].{key}: ")


@pytest.mark.parametrize("key", ["model", "model_type", "type"])
def test_what_must_be_there_is_named(key: str) -> None:
    component = part("generator")
    del component[key]
    assert wrong([component]) == f"layers[0][0].{key}: it is missing"


def test_everything_that_is_wrong_is_said_at_once() -> None:
    said = flaws(
        {"layers": [[part("generator", samples=0), part("generator", temperature=-1)], [], "x", [7]]},
        "a.json",
    )
    assert [flaw.partition(": ")[2].split(": ")[0] for flaw in said] == [
        "layers[0][0].samples", "layers[0][1].temperature", "layers[1]", "layers[2]", "layers[3][0]",
    ]  # fmt: skip
    assert all(flaw.startswith("a.json: ") for flaw in said)


def test_components_of_one_s_own_have_no_counterpart_and_that_is_said() -> None:
    said = wrong([part("my_component")], custom=True)
    assert said.startswith(
        "layers[0][0].type: there is no component 'my_component'. A component of one's own"
    )
    assert wrong([part("generator", model_type="Together")]) == (
        "layers[0][0].model_type: there is no provider 'Together'. Did you mean 'Together_API'?"
    )


# --- models ----------------------------------------------------------------------------------------


def test_models_go_by_addresses_and_names_of_keys_and_each_is_named_once() -> None:
    ours = imported(
        [
            part("generator", "org/llama", model_type="Together_API"),
            part("generator", "llama"),
            part("generator", "other/llama"),
            part("generator", "org/llama", model_type="Together_API", temperature=1.0),
            part("generator", "bedrock/meta.llama", model_type="Bedrock_API"),
            part("generator", "https://host.example/v1", model_type="tgi"),
            part("generator", "facebook/opt-125m", model_type="vLLM"),
        ]
    )
    models = dict(ours.config.models)
    assert models == {
        "llama": OpenAI(
            model="org/llama", base_url="https://api.together.xyz/v1", api_key_env="TOGETHER_API_KEY"
        ),
        "llama@OpenAI_API": OpenAI(model="llama"),
        "other/llama@OpenAI_API": OpenAI(model="other/llama"),
        "meta.llama": OpenAI(
            model="meta.llama",
            base_url="https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
            api_key_env="AWS_BEARER_TOKEN_BEDROCK",
        ),
        "v1": OpenAI(model="tgi", base_url="https://host.example/v1"),
        "opt-125m": VLLM(model="facebook/opt-125m"),
    }
    samples = [n.stage for n in ours.config.pipeline.nodes]
    assert [s.models for s in samples if isinstance(s, Sample)][3] == ("llama",)


def test_every_provider_of_the_original_has_its_own_key_or_needs_none() -> None:
    keys = [p.fields["api_key_env"] for p in PROVIDERS.values() if "api_key_env" in p.fields]
    assert len(set(keys)) == len(keys) and "OPENAI_API_KEY" not in keys
    for name, provider in PROVIDERS.items():
        model = "http://localhost:80/v1" if name == "tgi" else "m"
        (entry,) = imported([part("generator", model, model_type=name)]).config.models.values()
        assert entry.name == provider.backend


def test_an_address_with_a_password_is_refused_and_not_shown() -> None:
    said = wrong([part("generator", "https://user:hunter2@host/v1", model_type="tgi")])
    assert said.startswith("layers[0][0].base_url: a password does not belong in an address")
    assert "hunter2" not in said


def test_a_ranker_that_is_no_chat_model_is_said_to_need_another() -> None:
    ranker = {**part("ranker", "llm-blender/PairRM", top_k=2), "model_type": ""}
    ours = imported([part("generator", samples=3)], [ranker])
    assert isinstance(ours.config.models["PairRM"], OpenAI)
    assert any("takes no prompt; name a chat model" in note for note in ours.notes)


# --- files and the command -------------------------------------------------------------------------


def write(text: str | Mapping[str, Any], name: str = "theirs.json") -> Path:
    path = Path(name)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_the_command_writes_yaml_with_the_notes_and_says_them(capsys: pytest.CaptureFixture[str]) -> None:
    path = write({"name": "a\nb: \u2028c", "layers": [[part("generator", top_k=1, samples=3)]]})
    said = archon(capsys, "import-archon", path)
    note = "layers[0][0]: `top_k` is left out: a generator does not go by it"
    assert (said.code, said.err) == (0, f"note: {note}\n")
    comments = [line for line in said.out.splitlines() if line.startswith("#")]
    assert comments == [
        "# a b:  c of the original Archon (Saad-Falcon et al. 2024), imported.",
        "# Calls: 3.",
        f"# Note: {note}.",
    ]
    assert load(said.out, "yaml") == converted(read_original(path)).config
    again = archon(capsys, "import-archon", path, "--out", "ours.yaml", "--again", "1")
    assert (again.code, again.out) == (0, "")
    assert again.err.splitlines()[-1] == "ours.yaml: 3 model calls per problem"
    assert Path("ours.yaml").read_text(encoding="utf-8") == said.out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "theirs.json:1: not valid JSON"),
        ('{"layers": [\n  [}', "theirs.json:2: not valid JSON"),
        ("[" * 100_000, "theirs.json: nested too deeply"),
        ('{"layers": ' + "9" * 10_000 + "}", "theirs.json: not valid JSON"),
        ("[1]", "theirs.json: expected an object with `layers`"),
        ('{"layers": []}', "theirs.json: layers: expected a list of layers"),
        ('{"name": "x"}', "theirs.json: layers: it is missing"),
    ],
)
def test_a_file_that_is_none_ends_with_code_2_and_the_reason(
    text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, "import-archon", write(text), "--out", "ours.yaml")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"error: {says}") and said.err.count("\n") == 1
    assert not Path("ours.yaml").exists()


def test_a_file_that_is_not_there_not_text_or_cannot_be_written_is_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert archon(capsys, "import-archon", "none.json").code == 2
    Path("latin.json").write_bytes(b'{"name": "\xff"}')
    assert "is not UTF-8" in archon(capsys, "import-archon", "latin.json").err
    path = write({"layers": [[part("generator")]]})
    said = archon(capsys, "import-archon", path, "--out", "no/such/folder.yaml")
    assert said.code == 2 and "cannot write 'no/such/folder.yaml'" in said.err
    with pytest.raises(DataError):
        read_original(Path("none.json"))


def test_a_key_that_is_given_twice_is_said_and_the_last_counts() -> None:
    text = json.dumps({"layers": [[part("generator")]]}).replace('"samples": 1', '"samples": 1, "samples": 4')
    original = parsed(text)
    assert original.notes == ("file: the key 'samples' is given twice in one place; the last counts",)
    assert original.layers[0][0].samples == 4


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


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats()
    | st.sampled_from([*KINDS, "m", "\ud800", "\u2028"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "model", "model_type", "samples", "top_k", "models", "layers", "x", "\n"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)
_PART = st.builds(
    lambda kind, odd: {**part(kind, unit_test_cap=2), **odd},
    st.sampled_from(KINDS),
    st.dictionaries(
        st.sampled_from(["samples", "top_k", "first_k", "model", "modle", "temperature"]), _JSON, max_size=1
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(_JSON, st.fixed_dictionaries({"layers": st.lists(st.lists(_PART, max_size=3), max_size=4)})))
def test_any_json_is_a_pipeline_of_ours_or_a_config_error(data: Any) -> None:
    try:
        original = parsed(json.dumps(data))
        ours = converted(original)
    except ConfigError as error:
        assert error.flaws
        return
    text = written(original, ours)
    assert load(text, "yaml") == ours.config
