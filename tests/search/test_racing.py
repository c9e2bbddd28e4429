"""Races: the best is dropped as rarely as stated, losers stop early, and whatever happens is the same when replayed."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import binom, ttest_rel

from archon.search.duels import Duels
from archon.search.racing import Race, Rules, shuffled

QUICK = settings(max_examples=50, deadline=None, derandomize=True)
Table = NDArray[np.float64]
"""Values, shape (contestants, problems), the problems in the order of the race."""


def exact(rights: Sequence[int], problems: int, rng: np.random.Generator, spread: float = 1.0) -> Table:
    """Contestants that solve exactly so many problems, the easy ones of which are mostly the same."""
    difficulty = rng.normal(size=problems)
    table = np.zeros((len(rights), problems))
    for row, right in zip(table, rights, strict=True):
        row[np.argsort(difficulty + rng.normal(scale=spread, size=problems))[:right]] = 1.0
    return table[:, rng.permutation(problems)]


def race(values: Table, rules: Rules, costs: Table | None = None, limits: Sequence[float] = ()) -> Race:
    """A race of these values to its end."""
    run = Race(rules)
    for place in range(len(values)):
        run.enter(str(place), limit=limits[place] if limits else None)
    while batch := run.wanted():
        for key, at in batch:
            run.tell(key, at, values[int(key), at], None if costs is None else costs[int(key), at])
    return run


def spent(run: Race) -> int:
    return sum(run.rules.problems - len(run.missing(key)) for key in run.keys)


def field(rng: np.random.Generator) -> Table:
    """4 to 8 contestants on 60 to 300 problems: the best is ahead by one problem or by up to 15 in a hundred, the
    others are close to each other or not."""
    problems = int(rng.integers(60, 301))
    best = round(problems * rng.uniform(0.3, 0.9))
    gap = max(1, round(problems * rng.choice([0.0, 0.03, 0.15])))
    scatter = round(problems * rng.choice([0.0, 0.1]))
    rights = [best] + [max(0, best - gap - int(rng.integers(scatter + 1))) for _ in range(rng.integers(3, 8))]
    return exact(rights, problems, rng, spread=float(rng.choice([0.3, 1.0])))


# --- errors are as rare as stated ------------------------------------------------------------------


def test_the_true_best_of_a_thousand_races_is_dropped_no_more_often_than_stated() -> None:
    alpha, lost, used, whole = 0.1, 0, 0, 0
    for seed in range(1000):
        values = field(np.random.default_rng(seed))
        known = len(values) if seed % 2 else None
        run = race(values, Rules(problems=values.shape[1], alpha=alpha, contestants=known))
        lost += "0" in run.eliminated()
        used += spent(run)
        whole += values.size
        assert run.leader() == "0" or "0" in run.eliminated(), "who is not dropped is found in the end"
    print(f"\nlost the best in {lost} of 1000 races; evaluations: {used / whole:.3f} of all")
    assert lost <= binom.ppf(0.999, 1000, alpha)


@pytest.mark.parametrize("shared", [True, False])
def test_many_that_are_worse_by_one_problem_do_not_crowd_out_the_best(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hardest case for the union bound: without it, the same check fails."""
    alpha, lost = 0.1, 0
    if not shared:
        monkeypatch.setattr(Rules, "needed", lambda *_: math.log(1 / alpha))
    for seed in range(200):
        values = exact([40] + [39] * 15, 80, np.random.default_rng(seed), spread=3.0)
        known = len(values) if seed % 2 else None
        run = race(values, Rules(problems=80, alpha=alpha, contestants=known))
        lost += "0" in run.eliminated()
    print(f"\nalpha shared out: {shared}; lost the best in {lost} of 200 races")
    assert (lost <= binom.ppf(0.999, 200, alpha)) == shared


def test_a_naive_test_at_the_same_level_drops_the_best_far_more_often() -> None:
    """The same check on the same races: a paired t-test that is repeated after every batch."""
    alpha, lost = 0.1, 0
    for seed in range(100):
        lost += 0 not in naive(field(np.random.default_rng(seed)), alpha)
    print(f"\na repeated t-test lost the best in {lost} of 100 races")
    assert lost > binom.ppf(0.999, 100, alpha)


def naive(values: Table, alpha: float) -> set[int]:
    alive, n = set(range(len(values))), 8
    while len(alive) > 1 and n < values.shape[1]:
        ranked = sorted(alive, key=lambda k: -values[k, :n].mean())
        ahead = values[ranked[0], :n]
        for one in ranked[1:]:
            if (ahead != values[one, :n]).any():
                p = ttest_rel(ahead, values[one, :n], alternative="greater").pvalue
                alive -= {one} if p < alpha else set()
        n = max(n + 1, math.floor(n * 1.5))
    return alive


