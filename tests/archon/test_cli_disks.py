"""Full disks, read-only folders, stores that are none: one clear error, and what was recorded stays."""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archon.testing import Asked
from tests.archon.test_cli_terminal import Said, archon, command, served

SAMPLES, LENGTH = 40, 20_000
"""Together more than fits on the small disk, and less than on the large one."""


def questions() -> None:
    rows = [{"id": f"p{i}", "question": f"What is {i}?", "answer": "42", "kind": "number"} for i in range(2)]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("script.yaml").write_text(
        "models: {default: {backend: scripted, replies: {'*': ['42', '41', '42']}}}\n"
        "pipeline: [{sample: {n: 3}}, majority_vote]\n"
    )


def bench(capsys: pytest.CaptureFixture[str], *more: str | Path) -> Said:
    return archon(capsys, "bench", "questions.jsonl", "-p", "script.yaml", "--no-pictures", "--quiet", *more)


def ask(capsys: pytest.CaptureFixture[str], *more: str | Path) -> Said:
    return archon(capsys, "run", "Q", "-p", "script.yaml", *more)


def once(said: Said, *says: str) -> None:
    """One clear error."""
    assert said.code in (1, 2)
    assert said.out == ""
    assert len(said.errors) == len(said.err.splitlines()) == 1, said.err
    for words in says:
        assert words in said.err


# --- disks of their own ----------------------------------------------------------------------------


