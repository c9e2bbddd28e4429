"""`archon search` by several processes with one --out, killed midway: the result of one process, within one limit."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from archon.usage import Usage, total

PROBLEMS = 24
MOST = 10
"""Tokens of a reply at most; a reply has fewer."""
TIGHT = 900
"""Tokens, where the whole search takes more."""
KEPT = ("best.yaml", "splits.json", "test.txt")


def file(folder: Path) -> Path:
    """A search over all of 10 stacks. Whether a reply is right is decided by a hash."""
    questions, replies = [], {}
    for number in range(PROBLEMS):
        name = f"q{number:02d}"
        questions.append(
            {"id": name, "question": f"Which number is {number}?", "answer": str(number), "kind": "number"}
        )
        draws = hashlib.sha256(name.encode()).digest()
        chance = 60 + draws[0] % 120  # of 256
        replies[name] = [
            f"After some thought, {number if draw < chance else draw + 100}" for draw in draws[1:12]
        ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    stacks = {
        "benchmark": str(folder / "questions.jsonl"),
        "models": {
            "default": {"backend": "scripted", "replies": replies, "cycle": True, "latency": 0.01},
        },
        "proposers": "random",
        "effort": {"trials": 10},
        "baselines": {"vote of 3": "self_consistency@3"},
        "race": {"first": PROBLEMS, "width": 2},  # all problems at once: who is ahead when drops nobody
        "finalists": 6,
        "pipeline": [
            {
                "sample": {
                    "n": {"choose": [1, 2, 3, 5, 9], "name": "n"},
                    "temperature": {"choose": [0.5, 1.0]},
                    "max_tokens": MOST,
                }
            },
            "majority_vote",
        ],
    }
    path = folder / "stacks.yaml"
    path.write_text(yaml.safe_dump(stacks))
    return path


class Folders:
    """Where each search went, and how its processes ended."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.codes: list[list[int]] = []

    def told(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / name / "search.json").read_text())
        return found

    def paid(self, name: str) -> Usage:
        """Everything that is recorded as spent."""
        connection = sqlite3.connect(self.place / name / "store.sqlite")
        try:
            rows = [
                *connection.execute("SELECT usage FROM samples"),
                *connection.execute("SELECT usage FROM attempts"),
            ]
        finally:
            connection.close()
        return total(Usage.from_json(json.loads(usage)) for (usage,) in rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp("shared")
    path = file(place)

    def line(name: str, *more: str) -> list[str]:
        return ["search", str(path), "--out", str(place / name), "-q", "--no-pictures", *more]

    def store(name: str) -> str:
        return str(place / name / "store.sqlite")

    plan = [
        {"run": [line("alone", "--tokens", "100000")]},
        {"run": [line("shared")] * 4, "kill": 1, "store": store("shared"), "samples": 60},
        {
            "run": [line("tight", "--tokens", str(TIGHT), "--concurrency", "4")] * 4,
            "kill": 4,
            "store": store("tight"),
            "samples": 30,
        },
        {"run": [line("tight", "--tokens", str(TIGHT), "--concurrency", "4")] * 4},
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
    found = Folders(place)
    found.codes = json.loads(done.stdout)
    return found


def test_four_processes_of_which_one_is_killed_end_as_one_does(folders: Folders) -> None:
    """They have no limit; the one has one that is wide enough, which changes nothing."""
    assert folders.codes[:2] == [[0], [-9, 0, 0, 0]]
    alone, shared = folders.told("alone"), folders.told("shared")
    assert alone["trials"] == 10 and alone["best"]["test"]["value"] > 0
    for key in ("best", "baselines", "trials", "evaluations", "splits"):  # who lost is seen sooner or later
        assert shared[key] == alone[key], key
    assert shared["tokens"]["total"] == alone["tokens"]["total"]
    for name in KEPT:
        assert (folders.place / "alone" / name).read_bytes() == (folders.place / "shared" / name).read_bytes()


def test_what_several_processes_spent_is_what_is_stored(folders: Folders) -> None:
    alone, paid = folders.told("alone"), folders.paid("alone")
    assert alone["tokens"]["fresh"] == paid.tokens
    assert folders.paid("shared").tokens == paid.tokens, "no sample is drawn twice"
    assert paid.tokens - 16 * 9 * 8 <= folders.told("shared")["tokens"]["fresh"] <= paid.tokens


def test_a_limit_holds_over_four_processes_and_after_all_were_killed(folders: Folders) -> None:
    assert folders.codes[2] == [-9] * 4 and {*folders.codes[3]} <= {0, 1}
    told, paid = folders.told("tight"), folders.paid("tight")
    assert 0 < paid.tokens <= TIGHT < folders.paid("alone").tokens
    assert told["tokens"]["fresh"] <= TIGHT
    assert told["evaluations"] < folders.told("alone")["evaluations"], "as the budget is spent"
