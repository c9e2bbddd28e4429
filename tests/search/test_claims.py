"""Work shared by threads and processes: each item is one worker's, and a dead one's are taken over."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sql

from archon.errors import MissingExtra, StoreError, StoreFull, StoreUnusable, UserError
from archon.search.claims import Claims, Item, Taken
from tests.search.databases import said, toy, until_it_hangs, where
from tests.search.toy import items

__all__ = ["where"]
ITEMS = items(500)


def change(where: str, statement: str, **values: object) -> None:
    url = where if "://" in where else f"sqlite:///{where}"
    engine = sql.create_engine(url)
    with engine.begin() as db:
        db.execute(sql.text(statement), values)
    engine.dispose()


def move_away(where: str, *, silent: float) -> None:
    """All owners, to another machine, where they have been silent for so long."""
    change(where, "UPDATE archon_owners SET host = 'elsewhere', beat = :beat", beat=time.time() - silent)


# --- one worker -------------------------------------------------------------------------------------


def test_what_is_claimed_or_done_is_nobody_else_s(where: str) -> None:
    a, b, c = ITEMS[:3]
    with Claims(where, "s") as one, Claims(where, "s") as other:
        assert one.claim([b, a, b]) == [b, a]
        assert one.claim([a]) == [], "nor our own other threads'"
        assert other.claim([a, b, c]) == [c]
        assert one.owns(a) and not other.owns(a)
        assert one.finish(a, {"right": 1.0, "text": "é\ud800"})
        assert other.claim([a]) == one.claim([a]) == [], "it is done"
        assert not one.owns(a)
        one.release([b, c])
        assert other.claim([a, b, c]) == [b], "c was not ours to give up"
        assert one.values(a.configuration) == {a.problem: {"right": 1.0, "text": "é\ud800"}}


def test_values_come_in_the_order_in_which_they_were_done(where: str) -> None:
    wanted = [Item("c", f"p{i}") for i in (7, 3, 9, 1)]
    with Claims(where, "s") as one, Claims(where, "s") as other:
        one.claim(wanted)
        assert one.finish_all({item: i for i, item in enumerate(wanted[:2])}) == wanted[:2]
        other.finish(Item("another", "p"), 0)
        one.finish_all({item: i for i, item in enumerate(wanted[2:], 2)})
        assert list(other.values("c").items()) == [("p7", 0), ("p3", 1), ("p9", 2), ("p1", 3)]


def test_studies_of_one_database_are_apart(where: str) -> None:
    with Claims(where, "s") as one, Claims(where, "t") as other:
        assert one.claim(ITEMS[:2]) == other.claim(ITEMS[:2]) == ITEMS[:2]
        one.finish(ITEMS[0], 1)
        assert other.values(ITEMS[0].configuration) == {}


def test_a_value_that_json_does_not_have_is_refused_before_anything_is_kept(where: str) -> None:
    with Claims(where, "s") as claims:
        claims.claim(ITEMS[:2])
        with pytest.raises(ValueError, match="JSON"):
            claims.finish_all({ITEMS[0]: 1.0, ITEMS[1]: float("nan")})
        assert claims.values(ITEMS[0].configuration) == {} and claims.owns(ITEMS[0])


def test_who_closes_gives_up_what_is_not_done(where: str) -> None:
    with Claims(where, "s") as one:
        one.take(ITEMS[:2], {"why": "first"})
        one.finish(ITEMS[0], 1)
    one.close()
    with pytest.raises(StoreError, match="closed"):
        one.claim(ITEMS[:1])
    with Claims(where, "s") as other:
        assert not other.open(ITEMS[1].configuration)[ITEMS[1].problem].alive
        assert other.take(ITEMS[:3]) == {
            ITEMS[1]: Taken(True, {"why": "first"}),
            ITEMS[2]: Taken(False, None),
        }


# --- dead or alive ----------------------------------------------------------------------------------


def test_on_another_machine_a_worker_is_dead_when_it_has_been_silent(where: str) -> None:
    with Claims(where, "s", beat_seconds=600) as one, Claims(where, "s", beat_seconds=600) as other:
        one.claim(ITEMS[:5])
        move_away(where, silent=50)
        assert other.claim(ITEMS[:5]) == []
        assert other.open(ITEMS[0].configuration)[ITEMS[0].problem].alive
        move_away(where, silent=70)
        assert other.claim(ITEMS[1:3]) == ITEMS[1:3]
        assert one.owns(ITEMS[0]) and not one.owns(ITEMS[1]), "only what was asked for is taken over"
        one.claim([ITEMS[9]])  # it is alive after all
        assert other.claim(ITEMS[:1]) == []


def test_who_was_thought_dead_and_is_first_to_finish_is_heard_all_the_same(where: str) -> None:
    with Claims(where, "s", beat_seconds=600) as one, Claims(where, "s", beat_seconds=600) as other:
        one.claim(ITEMS[:2])
        move_away(where, silent=100)
        assert other.claim(ITEMS[:2]) == ITEMS[:2]
        assert not one.note(ITEMS[0], "mine")
        one.release(ITEMS[:2])
        assert other.owns(ITEMS[0]), "what is another's now is not ours to give up"
        assert one.finish(ITEMS[0], "one") and not other.finish(ITEMS[0], "other")
        assert other.finish(ITEMS[1], "other") and not one.finish(ITEMS[1], "one")
        assert one.values(ITEMS[0].configuration) == {ITEMS[0].problem: "one"}
        assert one.values(ITEMS[1].configuration) == {ITEMS[1].problem: "other"}


def test_a_process_number_that_was_given_again_is_not_mistaken_for_the_worker(where: str) -> None:
    with Claims(where, "s", beat_seconds=600) as one, Claims(where, "s") as other:
        one.claim(ITEMS[:1])
        change(where, "UPDATE archon_owners SET started = 'boot:1'")
        assert other.claim(ITEMS[:1]) == ITEMS[:1]


def test_it_gives_signs_of_life_while_it_does_nothing(where: str) -> None:
    with Claims(where, "s", beat_seconds=0.02) as one, Claims(where, "s", beat_seconds=600) as other:
        one.claim(ITEMS[:1])
        move_away(where, silent=1000)
        deadline = time.monotonic() + 30
        while not other.open(ITEMS[0].configuration)[ITEMS[0].problem].alive:
            assert time.monotonic() < deadline
            time.sleep(0.01)


# --- many -------------------------------------------------------------------------------------------


def test_threads_that_claim_the_same_get_each_item_once(where: str) -> None:
    barrier = threading.Barrier(6)

    def work(claims: Claims, seed: int) -> list[Item]:
        rng, left, mine = random.Random(seed), list(ITEMS), list[Item]()
        rng.shuffle(left)
        barrier.wait()
        for start in range(0, len(left), 50):
            mine += claims.claim(left[start : start + 50])
        return mine

    with Claims(where, "s") as one, Claims(where, "s") as other, ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, [one, other] * 3, range(6)))
    assert sorted(item for mine in found for item in mine) == sorted(ITEMS)


def test_processes_that_claim_the_same_get_each_item_once_and_a_killed_one_s_are_taken_over(
    where: str,
) -> None:
    """All four make the tables at once, too."""
    hanging = toy("claim", where, len(ITEMS), "hang")
    others = [toy("claim", where, len(ITEMS)) for _ in range(3)]
    lost = [Item(*json.loads(line)) for line in until_it_hangs(hanging)]
    for process in others:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [[Item(*json.loads(line)) for line in said(process)] for process in others]
    with Claims(where, "s") as claims:
        assert claims.claim(ITEMS) == [], "it hangs, but it is alive"
        os.kill(hanging.pid, signal.SIGKILL)
        hanging.communicate()
        assert sorted(claims.claim(ITEMS)) == sorted(lost), "its claims are taken over, and no others"
        assert lost and sorted(item for mine in [lost, *found] for item in mine) == sorted(ITEMS)
        claims.finish_all({item: os.getpid() for item in lost})
        done = {
            Item(configuration, problem): pid
            for configuration in {item.configuration for item in ITEMS}
            for problem, pid in claims.values(configuration).items()
        }
    mine = zip([os.getpid(), *(p.pid for p in others)], [lost, *found], strict=True)
    assert done == {item: pid for pid, claimed in mine for item in claimed}


# --- the database -----------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_error_and_what_was_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    with Claims(path, "s") as claims:
        claims.claim(ITEMS)
        with claims._engine.connect() as db:
            pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
            db.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
        kept = []
        with pytest.raises(StoreFull, match=r"study\.sqlite is full.*free some space"):
            for item in ITEMS:
                claims.finish(item, "x" * 2000)
                kept.append(item)
        assert 0 < len(kept) < len(ITEMS)
        with claims._engine.connect() as db:
            db.exec_driver_sql("PRAGMA max_page_count = 1000000")
        found = {Item(c, p) for c in {i.configuration for i in ITEMS} for p in claims.values(c)}
        assert found == set(kept)
        assert claims.finish(ITEMS[len(kept)], "there is room")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("My notes.\n" * 1000)
    with pytest.raises(StoreUnusable, match=r"notes\.txt is no database of ours"):
        Claims(path, "s")
    assert path.read_text() == "My notes.\n" * 1000


def test_places_that_cannot_hold_a_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable):
        Claims(tmp_path, "s")
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="cannot make the folder"):
        Claims(tmp_path / "file" / "s.sqlite", "s")
    for url in ("mysql://u:secret@host/db", "sqlite://", "sqlite:///:memory:", "nonsense://x"):
        with pytest.raises(UserError, match="PostgreSQL database") as caught:
            Claims(url, "s")
        assert "secret" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    with pytest.raises(MissingExtra, match=r"postgresql\+psycopg2://u:\*\*\*@h/d.*psycopg2.*pip install"):
        Claims("postgresql+psycopg2://u:secret@h/d", "s")


def test_a_path_with_signs_that_mean_something_in_urls_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a {b} 100% c?d#e" / "s.sqlite"
    with Claims(path, "s") as claims:
        claims.claim(ITEMS[:1])
        claims.finish(ITEMS[0], 1)
    db = sqlite3.connect(path)
    assert db.execute("SELECT problem, value FROM archon_work").fetchall() == [("p0", "1")]
    assert db.execute("SELECT count(*) FROM archon_owners").fetchone() == (0,), "closed: it left its list"
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()
