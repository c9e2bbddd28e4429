"""Attempts at training tasks, and how they did. Programs run in the sandbox: what a model writes is hostile."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from archon.benchmarks.lab.arith import rewritten
from archon.benchmarks.lab.family import Split, Task, tasks
from archon.benchmarks.lab.training.data import FAMILIES
from archon.execution import Limits, Program, Suite
from archon.problem import Case
from archon.session import Session

_LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20.0)


@dataclass
class Attempt:
    """A reply, how it did, and the first thing wrong with it."""

    task: Task
    reply: str
    right: bool = False
    wrong: int = 0
    """The first wrong line (of a list function: visible example), from 1; 0 where none is."""


def task_set(per_level: int, split: Split, seed: int) -> list[Task]:
    """So many tasks of each family and level."""
    drawn = []
    for family in FAMILIES.values():
        for level in family.levels:
            source = tasks(family, level, split, seed)
            drawn += [task for _, task in zip(range(per_level), source, strict=False)]
    random.Random(seed).shuffle(drawn)
    return drawn


async def graded(attempts: Sequence[Attempt], *, where: bool = True) -> None:
    """Fill in how each did, and `where` it goes wrong; programs run in the sandbox."""
    programs: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.task.family == "listfn":
            programs[attempt.task.question].append(attempt)
            continue
        lines = attempt.reply.split("\n")
        attempt.right = lines[-1] == attempt.task.answer
        if where and not attempt.right:
            off = (i for i, line in enumerate(lines, 1) if _value(line) != attempt.task.answer)
            attempt.wrong = next(off, len(lines))
    async with Session() as session:
        await asyncio.gather(*(_run(session, group) for group in programs.values()))


def _value(line: str) -> str | None:
    if line.isdigit():
        return line
    try:
        lines = rewritten(line)
    except (ValueError, IndexError, KeyError):
        return None
    return lines[-1] if lines else None


async def _run(session: Session, group: Sequence[Attempt]) -> None:
    examples = group[0].task.given["examples"]
    suite = Suite(cases=tuple(Case(args=(x,), expected=y) for x, y in examples))
    sources = list(dict.fromkeys(a.reply for a in group))
    programs = [Program(source=source, entry_point="f") for source in sources]
    reports = dict(zip(sources, await session.test_many(programs, suite, _LIMITS), strict=True))
    for attempt in group:
        report = reports[attempt.reply]
        attempt.right = report.status == "passed"
        off = (i for i, test in enumerate(report.tests[:3], 1) if test.status != "passed")
        attempt.wrong = next(off, 0)
