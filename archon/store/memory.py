"""The store of a session that keeps nothing: in memory, without a thread, a database or JSON."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from archon.store.base import Attempt, Page, PoolSummary, Recorded
from archon.usage import total

T = TypeVar("T")


class _Pool:
    """One pool."""

    __slots__ = ("attempts", "changed", "claimed", "content", "identity", "places", "samples")

    def __init__(self, identity: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        self.identity = identity
        self.content = content
        self.samples: list[Recorded] = []
        """In order of arrival."""
        self.places: dict[int, int] = {}
        """Where in that order each index is."""
        self.claimed: set[int] = set()
        self.attempts: list[Attempt] = []
        self.changed: asyncio.Event | None = None

    def announce(self) -> None:
        """Something changed: whoever waits looks again."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None


class MemoryStore:
    """A store that is gone with the session, and of use to that alone."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._pools: list[_Pool] = []
        self._memory: dict[str, dict[str, bytes]] = defaultdict(dict)

    async def pool(self, key: str, identity: Mapping[str, Any], request: Mapping[str, Any]) -> int:
        """The pool of this key, made where it does not exist."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._pools)
            self._pools.append(_Pool(identity, request))
        return number

    async def read(self, pool: int, indices: range, cursor: int = 0, limit: int = 256) -> Page:
        """Samples of these indices, in order of arrival, from `cursor` on."""
        held = self._pools[pool]
        if len(indices) < len(held.samples) - cursor:
            places = sorted(p for i in indices if (p := held.places.get(i)) is not None and p >= cursor)
        else:
            arrived = range(cursor, len(held.samples))
            places = [p for p in arrived if held.samples[p].index in indices]
        found = places[:limit]
        return Page([held.samples[p] for p in found], found[-1] + 1 if found else cursor, len(found) < limit)

    async def attempts(self, pool: int, indices: range) -> Sequence[Attempt]:
        """Attempts on these indices, oldest first."""
        return [attempt for attempt in self._pools[pool].attempts if attempt.index in indices]

    def claim(self, pool: int, indices: Iterable[int]) -> asyncio.Future[Sequence[int]]:
        """Those of the indices that are now ours to sample."""
        held = self._pools[pool]
        granted = [i for i in indices if i not in held.places and i not in held.claimed]
        held.claimed.update(granted)
        return _done(granted)

    def put(self, pool: int, samples: Sequence[Recorded]) -> asyncio.Future[Sequence[Recorded]]:
        """Record samples and give up their claims; the samples as they are stored."""
        held = self._pools[pool]
        stored = []
        for sample in samples:
            place = held.places.setdefault(sample.index, len(held.samples))
            if place == len(held.samples):
                held.samples.append(sample)
            else:
                held.attempts.append(Attempt(sample.index, "duplicate", sample.usage))
            held.claimed.discard(sample.index)
            stored.append(held.samples[place])
        held.announce()
        return _done(stored)

    def note(self, pool: int, attempts: Sequence[Attempt], release: Iterable[int] = ()) -> None:
        """Record attempts and give up claims."""
        freed = set(release)
        if not attempts and not freed:  # of a draw, perhaps, that ended before it had its pool
            return
        held = self._pools[pool]
        held.attempts.extend(attempts)
        held.claimed -= freed
        held.announce()

    async def wait(self, pool: int, timeout: float) -> None:
        """Until something may have changed in the pool, or the time is over."""
        held = self._pools[pool]
        if held.changed is None:
            held.changed = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await held.changed.wait()
        except TimeoutError:
            return

    async def recall(self, kind: str, keys: Sequence[str]) -> Mapping[str, bytes]:
        """What was remembered under these keys; absent ones are left out."""
        known = self._memory[kind]
        return {key: known[key] for key in keys if key in known}

    async def remember(self, kind: str, items: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Remember; what is already there stays, unless it is to be replaced."""
        known = self._memory[kind]
        for key, value in items.items():
            if replace or key not in known:
                known[key] = value

    async def summaries(self) -> Sequence[PoolSummary]:
        """Every pool, largest first."""
        found = [
            PoolSummary(
                number,
                str(held.identity.get("model", "")),
                held.identity,
                held.content,
                len(held.samples),
                len(held.attempts),
                total(one.usage for some in (held.samples, held.attempts) for one in some),
            )
            for number, held in enumerate(self._pools)
        ]
        return sorted(found, key=lambda pool: (-pool.samples, pool.id))

    async def close(self) -> None:
        """Nothing to let go of."""


def _done(result: T) -> asyncio.Future[T]:
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    done.set_result(result)
    return done
