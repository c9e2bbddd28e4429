"""The store from a machine that cannot reach its file: what is asked of it travels as text, and so do the answers.

A worker of a cluster on another machine has a `FarStore`, the machine of the run has one keeper of the file for all of
these (cluster/keeper.py). Whatever has queued up travels in one message, in order, one message at a time: what comes
back has seen what was asked before. A worker that says nothing for a minute loses its claims, as any process does that
shares a store (archon/store/sqlite.py). Nothing is pickled.

Cost: no calls.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from archon.benchmarks.cluster.faults import packed, unpacked
from archon.errors import ArchonError, StoreError
from archon.store.base import Attempt, Page, PoolSummary, Recorded
from archon.store.sqlite import as_row, from_row
from archon.usage import Usage

T = TypeVar("T")
_BEAT_SECONDS = 15.0
_MOST_AT_ONCE = 1000


class _Wish(NamedTuple):
    """Something to ask for."""

    words: Sequence[Any]
    """The name of a method, and what it is given."""
    answer: asyncio.Future[Any] | None
    """None where nobody waits."""
    read: Callable[[Any], Any]
    """What the answer means."""


class FarStore:
    """A store somewhere else. `ask` sends a message to its keeper and gives back what that says; where it raises a
    StoreError, that ends the store's use. Use it within one event loop."""

    def __init__(self, ask: Callable[[str], Awaitable[str]]) -> None:
        self._ask = ask
        self._me = secrets.token_hex(16)
        self._wishes: list[_Wish] = []
        self._sending: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._changed: dict[int, asyncio.Event] = {}
        self._failure: ArchonError | None = None
        self._closed = False

    async def pool(self, key: str, identity: Mapping[str, Any], request: Mapping[str, Any]) -> int:
        """The pool of this key, made where it does not exist."""
        return await self._wish(int, "pool", key, dict(identity), dict(request))

    async def read(self, pool: int, indices: range, cursor: int = 0, limit: int = 256) -> Page:
        """Samples of these indices, in order of arrival, from `cursor` on."""
        return await self._wish(_page, "read", pool, indices.start, indices.stop, cursor, limit)

    async def attempts(self, pool: int, indices: range) -> Sequence[Attempt]:
        """Attempts on these indices, oldest first."""
        return await self._wish(attempts_of, "attempts", pool, indices.start, indices.stop)

    async def claim(self, pool: int, indices: Iterable[int]) -> Sequence[int]:
        """Those of the indices that are now ours to sample."""
        self._beat()
        return await self._wish(list, "claim", pool, list(indices))

    def put(self, pool: int, samples: Sequence[Recorded]) -> asyncio.Future[Sequence[Recorded]]:
        """Record samples and give up their claims; the samples as they are stored."""
        rows = [as_row(sample) for sample in samples]
        done: asyncio.Future[Sequence[Recorded]] = self._wish(samples_of, "put", pool, rows)
        done.add_done_callback(lambda _: self._announce(pool))
        return done

    def note(self, pool: int, attempts: Sequence[Attempt], release: Iterable[int] = ()) -> None:
        """Record attempts and give up claims, without waiting."""
        freed = list(release)
        if attempts or freed:
            self._queue(_Wish(("note", pool, told_of(attempts), freed), None, _nothing))
            self._announce(pool)

    async def wait(self, pool: int, timeout: float) -> None:
        """Until something may have changed in the pool, or the time is over."""
        event = self._changed.setdefault(pool, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            if self._changed.get(pool) is event:
                del self._changed[pool]

    async def recall(self, kind: str, keys: Sequence[str]) -> Mapping[str, bytes]:
        """What was remembered under these keys; absent ones are left out."""
        return await self._wish(unwrapped, "recall", kind, list(keys)) if keys else {}

    async def remember(self, kind: str, items: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Remember; what is already there stays, unless it is to be replaced."""
        if items:
            await self._wish(_nothing, "remember", kind, wrapped(items), replace)

    async def summaries(self) -> Sequence[PoolSummary]:
        """Every pool, largest first."""
        return await self._wish(_summaries, "summaries")

    async def settled(self) -> None:
        """Until everything that was asked has been answered. Raises what went wrong where nobody waited."""
        while self._sending is not None:
            await asyncio.shield(self._sending)
        self._check()

    async def close(self) -> None:
        """Have everything written, and let go. Raises StoreError where that fails."""
        if not self._closed:
            self._queue(_Wish(("leave",), None, _nothing))
            self._closed = True
        if self._beating is not None:
            self._beating.cancel()
        await self.settled()

    def _wish(self, read: Callable[[Any], T], *words: Any) -> asyncio.Future[T]:
        self._check()
        if self._closed:
            raise StoreError("the store is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue(_Wish(words, answer, read))
        return answer

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _queue(self, wish: _Wish) -> None:
        self._wishes.append(wish)
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        """Send what has queued up, until nothing has."""
        try:
            while self._wishes:
                some, self._wishes = self._wishes[:_MOST_AT_ONCE], self._wishes[_MOST_AT_ONCE:]
                message = {"who": self._me, "wishes": [wish.words for wish in some]}
                try:
                    answers = json.loads(await self._ask(json.dumps(message)))
                except ArchonError as error:
                    self._failure = error
                    answers = [{"error": packed(error)}] * len(some)
                for wish, answer in zip(some, answers, strict=True):
                    self._take(wish, answer)
        finally:
            self._sending = None

    def _take(self, wish: _Wish, answer: Mapping[str, Any]) -> None:
        error = unpacked(answer["error"]) if "error" in answer else None
        if wish.answer is None:
            self._failure = self._failure or error
        elif wish.answer.done():  # its caller was cancelled; it is done all the same
            pass
        elif error is not None:
            wish.answer.set_exception(error)
        else:
            wish.answer.set_result(wish.read(answer["is"]))

    def _beat(self) -> None:
        """From the first claim on, let the keeper know that we are there."""

        async def beats() -> None:
            while self._failure is None:
                await asyncio.sleep(_BEAT_SECONDS)
                self._queue(_Wish(("here",), None, _nothing))

        if self._beating is None:
            self._beating = asyncio.get_running_loop().create_task(beats())

    def _announce(self, pool: int) -> None:
        event = self._changed.pop(pool, None)
        if event is not None:
            event.set()


def _nothing(_: Any) -> None:
    return None


def samples_of(rows: Sequence[Sequence[Any]]) -> list[Recorded]:
    """Samples from their rows."""
    return [from_row(row) for row in rows]


def _page(told: Sequence[Any]) -> Page:
    rows, cursor, done = told
    return Page(samples_of(rows), cursor, done)


def told_of(attempts: Iterable[Attempt]) -> list[Any]:
    """Attempts as numbers and texts."""
    return [[a.index, a.kind, a.usage.exact(), a.error] for a in attempts]


def attempts_of(told: Sequence[Sequence[Any]]) -> list[Attempt]:
    """The inverse of `told_of`."""
    return [Attempt(index, kind, Usage.from_json(usage), error) for index, kind, usage, error in told]


def _summaries(told: Sequence[Sequence[Any]]) -> list[PoolSummary]:
    return [PoolSummary._make([*rest, Usage.from_json(usage)]) for *rest, usage in told]


def wrapped(items: Mapping[str, bytes]) -> dict[str, str]:
    """Bytes as texts."""
    return {key: base64.b64encode(value).decode("ascii") for key, value in items.items()}


def unwrapped(items: Mapping[str, str]) -> dict[str, bytes]:
    """The inverse of `wrapped`."""
    return {key: base64.b64decode(value) for key, value in items.items()}
