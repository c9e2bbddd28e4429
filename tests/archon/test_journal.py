"""Replays keep to the order of their run, and never wait for what does not come."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply
from archon.budget import Budget, Budgets
from archon.candidate import Outcome, Verdict
from archon.journal import Journal, Replay
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently
from tests.archon.test_invariants_replay import Good, Judge, after, model
from tests.archon.wild import timeless

PROBLEM = Problem.ask("a question", id="p")
STORE = "store.sqlite"


def journal() -> Replay:
    """Of two draws that delivered in turns, two samples each."""
    noted = Journal()
    draws = [noted.opened(stage, "a pool's key", 0, 2) for stage in ("one", "two")]
    for index in range(2):
        for draw in draws:
            noted.delivered(draw, index)
    return Replay(json.loads(json.dumps(noted.as_json())), ended=False)


async def take(replay: Replay, stage: str, seen: list[tuple[str, int]]) -> None:
    script = replay.script(stage, "a pool's key", 2)
    assert script is not None
    for place, index in script.turns:
        await replay.turn(stage, place)
        seen.append((stage, index))
        replay.over(place)


def test_candidates_keep_their_numbers_whichever_draw_begins_first() -> None:
    noted = Journal()
    for pool, born in (("first", 4), ("second", 0), ("first", 9)):
        noted.opened("stage", pool, 0, 3, born)
    replay = Replay(json.loads(json.dumps(noted.as_json())), ended=False)
    scripts = [replay.script("stage", pool, 3) for pool in ("second", "first", "first")]
    assert [script.born for script in scripts if script] == [0, 4, 9]
    assert (replay.born("stage"), replay.born("another")) == (12, 0), "what is new is numbered after them"
    old = Replay({"draws": [["stage", "pool", 0, 3]], "order": []}, ended=False)
    script = old.script("stage", "pool", 3)
    assert script is not None and script.born is None and old.born("stage") == 0


def test_draws_that_ask_the_same_get_their_own_samples_again_whichever_begins_first() -> None:
    noted = Journal()
    for start, apart in enumerate(("a", "b", "c")):
        noted.opened("stage", "pool", start, 1, 0, apart)
    replay = Replay(json.loads(json.dumps(noted.as_json())), ended=False)
    scripts = [replay.script("stage", "pool", 1, apart) for apart in ("c", "a", "unheard of")]
    assert [script.start for script in scripts if script] == [2, 0, 1], (
        "one that is unknown gets what is left"
    )
    assert replay.script("stage", "pool", 1, "b") is None


@pytest.mark.parametrize("first", ["one", "two"])
async def test_draws_take_turns_whoever_asks_first(first: str) -> None:
    replay, seen = journal(), list[tuple[str, int]]()
    replay.quiet = lambda waiting: False
    order = ["one", "two"] if first == "one" else ["two", "one"]
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for stage in order:
            group.create_task(take(replay, stage, seen))
    assert seen == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]


async def test_where_nobody_else_can_move_the_first_that_waits_goes_on() -> None:
    replay, seen = journal(), list[tuple[str, int]]()
    replay.quiet = lambda waiting: set(waiting) == {"two"}
    async with asyncio.timeout(300):
        await take(replay, "two", seen)  # `one` never comes
    assert seen == [("two", 0), ("two", 1)]


async def test_nobody_is_passed_over_while_others_may_still_move() -> None:
    replay, seen = journal(), list[tuple[str, int]]()
    still = False
    replay.quiet = lambda waiting: still
    waiting = asyncio.ensure_future(take(replay, "two", seen))
    await asyncio.sleep(0.01)
    assert seen == []
    still = True
    replay.look()
    async with asyncio.timeout(300):
        await waiting


async def test_what_the_record_does_not_have_comes_last_and_ends_its_order() -> None:
    replay, seen = journal(), list[tuple[str, int]]()
    replay.quiet = lambda waiting: set(waiting) <= {"two", "new"} and "new" in waiting
    assert replay.script("new", "a pool's key", 2) is None
    assert replay.script("one", "another pool", 2) is None
    assert replay.script("one", "a pool's key", 3) is None
    assert replay.drawn("a pool's key") == 2 and replay.drawn("another pool") == 0
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        new = group.create_task(replay.end("new"))
        new.add_done_callback(lambda _: seen.append(("new", 0)))
        group.create_task(take(replay, "two", seen))
    assert seen == [("two", 0), ("two", 1), ("new", 0)]


async def test_who_leaves_gives_his_turns_up() -> None:
    replay, seen = journal(), list[tuple[str, int]]()
    replay.quiet = lambda waiting: False
    script = replay.script("one", "a pool's key", 2)
    assert script is not None
    replay.over(*(place for place, _ in script.turns))
    async with asyncio.timeout(300):
        await take(replay, "two", seen)


# --- whole runs -------------------------------------------------------------------------------------


def again(models: Any, *pipelines: Pipeline | Stage, **settings: Any) -> list[tuple[Outcome, int]]:
    """Runs one after the other on one store: outcomes, and how many calls each made."""

    async def work(pipeline: Pipeline | Stage) -> tuple[Outcome, int]:
        store = InstantStore(STORE)
        async with Session(models=models, store=store, **settings) as session:
            outcome = await session.solve(pipeline, PROBLEM)
            backends: list[Any] = [c.backend for c in session._callers.values()]
        await store.close()
        return outcome, sum(len(b.calls) for b in backends)

    return [patiently(work(pipeline)) for pipeline in pipelines]


class Moody(Verifier):
    """Accepts what it likes today: code that is changed between two runs, with the same configuration."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        return [Verdict(self.name, LIKED in c.text, status="passed") for c in candidates]


