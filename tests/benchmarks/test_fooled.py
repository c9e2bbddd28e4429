"""Who is fooled by what: what is to be seen is seen, ours holds, and the table counts right."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import pytest

from archon.benchmarks import fooled
from archon.benchmarks.fooled import RIGHT, Row, attacks, control, counts, installed, table
from archon.benchmarks.hostile.checkers import OURS, Checker
from archon.benchmarks.hostile.contained import CONTAINED, SEEN
from archon.benchmarks.hostile.forgeries import FORGERIES, OURS_ALONE
from archon.benchmarks.hostile.stage import Attack, Check, Seen, Trial, staged
from archon.errors import ExecutionError

ATTACKS = {f"{a.category}: {a.name}": a for a in attacks()}
QUICKLY = (
    "forge: a int equal to everything",
    "forge: a verdict that the collector finds",
    "escape: write a file",
    "escape: the network",
    "escape: another traced",
    "escape: the end of who waits for it",
    "exhaust: children",
    "exhaust: a file of half the disk",
    "spy: a file",
    "spy: a secret in its environment",
    "spy: the memory of another",
    "persist: a child that stays",
    "persist: a file in memory",
    "persist: system v memory",
    "persist: the limits of another",
)
"""One of each kind of effect that shows within a second."""


def bare(trial: Trial) -> bool:
    """A checker that protects nothing: a process that runs the program, compares, and says so by its exit code."""
    pid = os.fork()
    if pid == 0:
        right = False
        try:
            space: dict[str, Any] = {}
            exec(trial.source, space)  # noqa: S102 - in a machine to be attacked, and nowhere else
            right = all(space["f"](*args) == expected for args, expected in trial.cases)
        finally:
            os._exit(0 if right else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def seen(check: Check, attack: Attack, *, guarded: bool) -> Seen:
    if attack.category != "forge" and platform.machine() != "x86_64":
        pytest.skip("LOUDLY: raw calls here have x86-64's numbers")
    try:
        return staged(check, attack, RIGHT, guarded=guarded)
    except ExecutionError as error:
        if "grants no machine" not in str(error):
            raise
        pytest.skip(f"LOUDLY: {error}")


@pytest.mark.parametrize("name", [name for name in QUICKLY if "a verdict" not in name])
def test_what_protects_nothing_is_fooled_and_so_what_is_to_be_seen_is_seen(name: str) -> None:
    attack = ATTACKS[name]
    found = seen(bare, attack, guarded=True)
    assert found.fooled(attack.aim), found


@pytest.mark.parametrize("name", QUICKLY)
def test_our_sandbox_holds_and_nothing_is_to_be_seen(name: str) -> None:
    found = seen(OURS.load(), ATTACKS[name], guarded=False)
    assert (found.verdict, found.effects) == ("refused", ()), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory of no process", "the alarm turned off", "who waits for it stopped"])
def test_what_takes_longer_to_see_is_seen_too(name: str) -> None:
    attack = ATTACKS[f"exhaust: {name}"]
    assert seen(bare, attack, guarded=True).fooled(attack.aim)
    assert seen(OURS.load(), attack, guarded=False) == Seen("refused", ())


def test_a_checker_that_raises_has_ended_and_its_reason_is_told() -> None:
    def broken(trial: Trial) -> bool:
        raise ValueError("no such module")

    found = seen(broken, ATTACKS["forge: true"], guarded=True)
    assert found == Seen("ended", (), "ValueError: no such module")


@pytest.mark.parametrize("answer", [True, False])
def test_no_table_is_made_of_a_checker_that_does_not_look(answer: bool) -> None:
    seen(bare, ATTACKS["forge: true"], guarded=True)
    with pytest.raises(ExecutionError, match="No table"):
        control({"stub": (lambda trial: answer, True)})


def test_a_checker_that_is_not_installed_is_left_out_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    def load() -> Check:
        raise ImportError("No module named 'absent'")

    there, left_out = installed([Checker("absent", load), Checker("bare", lambda: bare)])
    assert list(there) == ["bare"] and left_out == {"absent": "No module named 'absent'"}
    assert "LOUDLY LEFT OUT: absent" in capsys.readouterr().err


def row(aim: str, **of: Seen | None) -> Row:
    found: Mapping[str, Seen | None] = of
    return Row(Attack("escape", "an attack", "", aim), found)


REFUSED, PASSED = Seen("refused", ()), Seen("passed", ())


def test_the_table_counts_who_is_fooled_of_those_that_could_be() -> None:
    rows = [
        row("file", archon=REFUSED, other=Seen("refused", ("file",))),
        row("file", archon=REFUSED, other=PASSED),  # it passed a program that got nothing
        row("secret", archon=REFUSED, other=PASSED),
        row("ended", archon=REFUSED, other=Seen("ended", ())),
        row("", archon=REFUSED, other=None),
    ]
    assert [r.result("other") for r in rows] == ["fooled", "held", "fooled", "fooled", "n/a"]
    assert counts(rows) == {"escape": {"archon": (0, 5), "other": (3, 4)}}
    assert table(rows).splitlines()[1].split() == ["escape", "0", "/", "5", "3", "/", "4"]
    assert table(rows).splitlines()[-1].split() == ["all", "0", "/", "5", "3", "/", "4"]


@pytest.mark.parametrize(
    "found", [PASSED, Seen("ended", ()), Seen("hung", ()), Seen("refused", ("left file",))]
)
def test_for_ours_anything_that_is_seen_counts(found: Seen) -> None:
    assert row("file", archon=found).result("archon") == "fooled"


def test_the_programs_are_many_of_every_kind_and_each_says_what_it_wants() -> None:
    assert len(attacks()) == len(ATTACKS) == len(FORGERIES) + sum(map(len, CONTAINED.values()))
    for attack in attacks():
        compile(attack.source, attack.name, "exec")
    for category in ("forge", *CONTAINED):
        assert len([a for a in attacks() if a.category == category]) >= 15
        assert len([a for a in attacks() if a.category == category and a.anywhere]) >= 12
    assert set(FORGERIES) >= OURS_ALONE
    for category, aims in SEEN.items():
        names = [name for those in aims.values() for name in those]
        assert len(set(names)) == len(names) and set(CONTAINED[category]) >= set(names)


def test_the_command_prints_a_table_then_json_and_fails_where_ours_is_fooled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(bare, ATTACKS["forge: true"], guarded=True)
    monkeypatch.setattr(fooled, "CHECKERS", (Checker("archon", lambda: bare), Checker("bare", lambda: bare)))
    with pytest.raises(SystemExit, match="our own sandbox was fooled"):
        fooled.main(["--all", "--category", "forge", "--match", "a int equal"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-2:] == ["fooled", "fooled"] and "a int equal to everything" in lines[1]
    data = json.loads(lines[-1])
    assert data["fooled"] == {"forge": {n: {"fooled": 1, "of": 1} for n in ("archon", "bare")}}
    assert data["programs"][0]["bare"]["verdict"] == "passed"


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        fooled.main(["--help"])
    assert "examples:" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="'nonesuch'"):
        fooled.main(["--match", "nonesuch"])
