"""Solving inside a stage: names and paths, what flows on, budgets, deadlines, failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from archon import registry
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    RequestRejected,
    StageFailed,
)
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird
from archon.trace import FileTrace
from tests.archon import wild
from tests.archon.instant import InstantStore, patiently
from tests.archon.solving import Broken, Parts, Streamed, about, run
from tests.archon.solving import named as named  # a fixture
from tests.archon.virtual import now
from tests.archon.wild import PROBLEM


def test_ids_and_ledger_rows_carry_the_stage_the_label_and_the_stage_inside() -> None:
    outcome = run(Parts(solver=Sample(n=2), other=Sample() | MajorityVote()))
    assert [(c.id, c.text) for c in outcome.candidates] == [
        ("parts/part-0/sample#0", "p part 0 -> 0"),
        ("parts/part-0/sample#1", "p part 0 -> 1"),
        ("parts/part-1/sample#0", "p part 1 -> 0"),
        ("parts/part-1/sample#1", "p part 1 -> 1"),
        ("parts/whole/sample#0", "a question -> 0"),
    ]
    requests = {row: usage.requests for row, usage in outcome.by_stage.items()}
    assert requests == {"parts/part/sample": 4, "parts/whole/sample": 1}
    assert [c.stage for c in outcome.candidates[:1]] == ["parts/part-0/sample"]


class Quiet(Parts):
    """Solves its parts and says nothing of them."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in super().run(problem, candidates, run):
            if candidate.stage.startswith(f"{run.stage}/whole/"):
                yield candidate


def test_a_candidate_says_which_problem_it_answers_and_who_passes_it_on_adopts_it() -> None:
    adopted = run(Parts(parts=1))
    assert {c.problem for c in adopted.candidates} == {""}
    outcome = run(Quiet(parts=2))
    assert {c.id: c.problem for c in outcome.candidates} == {
        "quiet/part-0/sample#0": "p/part-0",
        "quiet/part-1/sample#0": "p/part-1",
        "quiet/whole/sample#0": "",
    }
    assert [c["problem"] for c in outcome.as_json()["candidates"] if "problem" in c] == [
        "p/part-0",
        "p/part-1",
    ]


def test_solving_within_solving_goes_by_the_whole_path() -> None:
    outcome = run(Parts(parts=1, whole=False, solver=Parts(parts=1, whole=False)))
    assert [c.id for c in outcome.candidates] == ["parts/part-0/parts/part-0/sample#0"]
    assert list(outcome.by_stage) == ["parts/part/parts/part/sample"]
    assert outcome.answer == "p/part-0 part 0 -> 0"


class Labelled(Broken):
    """With problems whose ids it chose."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for label in self.labels:
            derived = about(problem, "?").model_copy(update={"id": "mine"})
            for candidate in await run.solve(Sample(), derived, label):
                yield candidate.__class__(f"{run.stage}#{label}", candidate.problem, run.stage)


def test_a_derived_problem_keeps_an_id_of_its_own() -> None:
    assert run(Labelled(labels=("a", "b"))).answer == "mine"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("a", "a"), r"stage 'broken' has solved under 'a' before; number its solvings"),
        (("a/b",), r"`label` names what is solved, without '/' or '#', and is 'a/b'"),
        (("a#1",), r"without '/' or '#'"),
        (("",), r"`label`"),
    ],
)
def test_a_label_is_one_solvings_own(labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(StageFailed, match=said):
        run(Broken(labels=labels))


def test_two_stages_may_solve_under_one_label_and_two_problems_too() -> None:
    outcome = run(Broken(labels=("a",)) & Broken(labels=("a",)))
    assert [c.id for c in outcome.final] == ["broken/a/sample#0", "broken-2/a/sample#0"]
    assert len({c.text for c in outcome.final}) == 2, "draws of one problem share no samples"


def test_what_leaves_comes_best_first_where_the_pipeline_ranks_and_else_in_sample_order() -> None:
    def reply(call: Call) -> Reply:
        return Reply(str(call.index), latency=5.0 - call.index)

    model = Scripted(reply=reply, identity="late")
    assert [c.text for c in run(Broken(labels=("a",)), model).final] == ["0"]
    plain = run(Parts(parts=0, other=Sample(n=4)), model)
    assert [c.text for c in plain.candidates] == ["0", "1", "2", "3"]

    class Order(Parts):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            found = await run.solve(self.other, problem, "whole")
            yield Candidate(f"{run.stage}#0", " ".join(c.text for c in found))

    assert run(Order(other=Sample(n=4)), model).answer == "0 1 2 3"
    ranked = Sample(n=4) | Verify(verifier=EveryThird()) | registry.find("stage", "top_k")(k=3)
    assert run(Order(other=ranked), model).answer == "3 2 1"


def test_where_the_ends_share_candidates_each_leaves_once_with_the_verdicts_of_all() -> None:
    fork = Sample(n=3) | (Verify(verifier=EveryThird()) & Verify(verifier=wild.ByText()))
    assert [c.index for c in run(fork).final] == [0, 1, 2]

    class Seen(Parts):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            found = await run.solve(self.other, problem, "whole")
            yield Candidate(f"{run.stage}#0", " ".join(f"{c.index}:{len(c.verdicts)}" for c in found))

    assert run(Seen(other=fork)).answer == "0:2 1:2 2:2"


def test_verdicts_given_inside_stay_behind_and_stand_in_the_outcome_under_the_path() -> None:
    inner = Sample(n=3) | Verify(verifier=EveryThird()) | BestOf()
    outcome = run(
        Parts(solver=inner, whole=False, parts=2) | Verify(verifier=wild.ByText(scores=True)) | BestOf()
    )
    assert outcome.chosen is not None
    assert set(outcome.chosen.verdicts) == {"parts/part/every_third", "by_text"}
    assert [v.verifier for v in outcome.chosen.verdicts.values()] == list(outcome.chosen.verdicts)
    same = run(Parts(solver=inner, whole=False, parts=1) | Verify(verifier=EveryThird()) | BestOf())
    assert same.chosen is not None
    assert set(same.chosen.verdicts) == {"parts/part/every_third", "every_third"}


class Own(Parts):
    """Keeps a value of its own."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        mine = run.kept("name", lambda: problem.id)
        if self.whole:
            for candidate in await run.solve(
                self.model_copy(update={"whole": False}), about(problem, "?"), "in"
            ):
                yield candidate
        yield Candidate(f"{run.stage}#0", mine)


