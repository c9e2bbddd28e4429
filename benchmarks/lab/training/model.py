"""The nano models in torch, for training alone: the Llama architecture, and nothing that a tiny one does not need.

Weights have the names of Hugging Face's Llama, so the folders that training writes are read by our numpy engine,
by `transformers` and by vLLM alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """How large a nano model is."""

    hidden_size: int = 128
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 1
    head_dim: int = 32
    intermediate_size: int = 448
    vocab_size: int = 101
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


class Cache(NamedTuple):
    """What one layer remembers of a batch: keys and values, (batch, time, heads, head)."""

    keys: Tensor
    values: Tensor


class Norm(nn.Module):
    """RMS normalisation."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scale to unit mean square."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query causal attention with rotary positions (the halves of a head are turned together)."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        heads, kv = s.num_attention_heads * s.head_dim, s.num_key_value_heads * s.head_dim
        self.q_proj = nn.Linear(s.hidden_size, heads, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(heads, s.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        """Every position looks at itself and what stands before it, all of which a `cache` is to remember."""
        q, k, v = self._heads(x, cos, sin)
        if cache is not None:
            cache.keys[:, : k.shape[2]] = k.transpose(1, 2)
            cache.values[:, : v.shape[2]] = v.transpose(1, 2)
        groups = self.s.num_attention_heads // self.s.num_key_value_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, at: Tensor, seen: int) -> Tensor:
        """One more position of each row, `at` its own place, all of them below `seen`."""
        s, rows = self.s, torch.arange(len(x), device=x.device)
        q, k, v = self._heads(x, cos, sin)
        cache.keys[rows, at], cache.values[rows, at] = k[:, :, 0], v[:, :, 0]
        keys, values = cache.keys[:, :seen], cache.values[:, :seen]
        q = q[:, :, 0].view(len(x), s.num_key_value_heads, -1, s.head_dim)
        weights = torch.einsum("bkgd,btkd->bkgt", q, keys).float() * s.head_dim**-0.5
        later = torch.arange(seen, device=x.device)[None] > at[:, None]
        weights = weights.masked_fill(later[:, None, None], -torch.inf).softmax(-1)
        mixed = torch.einsum("bkgt,btkd->bkgd", weights.to(values.dtype), values)
        return self.o_proj(mixed.reshape(len(x), 1, -1))

    def _heads(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s, (batch, time, _) = self.s, x.shape

        def heads(y: Tensor, count: int) -> Tensor:
            return y.view(batch, time, count, s.head_dim).transpose(1, 2)

        q, k, v = (
            heads(self.q_proj(x), s.num_attention_heads),
            heads(self.k_proj(x), s.num_key_value_heads),
            heads(self.v_proj(x), s.num_key_value_heads),
        )
        return _turn(q, cos, sin).to(v.dtype), _turn(k, cos, sin).to(v.dtype), v


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Feed(nn.Module):
    """The gated feed-forward part (SwiGLU)."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate, widen, narrow."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One layer."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Feed(s)
        self.input_layernorm = Norm(s.hidden_size, s.rms_norm_eps)
        self.post_attention_layernorm = Norm(s.hidden_size, s.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None = None) -> Tensor:
        """Attend, then feed forward, each beside what was there."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))

    def step(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, at: Tensor, seen: int) -> Tensor:
        """The same for one more position of each row."""
        x = x + self.self_attn.step(self.input_layernorm(x), cos, sin, cache, at, seen)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Everything but the head: token ids in, final hidden states out."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.shape = s
        self.embed_tokens = nn.Embedding(s.vocab_size, s.hidden_size)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.num_hidden_layers))
        self.norm = Norm(s.hidden_size, s.rms_norm_eps)
        turns = s.rope_theta ** -(torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        angles = torch.outer(torch.arange(s.max_position_embeddings).float(), turns).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * s.num_hidden_layers) ** 0.5)

    def forward(self, tokens: Tensor, caches: Sequence[Cache] = ()) -> Tensor:
        """Hidden states, (batch, time, hidden); `caches`, one a layer, are to remember them."""
        return self.norm(self.before_norm(tokens, caches))

    def before_norm(self, tokens: Tensor, caches: Sequence[Cache] = ()) -> Tensor:
        """The same as the last layer leaves them."""
        x = self.embed_tokens(tokens)
        cos = self.cos[: tokens.shape[1]]
        sin = self.sin[: tokens.shape[1]]
        remembering: list[Cache | None] = [*caches] or [None] * len(self.layers)
        for layer, cache in zip(self.layers, remembering, strict=True):
            x = layer(x, cos, sin, cache)
        return x

    def step(self, tokens: Tensor, caches: Sequence[Cache], at: Tensor, seen: int) -> Tensor:
        """Hidden states of one more token of each row, (batch, 1, hidden)."""
        x = self.embed_tokens(tokens[:, None])
        cos, sin = self.cos[at][:, None, None], self.sin[at][:, None, None]
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer.step(x, cos, sin, cache, at, seen)
        return self.norm(x)


class Language(nn.Module):
    """The language model; its head is its embedding."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.model = Trunk(s)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, (batch, time, vocabulary)."""
        return self.logits(self.model(tokens))

    def logits(self, hidden: Tensor) -> Tensor:
        """Of hidden states."""
        return functional.linear(hidden, self.model.embed_tokens.weight)


class Reward(nn.Module):
    """A reward model: one number for every position."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.model = Trunk(s)
        self.score = nn.Linear(s.hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of success, (batch, time)."""
        return self.score(self.model(tokens)).squeeze(-1)