@pytest.mark.parametrize("count", [2, 5])
def test_with_all_equal_it_stops_falsely_no_more_often_than_stated(count: int) -> None:
    alpha, races = 0.1, 200
    each, best = 0, np.zeros(count)
    for seed in range(races):
        rng = np.random.default_rng(10_000 + seed)
        values = exact([60] * count, 100, rng)
        rules = Rules(problems=100, alpha=alpha, contestants=count)
        each += bool(race(values, rules.model_copy(update={"protects": "each"})).eliminated())
        out = race(values, rules).eliminated()
        best += [str(place) in out for place in range(count)]
    print(f"\n{count} equal ones: any dropped in {each} of {races}; each in {best.tolist()}")
    assert each <= binom.ppf(0.999, races, alpha)
    assert best.max() <= binom.ppf(1 - 0.001 / count, races, alpha)


def test_one_that_is_truly_on_the_front_is_dropped_no_more_often_than_stated() -> None:
    """The first solves least and is barely the cheapest."""
    alpha, races, lost = 0.1, 150, 0
    for seed in range(races):
        rng = np.random.default_rng(20_000 + seed)
        values = exact([40, 60, 65, 70], 100, rng)
        costs = np.stack([rng.permutation(np.linspace(0, 1, 100) ** 2) for _ in range(4)])
        costs[1:] = np.minimum(costs[1:] + 0.001, 1.0)
        run = race(values, Rules(problems=100, alpha=alpha, goal="front", contestants=4), costs, [1.0] * 4)
        lost += "0" in run.eliminated()
    assert lost <= binom.ppf(0.999, races, alpha)


def test_the_cheapest_at_the_target_is_dropped_no_more_often_than_stated() -> None:
    """It is at the target by nothing, and cheaper than the next by little; a cheaper one is below by one problem."""
    alpha, races, lost = 0.1, 150, 0
    for seed in range(races):
        rng = np.random.default_rng(30_000 + seed)
        values = exact([60, 59, 80], 100, rng)
        costs = np.stack([rng.permutation(np.linspace(0, 1, 100)) * scale for scale in (0.9, 0.6, 0.95)])
        rules = Rules(problems=100, alpha=alpha, goal="target", target=0.6, contestants=3)
        run = race(values, rules, costs, [1.0] * 3)
        lost += "0" in run.eliminated()
        assert run.leader() == "0" or lost
    assert lost <= binom.ppf(0.999, races, alpha)


# --- it saves --------------------------------------------------------------------------------------


def test_with_twenty_points_between_them_losers_stop_early() -> None:
    shares = []
    for seed in range(60):
        values = exact([140, 100, 100, 100, 100, 100], 200, np.random.default_rng(seed))
        run = race(values, Rules(problems=200, contestants=6))
        shares.append(spent(run) / values.size)
        assert run.survivors() == ["0"]
    print(f"\na gap of 20 points over 200 problems: {np.mean(shares):.3f} of all evaluations")
    assert np.mean(shares) < 0.55


def test_those_within_the_tolerance_do_not_race_to_the_end() -> None:
    used = []
    for seed in range(20):
        values = exact([600, 598, 596, 300], 1000, np.random.default_rng(seed), spread=0.3)
        rules = Rules(problems=1000, contestants=4, tolerance=0.05)
        run = race(values, rules)
        leader = run.leader()
        assert leader in ("0", "1", "2")
        assert {*run.waiting(), *run.eliminated(), leader} == {"0", "1", "2", "3"}
        assert set(run.waiting().values()) == {leader}
        used.append(spent(run) / spent(race(values, rules.model_copy(update={"tolerance": 0.0}))))
    print(f"\nwith a tolerance: {np.mean(used):.3f} of the evaluations without")
    assert np.mean(used) < 0.8


def test_of_two_within_the_tolerance_the_cheaper_runs_on() -> None:
    values = exact([150, 148], 300, np.random.default_rng(0), spread=0.2)
    run = Race(Rules(problems=300, goal="front", tolerance=0.2, contestants=2))
    run.enter("dear", cost=2.0)
    run.enter("cheap", cost=1.0)
    while batch := run.wanted():
        for key, at in batch:
            run.tell(key, at, values[["dear", "cheap"].index(key), at])
    assert run.waiting() == {"dear": "cheap"} and not run.eliminated() and run.leader() == "cheap"
    assert run.seen("cheap") < 300