def test_what_is_kept_for_a_problem_is_not_kept_for_one_derived_from_it() -> None:
    assert [c.text for c in run(Own()).final] == ["p/in", "p"]


def test_a_trace_goes_by_the_problem_that_is_solved(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    run(Parts(parts=1), trace=FileTrace(file))
    lines = [yaml.safe_load(line) for line in file.read_text().splitlines()]
    sampled = [(one["problem"], one["stage"]) for one in lines if one["event"] == "sampled"]
    assert sorted(sampled) == [("p", "parts/part-0/sample"), ("p", "parts/whole/sample")]


# --- budgets, deadlines, cancelling -----------------------------------------------------------------


def test_the_budget_of_a_stage_inside_is_within_that_of_the_stage_around_it() -> None:
    inner = Sample(n=5, budget=Budget(requests=2))
    outcome = run(Parts(solver=inner, whole=False, parts=3, budget=Budget(requests=5)))
    assert (outcome.usage.requests, outcome.stopped) == (5, "budget")
    assert max(sum(c.stage.startswith(f"parts/part-{i}/") for c in outcome.candidates) for i in range(3)) == 2
    assert run(Parts(solver=inner, whole=False, parts=1)).exhausted == "stage parts/part-0/sample.requests"


@pytest.mark.parametrize("whose", ["stage", "problem", "run", "inside"])
def test_a_deadline_reaches_in_and_what_has_come_by_then_is_used(whose: str) -> None:
    def reply(call: Call) -> Reply:
        return Reply("x", latency=1.0 if call.index == 0 else 600.0)

    limit = Budget(seconds=5)
    inner = Sample(n=3, budget=limit if whose == "inside" else None)
    stage = Parts(solver=inner, whole=False, parts=2, budget=limit if whose == "stage" else None)
    budgets = {"problem": Budgets(problem=limit), "run": Budgets(run=limit)}.get(whose, Budgets())

    async def work() -> tuple[Outcome, float, Any]:
        model = Scripted(reply=reply, identity="slow")
        async with Session(models=model, store=InstantStore(), budget=budgets) as session:
            outcome = await session.solve(stage, PROBLEM)
            return outcome, now(), session.caller("default").backend

    outcome, ended, backend = patiently(work())
    assert 5 <= ended < 6
    assert [c.index for c in outcome.final] == [0, 0]
    assert (len(backend.cancelled), backend.in_flight, outcome.usage.requests) == (4, 0, 6)


def test_after_the_deadline_nothing_more_is_asked() -> None:
    class Late(Parts):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            await asyncio.sleep(10)
            async for candidate in super().run(problem, candidates, run):
                yield candidate

    outcome = run(Late(budget=Budget(seconds=5)))
    assert (outcome.candidates, outcome.usage.requests) == ((), 0)


def test_a_later_stage_that_has_what_it_needs_cancels_what_is_asked_inside() -> None:
    def reply(call: Call) -> Reply:
        return Reply("good", latency=1.0 if call.index == 1 else 600.0)

    pipeline = Streamed(solver=Sample(n=5)) | Verify(verifier=wild.ByText()) | FirstPassing()
    model = Scripted(reply=reply, identity="good")

    async def work() -> tuple[Outcome, float, Any]:
        async with Session(models=model, store=InstantStore()) as session:
            outcome = await session.solve(pipeline, PROBLEM)
            return outcome, now(), session.caller("default").backend

    outcome, ended, backend = patiently(work())
    assert outcome.chosen is not None and outcome.chosen.id == "streamed/streamed/sample#1"
    assert 1 <= ended < 2 and outcome.stopped == "early"
    assert (len(backend.cancelled), backend.in_flight, outcome.usage.requests) == (4, 0, 5)


def test_a_stage_that_closes_its_stream_cancels_what_is_outstanding() -> None:
    def reply(call: Call) -> Reply:
        return Reply("x", latency=1.0 + call.index)

    outcome = run(Streamed(solver=Sample(n=9), most=2), Scripted(reply=reply, identity="x"))
    assert ([c.index for c in outcome.final], outcome.stopped) == ([0, 1], "early")
    assert outcome.usage.requests == 9, "billed as far as they came"


def test_what_leaves_a_stream_flows_on_while_the_rest_is_written() -> None:
    def reply(call: Call) -> Reply:
        return Reply(f"{now():g}", latency=1.0 + 10 * call.index)

    class When(wild.Passing):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield Candidate(f"{run.stage}#{candidate.index}", f"{now():.0f}", run.stage, candidate.index)

    outcome = run(Streamed(solver=Sample(n=3)) | When(), Scripted(reply=reply, identity="when"))
    assert [c.text for c in outcome.final] == ["1", "11", "21"]


def test_a_run_that_is_cancelled_leaves_no_call_behind_and_bills_them_all() -> None:
    model = Scripted(reply=lambda call: Reply("x", latency=600.0), identity="slow")

    async def work() -> None:
        async with Session(models=model, store=InstantStore()) as session:
            solving = asyncio.ensure_future(session.solve(Parts(solver=Parts(solver=Sample(n=2))), PROBLEM))
            await asyncio.sleep(5)
            backend: Any = session.caller("default").backend
            assert backend.in_flight == 11
            solving.cancel()
            await asyncio.wait([solving])
            assert solving.cancelled()
            assert (backend.in_flight, session.ledger.total.requests) == (0, 11)

    patiently(work())


def test_the_first_error_ends_what_is_solved_beside_it() -> None:
    def reply(call: Call) -> Any:
        return AuthenticationFailed("no key") if "part 1" in call.text else Reply("x", latency=600.0)

    async def work() -> None:
        model = Scripted(reply=reply, identity="locked")
        async with Session(models=model, store=InstantStore()) as session:
            with pytest.raises(AuthenticationFailed):
                await session.solve(Parts(), PROBLEM)
            backend: Any = session.caller("default").backend
            assert (now() < 1, backend.in_flight) == (True, 0)

    patiently(work())


# --- failures ---------------------------------------------------------------------------------------


def test_failures_stand_in_the_outcome_under_their_path() -> None:
    def reply(call: Call) -> Any:
        return RequestRejected("no") if "part 1" in call.text else "x"

    outcome = run(Parts(solver=Sample(n=2)), Scripted(reply=reply, identity="refusing"))
    assert sorted((f.stage, f.index) for f in outcome.failures) == [
        ("parts/part-1/sample", 0),
        ("parts/part-1/sample", 1),
    ]


def test_answers_to_derived_problems_are_no_answer_where_all_others_failed() -> None:
    def reply(call: Call) -> Any:
        return "x" if "part" in call.text else RequestRejected("no")

    with pytest.raises(AllCandidatesFailed) as caught:
        run(Quiet(parts=1), Scripted(reply=reply, identity="parted"))
    assert caught.value.outcome is not None
    assert [c.problem for c in caught.value.outcome.candidates] == ["p/part-0"]


def test_a_fault_inside_names_the_stage_by_its_path() -> None:
    class Faulty(Sample):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield candidate
            raise ZeroDivisionError("a fault")

    with pytest.raises(StageFailed, match="stage 'parts/part-0/faulty' failed: ZeroDivisionError"):
        run(Parts(solver=Faulty(), parts=1))
