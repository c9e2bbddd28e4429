"""Databases for the tests of studies, and the processes that share them."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sql

TOY = Path(__file__).with_name("toy.py")
_KEEPER = Path(__file__).with_name("postgres.py")
_DRIVER = "psycopg"


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "study.sqlite")
        return
    with postgres_database() as url:
        yield url.render_as_string(hide_password=False)


@contextmanager
def postgres_database() -> Iterator[sql.URL]:
    """A new database in PostgreSQL, with the password of its server; skips the test where there is no server."""
    server = sql.create_engine(postgres_server(), isolation_level="AUTOCOMMIT")
    name = f"archon_{uuid.uuid4().hex}"
    try:
        with server.connect() as db:
            db.execute(sql.text(f"CREATE DATABASE {name}"))
            try:
                yield server.url.set(database=name)
            finally:
                db.execute(sql.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        server.dispose()


def postgres_server() -> sql.URL:
    """Where these tests may make databases of their own: a server that ARCHON_POSTGRES names, or one that is started
    for this process when it is first needed. Skips the test where there is neither."""
    named = os.environ.get("ARCHON_POSTGRES")
    if named:
        return sql.make_url(named)
    if importlib.util.find_spec(_DRIVER) is None:
        pytest.skip("no driver for PostgreSQL: pip install 'archon[dev]'")
    found = _started()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _started() -> sql.URL | str:
    """A server that ends with this process, however it ends; or why there is none."""
    keeper = subprocess.Popen(
        [sys.executable, "-P", str(_KEEPER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; it ends when we have
    )
    assert keeper.stdin is not None and keeper.stdout is not None
    said = keeper.stdout.readline()
    if not said:
        raise AssertionError(f"{_KEEPER.name} ended with {keeper.wait()}")
    atexit.register(keeper.communicate)
    told = json.loads(said)
    if "without" in told:
        return str(told["without"])
    return sql.URL.create(
        f"postgresql+{_DRIVER}",
        username=told["user"],
        password=told["password"],
        host="127.0.0.1",
        port=told["port"],
        database="postgres",
    )


def toy(*words: str | int | Path) -> subprocess.Popen[str]:
    """A process of `toy.py`."""
    command = [sys.executable, "-P", "-W", "error", str(TOY), *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def said(process: subprocess.Popen[str]) -> list[str]:
    """What a process that ends well has said, line by line."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.splitlines()


def until_it_hangs(process: subprocess.Popen[str]) -> list[str]:
    """What a process says until it hangs."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if line == "hanging\n":
            return lines
        lines.append(line.rstrip("\n"))
    raise AssertionError(process.communicate()[1])
