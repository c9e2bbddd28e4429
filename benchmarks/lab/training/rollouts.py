"""Samples of a nano model on training tasks: what verifying and rewarding are learnt from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from archon.backends.base import Backend, Progress, Request, Sampling
from archon.backends.nano.backend import Nano
from archon.benchmarks.lab.family import Task
from archon.benchmarks.lab.training.attempts import Attempt, graded
from archon.benchmarks.lab.training.labels import Labelled
from archon.problem import Message

_AT_ONCE = 64


class Asked(NamedTuple):
    """A question, and the beginning of the reply where that is given."""

    question: str
    prefix: str = ""


class Draw(Protocol):
    """Whatever draws replies of a model."""

    async def __call__(
        self, asked: Sequence[Asked], n: int, *, temperature: float, seed: int
    ) -> list[list[str]]:
        """`n` whole replies (given beginnings included) to each question, in order."""
        ...


@asynccontextmanager
async def opened(weights: str | Path) -> AsyncIterator[Draw]:
    """The nano engine with these weights, closed in the end."""
    backend = Nano(weights=str(weights)).connect()
    try:
        yield drawing(backend)
    finally:
        await backend.close()


def drawing(backend: Backend) -> Draw:
    """What draws with a backend."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def draw(asked: Sequence[Asked], n: int, *, temperature: float, seed: int) -> list[list[str]]:
        return list(await asyncio.gather(*(_some(backend, gate, a, n, temperature, seed) for a in asked)))

    return draw


async def _some(
    backend: Backend, gate: asyncio.Semaphore, asked: Asked, n: int, temperature: float, seed: int
) -> list[str]:
    sampling = Sampling(temperature=temperature, max_tokens=400, seed=seed)
    request = Request((Message(role="user", content=asked.question),), prefix=asked.prefix, sampling=sampling)
    async with gate:
        replies = [c async for c in backend.complete(request, range(n), Progress())]
    return [asked.prefix + reply.text for reply in sorted(replies, key=lambda c: c.index)]


async def attempted(
    draw: Draw, drawn: Sequence[Task], n: int, *, temperature: float, seed: int, where: bool = True
) -> list[Attempt]:
    """`n` graded attempts at each task."""
    replies = await draw([Asked(task.question) for task in drawn], n, temperature=temperature, seed=seed)
    attempts = [Attempt(task, reply) for task, some in zip(drawn, replies, strict=True) for reply in some]
    await graded(attempts, where=where)
    return attempts


async def labelled(
    draw: Draw, attempts: Sequence[Attempt], n: int, *, temperature: float, seed: int
) -> list[Labelled]:
    """Monte Carlo labels: from the start and from the end of each line but the last, the share of `n` continuations
    that come out right; at the end of the reply, whether it is right."""
    asked = [
        (i, place, Asked(a.task.question, a.reply[:place]))
        for i, a in enumerate(attempts)
        for place in _places(a.reply)
    ]
    replies = await draw([q for *_, q in asked], n, temperature=temperature, seed=seed)
    ends = [
        [Attempt(attempts[i].task, reply) for reply in some]
        for (i, _, _), some in zip(asked, replies, strict=True)
    ]
    await graded([end for some in ends for end in some], where=False)
    labels: list[dict[int, float]] = [{} for _ in attempts]
    for (i, place, _), some in zip(asked, ends, strict=True):
        labels[i][place] = sum(end.right for end in some) / len(some)
    for attempt, known in zip(attempts, labels, strict=True):
        known[len(attempt.reply)] = float(attempt.right)
    return [
        Labelled(a.task.question, a.reply, known, a.task.family)
        for a, known in zip(attempts, labels, strict=True)
    ]


def by_outcome(attempt: Attempt, *, everywhere: bool) -> Labelled:
    """Labels by how the attempt itself came out: at its end, or `everywhere`, as a single roll-out from each place."""
    places = [*(_places(attempt.reply) if everywhere else ()), len(attempt.reply)]
    labels = dict.fromkeys(places, float(attempt.right))
    return Labelled(attempt.task.question, attempt.reply, labels, attempt.task.family)


def _places(reply: str) -> list[int]:
    """Its start, and the end of each line but the last."""
    return [0, *(i + 1 for i, c in enumerate(reply) if c == "\n")]
