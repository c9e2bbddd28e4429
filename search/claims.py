"""Work shared by processes: who evaluates what, and what came of it, in the database of the study.

An item is a problem of a configuration. It is claimed before it is worked on, in one transaction, so that no two
workers have it; what came of it is kept with it, and numbered in the order in which items were done. A worker that is
gone loses its claims to whoever asks: on the same machine at once, because its process is gone; on another one when it
has been silent for a minute. Kept in SQLite (a file; write-ahead logging) or PostgreSQL (a URL), through SQLAlchemy.

Source of the design: our own store (`archon.store.sqlite`), which does the same for samples. Cost: no calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from archon.errors import StoreError
from archon.search.database import engine_of, explained, insert_of, place, sql, url_of
from archon.store.sqlite import process_start

_SILENT_SECONDS = 60.0
_BEAT_SECONDS = 15.0
_AT_ONCE = 400
_NOBODY = ""

_METADATA = sql.MetaData()
_OWNERS = sql.Table(
    "archon_owners",
    _METADATA,
    sql.Column("id", sql.String(32), primary_key=True),
    sql.Column("host", sql.Text, nullable=False),
    sql.Column("pid", sql.Integer, nullable=False),
    sql.Column("started", sql.Text, nullable=False),
    sql.Column("beat", sql.Float(53), nullable=False),
)
_WORK = sql.Table(
    "archon_work",
    _METADATA,
    sql.Column("study", sql.String(512), primary_key=True),
    sql.Column("configuration", sql.String(64), primary_key=True),
    sql.Column("problem", sql.String(512), primary_key=True),
    sql.Column("owner", sql.String(32), nullable=False),
    sql.Column("note", sql.Text),
    sql.Column("done", sql.Integer),
    sql.Column("value", sql.Text),
    sql.Index("archon_work_done", "study", "done"),
)
_STUDIES = sql.Table(
    "archon_studies",
    _METADATA,
    sql.Column("study", sql.String(512), primary_key=True),
    sql.Column("begun", sql.Text, nullable=False),
)


class Item(NamedTuple):
    """One piece of work: a problem of a configuration."""

    configuration: str
    """`Configuration.key`."""
    problem: str


class Taken(NamedTuple):
    """How an item became ours."""

    again: bool
    """Whether somebody had it before, and is gone."""
    note: Any
    """What was noted when it was first claimed, or later by who had it."""


class Most(NamedTuple):
    """A limit on how many items there may be, in all processes."""

    limit: int
    configuration: str | None = None
    """Only its items count; None for those of all."""
    problems: frozenset[str] | None = None
    """Only these problems count; None for all."""


class Open(NamedTuple):
    """An item that is not done."""

    note: Any
    alive: bool
    """Whether who claimed it still works on it."""


class Claims:
    """What this worker has claimed, and what all have done. Safe for threads; its threads are apart, too.

    Raises UserError where the place is no SQLite file and no PostgreSQL URL, MissingExtra where its driver is not
    installed, StoreFull, StoreUnusable or StoreError where the database cannot be used; so do all methods.
    """

    def __init__(
        self,
        where: str | Path,
        study: str,
        *,
        silent_seconds: float = _SILENT_SECONDS,
        beat_seconds: float = _BEAT_SECONDS,
    ) -> None:
        self.url = url_of(where)
        self.study = study
        self._where = place(self.url)
        self._silent = silent_seconds
        self._beat_seconds = beat_seconds
        self._insert = insert_of(self.url)
        self._me = {
            "id": uuid.uuid4().hex,
            "host": _host(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
        self.owner = self._owner = str(self._me["id"])
        """This worker, among all that ever had something to do with the database."""
        self._closed = threading.Event()
        self._engine = engine_of(self.url)
        try:
            with self._writing(schema=True) as db:
                _METADATA.create_all(db)
                self._beat(db)
        except BaseException:
            self._engine.dispose()
            raise
        self._heart = threading.Thread(target=self._go_on_beating, name="archon-claims", daemon=True)
        self._heart.start()

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is claimed and not done, and let go of the database."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._heart.join()
        try:
            with self._writing() as db:
                db.execute(
                    _WORK.update()
                    .where(_WORK.c.owner == self._owner, _WORK.c.done.is_(None))
                    .values(owner=_NOBODY)
                )
                db.execute(_OWNERS.delete().where(_OWNERS.c.id == self._owner))
        finally:
            self._engine.dispose()

    # --- the study -----------------------------------------------------------------------------------

    def begin(self, begun: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the study was begun with (JSON): the first to say it is whose word counts."""
        row = {"study": self.study, "begun": _dump(begun)}
        with self.transaction() as db:
            db.execute(self._insert(_STUDIES).values(row).on_conflict_do_nothing())
            asked = sql.select(_STUDIES.c.begun).where(_STUDIES.c.study == self.study)
            found: Mapping[str, Any] = json.loads(db.execute(asked).scalar_one())
        return found

    # --- claiming ------------------------------------------------------------------------------------

    def claim(self, items: Iterable[Item], most: Most | None = None) -> list[Item]:
        """Those of the items that are now ours to do, in their order: the others are done, or claimed by a worker that
        is alive (another thread of ours, too), or one too many."""
        return list(self.take(items, most=most))

    def take(self, items: Iterable[Item], note: Any = None, most: Most | None = None) -> dict[Item, Taken]:
        """As `claim`, with how each became ours. The note (JSON) is kept with those that nobody had before; there are
        no more of these than `most` allows."""
        wanted = list(dict.fromkeys(Item(*item) for item in items))
        found: dict[Item, Taken] = {}
        if not wanted:
            return found
        with self.transaction() as db:
            self._beat(db)  # who was thought dead for its silence, and lives on, must be seen to
            room = None if most is None else max(0, most.limit - self._count(db, most))
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                new = self._add(db, some, note) if room is None else self._add_some(db, some, note, room)
                room = None if room is None else room - len(new)
                found.update({item: Taken(False, note) for item in new})
                found.update(self._take_over(db, [item for item in some if item not in new]))
        return {item: found[item] for item in wanted if item in found}

    def note(self, item: Item, note: Any) -> bool:
        """Keep a note (JSON) with an item of ours; False where it is done, or no longer ours."""
        with self.transaction() as db:
            changed = (
                _WORK.update()
                .where(self._is(item), _WORK.c.owner == self._owner, _WORK.c.done.is_(None))
                .values(note=_dump(note))
            )
            return db.execute(changed).rowcount > 0

    def owns(self, item: Item) -> bool:
        """Whether an item is claimed by us, and not done."""
        asked = sql.select(_WORK.c.owner).where(self._is(item), _WORK.c.done.is_(None))
        with self.reading() as db:
            return db.execute(asked).scalar_one_or_none() == self._owner

    def finish(self, item: Item, value: Any) -> bool:
        """Keep what came of an item (JSON). False where another has done it already, whose value stays: we were thought
        dead."""
        return self.finish_all({item: value}) == [item]

    def finish_all(self, values: Mapping[Item, Any]) -> list[Item]:
        """As `finish`, for several in one transaction; those whose value stays."""
        rows = [(Item(*item), _dump(value)) for item, value in values.items()]
        kept: list[Item] = []
        if not rows:
            return kept
        with self.transaction() as db:
            last = sql.select(sql.func.coalesce(sql.func.max(_WORK.c.done), 0))
            done = int(db.execute(last.where(_WORK.c.study == self.study)).scalar_one())
            for item, value in rows:
                self._add(db, [item], None)
                changed = (
                    _WORK.update()
                    .where(self._is(item), _WORK.c.done.is_(None))
                    .values(owner=self._owner, done=done + 1, value=value)
                )
                if db.execute(changed).rowcount:
                    done += 1
                    kept.append(item)
        return kept

    def release(self, items: Iterable[Item]) -> None:
        """Give up items of ours that are not done."""
        with self.transaction() as db:
            for item in items:
                db.execute(
                    _WORK.update()
                    .where(self._is(item), _WORK.c.owner == self._owner, _WORK.c.done.is_(None))
                    .values(owner=_NOBODY)
                )

    # --- reading -------------------------------------------------------------------------------------

    def values(self, configuration: str) -> dict[str, Any]:
        """What came of the problems of a configuration that are done, in the order in which they were."""
        asked = (
            sql.select(_WORK.c.problem, _WORK.c.value)
            .where(
                _WORK.c.study == self.study,
                _WORK.c.configuration == configuration,
                _WORK.c.done.is_not(None),
            )
            .order_by(_WORK.c.done)
        )
        with self.reading() as db:
            return {problem: json.loads(value) for problem, value in db.execute(asked)}

    def open(self, configuration: str) -> dict[str, Open]:
        """The problems of a configuration that were claimed and are not done, whoever has them; also those that were
        given up."""
        asked = sql.select(_WORK.c.problem, _WORK.c.owner, _WORK.c.note).where(
            _WORK.c.study == self.study, _WORK.c.configuration == configuration, _WORK.c.done.is_(None)
        )
        with self.reading() as db:
            rows = db.execute(asked.order_by(_WORK.c.problem)).all()
            alive = self.living(db, {row.owner for row in rows})
        return {row.problem: Open(_load(row.note), row.owner in alive) for row in rows}

    def count(self, most: Most) -> int:
        """How many items there are of those that a limit is on: done, in work, or given up for others to take."""
        with self.reading() as db:
            return self._count(db, most)

    # --- in a transaction ----------------------------------------------------------------------------

    def _is(self, item: Item) -> Any:
        return sql.and_(
            _WORK.c.study == self.study,
            _WORK.c.configuration == item.configuration,
            _WORK.c.problem == item.problem,
        )

    def _add(self, db: sql.Connection, items: Sequence[Item], note: Any) -> set[Item]:
        """Make those items ours that nobody ever had."""
        about = {"study": self.study, "owner": self._owner, "note": None if note is None else _dump(note)}
        rows = [{**about, "configuration": item.configuration, "problem": item.problem} for item in items]
        added = self._insert(_WORK).on_conflict_do_nothing().returning(_WORK.c.configuration, _WORK.c.problem)
        return {Item(*row) for row in db.execute(added, rows)}

    def _add_some(self, db: sql.Connection, items: Sequence[Item], note: Any, room: int) -> set[Item]:
        """As `_add`, the first so many."""
        added: set[Item] = set()
        for item in items:
            if len(added) == room:
                break
            added |= self._add(db, [item], note)
        return added

    def _count(self, db: sql.Connection, most: Most) -> int:
        asked = sql.select(_WORK.c.problem, sql.func.count()).where(_WORK.c.study == self.study)
        if most.configuration is not None:
            asked = asked.where(_WORK.c.configuration == most.configuration)
        among = most.problems
        rows = db.execute(asked.group_by(_WORK.c.problem))
        return sum(count for problem, count in rows if among is None or problem in among)

    def _take_over(self, db: sql.Connection, items: Sequence[Item]) -> dict[Item, Taken]:
        """Make those items ours whose owner is gone."""
        if not items:
            return {}
        among = sql.and_(
            _WORK.c.study == self.study,
            _WORK.c.done.is_(None),
            sql.tuple_(_WORK.c.configuration, _WORK.c.problem).in_([tuple(item) for item in items]),
        )
        owners = {row.owner for row in db.execute(sql.select(_WORK.c.owner).where(among).distinct())}
        gone = owners - self.living(db, owners)
        if not gone:
            return {}
        changed = _WORK.update().where(among, _WORK.c.owner.in_(gone)).values(owner=self._owner)
        rows = db.execute(changed.returning(_WORK.c.configuration, _WORK.c.problem, _WORK.c.note)).all()
        return {Item(row.configuration, row.problem): Taken(True, _load(row.note)) for row in rows}

    def living(self, db: sql.Connection, owners: set[str]) -> set[str]:
        """Those of some workers that are not gone."""
        rows = db.execute(sql.select(_OWNERS).where(_OWNERS.c.id.in_(owners - {_NOBODY}))).all()
        now = self._now(db)
        alive = set()
        for row in rows:
            here = row.host == self._me["host"] and row.started
            if process_start(row.pid) == row.started if here else now - row.beat < self._silent:
                alive.add(row.id)
        return alive

    def _beat(self, db: sql.Connection) -> None:
        beat = self._now(db)
        sign = self._insert(_OWNERS).values(**self._me, beat=beat)
        db.execute(sign.on_conflict_do_update(index_elements=[_OWNERS.c.id], set_={"beat": beat}))

    def _now(self, db: sql.Connection) -> float:
        """Seconds since 1970 by the one clock that all workers share."""
        if db.dialect.name == "sqlite":
            return time.time()
        return float(db.execute(sql.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _go_on_beating(self) -> None:
        while not self._closed.wait(self._beat_seconds):
            with (
                suppress(StoreError),
                self._writing() as db,
            ):  # who works next meets the same error, and says it
                self._beat(db)

    # --- transactions --------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, schema: bool = False) -> Iterator[sql.Connection]:
        """In which no other worker of the study writes; with `schema` none of any study."""
        self._check()
        with self._writing(schema=schema) as db:
            yield db

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """In which nothing is written."""
        self._check()
        with explained(self._where), self._engine.connect() as db:
            yield db

    def _check(self) -> None:
        if self._closed.is_set():
            raise StoreError(f"the study in {self._where} is closed")

    @contextmanager
    def _writing(self, *, schema: bool = False) -> Iterator[sql.Connection]:
        """One writer at a time: of the file in SQLite, of the study in PostgreSQL."""
        with explained(self._where), self._engine.connect() as db:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                lock = hashlib.sha256(f"archon/{'' if schema else self.study}".encode()).digest()[:8]
                number = int.from_bytes(lock, signed=True)
                db.execute(sql.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": number})
            yield db
            db.commit()


def kept(db: sql.Connection, study: str) -> list[Any]:
    """What came of everything in a study that is done, in the order in which it was; nothing where the database has
    none. Only reads."""
    if not sql.inspect(db).has_table(_WORK.name):
        return []
    asked = sql.select(_WORK.c.value).where(_WORK.c.study == study, _WORK.c.done.is_not(None))
    return [json.loads(value) for value in db.execute(asked.order_by(_WORK.c.done)).scalars()]


def _host() -> str:
    """This machine, and where it has several, the space in which process numbers mean something."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}".strip()


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _load(text: str | None) -> Any:
    return None if text is None else json.loads(text)
