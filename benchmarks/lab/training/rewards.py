"""Training the reward models: how likely is the right answer from here?

The process reward model is trained on Monte Carlo labels (Math-Shepherd, Wang et al. 2023, arXiv 2312.08935, soft
estimation): from the end of each step the language model goes on several times, and the share of right answers is
what the score should say. The outcome reward model is trained on whole replies, right or not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from archon.backends.nano.tokens import PAD
from archon.benchmarks.lab.training.labels import Labelled
from archon.benchmarks.lab.training.language import Schedule
from archon.benchmarks.lab.training.model import Reward
from archon.benchmarks.lab.training.optimisers import Optimisers


class Stepper(Protocol):
    """An optimiser."""

    def step(self, share: float) -> None:
        """One step at this share of the peak rate."""


class _Laid(NamedTuple):
    """A labelled reply as the models read it."""

    tokens: NDArray[np.uint8]
    places: list[int]
    labels: list[float]
    weights: list[float]


def train_rewards(
    net: Reward,
    data: Sequence[Labelled],
    schedule: Schedule,
    device: str = "cpu",
    *,
    by: Stepper | None = None,
    everywhere: bool = False,
) -> None:
    """Train in place, `by` an optimiser: cross-entropy against the labels, each a probability.

    `everywhere`: every other token of a reply has its outcome for a label as well, at a third of the weight (a verifier
    that says something at each token: Cobbe et al. 2021, arXiv 2110.14168).
    """
    net.to(device).train()
    by = by or Optimisers(net, schedule.rate)
    started = time.monotonic()
    recent = torch.zeros((), device=device)
    for step, batch in enumerate(_endless(_laid(data, everywhere=everywhere), schedule.tokens)):
        done = max(step / schedule.steps, (time.monotonic() - started) / 60 / schedule.minutes)
        if done >= 1:
            break
        rows = [r for r, one in enumerate(batch) for _ in one.places]
        columns = [p for one in batch for p in one.places]
        labels = torch.tensor([v for one in batch for v in one.labels], device=device)
        scores = net(_padded(batch, device))
        weights = torch.tensor([v for one in batch for v in one.weights], device=device)
        loss = functional.binary_cross_entropy_with_logits(
            scores[rows, columns], labels, weight=weights / weights.mean()
        )
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        by.step(schedule.at(done))
        recent += loss.detach() / 50
        if step % 50 == 49:
            print(f"step {step + 1:5d}  loss {recent.item():.4f}", flush=True)
            recent.zero_()


@torch.no_grad()
def scored(
    net: Reward, data: Sequence[Labelled], device: str = "cpu", tokens: int = 32768
) -> list[dict[int, float]]:
    """What it says at each labelled place, as probabilities."""
    net.to(device).eval()
    laid = _laid(data)
    said: list[dict[int, float]] = [{} for _ in data]
    for batch in _cut(sorted(range(len(laid)), key=lambda i: len(laid[i].tokens)), laid, tokens):
        scores = net(_padded([laid[i] for i in batch], device)).sigmoid().cpu()
        for row, i in zip(scores, batch, strict=True):
            said[i] = {p: float(row[at]) for p, at in zip(data[i].labels, laid[i].places, strict=True)}
    return said


def _laid(data: Sequence[Labelled], *, everywhere: bool = False) -> list[_Laid]:
    return [_one(d, everywhere=everywhere) for d in data]


def _one(d: Labelled, *, everywhere: bool) -> _Laid:
    tokens = np.array(d.tokens, np.uint8)
    known = {d.place(p): label for p, label in d.labels.items()}
    if not everywhere:
        return _Laid(tokens, list(known), list(known.values()), [1.0] * len(known))
    places = list(range(d.place(0), len(tokens)))
    outcome = d.labels[max(d.labels)]
    return _Laid(
        tokens,
        places,
        [known.get(p, outcome) for p in places],
        [1.0 if p in known else 1 / 3 for p in places],
    )


def _endless(data: Sequence[_Laid], tokens: int) -> Iterator[list[_Laid]]:
    rng = random.Random(0)
    while True:
        order = sorted(range(len(data)), key=lambda i: (len(data[i].tokens) // 8, rng.random()))
        cut = list(_cut(order, data, tokens))
        rng.shuffle(cut)
        for batch in cut:
            yield [data[i] for i in batch]


def _cut(order: Sequence[int], data: Sequence[_Laid], tokens: int) -> Iterator[list[int]]:
    """Batches of about so many tokens, of what comes ordered by length."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(data[i].tokens) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _padded(batch: Sequence[_Laid], device: str) -> torch.Tensor:
    rows = np.full((len(batch), max(len(one.tokens) for one in batch)), PAD, np.uint8)
    for row, one in zip(rows, batch, strict=True):
        row[: len(one.tokens)] = one.tokens
    return torch.from_numpy(rows).to(device).long()
