"""The database of a study: a file of SQLite, or PostgreSQL by its URL, through SQLAlchemy; its errors as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from archon.errors import MissingExtra, StoreError, StoreFull, StoreUnusable, UserError

try:
    import sqlalchemy as sql
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
except ImportError as error:
    raise MissingExtra(
        "a study that can be gone on with needs Optuna and SQLAlchemy; install them: pip install 'archon[search]'"
    ) from error

__all__ = [
    "BUSY_SECONDS",
    "engine_of",
    "explained",
    "insert_of",
    "is_file",
    "place",
    "prepare",
    "settings",
    "sql",
    "url_of",
]

BUSY_SECONDS = 120.0
"""How long a writer waits for the others."""
_DRIVER = "postgresql+psycopg"
"""Of a URL that names none; older versions of SQLAlchemy would take another, which we do not install."""
_KEPT = "A study is kept in a file of SQLite, or in a PostgreSQL database: postgresql://user:password@host/database"
_NEARLY = re.compile(r"postgres(ql)?(\+\w+)?:", re.IGNORECASE)
"""How a URL begins, be it misspelt: no file is called so."""
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
"""Options of PostgreSQL's that may be in the URL, and are not to be shown."""


def is_file(where: str | Path) -> bool:
    """Whether this names a file, and no URL, be it misspelt."""
    return "://" not in str(where) and not _NEARLY.match(str(where))


def url_of(where: str | Path) -> sql.URL:
    """A file as SQLite's URL, a URL as it is; the file's folder is made. Raises UserError, StoreUnusable.

    What is said of a URL that cannot be read does not show it, as its password may be anywhere in it.
    """
    text = str(where)
    if is_file(where):
        path = Path(where)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(
                f"cannot make the folder {str(path.parent)!r} for the study: {error.strerror}. Name another place"
            ) from error
        return sql.URL.create("sqlite", database=str(path.absolute()))
    if text.count("@") > 1 and not text.startswith("sqlite"):
        raise UserError(
            f"the study's URL has more than one @: within a name or a password write %40. {_KEPT}"
        )
    try:
        url = sql.make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(
            f"the study's URL cannot be read: its port is no number, or it is no URL of a database. {_KEPT}"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and url.database != ":memory:" and "mode=memory" not in text:
        return url
    if kind not in ("postgresql", "postgres"):
        raise UserError(f"a study cannot be kept in {place(url)!r}. {_KEPT}")
    if "+" not in url.drivername:
        return url.set(drivername=_DRIVER)
    return url


def place(url: sql.URL) -> str:
    """Where a study is, for people: without a password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.difference_update_query(_SECRETS).render_as_string(hide_password=True)


def settings(url: sql.URL) -> dict[str, Any]:
    """How SQLAlchemy is to connect: writers wait for one another, lost connections are noticed, and who has waited
    sees what the others have written meanwhile, whatever is usual on that server."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    return {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}


def insert_of(url: sql.URL) -> Any:
    """The database's own `insert`, which can leave alone what is there."""
    return sqlite.insert if url.get_backend_name() == "sqlite" else postgresql.insert


def prepare(engine: sql.Engine) -> None:
    """Write-ahead logging, and no wait for the disk but at checkpoints: it survives a `kill -9` of any process; only a
    power cut can take the last commits."""
    if engine.dialect.name == "sqlite":
        sql.event.listen(engine, "connect", _prepare)


def _prepare(connection: Any, _: object) -> None:
    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except Exception as error:  # SQLite does not wait for others here, so we do
            if "locked" not in str(error) or time.monotonic() > patience:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")


def engine_of(url: sql.URL) -> sql.Engine:
    """Connections to it. Raises UserError or MissingExtra where there is no driver."""
    write = f"write {_DRIVER}://..."
    try:
        if url.get_dialect().is_async:
            raise UserError(
                f"a study cannot be kept through the driver of {place(url)!r}, which is async; {write}"
            )
        engine = sql.create_engine(url, **settings(url))
    except NoSuchModuleError as error:
        raise UserError(f"there is no such kind of database: {place(url)!r}; {write}") from error
    except ImportError as error:
        raise MissingExtra(
            f"a study in {place(url)!r} needs a driver that is not installed ({error.name}); "
            f"pip install 'archon[postgres]', and {write}"
        ) from error
    prepare(engine)
    return engine


@contextmanager
def explained(where: str) -> Iterator[None]:
    """SQLAlchemy's errors, also those that Optuna wraps, as ours, with what to do."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        if not isinstance(cause, SQLAlchemyError):
            raise
        text = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        raise _ours(text, where) from error


def _ours(text: str, where: str) -> StoreError:
    if any(sign in text for sign in ("is full", "disk I/O", "No space left")):
        return StoreFull(
            f"the disk that holds the study in {where} is full ({text}). What was recorded is kept: free some space "
            "and run the same command again"
        )
    if "locked" in text:
        return StoreError(f"the study in {where} stayed locked for {BUSY_SECONDS:.0f} s by another program")
    if "not a database" in text or "malformed" in text:
        return StoreUnusable(f"{where} is no database of ours, or is damaged ({text}). Name another place")
    return StoreUnusable(f"cannot use the study in {where}: {text}. Name another place, or mend this one")
