"""Files the store can be opened on, and those it must refuse and leave alone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.errors import StoreError, StoreUnusable, StoreVersion
from archon.prices import Price
from archon.problem import Problem
from archon.session import Session
from archon.store import SQLiteStore
from archon.store.base import Recorded
from archon.strategies.sample import Sample


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("My notes.\n" * 1000)
    with pytest.raises(StoreUnusable, match=r"notes\.txt is not a store of ours.*--store"):
        SQLiteStore(path)
    assert path.read_text() == "My notes.\n" * 1000


def make(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


def test_another_program_s_database_is_refused_and_gets_no_tables_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    make(path, "CREATE TABLE photos (name TEXT)")
    with pytest.raises(StoreUnusable, match="not a store of ours"):
        SQLiteStore(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    await SQLiteStore(path).close()
    make(path, "UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(StoreVersion, match=r"version 99, newer than this program's 1\. Update archon"):
        SQLiteStore(path)


def test_another_program_s_database_with_a_meta_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    make(path, "CREATE TABLE meta (name TEXT, size INTEGER, kind TEXT)")
    with pytest.raises(StoreError):
        SQLiteStore(path)


def test_a_folder_in_place_of_the_store_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="--store"):
        SQLiteStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match="cannot make the folder"):
        SQLiteStore(tmp_path / "file" / "s.sqlite")


async def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "s.sqlite"
    await SQLiteStore(path).close()
    assert path.exists()


async def test_plain_sqlite_reads_what_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    model = Scripted(replies={"*": ("a", "b")}, price=Price(input=1, output=2))
    async with Session(models=model, store=path) as session:
        await session.solve(Sample(n=2, temperature=0.5), Problem.ask("two words"))
    with closing(sqlite3.connect(path)) as db:
        rows: list[Any] = db.execute(
            "SELECT idx, text, finish, request, usage FROM samples JOIN pools ON pools.id = pool ORDER BY idx"
        ).fetchall()
        assert db.execute("SELECT count(*) FROM owners").fetchone() == (0,), "closed: it left its list"
    assert [(idx, text, finish) for idx, text, finish, _, _ in rows] == [(0, "a", "stop"), (1, "b", "stop")]
    request, usage = json.loads(rows[0][3]), json.loads(rows[0][4])
    assert request["messages"] == [["user", "two words"]]
    assert request["sampling"]["temperature"] == 0.5
    assert (usage["requests"], usage["prompt_tokens"], usage["usd"]) == (1, 2, "0.000004")


async def test_a_store_that_is_only_read_sees_what_a_writer_has_just_put_and_cannot_be_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.sqlite"
    writer = SQLiteStore(path)
    pool = await writer.pool("key", {"model": "m"}, {"prompt": "Q"})
    await writer.put(pool, [Recorded(0, "a")])
    reader = SQLiteStore(path, writable=False)
    assert [(p.model, p.samples) for p in await reader.summaries()] == [("m", 1)]
    await writer.put(pool, [Recorded(1, "b")])
    assert [s.text for s in (await reader.read(pool, range(9))).samples] == ["a", "b"]
    with pytest.raises(StoreError):
        await reader.put(pool, [Recorded(2, "c")])
    await writer.close()


def test_only_reading_makes_neither_a_store_nor_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        SQLiteStore(tmp_path / "below" / "s.sqlite", writable=False)
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(StoreUnusable, match="not a store of ours"):
        SQLiteStore(tmp_path / "empty.sqlite", writable=False)
    assert [p.name for p in tmp_path.iterdir()] == ["empty.sqlite"]
    assert (tmp_path / "empty.sqlite").read_bytes() == b""
