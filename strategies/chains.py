"""Chains of calls that each end in candidates: many at once, their candidates as they come. Cost: none of its own.

Where tokens or money are limited, nobody knows how many chains they pay for, and chains that all begin together all
end unfinished. So there few begin, and then as many as are done: when the budget runs out, at most about half of
what was spent has come to nothing. Where requests are limited, a technique knows how many chains they are enough for
(`requests_left`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias, TypeVar

from archon.candidate import Candidate
from archon.errors import BudgetExhausted
from archon.run import Run
from archon.stage import Candidates
from archon.tasks import first_error

T = TypeVar("T")

Emit: TypeAlias = Callable[[Candidate], None]
"""Takes a candidate that is finished."""

AHEAD = 64
"""How many chains are in work at once by default."""
FEW = 2
"""How many begin where tokens or money are limited."""


def begins_with_few(run: Run) -> bool:
    """Whether tokens or money are limited."""
    return bool(run.meter.limited() - {"requests"})


def requests_left(run: Run) -> int | None:
    """How many requests the tightest budget around the stage still allows; None where none limits them."""
    tightest = _tightest(run)
    return None if tightest is None else tightest[0]


def cut_short(run: Run) -> None:
    """Have the outcome say that a limit on requests made the stage do less than it is set to."""
    if (tightest := _tightest(run)) is not None:
        left, scope = tightest
        said = f"the stage {run.stage!r} did what {left} requests were enough for"
        run.scope.note_exhausted(BudgetExhausted(scope, "requests", said))


def _tightest(run: Run) -> tuple[int, str] | None:
    """What is left of the tightest limit on requests, and whose it is."""
    left, meter = [], run.meter
    while True:
        if (limit := meter.budget.requests) is not None:
            left.append((limit - meter.spent["requests"] - meter.held["requests"], meter.scope))
        if meter.parent is None:
            return min(left, default=None)
        meter = meter.parent


async def chained(
    run: Run, items: AsyncIterator[T], work: Callable[[T, Emit], Awaitable[None]], *, ahead: int = AHEAD
) -> Candidates:
    """The candidates that `work` makes of the items, in order of arrival; at most `ahead` items are in work at once.

    An item is taken when its turn has come, and not before. Raises what `work` and the items raise, at once.
    """
    wary = begins_with_few(run)
    found: asyncio.Queue[Candidate | None] = asyncio.Queue()
    room = asyncio.Event()
    at_work = done = 0

    async def one(item: T) -> None:
        nonlocal at_work, done
        await work(item, found.put_nowait)
        at_work, done = at_work - 1, done + 1
        room.set()

    async def everything() -> None:
        nonlocal at_work
        try:
            async with asyncio.TaskGroup() as group:
                async for item in items:
                    at_work += 1
                    group.create_task(one(item))
                    while at_work >= (min(ahead, max(FEW, done)) if wary else ahead):
                        room.clear()
                        await room.wait()
        except BaseExceptionGroup as several:
            error = first_error(several)
            raise error from error.__cause__
        finally:
            found.put_nowait(None)

    whole = run.spawn(everything())
    while (candidate := await found.get()) is not None:
        yield candidate
    await whole
