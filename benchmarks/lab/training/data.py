"""What the language model is trained on: exchanges of a question and a reply, drawn endlessly from seeds."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from archon.backends.nano.tokens import BOS, EOS, PAD, SEP, encode
from archon.benchmarks.lab import chain, formats
from archon.benchmarks.lab.arith import Arith
from archon.benchmarks.lab.chain import Chain
from archon.benchmarks.lab.family import Family, Task
from archon.benchmarks.lab.listfn import ListFn

FAMILIES: Mapping[str, Family] = {f.name: f for f in (Arith(), ListFn(), Chain())}
_SHARES: Mapping[str, tuple[float, Mapping[int, float]]] = {
    "arith": (2, {1: 4, 2: 5, 3: 5, 4: 4, 5: 2, 6: 0.5}),
    "listfn": (6, {1: 4, 2: 5, 3: 4, 4: 3, 5: 2}),
    "chain": (4, {1: 3, 2: 4, 3: 4, 4: 4, 5: 3, 6: 2}),
}
"""How often a family is drawn, and each of its levels."""


class Exchange(NamedTuple):
    """A question and the reply to learn."""

    question: str
    reply: str

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.question) + len(self.reply) + 3


def training_tasks(rng: random.Random) -> Iterator[Task]:
    """Endless tasks of the training split, families and levels mixed."""
    names = list(_SHARES)
    while True:
        name = rng.choices(names, [_SHARES[n][0] for n in names])[0]
        levels = _SHARES[name][1]
        task = FAMILIES[name].draw(rng, rng.choices(list(levels), list(levels.values()))[0])
        if task.split == "train":
            yield task


def exchange(task: Task, rng: random.Random) -> Exchange:
    """A task in one of the formats that its family has."""
    draw = rng.random()
    if task.family == "listfn" and draw < 0.3:
        steps = ", ".join(task.given["plan"])
        if draw < 0.15:
            return Exchange(formats.plan(task.question), steps)
        return Exchange(formats.planned(task.question, steps), task.solution)
    if task.family == "chain" and draw < 0.7:
        order = task.given["order"]
        if draw < 0.25:
            return Exchange(formats.split(task.question), chain.split(task))
        if draw < 0.5:
            return Exchange(*chain.part(task, rng.choice(order)))
        if len(order) > 1:
            known = order[: rng.randint(1, len(order) - 1)]
            values = ", ".join(f"{name}={task.given['values'][name]}" for name in known)
            return Exchange(formats.reduce(task.question, values), chain.reduced(task, known))
    return Exchange(task.question, task.solution)


def exchanges(seed: int) -> Iterator[Exchange]:
    """Endless exchanges."""
    rng = random.Random(seed)
    for task in training_tasks(rng):
        yield exchange(task, rng)


def batches(source: Iterator[Exchange], tokens: int, *, ahead: int = 16) -> Iterator[list[Exchange]]:
    """Batches of about so many tokens, each of exchanges of about one length, in random order."""
    rng = random.Random(0)
    while True:
        waiting = sorted((next(source) for _ in range(ahead * tokens // 100)), key=lambda e: e.length)
        cut: list[list[Exchange]] = [[]]
        for one in waiting:
            if (len(cut[-1]) + 1) * one.length > tokens:
                cut.append([])
            cut[-1].append(one)
        rng.shuffle(cut)
        yield from cut


def laid_out(batch: Sequence[Exchange]) -> tuple[list[list[int]], list[int]]:
    """Token ids padded on the right, and where each reply begins."""
    longest = max(e.length for e in batch)
    rows = [[BOS, *encode(e.question), SEP, *encode(e.reply), EOS] for e in batch]
    return [row + [PAD] * (longest - len(row)) for row in rows], [len(e.question) + 2 for e in batch]
