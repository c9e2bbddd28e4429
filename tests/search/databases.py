"""Databases for the tests of studies, and the processes that share them."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql

TOY = Path(__file__).with_name("toy.py")
POSTGRES = os.environ.get("ARCHON_POSTGRES")
"""The URL of a server where these tests may make databases of their own."""


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=pytest.mark.skipif(POSTGRES is None, reason="ARCHON_POSTGRES names no PostgreSQL server"),
        ),
    ]
)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new database of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "study.sqlite")
        return
    assert POSTGRES is not None
    name = f"archon_{uuid.uuid4().hex}"
    server = sql.create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
    with server.connect() as db:
        db.execute(sql.text(f"CREATE DATABASE {name}"))
        yield server.url.set(database=name).render_as_string(hide_password=False)
        db.execute(sql.text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


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
