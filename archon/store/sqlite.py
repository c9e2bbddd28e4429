"""The store in one SQLite file (or in memory): group commit, claims, crash safety.

Write-ahead logging lets other processes read while one writes. Claims live in the database with the
process that holds them; a claim whose process is gone (same machine) or silent for a minute (another
machine) is taken over, so a run can resume at once after a `kill -9`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from archon.candidate import TokenLogprob
from archon.errors import StoreUnusable, StoreVersion
from archon.store.base import Attempt, Page, PoolSummary, Recorded
from archon.store.scribe import Scribe, open_database, open_to_read
from archon.usage import Usage, total

_VERSION = 1
_SILENT_SECONDS = 60.0
_BEAT_SECONDS = 15.0
_COLUMNS = "idx, text, finish, stop, reasoning, logprobs, usage"


class SQLiteStore:
    """A store in one file; without a path, in memory and gone with the process.

    Raises StoreUnusable or StoreVersion where the file is not one of ours. One that is not `writable` is
    only read, also where nothing can be written.
    """

    def __init__(self, path: str | Path | None = None, *, writable: bool = True) -> None:
        self.path = None if path is None else Path(path)
        self._writable = writable
        self._owner = 0
        self._changed: dict[int, asyncio.Event] = {}
        if self.path is not None and writable:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnusable(
                    f"cannot make the folder {str(self.path.parent)!r} for the store: {error.strerror}. "
                    "Name another place with --store"
                ) from error
        self._scribe = Scribe(self._open, str(self.path or "in memory"))
        if writable:
            self._scribe.every(_BEAT_SECONDS, self._beat)

    # --- pools -------------------------------------------------------------------------------------

    async def pool(self, key: str, identity: Mapping[str, Any], request: Mapping[str, Any]) -> int:
        """The pool of this key, made where it does not exist."""
        return await self._scribe.do(partial(_pool, key=key, identity=identity, request=request))

    async def read(self, pool: int, indices: range, cursor: int = 0, limit: int = 256) -> Page:
        """Samples of these indices, in order of arrival, from `cursor` on."""

        def work(db: sqlite3.Connection) -> Page:
            rows = db.execute(
                f"SELECT seq, {_COLUMNS} FROM samples "
                "WHERE pool = ? AND idx >= ? AND idx < ? AND seq > ? ORDER BY seq LIMIT ?",
                (pool, indices.start, indices.stop, cursor, limit),
            ).fetchall()
            return Page(
                [from_row(row[1:]) for row in rows], rows[-1][0] if rows else cursor, len(rows) < limit
            )

        return await self._scribe.do(work, writes=False)

    async def attempts(self, pool: int, indices: range) -> Sequence[Attempt]:
        """Attempts on these indices, oldest first."""

        def work(db: sqlite3.Connection) -> list[Attempt]:
            rows = db.execute(
                "SELECT idx, kind, usage, error FROM attempts "
                "WHERE pool = ? AND idx >= ? AND idx < ? ORDER BY id",
                (pool, indices.start, indices.stop),
            )
            return [Attempt(idx, kind, load_usage(usage), error) for idx, kind, usage, error in rows]

        return await self._scribe.do(work, writes=False)

    async def claim(self, pool: int, indices: Iterable[int]) -> Sequence[int]:
        """Those of the indices that are now ours to sample."""
        return await self._scribe.do(partial(self._claim, pool=pool, indices=list(indices)))

    def put(self, pool: int, samples: Sequence[Recorded]) -> asyncio.Future[Sequence[Recorded]]:
        """Record samples and give up their claims; the samples as they are stored."""
        rows = [(pool, *as_row(sample)) for sample in samples]

        def work(db: sqlite3.Connection) -> Sequence[Recorded]:
            stored = list(samples)
            for place, (row, sample) in enumerate(zip(rows, samples, strict=True)):
                added = db.execute(
                    "INSERT OR IGNORE INTO samples (pool, idx, text, finish, stop, reasoning, logprobs, usage)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).rowcount
                if not added:  # somebody thought us dead and sampled it too: what we paid is not forgotten
                    _note(db, pool, [Attempt(sample.index, "duplicate", sample.usage)])
                    theirs = db.execute(
                        f"SELECT {_COLUMNS} FROM samples WHERE pool = ? AND idx = ?", (pool, sample.index)
                    )
                    stored[place] = from_row(theirs.fetchone())
            db.executemany(
                "DELETE FROM claims WHERE pool = ? AND idx = ?", [(pool, s.index) for s in samples]
            )
            return stored

        done = self._scribe.do(work)
        done.add_done_callback(lambda _: self._announce(pool))
        return done

    def note(self, pool: int, attempts: Sequence[Attempt], release: Iterable[int] = ()) -> None:
        """Record attempts and give up claims, without waiting."""
        freed = [(pool, index) for index in release]

        def work(db: sqlite3.Connection) -> None:
            _note(db, pool, attempts)
            db.executemany("DELETE FROM claims WHERE pool = ? AND idx = ?", freed)

        if attempts or freed:
            self._scribe.later(work)
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

    # --- memory ------------------------------------------------------------------------------------

    async def recall(self, kind: str, keys: Sequence[str]) -> Mapping[str, bytes]:
        """What was remembered under these keys; absent ones are left out."""

        def work(db: sqlite3.Connection) -> dict[str, bytes]:
            found: dict[str, bytes] = {}
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ", ".join("?" * len(some))
                rows = db.execute(
                    f"SELECT key, value FROM memory WHERE kind = ? AND key IN ({marks})", (kind, *some)
                )
                found.update(rows)
            return found

        return await self._scribe.do(work, writes=False) if keys else {}

    async def remember(self, kind: str, items: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Remember; what is already there stays, unless it is to be replaced."""
        rows = [(kind, key, value) for key, value in items.items()]
        conflict = "REPLACE" if replace else "IGNORE"

        def work(db: sqlite3.Connection) -> None:
            db.executemany(f"INSERT OR {conflict} INTO memory VALUES (?, ?, ?)", rows)

        if rows:
            await self._scribe.do(work)

    # --- the whole ---------------------------------------------------------------------------------

    async def summaries(self) -> Sequence[PoolSummary]:
        """Every pool, largest first."""

        def work(db: sqlite3.Connection) -> list[PoolSummary]:
            pools = db.execute(
                "SELECT id, identity, request, "
                "(SELECT count(*) FROM samples WHERE pool = pools.id), "
                "(SELECT count(*) FROM attempts WHERE pool = pools.id) FROM pools"
            ).fetchall()
            found = []
            for number, identity, request, samples, attempts in pools:
                backend = json.loads(identity)
                used = db.execute(
                    "SELECT usage FROM samples WHERE pool = ?1 UNION ALL "
                    "SELECT usage FROM attempts WHERE pool = ?1",
                    (number,),
                )
                found.append(
                    PoolSummary(
                        number,
                        str(backend.get("model", "")),
                        backend,
                        json.loads(request),
                        samples,
                        attempts,
                        total(load_usage(row[0]) for row in used),
                    )
                )
            return sorted(found, key=lambda p: (-p.samples, p.id))

        return await self._scribe.do(work, writes=False)

    async def close(self) -> None:
        """Write what is pending and let go. Raises StoreError where that fails."""
        if self._writable:
            self._scribe.later(self._leave)
        await asyncio.to_thread(self._scribe.finish)

    # --- in the thread -----------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self.path is not None and not self._writable:
            db = open_to_read(self.path)
            self._recognise(db)
            return db
        db = open_database(self.path)
        db.execute("BEGIN IMMEDIATE")
        if not _tables(db):
            for statement in files("archon.store").joinpath("schema.sql").read_text().split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('format', 'archon-store'), ('version', ?)", (str(_VERSION),))
        self._recognise(db)
        row = db.execute(
            "INSERT INTO owners (host, pid, started, beat) VALUES (?, ?, ?, ?)",
            (socket.gethostname(), os.getpid(), process_start(os.getpid()), time.time()),
        )
        self._owner = row.lastrowid or 0
        db.execute("COMMIT")
        return db

    def _recognise(self, db: sqlite3.Connection) -> None:
        """Raise where this is no store, or a newer one."""
        if "meta" not in _tables(db):
            db.close()
            raise StoreUnusable(
                f"{self.path} is an SQLite database, but not a store of ours. Name another with --store"
            )
        version = int(dict(db.execute("SELECT key, value FROM meta")).get("version", 0))
        if version > _VERSION:
            db.close()
            raise StoreVersion(
                f"{self.path} has format version {version}, newer than this program's {_VERSION}. Update archon"
            )

    def _beat(self, db: sqlite3.Connection) -> None:
        db.execute(  # whoever was thought dead, and removed, is back
            "INSERT INTO owners (id, host, pid, started, beat) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET beat = excluded.beat",
            (self._owner, socket.gethostname(), os.getpid(), process_start(os.getpid()), time.time()),
        )

    def _leave(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        db.execute("DELETE FROM owners WHERE id = ?", (self._owner,))

    def _claim(self, db: sqlite3.Connection, pool: int, indices: Sequence[int]) -> list[int]:
        self._beat(db)  # who was thought dead for its silence, and lives on, must be seen to
        ours = []
        refused: set[int] = set()
        for index in indices:
            if db.execute("SELECT 1 FROM samples WHERE pool = ? AND idx = ?", (pool, index)).fetchone():
                continue
            row = db.execute("SELECT owner FROM claims WHERE pool = ? AND idx = ?", (pool, index)).fetchone()
            if row is not None and row[0] not in refused:
                if self._alive(db, row[0]):
                    refused.add(row[0])
                    continue
                db.execute("DELETE FROM claims WHERE owner = ?", (row[0],))
                db.execute("DELETE FROM owners WHERE id = ?", (row[0],))
                row = None
            if row is None:
                db.execute("INSERT INTO claims VALUES (?, ?, ?)", (pool, index, self._owner))
                ours.append(index)
        return ours

    def _alive(self, db: sqlite3.Connection, owner: int) -> bool:
        row = db.execute("SELECT host, pid, started, beat FROM owners WHERE id = ?", (owner,)).fetchone()
        if row is None:
            return False
        host, pid, started, beat = row
        if host == socket.gethostname() and started:
            return bool(process_start(pid) == started)
        return bool(time.time() - beat < _SILENT_SECONDS)

    def _announce(self, pool: int) -> None:
        event = self._changed.pop(pool, None)
        if event is not None:
            event.set()


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _pool(db: sqlite3.Connection, key: str, identity: Mapping[str, Any], request: Mapping[str, Any]) -> int:
    row = db.execute("SELECT id FROM pools WHERE key = ?", (key,)).fetchone()
    if row is None:
        row = db.execute(
            "INSERT INTO pools (key, identity, request) VALUES (?, ?, ?) RETURNING id",
            (key, json.dumps(identity), json.dumps(request)),
        ).fetchone()
    return int(row[0])


def _note(db: sqlite3.Connection, pool: int, attempts: Sequence[Attempt]) -> None:
    db.executemany(
        "INSERT INTO attempts (pool, idx, kind, error, usage) VALUES (?, ?, ?, ?, ?)",
        [(pool, a.index, a.kind, a.error, dump_usage(a.usage)) for a in attempts],
    )


def as_row(sample: Recorded) -> tuple[Any, ...]:
    """A sample as numbers and texts."""
    logprobs = None if sample.logprobs is None else json.dumps(sample.logprobs)
    return (*sample[:5], logprobs, dump_usage(sample.usage))


def from_row(row: Sequence[Any]) -> Recorded:
    """The inverse of `as_row`."""
    index, text, finish, stop, reasoning, logprobs, usage = row
    tokens = None
    if logprobs is not None:
        tokens = tuple(
            TokenLogprob(token, logprob, tuple((other, value) for other, value in top))
            for token, logprob, top in json.loads(logprobs)
        )
    return Recorded(index, text, finish, stop, reasoning, tokens, load_usage(usage))


def dump_usage(usage: Usage) -> str:
    """Usage as compact JSON."""
    return json.dumps(usage.exact(), separators=(",", ":"))


def load_usage(text: str) -> Usage:
    """The inverse of `dump_usage`."""
    return Usage.from_json(json.loads(text))


def process_start(pid: int) -> str:
    """When a process started, so that a reused number is not mistaken for it; empty where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    fields = stat.rsplit(")", 1)[-1].split()
    return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"
