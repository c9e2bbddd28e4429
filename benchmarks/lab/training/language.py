"""Training the language model: next-token prediction on exchanges."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from archon.backends.nano.tokens import PAD
from archon.benchmarks.lab.training.feed import Source, fed
from archon.benchmarks.lab.training.model import Language
from archon.benchmarks.lab.training.optimisers import Optimisers

_QUESTIONS = 0.1
"""Weight of a question's tokens in the loss: what a function returned is worth predicting too."""
_SHORT = 20
"""A shorter reply's tokens weigh as much together as those of one of this length: a verdict is only a word."""


_KEEP = 120.0
"""Seconds between two `keep`s."""


@dataclass(frozen=True)
class Schedule:
    """How long to train: so many minutes, or so many steps of so many tokens, whichever ends first."""

    minutes: float = float("inf")
    tokens: int = 4096
    rate: float = 5e-3
    """Peak learning rate; a warm-up of 2%, then linear to nothing."""
    steps: float = float("inf")

    def at(self, done: float) -> float:
        """The learning rate's share of its peak, so far along."""
        return min(1.0, done / 0.02 + 1e-3) * min(1.0, (1 - done) / 0.8)


def train(
    net: Language,
    source: Source,
    schedule: Schedule,
    device: str = "cpu",
    keep: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train in place, `keep` every two minutes; the loss on replies, every 50 steps."""
    net.to(device).train()
    optimisers = Optimisers(net, schedule.rate)
    started = kept = time.monotonic()
    losses: list[float] = []
    recent = torch.zeros((), device=device)
    seen = 0
    for step, (tokens, starts) in enumerate(fed(source, schedule.tokens, device)):
        now = time.monotonic()
        done = max(step / schedule.steps, (now - started) / 60 / schedule.minutes)
        if done >= 1:
            break
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss, replies = loss_of(net, tokens, starts)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimisers.step(schedule.at(done))
        recent += replies / 50
        seen += tokens.numel()
        if step % 50 == 49:
            losses.append(recent.item())
            minutes, millions = (now - started) / 60, seen / 1e6
            print(
                f"step {step + 1:5d}  {minutes:5.1f} min  {millions:6.1f} M  loss {losses[-1]:.4f}",
                flush=True,
            )
            recent.zero_()
        if now - kept > _KEEP:
            keep()
            kept = now
    return losses


def loss_of(net: Language, tokens: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted loss, and that of the replies' tokens alone. `starts`: where each row's reply begins."""
    logits = net(tokens[:, :-1])
    wanted = tokens[:, 1:]
    each = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
    places = torch.arange(wanted.shape[1], device=tokens.device)
    real = wanted != PAD
    reply = (places[None] >= starts[:, None] - 1) & real
    short = (_SHORT / reply.sum(1, keepdim=True)).clamp(min=1.0)
    weights = reply * short + _QUESTIONS * (real & ~reply)
    return (each * weights).sum() / weights.sum(), (each * reply).sum().detach() / reply.sum()
