"""Nothing waits for ever and nothing stays claimed, held or running: slow readers, deadlines, cancellation.

On the virtual clock, where a run that is stuck is a TimeoutError.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.base import Completion, Progress, Request
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Verdict
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.archon.wild import MODELS, models, pipelines, sampled, stopping

PROBLEM = Problem.ask("a question", id="p")
LATE = 600.0


class Good(Verifier):
    """Accepts what says so, after a pause."""

    pause: float = 0.0

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(self.pause)
        return [Verdict(self.name, "good" in c.text, 1.0, status="passed") for c in candidates]


class Judge(Verifier):
    """A call for each candidate."""

    model: str = "judge"

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def calls_per_candidate(self) -> int:
        return 1

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        for c in candidates:
            async for _ in run.sample(self.model, prompt=f"{run.stage} {c.id}"):
                pass
        return [Verdict(self.name, True, 1.0, status="passed") for _ in candidates]


def model(reply: Callable[[Call], Any], identity: str = "m", **settings: Any) -> Scripted:
    return Scripted(reply=reply, identity=identity, **settings)


def claims(store: InstantStore) -> int:
    """How many samples somebody is thought to be drawing."""
    return int(store._instant._db.execute("SELECT count(*) FROM claims").fetchone()[0])


# --- slow readers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n",
    [0, 1, 255, 256, 257, 512, 600, 1_000, 3_000],
)
def test_however_many_and_however_slowly_they_are_read_all_arrive(n: int) -> None:
    async def work() -> int:
        answers = model(lambda call: Reply("x", latency=0.001))
        async with Session(models=answers, store=InstantStore()) as session:
            pipeline = Sample(n=n) | Verify(verifier=Good(pause=0.1), ahead=1) | BestOf()
            return len((await session.solve(pipeline, PROBLEM)).candidates)

    assert patiently(work()) == n


def test_where_the_budget_ends_while_workers_wait_for_room_the_draw_ends_too() -> None:
    async def work() -> tuple[int, str]:
        answers = model(lambda call: Reply("x", latency=0.001))
        budget = Budgets(problem=Budget(requests=1_200))
        async with Session(models=answers, store=InstantStore(), budget=budget) as session:
            pipeline = Sample(n=3_000) | Verify(verifier=Good(pause=0.1), ahead=1) | BestOf()
            outcome = await session.solve(pipeline, PROBLEM)
            return len(outcome.candidates), outcome.stopped

    assert patiently(work()) == (1_200, "budget")


def test_a_model_that_answers_at_once_leaves_turns_for_others() -> None:
    longest = calls = 0

    def reply(call: Call) -> str:
        nonlocal calls
        calls += 1
        return "x"

    async def others() -> None:
        nonlocal longest, calls
        while True:
            longest, calls = max(longest, calls), 0
            await asyncio.sleep(0)

    async def work() -> None:
        async with Session(models=model(reply), store=InstantStore()) as session:
            ticking = asyncio.ensure_future(others())
            await session.solve(Sample(n=3_000), PROBLEM)
            ticking.cancel()
            await asyncio.wait([ticking])

    patiently(work())
    assert longest <= 1_000


class Readers(Stage):
    """Several tasks that read one inbox."""

    tasks: int

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async def work() -> list[Candidate]:
            return [candidate async for candidate in candidates]

        for some in await run.gather(*(work() for _ in range(self.tasks))):
            for candidate in some:
                yield candidate


@pytest.mark.parametrize(
    "tasks",
    [
        1,
        pytest.param(3),
    ],
)
def test_tasks_of_a_stage_may_share_its_inbox(tasks: int) -> None:
    async def work() -> int:
        answers = model(lambda call: Reply("x", latency=float(call.index)))
        async with Session(models=answers, store=InstantStore()) as session:
            return len((await session.solve(Sample(n=7) | Readers(tasks=tasks), PROBLEM)).final)

    assert patiently(work()) == 7


def test_two_judges_one_after_the_other_work_at_the_same_time() -> None:
    async def work() -> float:
        answers = {
            "default": model(lambda call: "x"),
            "one": model(lambda call: Reply("x", latency=1.0), "one"),
            "two": model(lambda call: Reply("x", latency=1.0), "two"),
        }
        async with Session(models=answers, store=InstantStore()) as session:
            judges = [Verify(verifier=Judge(model=name), ahead=4) for name in ("one", "two")]
            await session.solve(Sample(n=40) | judges[0] | judges[1], PROBLEM)
            return now()

    assert patiently(work()) <= 12.0, "ten rounds of four for the first, and one more for the second"


# --- deadlines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["run", "problem"])
def test_after_a_deadline_no_call_begins(scope: str) -> None:
    async def work() -> int:
        answers = {
            "default": model(lambda call: "x"),
            "judge": model(lambda call: Reply("x", latency=1.0), "judge"),
        }
        budget = Budgets.model_validate({scope: Budget(seconds=2.5)})
        async with Session(models=answers, store=InstantStore(), budget=budget) as session:
            outcome = await session.solve(Sample(n=9) | Verify(verifier=Judge(), ahead=1), PROBLEM)
            assert now() == 2.5 and outcome.stopped == "deadline"
            return outcome.by_stage["verify"].requests

    assert patiently(work()) == 3


def test_after_a_stages_deadline_no_call_of_it_begins() -> None:
    async def work() -> int:
        answers = {
            "default": model(lambda call: "x"),
            "judge": model(lambda call: Reply("x", latency=1.0), "judge"),
        }
        async with Session(models=answers, store=InstantStore()) as session:
            stage = Verify(verifier=Judge(), ahead=1, budget=Budget(seconds=2.5))
            return (await session.solve(Sample(n=9) | stage, PROBLEM)).by_stage["verify"].requests

    assert patiently(work()) == 3


# --- cancellation -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    pipeline=pipelines(most=2) | stopping(),
    seed=st.integers(0, 10**6),
    trouble=st.sampled_from([0.0, 0.3]),
    cut=st.floats(0.0, 3.0),
)
def test_cancelled_at_any_moment_nothing_stays_claimed_held_or_running(
    pipeline: Pipeline, seed: int, trouble: float, cut: float
) -> None:
    async def work() -> None:
        store = InstantStore()
        budget = Budgets(run=Budget(requests=10**6, tokens=10**9))
        async with Session(models=models(seed, trouble, max_n=2), store=store, budget=budget) as session:
            solving = asyncio.ensure_future(session.solve(pipeline, PROBLEM))
            await asyncio.sleep(cut)
            solving.cancel()
            await asyncio.wait([solving])
            callers = [session.caller(name) for name in MODELS]
            backends: list[Any] = [c.backend for c in callers]
            assert sum(b.in_flight for b in backends) == 0
            assert [c.gate.in_use for c in callers] == [0] * len(callers)
            assert claims(store) == 0
            assert set(session.meter.held.values()) == {0}
            spent = session.ledger.total
            assert session.meter.spent == {"requests": spent.requests, "tokens": spent.tokens}
            assert asyncio.all_tasks() == {asyncio.current_task()}
            outcome = await session.solve(pipeline, PROBLEM)  # nobody waits for what was given up
            if outcome.stopped == "complete":
                assert len(outcome.candidates) == sampled(pipeline)

    patiently(work())


@pytest.mark.parametrize(
    "read",
    [
        False,
        pytest.param(True),
    ],
)
def test_cancelled_while_it_claims_a_draw_gives_up_what_it_claimed(read: bool) -> None:
    async def work() -> int:
        store = InstantStore(delay=0.3)
        async with Session(models=model(lambda call: "x"), store=store) as session:
            pipeline = Sample(n=3) | Verify(verifier=Good())
            solving = asyncio.ensure_future(session.solve(pipeline if read else Sample(n=3), PROBLEM))
            await asyncio.sleep(1.35)  # record, pool, attempts and samples are read; the claim is on its way
            assert claims(store) == 3
            solving.cancel()
            await asyncio.wait([solving])
            await asyncio.sleep(1.0)
            assert claims(store) == 0
            return len((await session.solve(Sample(n=3), PROBLEM)).candidates)

    assert patiently(work()) == 3


class SlowToClose(ScriptedBackend):
    """A backend that needs a second to let go of a connection."""

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        try:
            async with aclosing(super().complete(request, indices, progress)) as stream:
                async for completion in stream:
                    yield completion
        finally:
            await asyncio.sleep(1)


class SlowModel(Scripted):
    """Its model."""

    def connect(self) -> ScriptedBackend:
        return SlowToClose(self)


def test_cancelled_while_it_closes_a_draw_gives_up_what_it_claimed() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=1.0 if call.index == 0 or call.attempt else LATE)

    async def work() -> int:
        store = InstantStore()
        answers = SlowModel(reply=reply, identity="m", concurrency=2, max_concurrency=2)
        async with Session(models=answers, store=store) as session:
            pipeline = Sample(n=8) | Verify(verifier=Good()) | FirstPassing()
            solving = asyncio.ensure_future(session.solve(pipeline, PROBLEM))
            await asyncio.sleep(1.5)  # it has stopped, and is closing
            assert not solving.done()
            solving.cancel()
            await asyncio.wait([solving])
            await asyncio.sleep(10)
            assert claims(store) == 0
            return len((await session.solve(Sample(n=8), PROBLEM)).candidates)

    assert patiently(work()) == 8


def test_what_a_neighbour_gives_up_is_sampled_at_once_and_not_one_by_one() -> None:
    def reply(call: Call) -> Reply:
        return Reply("x", latency=1.0 if call.attempt else LATE)

    async def work() -> float:
        async with Session(models=model(reply), store=InstantStore()) as session:
            first = asyncio.ensure_future(session.solve(Sample(n=20), PROBLEM))
            await asyncio.sleep(1)
            neighbour = asyncio.ensure_future(session.solve(Sample(n=20), Problem.ask("a question", id="q")))
            await asyncio.sleep(1)
            first.cancel()
            outcome = await neighbour
            assert len(outcome.candidates) == 20
            return now()

    assert patiently(work()) < 2 + 5


def test_a_deadline_while_an_answered_call_is_closing_is_no_error() -> None:
    async def work() -> str | None:
        budget = Budgets(problem=Budget(seconds=1.5))
        answers = SlowModel(reply=lambda call: Reply("x", latency=1.0), identity="m")
        async with Session(models=answers, store=InstantStore(), budget=budget) as session:
            return (await session.solve(Sample(n=1), PROBLEM)).answer

    assert patiently(work()) == "x"


@pytest.mark.parametrize(
    "scope",
    [
        "run",
        pytest.param("problem"),
    ],
)
def test_the_deadline_that_passed_is_named(scope: str) -> None:
    async def work() -> tuple[str, str]:
        budget = Budgets.model_validate({scope: Budget(seconds=1.5)})
        answers = model(lambda call: Reply("x", latency=1.0 + call.index))
        async with Session(models=answers, store=InstantStore(), budget=budget) as session:
            outcome = await session.solve(Sample(n=2), PROBLEM)
            return outcome.stopped, outcome.exhausted

    assert patiently(work()) == ("deadline", f"{scope}.seconds")
