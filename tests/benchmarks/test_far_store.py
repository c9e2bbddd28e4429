"""A store by way of its keeper does what a store does; and what a worker that has gone held is others'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archon.benchmarks.cluster.far_store import FarStore
from archon.benchmarks.cluster.keeper import MEETING, Keeper, knows
from archon.candidate import TokenLogprob
from archon.errors import StoreError, StoreFull, UserError
from archon.store import SQLiteStore, Store
from archon.store.base import Attempt, Recorded
from archon.testing import StoreCases
from archon.usage import Usage

CONTENT: tuple[dict[str, Any], dict[str, Any]] = (
    {"model": "m"},
    {"prompt": "p", "messages": None, "sampling": {}},
)


class TestFarStore(StoreCases):
    async def open_store(self, path: Path) -> Store:
        await met(path)
        return Ours(Keeper(str(path), "meeting"))


class Ours(FarStore):
    """With a keeper of its own, that ends with it."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__(keeper.answer)
        self._keeper = keeper

    async def close(self) -> None:
        await super().close()
        await self._keeper.close()


async def met(path: Path) -> None:
    """What a driver does first."""
    store = SQLiteStore(path)
    await store.remember(MEETING, {"meeting": b""})
    await store.close()


@asynccontextmanager
async def keeping(path: Path, silent: float = 60.0) -> AsyncIterator[Keeper]:
    await met(path)
    keeper = Keeper(str(path), "meeting", silent)
    try:
        yield keeper
    finally:
        await keeper.close()


async def test_far_and_near_share_claims_and_samples(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with keeping(path) as keeper:
        one, two, near = FarStore(keeper.answer), FarStore(keeper.answer), SQLiteStore(path)
        pool = await one.pool("k", *CONTENT)
        assert pool == await two.pool("k", *CONTENT) == await near.pool("k", *CONTENT)
        granted = await asyncio.gather(*(store.claim(pool, range(30)) for store in (one, two, near)))
        assert sorted(i for some in granted for i in some) == list(range(30))
        sample = Recorded(0, "tëxt", logprobs=(TokenLogprob("a", float("-inf")),), usage=Usage(1, 2, 0, 3))
        await one.put(pool, [sample])
        assert (
            [*(await near.read(pool, range(9))).samples]
            == [*(await two.read(pool, range(9))).samples]
            == [sample]
        )
        for store in (one, two, near):
            await store.close()


async def test_what_is_noted_is_seen_by_what_is_asked_next(tmp_path: Path) -> None:
    async with keeping(tmp_path / "store") as keeper:
        store = FarStore(keeper.answer)
        pool = await store.pool("k", *CONTENT)
        for turn in range(20):
            assert list(await store.claim(pool, [7])) == [7]
            store.note(pool, [Attempt(7, "cancelled", Usage(1))], release=[7])
            assert len(await store.attempts(pool, range(9))) == turn + 1
        await store.close()


async def test_what_queues_up_travels_in_one_message(tmp_path: Path) -> None:
    async with keeping(tmp_path / "store") as keeper:
        sizes = []

        async def ask(message: str) -> str:
            sizes.append(len(json.loads(message)["wishes"]))
            return await keeper.answer(message)

        store = FarStore(ask)
        pool = await store.pool("k", *CONTENT)
        await asyncio.gather(*(store.put(pool, [Recorded(i, str(i))]) for i in range(50)))
        assert sizes == [1, 50]
        assert [s.index for s in (await store.read(pool, range(50))).samples] == list(range(50))
        await store.close()


async def test_who_is_cancelled_has_handed_over_its_sample(tmp_path: Path) -> None:
    async with keeping(tmp_path / "store") as keeper:
        store = FarStore(keeper.answer)
        pool = await store.pool("k", *CONTENT)
        put = store.put(pool, [Recorded(0, "paid for")])
        put.cancel()
        await store.settled()
        assert [s.text for s in (await store.read(pool, range(9))).samples] == ["paid for"]
        await store.close()


async def test_who_goes_silent_loses_its_claims_and_who_beats_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("archon.benchmarks.cluster.keeper.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("archon.benchmarks.cluster.far_store._BEAT_SECONDS", 0.05)
    async with keeping(tmp_path / "store", silent=2.0) as keeper:
        dead, alive, other = (FarStore(keeper.answer) for _ in range(3))

        async def later(seconds: float) -> None:
            """Let time pass, in which everybody who lives has said so."""
            clock[0] += seconds
            async with asyncio.timeout(300):
                while any(keeper._workers[store._me].heard < clock[0] for store in (alive, other)):
                    await asyncio.sleep(0.01)

        pool = await dead.pool("k", *CONTENT)
        assert list(await dead.claim(pool, [0])) == [0]
        assert list(await alive.claim(pool, [1])) == [1]
        assert list(await other.claim(pool, [0, 1, 2])) == [2]
        assert dead._beating is not None
        dead._beating.cancel()  # its machine is gone
        await later(1.5)
        await later(1.5)
        async with asyncio.timeout(300):
            while not (mine := list(await other.claim(pool, [0, 1]))):
                await asyncio.sleep(0.1)
        assert mine == [0]
        for _ in range(4):
            await later(1.5)
        await asyncio.sleep(1)  # it is looked for the silent twice
        assert list(await other.claim(pool, [1])) == [], "it is at work and said so"
        await dead.put(pool, [Recorded(0, "late", usage=Usage(1, 2, 0, 3))])  # it was only slow
        assert [s.text for s in (await other.read(pool, range(9))).samples] == ["late"]
        for store in (dead, alive, other):
            await store.close()


async def test_a_keeper_that_is_gone_is_an_error_for_everyone_who_waits(tmp_path: Path) -> None:
    async def ask(message: str) -> str:
        raise StoreError("gone: run the same command again")

    store = FarStore(ask)
    found = await asyncio.gather(
        store.pool("k", *CONTENT),
        store.claim(1, [0]),
        store.put(1, [Recorded(0, "x")]),
        return_exceptions=True,
    )
    assert [str(error) for error in found] == ["gone: run the same command again"] * 3
    with pytest.raises(StoreError, match="gone"):
        await store.recall("kind", ["a"])
    with pytest.raises(StoreError, match="gone"):
        await store.close()


async def test_an_error_of_the_store_is_raised_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(store: SQLiteStore, *_: object, **__: object) -> None:
        raise StoreFull("the disk is full")

    async with keeping(tmp_path / "store") as keeper:
        store = FarStore(keeper.answer)
        monkeypatch.setattr(SQLiteStore, "remember", full)
        with pytest.raises(StoreFull, match="the disk is full"):
            await store.remember("kind", {"a": b"1"})
        assert dict(await store.recall("kind", ["a"])) == {}, "the next one is answered"
        await store.close()


async def test_another_file_is_not_given_out(tmp_path: Path) -> None:
    path = tmp_path / "store"
    await met(path)
    assert await knows(path, "meeting")
    before = path.read_bytes()
    for wrong, meeting in ((path, "other"), (tmp_path / "absent", "meeting")):
        keeper = Keeper(str(wrong), meeting)
        store = FarStore(keeper.answer)
        with pytest.raises(UserError, match="not where the keeper"):
            await store.pool("k", *CONTENT)
        await keeper.close()
        store._failure = None
        assert not await knows(wrong, meeting)
    (tmp_path / "text").write_text("no database")
    assert not await knows(tmp_path / "text", "meeting")
    assert path.read_bytes() == before and not (tmp_path / "absent").exists()