def test_a_cheap_one_with_a_tight_limit_is_told_from_a_dear_one_at_once() -> None:
    """Costs of different limits need few problems; the same costs under one limit need more."""
    values, rng = np.ones((2, 200)), np.random.default_rng(0)
    values[1, :20] = 0.0
    costs = np.stack([rng.uniform(0.5, 1.0, 200), rng.uniform(15, 30, 200)])
    rules = Rules(problems=200, goal="front", contestants=2)
    after = [
        race(values, rules, costs, limits).eliminated()["1"].problems
        for limits in ([1.0, 100.0], [100.0] * 2)
    ]
    assert after[0] < after[1]


# --- goals at the end of the split, where everything is known ---------------------------------------

TABLES = st.integers(2, 5).flatmap(
    lambda k: st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 2), min_size=n, max_size=n), min_size=k, max_size=k)
    )
)


@QUICK
@given(TABLES)
def test_all_told_the_survivors_of_a_race_for_value_are_those_with_the_highest_mean(
    rows: list[list[int]],
) -> None:
    values = np.array(rows) / 2
    run = Race(Rules(problems=values.shape[1], alpha=1e-9))
    told(run, values)
    means = values.sum(axis=1)
    assert run.survivors() == [str(place) for place in np.flatnonzero(means == means.max())]
    assert run.done() and run.leader() == str(int(means.argmax()))


@QUICK
@given(TABLES, st.data())
def test_all_told_the_survivors_are_the_front(rows: list[list[int]], data: st.DataObject) -> None:
    """Costs may be known, or lie below a limit."""
    values = np.array(rows) / 2
    n = values.shape[1]
    costs = np.array([data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)) for _ in rows]) / 1.0
    run = Race(Rules(problems=n, alpha=1e-9, goal="front"))
    for place, row in enumerate(costs):
        if data.draw(st.booleans()):
            run.enter(str(place), cost=float(row.mean()))
        else:
            run.enter(str(place), limit=3.0)
    for place in range(len(values)):
        for at in range(n):
            run.tell(str(place), at, values[place, at], costs[place, at])
    worth, price = values.sum(axis=1), costs.sum(axis=1)
    beaten = [
        any(
            w >= worth[b] and p <= price[b] and (w, p) != (worth[b], price[b])
            for w, p in zip(worth, price, strict=True)
        )
        for b in range(len(values))
    ]
    assert run.survivors() == [str(place) for place, lost in enumerate(beaten) if not lost]
    assert run.done()


