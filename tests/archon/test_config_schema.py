"""The JSON Schema that editors use: it takes what is valid, and no misspelt key."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from archon import registry, shelf
from archon.budget import Budget, Budgets
from archon.component import Value
from archon.config import Config, load, plain
from archon.config.schema import config_schema
from archon.errors import ConfigError
from tests.archon.test_cli_terminal import archon
from tests.archon.test_config_roundtrip import QUICK, configs

jsonschema: Any = pytest.importorskip("jsonschema")
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PASSED_ON = {"extra", "headers", "replies", "options", "environment", "vllm"}
"""Settings with keys that are not ours: a request's or a server's fields, its options, its environment."""


def as_json(config: Config) -> Any:
    """The configuration as an editor sees it."""
    return json.loads(json.dumps(plain(config)))


def settings_of(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of every mapping whose keys are settings, not names of one's own or another program's."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from settings_of(item, (*path, index))
    if not isinstance(data, dict):
        return
    if path and path[-1] in PASSED_ON:
        return
    own_names = path[-1:] == ("models",) or (path[-1:] == ("pipeline",) and "pipeline" not in data)
    if not own_names:
        yield path
    for key, inner in data.items():
        yield from settings_of(inner, (*path, key))


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


def test_it_is_a_schema_with_a_title_and_its_dialect() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"]


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "validate", "--schema")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == config_schema()


def test_no_reference_leads_nowhere() -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for inner in part.values():
                yield from references(inner)
        elif isinstance(part, list):
            for inner in part:
                yield from references(inner)

    found = set(references(SCHEMA))
    assert found
    for reference in found:
        assert reference.startswith("#/$defs/")
        assert reference.removeprefix("#/$defs/") in SCHEMA["$defs"]
    assert "x-archon-component" not in json.dumps(SCHEMA), "a component is left open"


@pytest.mark.parametrize("name", shelf.names())
def test_every_ready_pipeline_is_valid(name: str) -> None:
    assert VALIDATOR.is_valid(as_json(shelf.ready(name)))
    text = shelf._shelf()[name].read_text(encoding="utf-8")
    assert VALIDATOR.is_valid(yaml.safe_load(text)), "as it is written, too"


@QUICK
@given(config=configs())
def test_every_valid_configuration_is_valid(config: Config) -> None:
    data = as_json(config)
    error = jsonschema.exceptions.best_match(VALIDATOR.iter_errors(data))
    assert error is None, f"{error.message} at {list(error.absolute_path)}"


@QUICK
@given(config=configs(), data=st.data())
def test_no_misspelt_key_is_valid(config: Config, data: st.DataObject) -> None:
    right = as_json(config)
    wrong = copy.deepcopy(right)
    place = at(wrong, data.draw(st.sampled_from(sorted(settings_of(right), key=str))))
    key = data.draw(st.sampled_from(sorted(place))) if place else "key"
    place[key + "x"] = place.pop(key, 1)
    assert not VALIDATOR.is_valid(wrong)
    with pytest.raises(ConfigError):
        load(yaml.safe_dump(wrong), "yaml")


@pytest.mark.parametrize(
    "text",
    [
        "- sample",
        "- sample: {n: 4}\n- majority_vote:\n",
        "pipeline: {a: sample, b: {majority_vote: , after: a}}",
        "pipeline: {a: {pipeline: [sample]}, b: {majority_vote: {}, after: [a]}}",
        "budget: {run: {usd: 0.5}, problem: {usd: '0.5', counts: fresh}}\npipeline: [sample]",
        "models: {default: {backend: openai, model: m, max_tokens: null}}\npipeline: [sample]",
        "models: {default: {backend: openai, model: m, price: {input: 1, output: 2}}}\npipeline: [sample]",
        "models: {default: {backend: replay, path: x, beyond: {openai: {model: m}}}}\npipeline: [sample]",
        "models: {default: {backend: scripted, replies: {'*': [a, b]}}}\npipeline: [sample]",
        "- sample\n- verify: {verifier: {unit_tests: {limits: {cpu_seconds: 1}}}}\n- best_of",
        "- sample: {stop: [a], extra: {b: [1]}, budget: {usd: 1}, per_request: auto}",
    ],
)
def test_what_people_write_is_valid(text: str) -> None:
    load(text, "yaml")
    assert VALIDATOR.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "hello",
        "pipeline:",
        "pipeline: {}",
        "- sampel",
        "- sample: {n: -1}",
        "- sample: {n: many}",
        "- sample: {n: 1}\n  best_of: {}",
        "- sample: {top_p: 1.5}",
        "- sample: {stop: a}",
        "- sample\n- verify: {}",
        "- sample\n- verify: {verifier: unit_test}",
        "- sample\n- verify: {verifier: {unit_tests: {limits: {cpu_seconds: 0}}}}",
        "pipeline: {a: sample, b: {majority_vote: {}, after: 1}}",
        "budget: {run: {usd: -1}}\npipeline: [sample]",
        "budget: {total: {usd: 1}}\npipeline: [sample]",
        "models: {a: {backend: opnai, model: m}}\npipeline: [sample]",
        "models: {a: {model: m}}\npipeline: [sample]",
        "models: {a: {backend: openai}}\npipeline: [sample]",
        "models: {a: {backend: scripted, reply: os.system}}\npipeline: [sample]",
        "models: {a: {backend: replay, path: x, beyond: {openai: {}}}}\npipeline: [sample]",
    ],
)
def test_what_is_wrong_is_not_valid(text: str) -> None:
    with pytest.raises(ConfigError):
        load(text, "yaml")
    assert not VALIDATOR.is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("kind", ["stage", "verifier", "backend"])
def test_everything_that_is_registered_can_be_named(kind: str) -> None:
    text = json.dumps(SCHEMA["$defs"][kind])
    for name in registry.names(kind):
        assert json.dumps(name) in text


@pytest.mark.parametrize(
    "cls",
    [
        Budget,
        Budgets,
        registry.find("stage", "sample"),
        registry.find("backend", "openai"),
        registry.find("stage", "verify"),
    ],
)
def test_every_setting_has_a_text_to_hover_over(cls: type[Value]) -> None:
    fields = SCHEMA["$defs"][cls.__name__]["properties"]
    assert set(fields) == set(cls.model_fields)
    for name, field in fields.items():
        assert field.get("description"), f"{cls.__name__}.{name}"


def test_a_stage_that_is_added_from_python_is_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from archon.strategies.sample import Sample

    class Twice(Sample):
        """Another source."""

        times: int = 2
        """How often."""

    monkeypatch.setattr(registry, "_added", {"stage": {"twice": Twice}})
    validator = jsonschema.Draft202012Validator(config_schema())
    assert validator.is_valid([{"twice": {"times": 3}}])
    assert not validator.is_valid([{"twice": {"tims": 3}}])
    assert not VALIDATOR.is_valid([{"twice": {"times": 3}}])
