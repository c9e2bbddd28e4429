"""What a model's tokens cost in floating-point operations and bytes, by its architecture.

Two forms. `parameters` alone: 2 FLOPs per active parameter and token (Kaplan et al. 2020, arXiv 2001.08361,
2.1). `architecture`, a few numbers or the model's `config.json`: matrix products only, two operations per
multiply-add, exactly as an engine with a key-value cache does them (the paper's table 1, but with attention
counted at each token's own context instead of the longest):

- every token but a sample's last goes through the layers: 2 per matrix parameter that it meets;
- attention: 4 x layers x heads x head size per token and token that it sees, itself included;
- the output matrix: 2 x hidden x vocabulary per generated token, and for no prompt token;
- prompt tokens from a cache cost nothing, but are still seen.

Norms, rotations, activations and softmax are left out, as in the paper: they are no matrix products.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from archon.component import Value
from archon.errors import DataError

Dtype = Literal["float32", "bfloat16", "float16", "float8", "int8", "int4"]
BYTES: Mapping[Dtype, float] = {
    "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5
}  # fmt: skip
"""Per number."""
_GATED = {
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "gemma", "gemma2", "phi3",
    "olmo", "olmo2", "olmoe", "smollm3", "granite", "internlm2", "seed_oss",
}  # fmt: skip
_PLAIN = {"gpt_neox", "phi", "starcoder2"}
"""Model types whose feed-forward has two matrices, not three."""
_EXPERTS = ("num_experts", "num_local_experts")

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class Flops:
    """What tokens cost one model, in floating-point operations."""

    per_token: int
    """FLOPs of a token through the layers."""
    per_pair: int = 0
    """FLOPs of attention per token and token that it sees."""
    per_output: int = 0
    """FLOPs of the output matrix per generated token."""
    exact: bool = True
    """Whether an architecture is known; otherwise every token costs `per_token`, and nothing else counts."""

    def of(self, prompt: int, cached: int, completion: int, samples: int = 1, context: int = 0) -> int:
        """FLOPs of reading a prompt, of which `cached` is in a cache, and of generating.

        `completion` is over all `samples` of that prompt, shared equally. `context` is the prompt that is
        seen where it was read, and counted, with another sample.
        """
        read = prompt - cached
        if not self.exact:
            return self.per_token * (read + completion)
        context = max(context, prompt)
        samples = max(samples, 1)
        each, longer = divmod(completion, samples)
        fed, seen = read, _sum(cached, prompt)
        for length, times in ((each, samples - longer), (each + 1, longer)):
            if length and times:
                fed += (length - 1) * times
                seen += _sum(context, context + length - 1) * times
        return self.per_token * fed + self.per_pair * seen + self.per_output * completion


def _sum(start: int, end: int) -> int:
    """How many tokens the tokens start+1, ..., end see together, each itself and those before it."""
    return (end * (end + 1) - start * (start + 1)) // 2


class Architecture(Value):
    """A decoder-only transformer, as far as its cost depends on it."""

    layers: Count
    """Blocks of attention and feed-forward."""
    hidden: Count
    """Width of the residual stream."""
    heads: Count
    """Query heads."""
    kv_heads: Count | None = None
    """Heads of keys and values; as `heads` where not given (no grouped-query attention)."""
    head_dim: Count | None = None
    """Width of a head; `hidden / heads` where not given."""
    ffn: Count
    """Width of the feed-forward; of one expert, where there are several."""
    gated: bool = True
    """Whether the feed-forward has three matrices (SwiGLU and its like) or two."""
    vocab: Count
    """Tokens in the vocabulary."""
    tied: bool = False
    """Whether the output matrix is the embedding matrix."""
    experts: Annotated[int, Field(ge=0)] = 0
    """Experts per layer, of a mixture of experts."""
    active_experts: Annotated[int, Field(ge=0)] = 0
    """How many of them a token meets."""
    shared_ffn: Annotated[int, Field(ge=0)] = 0
    """Width of the feed-forward that every token meets beside its experts."""
    dtype: Dtype = "bfloat16"
    """What weights and cached keys and values are stored in."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"`head_dim` is missing, as {self.heads} heads do not divide {self.hidden}")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(
                f"`kv_heads` must divide `heads`, and {self.kv_heads} does not divide {self.heads}"
            )
        if bool(self.experts) != bool(self.active_experts) or self.active_experts > self.experts:
            raise ValueError("`active_experts` must be from 1 to `experts`, or both absent")
        return self

    @classmethod
    def read(cls, path: str | Path) -> Architecture:
        """By a Hugging Face `config.json`, or the folder that holds it. Raises DataError."""
        place = Path(path)
        place = place / "config.json" if place.is_dir() else place
        try:
            data = json.loads(place.read_text(encoding="utf-8"))
            data = data.get("text_config", data)
            return cls(**_fields(data))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read the architecture {str(place)!r}: {getattr(error, 'strerror', None) or 'it is no text'}. "
                "`architecture:` is the path of a model's config.json, or its numbers"
            ) from error
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise DataError(
                f"{str(place)!r} is no architecture that can be counted ({what}). "
                "Write its numbers as `architecture: {layers: ..., hidden: ..., ...}`, or give `parameters:`"
            ) from error

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def width(self) -> int:
        """Width of all query heads together."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values per token that is cached."""
        return 2 * self.layers * self.key_heads * (self.width // self.heads) * BYTES[self.dtype]

    @property
    def always(self) -> int:
        """Matrix parameters of the layers that every token meets."""
        attention = self.hidden * (self.width + 2 * self.width * self.key_heads // self.heads)
        attention += self.width * self.hidden
        dense = self.shared_ffn if self.experts else self.ffn
        return self.layers * (
            attention + self._ffn(dense) + self.hidden * self.experts
        )  # experts: the router

    @property
    def expert(self) -> int:
        """Parameters of one expert in all layers; 0 where there are none."""
        return self.layers * self._ffn(self.ffn) if self.experts else 0

    @property
    def output(self) -> int:
        """Parameters of the output matrix."""
        return self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        """All of them, biases left out."""
        norms = (2 * self.layers + 1) * self.hidden
        embeddings = self.output * (1 if self.tied else 2)
        return self.always + self.experts * self.expert + embeddings + norms

    @property
    def active_parameters(self) -> int:
        """Those that take part in a token."""
        return self.parameters - (self.experts - self.active_experts) * self.expert

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters."""
        return self.parameters * BYTES[self.dtype]

    @property
    def flops(self) -> Flops:
        """What tokens cost."""
        met = self.always + self.active_experts * self.expert
        return Flops(2 * met, 4 * self.layers * self.width, 2 * self.output)

    def _ffn(self, width: int) -> int:
        return (3 if self.gated else 2) * self.hidden * width


def flops_of(architecture: Architecture | None, parameters: float | None) -> Flops | None:
    """What tokens cost a model of this size; None where it is unknown."""
    if architecture is not None:
        return architecture.flops
    return None if parameters is None else Flops(int(2 * parameters), exact=False)


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `Architecture`, from what `config.json` says. Raises KeyError and ValueError."""
    kind = data["model_type"]
    if kind not in _GATED | _PLAIN:
        raise ValueError(f"the model type {kind!r} is not known")
    experts = next((data[name] for name in _EXPERTS if data.get(name)), 0)
    if experts and (data.get("mlp_only_layers") or data.get("decoder_sparse_step", 1) != 1):
        raise ValueError("only some of its layers have experts")
    hidden, heads = data["hidden_size"], data["num_attention_heads"]
    scores = any("SequenceClassification" in name for name in data.get("architectures") or ())
    return {
        "layers": data["num_hidden_layers"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": data.get("num_key_value_heads") or heads,
        "head_dim": data.get("head_dim") or (256 if kind == "gemma" else hidden // heads),
        "ffn": data.get("moe_intermediate_size") or data["intermediate_size"],
        "gated": kind in _GATED,
        "vocab": data["vocab_size"],
        "tied": scores or data.get("tie_word_embeddings", kind.startswith("gemma")),
        "experts": experts,
        "active_experts": data["num_experts_per_tok"] if experts else 0,
        "shared_ffn": data.get("shared_expert_intermediate_size", 0) if experts else 0,
        "dtype": _dtype(data),
    }


def _dtype(data: Mapping[str, Any]) -> str:
    """What weights are stored in; float32 where nothing is said, as `transformers` has it."""
    quantised = data.get("quantization_config") or {}
    method = quantised.get("quant_method")
    if method in ("awq", "gptq") and quantised.get("bits", 4) in (4, 8):
        return f"int{quantised.get('bits', 4)}"
    if method == "fp8":
        return "float8"
    if method:
        raise ValueError(f"the quantisation {method!r} is not known")
    return str(data.get("dtype") or data.get("torch_dtype") or "float32").removeprefix("torch.")
