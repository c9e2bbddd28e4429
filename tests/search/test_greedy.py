"""Greedy finds what is best axis by axis, in the evaluations it says, and is fooled where axes interact."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from archon.errors import UserError
from archon.search.axes import Axis, Configuration
from archon.search.proposers import Proposer, Told
from archon.search.proposers.greedy import Greedy
from archon.search.testing import ToySpace

AXES = [
    Axis("model", "choice", ("small", "big", "huge")),
    Axis("n", "int", low=0, high=4),
    Axis("t", "float", low=0, high=1, step=0.25),
    Axis("rank", "choice", (False, True)),
]


def separable(configuration: Configuration) -> float:
    n, t = configuration["n"], configuration["t"]
    assert isinstance(n, int) and isinstance(t, float)
    return 2.0 * (configuration["model"] == "big") - (n - 3) ** 2 - abs(t - 0.5) + bool(configuration["rank"])


def run(
    proposer: Proposer, worth: Callable[[Configuration], float | None], together: int = 1
) -> dict[Configuration, float | None]:
    """All it proposes with what it is worth, in order, so many asked for before any is told."""
    found: dict[Configuration, float | None] = {}
    while asked := [one for one in (proposer.ask() for _ in range(together)) if one is not None]:
        for one in asked:
            value = found[one] = worth(one)
            proposer.tell(one, Told(None if value is None else (value,)))
    return found


def best(found: dict[Configuration, float | None]) -> Configuration:
    return max(found, key=lambda one: -99.0 if (value := found[one]) is None else value)


def test_it_finds_the_best_of_a_sum_in_as_many_evaluations_as_it_says() -> None:
    found = run(Greedy().over(ToySpace(AXES)), separable)
    assert dict(best(found)) == {"model": "big", "n": 3, "t": 0.5, "rank": True}
    assert len(found) == 1 + (3 - 1) + (5 - 1) + (5 - 1) + (2 - 1)
    assert dict(next(iter(found))) == {"model": "small", "n": 0, "t": 0.0, "rank": False}


@pytest.mark.parametrize("together", [2, 3, 16])
def test_its_course_does_not_depend_on_how_many_are_evaluated_together(together: int) -> None:
    alone = run(Greedy().over(ToySpace(AXES)), separable)
    assert set(run(Greedy().over(ToySpace(AXES)), separable, together)) == set(alone)


def test_it_waits_for_an_axis_before_the_next() -> None:
    proposer = Greedy().over(ToySpace(AXES))
    asked = [proposer.ask() for _ in range(4)]
    assert [one["model"] for one in asked[:3] if one is not None] == ["small", "big", "huge"]
    assert asked[3] is None
    for one in asked[:3]:
        assert one is not None
        proposer.tell(one, Told((separable(one),)))
    after = proposer.ask()
    assert after is not None and after["model"] == "big" and after["n"] == 1


def interacting(configuration: Configuration) -> float:
    """Each of two choices is worth nothing, or less, without the other."""
    judge, n = configuration["judge"], configuration["n"]
    return {(False, 1): 0.3, (False, 16): 0.3, (True, 1): 0.2, (True, 16): 0.9}[bool(judge), int(str(n))]


def test_an_interaction_fools_it_and_another_start_does_not() -> None:
    axes = [Axis("judge", "choice", (False, True)), Axis("n", "choice", (1, 16))]
    found = run(Greedy(passes=5).over(ToySpace(axes)), interacting)
    assert dict(best(found)) == {"judge": False, "n": 1} and len(found) == 3
    assert max(map(interacting, ToySpace(axes).axes.every())) == 0.9
    lucky = run(Greedy(start={"n": 16}).over(ToySpace(axes)), interacting)
    assert interacting(best(lucky)) == 0.9
    assert interacting(best(run(Greedy(restarts=8).over(ToySpace(axes)), interacting))) == 0.9


def test_a_second_pass_mends_an_axis_that_was_chosen_too_early() -> None:
    axes = [Axis("a", "int", low=0, high=3), Axis("b", "int", low=0, high=3)]

    def ridge(one: Configuration) -> float:
        a, b = int(str(one["a"])), int(str(one["b"]))
        return b - 2 * abs(a - b)  # up the diagonal, a step at a time

    worth = [
        ridge(best(run(Greedy(passes=n, start={"b": 1}).over(ToySpace(axes)), ridge))) for n in (1, 2, 9)
    ]
    assert worth == [1, 1, 1]  # a ridge fools coordinate-wise search, however often it goes round

    def late(one: Configuration) -> float:
        a, b = int(str(one["a"])), int(str(one["b"]))
        return b + (a == b)

    worth = [late(best(run(Greedy(passes=n).over(ToySpace(axes)), late))) for n in (1, 2)]
    assert worth == [3, 4]


def test_an_axis_that_begins_to_matter_has_its_turn_in_the_same_pass() -> None:
    axes = [
        Axis("judge", "choice", ("none", "model")),
        Axis("judge.k", "int", low=1, high=3, needs=(("judge", ("model",)),)),
        Axis("n", "int", low=1, high=2),
    ]

    def worth(one: Configuration) -> float:
        return (one["judge"] == "model") + int(str(one.get("judge.k", 0))) + int(str(one["n"]))

    found = run(Greedy().over(ToySpace(axes)), worth)
    assert dict(best(found)) == {"judge": "model", "judge.k": 3, "n": 2}
    assert len(found) == 2 + 2 + 1


def test_what_is_refused_is_left_out_and_a_refused_start_gives_way() -> None:
    space = ToySpace(AXES, lambda one: one["n"] == 3 or one["model"] == "small")
    found = run(Greedy().over(space), separable)
    assert all(space.refusal(one) is None for one in found)
    assert best(found)["n"] in (2, 4) and best(found)["model"] == "big"


def test_equal_values_keep_the_first_and_failures_are_never_kept() -> None:
    found = run(Greedy().over(ToySpace(AXES)), lambda one: 0.5)
    assert list(found)[-1] == Configuration({"model": "small", "n": 0, "t": 0.0, "rank": True})
    found = run(Greedy().over(ToySpace(AXES)), lambda one: None if one["n"] == 0 else separable(one))
    assert dict(best(found)) == {"model": "small", "n": 3, "t": 0.5, "rank": True}  # no model was told apart


def test_what_lost_a_race_is_kept_only_where_nothing_finished() -> None:
    proposer = Greedy().over(ToySpace([Axis("n", "int", low=0, high=2), Axis("m", "int", low=0, high=1)]))
    told = {0: Told((0.4,)), 1: Told((0.9,), finished=False), 2: Told((0.5,))}
    for n in (0, 1, 2):
        proposer.tell(Configuration({"n": n, "m": 0}), told[n])
    assert proposer.ask() == Configuration({"n": 2, "m": 1})


def test_what_was_told_before_is_not_evaluated_again() -> None:
    proposer = Greedy().over(ToySpace(AXES))
    known = run(Greedy().over(ToySpace(AXES)), separable)
    for one in itertools.islice(known, 9):
        proposer.tell(one, Told((separable(one),)))
    assert len(run(proposer, separable)) == len(known) - 9


@pytest.mark.parametrize(
    ("start", "message"),
    [({"modle": "big"}, "Did you mean 'model'"), ({"n": 9}, "a whole number from 0 to 4")],
)
def test_a_start_that_is_not_of_the_space_is_an_error(start: dict[str, str | int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Greedy(start=start).over(ToySpace(AXES))
