"""Equal tokens: what plain ones would have got right with as many, and how many times more they need."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from archon.benchmarks.statistics.equal_tokens import Point, against, upper_line


def point(name: str, tokens: float, right: list[float]) -> Point:
    return Point(name, np.full(len(right), tokens), np.array(right, dtype=np.float64))


FEW = point("few", 100, [1, 0, 0, 0])
SOME = point("some", 200, [1, 1, 0, 0])
MANY = point("many", 800, [1, 1, 1, 0])


def test_the_plain_line_is_read_at_the_method_s_tokens_for_every_problem() -> None:
    found = against(point("mine", 150, [1, 1, 1, 0]), [MANY, FEW, SOME])
    assert found.plain.tolist() == [1, 0.5, 0, 0]
    assert found.names == "few (50%), some (50%)"
    assert found.difference.difference.value == pytest.approx(0.75 - 0.375)
    assert (found.difference.better, found.difference.worse, found.difference.equal) == (2, 0, 2)
    assert not found.outside


def test_how_many_times_fewer_tokens_is_read_where_the_plain_line_is_as_accurate() -> None:
    found = against(point("mine", 150, [1, 1, 1, 0]), [FEW, SOME, MANY])
    assert (found.fewer, found.reached) == (800 / 150, True)
    between = against(point("mine", 100, [1, 1, 0.5, 0]), [FEW, SOME, MANY])
    assert between.fewer == pytest.approx(500 / 100)
    worse = against(point("mine", 400, [0, 0, 0, 0]), [FEW, SOME, MANY])
    assert (worse.fewer, worse.reached) == (100 / 400, True)


def test_an_accuracy_that_the_plain_ones_never_reach_gives_a_least_ratio() -> None:
    found = against(point("mine", 200, [1, 1, 1, 1]), [FEW, SOME, MANY])
    assert (found.fewer, found.reached) == (4.0, False)


@pytest.mark.parametrize(("tokens", "name"), [(50, "few"), (5000, "many")])
def test_beyond_the_line_it_is_held_against_the_nearer_end_and_says_so(tokens: float, name: str) -> None:
    found = against(point("mine", tokens, [1, 1, 0, 0]), [FEW, SOME, MANY])
    assert found.names == name and found.outside


def test_a_method_that_is_a_plain_one_is_no_better_and_needs_as_many() -> None:
    found = against(SOME._replace(name="mine"), [FEW, SOME, MANY])
    assert found.difference.difference.value == 0
    assert found.fewer == 1 and not found.outside


def test_the_interval_covers_a_known_ratio() -> None:
    """Plain accuracy is p(t) = 0.2 log2(t); the method has that of twice its tokens: the ratio is 2."""
    covered = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        level = rng.random(150)
        line = [
            Point(str(t), np.full(150, float(t)), (level < 0.2 * math.log2(t)).astype(float))
            for t in (2, 4, 8, 16)
        ]
        mine = Point("mine", np.full(150, 4.0), (rng.random(150) < 0.6).astype(float))
        found = against(mine, line, seed=seed)
        covered += found.low <= 2 <= found.high
    assert covered >= 24, "95% intervals: fewer than 24 of 30 has a chance below 0.1%"


def test_the_upper_line_has_what_is_best_at_some_budget() -> None:
    dear = point("dear", 900, [1, 1, 1, 0])
    weak = point("weak", 300, [1, 0.5, 0, 0])
    assert [p.name for p in upper_line([MANY, weak, dear, SOME, FEW])] == ["few", "some", "many"]
    under = point("under", 500, [1, 1, 0.2, 0])
    assert [p.name for p in upper_line([MANY, under, SOME, FEW])] == ["few", "some", "many"]


def test_it_is_json() -> None:
    data = json.loads(json.dumps(against(SOME, [FEW, MANY]).as_json(), allow_nan=False))
    assert data["times_fewer_tokens"]["value"] == pytest.approx(450 / 200)
    assert data["plain"] == "few (86%), many (14%)" and data["problems"] == 4


def test_nothing_to_hold_it_against_is_an_error() -> None:
    with pytest.raises(ValueError, match="no plain run"):
        against(SOME, [])
