"""What a study's database is called, what of its name is said, and a server that is not as usual."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql

from archon.errors import ArchonError, StoreUnusable, UserError
from archon.search.claims import Claims, Item
from archon.search.database import engine_of, place, url_of
from tests.search.databases import postgres_database
from tests.search.test_study import begun, configurations, ended, open_
from tests.search.toy import items

SECRET = "Sesame-7"


@pytest.fixture
def database() -> Iterator[sql.URL]:
    with postgres_database() as url:
        yield url


def changed(database: sql.URL, statement: str) -> None:
    engine = sql.create_engine(database, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sql.text(statement))
    engine.dispose()


# --- its URL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgresql", "postgres", "postgresql+psycopg"])
def test_without_a_driver_it_is_the_one_that_the_extra_installs(kind: str) -> None:
    url = url_of(f"{kind}://u:p@host/d")
    assert url.drivername == "postgresql+psycopg" and url.password == "p" and url.host == "host"
    assert url_of("postgresql+psycopg2://u:p@host/d").drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"postgresql://u:{SECRET}@127.0.0.1:1/d", r"postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/d.*refused"),
        (f"postgresql://u:{SECRET}@127.0.0.1:99999/d", "99999"),
        (f"postgresql://u:{SECRET}@127.0.0.1:port/d", "its port is no number"),
        (f"postgresql://u:{SECRET}@[::1/d", "cannot be read"),
        (f"postgresql://u:{SECRET}/d", "its port is no number"),
        (f"postgresql:/u:{SECRET}@127.0.0.1/d", "no URL of a database"),
        (f"postgresql://u:a@{SECRET}@127.0.0.1:1/d", "%40"),
        (f"postgresql://u:a@{SECRET}/b@127.0.0.1:1/d", "%40"),
        (f"postgresql://127.0.0.1:1/d?user=u&password={SECRET}", r"127.0.0.1:1/d\?user=u: .*refused"),
        (f"postgresql://u@127.0.0.1:1/d?sslpassword={SECRET}", "refused"),
        (f"postgresql://u:{SECRET}@127.0.0.1:1/d?colour=red", "colour"),
        (f"postgresql+unheard://u:{SECRET}@h/d", r"no such kind.*write postgresql\+psycopg://"),
        (f"postgresql+psycopg_async://u:{SECRET}@h/d", "is async; write"),
        (f"postgresql+asyncpg://u:{SECRET}@h/d", r"asyncpg"),
        (f"mysql://u:{SECRET}@h/d", "PostgreSQL database"),
    ],
)
def test_an_error_says_what_is_wrong_and_never_the_password(
    url: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'archon[dev]'")
    with pytest.raises(ArchonError, match=says) as caught:
        Claims(url, "s")
    shown = [str(caught.value), repr(caught.value), *capfd.readouterr()]
    cause: BaseException | None = caught.value
    while cause is not None:
        shown.append(f"{cause!r} {cause}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    assert not any(SECRET in text for text in shown)
    assert list(tmp_path.iterdir()) == [], "no file is called so"


def test_a_file_may_have_signs_of_urls_in_its_url(tmp_path: Path) -> None:
    url = url_of(f"sqlite:///{tmp_path}/a@b@c.sqlite")
    assert place(url) == f"{tmp_path}/a@b@c.sqlite"


# --- its server -------------------------------------------------------------------------------------


def test_a_password_of_the_server_is_not_said(database: sql.URL) -> None:
    assert database.password is not None
    wrong = database.set(password=SECRET).render_as_string(hide_password=False)
    with pytest.raises(StoreUnusable, match="password authentication failed") as caught:
        open_(wrong)
    assert SECRET not in str(caught.value)
    text = database.render_as_string(hide_password=False)
    with open_(text) as study:
        trial = begun(study, configurations()[0])
        assert study.finish(trial, [0.5]) is not None
        with pytest.raises(UserError, match="another seed") as other:
            open_(text, seed=9)
    assert database.password not in str(other.value) and "***" in str(other.value)


def test_who_waited_sees_what_others_wrote_whatever_is_usual_on_the_server(database: sql.URL) -> None:
    changed(
        database, f"ALTER DATABASE {database.database} SET default_transaction_isolation = 'serializable'"
    )
    where = database.render_as_string(hide_password=False)
    barrier, work = threading.Barrier(4), items(60)

    def claim(_: int) -> list[Item]:
        barrier.wait()
        with Claims(where, "s") as claims:
            ours = [item for one in work for item in claims.claim([one])]
            claims.finish_all(dict.fromkeys(ours, 1))
        return ours

    with ThreadPoolExecutor(4) as pool:
        found = [item for ours in pool.map(claim, range(4)) for item in ours]
    assert sorted(found) == sorted(work)
    with open_(where) as study:
        assert study.finish(begun(study, configurations()[0]), [0.5]) is not None


def test_connections_that_the_server_has_cut_are_made_anew(database: sql.URL) -> None:
    where = database.render_as_string(hide_password=False)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
    others += "AND pid <> pg_backend_pid()"
    with open_(where) as study:
        first, second = configurations()[:2]
        trial = begun(study, first)
        changed(database, others)
        assert ended(study.finish(trial, [0.5])).values == (0.5,)
        changed(database, others)
        begun(study, second)
        assert [t.values for t in study.history()] == [(0.5,)]
        cut_within = pytest.raises(StoreUnusable, match="terminating connection")
        with cut_within, study.claims.transaction() as db:
            changed(database, others)
            db.execute(sql.text("SELECT 1"))
        assert [t.key for t in study.running()] == [second.key]


def test_its_connections_are_those_of_the_driver(database: sql.URL) -> None:
    engine = engine_of(url_of(database.set(drivername="postgresql").render_as_string(hide_password=False)))
    with engine.connect() as db:
        assert db.dialect.driver == "psycopg"
        assert db.execute(sql.text("SHOW transaction_isolation")).scalar_one() == "read committed"
    engine.dispose()
