"""The streaming runtime: nothing lost, doubled or reordered; nothing waits that need not; closing cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Candidate, Outcome, Verdict
from archon.errors import BudgetExhausted, RequestRejected, StageFailed
from archon.pipeline import Node, Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird
from archon.verifier import Verifier

FOREVER = 600.0
LOG: list[str] = []
"""What stages did, in order (they keep nothing on themselves)."""


@pytest.fixture(autouse=True)
def clean_log() -> None:
    LOG.clear()


class Numbers(Stage):
    """A source without a model: so many candidates, each as soon as there is room."""

    takes: ClassVar[bool] = False
    count: int

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        try:
            for i in range(self.count):
                LOG.append(f"made {i}")
                yield Candidate(f"{run.stage}#{i}", f"{problem.id} {i}", run.stage, i)
        finally:
            LOG.append("source closed")


class Pass(Stage):
    """Passes on; says what it saw."""

    ranks: ClassVar[bool] = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            LOG.append(f"{run.stage} saw {candidate.index}")
            await asyncio.sleep(0)
            yield candidate


class Take(Stage):
    """The first few, and no more."""

    ranks: ClassVar[bool] = True
    stops_early: ClassVar[bool] = True
    count: int

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        left = self.count
        async for candidate in candidates:
            yield candidate
            left -= 1
            if not left:
                return


class Faulty(Stage):
    """Raises at the second candidate."""

    exhausted: bool = False

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            if candidate.index == 1:
                raise BudgetExhausted("mine", "requests", "no more") if self.exhausted else ValueError("oops")
            yield candidate


class Says(Verifier):
    """A verdict under a name of its own."""

    who: str

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0)
        return [Verdict(self.who, True, float(c.index), status="passed") for c in candidates]


class Slow(Verifier):
    """Takes the longer the earlier the candidate."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.02 / (1 + candidates[0].index))
        return [Verdict(self.name, True, 1.0, status="passed") for _ in candidates]


async def solve(
    pipeline: Stage | Pipeline, reply: Callable[[Call], Any] = lambda call: "x"
) -> tuple[Outcome, Any]:
    async with Session(models=Scripted(reply=reply, identity="flow")) as session, asyncio.timeout(300):
        outcome = await session.solve(pipeline, Problem.ask("a question", id="p"))
        return outcome, session.caller("default").backend


def indices(outcome: Outcome) -> list[int]:
    return [c.index for c in outcome.final]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
async def test_no_candidate_is_lost_doubled_or_reordered_between_stages(count: int) -> None:
    outcome, _ = await solve(Numbers(count=count) | Pass() | Verify(verifier=EveryThird(), ahead=7) | Pass())
    assert indices(outcome) == list(range(count))
    assert all("every_third" in c.verdicts for c in outcome.final)
    assert len(outcome.candidates) == count


async def test_verdicts_come_in_the_candidates_order_whoever_is_ready_first() -> None:
    outcome, _ = await solve(Numbers(count=6) | Verify(verifier=Slow(), ahead=6) | Pass())
    assert indices(outcome) == list(range(6))


async def test_a_candidate_flows_on_while_others_are_still_being_generated() -> None:
    outcome, backend = await solve(
        Sample(n=3) | Take(count=1), lambda call: Reply("x", latency=0 if call.index == 2 else FOREVER)
    )
    assert indices(outcome) == [2], "it would have waited for ten minutes otherwise"
    assert outcome.stopped == "early"
    assert sorted(c.index for c in backend.cancelled) == [0, 1]
    assert backend.in_flight == 0


async def test_closing_reaches_the_source_through_every_stage_between() -> None:
    outcome, _ = await solve(Numbers(count=10**6) | Pass() | Pass() | Take(count=3))
    assert indices(outcome) == [0, 1, 2]
    assert LOG.count("source closed") == 1
    assert sum(line.startswith("made") for line in LOG) <= 3 + 3 * 65


async def test_a_source_does_not_run_far_ahead_of_a_slow_reader() -> None:
    class Blocked(Stage):
        ranks: ClassVar[bool] = True

        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            while not any(line.startswith("made") for line in LOG):
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            LOG.append(f"ahead {sum(line.startswith('made') for line in LOG)}")
            async for candidate in candidates:
                yield candidate

    outcome, _ = await solve(Numbers(count=1000) | Blocked())
    (ahead,) = [int(line.split()[1]) for line in LOG if line.startswith("ahead")]
    assert 0 < ahead <= 66
    assert indices(outcome) == list(range(1000))


async def test_while_one_reader_has_closed_the_other_still_gets_everything() -> None:
    outcome, backend = await solve(Sample(n=9) | (Take(count=1) & Pass()))
    assert sorted({c.index for c in outcome.final}) == list(range(9))
    assert len(backend.calls) == 9
    assert backend.cancelled == []


