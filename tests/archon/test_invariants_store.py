"""Stores that are not ours, closed, or shared with somebody who was thought dead."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from archon.errors import StoreError, StoreUnusable
from archon.store import Recorded, SQLiteStore

STORE = Path("store.sqlite")


def foreign(version: str) -> None:
    """Another program's database that has a `meta` table too."""
    with sqlite3.connect(STORE) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('version', ?)", (version,))
    db.close()


async def test_a_strangers_database_is_refused() -> None:
    foreign("1")
    with pytest.raises(StoreUnusable):
        SQLiteStore(STORE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_strangers_database_whose_version_is_no_number_is_refused() -> None:
    foreign("2.1")
    with pytest.raises(StoreUnusable):
        store = SQLiteStore(STORE)
        async with asyncio.timeout(300):
            await store.recall("kind", ["key"])


async def test_a_closed_store_says_so() -> None:
    store = SQLiteStore(STORE)
    await store.close()
    with pytest.raises(StoreError):
        async with asyncio.timeout(300):
            await store.recall("kind", ["key"])


async def test_closing_twice_is_harmless() -> None:
    store = SQLiteStore(STORE)
    await store.close()
    await store.close()


async def test_who_was_thought_dead_and_lives_on_can_claim_again() -> None:
    sleeper, other = SQLiteStore(STORE), SQLiteStore(STORE)
    pool = await sleeper.pool("key", {}, {})
    with sqlite3.connect(STORE) as db:  # what `claim` does with an owner that has been silent for too long
        db.execute("DELETE FROM owners WHERE id = (SELECT min(id) FROM owners)")
    db.close()
    try:
        assert await sleeper.claim(pool, [0]) == [0]
        assert await other.claim(pool, [0]) == []
    finally:
        await sleeper.close()
        await other.close()


async def test_a_thousand_claims_and_samples_of_two_stores_are_shared_out() -> None:
    one, two = SQLiteStore(STORE), SQLiteStore(STORE)
    pool = await one.pool("key", {}, {})
    mine, theirs = await asyncio.gather(one.claim(pool, range(0, 1000)), two.claim(pool, range(500, 1500)))
    assert sorted([*mine, *theirs]) == list(range(1500))
    await asyncio.gather(one.put(pool, [Recorded(i, "one") for i in mine]))
    await two.close()  # it leaves what it had claimed
    assert sorted(await one.claim(pool, range(0, 1500))) == sorted(theirs)
    await one.close()


def test_one_store_serves_one_loop_after_the_other() -> None:
    store = SQLiteStore(STORE)

    async def wait() -> int:
        pool = await store.pool("key", {}, {})
        await store.wait(pool, 0.01)
        return pool

    try:
        assert asyncio.run(wait()) == asyncio.run(wait())
    finally:
        asyncio.run(store.close())
