"""A score that failed once is asked for again where a later round of a search needs it, and not for ever.

The reward model is given every beginning by itself, so that what it did not say of one was missing in all that grew
from it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import mock

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Candidate
from archon.errors import (
    BadScore,
    CallTimedOut,
    ConnectionDropped,
    ContextOverflow,
    NotRecorded,
    Overloaded,
    RateLimited,
    RequestRejected,
)
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.store import MemoryStore, Store
from archon.strategies.beam_search import BeamSearch
from archon.strategies.dvts import DVTS
from archon.strategies.mcts import MCTS
from archon.strategies.particle_filter import ParticleFilter
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import dumped
from archon.trace import MemoryTrace
from archon.verifiers.reward import Reward
from tests.strategies.chaining import Ran, models, ran
from tests.strategies.made import PROBLEM

LOST = "b\nx\n"
STEPS = ("x", "y", "z", "w", "v", "u")
PASSING = [
    CallTimedOut("no answer"),
    Overloaded("500"),
    ConnectionDropped("reset"),
    RateLimited("429"),
    math.nan,
    math.inf,
]
FOR_GOOD = [RequestRejected("400"), ContextOverflow("too long"), NotRecorded("no such score")]


def write(call: Call) -> Reply:
    """Answers that begin with a and b, as the sample's number says, and go on alike."""
    done = call.request.prefix.count("\n")
    if done == 0:
        return Reply("ab"[call.index % 2], "stop_string", "\n")
    if done == len(STEPS):
        return Reply(STEPS[-1])
    return Reply(STEPS[done - 1], "stop_string", "\n")


class Guide:
    """A reward model that prefers b from the second step on, and fails on some beginnings so many times."""

    def __init__(self, error: Exception | float, times: float = 1, lost: Sequence[str] = (LOST,)) -> None:
        self.error = error
        self.left = dict.fromkeys(lost, times)
        self.asked: list[str] = []

    def __call__(self, text: str) -> float:
        self.asked.append(text)
        if self.left.get(text, 0) > 0:
            self.left[text] -= 1
            if isinstance(self.error, Exception):
                raise self.error
            return self.error
        return 0.9 if text.startswith("b\n") and len(text) > 2 else 0.5

    def models(self, reply: Callable[[Call], Reply] = write, **rewards: Any) -> dict[str, Model]:
        return models(reply, rewards={"score": self, "scores": "prefix", "retries": 0, "max_n": 1, **rewards})


def judged(found: Ran) -> dict[str, float | None]:
    return {text[0]: value for text, value in zip(found.texts, found.values, strict=True)}


def kinds(found: Ran) -> list[type[Exception]]:
    return [type(failure.error) for failure in found.outcome.failures]


# --- failed once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", PASSING, ids=repr)
async def test_what_failed_once_is_judged_in_the_next_round_and_wins(error: Exception | float) -> None:
    guide = Guide(error)
    found = await ran(BeamSearch(n=2, m=1), guide.models())
    assert found.texts[0].startswith("b") and judged(found) == {"a": 0.5, "b": 0.9}
    assert guide.asked.count(LOST) == 2 and set(Counter(guide.asked).values()) == {1, 2}
    assert kinds(found) == [type(error) if isinstance(error, Exception) else BadScore]


@pytest.mark.parametrize(
    "search",
    [
        DVTS(n=2, m=1, answers="best"),
        MCTS(n=40, children=2),
        ParticleFilter(n=2, resample=0.001, last="weighted"),
    ],
    ids=lambda search: search.name,
)
async def test_so_it_is_in_every_search(search: Any) -> None:
    guide = Guide(CallTimedOut("no answer"))
    found = await ran(search, guide.models())
    whole = [value for text, value in zip(found.texts, found.values, strict=True) if text[0] == "b"]
    assert whole and set(whole) == {0.9}
    assert guide.asked.count(LOST) == 2


async def test_it_is_asked_again_by_itself_and_fails_nobody_else() -> None:
    """What a server cannot read would else be in every batch of two rounds more."""
    guide = Guide(Overloaded("500"), math.inf)
    found = await ran(BeamSearch(n=4, m=1), guide.models(max_n=9))
    batches = [
        ["".join(steps) for steps in request.replies] for request in _rewards(found).scored if request.replies
    ]
    first, *again = [batch for batch in batches if LOST in batch]
    assert len(first) == 2 and again == [[LOST]] * 2
    assert judged(found) == {"a": 0.5, "b": None}
    mates = next(text for text in first if text != LOST)
    assert [batch for batch in batches if mates in batch] == [first, [mates]], "and it is mended"


