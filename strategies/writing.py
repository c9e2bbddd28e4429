"""What stages that write answers have in common: several streams as one, numbers that timing does not change, and
replies that are whole. Cost: none of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, TypeAlias

from pydantic import Field

from archon.candidate import Candidate
from archon.draw import Draw
from archon.run import Run
from archon.stage import Candidates
from archon.strategies.asking import Asking
from archon.tasks import settle

Written: TypeAlias = AsyncGenerator[Candidate, None] | Draw
"""A stream that a stage writes."""


class Writing(Asking):
    """A stage whose replies are answers as they are."""

    again: Annotated[int, Field(ge=0, le=0)] = 0
    """Nothing is read here, so nothing is asked again."""


def numbered(candidate: Candidate, number: int) -> Candidate:
    """The candidate as number so-and-so of those that its stage wrote.

    Where calls overlap, the order in which they are made is chance, and so are the numbers that candidates come
    with. A stage that knows their order gives them numbers of its own; those of all that it writes, or of none.
    """
    path, _, _ = candidate.id.rpartition("#")
    return replace(candidate, id=f"{path}#{number}", index=number)


def descended(candidate: Candidate, origin: Candidate, taken: set[int]) -> Candidate:
    """The candidate under the number of the one that it was made from, or the next that is free; it is taken then."""
    number = origin.index
    while number in taken:
        number += 1
    taken.add(number)
    return numbered(candidate, number)


async def one(draw: Draw) -> Candidate | None:
    """The reply of a draw of one. None where there is none."""
    replies = [reply async for reply in draw]
    return replies[0] if replies else None


async def whole(draw: Draw) -> Candidate | None:
    """The reply of a draw of one. None where there is none, where it is blank, and where it was cut off."""
    reply = await one(draw)
    return None if reply is None or not reply.text.strip() or reply.finish == "length" else reply


async def merged(
    run: Run, *streams: Written, follow: Callable[[Candidate], Written] | None = None
) -> Candidates:
    """The candidates of several streams in order of arrival; `follow` makes of each the stream that it begins.

    A stream goes on when its last candidate has been taken by those after this stage. So where they may stop early,
    it pays for nothing more before they have looked at what they have. Raises what a stream raises.
    """
    ready: asyncio.Queue[asyncio.Task[None] | tuple[Candidate, asyncio.Future[None]]] = asyncio.Queue()
    tasks: list[asyncio.Task[None]] = []

    def begin(stream: Written, follow: Callable[[Candidate], Written] | None) -> None:
        task = run.spawn(drain(stream, follow))
        tasks.append(task)
        task.add_done_callback(ready.put_nowait)

    async def drain(stream: Written, follow: Callable[[Candidate], Written] | None) -> None:
        async with aclosing(stream):
            async for candidate in stream:
                taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                ready.put_nowait((candidate, taken))
                await taken
                if follow is not None:
                    begin(follow(candidate), None)

    try:
        for stream in streams:
            begin(stream, follow)
        ended = 0
        while ended < len(tasks):
            item = await ready.get()
            if isinstance(item, asyncio.Task):
                item.result()
                ended += 1
                continue
            candidate, taken = item
            yield candidate
            if not taken.done():
                taken.set_result(None)
    finally:
        await settle(tasks)
