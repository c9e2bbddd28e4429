"""What a model's tokens cost in floating-point operations and bytes, by its architecture.

Two forms. `parameters` alone: 2 FLOPs per active parameter and token (Kaplan et al. 2020, arXiv 2001.08361,
2.1). `architecture`, a few numbers or the model's `config.json`: matrix products only, two operations per
multiply-add, exactly as an engine with a key-value cache does them. The paper's table 1 counts one of attention's two
products, at the longest context; here both count, at each token's own, which is the same for long texts:

- every token but a sample's last goes through the layers: 2 per matrix parameter that it meets;
- attention: 4 x layers x heads x head size per token and token that it sees, itself included; layers with a sliding
  window see no more than the window;
- the output matrix: 2 x hidden x vocabulary per generated token, and for no prompt token;
- prompt tokens from a cache cost nothing, but are still seen.

Norms, rotations, activations and softmax are left out, as in the paper: they are no matrix products.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from archon.component import Value
from archon.errors import DataError
from archon.model_config import fields_of_config

Dtype = Literal["float32", "bfloat16", "float16", "float8", "int8", "int4"]
BYTES: Mapping[Dtype, float] = {
    "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1, "int8": 1, "int4": 0.5
}  # fmt: skip
"""Per number."""
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
    per_near_pair: int = 0
    """FLOPs of attention per token and token within `window` of it, in the layers that see no further."""
    window: int = 0
    """Tokens that those layers see, the token itself included."""
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
        fed, spans = read, [(cached, prompt, 1)]
        for length, times in ((each, samples - longer), (each + 1, longer)):
            if length and times:
                fed += (length - 1) * times
                spans.append((context, context + length - 1, times))
        count = self.per_token * fed + self.per_output * completion
        for start, end, times in spans:
            count += times * self.per_pair * int(seen(start, end))
            if self.per_near_pair:
                count += times * self.per_near_pair * int(seen(start, end, self.window))
        return count


def seen(start: float, end: float, window: float = math.inf) -> float:
    """How many tokens the tokens start+1, ..., end see together, each itself and those before it, in a window."""
    first, last = min(start, window), min(end, window)
    beyond = (end - start) - (last - first)
    inside = (last * (last + 1) - first * (first + 1)) / 2
    return inside + (beyond * window if beyond else 0)


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
    scores: bool = False
    """Whether it is a reward model: a score in the place of the output matrix."""
    experts: Annotated[int, Field(ge=0)] = 0
    """Experts per layer, of a mixture of experts."""
    active_experts: Annotated[int, Field(ge=0)] = 0
    """How many of them a token meets."""
    shared_ffn: Annotated[int, Field(ge=0)] = 0
    """Width of the feed-forward that every token meets beside its experts."""
    window: Count | None = None
    """Tokens that a layer with a sliding window sees, the token itself included."""
    windowed: Annotated[int, Field(ge=0)] = 0
    """How many of the layers have that window; the others see everything."""
    dtype: Dtype = "bfloat16"
    """What weights and cached keys and values are stored in."""
    weights: Dtype | None = None
    """What the layers' matrices are stored in, where they are quantised and the rest is not."""

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
        if (self.window is None) != (self.windowed == 0) or self.windowed > self.layers:
            raise ValueError(f"`window` goes with `windowed`, from 1 to the {self.layers} layers")
        return self

    @classmethod
    def read(cls, path: str | Path) -> Architecture:
        """By a Hugging Face `config.json`, or the folder that holds it. Raises DataError."""
        place = Path(path)
        place = place / "config.json" if place.is_dir() else place
        try:
            data = json.loads(place.read_text(encoding="utf-8"))
            return cls(**fields_of_config(data))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read the architecture {str(place)!r}: {getattr(error, 'strerror', None) or 'it is no text'}. "
                "`architecture:` is the path of a model's config.json, or its numbers"
            ) from error
        except (ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else _first(error)
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
        """Bytes of keys and values per token that is cached, in all layers."""
        return 2 * self.layers * self.key_heads * (self.width // self.heads) * BYTES[self.dtype]

    def held_bytes(self, tokens: float, new: float = 1) -> float:
        """Bytes of the keys and values that so many new tokens, the last of a text of that length, need."""
        near = min(tokens, (self.window or 0) + new - 1)
        return self.kv_bytes * ((self.layers - self.windowed) * tokens + self.windowed * near) / self.layers

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
        """Parameters of the output matrix; none of a reward model, whose score is one row."""
        return 0 if self.scores else self.hidden * self.vocab

    @property
    def parameters(self) -> int:
        """All of them, biases left out."""
        return self.always + self.experts * self.expert + self._beside

    @property
    def active_parameters(self) -> int:
        """Those that take part in a token."""
        return self.parameters - (self.experts - self.active_experts) * self.expert

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters."""
        layers = self.always + self.experts * self.expert
        return layers * self.matrix_bytes + self._beside * BYTES[self.dtype]

    @property
    def matrix_bytes(self) -> float:
        """Bytes per parameter of the layers' matrices."""
        return BYTES[self.weights or self.dtype]

    @property
    def arithmetic(self) -> Dtype:
        """What the layers' matrices are multiplied in: packed integers are unpacked first."""
        return "float8" if self.weights == "float8" else self.dtype

    @property
    def _beside(self) -> int:
        """Parameters beside the layers' matrices: embeddings, the output matrix, norms."""
        embeddings = self.hidden * self.vocab + (0 if self.tied else self.output)
        return embeddings + (2 * self.layers + 1) * self.hidden

    @property
    def flops(self) -> Flops:
        """What tokens cost."""
        met = self.always + self.active_experts * self.expert
        far = self.layers - self.windowed
        return Flops(
            2 * met,
            4 * far * self.width,
            2 * self.output,
            4 * self.windowed * self.width,
            self.window or 0,
        )

    def _ffn(self, width: int) -> int:
        return (3 if self.gated else 2) * self.hidden * width


def flops_of(architecture: Architecture | None, parameters: float | None) -> Flops | None:
    """What tokens cost a model of this size; None where it is unknown."""
    if architecture is not None:
        return architecture.flops
    return None if parameters is None else Flops(int(2 * parameters), exact=False)


def _first(error: Exception) -> str:
    """The first of what is wrong, in one line."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False)[0]
        place = ".".join(map(str, found["loc"]))
        return f"{place}: {found['msg']}" if place else found["msg"]
    return str(error).splitlines()[0]
