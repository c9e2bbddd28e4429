"""Who has the file of a store, and does what workers on other machines ask of it (cluster/far_store.py).

Each of them has a session of its own, which is ended when it says nothing for a minute: then its claims are others'.

Cost: no calls.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from archon.benchmarks.cluster.far_store import attempts_of, samples_of, told_of, unwrapped, wrapped
from archon.benchmarks.cluster.faults import packed
from archon.errors import ArchonError, StoreError, UserError
from archon.store import SQLiteStore
from archon.store.sqlite import as_row

MEETING = "meeting"
"""What the driver leaves in the store, so that others know it for the same."""
SILENT_SECONDS = 60.0
"""How long a worker may say nothing before its claims are others'."""


class _Worker:
    """One who asks: a session of the store of its own, whose claims end with it."""

    def __init__(self, path: Path) -> None:
        self.store = SQLiteStore(path)
        self.busy = 0
        self.heard = time.monotonic()


class Keeper:
    """Has the file, and does what far stores ask, for each in the order in which it asks."""

    def __init__(self, path: str, meeting: str, silent: float = SILENT_SECONDS) -> None:
        self._path = Path(path)
        self._meeting = meeting
        self._silent = silent
        self._workers: dict[str, _Worker] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def answer(self, message: str) -> str:
        """What comes of each wish of a message, as JSON: what it is, or the error."""
        asked = json.loads(message)
        wishes = asked["wishes"]
        try:
            if self._sweeping is None:
                await self._meet()
                self._sweeping = self._sweeping or asyncio.get_running_loop().create_task(self._sweep())
            worker = self._workers.get(asked["who"])
            if worker is None:
                worker = self._workers[asked["who"]] = _Worker(self._path)
        except ArchonError as error:
            return json.dumps([{"error": packed(error)}] * len(wishes))
        worker.busy += 1
        try:  # tasks begin in order, and each has handed over its work when the next begins
            done = [asyncio.ensure_future(self._done(worker, asked["who"], *wish)) for wish in wishes]
            return json.dumps(await asyncio.gather(*done))
        finally:
            worker.busy -= 1
            worker.heard = time.monotonic()

    async def close(self) -> None:
        """Let go of everything."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for who in tuple(self._workers):
            await self._leave(who)

    async def _meet(self) -> None:
        """Raises UserError where this is not the file of the run."""
        if not await knows(self._path, self._meeting):
            raise UserError(
                f"the store {str(self._path)!r} is not where the keeper for other machines runs. Start the run on a "
                "machine that is a node of the cluster (not through ray://)"
            )

    async def _sweep(self) -> None:
        """End the sessions of those that have gone silent."""
        while True:
            await asyncio.sleep(self._silent / 4)
            late = time.monotonic() - self._silent
            for who in [w for w, worker in self._workers.items() if not worker.busy and worker.heard < late]:
                with suppress(
                    StoreError
                ):  # whoever writes next is told; the others' claims are still to be freed
                    await self._leave(who)

    async def _leave(self, who: str) -> None:
        worker = self._workers.pop(who, None)
        if worker is not None:
            await worker.store.close()

    async def _done(self, worker: _Worker, who: str, name: str, *args: Any) -> dict[str, Any]:
        try:
            if name == "leave":
                await self._leave(who)
                return {"is": None}
            return {"is": None if name == "here" else await _WAYS[name](worker.store, *args)}
        except ArchonError as error:
            return {"error": packed(error)}


async def knows(path: Path, meeting: str) -> bool:
    """Whether the file is here, and the one where this meeting was left. Changes nothing."""
    if not path.exists():
        return False
    try:
        store = SQLiteStore(path, writable=False)
        try:
            return meeting in await store.recall(MEETING, [meeting])
        finally:
            await store.close()
    except StoreError:
        return False


# --- what the keeper does, in its own words and with answers that are data ---------------------------


async def _read(store: SQLiteStore, pool: int, start: int, stop: int, cursor: int, limit: int) -> Any:
    page = await store.read(pool, range(start, stop), cursor, limit)
    return [[as_row(sample) for sample in page.samples], page.cursor, page.done]


async def _tried(store: SQLiteStore, pool: int, start: int, stop: int) -> Any:
    return told_of(await store.attempts(pool, range(start, stop)))


async def _claim(store: SQLiteStore, pool: int, indices: Sequence[int]) -> Any:
    return list(await store.claim(pool, indices))


async def _put(store: SQLiteStore, pool: int, rows: Sequence[Sequence[Any]]) -> Any:
    return [as_row(sample) for sample in await store.put(pool, samples_of(rows))]


async def _note(store: SQLiteStore, pool: int, told: Sequence[Sequence[Any]], freed: Sequence[int]) -> None:
    store.note(pool, attempts_of(told), freed)


async def _recall(store: SQLiteStore, kind: str, keys: Sequence[str]) -> Any:
    return wrapped(await store.recall(kind, keys))


async def _remember(store: SQLiteStore, kind: str, items: Mapping[str, str], replace: bool) -> None:
    await store.remember(kind, unwrapped(items), replace=replace)


async def _summed(store: SQLiteStore) -> Any:
    return [[*one[:-1], one.usage.exact()] for one in await store.summaries()]


_WAYS: Mapping[str, Callable[..., Awaitable[Any]]] = {
    "pool": SQLiteStore.pool,
    "read": _read,
    "attempts": _tried,
    "claim": _claim,
    "put": _put,
    "note": _note,
    "recall": _recall,
    "remember": _remember,
    "summaries": _summed,
}
