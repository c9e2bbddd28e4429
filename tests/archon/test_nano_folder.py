"""A model's folder is data from anywhere: what is not a model that we run is an error that says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archon.backends.nano.folder import fingerprint, locate, read_shape, read_tensors
from archon.backends.nano.llama import Llama
from archon.backends.nano.writing import write_safetensors
from archon.errors import DataError
from tests.archon.nano_model import random_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return random_folder(tmp_path / "lm")


def configure(folder: Path, change: dict[str, Any], file: str = "config.json") -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "'mamba', not 'llama'"),
        ({"architectures": ["MistralForCausalLM"]}, "`architectures` is"),
        ({"vocab_size": 32000}, "`vocab_size` is 32000"),
        ({"eos_token_id": 7}, "`eos_token_id` is 7, not 2"),
        ({"tie_word_embeddings": False}, "`tie_word_embeddings` is not true"),
        ({"attention_bias": True}, "biases are not read"),
        ({"rope_scaling": {"factor": 2}}, "rotary positions are scaled"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions are scaled"),
        ({"rope_parameters": {"rope_theta": 500.0}}, "`rope_theta` is given twice"),
        ({"partial_rotary_factor": 0.5}, "partial"),
        ({"hidden_act": "gelu"}, "`hidden_act` is 'gelu'"),
        ({"num_key_value_heads": 3}, "no multiple of key-value heads"),
        ({"head_dim": 33}, "`head_dim` is odd"),
        ({"max_position_embeddings": 60_000}, "at most 8192 are read"),
        ({"max_position_embeddings": 10**13}, "not a whole number from 1 to 65536"),
        ({"max_position_embeddings": 0}, "`max_position_embeddings` is 0"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` is -1"),
        ({"num_attention_heads": float("inf")}, "`num_attention_heads` is inf"),
        ({"hidden_size": "wide"}, "is no model's configuration"),
        ({"hidden_size": 128.5}, "`hidden_size` is 128.5"),
        ({"rope_theta": 0}, "`rope_theta` is 0, not a positive number"),
        ({"rms_norm_eps": float("nan")}, "`rms_norm_eps` is nan"),
        ({"rope_parameters": [1]}, "is no model's configuration"),
    ],
)
def test_another_model_is_refused_by_what_is_other(folder: Path, change: dict[str, Any], says: str) -> None:
    configure(folder, change)
    with pytest.raises(DataError, match=says):
        read_shape(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, " " * (1 << 21)], ids=["empty", "list", "deep", "huge"]
)
def test_a_configuration_that_cannot_be_read_names_the_file(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json' cannot be read"):
        read_shape(folder)


def test_a_tokenizer_with_other_tokens_is_refused_and_none_is_well(folder: Path) -> None:
    shape = read_shape(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    configure(folder, {"model": {"vocab": vocabulary | {"a": 8, "b": 7}}}, "tokenizer.json")
    with pytest.raises(DataError, match="other tokens than one per character"):
        read_shape(folder)
    (folder / "tokenizer.json").unlink()
    assert read_shape(folder) == shape


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38], ids=str)
def test_weights_that_give_no_finite_numbers_are_refused(folder: Path, value: float) -> None:
    tensors = dict(read_tensors(folder / "model.safetensors"))
    spoilt = tensors["model.layers.1.mlp.down_proj.weight"].copy()
    spoilt[:, 7] = value
    write_safetensors(folder / "model.safetensors", tensors | {"model.layers.1.mlp.down_proj.weight": spoilt})
    with pytest.raises(DataError, match="no finite numbers"):
        Llama(folder)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + b"\0" * 7 + b"[]",
        b"\x10" + b"\0" * 7 + b'{"a": {"x": 1}} ',
        (900_000).to_bytes(8, "little") + b'{"a":' + b"[" * 899_995,
    ],
    ids=["empty", "endless header", "no mapping", "no tensor", "deep"],
)
def test_malformed_weights_are_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(DataError, match="is no safetensors file"):
        read_tensors(tmp_path / "model.safetensors")


def entry(shape: object, start: object, stop: object, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": entry([9], 0, 36)}, "'a' does not lie where the header says"),
        ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, "'b' does not lie where"),
        ({"a": entry([2], 8, 16)}, "'a' does not lie where"),
        ({"a": entry([2], 0, 8)}, "8 bytes at its end belong to no tensor"),
        ({"a": entry([-2, -2], 0, 16)}, "header is malformed"),
        ({"a": entry([4.0], 0, 16)}, "header is malformed"),
        ({"a": entry([float("inf")], 0, 16)}, "header is malformed"),
        ({"a": entry([4], 0, "16")}, "header is malformed"),
        ({"a": entry([1] * 99, 0, 4)}, "header is malformed"),
        ({"\x1b[31m": entry([4], 0, 8, "F16")}, r"'\\x1b\[31m' is 'F16'; only F32 is read"),
    ],
    ids=str,
)
def test_tensors_fill_the_file_and_do_not_overlap(tmp_path: Path, header: dict[str, Any], says: str) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 16)
    with pytest.raises(DataError, match=says):
        read_tensors(tmp_path / "model.safetensors")


def test_the_same_weights_used_otherwise_are_another_model(folder: Path) -> None:
    before = fingerprint(folder)
    configure(folder, {"torch_dtype": "auto"})
    assert fingerprint(folder) == before
    configure(folder, {"rms_norm_eps": 1e-6})
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "name", ["nothing", "x" * 5000, "a\0b", "", ".."], ids=["absent", "long", "nul", "empty", "above"]
)
def test_weights_that_are_nowhere_are_an_error_that_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for weights in (name, f"{tmp_path}/{name}"):
        with pytest.raises(DataError, match=r"neither shipped .* nor a folder"):
            locate(weights)


def test_weights_that_go_away_are_an_error_that_names_the_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors' cannot be read"):
        fingerprint(folder)
