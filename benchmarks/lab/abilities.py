"""What the nano model can do beside solving, measured on test problems: `python -m archon.benchmarks.lab.abilities`.

It is asked to verify, to criticise and to fuse its own samples, to plan, to split and to reduce; and each is held
against what it would be compared with: chance, the better of saying always yes or no, one sample, a majority vote.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import compress, islice
from typing import NamedTuple

import click

from archon.benchmarks.lab import chain, formats
from archon.benchmarks.lab.family import Task, tasks
from archon.benchmarks.lab.training.attempts import Attempt, graded
from archon.benchmarks.lab.training.data import FAMILIES
from archon.benchmarks.lab.training.rollouts import Asked, Draw, attempted, opened
from archon.benchmarks.statistics.intervals import wilson

_ROOM = 700
"""Characters of a question: longer ones it has not learnt, and the longest do not fit."""


class Figure(NamedTuple):
    """One line of the account."""

    family: str
    what: str
    outcomes: Sequence[Sequence[bool]]
    """Of each problem, what was right."""
    beside: str = ""
    """What to hold it against."""

    def __str__(self) -> str:
        count = sum(map(len, self.outcomes))
        mean, low, high, problems = wilson([sum(o) / len(o) for o in self.outcomes], samples=count)
        shown = f"{mean:6.1%} [{low:.1%}, {high:.1%}] of {count} on {problems}" if count else "   none"
        line = f"{self.family:7} {self.what:44} {shown}"
        return f"{line}   {self.beside}" if self.beside else line


async def figures(draw: Draw, per_level: int) -> AsyncIterator[Figure]:
    """All of them, each when it is known."""
    for family in FAMILIES.values():
        drawn = [t for level in family.levels for t in islice(tasks(family, level, "test", 9), per_level)]
        attempts = await attempted(draw, drawn, 4, temperature=0.8, seed=11)
        found = await _verifying(draw, family.name, attempts)
        found += await _criticising(draw, family.name, attempts)
        found += await _fusing(draw, family.name, drawn, attempts)
        if family.name == "listfn":
            found += await _planning(draw, drawn, attempts)
        if family.name == "chain":
            found += await _taking_apart(draw, drawn, attempts)
        for figure in found:
            yield figure


async def _verifying(draw: Draw, family: str, attempts: Sequence[Attempt]) -> list[Figure]:
    said = await _answers(draw, [formats.verify(a.task.question, a.reply) for a in attempts])
    share = _share(a.right for a in attempts)
    accepted = [a for s, a in zip(said, attempts, strict=True) if s == "yes"]
    return [
        Figure(family, "verify: says of a reply whether it is right",
               _grouped((a.task, (s == "yes") == a.right) for s, a in zip(said, attempts, strict=True)),
               f"always one: {max(share, 1 - share):.1%}"),
        Figure(family, "verify: right among those it accepts", _grouped((a.task, a.right) for a in accepted),
               f"right of all: {share:.1%}"),
    ]  # fmt: skip


async def _criticising(draw: Draw, family: str, attempts: Sequence[Attempt]) -> list[Figure]:
    ask = formats.counterexample if family == "listfn" else formats.critique
    off = [a for a in attempts if a.wrong]
    said = await _answers(draw, [ask(a.task.question, a.reply) for a in off])
    found = _grouped((a.task, s == str(a.wrong)) for s, a in zip(said, off, strict=True))
    common = max(Counter(a.wrong for a in off).values(), default=0) / max(1, len(off))
    return [Figure(family, "critique: finds what is wrong first", found, f"always one: {common:.1%}")]


async def _fusing(
    draw: Draw, family: str, drawn: Sequence[Task], attempts: Sequence[Attempt]
) -> list[Figure]:
    groups = [attempts[i : i + 4] for i in range(0, len(attempts), 4)]
    asked = [formats.fuse(g[0].task.question, [a.reply for a in g]) for g in groups]
    fit = [len(question) < _ROOM for question in asked]
    drawn, groups, asked = list(compress(drawn, fit)), list(compress(groups, fit)), list(compress(asked, fit))
    fused = await _graded(drawn, await _answers(draw, asked))
    beside = (
        f"one of the 4: {_share(a.right for g in groups for a in g):.1%}, "
        f"majority: {_share(map(_majority, groups)):.1%}, "
        f"some right: {_share(any(a.right for a in g) for g in groups):.1%}"
    )
    return [Figure(family, "fuse: right from four replies", fused, beside)]


def _majority(group: Sequence[Attempt]) -> bool:
    def answer(attempt: Attempt) -> str:
        return attempt.reply if attempt.task.family == "listfn" else attempt.reply.split("\n")[-1]

    common = Counter(map(answer, group)).most_common(1)[0][0]
    return next(a.right for a in group if answer(a) == common)


async def _planning(draw: Draw, drawn: Sequence[Task], attempts: Sequence[Attempt]) -> list[Figure]:
    plans = await _answers(draw, [formats.plan(t.question) for t in drawn], temperature=0.8)
    own = [formats.planned(t.question, plan) for t, plan in zip(drawn, plans, strict=True)]
    true = [formats.planned(t.question, ", ".join(t.given["plan"])) for t in drawn]
    beside = f"without a plan: {_share(a.right for a in attempts):.1%}"
    return [
        Figure("listfn", f"plan: a program from {what}", await _graded(drawn, await _answers(draw, asked)), beside)
        for what, asked in (("its own plan", own), ("a true plan", true))
    ]  # fmt: skip


async def _taking_apart(draw: Draw, drawn: Sequence[Task], attempts: Sequence[Attempt]) -> list[Figure]:
    splits = await _answers(draw, [formats.split(t.question) for t in drawn])
    known = [[f"{n}={t.given['values'][n]}" for n in t.given["order"][:-1]] for t in drawn]
    longer = [(t, k) for t, k in zip(drawn, known, strict=True) if k]
    cut = await _answers(draw, [formats.reduce(t.question, ", ".join(k)) for t, k in longer])
    solved = await asyncio.gather(*(_by_parts(draw, t, s) for t, s in zip(drawn, splits, strict=True)))
    return [
        Figure("chain", "split: the needed assignments in order",
               [[s == chain.split(t)] for s, t in zip(splits, drawn, strict=True)]),
        Figure("chain", "reduce: the question with values filled in",
               [[r == chain.reduced(t, t.given["order"][:-1])] for r, (t, _) in zip(cut, longer, strict=True)]),
        *(Figure("chain", f"level {level}: by its own split, part by part",
                 [[s] for s, t in zip(solved, drawn, strict=True) if t.level == level],
                 f"at once: {_share(a.right for a in attempts if a.task.level == level):.1%}")
          for level in sorted({t.level for t in drawn})),
    ]  # fmt: skip


async def _graded(drawn: Sequence[Task], replies: Sequence[str]) -> list[list[bool]]:
    written = [Attempt(t, r) for t, r in zip(drawn, replies, strict=True)]
    await graded(written)
    return [[attempt.right] for attempt in written]


def _grouped(outcomes: Iterable[tuple[Task, bool]]) -> list[list[bool]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for task, right in outcomes:
        groups[task.question].append(right)
    return list(groups.values())


def _share(outcomes: Iterable[bool]) -> float:
    known = list(outcomes)
    return sum(known) / max(1, len(known))


async def _by_parts(draw: Draw, task: Task, split: str) -> bool:
    """Whether the model's own split, each part asked by itself, gives the answer."""
    values: dict[str, str] = {}
    wanted = task.question.rpartition(" ")[2].rstrip(".")
    for line in split.split("\n"):
        name, _, made = line.partition("=")
        operands: Mapping[str, str] = {c: values[c] for c in made if c in values}
        (values[name],) = await _answers(draw, [chain.question({**operands, name: made}, name)])
    return values.get(wanted) == task.answer


async def _answers(draw: Draw, questions: Iterable[str], *, temperature: float = 0.0) -> list[str]:
    asked = [Asked(q) for q in questions]
    return [some[0] for some in await draw(asked, 1, temperature=temperature, seed=5)]


@click.command()
@click.option("--weights", default="lm", show_default=True, help="Shipped weights, or a folder.")
@click.option("--per-level", default=25, show_default=True, help="Problems of each family and level.")
def main(weights: str, per_level: int) -> None:
    """Print what the nano model can do beside solving, on problems of the split `test`.

    \b
    python -m archon.benchmarks.lab.abilities
    python -m archon.benchmarks.lab.abilities --weights nano/lm --per-level 10
    """

    async def account() -> None:
        async with opened(weights) as draw:
            async for figure in figures(draw, per_level):
                print(figure, flush=True)

    asyncio.run(account())


if __name__ == "__main__":
    main()