async def test_beginnings_of_one_round_that_need_the_same_ask_for_it_once() -> None:
    """One of them ends there, so that they are scored beside each other."""

    def ends(call: Call) -> Reply:
        if call.request.prefix == LOST and call.index % 2:
            return Reply("the end")
        return write(call)

    guide = Guide(CallTimedOut("no answer"), math.inf)
    trace = MemoryTrace()
    await ran(BeamSearch(n=4, m=1), guide.models(ends), trace=trace)
    assert _rounds(trace) == [2, 3, 4]


# --- failed for good, and for ever ------------------------------------------------------------------


@pytest.mark.parametrize("error", FOR_GOOD, ids=repr)
async def test_what_is_refused_is_asked_for_once(error: Exception) -> None:
    guide = Guide(error)
    found = await ran(BeamSearch(n=2, m=1), guide.models())
    assert guide.asked.count(LOST) == 1 and judged(found) == {"a": 0.5, "b": None}
    assert kinds(found) == [type(error)]


async def test_what_is_refused_when_it_is_asked_again_is_not_asked_for_a_third_time() -> None:
    guide = Guide(CallTimedOut("no answer"))

    def score(text: str) -> float:
        if text == LOST and not guide.left[LOST]:
            guide.asked.append(text)
            raise RequestRejected("400")
        return guide(text)

    found = await ran(BeamSearch(n=2, m=1), guide.models(score=score))
    assert guide.asked.count(LOST) == 2 and kinds(found) == [CallTimedOut, RequestRejected]


@pytest.mark.parametrize("error", [CallTimedOut("no answer"), math.nan], ids=repr)
async def test_what_fails_for_ever_is_asked_for_in_three_rounds_and_no_more(error: Exception | float) -> None:
    guide = Guide(error, math.inf)
    trace = MemoryTrace()
    found = await ran(BeamSearch(n=2, m=1), guide.models(), trace=trace)
    assert guide.asked.count(LOST) == 3 and len(guide.asked) == 2 * (1 + len(STEPS)) + 2
    assert judged(found) == {"a": 0.5, "b": None} and len(kinds(found)) == 3
    assert found.outcome.by_model["reward"].requests == len(guide.asked), "each is billed"
    if isinstance(error, Exception):
        assert _rounds(trace) == [2, 3, 4]


async def test_a_server_that_says_nothing_any_more_ends_the_search_after_three_rounds_as_before() -> None:
    deep = [f"{head}\n" + "".join(f"{s}\n" for s in STEPS[:n]) for head in "ab" for n in range(1, 6)]
    guide = Guide(Overloaded("503"), math.inf, deep)
    found = await ran(BeamSearch(n=2, m=1), guide.models())
    assert {text.count("\n") for text in found.texts} == {4}, "one step with a guide, and three without"
    assert Counter(Counter(guide.asked)[text] for text in deep) == {3: 2, 2: 2, 1: 2, 0: 4}


async def test_asking_again_is_within_the_budget() -> None:
    guide = Guide(CallTimedOut("no answer"), math.inf)
    whole = (await ran(BeamSearch(n=2, m=1), guide.models())).outcome.usage.requests
    for most in range(5, whole + 1):
        guide = Guide(CallTimedOut("no answer"), math.inf)
        budget = Budgets(problem=Budget(requests=most))
        outcome = (await ran(BeamSearch(n=2, m=1), guide.models(), budget=budget)).outcome
        assert outcome.usage.requests == most and (outcome.stopped == "budget") is (most < whole)


async def test_outside_a_search_a_problem_asks_once() -> None:
    """A verifier has nobody to wait for a later round."""
    guide = Guide(CallTimedOut("no answer"), math.inf, ["b\nw"])
    asking = Verifying(replies=("b\nw", "b\nv", "b\nw")), guide.models()["reward"]
    SAID.clear()
    async with Session(models={"reward": asking[1]}) as session:
        await session.solve(Pipeline([asking[0]]), PROBLEM)
    assert SAID == [None, 0.9, None]
    assert guide.asked.count("b\nw") == 1


# --- replayed, and resumed --------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("error", [CallTimedOut("no answer"), math.nan], ids=repr)
async def test_a_replay_has_a_late_score_when_the_run_had_it(error: Exception | float, times: int) -> None:
    """The store has it from the start: used at once, the search would go another way."""
    store = MemoryStore()
    guide = Guide(error, times)
    with states() as paid:
        first = await ran(BeamSearch(n=2, m=1), guide.models(), store=store, seed=3)
    assert judged(first)["b"] == (0.9 if times < 3 else None)
    for offline in (True, True, False) if times < 3 else (True, True):
        silent = Guide(AssertionError("nobody asks"), math.inf, guide.asked)
        with states() as replayed:
            again = await ran(BeamSearch(n=2, m=1), silent.models(), store=store, seed=3, offline=offline)
        assert replayed == paid and again.outcome.final == first.outcome.final
        assert again.outcome.usage == first.outcome.usage and not again.outcome.fresh.requests
        assert {*kinds(again)} == {NotRecorded}
        if times < 3:
            assert len(kinds(again)) == times