async def test_when_every_reader_has_closed_the_source_is_cancelled() -> None:
    outcome, backend = await solve(
        Sample(n=9) | (Take(count=1) & Take(count=2)),
        lambda call: Reply("x", latency=0 if call.index < 2 else FOREVER),
    )
    assert {c.index for c in outcome.final} == {0, 1}
    assert len(backend.cancelled) == 7


async def test_where_branches_of_one_stage_meet_each_candidate_comes_once_with_every_verdict() -> None:
    one, other = Verify(verifier=Says(who="one")), Verify(verifier=Says(who="other"))
    outcome, _ = await solve(Sample(n=5) | (one & other) | Pass())
    assert sorted(indices(outcome)) == list(range(5))
    assert all(set(c.verdicts) == {"one", "other"} for c in outcome.final)


async def test_where_a_branch_drops_a_candidate_the_others_still_deliver_it() -> None:
    outcome, _ = await solve(Sample(n=5) | (Take(count=2) & Verify(verifier=Says(who="v"))) | Pass())
    assert sorted(indices(outcome)) == list(range(5))


async def test_unrelated_branches_may_bear_equal_texts_and_all_arrive() -> None:
    outcome, _ = await solve((Sample(n=4) & Sample(n=4)) | Pass())
    assert len(outcome.final) == 8 and {c.text for c in outcome.final} == {"x"}


async def test_a_stage_that_gives_nothing_leaves_an_abstention_not_an_error() -> None:
    outcome, _ = await solve(
        Sample(n=2) | Verify(verifier=EveryThird()) | FirstPassing()  # accepts the third of three
    )
    assert outcome.chosen is None and outcome.answer is None
    assert (len(outcome.candidates), outcome.stopped) == (2, "complete")


async def test_a_stage_with_a_fault_is_named_and_everything_else_ends() -> None:
    pipeline = Pipeline([Node("inner", Sample(n=5) | Faulty()), Node("end", Pass(), ("inner",))])
    async with Session(
        models=Scripted(reply=lambda call: Reply("x", latency=0 if call.index < 2 else FOREVER), identity="f")
    ) as session:
        with pytest.raises(StageFailed, match="stage 'inner/faulty' failed: ValueError: oops") as caught:
            await session.solve(pipeline, Problem.ask("q"))
        backend: Any = session.caller("default").backend
        assert caught.value.stage == "inner/faulty"
        assert backend.in_flight == 0 and len(backend.cancelled) == 3
        assert session.ledger.total.requests == 5


async def test_the_fault_of_a_stage_is_chained_so_that_its_line_can_be_found() -> None:
    with pytest.raises(StageFailed) as caught:
        await solve(Sample(n=5) | Faulty())
    assert isinstance(caught.value.__cause__, ValueError)


async def test_our_own_errors_come_out_as_they_are() -> None:
    class Refusing(Pass):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield candidate
                raise RequestRejected("as it is")

    with pytest.raises(RequestRejected, match="as it is"):
        await solve(Sample(n=1) | Refusing())


async def test_a_budget_that_runs_out_in_a_stage_is_no_error() -> None:
    outcome, _ = await solve(Sample(n=4) | Faulty(exhausted=True) | Pass())
    assert (outcome.stopped, outcome.exhausted) == ("budget", "mine.requests")
    assert indices(outcome) == [0]


async def test_problems_that_run_at_once_through_one_pipeline_never_see_each_other() -> None:
    pipeline = Numbers(count=40) | Pass() | Verify(verifier=Slow(), ahead=3) | BestOf()
    problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(12)]
    async with Session() as session:
        outcomes = await asyncio.gather(*(session.solve(pipeline, p) for p in problems))
    for problem, outcome in zip(problems, outcomes, strict=True):
        assert [c.text for c in outcome.candidates] == [f"{problem.id} {i}" for i in range(40)]
        assert outcome.answer == f"{problem.id} 0", "equal scores: the earliest"


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 130), min_size=1, max_size=3),
    middle=st.lists(st.sampled_from([Pass(), Verify(verifier=EveryThird(), ahead=3)]), max_size=3),
    take=st.none() | st.integers(1, 200),
)
def test_any_graph_delivers_each_branch_whole_and_in_order(
    counts: list[int], middle: list[Stage], take: int | None
) -> None:
    whole: Any = None
    for number, count in enumerate(counts):
        branch: Any = Pipeline([Node(f"s{number}", Numbers(count=count))])
        for stage in middle:
            branch = branch | stage
        whole = branch if whole is None else whole & branch
    pipeline = whole | (Pass() if take is None else Take(count=take))
    outcome, _ = asyncio.run(solve(pipeline))
    for number, count in enumerate(counts):
        got = [c.index for c in outcome.final if c.stage == f"s{number}"]
        assert got == list(range(len(got)))
        if take is None or take >= sum(counts):
            assert len(got) == count
    if take is not None:
        assert len(outcome.final) == min(take, sum(counts))
