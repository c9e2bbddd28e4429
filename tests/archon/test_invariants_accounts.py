"""Every call is in the books, whatever its backend, its server or the disk does; and nothing that was paid is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from archon.backends.base import Completion, Progress, Request
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Candidate
from archon.errors import ArchonError, Overloaded, RequestRejected
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.sample import Sample
from archon.trace import FileTrace
from tests.archon.instant import InstantStore, patiently

PROBLEM = Problem.ask("a question", id="p")
BUDGET = Budgets(run=Budget(requests=100))

Change = Callable[[Completion], list[Completion]]


class Changed(ScriptedBackend):
    """A backend with a fault: its completions, changed."""

    def __init__(self, config: Scripted, change: Change, most: int | None = None) -> None:
        super().__init__(config)
        self._change = change
        self._most = most

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        async with aclosing(super().complete(request, indices[: self._most], progress)) as stream:
            async for completion in stream:
                for changed in self._change(completion):
                    yield changed


def backend(
    reply: Callable[[Call], Any] = lambda call: "x",
    change: Change = lambda completion: [completion],
    most: int | None = None,
    **settings: Any,
) -> Changed:
    return Changed(Scripted(reply=reply, identity="accounts", **settings), change, most)


async def booked(faulty: Changed, n: int = 1) -> tuple[int, int, int]:
    """Requests made, requests in the ledger, requests counted by the budget; however the run ended."""
    async with Session(models={"default": faulty}, store=InstantStore(), budget=BUDGET) as session:
        try:
            await session.solve(Sample(n=n), PROBLEM)
        except ArchonError:
            pass
        assert session.meter.held == {"requests": 0}
        return len(faulty.calls), session.ledger.total.requests, session.meter.spent["requests"]


# --- servers and backends ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [lambda call: "x", lambda call: RequestRejected("no"), lambda call: Overloaded("no", retry_after=0)],
)
async def test_answered_refused_and_retried_calls_are_all_in_the_books(reply: Callable[[Call], Any]) -> None:
    made, ledger, counted = await booked(backend(reply))
    assert made == ledger == counted > 0


async def test_a_call_whose_backend_breaks_is_in_the_books_all_the_same() -> None:
    def reply(call: Call) -> Any:
        raise ZeroDivisionError("a fault in the backend")

    made, ledger, counted = await booked(backend(reply))
    assert made == ledger == counted > 0


async def test_budget_and_ledger_agree_on_a_sample_that_nobody_asked_for() -> None:
    _, ledger, counted = await booked(backend(change=lambda c: [c._replace(index=c.index + 1000)]))
    assert ledger == counted


async def test_only_what_was_asked_and_refused_counts_as_failed() -> None:
    def reply(call: Call) -> Any:
        return RequestRejected("no") if call.index == 1 else "x"

    ignoring = backend(reply, most=1, max_n=4)
    async with Session(models={"default": ignoring}, store=InstantStore()) as session:
        outcome = await session.solve(Sample(n=4), PROBLEM)
    assert [f.index for f in outcome.failures] == [1]
    assert [c.index for c in outcome.candidates] == [0, 2, 3]


async def test_a_server_that_ignores_n_gives_every_sample_once_and_each_request_is_counted() -> None:
    ignoring = backend(lambda call: str(call.index), most=1, max_n=4)
    async with Session(models={"default": ignoring}, store=InstantStore()) as session:
        outcome = await session.solve(Sample(n=6), PROBLEM)
    assert [c.text for c in outcome.candidates] == [str(i) for i in range(6)]
    assert outcome.usage.requests == len(ignoring.calls) == 6


def test_a_call_that_was_never_sent_is_no_attempt() -> None:
    def reply(call: Call) -> Reply:
        return Reply("x", latency=1.0 if call.index == 0 else 600.0)

    async def work() -> tuple[int, int]:
        store = InstantStore()
        waiting = backend(reply, concurrency=4)
        async with Session(models={"default": waiting}, store=store) as session:
            solving = asyncio.ensure_future(session.solve(Sample(n=100), PROBLEM))
            await asyncio.sleep(2)
            solving.cancel()
            await asyncio.wait([solving])
            (pool,) = await store.summaries()
            return pool.attempts, len(waiting.cancelled)

    attempts, cancelled = patiently(work())
    assert attempts == cancelled < 99


# --- disks ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
async def test_a_trace_that_cannot_be_written_costs_no_sample() -> None:
    store = InstantStore("store.sqlite")
    try:
        async with Session(
            models=Scripted(reply=lambda call: "x", identity="trace"),
            store=store,
            trace=FileTrace(Path("/dev/full")),
        ) as session:
            outcome = await session.solve(Sample(n=200), PROBLEM)
        assert len(outcome.candidates) == 200
    except OSError:
        (pool,) = await store.summaries()
        assert pool.samples == session.ledger.total.requests, "at least what was paid is stored"
        raise
    finally:
        await store.close()


# --- stages -----------------------------------------------------------------------------------------


class Careless(Stage):
    """Writes a candidate and forgets to say whose it is."""

    takes = False

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for sample in run.sample("default"):
            yield Candidate(f"{run.stage}#0", f"better than {sample.text}")


async def test_a_candidate_that_does_not_say_its_stage_is_its_writers() -> None:
    async with Session(models={"default": backend()}, store=InstantStore()) as session:
        outcome = await session.solve(Careless(), PROBLEM)
    assert outcome.answer == "better than x"


class Stuttering(Stage):
    """Passes every candidate on twice."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            yield candidate
            yield candidate


async def test_a_candidate_that_is_passed_on_twice_leaves_once_or_is_an_error() -> None:
    async with Session(models={"default": backend()}, store=InstantStore()) as session:
        try:
            outcome = await session.solve(Sample(n=2) | Stuttering(), PROBLEM)
        except ArchonError:
            return
    assert len(outcome.final) == len({c.id for c in outcome.final})
