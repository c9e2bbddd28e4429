"""lab/chain: variables are assigned from others, in any order; what is one of them?

Answered at once it is hard, as everything is to be worked out unseen. Its parts are easy: what to work out, in
which order, is read off the question, and each part is one operation. So taking it apart pays.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from archon.benchmarks.lab.family import Task

_NAMES = "abcdefghijkmnpqrstuvwxyz"
_MOST = 99


class Chain:
    """Chains of one to six operations with numbers up to 99; from level 3 on, some assignments are not needed."""

    name: ClassVar[str] = "chain"
    levels: ClassVar[Sequence[int]] = (1, 2, 3, 4, 5, 6)
    """How many operations are needed."""

    def draw(self, rng: random.Random, level: int) -> Task:
        """A question, answered at once."""
        while True:
            task = self._try(rng, level)
            if task is not None:
                return task

    def _try(self, rng: random.Random, level: int) -> Task | None:
        idle = rng.randint(0, 2) if level > 2 else 0
        names = rng.sample(_NAMES, level + idle)
        values: dict[str, int] = {}
        made: dict[str, str] = {}
        for name in names[:level]:
            needed = [list(made)[-1]] if made else []
            assigned = _assignment(rng, values, needed)
            if assigned is None:
                return None
            made[name], values[name] = assigned
        wanted = names[level - 1]
        for name in names[level:]:
            assigned = _assignment(rng, {k: v for k, v in values.items() if k != wanted}, [])
            if assigned is None:
                return None
            made[name], values[name] = assigned
        order = list(made)
        rng.shuffle(order)
        shown = {name: made[name] for name in order}
        return Task(
            self.name, level, question(shown, wanted), str(values[wanted]), str(values[wanted]),
            given={"assigned": shown, "wanted": wanted, "values": values, "order": names[:level]},
        )  # fmt: skip


def question(assigned: Mapping[str, object], wanted: str) -> str:
    """As it is asked."""
    return f"Let {', '.join(f'{name}={value}' for name, value in assigned.items())}. Find {wanted}."


def split(task: Task) -> str:
    """What is needed, in an order in which it can be worked out: one assignment a line."""
    assigned: dict[str, Any] = task.given["assigned"]
    return "\n".join(f"{name}={assigned[name]}" for name in task.given["order"])


def part(task: Task, name: str) -> tuple[str, str]:
    """The question for one variable whose operands are known by now, and its answer."""
    assigned, values = task.given["assigned"], task.given["values"]
    known = {letter: values[letter] for letter in assigned[name] if letter.isalpha()}
    return question({**known, name: assigned[name]}, name), str(values[name])


def reduced(task: Task, known: Sequence[str]) -> str:
    """The same question with some values filled in: shorter, and worth the same."""
    assigned, values, wanted = task.given["assigned"], task.given["values"], task.given["wanted"]
    left = {name: str(values[name]) if name in known else made for name, made in assigned.items()}
    needed, waiting = set(), [wanted]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += [letter for letter in left[name] if letter.isalpha()]
    return question({name: made for name, made in left.items() if name in needed}, wanted)


def _assignment(
    rng: random.Random, values: Mapping[str, int], needed: Sequence[str]
) -> tuple[str, int] | None:
    for _ in range(50):
        operation = rng.choice("++--*")
        operands: list[tuple[str, int]] = [(name, values[name]) for name in needed]
        while len(operands) < 2:
            others = [name for name in values if (name, values[name]) not in operands]
            if others and rng.random() < 0.4:
                name = rng.choice(others)
                operands.append((name, values[name]))
            else:
                number = rng.randint(2, 9 if operation == "*" else 20)
                operands.append((str(number), number))
        rng.shuffle(operands)
        (left, a), (right, b) = operands
        if operation == "*" and min(a, b) > 9:
            continue
        value = {"+": a + b, "-": a - b, "*": a * b}[operation]
        if 0 <= value <= _MOST:
            return f"{left}{operation}{right}", value
    return None
