"""Diverse verifier tree search: trees that share nothing, each greedy. Purely; what a model sees is in
test_beam_search.py, which runs both."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.lab.arith import rewritten
from archon.benchmarks.lab.bench import LabArith
from archon.budget import Budget
from archon.session import Session
from archon.stage import Stage
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.strategies.dvts import DVTS
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.selection import Selector
from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.weighted_vote import WeightedVote
from tests.strategies.growing import Step, World, searched, texts
from tests.strategies.made import PROBLEM
from tests.strategies.test_beam_search import DEPTH, Searching, models, noisy, tree


@pytest.mark.parametrize(("n", "m"), [(3, 3), (9, 3), (12, 6)])
@pytest.mark.parametrize("seed", range(5))
def test_with_an_exact_reward_every_tree_finds_the_best_leaf(n: int, m: int, seed: int) -> None:
    world, best = tree(seed)
    stage = DVTS(n=n, m=m, answers="best")
    assert texts(stage.found(searched(stage, world))) == [best] * (n // m)
    assert [sum(count for _, count in asked) for asked in world.asked] == [n] * DEPTH


def test_a_favourite_takes_one_tree_where_it_takes_every_beam() -> None:
    def step(text: str, number: int) -> Step:
        return "abcd"[number], "stop" if len(text) == 2 else None

    def value(text: str) -> float:
        return 1 / ord(text[0])

    diverse, world = DVTS(n=4, m=2), World(step, value)
    assert {text[0] for text in texts(diverse.found(searched(diverse, world)))} == {"a", "c"}
    assert world.asked[1] == [("a", 2), ("c", 2)], "the best of the first two, and of the other two"
    beam = BeamSearch(n=4, m=4)
    assert {text[0] for text in texts(beam.found(searched(beam, World(step, value))))} == {"a"}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "m"), [(4, 1), (6, 2), (6, 6), (9, 3)])
def test_it_is_what_the_trees_would_be_one_after_the_other(seed: int, n: int, m: int) -> None:
    """Each step: m continuations, the best goes on; cut-off ones only where all are. Texts are their trees' own, so
    the order in which trees are grown changes nothing."""

    def in_tree(number: int) -> tuple[str, int]:
        return f"{number // m}:", number % m

    def step(text: str, number: int) -> Step:
        head, number = ("", number) if text else in_tree(number)
        rng = random.Random(f"{seed}|{text}|{head}{number}")
        endings: list[Ending | None] = [None, "stop", "length"]
        return head + rng.choice("xyz"), rng.choices(endings, [6, 2, 1])[0]

    def value(text: str) -> float:
        return random.Random(f"{seed}|{text}").random()

    stage = DVTS(n=n, m=m)
    found = stage.found(searched(stage, World(step, value)))
    expected: list[tuple[str, str | None]] = []
    for number in range(n // m):
        text, ended = "", False
        while not ended:
            steps = [step(text, i if text else number * m + i) for i in range(m)]
            variants = [(text + s[0], s[1]) for s in steps if s is not None]
            going = [v for v in variants if v[1] != "length"] or variants
            text, ending = max(going, key=lambda v: value(v[0]))
            ended = ending is not None
        expected += variants
    assert [(p.text, p.ending) for p in found] == expected
    assert len(found) == n


def half(text: str, number: int) -> Step:
    """The first of two steps goes on, the other ends the answer; at the fourth all do."""
    return "ge"[number % 2], "stop" if number % 2 or len(text) == 3 else None


def test_a_tree_s_answers_are_the_variants_of_its_last_step() -> None:
    def going_is_better(text: str) -> float:
        return 0.9 if text.endswith("g") else 0.5

    for answers, expected in (
        ("variants", ["gggg", "ggge"] * 2),
        ("whole", ["gggg", "ggge"] * 2),
        ("best", ["gggg"] * 2),
    ):
        stage = DVTS.model_validate({"n": 4, "m": 2, "answers": answers})
        assert texts(stage.found(searched(stage, World(half, going_is_better)))) == expected

    def ending_is_better(text: str) -> float:
        return 0.9 if text.endswith("e") else 0.5

    for answers, expected in (
        ("variants", ["g", "e", "g", "e"]),
        ("whole", ["e", "e"]),
        ("best", ["e", "e"]),
    ):
        stage = DVTS.model_validate({"n": 4, "m": 2, "answers": answers})
        found = stage.found(searched(stage, World(half, ending_is_better)))
        assert texts(found) == expected
        assert [p.ending for p in found] == [{"g": None, "e": "stop"}[t] for t in expected]


def test_what_is_cut_off_does_not_go_on_and_is_not_chosen_where_something_else_is_there() -> None:
    def step(text: str, number: int) -> Step:
        if number % 2:
            return "c", "length"
        return "g", "stop" if len(text) == 2 else None

    stage, world = DVTS(n=4, m=2), World(step, lambda text: 0.9 if text.endswith("c") else 0.1)
    found = stage.found(searched(stage, world))
    assert [(p.text, p.ending) for p in found] == [("ggg", "stop"), ("ggc", "length")] * 2
    assert len(world.asked) == 3
    only = World(lambda text, number: ("c", "length"), lambda text: 0.5)
    for answers, count in (("variants", 4), ("whole", 2), ("best", 2)):
        stage = DVTS.model_validate({"n": 4, "m": 2, "answers": answers})
        assert [p.ending for p in stage.found(searched(stage, only))] == ["length"] * count


def test_a_tree_whose_calls_fail_is_given_up_and_the_others_go_on() -> None:
    def step(text: str, number: int) -> Step:
        if not text:
            return "ab"[number // 2], None
        return None if text == "a" else ("e", "stop")

    stage, world = DVTS(n=4, m=2), World(step, lambda text: 0.5)
    assert texts(stage.found(searched(stage, world))) == ["be", "be"]
    assert world.asked == [[("", 4 // 2), ("", 4 // 2)], [("a", 2), ("b", 2)]]
    dead = World(lambda text, number: None if text else ("a", None), lambda text: 0.5)
    assert texts(stage.found(searched(stage, dead))) == ["a", "a"], "each as far as it came"
    assert len(dead.asked) == 2


def test_the_unscored_come_last_and_a_search_that_is_cut_short_gives_each_tree_s_best() -> None:
    values = {"a": None, "b": 0.1, "c": 0.2, "d": 0.2}
    world = World(lambda text, number: ("abcd"[number], None), values.get)
    stage = DVTS(n=4, m=2)
    assert texts(stage.found(searched(stage, world, rounds=1))) == ["b", "c"]
    assert stage.found(searched(stage, world, rounds=0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_with_m_1_it_is_n_independent_chains(seed: int) -> None:
    stage, beam = DVTS(n=5, m=1), BeamSearch(n=5, m=1)
    trees = stage.found(searched(stage, noisy(seed)))
    chains = beam.found(searched(beam, noisy(seed)))
    assert sorted((p.text, p.ending) for p in trees) == sorted((p.text, p.ending) for p in chains)


def test_one_tree_is_step_level_best_of_n() -> None:
    for seed in range(5):
        world, other = tree(seed)[0], tree(seed)[0]
        stage, beam = DVTS(n=3, m=3), BeamSearch(n=3, m="all")
        searched(stage, world)
        searched(beam, other)
        assert world.asked == other.asked


async def test_a_budget_ends_it_with_what_it_has_and_says_so() -> None:
    stage = DVTS(n=4, m=2, budget=Budget(requests=9))
    async with Session(models=models(9)) as session:
        outcome = await session.solve(stage, PROBLEM)
    assert outcome.usage.requests <= 9 and outcome.stopped == "budget"
    assert outcome.final and {c.finish for c in outcome.final} == {"length"}


def test_two_trees_with_the_same_path_still_draw_samples_of_their_own() -> None:
    world = World(lambda text, number: ("a", "stop" if text else None), lambda text: 0.5)
    stage = DVTS(n=4, m=2)
    found = stage.found(searched(stage, world))
    assert len({partial.samples for partial in found}) == 4
    assert all(isinstance(partial, Partial) and partial.text == "aa" for partial in found)


SELECTORS: tuple[type[Selector], ...] = (BestOf, WeightedVote, MajorityVote)


async def test_one_pool_gives_every_selector_s_accuracy_at_every_power_of_two(tmp_path: Path) -> None:
    """At the whole pool it is what a pipeline that ends with the selector chooses."""

    def reply(call: Call) -> Reply:
        question = call.text.removeprefix("Compute ").removesuffix(" step by step.")
        lines = rewritten(question) or [""]
        depth = call.request.prefix.count("\n")
        luck = random.Random(f"{question}|{call.request.prefix}|{call.index}").random()
        line = lines[depth] if luck < 0.6 else lines[depth] + "0"
        return Reply(line) if depth == len(lines) - 1 else Reply(line, "stop_string", "\n")

    def score(text: str) -> float:
        """Better than chance, and never the same twice."""
        off = any(line.endswith("0") for line in text.splitlines())
        return random.Random(text).uniform(0.0, 0.7) if off else random.Random(text).uniform(0.3, 1.0)

    both: Mapping[str, Model] = {
        "default": Scripted(reply=reply, identity="unsure"),
        "reward": Scripted(score=score, identity="unsure"),
    }
    data = LabArith(level=(1, 2), problems=8).load()
    async with Session(models=both) as session:
        for selector in SELECTORS:
            graph = (DVTS(n=8, m=2) | selector()).graph()
            folder = tmp_path / selector.name
            folder.mkdir()
            results = (await Harness(Plan(data, graph, "dvts", samples=8), session, folder).run()).data
            assert set(results["selected"]) == {"best_of", "weighted_vote", "majority_vote"}
            for curve in (*results["selected"].values(), results["coverage"]):
                assert list(curve) == ["1", "2", "4", "8"]
                assert all(point["problems"] == 16 for point in curve.values())
            last = results["selected"][selector.name]["8"]["value"]
            assert last == pytest.approx(results["pipeline_accuracy"]["value"], abs=TIES[selector])
            assert 0.1 < last < 1


TIES = {BestOf: 0.0, WeightedVote: 0.0, MajorityVote: 0.1}
"""Answers with as many votes: the report takes orders of the pool by turns, and the pipeline the pool's own."""


class TestDVTS(Searching):
    def make_stage(self) -> Stage:
        return DVTS(n=4, m=2, lookahead=1, answers="whole", aggregate="min")

    def models(self) -> Mapping[str, Model]:
        return models(3)
