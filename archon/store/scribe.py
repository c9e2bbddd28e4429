"""The one thread that touches the database, and its group commit.

Callers hand it functions of a connection; it runs whatever has queued up in one transaction, commits
once, and then answers all of them. So a hundred samples that arrive together cost one commit, and a
caller that has its answer knows that it is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from archon.errors import StoreError, StoreFull, StoreUnusable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_MOST_AT_ONCE = 4096
_BUSY_SECONDS = 120.0


class _Job(NamedTuple):
    work: Work | None
    """None asks the thread to end."""
    answer: asyncio.Future[Any] | None
    """None for work nobody waits for."""
    writes: bool


class Scribe:
    """Runs work on one SQLite connection in its own thread, in order, committing in groups."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], where: str) -> None:
        self._where = where
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._failure: StoreError | None = None
        self._finished = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(connect,), name="archon-store", daemon=True)
        self._idle: Work | None = None
        self._idle_every = 15.0
        self._thread.start()
        self._ready.wait()
        self._check()

    def every(self, seconds: float, work: Work) -> None:
        """Run `work` about every so many seconds (the heartbeat)."""
        self._idle_every, self._idle = seconds, work

    def do(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> asyncio.Future[T]:
        """Hand over work at once; the future is done when it is committed. Raises StoreError."""
        self._check()
        if not self._thread.is_alive() or self._finished:
            raise StoreError(f"the store {self._where} is closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(work, answer, writes))
        return answer

    def later(self, work: Work) -> None:
        """Run work without waiting for it."""
        self._jobs.put(_Job(work, None, True))

    def finish(self) -> None:
        """Commit what is queued and end the thread. Raises the first error nobody has seen."""
        self._finished = True
        self._jobs.put(_Job(None, None, False))
        self._thread.join()
        self._check()

    def _check(self) -> None:
        """Raise the failure that ended the work, if one did."""
        if self._failure is not None:
            raise self._failure

    def _serve(self, connect: Callable[[], sqlite3.Connection]) -> None:
        try:
            connection = connect()
        except StoreError as error:
            self._failure = error
            return
        except sqlite3.Error as error:
            self._failure = explain(error, self._where)
            return
        except Exception as error:  # whatever it is, those who wait must hear of it
            self._failure = StoreUnusable(
                f"cannot use the store {self._where}: {error}. Name another with --store"
            )
            return
        finally:
            self._ready.set()
        beat_due = time.monotonic() + self._idle_every
        try:
            ending = False
            while not ending:
                if self._idle is not None and time.monotonic() >= beat_due:
                    self._run([_Job(self._idle, None, True)], connection)
                    beat_due = time.monotonic() + self._idle_every
                try:
                    jobs = [self._jobs.get(timeout=max(0.01, beat_due - time.monotonic()))]
                except queue.Empty:
                    continue
                with contextlib.suppress(queue.Empty):
                    while len(jobs) < _MOST_AT_ONCE:
                        jobs.append(self._jobs.get_nowait())
                ending = any(job.work is None for job in jobs)
                self._run([job for job in jobs if job.work is not None], connection)
        finally:
            connection.close()

    def _run(self, jobs: list[_Job], connection: sqlite3.Connection) -> None:
        if not jobs:
            return
        results: list[Any] = []
        error: Exception | None = None
        try:
            connection.execute("BEGIN IMMEDIATE" if any(job.writes for job in jobs) else "BEGIN")
            for job in jobs:
                assert job.work is not None
                results.append(job.work(connection))
            connection.execute("COMMIT")
        except sqlite3.Error as cause:
            error = explain(cause, self._where)
        except Exception as cause:  # a fault in the work itself: its callers are told, the thread lives on
            error = cause
        if error is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            unseen = any(job.answer is None for job in jobs)
            if isinstance(error, StoreFull | StoreUnusable) or (unseen and isinstance(error, StoreError)):
                self._failure = self._failure or error
        _answer(jobs, results, error)


def _answer(jobs: list[_Job], results: list[Any], error: Exception | None) -> None:
    """Answer every waiting caller, with one wake-up per event loop."""
    if error is not None:
        results = [None] * len(jobs)
    waiting = [(job.answer, r) for job, r in zip(jobs, results, strict=True) if job.answer is not None]
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for answer, result in waiting:
        loops.setdefault(answer.get_loop(), []).append((answer, result))

    def tell(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
        for answer, result in answers:
            if answer.done():  # its caller was cancelled; the work is committed all the same
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)

    for loop, answers in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            loop.call_soon_threadsafe(tell, answers)


def explain(error: sqlite3.Error, where: str) -> StoreError:
    """SQLite's error as ours, with what to do."""
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return StoreFull(
            f"the disk that holds the store {where} is full ({text}). What was recorded is kept: "
            "free some space and run the same command again, or name another place with --store"
        )
    if "locked" in text:
        return StoreError(f"the store {where} stayed locked for {_BUSY_SECONDS:.0f} s by another program")
    if isinstance(error, sqlite3.DatabaseError) and ("not a database" in text or "malformed" in text):
        return StoreUnusable(
            f"{where} is not a store of ours, or is damaged ({text}). Name another with --store"
        )
    return StoreUnusable(f"cannot use the store {where}: {text}. Name another with --store")


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also where nothing can be written (an archive on a read-only disk).

    SQLite reads a write-ahead log only with a file of shared memory beside it. Where it cannot make one and
    there is no log, it is told that nobody writes.
    """
    where = path.resolve()
    writable = os.access(where, os.W_OK) and os.access(where.parent, os.W_OK)
    alone = not where.with_name(f"{where.name}-wal").exists()
    mode = "rw" if writable else "ro&immutable=1" if alone else "ro"
    connection = sqlite3.connect(
        f"{where.as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def open_database(path: Path | None) -> sqlite3.Connection:
    """A connection with the settings we rely on; in memory without a path."""
    connection = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    _use_wal(connection)
    # In WAL mode NORMAL survives a kill -9 of any process; only a power cut can take the last commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; SQLite does not wait for others here, so we do."""
    patience = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > patience:
                raise
            time.sleep(0.02)
