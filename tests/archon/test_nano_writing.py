"""Folders of nano models: what is written is what Hugging Face's readers expect."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archon.backends.nano.writing import write_folder, write_safetensors
from tests.archon.nano_model import random_folder


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """By the format's definition: a length, a header of that length, the numbers."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    assert size % 8 == 0
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__")
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        assert entry["dtype"] == "F32"
        found[name] = np.frombuffer(raw[8 + size + start : 8 + size + end], "<f4").reshape(entry["shape"])
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(raw) - 8 - size
    return found


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    tensors = {"b": draw.normal(size=(3, 5)), "a": draw.normal(size=7), "turned": draw.normal(size=(2, 4)).T}
    write_safetensors(tmp_path / "t", tensors)
    found = read_safetensors(tmp_path / "t")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value.astype(np.float32))


def test_the_vocabulary_is_special_tokens_the_newline_and_printable_ascii(tmp_path: Path) -> None:
    random_folder(tmp_path)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert list(vocabulary.values()) == list(range(101))
    assert list(vocabulary)[:6] == ["<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>", "<|sep|>", "\n"]
    assert [ord(c) for c in list(vocabulary)[6:]] == list(range(32, 127))


def test_a_folder_says_what_the_model_is(tmp_path: Path) -> None:
    lm = json.loads((random_folder(tmp_path / "lm") / "config.json").read_text())
    prm = json.loads((random_folder(tmp_path / "prm", scores=True) / "config.json").read_text())
    assert lm["architectures"] == ["LlamaForCausalLM"] and "num_labels" not in lm
    assert prm["architectures"] == ["LlamaForSequenceClassification"] and prm["num_labels"] == 1
    assert lm["vocab_size"] == 101 and lm["eos_token_id"] == 2


def test_what_a_model_has_of_its_own_wins(tmp_path: Path) -> None:
    write_folder(tmp_path, {"x": np.ones(1)}, {"rope_theta": 500.0, "max_position_embeddings": 64})
    assert json.loads((tmp_path / "config.json").read_text())["rope_theta"] == 500.0
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 64
