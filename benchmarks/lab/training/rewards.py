"""Training the reward models: how likely is the right answer from here?

The process reward model is trained on Monte Carlo labels (Math-Shepherd, Wang et al. 2023, arXiv 2312.08935, soft
estimation): from the end of each step the language model goes on several times, and the share of right answers is
what the score should say. The outcome reward model is trained on whole replies, right or not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

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


def train_rewards(net: Reward, data: Sequence[Labelled], schedule: Schedule, device: str = "cpu") -> None:
    """Train in place: cross-entropy against the labels, each a probability."""
    net.to(device).train()
    optimisers = Optimisers(net, schedule.rate)
    started, recent = time.monotonic(), 0.0
    for step, batch in enumerate(_batches(data, schedule.tokens)):
        done = max(step / schedule.steps, (time.monotonic() - started) / 60 / schedule.minutes)
        if done >= 1:
            break
        rows, columns, labels = zip(
            *((r, one.place(p), v) for r, one in enumerate(batch) for p, v in one.labels.items()), strict=True
        )
        scores = net(_padded(batch, device))[list(rows), list(columns)]
        loss = functional.binary_cross_entropy_with_logits(scores, torch.tensor(labels, device=device))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimisers.step(schedule.at(done))
        recent += loss.item() / 50
        if step % 50 == 49:
            print(f"step {step + 1:5d}  loss {recent:.4f}", flush=True)
            recent = 0.0


@torch.no_grad()
def scored(net: Reward, data: Sequence[Labelled], device: str = "cpu") -> list[dict[int, float]]:
    """What it says at each labelled place, as probabilities."""
    net.to(device).eval()
    said = []
    for one in data:
        scores = net(torch.tensor([one.tokens], device=device))[0].sigmoid()
        said.append({p: float(scores[one.place(p)]) for p in one.labels})
    return said


def area_under_curve(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The chance that a right one scores above a wrong one (ties half): the area under the ROC curve."""
    from scipy.stats import rankdata

    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[right].sum() - positive * (positive + 1) / 2) / (positive * negative))


def calibration(
    scores: NDArray[np.float64], outcomes: NDArray[np.float64], bins: int = 10
) -> tuple[float, list[tuple[float, float, int]]]:
    """The expected calibration error, and per bin of equal width: mean score, mean outcome, how many."""
    at = np.minimum((scores * bins).astype(int), bins - 1)
    table = [
        (float(scores[at == b].mean()), float(outcomes[at == b].mean()), int((at == b).sum()))
        for b in range(bins)
        if (at == b).any()
    ]
    return sum(n * abs(s - o) for s, o, n in table) / max(1, len(scores)), table


def _batches(data: Sequence[Labelled], tokens: int) -> Iterator[list[Labelled]]:
    rng = random.Random(0)
    while True:
        order = sorted(data, key=lambda one: (len(one.tokens) // 8, rng.random()))
        cut: list[list[Labelled]] = [[]]
        for one in order:
            if cut[-1] and (len(cut[-1]) + 1) * len(one.tokens) > tokens:
                cut.append([])
            cut[-1].append(one)
        rng.shuffle(cut)
        yield from cut


def _padded(batch: Sequence[Labelled], device: str) -> torch.Tensor:
    rows = [one.tokens for one in batch]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], device=device)