@pytest.mark.parametrize("offline", [True, False])
async def test_a_replay_ends_where_the_budget_ended_the_run(offline: bool) -> None:
    """What failed cost something then, and nothing in a replay; that buys nothing."""
    for most in range(5, 31):
        store, budget = MemoryStore(), Budgets(problem=Budget(requests=most))
        guide = Guide(CallTimedOut("no answer"), 2)
        with states() as paid:
            first = await ran(BeamSearch(n=2, m=1), guide.models(), store=store, budget=budget)
        asking: dict[str, Any] = {"store": store, "budget": budget, "offline": offline}
        with states() as replayed:
            again = await ran(BeamSearch(n=2, m=1), Guide(0.0, 0).models(), **asking)
        assert replayed == paid and again.outcome.final == first.outcome.final
        assert again.outcome.usage == first.outcome.usage and not again.outcome.fresh.requests


async def test_another_run_has_the_score_at_once() -> None:
    store = MemoryStore()
    guide = Guide(CallTimedOut("no answer"))
    with states() as late:
        await ran(BeamSearch(n=2, m=1), guide.models(), store=store, seed=3)
    with states() as other:
        again = await ran(BeamSearch(n=2, m=1, max_steps=39), guide.models(), store=store, seed=3)
    assert other != late and not again.outcome.failures and not again.outcome.fresh.requests


async def test_what_never_came_is_asked_for_again_when_the_run_is_run_again() -> None:
    store = MemoryStore()
    await ran(BeamSearch(n=2, m=1), Guide(CallTimedOut("no answer"), math.inf).models(), store=store)
    guide = Guide(CallTimedOut("no answer"), 0)
    again = await ran(BeamSearch(n=2, m=1), guide.models(), store=store)
    assert judged(again) == {"a": 0.5, "b": 0.9} and not again.outcome.failures
    assert guide.asked[0] == LOST


@pytest.mark.parametrize("calls", range(1, 14))
async def test_a_search_that_is_killed_and_run_again_comes_to_the_same_states(calls: int) -> None:
    """Killed where the writer is asked for the so-manieth time. What had failed when it was killed, and had not come
    yet, is asked for at once, as all calls that failed are; what came late comes in the round in which it came."""
    with states() as whole:
        undisturbed = await ran(BeamSearch(n=2, m=1), Guide(CallTimedOut("no answer")).models(), seed=3)

    store, guide = MemoryStore(), Guide(CallTimedOut("no answer"))
    left = calls

    async def killed() -> None:
        def dies(call: Call) -> Reply:
            nonlocal left
            left -= 1
            if left == 0:
                task.cancel()
            return write(call)

        await ran(BeamSearch(n=2, m=1), guide.models(dies), store=store, seed=3)

    task = asyncio.ensure_future(killed())
    with pytest.raises(asyncio.CancelledError):
        await task
    failed, came = guide.left[LOST] == 0, guide.asked.count(LOST) == 2
    before = Counter(guide.asked)
    with states() as resumed:
        found = await ran(BeamSearch(n=2, m=1), guide.models(), store=store, seed=3)
    if came or not failed:
        assert resumed == whole and len(kinds(found)) == 1
    else:
        assert len(resumed) == len(whole) and not found.outcome.failures
    assert found.texts == undisturbed.texts and judged(found) == {"a": 0.5, "b": 0.9}
    assert guide.asked.count(LOST) == 2, "it is not paid for once more"
    assert not (Counter(guide.asked) - before).keys() & (before.keys() - {LOST})

    silent = Guide(AssertionError("nobody asks"), math.inf, guide.asked)
    with states() as replayed:
        again = await ran(BeamSearch(n=2, m=1), silent.models(), store=store, seed=3, offline=True)
    assert replayed == resumed and again.outcome.final == found.outcome.final


# --- several that ask -------------------------------------------------------------------------------

TURNS: list[tuple[str, int]] = []
HEARD: dict[tuple[str, int], list[tuple[float, ...] | None]] = {}


class Asking(Stage):
    """Asks for the one score, whenever it is its turn; in round 0, outside rounds."""

    name: ClassVar[str] = "asking"
    takes: ClassVar[bool] = False

    who: str

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for turn in [turn for turn in TURNS if turn[0] == self.who]:
            while TURNS[0] != turn:
                await asyncio.sleep(0)
            told = await run.score("reward", [("b\n", "x\n")], finished=False, round=turn[1])
            HEARD.setdefault(turn, []).extend(told)
            TURNS.pop(0)
        yield Candidate(f"{run.stage}#0", self.who, run.stage)

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(0, 9), Count(1, 1))

    @property
    def models(self) -> tuple[str, ...]:
        return ("reward",)