LIKED = "0"


def test_a_verifier_whose_code_has_changed_gets_the_samples_it_now_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = model(lambda call: Reply(str(call.index), latency=1.0 + call.index))
    pipeline = Sample(n=4) | Verify(verifier=Moody()) | FirstPassing()
    ((first, calls),) = again(answers, pipeline)
    assert (first.answer, first.stopped) == ("0", "early")
    monkeypatch.setattr("tests.archon.test_journal.LIKED", "3")
    ((changed, more),) = again(answers, pipeline)
    assert changed.answer == "3" and more == 3
    assert calls == 4, "all were asked at once, three of them cut off"


def test_a_judge_that_is_asked_about_others_than_before_is_asked_anew() -> None:
    models = {
        "default": model(lambda call: Reply(f"{call.index}", latency=1.0 + call.index)),
        "judge": model(lambda call: "yes", "judge"),
    }
    one = Sample(n=3) | Verify(verifier=Judge())
    other = Sample(n=3) | Verify(verifier=Judge(asks="short"))
    (first, calls), (second, more), (third, none) = again(models, one, other, one)
    assert (calls, more, none) == (6, 3, 0)
    assert [c.accepted for c in first.candidates] == [c.accepted for c in third.candidates] == [True] * 3
    assert second.fresh.requests == 3


class Half(Stage):
    """Passes every other candidate on."""

    async def run(self, problem: Problem, candidates: Stream, run: Any) -> Candidates:
        number = 0
        async for candidate in candidates:
            number += 1
            if number % 2:
                yield candidate


def test_branches_that_drop_candidates_and_meet_again_replay_without_a_call() -> None:
    models = {**after(a=1.0, b=1.5), "judge": model(lambda call: Reply("yes", latency=0.3), "judge")}
    both = Sample(model="a", n=90) & Sample(model="b", n=90)
    pipeline = both | (Half() & Verify(verifier=Judge(), ahead=3)) | Verify(verifier=Good()) | FirstPassing()
    (first, _), (second, none) = again(models, pipeline, pipeline)
    assert none == 0
    assert first.answer is not None and second.chosen == first.chosen
    assert timeless(second.usage) == timeless(first.usage)


def test_a_deadline_ends_a_replay_that_waits_for_turns() -> None:
    budget = Budgets(problem=Budget(seconds=3.0))
    pipeline = Sample(model="a", n=3) & Sample(model="b", n=3)
    (first, _), (second, none) = again(after(a=1.0, b=1.5), pipeline, pipeline, budget=budget)
    assert none == 0 and len(second.candidates) == len(first.candidates) == 6


# --- what was recorded without a price --------------------------------------------------------------


def test_samples_recorded_without_a_price_cost_what_the_price_says_once_it_is_known() -> None:
    def answers(call: Call) -> Reply:
        return Reply("x", tokens=Tokens(10, completion=5))

    ((first, _),) = again(model(answers), Sample(n=3))
    assert first.usage.unpriced == 3 and not first.usage.usd
    price = Price(input="1", output="2")
    ((second, none),) = again(model(answers, price=price), Sample(n=3))
    assert none == 0 and second.usage.unpriced == 0
    assert second.usage.usd == 3 * price.cost(10, 0, 5)


def test_a_problem_with_sets_in_its_tests_is_the_same_one_in_another_process() -> None:
    script = (
        "from archon.problem import Case, Problem\nfrom archon.session import Session\n"
        "from archon.strategies.sample import Sample\nfrom archon.pipeline import Pipeline\n"
        "from archon.backends.scripted import Scripted\n"
        "words = {'alpha', 'beta', 'gamma', 'delta', 'epsilon'}\n"
        "problem = Problem.ask('q', tests=(Case(args=(words,), expected=frozenset(words)),))\n"
        "session = Session(models=Scripted(reply=lambda call: 'x', identity='m'))\n"
        "print(session._settlement_key(Pipeline([Sample()]).graph(), problem))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
