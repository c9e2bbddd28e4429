"""The front: what nothing beats, how sure that is, and the area under it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.search.front import front, hypervolume, hypervolumes, on_front

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8)


def beaten(one: tuple[int, int], points: list[tuple[int, int]]) -> bool:
    return any(v >= one[0] and c <= one[1] and (v, c) != one for v, c in points)


@QUICK
@given(POINTS)
def test_on_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    values, costs = zip(*points, strict=True)
    assert on_front(values, costs).tolist() == [not beaten(one, points) for one in points]


@QUICK
@given(st.lists(POINTS.map(lambda points: (points * 8)[:4]), min_size=1, max_size=4))
def test_many_draws_at_once_are_as_one_by_one(draws: list[list[tuple[int, int]]]) -> None:
    table = np.array(draws, dtype=float)
    whole = on_front(table[:, :, 0], table[:, :, 1])
    assert whole.tolist() == [on_front(one[:, 0], one[:, 1]).tolist() for one in table]


def test_what_is_not_known_is_on_no_front_and_hides_nothing() -> None:
    assert on_front([np.nan, 0.2, 0.9], [0.0, 1.0, np.nan]).tolist() == [False, True, False]


@QUICK
@given(POINTS)
def test_the_area_is_that_of_the_squares_below_the_points(points: list[tuple[int, int]]) -> None:
    squares = sum(any(v > i and c <= j for v, c in points) for i in range(5) for j in range(4))
    assert hypervolume(points, value=0, cost=4) == squares
    areas = hypervolumes(points, value=0, cost=4)
    assert areas[-1] == squares and areas == sorted(areas)
    assert areas == [hypervolume(points[: n + 1], value=0, cost=4) for n in range(len(points))]


def test_what_is_worse_than_the_reference_adds_nothing() -> None:
    assert hypervolume([(0.2, 1.0), (0.9, 9.0)], value=0.3, cost=5.0) == 0
    assert hypervolume([(0.8, 1.0), (0.9, 9.0)], value=0.3, cost=5.0) == pytest.approx(2.0)
    assert hypervolume([], value=0, cost=1) == 0


def example(problems: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    difficulty = rng.random(problems)
    abilities = {"cheap": 0.4, "equal": 0.4, "good": 0.8, "poor": 0.2}
    values = np.array([(difficulty < ability).astype(float) for ability in abilities.values()])
    costs = np.array([rng.uniform(0.9, 1.1, problems) * price for price in (1, 1.001, 5, 6)])
    return list(abilities), values, costs


def test_points_are_on_the_front_surely_maybe_or_not() -> None:
    points = {point.key: point for point in front(*example(200))}
    assert (points["good"].on, points["poor"].on) == ("surely", "no")
    assert points["cheap"].on == points["equal"].on == "maybe", "which of them is cheaper is not known"
    assert points["cheap"].share + points["equal"].share == pytest.approx(1.0, abs=0.05)
    good = points["good"]
    assert good.low < good.value < good.high and good.cost_low < good.cost < good.cost_high
    assert good.problems == 200
    assert json.loads(json.dumps(good.as_json()))["on"] == "surely"
    costs = [point.cost for point in front(*example(200))]
    assert costs == sorted(costs)


def test_one_seen_on_few_problems_is_never_surely_on_the_front() -> None:
    keys, values, costs = example(200)
    values[2, 5:] = np.nan
    point = next(point for point in front(keys, values, costs) if point.key == "good")
    assert (point.problems, point.on) == (5, "maybe")


def test_the_share_is_how_often_it_is_truly_so() -> None:
    """Of two that cost the same one is better by a little: over many benchmarks it is seldom put off the front."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = (rng.random((2, 60)) < np.array([[0.55], [0.5]])).astype(float)
        points = {
            one.key: one for one in front(["a", "b"], values, np.ones((2, 60)), resamples=200, seed=seed)
        }
        wrong += points["a"].on == "no"
    assert wrong < 0.08 * 200


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="2 rows"):
        front(["a", "b"], [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="'b' was evaluated on no problem"):
        front(["a", "b"], [[1.0], [np.nan]], [[1.0], [1.0]])
