"""The numbers of an architecture (archon/compute.py), out of a model's Hugging Face `config.json`.

What a file leaves out is what `transformers` takes for that type of model. What cannot be counted is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_GATED = {
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "phi3",
    "olmo", "olmo2", "olmoe", "smollm3", "granite", "internlm2", "seed_oss",
}  # fmt: skip
_PLAIN = {"gpt_neox", "phi", "starcoder2"}
"""Model types whose feed-forward has two matrices, not three."""
_TIED = {"gemma", "gemma2", "starcoder2", "smollm3"}
"""Model types whose output matrix is the embedding where `config.json` says nothing."""
_ALL_WINDOWED = {"mistral", "mixtral", "phi3", "starcoder2"}
"""Model types that have their `sliding_window` in every layer where nothing else is said."""
_SCORES = re.compile("SequenceClassification|TokenClassification|RewardModel")
"""Architectures with a score in the place of the output matrix."""
_PACKED = {"awq", "gptq"}
"""Quantisations of weights that are unpacked to be multiplied."""
_EXPERTS = ("num_experts", "num_local_experts")


def fields_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Architecture`. Raises KeyError, TypeError, AttributeError and ValueError where there is more
    or less than they can say."""
    data = _of_text(config)
    kind = data["model_type"]
    if kind not in _GATED | _PLAIN:
        raise ValueError(f"the model type {kind!r} is not known")
    experts = next((data[name] for name in _EXPERTS if data.get(name)), 0)
    if experts and (data.get("mlp_only_layers") or data.get("decoder_sparse_step", 1) != 1):
        raise ValueError("only some of its layers have experts")
    hidden, heads = data["hidden_size"], data["num_attention_heads"]
    layers = data["num_hidden_layers"]
    return {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": data.get("num_key_value_heads") or heads,
        "head_dim": data.get("head_dim") or (256 if kind.startswith("gemma") else hidden // heads),
        "ffn": data.get("moe_intermediate_size") or data["intermediate_size"],
        "gated": kind in _GATED,
        "vocab": data["vocab_size"],
        "tied": data.get("tie_word_embeddings", kind in _TIED),
        "scores": any(_SCORES.search(name) for name in data.get("architectures") or ()),
        "experts": experts,
        "active_experts": data["num_experts_per_tok"] if experts else 0,
        "shared_ffn": data.get("shared_expert_intermediate_size", 0) if experts else 0,
        **_windows(data, kind, layers),
        **_formats(data),
    }


def _windows(data: Mapping[str, Any], kind: str, layers: int) -> dict[str, Any]:
    """Which layers see a window only. Raises ValueError where some are of other kinds."""
    width, kinds = data.get("sliding_window"), data.get("layer_types")
    if kinds is not None:
        others = sorted({*kinds} - {"full_attention", "sliding_attention"})
        if others or len(kinds) != layers:
            raise ValueError(
                f"its `layer_types` are not of {layers} layers with attention: {others or len(kinds)}"
            )
        near = kinds.count("sliding_attention")
    elif data.get("use_sliding_window"):
        near = layers - min(data["max_window_layers"], layers)
    elif kind == "gemma2":
        near = (layers + 1) // 2
    else:
        near = layers if kind in _ALL_WINDOWED else 0
    return {"window": width, "windowed": near} if width and near else {}


def _formats(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored how; float32 where nothing is said, as `transformers` has it, and 16 bits beside quantised
    matrices."""
    quantised = data.get("quantization_config") or {}
    method, bits = quantised.get("quant_method"), quantised.get("bits", 4)
    weights = None
    if method in _PACKED and bits in (4, 8):
        weights = f"int{bits}"
    elif method == "fp8":
        weights = "float8"
    elif method:
        raise ValueError(f"the quantisation {method!r} is not known")
    usual = "bfloat16" if weights else "float32"
    dtype = str(data.get("dtype") or data.get("torch_dtype") or usual).removeprefix("torch.")
    return {"dtype": dtype, "weights": weights}


def _of_text(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a model that reads and writes text; what is said of the whole holds for it too."""
    text = data.get("text_config")
    if text is None:
        return data
    whole = ("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings", "architectures")
    said = {name: data[name] for name in whole if data.get(name) is not None}
    return {**said, **{name: value for name, value in text.items() if value is not None}}
