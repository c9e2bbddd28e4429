"""Replays of what is solved inside a stage pay for nothing and give every part its own samples back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.candidate import Candidate, Outcome
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stream
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from tests.archon import wild
from tests.archon.instant import InstantStore, patiently
from tests.archon.solving import Mend, Parts, Streamed, about
from tests.archon.solving import named as named  # a fixture
from tests.archon.wild import PROBLEM, summary


def test_a_replay_of_an_early_stop_pays_for_nothing_inside() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=1.0 if call.index == 3 else 600.0)

    pipeline = Streamed(solver=Sample(n=6)) | Verify(verifier=wild.ByText(slow=1)) | FirstPassing()
    model = Scripted(reply=reply, identity="m")
    found = []
    for _ in range(2):

        async def work() -> tuple[Outcome, int]:
            store = InstantStore("solve.sqlite", 0.01)
            async with Session(models=model, store=store) as session:
                outcome = await session.solve(pipeline, PROBLEM)
                backend: Any = session.caller("default").backend
            await store.close()
            return outcome, len(backend.calls)

        found.append(patiently(work()))
    (first, calls), (again, none) = found
    assert (calls, none) == (6, 0)
    assert summary(again) == summary(first)


def test_a_grown_store_offers_what_is_inside_one_by_one_where_a_later_stage_may_stop() -> None:
    """Six samples are stored, the first is good: another pipeline that asks the same uses one."""
    verify = Verify(verifier=wild.ByText(slow=1))

    async def work() -> tuple[Outcome, int]:
        async with Session(
            models=Scripted(reply=lambda c: "good", identity="m"), store=InstantStore()
        ) as session:
            await session.solve(Streamed(solver=Sample(n=6)), PROBLEM)
            outcome = await session.solve(Streamed(solver=Sample(n=9)) | verify | FirstPassing(), PROBLEM)
            return outcome, outcome.fresh.requests

    outcome, fresh = patiently(work())
    assert (len(outcome.candidates), fresh) == (1, 0)


def test_concurrent_solvings_get_their_own_samples_back_whatever_came_first() -> None:
    """The same question under two labels shares a pool; delays are other in the replay, which asks nothing."""

    class Race(Parts):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async def one(label: str, pause: float) -> Sequence[Candidate]:
                await asyncio.sleep(pause)
                return await run.solve(Sample(n=2), about(problem, "same"), label)

            for found in await run.gather(one("a", 0.2), one("b", 0.1)):
                for candidate in found:
                    yield candidate

    found = []
    for _ in range(2):

        async def work() -> Outcome:
            store = InstantStore("race.sqlite", 0.01)
            async with Session(
                models=Scripted(reply=lambda c: str(c.index), identity="m"), store=store
            ) as session:
                outcome = await session.solve(Race(), PROBLEM)
            await store.close()
            return outcome

        found.append(patiently(work()))
    assert summary(found[0]) == summary(found[1])
    assert [c.text for c in found[0].final] == ["2", "3", "0", "1"], "b was first to ask"


WORDING = ["first"]


class Fickle(Parts):
    """Its code changes between two runs."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        other = about(problem, WORDING[0])
        for found in await run.gather(
            run.solve(self.solver, other, "a"), run.solve(self.solver, about(problem, "same"), "b")
        ):
            for candidate in found:
                yield candidate


def in_turn(pipeline: Any, count: int, **options: Any) -> list[tuple[Outcome, int]]:
    """Sessions one after the other on one file: outcomes, and how many calls each made."""
    found = []
    for number in range(count):

        async def work(number: int = number) -> tuple[Outcome, int]:
            if number:
                WORDING[0] = "other"
            store = InstantStore("turns.sqlite", 0.01)
            model = Scripted(reply=lambda call: Reply(f"good {call.text}", latency=1.0), identity="m")
            async with Session(models=model, store=store, **options) as session:
                outcome = await session.solve(pipeline, PROBLEM)
                backend: Any = session.caller("default").backend
            await store.close()
            return outcome, len(backend.calls)

        found.append(patiently(work()))
    WORDING[0] = "first"
    return found


def test_a_stage_whose_code_has_changed_cannot_hang_a_replay() -> None:
    (first, calls), (again, more) = in_turn(Fickle(solver=Sample(n=2)), 2)
    assert (calls, more) == (4, 2), "what is new is asked, the rest is replayed"
    assert [c.text for c in first.final] == ["good first"] * 2 + ["good same"] * 2
    assert [c.text for c in again.final] == ["good other"] * 2 + ["good same"] * 2


def test_a_budget_inside_that_counts_what_is_spent_now_lets_a_second_run_go_further() -> None:
    inner = Sample(n=5, budget=Budget(requests=2, counts="fresh"))
    (first, calls), (again, more) = in_turn(Streamed(solver=inner), 2)
    assert (calls, more) == (2, 2)
    assert (len(first.candidates), len(again.candidates)) == (2, 4)


class Eager(Mend):
    """Takes in whatever comes, and solves with all of it at once."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        done: asyncio.Queue[Candidate | None] = asyncio.Queue()

        async def one(candidate: Candidate) -> None:
            for found in await run.solve(self.solver, about(problem, "more"), "one", candidate.index):
                done.put_nowait(found)

        async def feed() -> None:
            tasks = [run.spawn(one(c)) async for c in candidates]
            await asyncio.gather(*tasks)
            done.put_nowait(None)

        feeding = run.spawn(feed())
        while (candidate := await done.get()) is not None:
            yield candidate
        await feeding


def test_those_before_a_stage_that_solves_wait_until_it_has_digested_what_it_was_given() -> None:
    pipeline = Sample(n=6) | Eager() | Verify(verifier=wild.ByText(slow=1)) | FirstPassing()

    async def work() -> Outcome:
        model = Scripted(reply=lambda call: Reply("good", latency=1.0), identity="m")
        async with Session(models=model, store=InstantStore(None, 0.01)) as session:
            await session.solve(Sample(n=6), PROBLEM)
            return await session.solve(pipeline, PROBLEM)

    outcome = patiently(work())
    assert outcome.by_stage["sample"].requests <= 2, "the others that are stored are not used"
    assert (outcome.answer, outcome.fresh.requests) == ("good", 1)
