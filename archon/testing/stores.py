"""The conformance suite of stores."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest_asyncio

from archon.candidate import TokenLogprob
from archon.store.base import Attempt, Recorded, Store
from archon.usage import Usage


class StoreCases:
    """What every store must do. Subclass it, and say how to open one at a path."""

    @abstractmethod
    async def open_store(self, path: Path) -> Store:
        """Open (or make) the store at this path."""
        raise NotImplementedError

    persistent = True
    """Whether what is stored outlives `close`."""

    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """A new store."""
        store = await self.open_store(tmp_path / "store")
        yield store
        await store.close()

    async def pool(self, store: Store, key: str = "k") -> int:
        """A pool."""
        return await store.pool(key, {"model": "m"}, {"prompt": "p", "messages": None, "sampling": {}})

    async def test_a_pool_is_made_once_per_key(self, store: Store) -> None:
        first = await self.pool(store, "a")
        assert await self.pool(store, "a") == first
        assert await self.pool(store, "b") != first

    async def test_samples_come_back_whole_in_order_of_arrival(self, store: Store) -> None:
        pool = await self.pool(store)
        usage = Usage(1, 10, 4, 7, 2, Decimal("0.000123456789"), 99, 0.5, 0, 0, 1)
        logprobs = (TokenLogprob("a", -0.5, (("b", -1.5),)), TokenLogprob("c", -0.25))
        sample = Recorded(3, "tëxt\n\0", "stop_string", "STOP", "because", logprobs, usage)
        await store.put(pool, [sample])
        await store.put(pool, [Recorded(1, "later")])
        page = await store.read(pool, range(10))
        assert list(page.samples) == [sample, Recorded(1, "later")]
        assert page.done

    async def test_reading_goes_page_by_page(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.put(pool, [Recorded(i, str(i)) for i in range(10)])
        seen, cursor, done = [], 0, False
        while not done:
            page = await store.read(pool, range(2, 9), cursor, limit=3)
            seen += [s.index for s in page.samples]
            cursor, done = page.cursor, page.done
        assert seen == [2, 3, 4, 5, 6, 7, 8]

    async def test_a_sample_is_never_replaced(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.put(pool, [Recorded(0, "first")])
        await store.put(pool, [Recorded(0, "second", usage=Usage(1, 5, 0, 5))])
        assert [s.text for s in (await store.read(pool, range(9))).samples] == ["first"]
        kinds = [(a.kind, a.usage.tokens) for a in await store.attempts(pool, range(9))]
        assert kinds == [("duplicate", 10)], "what was paid for twice is not forgotten"

    async def test_an_index_is_claimed_once(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.put(pool, [Recorded(1, "there")])
        assert list(await store.claim(pool, [0, 1, 2])) == [0, 2]
        assert list(await store.claim(pool, [0, 1, 2, 3])) == [3]

    async def test_a_released_claim_can_be_taken(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.claim(pool, [0, 1])
        store.note(pool, [Attempt(0, "failed", Usage(1), "Overloaded: 503")], release=[0])
        assert list(await store.claim(pool, [0, 1])) == [0]
        assert [a.error for a in await store.attempts(pool, range(5))] == ["Overloaded: 503"]

    async def test_a_stored_sample_gives_up_its_claim(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.claim(pool, [0])
        await store.put(pool, [Recorded(0, "x")])
        assert list(await store.claim(pool, [0])) == []

    async def test_concurrent_claims_share_nothing(self, store: Store) -> None:
        pool = await self.pool(store)
        granted = await asyncio.gather(*(store.claim(pool, range(50)) for _ in range(8)))
        assert sorted(i for one in granted for i in one) == list(range(50))

    async def test_waiting_ends_when_a_sample_arrives(self, store: Store) -> None:
        pool = await self.pool(store)
        waiting = asyncio.ensure_future(store.wait(pool, 30))
        await asyncio.sleep(0)
        await store.put(pool, [Recorded(0, "x")])
        async with asyncio.timeout(10):
            await waiting

    async def test_it_remembers(self, store: Store) -> None:
        await store.remember("kind", {"a": b"1", "b": b"\0\xff"})
        await store.remember("kind", {"a": b"2"})
        assert dict(await store.recall("kind", ["a", "b", "c"])) == {"a": b"1", "b": b"\0\xff"}
        assert dict(await store.recall("other", ["a"])) == {}
        await store.remember("kind", {"a": b"3"}, replace=True)
        assert dict(await store.recall("kind", ["a"])) == {"a": b"3"}

    async def test_it_recalls_thousands_at_once(self, store: Store) -> None:
        items = {f"k{i}": str(i).encode() for i in range(3000)}
        await store.remember("many", items)
        assert dict(await store.recall("many", list(items))) == items

    async def test_summaries_add_up(self, store: Store) -> None:
        pool = await self.pool(store)
        await store.put(pool, [Recorded(i, "x", usage=Usage(1, 2, 0, 3)) for i in range(4)])
        store.note(pool, [Attempt(9, "cancelled", Usage(1, 2, 0, 1))])
        (summary,) = await store.summaries()
        assert (summary.samples, summary.attempts, summary.usage) == (4, 1, Usage(5, 10, 0, 13))

    async def test_what_is_confirmed_survives_closing(self, tmp_path: Path) -> None:
        if not self.persistent:
            return
        path = tmp_path / "again"
        store = await self.open_store(path)
        pool = await self.pool(store)
        await store.put(pool, [Recorded(0, "kept")])
        await store.claim(pool, [1])
        await store.close()
        store = await self.open_store(path)
        try:
            assert await self.pool(store) == pool
            assert [s.text for s in (await store.read(pool, range(9))).samples] == ["kept"]
            assert list(await store.claim(pool, [1])) == [1], "claims end with their session"
        finally:
            await store.close()