async def heard(
    turns: Sequence[tuple[str, int]], guide: Guide, store: Store, **settings: Any
) -> dict[tuple[str, int], list[tuple[float, ...] | None]]:
    HEARD.clear()
    TURNS[:] = turns
    stages = [Asking(who=who) for who in ("one", "two", "before", "after")]
    async with Session(models={"reward": guide.models()["reward"]}, store=store, **settings) as session:
        await session.solve(stages[0] & stages[1] & stages[2] & stages[3], PROBLEM)
    return dict(HEARD)


async def test_each_stage_hears_in_a_replay_what_it_heard_whoever_comes_first() -> None:
    turns = [
        ("one", 1),  # asks in vain
        ("before", 0),  # hears that, and asks no more
        ("two", 1),  # the same
        ("one", 2),  # asks, in vain
        ("two", 2),  # asks, and is told
        ("two", 3),
        ("before", 0),
        ("after", 0),  # hears it at once
        ("one", 3),  # has it without asking
    ]
    guide, store = Guide(CallTimedOut("no answer"), 2), MemoryStore()
    said = [(0.5, 0.9)]
    first = await heard(turns, guide, store)
    assert first == {
        ("one", 1): [None],
        ("one", 2): [None],
        ("one", 3): said,
        ("two", 1): [None],
        ("two", 2): said,
        ("two", 3): said,
        ("before", 0): [None, None],
        ("after", 0): said,
    }
    assert guide.asked.count(LOST) == 3
    silent = Guide(AssertionError("nobody asks"), math.inf, guide.asked)
    early = [turns[i] for i in (0, 2, 4, 3, 5, 8, 1, 6, 7)]
    for order in (turns, sorted(turns), early):
        assert await heard(order, silent, store, offline=True) == first


class Twice(Stage):
    """Solves its problem, and one like it, by search, at once."""

    name: ClassVar[str] = "twice"
    takes: ClassVar[bool] = False

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        other = Problem.ask("another question", id="other")
        search = BeamSearch(n=2, m=1)
        solving = (run.solve(search, problem, "first"), run.solve(search, other, "second"))
        for found in await run.gather(*solving):
            for candidate in found:
                yield candidate

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(0, 99), Count(0, 4))

    @property
    def models(self) -> tuple[str, ...]:
        return ("default", "reward")


async def test_searches_within_a_stage_are_replayed_each_by_itself() -> None:
    lost, asked = (LOST, f"{LOST}y\nz\n"), Counter[str]()

    def score(text: str) -> float:
        asked[text] += 1
        if text in lost and asked[text] <= 2:  # once in each
            raise CallTimedOut("no answer")
        return 0.5

    store = MemoryStore()
    guide = Guide(0.0)
    with states() as paid:
        first = await ran(Twice(), guide.models(score=score), store=store)
    assert {asked[text] for text in lost} == {4} and set(first.values) == {0.5}
    with states() as replayed:
        again = await ran(Twice(), guide.models(score=score), store=store, offline=True)
    assert replayed == paid and again.outcome.final == first.outcome.final
    assert {asked[text] for text in lost} == {4}


# --- to look with -----------------------------------------------------------------------------------

SAID: list[float | None] = []


class Verifying(Stage):
    """Has replies verified one after the other, each by itself."""

    name: ClassVar[str] = "verifying"
    takes: ClassVar[bool] = False

    replies: tuple[str, ...]

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for number, reply in enumerate(self.replies):
            candidate = Candidate(f"{run.stage}#{number}", reply, run.stage, number)
            (verdict,) = await Reward().verify(problem, [candidate], run)
            SAID.append(verdict.score)
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(0, 9), Count(0, 9))

    @property
    def models(self) -> tuple[str, ...]:
        return ("reward",)


@contextmanager
def states() -> Iterator[list[bytes]]:
    """The state of every beam search after each of its rounds."""
    found: list[bytes] = []
    tell = BeamSearch.tell

    def told(self: BeamSearch, state: Any, grown: Sequence[Sequence[Partial]]) -> Any:
        after = tell(self, state, grown)
        found.append(dumped(after))
        return after

    with mock.patch.object(BeamSearch, "tell", told):
        yield found


def _rewards(found: Ran) -> ScriptedBackend:
    assert isinstance(found.reward, ScriptedBackend)
    return found.reward


def _rounds(trace: MemoryTrace) -> list[int]:
    """The rounds in which calls of the reward model failed."""
    number, rounds = 1, []
    for event in trace.events:
        if event["event"] == "attempt":
            rounds.append(number)
        number += event["event"] == "round"
    return rounds