@functools.cache
def can_mount() -> bool:
    """Whether this machine lets us have a disk in a namespace of our own."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True)
    return tried.returncode == 0


def on_a_disk(script: str) -> str:
    """A shell script in a namespace where `disk` can be mounted. It prints what it has to say."""
    if not can_mount():
        pytest.skip("this machine allows no mounts in a namespace of one's own")
    Path("disk").mkdir(exist_ok=True)
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-euc", script],
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def quoted(*words: str | Path) -> str:
    return subprocess.list2cmdline(command(*words))


COUNT = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
    "print('stored', db.execute('SELECT count(*) FROM samples').fetchone()[0], "
    "db.execute('PRAGMA integrity_check').fetchone()[0])"
)


def test_a_disk_that_fills_up_loses_nothing_and_once_there_is_room_it_goes_on() -> None:
    """Two megabytes are too few for forty long replies; sixteen are enough."""
    questions()

    def long(asked: Asked) -> str:
        return "42 " + "x" * LENGTH

    with served(long) as server:
        words = quoted(
            "bench", "questions.jsonl", "-p", "self_consistency", "--samples", str(SAMPLES // 2), "--seed", "1",
            "-m", "openai:m", "--base-url", server.url, "--store", "disk/s.sqlite", "--out", "run", "--no-pictures",
            "--quiet", "--concurrency", "1", "--set", "sample.per_request=1",
        )  # fmt: skip
        said = on_a_disk(
            "mount -t tmpfs -o size=600k none disk\n"
            f"{words} >out 2>err && echo 'it went well' || echo code $?\n"
            f"{command()[0]} -c {json.dumps(COUNT)} disk/s.sqlite\n"
            "mount -o remount,size=16m disk\n"
            f"{words} >again 2>&1 && echo code 0 || echo again failed\n"
            f"{command()[0]} -c {json.dumps(COUNT)} disk/s.sqlite\n"
        ).splitlines()
        asked = len(server.asked)
    err = Path("err").read_text()
    assert said[0] == "code 1", err
    assert len(err.splitlines()) == 1 and err.startswith("error: ")
    for words in (
        "disk/s.sqlite",
        "full",
        "What was recorded is kept",
        "run the same command again",
        "--store",
    ):
        assert words in err
    kept = int(said[1].split()[1])
    assert said[1] == f"stored {kept} ok" and 0 < kept < SAMPLES
    assert said[2] == "code 0", Path("again").read_text()
    assert said[3] == f"stored {SAMPLES} ok"
    paid_again = SAMPLES - kept
    assert asked - paid_again <= SAMPLES, "only what had not reached the disk is asked again"
    assert json.loads(Path("run/results.json").read_text())["fresh"]["requests"] == paid_again


def test_a_run_s_folder_on_a_full_disk_costs_nothing() -> None:
    questions()
    with served(lambda asked: "42") as server:
        words = quoted(
            "bench", "questions.jsonl", "-p", "self_consistency", "--samples", "2", "-m", "openai:m", "--base-url",
            server.url, "--out", "disk/run", "--no-pictures", "--quiet",
        )  # fmt: skip
        said = on_a_disk(
            "mount -t tmpfs -o size=64k none disk\n"
            "head -c 100000 /dev/zero > disk/fill 2>/dev/null || true\n"
            f"{words} >out 2>err && echo 'it went well' || echo code $?\n"
        )
        assert server.asked == []
    assert said in ("code 1\n", "code 2\n")
    err = Path("err").read_text()
    assert len(err.splitlines()) == 1
    assert "'disk/run'" in err and "No space left" in err and "--out" in err


def test_results_that_do_not_fit_are_one_clear_error_and_the_samples_are_kept() -> None:
    questions()
    with served(lambda asked: "42") as server:
        words = quoted(
            "bench", "questions.jsonl", "-p", "self_consistency", "--samples", "2", "-m", "openai:m", "--base-url",
            server.url, "--store", "s.sqlite", "--out", "disk/run", "--no-pictures", "--quiet",
        )  # fmt: skip
        said = on_a_disk(
            "mount -t tmpfs -o size=16k none disk\n"
            f"{words} >out 2>err && echo 'it went well' || echo code $?\n"
        )
        asked = len(server.asked)
    err = Path("err").read_text()
    assert said in ("code 1\n", "code 2\n"), Path("out").read_text()
    assert "Traceback" not in err and len(err.splitlines()) == 1
    assert "No space left" in err
    with closing(sqlite3.connect("s.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM samples").fetchone() == (asked,) == (4,)


def test_results_that_do_not_fit_say_where_and_what_to_do() -> None:
    questions()
    words = quoted(
        "bench",
        "questions.jsonl",
        "-p",
        "script.yaml",
        "--store",
        "s.sqlite",
        "--out",
        "disk/run",
        "--no-pictures",
        "-q",
    )
    on_a_disk(f"mount -t tmpfs -o size=16k none disk\n{words} >out 2>err || true\n")
    err = Path("err").read_text()
    assert "No space left" in err
    assert "'disk/run/" in err and "--out" in err and "what was recorded is kept" in err


def test_a_read_only_disk_is_one_clear_error_for_everything_that_writes() -> None:
    questions()
    store = ("--store", "elsewhere.sqlite")
    tries: dict[str, tuple[str, ...]] = {
        "store": ("run", "Q", "-p", "script.yaml", "--store", "disk/s.sqlite"),
        "store below": ("run", "Q", "-p", "script.yaml", "--store", "disk/below/s.sqlite"),
        "out": ("bench", "questions.jsonl", "-p", "script.yaml", "--out", "disk/run", "-q", *store),
        "picture": ("show", "best_of_n", "--format", "svg", "--out", "disk/x.svg"),
    }
    script = "mount -t tmpfs -o ro none disk\n"
    for number, words in enumerate(tries.values()):
        script += f"{quoted(*words)} >out{number} 2>err{number} && echo 'it went well' || echo code $?\n"
    codes = on_a_disk(script).splitlines()
    for number, name in enumerate(tries):
        err = Path(f"err{number}").read_text()
        assert codes[number] in ("code 1", "code 2"), name
        assert Path(f"out{number}").read_text() == ""
        assert len(err.splitlines()) == 1 and "disk" in err, name
        assert "Traceback" not in err


def test_a_finished_run_on_a_read_only_disk_can_be_reported() -> None:
    questions()
    words = quoted(
        "bench", "questions.jsonl", "-p", "script.yaml", "--out", "disk/run", "-q", "--no-pictures"
    )
    report = quoted("report", "disk/run", "--json")
    on_a_disk(
        "mount -t tmpfs none disk\n"
        f"{words} >/dev/null\n"
        "cp disk/run/results.json expected\n"
        "mount -o remount,ro disk\n"
        f"{report} >shown\n"
    )
    assert Path("shown").read_text() == Path("expected").read_text()


def test_a_store_on_a_read_only_disk_can_be_read() -> None:
    questions()
    words = quoted("run", "Q", "-p", "script.yaml", "--store", "disk/s.sqlite")
    on_a_disk(
        "mount -t tmpfs none disk\n"
        f"{words} >/dev/null 2>&1\n"
        "mount -o remount,ro disk\n"
        f"{quoted('store', 'export', 'disk/s.sqlite')} >exported\n"
        f"{quoted('store', 'list', 'disk/s.sqlite')} >listed\n"
    )
    assert "1 pools, 3 samples" in Path("listed").read_text()
    assert json.loads(Path("exported").read_text())["prompt"] == "Q"


# --- stores that are none --------------------------------------------------------------------------


def no_database(path: Path) -> None:
    path.write_text("My notes.\n" * 500)


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
        db.commit()


def newer_version(path: Path) -> None:
    from archon.store.sqlite import SQLiteStore

    SQLiteStore(path)._scribe.finish()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        db.commit()


MAKERS = {
    "no database": (no_database, "not a store of ours"),
    "another program's database": (another_database, "not a store of ours"),
    "newer version": (newer_version, "newer"),
}


@pytest.mark.parametrize(("make", "says"), MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("words", ["run", "bench", "list", "export"])
def test_a_store_that_is_none_of_ours_is_refused_and_left_alone(
    make: Any, says: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    questions()
    path = Path("thing.sqlite")
    make(path)
    before = _content(path)
    commands = {
        "run": lambda: ask(capsys, "--store", path),
        "bench": lambda: bench(capsys, "--out", "run", "--store", path),
        "list": lambda: archon(capsys, "store", "list", path),
        "export": lambda: archon(capsys, "store", "export", path),
    }
    once(commands[words](), "thing.sqlite", says)
    assert _content(path) == before


def _content(path: Path) -> Any:
    """Its tables where it has some (opening may turn write-ahead logging on), else its bytes."""
    try:
        with closing(sqlite3.connect(path)) as db:
            return list(db.iterdump())
    except sqlite3.DatabaseError:
        return path.read_bytes()


def test_a_newer_store_says_to_update(capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    newer_version(Path("thing.sqlite"))
    once(ask(capsys, "--store", "thing.sqlite"), "version 99", "Update archon")


@pytest.mark.parametrize("kind", ["no database", "another program's database", "folder", "below a file"])
def test_naming_a_wrong_store_is_the_user_s_mistake(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    path = Path("thing")
    if kind == "folder":
        path.mkdir()
    elif kind == "below a file":
        path.write_text("")
        path = path / "s.sqlite"
    else:
        MAKERS[kind][0](path)
    said = ask(capsys, "--store", path)
    assert "--store" in said.err
    assert said.code == 2


@pytest.mark.parametrize("kind", ["folder", "below a file"])
def test_a_place_where_no_store_can_be_is_named(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    path = Path("thing")
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("")
        path = path / "s.sqlite"
    once(ask(capsys, "--store", path), "thing", "--store")


def test_a_damaged_store_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    assert ask(capsys, "--store", "s.sqlite").code == 0
    content = bytearray(Path("s.sqlite").read_bytes())
    for start in range(4096, len(content), 4096):  # every page but the first
        content[start : start + 2048] = b"\xff" * 2048
    Path("s.sqlite").write_bytes(content)
    said = ask(capsys, "--store", "s.sqlite")
    assert said.code in (1, 2)
    assert len(said.errors) == 1
    assert "s.sqlite" in said.err and "damaged" in said.err


# --- folders that are none -------------------------------------------------------------------------


def test_an_out_folder_that_is_a_file_is_refused_and_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    Path("notes.txt").write_text("My notes.")
    said = bench(capsys, "--out", "notes.txt")
    once(said, "'notes.txt'", "--out")
    assert said.code == 2
    assert Path("notes.txt").read_text() == "My notes."
    once(bench(capsys, "--out", "notes.txt/run"), "'notes.txt/run'", "--out")


def test_a_folder_of_something_else_is_left_alone_but_for_what_a_run_writes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    questions()
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("My notes.")
    assert bench(capsys, "--out", "mine").code == 0
    assert bench(capsys, "--out", "mine", "--overwrite", "--seed", "3").code == 0
    assert Path("mine/notes.txt").read_text() == "My notes."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        "null",
    ],
)
def test_a_damaged_run_is_not_overwritten_unasked(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    bench(capsys, "--out", "run")
    Path("run/run.json").write_text(text)
    said = bench(capsys, "--out", "run")
    assert said.code == 2
    assert len(said.errors) == 1
    assert "run" in said.err and "--overwrite" in said.err
    assert Path("run/run.json").read_text() == text
    assert bench(capsys, "--out", "run", "--overwrite").code == 0
