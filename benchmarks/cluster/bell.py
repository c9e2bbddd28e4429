"""Calling off tasks that nobody waits for any more.

Ray's own `cancel` ends the whole program where a task ends in the same moment (ray 2.60: "Tried to complete task that
was not pending"; https://github.com/ray-project/ray/pull/54738 tells of its like), and a race calls off its losers all
the time. So a worker listens, beside its work, for whether that is still wanted.

Cost: no calls; one light process for a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Bell:
    """Rings once for each task, by its number."""

    def __init__(self) -> None:
        self._over: set[int] = set()
        self._heard: dict[int, asyncio.Event] = {}

    async def ring(self, number: int) -> None:
        """Nobody waits for this task any more: it has been done, or called off."""
        self._over.add(number)
        if number in self._heard:
            self._heard.pop(number).set()

    async def rung(self, number: int) -> None:
        """Wait until nobody does."""
        if number not in self._over:
            await self._heard.setdefault(number, asyncio.Event()).wait()


async def while_wanted(work: Coroutine[Any, Any, T], number: int, bell: Any) -> T | None:
    """What comes of this work, and None where it was called off in the middle. `bell` is the actor's handle."""
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(_heard(number, bell))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
        return None if working.cancelled() else working.result()
    finally:
        listening.cancel()
        working.cancel()


async def _heard(number: int, bell: Any) -> None:
    """Return when it rings. A bell that is gone never does: its program is gone too, and Ray ends what that ran."""
    with suppress(Exception):
        await bell.rung.remote(number)
        return
    await asyncio.Event().wait()
