"""`archon search` by two processes with folders of their own and one study in PostgreSQL, by its URL; one is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sql

from archon.cli import main
from tests.benchmarks.test_searching_shared import KEPT, Folders, file
from tests.search.databases import postgres_database

SECRET = "Sesame-7"


class Shared(Folders):
    """And what was said on the way."""

    said: str
    url: sql.URL


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """One process alone; two that share a study, of which the first is killed; the first again."""
    place = tmp_path_factory.mktemp("postgres")
    path = file(place)
    with postgres_database() as url:
        study = ["--study", url.set(drivername="postgresql").render_as_string(hide_password=False)]

        def line(name: str, *more: str) -> list[str]:
            return ["search", str(path), "--out", str(place / name), "--no-pictures", *more]

        first, second = line("first", *study), line("second", *study)
        plan = [
            {"run": [line("alone")]},
            {
                "run": [first, second],
                "kill": 1,
                "store": str(place / "first" / "store.sqlite"),
                "samples": 30,
            },
            {"run": [first]},
        ]
        script = Path(__file__).with_name("searchers.py")
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", str(script), json.dumps(plan)],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = Shared(place)
        found.codes, found.said, found.url = json.loads(done.stdout), done.stdout + done.stderr, url
        yield found


def test_two_processes_of_which_one_is_killed_end_as_one_does(shared: Shared) -> None:
    assert shared.codes == [[0], [-9, 0], [0]]
    alone = shared.told("alone")
    assert alone["trials"] == 10 and alone["best"]["test"]["value"] > 0
    for name in ("first", "second"):
        for key in ("best", "baselines", "trials", "evaluations", "splits"):
            assert shared.told(name)[key] == alone[key], key
        for kept in KEPT:
            assert (shared.place / name / kept).read_bytes() == (shared.place / "alone" / kept).read_bytes()
        assert not (shared.place / name / "study.sqlite").exists()


def test_each_has_drawn_a_part_and_the_study_says_what_both_spent(shared: Shared) -> None:
    first, second = shared.paid("first").tokens, shared.paid("second").tokens
    assert first > 0 and second > 0
    told = shared.told("second")["tokens"]["fresh"]
    assert first + second - 16 * 9 * 8 <= told <= first + second, (
        "the killed one told it but for its last calls"
    )
    assert shared.told("first")["tokens"]["fresh"] == told, "the first had nothing left to do"


def test_the_password_is_in_no_file_and_no_line(shared: Shared) -> None:
    password = shared.url.password
    assert password is not None and len(password) > 4 and shared.said
    forms = {
        password,
        quote(password),
        quote(password, safe=""),
        quote_plus(password),
        json.dumps(password)[1:-1],
    }
    files = [path for path in shared.place.rglob("*") if path.is_file()]
    assert len(files) > 12
    for form in forms:
        assert form not in shared.said
        assert not [path for path in files if form.encode() in path.read_bytes()]


@pytest.mark.parametrize("server", ["127.0.0.1:1/d", "127.0.0.1:one/d", "127.0.0.1:1/d?password=" + SECRET])
def test_what_the_command_line_says_of_a_wrong_server_is_short_and_without_the_password(
    server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'archon[dev]'")
    out = tmp_path / "out"
    url = f"postgresql://u:{SECRET}@{server}"
    with pytest.raises(SystemExit) as ended:
        main(["search", str(file(tmp_path)), "--out", str(out), "--no-pictures", "--study", url])
    said = "".join(capfd.readouterr())
    assert ended.value.code not in (0, None)
    assert "127.0.0.1:1/d" in said or "port is no number" in said
    assert SECRET not in said and "Traceback" not in said
    assert not [path for path in out.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
