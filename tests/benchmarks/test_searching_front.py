"""The front of value against cost: what of it is tested, and on which split each point's figures stand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from scipy.stats import binom

from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.pictures import draw
from archon.benchmarks.searching.reading import Searched
from archon.benchmarks.searching.summary import _front, _together
from archon.config import Config
from archon.pipeline import Pipeline
from archon.search.axes import Configuration
from archon.search.choosing import Candidate, Found
from archon.search.objectives import Accuracy, Evaluation, Objective, Utility
from archon.search.search import Arrived
from archon.search.settings import Settings
from archon.search.simultaneous import exact, simultaneous
from archon.strategies.sample import Sample
from archon.usage import Usage
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
    assert found.to_test == 2 and points[1]["together"]["points"] == 2


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
    assert found.to_test == 3, (
        "what the budget left out counts: how many there are must not depend on the test"
    )
    assert [points[n]["together"] for n in (1, 2)] == [None, None]
    (held,) = simultaneous([[1.0] * 12 + [0.0] * 8], 3, whole=True)
    assert points[4]["together"] == {"low": held.low, "high": held.high, "points": 3}


def test_with_a_target_there_is_no_front_to_test(tmp_path: Path) -> None:
    found, _ = front_of(tmp_path, Ending(RIGHT), target=0.5)
    assert not found.front and len(found.validation) == 1


TRUE = [0.5, 0.6, 0.68, 0.75, 0.8, 0.85, 0.89, 0.92, 0.95, 0.97]
"""How often each of ten stacks is right, of all problems that there could be; the dearer, the more often."""


def drawn(seed: int) -> Found:
    """A search that tests ten stacks on 40 problems. Luck is, on half of the problems, the same for all stacks."""
    rng = np.random.default_rng(seed)
    luck = np.where(rng.random(40) < 0.5, rng.random(40), rng.random((10, 40)))
    stacks = [
        Candidate(str(n), Config(pipeline=Pipeline([Sample(n=1)])), Configuration({})) for n in range(10)
    ]
    test = {
        one.name: [
            Evaluation(str(at), float(lucky < TRUE[n]), usage=Usage(1, completion_tokens=n + 1))
            for at, lucky in enumerate(luck[n])
        ]
        for n, one in enumerate(stacks)
    }
    return Found(stacks[-1], stacks, test=test, to_test=10)


def all_held(value: Objective, ends: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether each stack's true value is in its interval."""
    true = {name: value.low + TRUE[int(name)] * (value.high - value.low) for name in ends}
    return all(one["low"] <= true[name] <= one["high"] for name, one in ends.items())


@pytest.mark.parametrize(("value", "searches"), [(Accuracy(), 1000), (Utility(false_positive=4), 200)])
def test_intervals_of_a_front_hold_all_at_once_as_often_as_they_say(value: Objective, searches: int) -> None:
    """In so many searches that a chance of 95% or less is out of the question (p < 0.001). It is 98% for accuracy, so
    that takes 1,000 searches."""
    held = 0
    for seed in range(searches):
        found = drawn(seed)
        ends = _together(value, found.test, found.to_test)
        assert len(ends) == 10
        held += all_held(value, ends)
    assert binom.sf(held - 1, searches, 0.95) < 0.001, held


def test_the_chances_to_miss_add_up_to_no_more_than_is_said_and_those_of_single_ones_to_more() -> None:
    """Without a draw, and so however the stacks depend on each other."""
    seen = np.arange(41)

    def missing(alpha: float) -> float:
        low, high = np.array([exact(right, 40, alpha) for right in range(41)]).T
        return sum(float(binom.pmf(seen[(true < low) | (high < true)], 40, true).sum()) for true in TRUE)

    assert missing(0.05 / 10) < 0.05 < 0.2 < missing(0.05)


def test_single_intervals_of_a_front_do_not_hold_all_at_once() -> None:
    """Those that `search.json` has as well: in far fewer of 200 searches than 95% (p < 1e-9). Those that hold at once
    do in as many as they say, also of the points alone that are shown."""
    value, single, together, searches = Accuracy(), 0, 0, 200
    about: Any = SimpleNamespace(
        settings=Settings(benchmark="made", objectives=(value, "tokens")),
        space=SimpleNamespace(stack=str),
        study=SimpleNamespace(history=list),
    )
    for seed in range(searches):
        points = {point["key"]: point for point in _front(about, drawn(seed))}
        assert len(points) > 5 and all(point["together"]["points"] == 10 for point in points.values())
        single += all_held(value, points)
        together += all_held(value, {name: point["together"] for name, point in points.items()})
    assert binom.cdf(single, searches, 0.95) < 1e-9, single
    assert together >= 0.95 * searches, together


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
    values = [round(one.value * one.problems) for one in told.front]
    ends = [exact(right, told.splits.test, 0.05 / 2) for right in values]
    assert [(one.together.low, one.together.high) for one in told.front if one.together] == ends
    shown = archon(capsys, "report", out).out
    assert (
        "`all at once` hold together, of all 2 that were to be tested" in shown and "not tested" not in shown
    )
    for low, high in ends:
        assert f"│ [{100 * low:.1f}, {100 * high:.1f}] │" in shown


def test_the_report_says_which_points_are_not_tested_and_older_ones_are(
    tmp_path: Path, capsys: Capture
) -> None:
    dear, cheap = TOLD["front"]
    out = archon(capsys, "report", made(tmp_path / "old")).out
    assert "not tested" not in out and "│ test" in out and "not adjusted for their number" in out
    place = made(tmp_path / "new", front=[{**dear, "split": "test"}, {**cheap, "split": "search"}])
    out = archon(capsys, "report", place).out
    assert "1 of them is not tested" in out and "not adjusted for their number" in out
    (line,) = [line for line in out.splitlines() if "cheap one" in line]
    assert "│ search" in line
    assert {path.name for path in draw(Searched.read(place).data, tmp_path)} >= {"front.png"}


def test_the_picture_has_the_intervals_that_hold_at_once_where_a_point_is_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars, titles = [], []
    plain = Axes.errorbar

    def noting(self: Axes, x: Any, y: Any, **more: Any) -> Any:
        bars.append([y[0] - more["yerr"][0][0], y[0] + more["yerr"][1][0]])
        return plain(self, x, y, **more)

    monkeypatch.setattr(Axes, "errorbar", noting)
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **more: titles.append(text))
    dear, cheap = TOLD["front"]
    told = {**TOLD, "best": None, "front": [dear, {**cheap, "together": None}]}
    draw(told, tmp_path)
    assert bars == [pytest.approx([30, 70]), pytest.approx([10, 40])] and not titles
    draw({**told, "front": [{**dear, "together": {"low": 0.2, "high": 0.8, "points": 2}}, cheap]}, tmp_path)
    assert bars[2:] == [pytest.approx([20, 80]), pytest.approx([10, 40])]
    assert "hold all at once" in titles[0]
