"""Sampling with torch, for roll-outs on a GPU: thousands of replies decoded together, each row at its own place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from archon.backends.nano.tokens import BOS, EOS, PAD, SEP, decode, encode
from archon.benchmarks.lab.training.model import Cache, Language
from archon.benchmarks.lab.training.rollouts import Asked

_NEW = 400
"""Tokens of a reply, at most."""
_LOOK = 32
"""Steps from one look at which rows have ended to the next."""


class Sampler:
    """Draws replies of a language model on its device, `places` of the context at once."""

    def __init__(self, net: Language, device: str, places: int = 10_000_000) -> None:
        self.net, self.device, self.places = net.to(device).eval(), device, places

    async def __call__(
        self, asked: Sequence[Asked], n: int, *, temperature: float, seed: int
    ) -> list[list[str]]:
        """`n` whole replies (given beginnings included) to each question, in order."""
        prompts = [[BOS, *encode(a.question), SEP, *encode(a.prefix)] for a in asked]
        rows = sorted((i for i in range(len(prompts)) for _ in range(n)), key=lambda i: -len(prompts[i]))
        generator = torch.Generator(self.device).manual_seed(seed)
        replies: list[list[str]] = [[] for _ in asked]
        while rows:
            some = max(1, self.places // (len(prompts[rows[0]]) + _NEW))
            batch, rows = rows[:some], rows[some:]
            for i, new in zip(
                batch, self._drawn([prompts[i] for i in batch], temperature, generator), strict=True
            ):
                replies[i].append(asked[i].prefix + decode(new))
        return replies

    @torch.no_grad()
    def _drawn(
        self, prompts: Sequence[Sequence[int]], temperature: float, generator: torch.Generator
    ) -> list[list[int]]:
        net, device, shape = self.net, self.device, self.net.model.shape
        longest = max(map(len, prompts))
        room = min(longest + _NEW, shape.max_position_embeddings)
        told = torch.tensor([[*p, *[PAD] * (longest - len(p))] for p in prompts], device=device)
        at = torch.tensor([len(p) for p in prompts], device=device)
        size = (len(prompts), room, shape.num_key_value_heads, shape.head_dim)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            caches = [
                Cache(*(torch.zeros(size, device=device, dtype=kind) for _ in range(2)))
                for _ in range(shape.num_hidden_layers)
            ]
            hidden = net.model(told, caches)[torch.arange(len(prompts), device=device), at - 1][:, None]
            index = torch.arange(len(prompts), device=device)
            drawn = torch.full((len(prompts), room - longest), PAD, device=device)
            for step in range(room - longest):
                token = _sampled(net.logits(hidden)[:, 0].float(), temperature, generator)
                drawn[index, step] = token
                ended = (drawn[index, : step + 1] == EOS).any(1) if step % _LOOK == _LOOK - 1 else None
                if ended is not None:
                    going = (~ended).nonzero()[:, 0]
                    if not len(going):
                        break
                    if len(going) < 0.75 * len(index):
                        index, at, token = index[going], at[going], token[going]
                        caches = [Cache(c.keys[going], c.values[going]) for c in caches]
                hidden = net.model.step(token, caches, at, longest + step + 1)
                at = at + 1
        return [row[: row.index(EOS)] if EOS in row else row for row in drawn.tolist()]


def _sampled(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
