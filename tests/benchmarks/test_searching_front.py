"""The front of value against cost: what of it is tested, and on which split each point's figures stand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.pictures import draw
from archon.benchmarks.searching.reading import Searched
from archon.benchmarks.searching.summary import _front
from archon.config import Config
from archon.search.objectives import Evaluation
from archon.search.search import Arrived, Found
from tests.benchmarks.test_searching_report import FILE, TOLD, Capture, archon, made
from tests.search.test_search import searched
from tests.search.test_search_choosing import COUNTS, PARTS, Scripted, chosen

RIGHT = {1: {"s": 9, "v": 9, "t": 6}, 2: {"s": 11, "v": 11, "t": 11}, 4: {"s": 13, "v": 13, "t": 12}}
STACKS = {**COUNTS, "limits": {"calls": 8}}


class Ending(Scripted):
    """The budget ends before one is evaluated on a split."""

    def __init__(self, right: Mapping[int, Mapping[str, int]], n: int = 0, part: str = "") -> None:
        super().__init__(right)
        self._end = (n, part)
        self.order: list[tuple[int, str]] = []

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Arrived
    ) -> Sequence[Evaluation | None]:
        n = getattr(config.pipeline.nodes[0].stage, "n", 1)
        self.order.append((n, problems[0][0]))
        if (n, problems[0][0]) == self._end:
            return [None for _ in problems]
        return await super().evaluate(config, problems, arrived)


def front_of(place: Path, evaluator: Ending, **settings: Any) -> tuple[Found, dict[int, dict[str, Any]]]:
    """What was found, and the points of its front by the number of samples."""
    given = {"objectives": ("accuracy", "requests"), "finalists": 1, **settings}
    one, found, history = searched(place, evaluator, stacks=STACKS, parts=PARTS, **given)
    ended = SimpleNamespace(history=lambda: history)
    about: Any = SimpleNamespace(
        settings=one.settings, space=one.space, parts=one.parts, known=one.known, study=ended
    )
    points = _front(about, found)
    return found, {round(point["cost"]): point for point in points}


def test_the_cheap_end_of_the_front_is_tested_beyond_the_finalists(tmp_path: Path) -> None:
    evaluator = Ending(RIGHT)
    found, points = front_of(tmp_path, evaluator)
    assert [one.configuration["sample.n"] for one in found.finalists if one.configuration] == [4]
    assert chosen(found) == 4 and not found.notes
    assert [*points] == [1, 2, 4] and {point["split"] for point in points.values()} == {"test"}
    assert [points[n]["value"] for n in (1, 2, 4)] == [0.3, 0.55, 0.6]
    assert all(point["low"] < point["value"] < point["high"] for point in points.values())
    ends = [one for one in dict.fromkeys(evaluator.order) if one[1] != "s"]
    assert ends == [(4, "v"), (4, "t"), (1, "v"), (2, "v"), (1, "t"), (2, "t")], "the winner first"


def test_what_is_beaten_in_validation_is_not_tested_and_the_winner_is_none_but_a_finalist(
    tmp_path: Path,
) -> None:
    """The cheapest has more right in validation and test than the winner: it is no finalist all the same."""
    right = {1: {"s": 9, "v": 15, "t": 19}, 2: RIGHT[2], 4: RIGHT[4]}
    evaluator = Ending(right)
    found, points = front_of(tmp_path, evaluator)
    assert chosen(found) == 4
    assert (2, "t") not in evaluator.order and points[1]["split"] == "test"
    assert points[1]["value"] == 0.95
    assert 2 not in points or points[2]["split"] == "validation"


@pytest.mark.parametrize(
    ("part", "splits"),
    [
        ("t", {1: "validation", 2: "validation", 4: "test"}),
        ("v", {1: "search", 2: "search", 4: "test"}),
    ],
)
def test_where_the_budget_ends_each_point_says_on_which_split_it_stands(
    tmp_path: Path, part: str, splits: dict[int, str]
) -> None:
    found, points = front_of(tmp_path, Ending(RIGHT, 1, part))
    assert {n: point["split"] for n, point in points.items()} == splits
    assert chosen(found) == 4 and found.ended == "nothing is left to propose"
    assert found.notes == ["not all of the front could be validated and tested: the budget is spent"]


def test_with_a_target_there_is_no_front_to_test(tmp_path: Path) -> None:
    found, _ = front_of(tmp_path, Ending(RIGHT), target=0.5)
    assert not found.front and len(found.validation) == 1


def test_the_front_of_a_real_search_is_written_read_and_shown(tmp_path: Path, capsys: Capture) -> None:
    problems = [{"id": f"q{n}", "question": f"{n}?", "answer": str(2 - (n % 3 == 0))} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    file = FILE.replace("BENCHMARK", str(tmp_path / "q.jsonl")) + "objectives: [accuracy, requests]\n"
    (tmp_path / "stacks.yaml").write_text(file)
    out = tmp_path / "found"
    arguments = [str(tmp_path / "stacks.yaml"), "--out", str(out), "-q", "--no-pictures"]
    assert CliRunner().invoke(search, arguments, catch_exceptions=False).exit_code == 0
    told = Searched.read(out).told
    assert [(one.cost, one.split) for one in told.front] == [(1.0, "test"), (3.0, "test")]
    assert {one.problems for one in told.front} == {told.splits.test}
    shown = archon(capsys, "report", out).out
    assert "not adjusted for their number" in shown and "not tested" not in shown


def test_the_report_says_which_points_are_not_tested_and_older_ones_are(
    tmp_path: Path, capsys: Capture
) -> None:
    dear, cheap = TOLD["front"]
    out = archon(capsys, "report", made(tmp_path / "old")).out
    assert "not tested" not in out and "│ test" in out
    place = made(tmp_path / "new", front=[{**dear, "split": "test"}, {**cheap, "split": "search"}])
    out = archon(capsys, "report", place).out
    assert "1 of them is not tested" in out
    (line,) = [line for line in out.splitlines() if "cheap one" in line]
    assert "│ search" in line
    assert {path.name for path in draw(Searched.read(place).data, tmp_path)} >= {"front.png"}
