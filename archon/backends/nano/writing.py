"""Writes a nano model's folder in Hugging Face's format, so that vLLM and transformers load what numpy loads.

    write_folder("weights/lm", tensors, config)

writes `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`. Tensors have the names
of transformers' Llama (`model.layers.0.self_attn.q_proj.weight`); one named `score.weight` makes it a reward
model.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archon.backends.nano.tokens import BOS, EOS, PAD, SEP, UNK, VOCABULARY, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SPECIAL = (PAD, BOS, EOS, UNK, SEP)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'system' %}{{ '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|sep|>' }}"
    "{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""A message's end says who spoke: a newline the system, a separator the user, an end the model."""

_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 1024,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
_ONE_SCORE = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1}


def write_folder(
    path: str | Path, tensors: Mapping[str, NDArray[np.floating[Any]]], config: Mapping[str, Any]
) -> None:
    """Write a model's folder. `config` holds what this model has of its own: sizes, and whatever differs."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    scores = "score.weight" in tensors
    whole = {
        "architectures": ["LlamaForSequenceClassification" if scores else "LlamaForCausalLM"],
        **_CONFIG,
        **(_ONE_SCORE if scores else {}),
        **config,
    }
    _write_json(folder / "config.json", whole)
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(whole["max_position_embeddings"]))
    write_safetensors(folder / "model.safetensors", tensors)


def write_safetensors(path: str | Path, tensors: Mapping[str, NDArray[np.floating[Any]]]) -> None:
    """Write tensors as float32: a header of names, shapes and places, then the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs = []
    place = 0
    for name in sorted(tensors):
        blob = tensors[name].astype("<f4").tobytes()
        shape = [int(size) for size in tensors[name].shape]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + len(blob)]}
        blobs.append(blob)
        place += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers start at a multiple of eight
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)


def _tokenizer() -> dict[str, Any]:
    """In the format of the `tokenizers` package: every character by itself, and `<|bos|>` first."""
    bos = {"SpecialToken": {"id": shown(BOS), "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token,
                "content": shown(token),
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in _SPECIAL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "[\\s\\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {shown(BOS): {"id": shown(BOS), "ids": [BOS], "tokens": [shown(BOS)]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {shown(token): token for token in range(VOCABULARY)},
            "unk_token": shown(UNK),
        },
    }


def _tokenizer_config(longest: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": shown(PAD),
        "bos_token": shown(BOS),
        "eos_token": shown(EOS),
        "unk_token": shown(UNK),
        "additional_special_tokens": [shown(SEP)],
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")
