"""`archon search` by two processes with folders of their own and one study in PostgreSQL, by its URL; one is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sql

from archon.benchmarks.searching.elsewhere import VARIABLE, note
from archon.benchmarks.searching.standing import standing
from archon.cli import main
from archon.errors import DataError
from archon.search.axes import Axes, Axis, Configuration
from archon.search.study import Study
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
    assert shared.said
    files = [path for path in shared.place.rglob("*") if path.is_file()]
    assert len(files) > 12
    for form in forms(shared.url):
        assert form not in shared.said
        assert not [path for path in files if form.encode() in path.read_bytes()]


def forms(url: sql.URL) -> set[str]:
    """How the password of a URL may be written."""
    password = url.password
    assert password is not None and len(password) > 4
    parts = {password, quote(password), quote(password, safe=""), quote_plus(password)}
    return {*parts, json.dumps(password)[1:-1]}


def reported(capfd: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, words)])
    assert isinstance(ended.value.code, int)
    return (ended.value.code, *capfd.readouterr())


def test_what_is_reported_before_the_end_is_what_a_study_in_the_folder_says(
    shared: Shared,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("alone", "first"):
        shutil.copytree(shared.place / name, tmp_path / name)
        (tmp_path / name / "search.json").unlink()
    url = shared.url.set(drivername="postgresql").render_as_string(hide_password=False)

    code, _, told = reported(capfd, tmp_path / "first")
    assert code == 2 and "--study" in told and VARIABLE in told and str(shared.url.database) in told
    said = told

    expected = json.loads(reported(capfd, tmp_path / "alone", "--json")[1])
    code, out, told = reported(capfd, tmp_path / "first", "--json", "--study", url)
    assert (code, told) == (0, "")
    found, own = json.loads(out), {"number", "fresh_tokens", "problems", "reason", "values"}
    for each in (expected, found):
        each["tried"] = sorted(
            ({k: v for k, v in one.items() if k not in own} for one in each["tried"]), key=lambda o: o["key"]
        )
    assert len(found["tried"]) == 10 and found["anytime"]
    assert found["tried"] == expected["tried"] and found["objectives"] == expected["objectives"]
    said += out

    monkeypatch.setenv(VARIABLE, url)
    code, out, told = reported(capfd, tmp_path / "first", "--top", "3")
    assert (code, told) == (0, "")
    for words in (
        "has not ended",
        "Best so far",
        "10 configurations done",
        "fresh tokens spent",
        "the best 3,",
    ):
        assert words in out, words
    said += out
    assert "10 configurations done" in reported(capfd, tmp_path / "alone")[1], "its study is in its folder"
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for form in forms(shared.url):
        assert form not in said and form.encode() not in kept


def test_a_search_under_way_is_reported_by_its_url_and_no_other_passes_for_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    axes = Axes([Axis("n", "int", low=1, high=9)])
    folder = tmp_path / "out"
    folder.mkdir()
    with postgres_database() as url, postgres_database() as empty:
        where = url.render_as_string(hide_password=False)
        nowhere = empty.render_as_string(hide_password=False)
        wrong = url.set(password=SECRET).render_as_string(hide_password=False)
        with Study.open(
            where, "search", axes=axes, objectives={"accuracy": "maximize"}, facts={"space": "ours"}
        ) as study:
            note(folder, where, {**study.facts, "seed": study.seed})
            done, begun = (study.begin(Configuration({"n": n}), "Random") for n in (1, 2))
            assert done is not None and begun is not None
            study.finish(done, [0.5], problems=8, fresh_tokens=70)
            study.report(begun, 4, 0.25)
            code, out, told = reported(capfd, folder, "--study", where)
        assert (code, told) == (0, "")
        assert "1 configurations done" in out and "1 under way" in out and "70 fresh tokens" in out
        assert "50.0% over 8 problems" in out

        said = out
        for other, words in ((nowhere, "holds no search"), (wrong, "password authentication failed")):
            code, out, told = reported(capfd, folder, "--study", other)
            assert code in (1, 2) and not out and words in told and "Traceback" not in told, told
            said += told
        engine = sql.create_engine(empty, poolclass=sql.NullPool)
        assert not sql.inspect(engine).get_table_names(), "reading makes nothing"

        note(folder, where, {"space": "another", "seed": 0})
        with pytest.raises(DataError, match=r"another search .*another 'space'"):
            standing(folder, where)
        said += reported(capfd, folder, "--study", where)[2]
    for form in {*forms(url), SECRET}:
        assert form not in said


def test_a_study_that_is_a_file_elsewhere_is_named_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    axes, folder, kept = Axes([Axis("n", "int", low=1, high=9)]), tmp_path / "out", tmp_path / "kept.sqlite"
    folder.mkdir()
    Study.open(kept, "search", axes=axes, objectives={"accuracy": "maximize"}, facts={}).close()
    note(folder, kept, {"seed": 0})
    code, _, told = reported(capfd, folder)
    assert code == 2 and str(kept) in told and "--study" in told
    assert "0 configurations done" in reported(capfd, folder, "--study", kept)[1]
    missing = tmp_path / "no" / "such.sqlite"
    code, _, told = reported(capfd, folder, "--study", missing)
    assert code == 2 and "there is no study" in told and not missing.parent.exists()
    secret = f"postgresql:u:{SECRET}@host.com/d"
    code, _, told = reported(capfd, folder, "--study", secret)
    assert code == 2 and SECRET not in told

    (folder / "study.json").write_text('{"study": 1}')
    code, _, told = reported(capfd, folder)
    assert code == 2 and "study.json" in told and "damaged" in told
    note(folder, None, {})
    assert not [*folder.iterdir()], "a study in the folder needs no word"


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
