"""Scoring replies: batched, remembered, billed, and the same again in a replay."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from archon.backends.base import Progress, Scored, ScoreRequest, Tokens
from archon.backends.scripted import Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.errors import (
    BadReply,
    BadScore,
    CallTimedOut,
    CapabilityError,
    ConnectionDropped,
    ContextOverflow,
    NotRecorded,
    UnpricedModel,
)
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.store import MemoryStore
from archon.trace import MemoryTrace
from tests.archon.instant import InstantStore, patiently

PROBLEM = Problem.ask("one two three", id="p")
Replies = tuple[tuple[str, ...], ...]


class Ask(Stage):
    """A stage that has replies scored and keeps what it is told in `TOLD`."""

    takes: ClassVar[bool] = False

    replies: Replies = ()
    rounds: int = 1
    finished: bool = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for _ in range(self.rounds):
            TOLD.append(await run.score("prm", self.replies, finished=self.finished))
        yield Candidate(f"{run.stage}#0", "told", run.stage)

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(len(self.replies), len(self.replies)), Count(0, 0))

    @property
    def models(self) -> tuple[str, ...]:
        return ("prm",)


TOLD: list[list[tuple[float, ...] | None]] = []


def length(text: str) -> float:
    return len(text) / 100


def scripted(**settings: Any) -> Scripted:
    return Scripted(**{"score": length, "identity": "length", **settings})


async def ask(
    *replies: Sequence[str], model: Any = None, problem: Problem = PROBLEM, **settings: Any
) -> tuple[list[tuple[float, ...] | None], Outcome]:
    stage = {name: settings.pop(name) for name in ("rounds", "finished") if name in settings}
    budget = Budgets(problem=Budget(**settings.pop("limits", {})))
    TOLD.clear()
    async with Session(models={"prm": model or scripted()}, budget=budget, **settings) as session:
        pipeline = Pipeline([Ask(replies=tuple(map(tuple, replies)), **stage)])
        outcome = await session.solve(pipeline, problem)
    return TOLD[-1], outcome


async def test_every_step_gets_the_score_of_the_reply_up_to_its_end() -> None:
    told, outcome = await ask(("a\n", "bc\n", "d"), ("e",))
    assert told == [(0.02, 0.05, 0.06), (0.01,)]
    assert outcome.by_model["prm"].requests == 2
    assert outcome.by_stage["ask"].prompt_tokens == 2 * 3 + 3 + 1, "the question twice, and the replies"


async def test_replies_go_out_in_batches_as_large_as_the_backend_takes() -> None:
    backend = ScriptedBackend(scripted(max_n=4))
    told, outcome = await ask(*(("x" * n,) for n in range(1, 11)), model=backend)
    assert told == [(n / 100,) for n in range(1, 11)]
    assert [len(r.replies) for r in backend.scored] == [4, 4, 2]
    assert outcome.usage.requests == 3


async def test_a_backend_that_scores_prefixes_is_given_each_once() -> None:
    backend = ScriptedBackend(scripted(scores="prefix"))
    told, _ = await ask(("a\n", "b\n", "c"), ("a\n", "b\n", "dd"), model=backend)
    assert told == [(0.02, 0.04, 0.05), (0.02, 0.04, 0.06)]
    asked = [(request.replies[0], request.finished) for request in backend.scored]
    beginnings = [(("a\n",), False), (("a\n", "b\n"), False)]
    assert sorted(asked) == sorted([*beginnings, (("a\n", "b\n", "c"), True), (("a\n", "b\n", "dd"), True)])


async def test_an_outcome_model_scores_the_whole_and_no_beginning() -> None:
    told, _ = await ask(("a\n", "b"), model=scripted(scores="outcome"))
    assert told == [(0.03,)]
    with pytest.raises(CapabilityError, match="beginning"):
        await ask(("a\n",), model=scripted(scores="outcome"), finished=False)


async def test_a_model_that_only_writes_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(CapabilityError, match=r"'prm' .* cannot score replies"):
        await ask(("a",), model=Scripted(replies={"*": ("a",)}))


async def test_equal_replies_and_empty_ones_are_scored_once() -> None:
    backend = ScriptedBackend(scripted(max_n=8))
    told, _ = await ask(("a",), (), ("a",), ("",), model=backend)
    assert told == [(0.01,), (0.0,), (0.01,), (0.0,)]
    assert [request.replies for request in backend.scored] == [(("a",), ("",))]


async def test_nothing_is_asked_for_no_replies() -> None:
    told, outcome = await ask()
    assert told == [] and outcome.usage.requests == 0


# --- remembering -----------------------------------------------------------------------------------


async def test_a_problem_pays_once_however_often_it_asks() -> None:
    backend = ScriptedBackend(scripted())
    _, outcome = await ask(("a",), ("b",), rounds=3, model=backend)
    assert len(backend.scored) == 2 and outcome.usage.requests == 2
    assert TOLD == [[(0.01,), (0.01,)]] * 3


async def test_a_replay_makes_no_call_and_has_the_recorded_cost() -> None:
    model = scripted(price=Price(input=1, output=2), parameters=10)
    first, paid = await ask(("a\n", "b"), ("c",), model=model, store="s.sqlite")
    again, replayed = await ask(("a\n", "b"), ("c",), model=model, store="s.sqlite", offline=True)
    assert again == first
    assert paid.fresh == paid.usage == replayed.usage and paid.usage.usd > 0 and paid.usage.flops > 0
    assert replayed.fresh.requests == 0


@pytest.mark.parametrize("finished", [True, False])
async def test_what_is_stored_is_found_by_the_hash_of_all_that_affects_it(finished: bool) -> None:
    replies = ("a\n", '\u00e9 "\ud800'), ("a\n",), ("",), ("a\n", '\u00e9 "\ud800', "\0c")
    store = MemoryStore()
    await ask(*replies, store=store, finished=finished)
    await ask(*reversed(replies), store=store, finished=finished)
    for reply in replies:
        content = {"messages": [["user", PROBLEM.question]], "steps": reply, "finished": finished}
        parts = ({"backend": "scripted", "model": "length"}, "steps", "probability", content)
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        (found,) = (await store.recall("score", [key])).values()
        assert json.loads(found)["steps"] == [length("".join(reply[:n])) for n in range(1, len(reply) + 1)]


async def test_another_run_that_asks_for_more_pays_for_what_is_new() -> None:
    await ask(("a",), store="s.sqlite")
    _, more = await ask(("a",), ("b",), store="s.sqlite")
    assert (more.usage.requests, more.fresh.requests) == (2, 1)


@pytest.mark.parametrize("other", [{"identity": "longer"}, {"score_scale": "logit"}])
async def test_another_model_or_another_scale_is_not_the_same_score(other: dict[str, Any]) -> None:
    await ask(("a",), store="s.sqlite")
    _, again = await ask(("a",), store="s.sqlite", model=scripted(**other))
    assert again.fresh.requests == 1


async def test_a_beginning_and_a_whole_reply_are_not_the_same() -> None:
    await ask(("a",), store="s.sqlite")
    _, again = await ask(("a",), store="s.sqlite", finished=False)
    assert again.fresh.requests == 1


async def test_problems_that_ask_the_same_at_once_pay_once() -> None:
    backend = ScriptedBackend(scripted(latency=0.05))
    pipeline = Pipeline([Ask(replies=(("a",), ("b",)))])
    async with Session(models={"prm": backend}) as session:
        problems = [PROBLEM.model_copy(update={"id": str(number)}) for number in range(5)]
        outcomes = await asyncio.gather(*(session.solve(pipeline, problem) for problem in problems))
    assert len(backend.scored) == 2
    assert sum(outcome.fresh.requests for outcome in outcomes) == 2
    assert [outcome.usage.requests for outcome in outcomes] == [2] * 5


# --- failing, and running out ----------------------------------------------------------------------


def failing(times: int, error: Exception) -> Any:
    left = [error] * times

    def score(text: str) -> float:
        if left:
            raise left.pop()
        return length(text)

    return score


async def test_retries_are_counted_and_their_cost_is_remembered() -> None:
    model = scripted(score=failing(2, ConnectionDropped("reset")))
    model = model.model_copy(update={"retries": 2})
    trace = MemoryTrace()
    told, outcome = await ask(("a",), model=model, store="s.sqlite", trace=trace)
    assert told == [(0.01,)]
    assert outcome.usage.requests == 3
    kinds = [event["event"] for event in trace.events if event["event"] in ("attempt", "scored")]
    assert kinds == ["attempt", "attempt", "scored"]
    _, more = await ask(("a",), ("b",), store="s.sqlite")
    assert (more.usage.requests, more.fresh.requests) == (4, 1)


async def test_a_refused_reply_fails_alone_and_the_outcome_says_why() -> None:
    def score(text: str) -> float:
        if text == "long":
            raise ContextOverflow("too long", status=400)
        return length(text)

    told, outcome = await ask(("a",), ("long",), ("bb",), model=scripted(score=score, max_n=8))
    assert told == [(0.01,), None, (0.02,)]
    assert [(f.stage, f.index, type(f.error)) for f in outcome.failures] == [("ask", 1, ContextOverflow)]


async def test_offline_what_is_not_stored_fails() -> None:
    told, outcome = await ask(("a",), offline=True)
    assert told == [None]
    assert [type(f.error) for f in outcome.failures] == [NotRecorded]


class Told(ScriptedBackend):
    """Says what a test wants, whatever it is asked."""

    def __init__(self, *found: Scored) -> None:
        super().__init__(scripted(retries=0, max_n=2))
        self.found = list(found)

    async def score(self, request: ScoreRequest, progress: Progress) -> list[Scored]:
        progress.sent = True
        return self.found


@pytest.mark.parametrize(
    "found",
    [(), (Scored((0.5,)),), (Scored((0.5, 0.5, 0.5)),), (Scored((0.5, 0.5)), Scored((0.5, 0.5)))],
)
async def test_another_number_of_scores_than_asked_for_is_no_reply(found: tuple[Scored, ...]) -> None:
    with pytest.raises(BadReply, match="another number of scores"):
        await ask(("a\n", "b"), model=Told(*found))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
async def test_a_score_is_a_finite_number_and_one_that_is_none_fails_by_itself(score: float) -> None:
    found = Told(Scored((0.5, score)), Scored((0.5, 0.25)))
    told, outcome = await ask(("a\n", "b"), ("a\n", "c"), model=found, store="s.sqlite")
    assert told == [None, (0.5, 0.25)]
    (failure,) = outcome.failures
    assert (failure.index, type(failure.error)) == (0, BadScore) and f"is {score}" in str(failure.error)
    assert outcome.usage.requests == 2, "both were scored, and are paid for"

    again, replayed = await ask(("a\n", "c"), model=Told(), store="s.sqlite", offline=True)
    assert again == [(0.5, 0.25)] and not replayed.failures, "what is a number is remembered"
    lost, _ = await ask(("a\n", "b"), model=Told(), store="s.sqlite", offline=True)
    assert lost == [None], "and what is none is not"


@pytest.mark.parametrize("well", [0, 19])
async def test_a_model_whose_every_score_is_no_number_ends_the_run(well: int) -> None:
    """The first score may be one: what counts is that twenty in a row are none, and that what they cost is entered."""

    def score(text: str) -> float:
        return 0.5 if len(text) == well else float("nan")

    replies = tuple(("x" * n,) for n in range(1, 20 + (well > 0)))
    told, outcome = await ask(*replies, model=scripted(score=score, concurrency=1, max_concurrency=1))
    assert [one for one in told if one] == [(0.5,)] * (well > 0) and len(outcome.failures) == 19
    with pytest.raises(BadReply, match="none of its last 20 scores is a finite number"):
        await ask(*replies, ("y" * 99,), model=scripted(score=lambda text: float("nan")))


async def test_a_call_that_takes_too_long_is_given_up_and_billed() -> None:
    model = scripted(latency=30, timeout=0.05, retries=0, reports_partial=False)
    with pytest.raises(Exception, match="does not answer") as caught:
        await ask(("a",), model=model)
    assert isinstance(caught.value.__cause__, CallTimedOut)


async def test_where_the_budget_ends_the_rest_has_no_score() -> None:
    told, outcome = await ask(*((letter,) for letter in "abcdef"), limits={"requests": 4})
    assert [scores is None for scores in told].count(True) == 2
    assert outcome.usage.requests == 4
    assert (outcome.stopped, outcome.exhausted) == ("budget", "problem.requests")


async def test_a_budget_that_ran_out_is_not_stretched_by_a_replay() -> None:
    replies = tuple((letter,) for letter in "abcdef")
    first, paid = await ask(*replies, limits={"requests": 4}, store="s.sqlite")
    again, replayed = await ask(*replies, limits={"requests": 4}, store="s.sqlite")
    assert again == first
    assert replayed.fresh.requests == 0 and replayed.usage == paid.usage


async def test_its_worst_case_is_held_before_it_is_asked() -> None:
    told, outcome = await ask(("word " * 100,), limits={"tokens": 50})
    assert told == [None] and outcome.usage.requests == 0


async def test_a_budget_in_dollars_needs_a_price() -> None:
    with pytest.raises(UnpricedModel):
        await ask(("a",), limits={"usd": 1})


def test_the_deadline_ends_what_is_in_flight_and_bills_it() -> None:
    asking = ask(("a",), model=scripted(latency=60), limits={"seconds": 0.2}, store=InstantStore())
    told, outcome = patiently(asking)
    assert told == [None]
    assert outcome.stopped == "deadline"
    assert outcome.usage.requests == 1


async def test_what_was_scored_survives_a_run_that_is_cancelled(tmp_path: Path) -> None:
    def score(text: str) -> float:
        return length(text)

    class Slow(ScriptedBackend):
        async def score(self, request: ScoreRequest, progress: Progress) -> list[Scored]:
            if request.replies == (("b",),):
                asyncio.get_running_loop().call_later(0.2, task.cancel)
                await asyncio.sleep(60)
            return await super().score(request, progress)

    config = scripted(score=score)
    task = asyncio.ensure_future(ask(("a",), ("b",), model=Slow(config), store="s.sqlite"))
    with pytest.raises(asyncio.CancelledError):
        await task
    told, outcome = await ask(("a",), ("b",), model=config, store="s.sqlite")
    assert told == [(0.01,), (0.01,)]
    assert outcome.fresh.requests == 1


def test_the_bound_of_a_request_covers_every_reply_with_its_chat() -> None:
    request = ScoreRequest(PROBLEM.messages, (("ab", "c"), ("d",)))
    assert request.prompt_bound >= 2 * len("one two three") + 4
    assert Tokens().prompt == 0
