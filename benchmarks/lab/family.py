"""What a family of problems is: a generator with levels, and splits that cannot overlap.

A task's split follows from its question alone: its hash says train, dev or test, and a generator passes over
tasks of other splits. So whatever the seeds, no question is in two splits.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Task:
    """One problem with its solution."""

    family: str
    level: int
    question: str
    solution: str
    """A right reply, as a model is trained to write it."""
    answer: str = ""
    """The answer as text, where it is a number."""
    given: Any = None
    """What else the family knows: tests of a function, assignments of a chain."""

    @property
    def split(self) -> Split:
        """Where it belongs: 8 of 10 questions are for training, 1 for development, 1 for tests."""
        tenth = hashlib.sha256(f"{self.family}|{self.question}".encode()).digest()[0] % 10
        return "dev" if tenth == 0 else "test" if tenth == 1 else "train"


class Family(Protocol):
    """A generator of tasks."""

    name: ClassVar[str]
    levels: ClassVar[Sequence[int]]
    """From easy to (nearly) hopeless."""

    def draw(self, rng: random.Random, level: int) -> Task:
        """One task of a level."""
        ...


def tasks(family: Family, level: int, split: Split, seed: int = 0) -> Iterator[Task]:
    """Endless distinct tasks of a level and split, the same for the same seed."""
    rng = random.Random(f"{family.name}|{level}|{split}|{seed}")
    seen: set[str] = set()
    misses = 0
    while misses < 10_000:  # a level may have few tasks
        task = family.draw(rng, level)
        if task.split != split or task.question in seen:
            misses += 1
            continue
        misses = 0
        seen.add(task.question)
        yield task
