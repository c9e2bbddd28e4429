"""`archon import-archon`: what is dead, misspelt or wrong in a configuration is said; models go by addresses, and any
file is a configuration or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.openai import OpenAI
from archon.backends.vllm.config import VLLM
from archon.config import load
from archon.errors import ConfigError, DataError
from archon.stage import Count
from archon.strategies.importing.conversion import PROVIDERS, converted, written
from archon.strategies.importing.original import KINDS, parsed, read_original
from archon.strategies.sample import Sample
from tests.archon.test_cli_terminal import archon
from tests.strategies.originals import flaws, imported, part, wrong

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
