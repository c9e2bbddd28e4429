"""The SQLite store between processes, after a kill, on a full disk, and on files that are not ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from archon.backends.scripted import Scripted
from archon.errors import StoreFull
from archon.problem import Problem
from archon.session import Session
from archon.store import SQLiteStore
from archon.store.base import Attempt, Recorded
from archon.strategies.sample import Sample
from archon.usage import Usage

PRELUDE = """
import asyncio, json, sys, os
from archon.store import SQLiteStore
from archon.store.base import Attempt, Recorded
from archon.usage import Usage
path = sys.argv[1]
async def pool(store):
    return await store.pool("k", {"model": "m"}, {"prompt": "p"})
"""
WRITER = """
async def main():
    store = SQLiteStore(path)
    number = await pool(store)
    mine = await store.claim(number, range(200))
    for index in mine:
        await store.put(number, [Recorded(index, f"{os.getpid()}", usage=Usage(1, 1))])
        more = await store.claim(number, range(200))
    await store.close()
    print(len(mine))
asyncio.run(main())
"""
KILLED = """
async def main():
    store = SQLiteStore(path)
    number = await pool(store)
    await store.claim(number, range(100))
    for index in range(60):
        await store.put(number, [Recorded(index, "x" * 500)])
        print(index, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
async def main():
    store = SQLiteStore(path)
    number = await pool(store)
    confirmed, error = 0, None
    try:
        for index in range(5000):
            await store.put(number, [Recorded(index, "x" * 2000)])
            confirmed += 1
    except Exception as caught:
        error = caught
    later = None
    try:
        await store.put(number, [Recorded(9999, "after")])
    except Exception as caught:
        later = type(caught).__name__
    try:
        await store.close()
    except Exception as caught:
        pass
    print(json.dumps([confirmed, type(error).__name__, str(error), later]))
asyncio.run(main())
"""


def run(script: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PRELUDE + script, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


async def pool(store: SQLiteStore) -> int:
    return await store.pool("k", {"model": "m"}, {"prompt": "p"})


async def texts(path: Path) -> dict[int, str]:
    store = SQLiteStore(path)
    try:
        page = await store.read(await pool(store), range(10_000), limit=10_000)
        return {s.index: s.text for s in page.samples}
    finally:
        await store.close()


# --- several processes ------------------------------------------------------------------------------


async def test_two_processes_write_at_once_and_every_sample_is_one_process_s(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    await SQLiteStore(path).close()
    writers = [run(WRITER, path) for _ in range(2)]
    said = [(await asyncio.to_thread(w.communicate))[0] for w in writers]
    assert [w.returncode for w in writers] == [0, 0], said
    assert sum(int(s) for s in said) == 200
    found = await texts(path)
    assert sorted(found) == list(range(200))
    assert set(found.values()) <= {str(w.pid) for w in writers}
    store = SQLiteStore(path)
    assert list(await store.attempts(await pool(store), range(200))) == [], "nothing was sampled twice"
    await store.close()


async def test_two_processes_may_open_a_new_store_at_the_same_moment(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # what the other one does while it makes its tables
        opening = asyncio.create_task(asyncio.to_thread(SQLiteStore, path))
        await asyncio.sleep(0.1)
        other.execute("COMMIT")
    await (await opening).close()


async def test_what_was_confirmed_survives_a_kill_and_its_claims_are_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "killed.sqlite"
    writer = run(KILLED, path)
    assert writer.stdout is not None
    for line in writer.stdout:
        if line.strip() == "40":
            break
    store = SQLiteStore(path)
    number = await pool(store)
    assert list(await store.claim(number, [99])) == [], "its owner is alive"
    os.kill(writer.pid, signal.SIGKILL)
    await asyncio.to_thread(writer.communicate)
    found = {s.index for s in (await store.read(number, range(100))).samples}
    assert found >= set(range(41))
    free = await store.claim(number, range(100))
    assert sorted({*found, *free}) == list(range(100)) and not found & set(free)
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_reader_need_not_wait_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = SQLiteStore(path)
    number = await pool(store)
    await store.put(number, [Recorded(0, "there")])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(300):
            page = await store.read(number, range(9))
        assert [s.text for s in page.samples] == ["there"]
        writing = store.put(number, [Recorded(1, "later")])
        await asyncio.sleep(0.1)
        assert not writing.done(), "somebody else writes: it waits, and does not fail"
        other.execute("COMMIT")
    await writing
    await store.close()
    assert await texts(path) == {0: "there", 1: "later"}


# --- full -------------------------------------------------------------------------------------------


async def test_on_a_full_disk_there_is_one_clear_error_and_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "full.sqlite"
    writer = run(LIMITED, path)
    said, _ = await asyncio.to_thread(writer.communicate)
    confirmed, kind, message, later = json.loads(said.strip().splitlines()[-1])
    assert kind == later == "StoreFull", said
    assert "is full" in message and str(path) in message and "What was recorded is kept" in message
    assert confirmed > 20
    found = await texts(path)
    assert set(range(confirmed)) <= set(found)
    assert all(text == "x" * 2000 for text in found.values())


def limit_pages(store: SQLiteStore, more: int) -> None:
    """Let the database grow by so many pages only."""

    def work(db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + more}")

    store._scribe.later(work)


async def test_a_run_on_a_full_store_stops_with_that_error_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.sqlite"
    model = Scripted(reply=lambda call: "word " * 2000, identity="long", latency=0.002, max_concurrency=2)
    problem = Problem.ask("q", id="p")
    store = SQLiteStore(path)
    limit_pages(store, 40)
    async with Session(models=model, store=store) as session:
        with pytest.raises(StoreFull):
            await session.solve(Sample(n=200), problem)
    with pytest.raises(StoreFull):
        await store.close()
    kept = len(await texts_of_any_pool(path))
    assert 0 < kept < 200
    async with Session(models=model, store=path) as session:
        outcome = await session.solve(Sample(n=200), problem)
    assert len(outcome.candidates) == 200
    assert outcome.fresh.requests == 200 - kept


async def texts_of_any_pool(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [text for (text,) in db.execute("SELECT text FROM samples")]


async def test_an_error_nobody_was_there_to_see_comes_out_at_the_next_call() -> None:
    store = SQLiteStore()
    number = await pool(store)
    limit_pages(store, 0)
    store.note(number, [Attempt(0, "failed", Usage(1), "x" * 100_000)])
    with pytest.raises(StoreFull):
        for _ in range(50):
            await store.read(number, range(9))
    with pytest.raises(StoreFull):
        await store.close()
