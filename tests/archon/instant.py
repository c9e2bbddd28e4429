"""A store for the virtual clock: the same SQL on the same file, no thread, answers after a chosen delay.

The real store answers from a thread, which a clock that jumps cannot wait for. Here work is done the
moment it is handed over, in the same order, and its answer comes a turn of the loop later, or after `delay`
virtual seconds. So a whole run, its store included, is deterministic.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

from archon.store import SQLiteStore, sqlite
from archon.store.scribe import Work
from tests.archon.virtual import virtually

T = TypeVar("T")

PATIENCE = 3600.0
"""Virtual seconds after which a run counts as stuck."""


class InstantScribe:
    """Does the work at once."""

    delay = 0.0

    def __init__(self, connect: Callable[[], sqlite3.Connection], where: str) -> None:
        self._db = connect()
        self._db.execute("PRAGMA synchronous = OFF")  # nobody pulls the plug

    def every(self, seconds: float, work: Work) -> None:
        """No heartbeat: nobody else looks."""

    def do(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        result = self._committed(work)

        def tell() -> None:
            if not answer.done():
                answer.set_result(result)

        if self.delay:
            loop.call_later(self.delay, tell)
        else:
            loop.call_soon(tell)
        return answer

    def later(self, work: Work) -> None:
        self._committed(work)

    def finish(self) -> None:
        self._db.close()

    def _committed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._db.execute("BEGIN")
        result = work(self._db)
        self._db.execute("COMMIT")
        return result


class InstantStore(SQLiteStore):
    """A store that needs no thread."""

    def __init__(self, path: str | Path | None = None, delay: float = 0.0) -> None:
        with mock.patch.object(sqlite, "Scribe", InstantScribe):
            super().__init__(path)
        self._instant = cast(Any, self._scribe)
        self._instant.delay = delay

    async def close(self) -> None:
        self._instant.later(self._leave)
        self._instant.finish()


def patiently(work: Coroutine[Any, Any, T]) -> T:
    """Run it on the virtual clock; a run that is stuck is a TimeoutError and not a test that hangs.

    Exceptions that nobody retrieved, which the loop would only log, fail the test.
    """
    unseen: list[str] = []

    async def limited() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(f"{context['message']}: {context}"))
        async with asyncio.timeout(PATIENCE):
            return await work

    result = virtually(limited())
    gc.collect(0)
    assert not unseen, unseen
    return result
