"""Draws: the stored samples first, the missing ones paid for once, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from archon.backends.base import Model, Tokens
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Outcome
from archon.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    NotRecorded,
    Overloaded,
    RequestRejected,
)
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.sample import Sample
from archon.usage import NOTHING, total

PROBLEM = Problem.ask("a question", id="p")
STORE = "store.sqlite"


class Arrivals(Stage):
    """Passes candidates on as they come; `ranks` keeps that order in the outcome."""

    ranks: ClassVar[bool] = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            yield candidate


def echo(call: Call) -> Any:
    return f"{call.text} {call.index}"


def scripted(reply: Any = echo, **settings: Any) -> Scripted:
    return Scripted(reply=reply, identity="one script", **settings)


def asked(session: Session, model: str = "default") -> list[tuple[int, int]]:
    """What the backend was asked for: (index, attempt)."""
    backend: Any = session.caller(model).backend
    assert isinstance(backend, ScriptedBackend)
    return [(call.index, call.attempt) for call in backend.calls]


async def solve(
    pipeline: Stage | Pipeline, model: Scripted | None = None, problem: Problem = PROBLEM, **settings: Any
) -> tuple[Outcome, list[tuple[int, int]]]:
    models: Mapping[str, Model] = {"default": model or scripted()}
    async with Session(models=models, **{"store": STORE, **settings}) as session:
        outcome = await session.solve(pipeline, problem)
        return outcome, asked(session)


async def test_asking_for_more_pays_only_for_what_is_missing() -> None:
    _, first = await solve(Sample(n=3))
    assert sorted(first) == [(0, 0), (1, 0), (2, 0)]
    outcome, more = await solve(Sample(n=5))
    assert sorted(more) == [(3, 0), (4, 0)]
    assert [c.text for c in outcome.candidates] == [f"a question {i}" for i in range(5)]
    assert (outcome.usage.requests, outcome.fresh.requests) == (5, 2)


async def test_asking_for_fewer_uses_the_first() -> None:
    await solve(Sample(n=4))
    outcome, again = await solve(Sample(n=2))
    assert again == []
    assert [c.index for c in outcome.candidates] == [0, 1]


async def test_a_replay_costs_what_it_once_cost_and_nothing_now() -> None:
    first, _ = await solve(Sample(n=4))
    again, calls = await solve(Sample(n=4))
    assert calls == []
    assert again.usage == first.usage and again.by_stage == first.by_stage
    assert again.fresh == NOTHING
    assert again.candidates == first.candidates


async def test_stored_samples_come_in_the_order_they_once_arrived() -> None:
    model = scripted(lambda call: Reply("x", latency=(0.06, 0.03, 0)[call.index]))
    first, _ = await solve(Sample(n=3) | Arrivals(), model)
    again, calls = await solve(Sample(n=3) | Arrivals(), model)
    assert [c.index for c in first.final] == [c.index for c in again.final] == [2, 1, 0]
    assert calls == []


async def test_a_retried_sample_keeps_the_cost_of_its_failed_attempts() -> None:
    model = scripted(lambda call: Overloaded("busy", retry_after=0) if call.attempt < 2 else "fine")
    first, _ = await solve(Sample(n=1), model)
    assert first.usage.requests == 3
    again, _ = await solve(Sample(n=1), model, budget=Budgets())
    assert (again.usage, again.fresh) == (first.usage, NOTHING)


@pytest.mark.parametrize(
    "other",
    [
        Sample(n=2, temperature=0.5),
        Sample(n=2, max_tokens=7),
        Sample(n=2, stop=("x",)),
        Sample(n=2, seed=1),
        Sample(n=2, system="Be brief."),
        Sample(n=2, extra={"min_tokens": 3}),
    ],
)
async def test_whatever_changes_the_output_is_another_pool(other: Sample) -> None:
    await solve(Sample(n=2))
    _, calls = await solve(other)
    assert sorted(calls) == [(0, 0), (1, 0)]


async def test_how_samples_are_asked_for_is_not_another_pool() -> None:
    await solve(Sample(n=2))
    _, calls = await solve(Sample(n=2, per_request=2), scripted(max_n=4, timeout=9, retries=7))
    assert calls == []


async def test_another_model_is_another_pool() -> None:
    await solve(Sample(n=2))
    _, calls = await solve(Sample(n=2), Scripted(reply=echo, identity="another"))
    assert len(calls) == 2


async def test_the_same_question_of_two_problems_is_one_pool() -> None:
    await solve(Sample(n=3))
    outcome, calls = await solve(Sample(n=3), problem=Problem.ask("a question", id="the same again"))
    assert calls == []
    assert outcome.problem == "the same again"


async def test_two_stages_of_one_problem_never_share_a_sample() -> None:
    outcome, calls = await solve(Sample(n=3) & Sample(n=2))
    assert sorted(calls) == [(i, 0) for i in range(5)]
    assert [(c.id, c.text) for c in outcome.candidates] == [
        ("sample#0", "a question 0"),
        ("sample#1", "a question 1"),
        ("sample#2", "a question 2"),
        ("sample-2#0", "a question 3"),
        ("sample-2#1", "a question 4"),
    ]


async def test_two_runs_at_once_never_pay_twice_for_the_same_sample() -> None:
    model = scripted(lambda call: Reply(echo(call), latency=0.02), concurrency=3)
    (one, by_one), (other, by_other) = await asyncio.gather(
        solve(Sample(n=12), model), solve(Sample(n=12), model)
    )
    assert sorted(by_one + by_other) == [(i, 0) for i in range(12)]
    assert [c.text for c in one.candidates] == [c.text for c in other.candidates]
    assert one.fresh.requests + other.fresh.requests == 12
    assert one.usage.requests == other.usage.requests == 12


async def test_problems_of_one_session_that_ask_the_same_pay_once() -> None:
    problems = [Problem.ask("a question", id=f"p{i}") for i in range(8)]
    model = scripted(lambda call: Reply("x", latency=0.01))
    async with Session(models=model) as session:
        outcomes = await asyncio.gather(*(session.solve(Sample(n=3), p) for p in problems))
        assert sorted(asked(session)) == [(0, 0), (1, 0), (2, 0)]
        assert all(len(o.candidates) == 3 for o in outcomes)
        assert total(o.fresh for o in outcomes) == session.ledger.fresh


async def test_what_a_cancelled_run_had_claimed_another_may_sample_at_once() -> None:
    hanging = scripted(lambda call: Reply("x", latency=600 if call.index else 0))
    async with Session(models=hanging, store=STORE) as first:
        solving = asyncio.ensure_future(first.solve(Sample(n=4), PROBLEM))
        while len(asked(first)) < 4:
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(solve(Sample(n=4)))
        await asyncio.sleep(0.05)
        assert not second.done(), "what others are sampling is awaited"
        solving.cancel()
        await asyncio.wait([solving])
        async with asyncio.timeout(300):
            outcome, calls = await second
        assert sorted(calls) == [(1, 0), (2, 0), (3, 0)]
        assert len(outcome.candidates) == 4
        assert first.ledger.total.requests == 4, "cancelled ones are billed where they were sent"


async def test_what_fails_is_said_and_only_that_is_asked_again() -> None:
    model = scripted(lambda call: RequestRejected("no") if call.index == 1 else "x")
    outcome, _ = await solve(Sample(n=3), model)
    assert [c.index for c in outcome.candidates] == [0, 2]
    assert [(f.stage, f.index, str(f.error)) for f in outcome.failures] == [("sample", 1, "no")]
    assert outcome.usage.requests == 3
    again, calls = await solve(Sample(n=3))
    assert calls == [(1, 0)]
    assert len(again.candidates) == 3 and not again.failures


async def test_a_fatal_error_ends_the_run_after_few_calls() -> None:
    def refuse(call: Call) -> Any:
        raise AuthenticationFailed("401")

    async with Session(models=scripted(refuse, concurrency=2)) as session:
        with pytest.raises(AuthenticationFailed):
            await session.solve(Sample(n=100), PROBLEM)
        assert len(asked(session)) <= 4
        assert session.ledger.total.requests == len(asked(session))


async def test_offline_uses_what_is_stored_and_counts_the_rest_as_failed() -> None:
    await solve(Sample(n=2))
    outcome, calls = await solve(Sample(n=4), offline=True)
    assert calls == []
    assert [c.index for c in outcome.candidates] == [0, 1]
    assert [(f.index, type(f.error)) for f in outcome.failures] == [(2, NotRecorded), (3, NotRecorded)]


async def test_offline_with_nothing_stored_is_an_error_that_says_so() -> None:
    with pytest.raises(AllCandidatesFailed, match="the session is offline"):
        await solve(Sample(n=2), offline=True)


@pytest.mark.parametrize(
    ("budget", "exhausted"),
    [
        (Budgets(problem=Budget(requests=3)), "problem.requests"),
        (Budgets(run=Budget(requests=3)), "run.requests"),
    ],
)
async def test_where_the_budget_ends_the_draw_ends_without_an_error(budget: Budgets, exhausted: str) -> None:
    outcome, calls = await solve(Sample(n=10), budget=budget)
    assert sorted(calls) == [(0, 0), (1, 0), (2, 0)]
    assert (len(outcome.candidates), outcome.stopped, outcome.exhausted) == (3, "budget", exhausted)
    assert not outcome.failures


async def test_a_budget_admits_the_same_samples_from_the_store_as_it_paid_for() -> None:
    budget = Budgets(problem=Budget(requests=3))
    await solve(Sample(n=10))
    outcome, calls = await solve(Sample(n=10), budget=budget)
    assert calls == []
    assert (len(outcome.candidates), outcome.stopped) == (3, "budget")


async def test_a_budget_of_what_is_fresh_lets_everything_stored_in() -> None:
    await solve(Sample(n=4))
    budget = Budgets(problem=Budget(requests=2, counts="fresh"))
    outcome, calls = await solve(Sample(n=10), budget=budget)
    assert sorted(calls) == [(4, 0), (5, 0)]
    assert (len(outcome.candidates), outcome.stopped) == (6, "budget")


async def test_many_samples_share_a_request_where_the_server_takes_it() -> None:
    outcome, _ = await solve(Sample(n=10), scripted(max_n=4))
    assert outcome.usage.requests == 3
    assert len({c.text for c in outcome.candidates}) == 10


async def test_no_sample_asks_nothing() -> None:
    outcome, calls = await solve(Sample(n=0))
    assert (calls, outcome.candidates, outcome.chosen, outcome.usage) == ([], (), None, NOTHING)


async def test_half_a_character_is_stored_as_a_mark_and_replayed_alike() -> None:
    model = scripted(lambda call: "tail \ud83d")
    first, _ = await solve(Sample(n=1), model)
    again, _ = await solve(Sample(n=1), model)
    assert first.answer == again.answer and first.answer is not None
    first.answer.encode()
    assert first.answer.startswith("tail ") and "\ufffd" in first.answer


# --- budgets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "drawn", "requests"), [(9000, 8, 1), (6000, 8, 2), (900, 0, 0)])
async def test_a_request_is_for_as_many_samples_as_a_budget_can_hold(
    tokens: int, drawn: int, requests: int
) -> None:
    """Each may need 1000 tokens, and needs 30: those that do not fit together are not given up for that."""
    model = scripted(lambda call: Reply("x", tokens=Tokens(10, completion=20)), max_n=8)
    budget = Budgets(problem=Budget(tokens=tokens))
    outcome, _ = await solve(Sample(n=8, max_tokens=1000), model, budget=budget)
    assert (len(outcome.candidates), outcome.usage.requests) == (drawn, requests)
    assert outcome.usage.tokens <= tokens
    assert outcome.stopped == ("complete" if drawn == 8 else "budget")


async def test_a_budget_is_used_up_to_where_one_more_sample_might_exceed_it() -> None:
    model = scripted(lambda call: Reply("x", tokens=Tokens(10, completion=400)), max_n=8)
    budget = Budgets(problem=Budget(tokens=2500))
    outcome, _ = await solve(Sample(n=8, max_tokens=1000), model, budget=budget)
    assert outcome.stopped == "budget"
    assert 1400 < outcome.usage.tokens <= 2500, "the next one could have needed 1000 and its prompt"
    assert len(outcome.candidates) == outcome.usage.completion_tokens // 400
