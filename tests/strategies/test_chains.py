"""Chains: many at once, candidates as they come, errors at once, few at first where nobody knows what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.budget import Budget
from archon.candidate import Candidate
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Stage, Stream
from archon.strategies.chains import Emit, chained
from archon.strategies.first_passing import FirstPassing
from archon.strategies.verify import Verify
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import solved, table

began: list[float] = []
ended: list[str] = []


class Chains(Stage):
    """So many chains, each of which takes its number's seconds, or one, and gives so many candidates."""

    takes = False
    n: int = 6
    ahead: int = 100
    even: bool = False
    each: int = 1
    fails: int = -1

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async def items() -> AsyncIterator[int]:
            for i in range(self.n):
                yield i

        async def work(i: int, emit: Emit) -> None:
            began.append(now())
            try:
                await asyncio.sleep(1 if self.even else self.n - i)
                if i == self.fails:
                    raise LookupError("number")
                for k in range(self.each):
                    emit(Candidate(f"chains#{i * self.each + k}", f"{i}", "chains", i * self.each + k))
                await asyncio.sleep(0.25)
                ended.append(f"{i}")
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async with aclosing(chained(run, items(), work, ahead=self.ahead)) as found:
            async for candidate in found:
                yield candidate


def chains(pipeline: Any) -> Any:
    began.clear()
    ended.clear()
    model = Scripted(reply=lambda call: "", identity="none")
    return patiently(solved(pipeline, model, store=InstantStore()))[0]


def test_candidates_come_as_they_are_ready_and_not_only_when_a_chain_has_ended() -> None:
    outcome = chains(Chains(each=2) | Verify(verifier=table({})))
    assert len(outcome.final) == 12 and ended == list("543210")


@pytest.mark.parametrize("ahead", [1, 2, 5, 100])
def test_so_many_at_once(ahead: int) -> None:
    chains(Chains(n=10, even=True, ahead=ahead))
    assert [began.count(at) for at in sorted(set(began))] == [ahead] * (10 // ahead) or ahead == 100
    assert len(began) == 10


def test_where_tokens_are_limited_few_begin_and_then_as_many_as_are_done() -> None:
    chains(Chains(n=40, even=True, budget=Budget(tokens=1000)))
    at_once = [began.count(at) for at in sorted(set(began))]
    assert at_once == [2, 2, 4, 8, 16, 8]
    chains(Chains(n=40, even=True, ahead=5, budget=Budget(tokens=1000)))
    assert [began.count(at) for at in sorted(set(began))][:4] == [2, 2, 4, 5]
    chains(Chains(n=40, even=True, budget=Budget(requests=1000, seconds=50)))
    assert began == [0.0] * 40


def test_the_first_error_ends_all_and_is_raised() -> None:
    with pytest.raises(Exception, match="number") as error:
        chains(Chains(fails=5))
    assert isinstance(error.value.__cause__, LookupError)
    assert ended == ["cancelled"] * 5


def test_an_error_does_not_wait_for_room() -> None:
    with pytest.raises(Exception, match="number"):
        chains(Chains(n=1000, even=True, ahead=2, fails=1))
    assert len(began) <= 3


def test_closing_cancels_what_is_in_work() -> None:
    pipeline = Chains() | Verify(verifier=table({"5": (True, 1.0)})) | FirstPassing()
    outcome = chains(pipeline)
    assert outcome.answer == "5" and ended.count("cancelled") >= 5


def test_no_items_no_candidates() -> None:
    assert chains(Chains(n=0)).final == ()
