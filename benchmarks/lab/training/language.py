"""Training the language model: next-token prediction on exchanges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from archon.backends.nano.tokens import PAD
from archon.benchmarks.lab.training.data import Exchange, batches, laid_out
from archon.benchmarks.lab.training.model import Language
from archon.benchmarks.lab.training.optimisers import Optimisers

_QUESTIONS = 0.1
"""Weight of a question's tokens in the loss: what a function returned is worth predicting too."""
_SHORT = 20
"""A shorter reply's tokens weigh as much together as those of one of this length: a verdict is only a word."""


@dataclass(frozen=True)
class Schedule:
    """How long to train: so many steps of so many tokens, or so many minutes, whichever ends first."""

    steps: int
    tokens: int = 4096
    minutes: float = float("inf")
    rate: float = 5e-3
    """Peak learning rate; a warm-up of 2%, then linear to nothing."""

    def at(self, done: float) -> float:
        """The learning rate's share of its peak, so far along."""
        return min(1.0, done / 0.02 + 1e-3) * min(1.0, (1 - done) / 0.8)


def train(
    net: Language,
    source: Iterator[Exchange],
    schedule: Schedule,
    device: str = "cpu",
    keep: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train in place, `keep` every 250 steps; the loss on replies, every 50 steps."""
    net.to(device).train()
    optimisers = Optimisers(net, schedule.rate)
    started, losses, recent = time.monotonic(), [], 0.0
    for step, batch in enumerate(batches(source, schedule.tokens)):
        done = max(step / schedule.steps, (time.monotonic() - started) / 60 / schedule.minutes)
        if done >= 1:
            break
        loss, replies = loss_of(net, batch, device)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimisers.step(schedule.at(done))
        recent += replies.item() / 50
        if step % 50 == 49:
            losses.append(recent)
            minutes = (time.monotonic() - started) / 60
            print(f"step {step + 1:5d}  {minutes:5.1f} min  loss {recent:.4f}", flush=True)
            recent = 0.0
        if step % 250 == 249:
            keep()
    return losses


def loss_of(net: Language, batch: list[Exchange], device: str) -> tuple[Tensor, Tensor]:
    """The weighted loss, and that of the replies' tokens alone."""
    rows, starts = laid_out(batch)
    tokens = torch.tensor(rows, device=device)
    logits = net(tokens[:, :-1])
    wanted = tokens[:, 1:]
    each = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
    places = torch.arange(wanted.shape[1], device=device)
    real = wanted != PAD
    reply = (places[None] >= torch.tensor(starts, device=device)[:, None] - 1) & real
    short = (_SHORT / reply.sum(1, keepdim=True)).clamp(min=1.0)
    weights = reply * short + _QUESTIONS * (real & ~reply)
    return (each * weights).sum() / weights.sum(), (each * reply).sum().detach() / reply.sum()
