"""Invariant 1 where it is hardest: what a replay must say when order, budgets and neighbours mattered.

On the virtual clock, so every order of arrival is chosen and not chanced upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from archon.backends.base import Sampling, Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Outcome, Verdict
from archon.errors import Overloaded, RequestRejected
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.store import Recorded
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.usage import NOTHING
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently

PROBLEM = Problem.ask("a question", id="p")
STORE = "store.sqlite"


class Good(Verifier):
    """Accepts what says so, after a pause."""

    pause: float = 0.0

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(self.pause)
        return [Verdict(self.name, "good" in c.text, 1.0, status="passed") for c in candidates]


class Judge(Verifier):
    """Asks a model about the text alone."""

    asks: str = "right"

    @property
    def models(self) -> tuple[str, ...]:
        return ("judge",)

    @property
    def calls_per_candidate(self) -> int:
        return 1

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        said = [
            [x.text async for x in run.sample("judge", prompt=f"Is {c.text} {self.asks}?")]
            for c in candidates
        ]
        return [Verdict(self.name, texts == ["yes"], status="passed") for texts in said]


def model(reply: Callable[[Call], Any], identity: str = "m", **settings: Any) -> Scripted:
    return Scripted(reply=reply, identity=identity, **settings)


def after(**latencies: float) -> Mapping[str, Scripted]:
    """Models that all say `good`, after so long."""

    def of(name: str, latency: float) -> Scripted:
        return model(lambda call: Reply(f"good {name}", latency=latency), name)

    return {name: of(name, latency) for name, latency in latencies.items()}


def twice(
    pipeline: Stage | Pipeline, models: Any, delay: float = 0.0, **settings: Any
) -> tuple[tuple[Outcome, int], tuple[Outcome, int]]:
    """A run and its replay in a new session: outcomes, and how many calls each made."""

    async def work() -> tuple[Outcome, int]:
        store = InstantStore(STORE, delay)
        async with Session(models=models, store=store, **settings) as session:
            outcome = await session.solve(pipeline, PROBLEM)
            backends: list[Any] = [c.backend for c in session._callers.values()]
        await store.close()
        return outcome, sum(len(b.calls) for b in backends)

    return patiently(work()), patiently(work())


# --- what holds -------------------------------------------------------------------------------------


def test_a_budget_in_requests_ends_a_replay_where_it_ended_the_run() -> None:
    budget = Budgets(problem=Budget(requests=3))
    (first, calls), (again, none) = twice(Sample(n=9), model(lambda call: "x"), budget=budget)
    assert (calls, none) == (3, 0)
    assert (again.usage, again.stopped, again.fresh) == (first.usage, "budget", NOTHING)


def test_a_stages_own_budget_ends_a_replay_where_it_ended_the_run() -> None:
    stage = Sample(n=9, budget=Budget(requests=2))
    (first, calls), (again, none) = twice(stage & Sample(n=2), model(lambda call: "x"))
    assert (calls, none) == (4, 0)
    assert again.candidates == first.candidates and again.by_stage == first.by_stage


def test_of_an_early_stop_the_bill_of_what_was_cut_off_is_replayed_too() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=1.0 if call.index == 3 else 600.0)

    pipeline = Sample(n=5) | Verify(verifier=Good()) | FirstPassing()
    (first, _), (again, none) = twice(pipeline, model(reply))
    assert none == 0 and first.usage.requests == 5
    assert (again.chosen, again.usage, again.by_stage, again.by_model) == (
        first.chosen,
        first.usage,
        first.by_stage,
        first.by_model,
    )


# --- early stopping ---------------------------------------------------------------------------------


def test_a_replay_of_an_early_stop_has_the_same_candidates() -> None:
    pipeline = Sample(n=4) | Verify(verifier=Good(pause=1.0)) | FirstPassing()
    (first, _), (again, _) = twice(pipeline, model(lambda call: "good"))
    assert [c.id for c in again.candidates] == [c.id for c in first.candidates]


def test_a_replay_ends_for_the_same_reason() -> None:
    pipeline = Sample(n=4) | Verify(verifier=Good(pause=1.0)) | FirstPassing()
    (first, _), (again, _) = twice(pipeline, model(lambda call: "good"))
    assert again.stopped == first.stopped


def test_where_branches_meet_a_replay_stops_at_the_same_one() -> None:
    both = Sample(model="slow") & Sample(model="fast")
    pipeline = both | Verify(verifier=Good(pause=1.0)) | FirstPassing()
    (first, _), (again, none) = twice(pipeline, after(slow=1.5, fast=1.0))
    assert first.answer == "good fast" and none == 0
    assert again.answer == first.answer


def test_while_closing_travels_upstream_nothing_more_is_asked() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=1.0 + call.index)

    judges = [Verify(verifier=Good()) for _ in range(3)]
    pipeline = Sample(n=2) | judges[0] | judges[1] | judges[2] | FirstPassing()
    (first, _), (again, none) = twice(pipeline, model(reply))
    assert again.chosen == first.chosen
    assert none == 0


def test_beside_a_neighbour_that_shares_its_samples_a_replay_stops_at_the_same_one() -> None:
    pipeline = Sample(n=2) | Verify(verifier=Good()) | FirstPassing()
    neighbour = Problem.ask("a question", id="neighbour")

    async def work(*, beside: bool) -> tuple[str | None, int]:
        store = InstantStore(STORE, delay=0.01)
        answers = model(lambda call: Reply(f"good {call.index}", latency=1.0))
        async with Session(models=answers, store=store) as session:
            if beside:
                other = asyncio.ensure_future(session.solve(Sample(n=1), neighbour))
                await asyncio.sleep(0.005)
            outcome = await session.solve(pipeline, PROBLEM)
            if beside:
                await other
            backend: Any = session.caller("default").backend
        await store.close()
        return outcome.answer, len(backend.calls)

    first, _ = patiently(work(beside=True))
    again, calls = patiently(work(beside=False))
    assert calls == 0
    assert again == first


# --- judges -----------------------------------------------------------------------------------------


def test_a_replay_gives_each_candidate_its_own_verdict_back() -> None:
    def same(name: str, latency: float) -> Scripted:
        return model(lambda call: Reply("42", latency=latency), name)

    models = {
        "slow": same("slow", 1.5),
        "fast": same("fast", 1.0),
        "judge": model(lambda call: "no" if call.index else "yes", "judge"),
    }
    judged = [Sample(model=name) | Verify(verifier=Judge()) for name in ("slow", "fast")]
    (first, _), (again, none) = twice(judged[0] & judged[1], models)
    assert none == 0
    assert [c.accepted for c in again.candidates] == [c.accepted for c in first.candidates]


# --- budgets ----------------------------------------------------------------------------------------


def test_a_budget_in_tokens_ends_a_replay_where_it_ended_the_run() -> None:
    answers = model(lambda call: Reply("x", latency=1.0, tokens=Tokens(3, completion=10)), max_tokens=10)
    (first, _), (again, none) = twice(Sample(n=8), answers, budget=Budgets(problem=Budget(tokens=90)))
    assert first.stopped == "budget"
    assert none == 0 and again.usage == first.usage


def test_a_budget_that_went_on_retries_is_gone_in_a_replay_too() -> None:
    answers = model(lambda call: Overloaded("busy", retry_after=0.1) if call.index else "fine", retries=9)
    (first, calls), (again, none) = twice(Sample(n=2), answers, budget=Budgets(problem=Budget(requests=5)))
    assert (calls, first.usage.requests, first.stopped) == (5, 5, "budget")
    assert none == 0 and again.usage.requests == 5


def test_samples_that_shared_a_request_share_it_in_a_replay_too() -> None:
    budget = Budgets(problem=Budget(requests=1))
    (first, _), (again, _) = twice(Sample(n=3), model(lambda call: "x", max_n=3), budget=budget)
    assert (len(first.candidates), first.usage.requests, first.stopped) == (3, 1, "complete")
    assert len(again.candidates) == 3


def test_the_runs_budget_ends_a_replay_where_it_ended_the_run() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=0.1 if call.index == 0 else 600.0)

    pipeline = Sample(n=4) | Verify(verifier=Good()) | FirstPassing()
    problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(4)]

    async def work() -> tuple[list[str], int, int]:
        store = InstantStore(STORE)
        budget = Budgets(run=Budget(requests=8))
        async with Session(models=model(reply), store=store, budget=budget) as session:
            outcomes = [await session.solve(pipeline, p) for p in problems]
            backend: Any = session.caller("default").backend
            total = session.ledger.total.requests
        await store.close()
        return [o.stopped for o in outcomes], len(backend.calls), total

    stopped, calls, total = patiently(work())
    assert (stopped, calls, total) == (["early", "early", "budget", "budget"], 8, 8)
    stopped, calls, total = patiently(work())
    assert total <= 8, "a hard budget"
    assert (stopped, calls) == (["early", "early", "budget", "budget"], 0)


# --- neighbours -------------------------------------------------------------------------------------


def test_a_sample_costs_the_same_whoever_paid_for_it() -> None:
    def reply(call: Call) -> Any:
        return Reply("x", latency=1.0) if call.attempt else Overloaded("busy", retry_after=0.1)

    async def work() -> list[int]:
        async with Session(models=model(reply), store=InstantStore()) as session:
            problems = [Problem.ask("a question", id=name) for name in ("one", "two")]
            outcomes = await asyncio.gather(*(session.solve(Sample(), p) for p in problems))
            return [o.usage.requests for o in outcomes]

    assert patiently(work()) == [2, 2]


def test_two_settings_of_one_model_keep_their_own_costs() -> None:
    def reply(call: Call) -> Reply:
        warm = (call.request.sampling.temperature or 0) > 0.5
        return Reply("x", tokens=Tokens(3, completion=90 if warm else 10))

    async def work(temperature: float) -> tuple[int, int]:
        store = InstantStore(STORE)
        answers = model(reply, sampling=Sampling(temperature=temperature))
        async with Session(models=answers, store=store) as session:
            outcome = await session.solve(Sample(n=2), PROBLEM)
        await store.close()
        return outcome.usage.completion_tokens, outcome.fresh.requests

    assert patiently(work(0.1)) == (20, 2)
    assert patiently(work(0.9)) == (180, 2)
    assert patiently(work(0.1)) == (20, 0)


def test_what_was_delivered_is_what_is_stored() -> None:
    answers = model(lambda call: Reply("ours", latency=1.0))

    async def work(*, beaten: bool) -> str | None:
        store = InstantStore(STORE)
        async with Session(models=answers, store=store) as session:
            solving = asyncio.ensure_future(session.solve(Sample(n=1), PROBLEM))
            await asyncio.sleep(0.5)
            if beaten:
                (pool,) = await store.summaries()
                await store.put(pool.id, [Recorded(0, "theirs")])
            outcome = await solving
        await store.close()
        return outcome.answer

    first = patiently(work(beaten=True))
    assert patiently(work(beaten=False)) == first


def test_two_judges_share_a_budget_in_a_replay_as_they_once_did() -> None:
    models = {
        "default": model(lambda call: f"{call.index}"),
        "judge": model(lambda call: Reply("yes", latency=1.0), "judge"),
    }
    judges = [Verify(verifier=Judge(asks=what), called=what, ahead=1) for what in ("right", "short")]
    pipeline = Sample(n=3) | judges[0] | Verify(verifier=Good(pause=0.5)) | judges[1]
    (first, _), (again, none) = twice(pipeline, models, budget=Budgets(problem=Budget(requests=6)))
    assert (first.stopped, first.usage.requests) == ("budget", 6)
    assert none == 0
    assert [c.accepted for c in again.candidates] == [c.accepted for c in first.candidates]


def test_what_failed_can_be_asked_again_within_the_budget_that_was_enough() -> None:
    answers = model(lambda call: RequestRejected("no") if call.index == 1 else "fine")
    budget = Budgets(problem=Budget(requests=3))
    (first, calls), (again, asked) = twice(Sample(n=3), answers, budget=budget)
    assert (calls, first.stopped, len(first.failures)) == (3, "complete", 1)
    assert (asked, again.stopped, len(again.failures)) == (1, "complete", 1)
