"""What the nano model can do beside solving, measured on test problems: `python -m archon.benchmarks.lab.abilities`.

It is asked to verify, to criticise and to fuse its own samples, to plan, to split and to reduce; and each is held
against what it would be compared with: chance, the better of saying always yes or no, one sample, a majority vote.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import click

from archon.backends.base import Backend
from archon.benchmarks.lab import chain, formats
from archon.benchmarks.lab.family import Task, tasks
from archon.benchmarks.lab.training.attempts import Attempt, graded
from archon.benchmarks.lab.training.data import FAMILIES
from archon.benchmarks.lab.training.rollouts import Asked, attempted, sampled
from archon.benchmarks.statistics.intervals import wilson


class Figure(NamedTuple):
    """One line of the account."""

    family: str
    what: str
    right: int
    of: int
    beside: str = ""
    """What to hold it against."""

    def __str__(self) -> str:
        interval = wilson([1.0] * self.right + [0.0] * (self.of - self.right))
        low, high = interval.low, interval.high
        share = self.right / max(1, self.of)
        line = f"{self.family:7} {self.what:44} {share:6.1%} [{low:.1%}, {high:.1%}] of {self.of:4}"
        return f"{line}   {self.beside}" if self.beside else line


async def figures(backend: Backend, per_level: int) -> list[Figure]:
    """All of them."""
    found: list[Figure] = []
    for family in FAMILIES.values():
        drawn = [t for level in family.levels for t in islice(tasks(family, level, "test", 9), per_level)]
        attempts = await attempted(backend, drawn, 4, temperature=0.8, seed=11)
        found += await _verifying(backend, family.name, attempts)
        found += await _criticising(backend, family.name, attempts)
        found += await _fusing(backend, family.name, drawn, attempts)
        if family.name == "listfn":
            found += await _planning(backend, drawn, attempts)
        if family.name == "chain":
            found += await _taking_apart(backend, drawn, attempts)
    return found


async def _verifying(backend: Backend, family: str, attempts: Sequence[Attempt]) -> list[Figure]:
    said = await _answers(backend, [formats.verify(a.task.question, a.reply) for a in attempts])
    agree = sum((s == "yes") == a.right for s, a in zip(said, attempts, strict=True))
    yes = sum(a.right for a in attempts)
    most = max(yes, len(attempts) - yes) / len(attempts)
    accepted = [a for s, a in zip(said, attempts, strict=True) if s == "yes"]
    return [
        Figure(family, "verify: says of a reply whether it is right", agree, len(attempts), f"always one: {most:.1%}"),
        Figure(family, "verify: right among those it accepts", sum(a.right for a in accepted), len(accepted),
               f"right of all: {yes / len(attempts):.1%}"),
    ]  # fmt: skip


async def _criticising(backend: Backend, family: str, attempts: Sequence[Attempt]) -> list[Figure]:
    ask = formats.counterexample if family == "listfn" else formats.critique
    off = [a for a in attempts if a.wrong]
    said = await _answers(backend, [ask(a.task.question, a.reply) for a in off])
    agree = sum(s == str(a.wrong) for s, a in zip(said, off, strict=True))
    common = max(Counter(a.wrong for a in off).values(), default=0) / max(1, len(off))
    return [
        Figure(family, "critique: finds what is wrong first", agree, len(off), f"always one: {common:.1%}")
    ]


async def _fusing(
    backend: Backend, family: str, drawn: Sequence[Task], attempts: Sequence[Attempt]
) -> list[Figure]:
    groups = [attempts[i : i + 4] for i in range(0, len(attempts), 4)]
    asked = [formats.fuse(g[0].task.question, [a.reply for a in g]) for g in groups]
    fused = [Attempt(t, r) for t, r in zip(drawn, await _answers(backend, asked), strict=True)]
    await graded(fused)
    voted = sum(_majority(g) for g in groups)
    one, some = sum(a.right for a in attempts) / len(attempts), sum(any(a.right for a in g) for g in groups)
    beside = (
        f"one of the 4: {one:.1%}, majority: {voted / len(groups):.1%}, some right: {some / len(groups):.1%}"
    )
    return [Figure(family, "fuse: right from four replies", sum(a.right for a in fused), len(fused), beside)]


def _majority(group: Sequence[Attempt]) -> bool:
    def answer(attempt: Attempt) -> str:
        return attempt.reply if attempt.task.family == "listfn" else attempt.reply.split("\n")[-1]

    common = Counter(map(answer, group)).most_common(1)[0][0]
    return next(a.right for a in group if answer(a) == common)


async def _planning(backend: Backend, drawn: Sequence[Task], attempts: Sequence[Attempt]) -> list[Figure]:
    plans = await _answers(backend, [formats.plan(t.question) for t in drawn], temperature=0.8)
    own = [formats.planned(t.question, plan) for t, plan in zip(drawn, plans, strict=True)]
    true = [formats.planned(t.question, ", ".join(t.given["plan"])) for t in drawn]
    found = []
    for what, asked in (("its own plan", own), ("a true plan", true)):
        written = [Attempt(t, r) for t, r in zip(drawn, await _answers(backend, asked), strict=True)]
        await graded(written)
        one = sum(a.right for a in attempts) / len(attempts)
        found.append(Figure("listfn", f"plan: a program from {what}", sum(a.right for a in written), len(written),
                            f"without a plan: {one:.1%}"))  # fmt: skip
    return found


async def _taking_apart(backend: Backend, drawn: Sequence[Task], attempts: Sequence[Attempt]) -> list[Figure]:
    splits = await _answers(backend, [formats.split(t.question) for t in drawn])
    exact = sum(s == chain.split(t) for s, t in zip(splits, drawn, strict=True))
    known = [[f"{n}={t.given['values'][n]}" for n in t.given["order"][:-1]] for t in drawn]
    longer = [(t, k) for t, k in zip(drawn, known, strict=True) if k]
    cut = await _answers(backend, [formats.reduce(t.question, ", ".join(k)) for t, k in longer])
    same = sum(r == chain.reduced(t, t.given["order"][:-1]) for r, (t, _) in zip(cut, longer, strict=True))
    solved = await asyncio.gather(*(_by_parts(backend, t, s) for t, s in zip(drawn, splits, strict=True)))
    one = sum(a.right for a in attempts) / len(attempts)
    return [
        Figure("chain", "split: the needed assignments in order", exact, len(drawn)),
        Figure("chain", "reduce: the question with values filled in", same, len(longer)),
        Figure(
            "chain", "solved by its own split, part by part", sum(solved), len(drawn), f"at once: {one:.1%}"
        ),
    ]


async def _by_parts(backend: Backend, task: Task, split: str) -> bool:
    """Whether the model's own split, each part asked by itself, gives the answer."""
    values: dict[str, str] = {}
    wanted = task.question.rpartition(" ")[2].rstrip(".")
    for line in split.split("\n"):
        name, _, made = line.partition("=")
        operands: Mapping[str, str] = {c: values[c] for c in made if c in values}
        (values[name],) = await _answers(backend, [chain.question({**operands, name: made}, name)])
    return values.get(wanted) == task.answer


async def _answers(backend: Backend, questions: Iterable[str], *, temperature: float = 0.0) -> list[str]:
    asked = [Asked(q) for q in questions]
    return [some[0] for some in await sampled(backend, asked, 1, temperature=temperature, seed=5)]


@click.command()
@click.option("--weights", default="lm", help="Shipped weights, or a folder.")
@click.option("--per-level", default=25, help="Problems of each family and level.")
def main(backend: Backend, per_level: int) -> None:
    """Print the account."""
    for figure in asyncio.run(figures(backend, per_level)):
        print(figure, flush=True)


if __name__ == "__main__":
    main()
