"""Beam search: what survives, what is asked for, what comes out. Purely; then with a scripted model."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.config.build import component
from archon.errors import AllCandidatesFailed, ConfigError, RequestRejected
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.steps import Aggregation
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.strategies.dvts import DVTS
from archon.strategies.stepping.partial import Ending, Partial
from archon.testing import StageCases
from tests.archon.instant import InstantStore, patiently
from tests.strategies.growing import Step, World, searched, texts
from tests.strategies.made import PROBLEM, solved

DEPTH = 4


def tree(seed: int, branches: int = 3, depth: int = DEPTH) -> tuple[World, str]:
    """A full tree whose i-th continuations are its branches in turn, with an exact reward: the best leaf below a text.
    And the best leaf of all."""
    rng = random.Random(seed)
    leaves = {"".join(path): rng.random() for path in product("abc"[:branches], repeat=depth)}

    def step(text: str, number: int) -> Step:
        return "abc"[number % branches], "stop" if len(text) == depth - 1 else None

    def value(text: str) -> float:
        return max(worth for leaf, worth in leaves.items() if leaf.startswith(text))

    return World(step, value), max(leaves, key=leaves.__getitem__)


def noisy(seed: int) -> World:
    """Answers of different lengths, some cut off; values mean nothing."""

    def step(text: str, number: int) -> Step:
        rng = random.Random(f"{seed}|{text}|{number}")
        endings: list[Ending | None] = [None, "stop", "length"]
        return rng.choice("xyz"), rng.choices(endings, [8, 2, 1])[0]

    return World(step, lambda text: random.Random(f"{seed}|{text}").random())


# --- the algorithm ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(3, "all"), (3, 3), (9, 3), (12, 3), (12, 6)])
@pytest.mark.parametrize("seed", range(5))
def test_with_an_exact_reward_it_finds_the_best_leaf(n: int, m: Any, seed: int) -> None:
    world, best = tree(seed)
    stage = BeamSearch(n=n, m=m)
    assert texts(stage.found(searched(stage, world)))[0] == best
    assert [sum(count for _, count in asked) for asked in world.asked] == [n] * DEPTH


def test_with_a_wrong_reward_a_narrow_beam_loses_what_a_wider_one_finds() -> None:
    """The branch with the best leaf looks worst at first."""

    def step(text: str, number: int) -> Step:
        return "ab"[number % 2], "stop" if len(text) == 2 else None

    def value(text: str) -> float:
        return {"b": 0.4, "bb": 0.6, "bbb": 1.0}.get(text, 0.5)

    narrow, wide = BeamSearch(n=2, m="all"), BeamSearch(n=4, m=2, keep_duplicates=False)
    assert texts(narrow.found(searched(narrow, World(step, value))))[0] != "bbb"
    assert texts(wide.found(searched(wide, World(step, value))))[0] == "bbb"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 7])
def test_with_m_1_it_is_n_independent_chains(seed: int, n: int) -> None:
    stage, world = BeamSearch(n=n, m=1), noisy(seed)
    found = stage.found(searched(stage, world))
    chains: list[Partial | None] = [Partial() for _ in range(n)]
    other = noisy(seed)
    while any(chain is not None and not chain.finished for chain in chains):
        chains = [chain if chain is None or chain.finished else other.draw(chain) for chain in chains]
    written = [chain for chain in chains if chain is not None]
    assert sorted((p.text, p.ending) for p in found) == sorted((p.text, p.ending) for p in written)
    assert world.handed == other.handed, "and it asks for what they ask for"


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 5])
def test_with_m_all_it_is_greedy_step_level_best_of_n(seed: int, n: int) -> None:
    """In a world in which all answers are equally long, so that none waits for the others."""
    rng = random.Random(seed)
    values = {"".join(p): rng.random() for length in range(DEPTH + 1) for p in product("abc", repeat=length)}

    def step(text: str, number: int) -> Step:
        return random.Random(f"{text}{number}").choice("abc"), "stop" if len(text) == DEPTH - 1 else None

    stage, world = BeamSearch(n=n, m="all"), World(step, values.__getitem__)
    found = stage.found(searched(stage, world))
    path = ""
    for asked in world.asked:
        assert asked == [(path, n)]
        path = max((path + step(path, i)[0] for i in range(n)), key=values.__getitem__)  # type: ignore[index]
    assert found[0].text == path and len(found) == n


def test_the_best_survive_and_each_is_continued_m_times() -> None:
    world = World(lambda text, number: ("abcdef"[number], None), lambda text: -ord(text[-1]))
    stage = BeamSearch(n=6, m=2, max_steps=9)
    searched(stage, world, rounds=2)
    assert world.asked == [[("", 6)], [("a", 2), ("b", 2), ("c", 2)]]


def test_equals_stay_in_the_order_in_which_they_came_and_the_unscored_come_last() -> None:
    values = {"a": 0.5, "b": None, "c": 0.5, "d": 0.1}
    world = World(lambda text, number: ("bacd"[number], None), values.get)
    stage = BeamSearch(n=4, m=1)
    assert [p.text for p, _ in searched(stage, world, rounds=1).live] == ["a", "c", "d", "b"]


def test_n_beams_that_are_no_whole_number_of_groups_are_refused() -> None:
    for wrong in ({"n": 2, "m": 4}, {"n": 3, "m": 4}, {"n": 10, "m": 4}):
        with pytest.raises(ValidationError, match=rf"`n` {wrong['n']} is not a multiple of `m` 4"):
            BeamSearch(**wrong)
        with pytest.raises(ValidationError, match=rf"`n` {wrong['n']} is not a multiple of `m` 4"):
            DVTS(**wrong)
    assert [BeamSearch(n=n, m="all").width for n in (1, 2, 9)] == [1, 2, 9]


def test_in_a_file_the_refusal_says_what_does_not_fit_and_shows_nothing_else() -> None:
    with pytest.raises(ConfigError) as refused:
        component("stage", {"beam_search": {"n": 6, "max_steps": 9}})
    assert str(refused.value).endswith("Change one of them, or say `m: all`")


# --- what is finished ------------------------------------------------------------------------------


def short_and_long(text: str, number: int) -> Step:
    """Half of the first steps end at once; the others are three steps long."""
    if not text:
        return ("s", "stop") if number % 2 else ("l", None)
    return "l", "stop" if text == "ll" else None


def test_those_that_end_first_are_not_the_result() -> None:
    def long_is_better(text: str) -> float:
        return 0.1 if text == "s" else 0.9

    world = World(short_and_long, long_is_better)
    stage = BeamSearch(n=4, m=2)
    found = stage.found(searched(stage, world))
    assert texts(found) == ["lll"] * 4
    assert [len(asked) for asked in world.asked] == [1, 2, 2]


def test_unless_they_are_to_leave_and_others_fill_their_places() -> None:
    world = World(short_and_long, lambda text: 0.9)
    stage = BeamSearch(n=4, m=2, finished="leave")
    found = stage.found(searched(stage, world))
    assert sorted(texts(found)) == ["lll", "lll", "s", "s"]
    assert world.asked == [[("", 4)], [("l", 2), ("l", 2)], [("ll", 2), ("ll", 2)]]
    early = World(lambda text, number: ("s", "stop") if number else ("l", None), lambda text: len(text) / 9)
    stage = BeamSearch(n=2, m=1, finished="leave")
    assert texts(stage.found(searched(stage, early))) == ["ls", "s"], "it goes on until there are n"


def test_it_is_over_when_the_best_are_all_finished() -> None:
    world = World(short_and_long, lambda text: 0.9 if text == "s" else 0.1)
    stage = BeamSearch(n=4, m=2)
    found = stage.found(searched(stage, world))
    assert (texts(found), len(world.asked)) == (["s", "s"], 1)


def test_a_finished_answer_that_was_passed_over_stays_in_the_running() -> None:
    falling = {"s": 0.5, "l": 0.9, "ll": 0.4, "lll": 0.3}
    world = World(short_and_long, falling.get)
    stage = BeamSearch(n=2, m="all")
    found = stage.found(searched(stage, world))
    assert (texts(found), len(world.asked)) == (["s"], 2)


def test_what_is_cut_off_is_no_answer_holds_no_place_and_comes_last() -> None:
    def step(text: str, number: int) -> Step:
        if not text:
            return ("c", "length") if number == 0 else ("g", None)
        return "e", "stop"

    world = World(step, lambda text: 1.0 if text == "c" else 0.2)
    stage = BeamSearch(n=4, m=2)
    found = stage.found(searched(stage, world))
    assert world.asked[1] == [("g", 2), ("g", 2)], "the two that go on, though what was cut off scored more"
    assert [(p.text, p.ending) for p in found] == [("ge", "stop")] * 4
    only = World(lambda text, number: ("c", "length"), lambda text: 0.5)
    assert [p.ending for p in stage.found(searched(stage, only))] == ["length"] * 4
    chains = BeamSearch(n=4, m=1)
    assert [p.ending for p in chains.found(searched(chains, World(step, lambda text: 0.2)))] == [
        *["stop"] * 3,
        "length",
    ]


def test_a_search_that_is_cut_short_gives_what_is_whole_else_the_beams() -> None:
    stage = BeamSearch(n=4, m=2)
    assert stage.found(searched(stage, noisy(0), rounds=0)) == [], "nothing is no answer"
    going = World(lambda text, number: ("abcd"[number], None), lambda text: 1 / ord(text[-1]))
    assert texts(stage.found(searched(stage, going, rounds=2))) == ["aa", "ba"]
    better = World(short_and_long, lambda text: 0.1 if text == "s" else 0.9)
    assert texts(stage.found(searched(stage, better, rounds=2))) == ["s", "s"]


def test_a_beginning_that_nothing_continues_is_given_up() -> None:
    def step(text: str, number: int) -> Step:
        return None if text == "a" else ("ab"[number % 2], None)

    stage = BeamSearch(n=4, m=2)
    world = World(step, lambda text: 0.9 if text == "a" else 0.1)
    searched(stage, world, rounds=4)
    assert world.asked == [[("", 4)], [("a", 2), ("a", 2)]], "both survivors were dead, and then it is over"
    chains, world = BeamSearch(n=4, m=1), World(step, lambda text: 0.5)
    searched(chains, world, rounds=2)
    assert world.asked[1] == [("a", 1), ("b", 1), ("a", 1), ("b", 1)]
    assert all(text[0] == "b" for text, _ in world.asked[1] if text != "a")


# --- duplicates ------------------------------------------------------------------------------------


def test_duplicates_survive_side_by_side_unless_they_are_not_to() -> None:
    def step(text: str, number: int) -> Step:
        return ("b" if number == 3 else "a"), None

    def value(text: str) -> float:
        return 0.9 if text == "a" else 0.5

    both = World(step, value)
    searched(BeamSearch(n=4, m=2), both, rounds=2)
    assert both.asked[1] == [("a", 2), ("a", 2)]
    once = World(step, value)
    searched(BeamSearch(n=4, m=2, keep_duplicates=False), once, rounds=2)
    assert once.asked[1] == [("a", 2), ("b", 2)]
    alone = World(lambda text, number: ("a", None), value)
    searched(BeamSearch(n=4, m=2, keep_duplicates=False), alone, rounds=2)
    assert alone.asked[1] == [("a", 4)], "it is continued in the places of its double"


def test_what_ended_is_not_the_same_as_what_goes_on_and_the_best_of_equals_stays() -> None:
    ended = Partial(("a",), value=0.2, ending="stop")
    stage = BeamSearch(n=4, m=2, keep_duplicates=False)
    grown = [Partial(("a",), value=0.1), ended, Partial(("a",), value=0.3), Partial(("b",), value=0.05)]
    state = stage.tell(stage.start(None), [grown])  # type: ignore[arg-type]
    assert [(p.text, p.value, n) for p, n in state.live] == [("a", 0.3, 2)]
    assert state.ended == (ended,)


# --- with a model ----------------------------------------------------------------------------------


def lines(depth: int, **settings: Any) -> Scripted:
    """Answers of so many lines; each line says which sample it was."""

    def reply(call: Call) -> Reply:
        greedy = "g" if call.request.sampling.temperature == 0 else ""
        last = call.request.prefix.count("\n") == depth - 1
        text = f"{greedy}{call.index}"
        return Reply(text) if last else Reply(text, "stop_string", "\n")

    return Scripted(reply=reply, identity=f"lines {depth}", **settings)


def models(depth: int, score: Any = None, **settings: Any) -> dict[str, Model]:
    return {
        "default": lines(depth, **settings),
        "reward": Scripted(score=score or (lambda text: 1 / (1 + len(text))), identity="scores"),
    }


SIZES = [(1, 1, 3), (4, 1, 2), (4, 2, 3), (4, 4, 3), (8, 2, 1), (12, 4, 5)]


@pytest.mark.parametrize(("n", "m", "depth"), SIZES)
@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
@pytest.mark.parametrize("lookahead", [0, 1, 2])
async def test_calls_are_exactly_those_it_says(kind: Any, n: int, m: int, depth: int, lookahead: int) -> None:
    """Every answer has so many lines, and equal beginnings are looked ahead from once."""
    stage = kind(n=n, m=m, lookahead=lookahead)
    async with Session(models=models(depth)) as session:
        outcome = await session.solve(stage, PROBLEM)
        calls = session.caller("default").backend.calls  # type: ignore[attr-defined]
        scored = session.caller("reward").backend.scored  # type: ignore[attr-defined]
    greedy = [call for call in calls if call.request.sampling.temperature == 0]
    assert len(calls) - len(greedy) == n * depth
    heads = n * sum(min(lookahead, depth - d) for d in range(1, depth))
    assert len(greedy) == len({call.request.prefix for call in greedy}) <= heads
    if lookahead < 2:
        assert len(greedy) == heads, "every new beginning is another text here"
    assert len(scored) <= n * depth and len(scored) == outcome.by_model["reward"].requests
    plan = stage.plan(None)
    assert outcome.usage.requests <= (plan.calls.high or 0)
    assert len(outcome.final) == n


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_a_step_is_judged_without_looking_ahead_by_default_else_by_a_greedy_roll_out(kind: Any) -> None:
    assert kind().lookahead == 0
    async with Session(models=models(3)) as session:
        await session.solve(kind(n=4, m=2, temperature=0.9), PROBLEM)
        temperatures = {c.request.sampling.temperature for c in session.caller("default").backend.calls}  # type: ignore[attr-defined]
    assert temperatures == {0.9}, "at every step"

    def promise(text: str) -> float:
        """Only the roll-out tells that the third start is the good one."""
        return 0.9 if text.startswith("2\n") and text.count("\n") > 1 else 0.5

    async with Session(models=models(3, promise)) as session:
        outcome = await session.solve(kind(n=4, m=4, lookahead=1, temperature=0.9), PROBLEM)
        calls = session.caller("default").backend.calls  # type: ignore[attr-defined]
    assert {c.request.sampling.temperature for c in calls} == {0.9, 0.0}
    assert {c.text[:2] for c in outcome.final} == {"2\n"}
    assert not any("g" in c.text for c in outcome.final), "what was looked at is not what was written"


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_what_is_finished_is_neither_continued_nor_scored_again(kind: Any) -> None:
    def reply(call: Call) -> Reply:
        deep = call.request.prefix.count("\n")
        if call.index % 2 or deep == 3:
            return Reply(f"end{deep}{call.index}")
        return Reply(f"{call.index}", "stop_string", "\n")

    both: Mapping[str, Model] = {
        "default": Scripted(reply=reply, identity="some"),
        "reward": Scripted(score=lambda text: 0.1 if "end" in text else 0.9, identity="more"),
    }
    async with Session(models=both) as session:
        await session.solve(kind(n=8, m=2), PROBLEM)
        calls = session.caller("default").backend.calls  # type: ignore[attr-defined]
        scored = session.caller("reward").backend.scored  # type: ignore[attr-defined]
    assert len(calls) > 8 and not any("end" in call.request.prefix for call in calls)
    replies = Counter("".join(steps) for request in scored for steps in request.replies)
    assert max(replies.values()) == 1


WORTH = {"0\n": 0.9, "0\n0": 0.6, "1\n": 0.7, "1\n0": 0.7, "2\n": 0.2, "2\n0": 0.95, "3\n": 1.0, "3\n0": 0.52}
WINNERS: list[tuple[Aggregation, str, float]] = [
    ("product", "0\n0", 0.54),
    ("min", "1\n0", 0.7),
    ("last", "2\n0", 0.95),
    ("mean", "3\n0", 0.76),
]


@pytest.mark.parametrize(("aggregate", "winner", "score"), WINNERS)
@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_the_aggregation_decides_and_is_the_answer_s_score(
    kind: Any, aggregate: Aggregation, winner: str, score: float
) -> None:
    """Each way to make one score of two prefers another of the four answers."""
    stage = kind(n=4, m=1, aggregate=aggregate)
    outcome, _ = await solved(stage | BestOf(), models(2, lambda text: WORTH.get(text, 0.0)))
    assert outcome.chosen is not None
    assert outcome.chosen.text == winner and outcome.chosen.score() == pytest.approx(score)
    if kind is BeamSearch:
        outcome, _ = await solved(stage, models(2, lambda text: WORTH.get(text, 0.0)))
        assert outcome.final[0].text == winner


@pytest.mark.parametrize("aggregate", ["last", "min", "product", "mean"])
async def test_the_aggregation_decides_who_survives(aggregate: Aggregation) -> None:
    """Four starts go on; which one the third step continues depends on how two scores become one."""
    worth = {**WORTH, **{f"{text}\n": value for text, value in WORTH.items()}}
    asked: list[str] = []

    def score(text: str) -> float:
        asked.append(text)
        return worth.get(text, 0.0)

    stage = BeamSearch(n=4, m=1, aggregate=aggregate, max_steps=3)
    winner = {name: text for name, text, _ in WINNERS}[aggregate]
    async with Session(models=models(3, score)) as session:
        engine_order = (await session.solve(stage, PROBLEM)).final
        calls = session.caller("default").backend.calls  # type: ignore[attr-defined]
    third = [c.request.prefix for c in calls if c.request.prefix.count("\n") == 2]
    assert third[0] == f"{winner}\n" and len(engine_order) == 4


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
def test_all_problems_are_searched_at_once(kind: Any) -> None:
    async def searches() -> int:
        async with Session(models=models(2, latency=1.0), store=InstantStore()) as session:
            asked = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(5)]
            await asyncio.gather(*(session.solve(kind(n=4, m=2), problem) for problem in asked))
            return int(session.caller("default").backend.most_in_flight)  # type: ignore[attr-defined]

    assert patiently(searches()) == 4 * 5


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_problems_that_ask_the_same_are_told_apart_by_their_ids(kind: Any) -> None:
    async with Session(models=models(2)) as session:
        alike = [Problem.ask("the same", id=f"p{i}") for i in range(3)]
        outcomes = await asyncio.gather(*(session.solve(kind(n=4, m=2), problem) for problem in alike))
    assert [outcome.problem for outcome in outcomes] == ["p0", "p1", "p2"]
    assert [len(outcome.final) for outcome in outcomes] == [4, 4, 4]
    assert len({tuple(c.text for c in outcome.final) for outcome in outcomes}) == 1


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_a_limit_of_tokens_holds_for_every_step_and_what_it_cuts_off_says_so(kind: Any) -> None:
    def reply(call: Call) -> Reply:
        if call.index == 0:
            return Reply("too long", "length")
        last = call.request.prefix.count("\n") == 1
        return Reply(f"{call.index} ok") if last else Reply(f"{call.index} go", "stop_string", "\n")

    both: Mapping[str, Model] = {
        "default": Scripted(reply=reply, identity="cut"),
        "reward": Scripted(score=lambda text: 0.99 if "long" in text else 0.5, identity="likes length"),
    }
    async with Session(models=both) as session:
        outcome = await session.solve(kind(n=4, m=2, max_tokens=7), PROBLEM)
        calls = session.caller("default").backend.calls  # type: ignore[attr-defined]
    assert {call.request.sampling.max_tokens for call in calls} == {7}
    assert {c.text.endswith("long"): c.finish for c in outcome.final} == {True: "length", False: "stop"}
    written = {c.text: c.usage.completion_tokens for c in outcome.final}
    assert all(tokens == len(text.split()) for text, tokens in written.items())
    assert outcome.by_model["default"].completion_tokens == 2 * len(calls)


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
@pytest.mark.parametrize("last", ["", "done"])
async def test_an_empty_text_or_the_end_of_sequence_ends_an_answer(kind: Any, last: str) -> None:
    def reply(call: Call) -> Reply:
        return Reply(last) if call.request.prefix else Reply("begun", "stop_string", "\n")

    both: Mapping[str, Model] = {
        "default": Scripted(reply=reply, identity=f"ends {last}"),
        "reward": Scripted(score=lambda text: 0.5, identity="same"),
    }
    outcome, backend = await solved(kind(n=2, m=1), both)
    assert [(c.text, c.finish) for c in outcome.final] == [(f"begun\n{last}", "stop")] * 2
    assert len(backend.calls) == 4


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_an_answer_with_all_the_steps_it_may_have_is_cut_off(kind: Any) -> None:
    outcome, backend = await solved(kind(n=4, m=2, max_steps=3), models(9))
    assert len(backend.calls) == 12
    assert {(c.finish, len(c.steps)) for c in outcome.final} == {("length", 3)}


@pytest.mark.parametrize("kind", [BeamSearch, DVTS])
async def test_where_every_call_fails_there_is_no_empty_answer(kind: Any) -> None:
    def reply(call: Call) -> Exception:
        return RequestRejected("no", model="m")

    both: Mapping[str, Model] = {
        "default": Scripted(reply=reply, identity="refuses"),
        "reward": Scripted(score=lambda text: 0.5, identity="same"),
    }
    with pytest.raises(AllCandidatesFailed):
        await solved(kind(n=2, m=1), both)


class Searching(StageCases):
    async def test_one_candidate_is_enough(self) -> None:
        """None is needed: it draws from the problem alone, and gives its n."""
        assert len((await self.run_stage(self.make_stage(), ())).final) == 4


class TestBeamSearch(Searching):
    def make_stage(self) -> Stage:
        return BeamSearch(
            n=4, m=2, lookahead=1, keep_duplicates=False, finished="leave", steps="blank_line", max_steps=5
        )

    def models(self) -> Mapping[str, Model]:
        return models(3)


class TestStepBestOfN(Searching):
    def make_stage(self) -> Stage:
        return BeamSearch(n=4, m="all", temperature=0.5)

    def models(self) -> Mapping[str, Model]:
        return models(3)
