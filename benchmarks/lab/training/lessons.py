"""Lessons from a model's own samples: to verify, to criticise and to fuse replies."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from archon.benchmarks.lab import formats
from archon.benchmarks.lab.training.attempts import Attempt
from archon.benchmarks.lab.training.data import Exchange, exchange, training_tasks

_LONGEST = 720
"""Characters of an exchange."""
_OLD = 0.5
"""Share of the first exercises among the lessons, lest they be forgotten."""


def lessons(attempts: Sequence[Attempt], seed: int) -> Iterator[Exchange]:
    """Endless exchanges: half of the first kind, and of the others as many about right as about wrong replies."""
    rng = random.Random(seed)
    old = training_tasks(rng)
    groups: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.task.question].append(attempt)
    sides = [[a for a in attempts if a.right], [a for a in attempts if not a.right]]
    while True:
        if rng.random() < _OLD or not all(sides):
            yield exchange(next(old), rng)
            continue
        attempt = rng.choice(rng.choice(sides))
        lesson = _lesson(attempt, groups[attempt.task.question], rng)
        if len(lesson.question) + len(lesson.reply) <= _LONGEST:
            yield lesson


def _lesson(attempt: Attempt, group: Sequence[Attempt], rng: random.Random) -> Exchange:
    task, kind = attempt.task, rng.random()
    if kind < 0.4:
        return Exchange(formats.verify(task.question, attempt.reply), "yes" if attempt.right else "no")
    if kind < 0.6:
        ask = formats.counterexample if task.family == "listfn" else formats.critique
        return Exchange(ask(task.question, attempt.reply), str(attempt.wrong))
    chosen = rng.sample(group, min(len(group), rng.randint(2, 4)))
    right = [a.reply for a in chosen if a.right]
    best = rng.choice(right) if right else task.solution
    return Exchange(formats.fuse(task.question, [a.reply for a in chosen]), best)