@QUICK
@given(TABLES, st.floats(0, 1))
def test_all_told_the_survivors_are_the_cheapest_at_the_target(rows: list[list[int]], target: float) -> None:
    values = np.array(rows) / 2
    run = Race(Rules(problems=values.shape[1], alpha=1e-9, goal="target", target=target))
    costs = [float(place // 2) for place in range(len(values))]
    for place, cost in enumerate(costs):
        run.enter(str(place), cost=cost)
    told(run, values, enter=False)
    there = [place for place in range(len(values)) if values[place].mean() >= target - 1e-9]
    cheapest = [str(place) for place in there if costs[place] == costs[there[0]]]
    assert run.survivors() == cheapest and run.done()
    if not there:
        assert run.leader() is None
        assert all(out.against is None for out in run.eliminated().values())


def told(run: Race, values: Table, *, enter: bool = True) -> None:
    for place in range(len(values)):
        if enter:
            run.enter(str(place))
    for at in range(values.shape[1]):
        for place in range(len(values)):
            run.tell(str(place), at, values[place, at])


# --- order, batches, and going on -------------------------------------------------------------------


@QUICK
@given(st.integers(0, 1000), st.integers(1, 7))
def test_values_may_come_in_any_order(seed: int, looks: int) -> None:
    rng = np.random.default_rng(seed)
    values = exact([30, 20, 10, 29], 40, rng)
    straight, mixed = Race(Rules(problems=40)), Race(Rules(problems=40))
    told(straight, values)
    tells = [(place, at) for place in range(4) for at in range(40)]
    for place in range(4):
        mixed.enter(str(place))
    for number, which in enumerate(rng.permutation(len(tells)).tolist()):
        place, at = tells[which]
        mixed.tell(str(place), at, values[place, at])
        if number % (20 * looks) == 0:
            assert set(mixed.eliminated()) <= set(straight.eliminated())
    assert set(mixed.eliminated()) == set(straight.eliminated())


@pytest.mark.parametrize("goal", ["value", "front", "target"])
def test_a_race_that_was_stored_goes_on_as_if_it_had_not_been(goal: str) -> None:
    rng = np.random.default_rng(3)
    values, costs = exact([120, 90, 60, 118, 30], 150, rng), rng.uniform(size=(5, 150))
    wanting: dict[str, Any] = {"target": 0.55} if goal == "target" else {"tolerance": 0.02}
    run = Race(Rules.model_validate({"problems": 150, "goal": goal, "contestants": 6, **wanting}))
    for place in range(4):
        run.enter(str(place), **({} if goal == "value" else {"limit": 1.0} if place % 2 else {"cost": 0.5}))
    late = False
    while (batch := run.wanted()) or not late:
        other = Race.loaded(json.loads(json.dumps(run.dumped())))
        assert other.wanted() == batch
        assert (other.eliminated(), other.waiting(), other.leader()) == (
            run.eliminated(),
            run.waiting(),
            run.leader(),
        )
        assert other.dumped() == run.dumped()
        for key, at in batch[: len(batch) // 2 + 1]:
            run.tell(key, at, values[int(key), at], costs[int(key), at])
        run = run if len(batch) % 2 else other
        if run is other:
            for key, at in batch[: len(batch) // 2 + 1]:
                run.tell(key, at, values[int(key), at], costs[int(key), at])
        if not late and (run.eliminated() or not batch):
            late = True
            run.enter("4", **({} if goal == "value" else {"limit": 1.0}))
    assert run.done()


def test_batches_grow_and_go_problem_by_problem() -> None:
    run = Race(Rules(problems=50, first=4, growth=2.0))
    assert run.done() and run.leader() is None
    run.enter("a")
    assert run.done(), "alone it has nothing to be compared with"
    run.enter("b")
    sizes = []
    while batch := run.wanted():
        assert batch == sorted(batch, key=lambda one: (one[1], one[0]))
        sizes.append(len(batch))
        for key, at in batch:
            run.tell(key, at, at % 2)
    assert sizes == [8, 8, 16, 32, 36]
    assert run.survivors() == ["a", "b"] and run.leader() == "a"


def test_one_that_enters_late_catches_up_first() -> None:
    run = Race(Rules(problems=100, contestants=4))
    for key in ("a", "b"):
        run.enter(key)
    for _ in range(3):
        for key, at in run.wanted():
            run.tell(key, at, float(at % 3 > 0))
    ahead = run.seen("a")
    assert ahead == 18
    run.enter("c")
    assert run.wanted() == [("c", at) for at in range(8)]
    assert run.leader() == "a", "the newcomer has had too few problems to lead"
    for key, at in run.wanted():
        run.tell(key, at, 1.0)
    assert run.leader() == "a"
    assert {key for key, _ in run.wanted()} == {"c"}


def test_who_is_out_wants_nothing_and_is_compared_with_no_newcomer() -> None:
    run = Race(Rules(problems=60, contestants=3))
    run.enter("good")
    run.enter("bad")
    while batch := run.wanted():
        for key, at in batch:
            run.tell(key, at, float(key == "good"))
    out = run.eliminated()["bad"]
    assert (out.against, out.why) == ("good", "surely worse") and out.problems <= 12
    run.enter("new")
    assert {key for key, _ in run.wanted()} == {"new"}
    for at in run.missing("bad"):
        run.tell("bad", at, 1.0)
    assert run.eliminated() == {"bad": out}, "what is out stays out"


def test_alpha_is_shared_out_as_stated() -> None:
    def share(rules: Rules, challenger: int | None, challenged: int | None) -> float:
        return math.exp(-rules.needed(challenger, challenged))

    fixed = Rules(problems=10, alpha=0.1, contestants=5)
    assert sum(share(fixed, k, 2) for k in range(5) if k != 2) == pytest.approx(0.1)
    each = Rules(problems=10, alpha=0.1, contestants=5, protects="each")
    assert sum(share(each, k, j) for k in range(5) for j in range(5) if k != j) == pytest.approx(0.1)
    target = Rules(problems=10, alpha=0.1, contestants=5, goal="target", target=0.5)
    assert sum(share(target, k, 2) for k in (None, 0, 1, 3, 4)) == pytest.approx(0.1)
    endless = Rules(problems=10, alpha=0.1)
    assert 0.0999 < sum(share(endless, k, 0) for k in range(10_000)) <= 0.1
    both = Rules(problems=10, alpha=0.1, protects="each", goal="target", target=0.5)
    total = sum(share(both, k, j) for k in (None, *range(300)) for j in range(300))
    assert 0.099 < total <= 0.1


def test_intervals_of_values_and_costs() -> None:
    run = Race(Rules(problems=100, goal="front", contestants=2))
    run.enter("known", cost=3.0)
    run.enter("seen", limit=10.0)
    for at in range(40):
        run.tell("known", at, 1.0)
        run.tell("seen", at, at % 2, cost=2.0 if at else 99.0)
    assert run.cost_bounds("known") == (3.0, 3.0)
    low, high = run.cost_bounds("seen")
    assert run.cost("seen") == pytest.approx((39 * 2 + 10) / 40), "more than the limit counts as the limit"
    assert low < run.cost("seen") < high
    low, high = run.bounds("known")
    assert 0.8 < low < high == 1.0
    wide = run.bounds("known", alpha=0.0001)
    assert wide.low < low


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda run: run.enter("a", limit=1.0), "entered already"),
        (lambda run: run.enter("b"), "`cost`, or else a `limit`"),
        (lambda run: run.enter("b", cost=1.0, limit=1.0), "`cost`, or else a `limit`"),
        (lambda run: run.enter("b", cost=math.nan), "at least 0"),
        (lambda run: run.tell("x", 0, 1.0), "not entered"),
        (lambda run: run.tell("a", 5, 1.0, 0.5), "not one of 5"),
        (lambda run: run.tell("a", 0, 1.2, 0.5), "lie in"),
        (lambda run: run.tell("a", 0, math.nan, 0.5), "lie in"),
        (lambda run: run.tell("a", 0, 1.0), "cost None"),
        (lambda run: (run.tell("a", 0, 1.0, 0.5), run.tell("a", 0, 0.0, 0.5)), "another value"),
        (lambda run: (run.enter("b", cost=1.0), run.enter("c", cost=1.0)), "finds no room"),
    ],
)
def test_mistakes_are_named(wrong: Callable[[Race], Any], says: str) -> None:
    run = Race(Rules(problems=5, goal="front", contestants=2))
    run.enter("a", limit=1.0)
    with pytest.raises(ValueError, match=says):
        wrong(run)


@pytest.mark.parametrize(
    "rules",
    [{"goal": "target"}, {"target": 0.5}, {"goal": "target", "target": 0.5, "tolerance": 0.1}, {"alpha": 0}],
)
def test_rules_that_contradict_themselves_are_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate({"problems": 5, **rules})


def test_the_order_is_by_seed_and_id_alone() -> None:
    ids = [f"p{i}" for i in range(50)]
    order = shuffled(ids, 1)
    assert sorted(order) == sorted(ids) and order != tuple(ids)
    assert shuffled(reversed(ids), 1) == order != shuffled(ids, 2)
    fewer = [one for one in order if one != "p7"]
    assert list(shuffled([one for one in ids if one != "p7"], 1)) == fewer
    assert any(int(a[1:]) > int(b[1:]) for a, b in pairwise(order))


# --- one that cannot go on -------------------------------------------------------------------------


def test_one_that_is_withdrawn_is_out_and_drops_nobody_from_then_on() -> None:
    """It was right on everything so far, and none of that counts against who comes later."""
    run = Race(Rules(problems=40, contestants=3, first=20))
    for key in ("broken", "other"):
        run.enter(key)
    for place in range(20):
        run.tell("broken", place, 1.0)
    run.withdraw("broken", "it cannot run")
    for place in range(20):
        run.tell("other", place, 0.0)
    assert run.survivors() == ["other"] and run.leader() == "other"
    out = run.eliminated()["broken"]
    assert (out.against, out.why, out.problems) == (None, "it cannot run", 20)
    again = Race.loaded(json.loads(json.dumps(run.dumped())))
    assert again.survivors() == ["other"], "also when it is read back"


def test_what_it_had_proved_before_it_was_withdrawn_stays() -> None:
    run = Race(Rules(problems=40, contestants=3, first=20))
    for key in ("broken", "other", "third"):
        run.enter(key)
    for place in range(20):
        run.tell("broken", place, 1.0)
        run.tell("other", place, 0.0)
    run.withdraw("broken", "it cannot run")
    assert run.eliminated()["other"].against == "broken" and run.survivors() == ["third"]


def test_many_contestants_on_many_problems_take_little_memory() -> None:
    """Hundreds of pairs over a long batch are looked at piece by piece."""
    duels = Duels(Rules(problems=3000, contestants=1000))
    for place in range(25):
        duels.meet(place, list(range(place)), 0.0, 0.0)
    table = (np.random.default_rng(0).random((25, 2000)) < 0.5).astype(float)
    tracemalloc.start()
    try:
        duels.see(table, table, np.full(25, 2000), np.zeros(25, dtype=np.bool_))
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()
