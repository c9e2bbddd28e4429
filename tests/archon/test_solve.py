"""Solving inside a stage: the books balance, budgets hold, nothing is lost or mixed up, a replay is exact.

Random pipelines inside random pipelines, on the virtual clock; and each promise of `Run.solve` by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archon import registry
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome
from archon.config import dump, load
from archon.config.schema import config_schema
from archon.errors import (
    AllCandidatesFailed,
    AuthenticationFailed,
    ConfigError,
    RequestRejected,
    StageFailed,
    UnknownName,
)
from archon.estimate import Line, estimate
from archon.picture import as_json, mermaid, svg, terminal
from archon.pipeline import AnyPipeline, Node, Pipeline, pipelines_in
from archon.problem import Message, Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird
from archon.trace import FileTrace
from archon.usage import NOTHING, total
from tests.archon import wild
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.archon.wild import MODELS, PROBLEM, Runs, models, summary, timeless

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def about(problem: Problem, text: str) -> Problem:
    """A problem derived from this one."""
    return problem.model_copy(update={"messages": (Message(role="user", content=text),)})


class Parts(Stage):
    """Solves the problem and parts of it, all at once, and passes on what they gave, in order."""

    takes: ClassVar[bool] = False

    solver: AnyPipeline = Pipeline([Sample()])
    """Solves each."""
    other: AnyPipeline = Pipeline([Sample()])
    """Solves the problem itself."""
    parts: int = 2
    """How many parts."""
    whole: bool = True
    """Whether the problem itself is solved too."""
    slow: int = 0
    """How long it thinks between."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        work = [self._part(problem, number, run) for number in range(self.parts)]
        if self.whole:
            work.append(run.solve(self.other, problem, "whole"))
        for found in await run.gather(*work):
            for candidate in found:
                yield candidate

    async def _part(self, problem: Problem, number: int, run: Run) -> Sequence[Candidate]:
        await asyncio.sleep(self.slow * (number % 3) * 0.1)
        return await run.solve(self.solver, about(problem, f"{problem.id} part {number}"), "part", number)

    def plan(self, incoming: Count) -> Plan:
        part, whole = self.solver.plan(), self.other.plan()
        often = int(self.whole)
        return Plan(
            part.calls.times(self.parts).plus(whole.calls.times(often)),
            part.passes.times(self.parts).plus(whole.passes.times(often)),
        )


class Streamed(Stage):
    """Hands on what leaves the solver as it does, at most so many."""

    takes: ClassVar[bool] = False

    solver: AnyPipeline
    most: int = 99

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        left = self.most
        async with aclosing(
            run.stream(self.solver, about(problem, f"{problem.id} again"), "streamed")
        ) as stream:
            async for candidate in stream:
                yield candidate
                left -= 1
                if left == 0:
                    return


class Mend(Stage):
    """Solves a problem about every candidate, several at once, and passes on candidate and answers."""

    solver: AnyPipeline = Pipeline([Sample()])
    ahead: Annotated[int, "at once"] = 2

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async def mend(candidate: Candidate) -> list[Candidate]:
            label = candidate.id.replace("/", ".").replace("#", ".")
            found = await run.solve(self.solver, about(problem, f"{problem.id} mend {candidate.id}"), label)
            return [candidate, *found]

        async for answers in run.map(mend, candidates, ahead=self.ahead):
            for one in answers:
                yield one

    def plan(self, incoming: Count) -> Plan:
        inner = self.solver.plan()
        if incoming.high is None:
            return Plan(Count(0, None), Count(0, None))
        high = None if inner.calls.high is None else inner.calls.high * incoming.high
        most = None if inner.passes.high is None else (1 + inner.passes.high) * incoming.high
        return Plan(Count(0, high), Count(0, most))


class Broken(Stage):
    """Solves under labels of its own."""

    takes: ClassVar[bool] = False
    labels: tuple[str, ...]

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for label in self.labels:
            for candidate in await run.solve(Sample(), problem, label):
                yield candidate


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can name these stages."""
    stages = {cls.name: cls for cls in (Parts, Streamed, Mend)}
    monkeypatch.setattr(registry, "_added", {**registry._added, "stage": stages})


# --- random pipelines in random pipelines -----------------------------------------------------------

INNER = st.one_of(
    st.builds(lambda n, m: Pipeline([Sample(n=n, model=m)]), st.integers(0, 3), st.sampled_from("abc")),
    wild.pipelines(most=2),
    wild.stopping(),
)


@st.composite
def deep(draw: st.DrawFn, depth: int = 1) -> Pipeline:
    """Parts solved with a random pipeline; and, one level up, with one that solves parts itself."""
    solver = draw(INNER if depth == 0 or draw(st.booleans()) else deep(depth - 1))
    parts = Parts(
        solver=solver,
        other=draw(INNER),
        parts=draw(st.integers(0, 3)),
        whole=draw(st.booleans()),
        slow=draw(st.integers(0, 2)),
    )
    whole: Any = parts
    if draw(st.booleans()):
        whole = whole & Sample(model="a", n=draw(st.integers(0, 3)))
    if draw(st.booleans()):
        whole = whole | Verify(verifier=wild.ByText(scores=True))
        if draw(st.booleans()):
            whole = whole | Mend(solver=draw(INNER), ahead=draw(st.integers(1, 3)))
    return whole if isinstance(whole, Pipeline) else Pipeline([whole])


def flows(pipeline: Pipeline) -> Iterator[Pipeline]:
    yield pipeline
    for node in pipeline.nodes:
        for _, inner in pipelines_in(node.stage):
            yield from flows(inner)


def stops(pipeline: Pipeline) -> bool:
    return any(stage.stops_early for stage in pipeline.graph().stages)


def judges(pipeline: Pipeline) -> bool:
    return "judge" in pipeline.graph().models


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6), trouble=st.sampled_from([0.0, 0.0, 0.3]))
def test_books_balance_ids_are_unique_and_a_replay_is_exact(
    pipeline: Pipeline, seed: int, trouble: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble)
    first, _ = runs.solve(pipeline)
    assert timeless(total(first.by_stage.values())) == timeless(first.usage)
    assert timeless(total(first.by_model.values())) == timeless(first.usage)
    ids = [c.id for c in first.candidates]
    assert len(set(ids)) == len(ids)
    final = [c.id for c in first.final]
    assert len(set(final)) == len(final) and set(final) <= set(ids)
    assert all(not c.problem for c in first.final)
    again, none = runs.solve(pipeline)
    offline, nothing = runs.solve(pipeline, offline=True)
    assert (none, nothing) == ([], [])
    assert again.fresh == offline.fresh == NOTHING
    said, once = summary(again), summary(first)
    if stops(pipeline):  # what arrived after the one that was chosen is not used again
        assert {c[0] for c in said.pop("candidates")} <= {c[0] for c in once.pop("candidates")}
    else:
        assert summary(offline) == summary(first)
    assert said == once


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6))
def test_the_plan_bounds_what_is_called_and_passed_on(pipeline: Pipeline, seed: int) -> None:
    async def work() -> Outcome:
        async with Session(models=models(seed), store=InstantStore()) as session:
            return await session.solve(pipeline, PROBLEM)

    outcome = patiently(work())
    plans = pipeline.graph().plan()
    for path, plan in plans.items():
        used = sum(u.requests for row, u in outcome.by_stage.items() if f"{row}/".startswith(f"{path}/"))
        assert plan.calls.high is None or used <= plan.calls.high
        assert stops(pipeline) or used >= plan.calls.low
    high = pipeline.plan().passes.high
    assert high is None or len(outcome.final) <= high


@QUICK
@given(
    pipeline=deep(),
    seed=st.integers(0, 10**6),
    limit=st.integers(0, 12),
    mine=st.integers(0, 9),
    whose=st.sampled_from(["problem", "run", "stage"]),
)
def test_a_hard_budget_holds_whoevers_it_is(
    pipeline: Pipeline, seed: int, limit: int, mine: int, whose: str
) -> None:
    first, *others = pipeline.nodes
    if whose == "stage" and isinstance(first.stage, Stage):
        limited = first.stage.model_copy(update={"budget": Budget(requests=mine)})
        pipeline = Pipeline([Node(first.name, limited, first.after), *others])
    budget = Budget(requests=limit)
    budgets = {"problem": Budgets(problem=budget), "run": Budgets(run=budget), "stage": Budgets()}[whose]

    async def work() -> tuple[Outcome, Session]:
        async with Session(models=models(seed), store=InstantStore(), budget=budgets) as session:
            return await session.solve(pipeline, PROBLEM), session

    outcome, session = patiently(work())
    assert not any(session.meter.held.values())
    assert timeless(total(outcome.by_stage.values())) == timeless(outcome.usage)
    if whose == "stage":
        used = sum(u.requests for row, u in outcome.by_stage.items() if row.startswith(f"{first.name}/"))
        assert used <= mine
    else:
        assert outcome.usage.requests <= limit


@QUICK
@given(pipeline=deep(), seed=st.integers(0, 10**6), limit=st.integers(0, 12))
def test_what_a_budget_ended_inside_ends_alike_when_replayed(
    pipeline: Pipeline, seed: int, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if judges(pipeline) or stops(pipeline):
        return  # several that compete: see test_invariants_replay.py
    budget = Budgets(problem=Budget(requests=limit))
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, 0.0, max_n=1, budget=budget)
    first, _ = runs.solve(pipeline)
    again, calls = runs.solve(pipeline)
    assert calls == []
    assert summary(again) == summary(first)


@QUICK
@given(
    pipeline=deep(),
    seed=st.integers(0, 10**6),
    apart=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=3),
    count=st.integers(2, 4),
)
def test_problems_at_once_never_see_each_other(
    pipeline: Pipeline, seed: int, apart: list[float], count: int
) -> None:
    problems = [Problem.ask(f"question {i}", id=f"p{i}") for i in range(count)]

    async def work(asked: Sequence[Problem], pauses: Sequence[float]) -> list[Outcome]:
        async with Session(models=models(seed), store=InstantStore()) as session:

            async def one(number: int, problem: Problem) -> Outcome:
                await asyncio.sleep(pauses[number % len(pauses)])
                return await session.solve(pipeline, problem)

            outcomes = await asyncio.gather(*(one(i, p) for i, p in enumerate(asked)))
            backends: list[Any] = [session.caller(name).backend for name in MODELS]
            assert session.ledger.fresh.requests == sum(len(b.calls) for b in backends)
            return outcomes

    together = patiently(work(problems, apart))
    for problem, outcome in zip(problems, together, strict=True):
        (alone,) = patiently(work([problem], [0.0]))
        assert summary(outcome) == summary(alone)


# --- where it stands --------------------------------------------------------------------------------


async def solved(pipeline: Stage | Pipeline, model: Any, **settings: Any) -> Outcome:
    async with Session(models=model, store=InstantStore(), **settings) as session:
        return await session.solve(pipeline, PROBLEM)


def echo(call: Call) -> str:
    return f"{call.text} -> {call.index}"


ECHO = Scripted(reply=echo, identity="echo")


def run(pipeline: Stage | Pipeline, model: Any = ECHO, **settings: Any) -> Outcome:
    return patiently(solved(pipeline, model, **settings))


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


# --- replays ----------------------------------------------------------------------------------------


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


# --- before anything is spent -----------------------------------------------------------------------


def test_a_model_that_is_named_inside_must_be_defined() -> None:
    pipeline = Pipeline([Parts(solver=Sample(model="gone") | MajorityVote())])
    assert pipeline.graph().models == {
        "gone": ["parts/solver/sample"],
        "default": ["parts/other/sample"],
    }
    with pytest.raises(UnknownName, match=r"stage 'parts/solver/sample' uses model 'gone'"):
        run(pipeline, {"default": ECHO})


def test_what_is_wrong_inside_is_said_with_its_path() -> None:
    wrong = Parts(solver=Sample() | BestOf(), other=Parts(solver=[MajorityVote.name]))
    with pytest.raises(ConfigError) as caught:
        Pipeline([Node("solve", wrong)]).graph()
    assert [(f.where, f.what.split(",")[0]) for f in caught.value.flaws] == [
        ("solve/solver/best_of", "'best_of' needs scores"),
        ("solve/other/parts/solver/majority_vote", "'majority_vote' needs candidates"),
    ]


FILE = """\
models:
  m: {backend: scripted, replies: {'*': [a]}}
pipeline:
  first:
    sample: {model: m}
  second:
    parts:
      solver:
        draw: {sample: {model: %s}}
        vote: {%s: , after: draw}
      other:
      - sample: {model: m}
"""


@pytest.mark.parametrize(
    ("model", "stage", "said"),
    [
        (
            "mm",
            "majority_vote",
            r"9: pipeline\.second\.parts\.solver\.draw: model 'mm' is not defined.*'m'\?",
        ),
        ("m", "best_of", r"10: pipeline\.second\.parts\.solver\.vote: 'best_of' needs scores"),
        (
            "m",
            "majority_votes",
            r"10: pipeline\.second\.parts\.solver\.vote.majority_votes: there is no stage",
        ),
        ("[m]", "majority_vote", r"9: pipeline\.second\.parts\.solver\.draw\.sample\.model"),
    ],
)
def test_what_is_wrong_inside_a_file_is_said_with_its_line(model: str, stage: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(FILE % (model, stage), "yaml")


@pytest.mark.parametrize(
    "solver", ["sample", "3", "{}", "[]", "null", "{sample: {n: 2}}", "[{pipeline: [sampl]}]"]
)
def test_what_is_no_pipeline_is_refused(solver: str) -> None:
    with pytest.raises(ConfigError, match="solver"):
        load(f"- parts: {{solver: {solver}}}", "yaml")


NESTED = [
    Parts(),
    Parts(solver=Sample(n=3)),
    Parts(solver=Sample(n=3) | MajorityVote(), other=(Sample() & Sample(model="b")) | MajorityVote()),
    Parts(
        solver=Parts(solver=Pipeline([Node("x", Pipeline([Sample()])), Node("y", MajorityVote(), ("x",))]))
    ),
    Streamed(solver=Pipeline([Node("b", Verify(verifier="unit_tests"), ("a",)), Node("a", Sample())])),
]


@pytest.mark.parametrize("stage", NESTED)
def test_it_is_its_configuration(stage: Stage) -> None:
    pipeline = Pipeline([stage])
    assert load(dump(pipeline), "yaml").pipeline == pipeline
    assert load(dump(pipeline, "toml"), "toml").pipeline == pipeline
    assert hash(load(dump(pipeline), "yaml").pipeline.nodes[0].stage) == hash(stage)
    assert stage.model_copy(deep=True) == stage


def test_a_pipeline_may_be_given_as_it_is_as_a_stage_or_as_a_file_says_it() -> None:
    stage = Parts(solver=Pipeline([Sample(n=2)]))
    assert Parts(solver=Sample(n=2)) == Parts(solver=[{"sample": {"n": 2}}]) == stage
    assert Parts(solver={"sample": {"sample": {"n": 2}}}) == stage
    with pytest.raises(ValueError, match="solver"):
        Parts(solver=3)
    with pytest.raises(ConfigError, match="'sample'"):
        Parts(solver=["sampel"])


def test_editors_know_its_form() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(config_schema())
    assert validator.is_valid([{"parts": {"solver": ["sample", {"majority_vote": None}]}}])
    assert validator.is_valid(
        [{"parts": {"solver": {"a": "sample", "b": {"majority_vote": {}, "after": "a"}}}}]
    )
    assert not validator.is_valid([{"parts": {"solver": "sample"}}])
    assert not validator.is_valid([{"parts": {"solver": ["sampel"]}}])


def test_pipelines_that_differ_in_what_comes_after_what_are_told_apart_in_text() -> None:
    verify, vote = Verify(verifier=EveryThird()), MajorityVote()
    chain = Pipeline([Node("a", Sample()), Node("b", verify, ("a",)), Node("c", vote, ("b",))])
    fork = Pipeline([Node("a", Sample()), Node("b", verify, ("a",)), Node("c", vote, ("a",))])
    assert repr(chain) != repr(fork) and hash(Parts(solver=chain)) != hash(Parts(solver=fork))


# --- pictures and estimates -------------------------------------------------------------------------

DRAWN = Pipeline([Parts(solver=Sample(n=3) | MajorityVote(), parts=2, whole=False)]).graph()


def test_the_terminal_shows_what_a_stage_solves_with_under_it() -> None:
    assert terminal(DRAWN).splitlines() == [
        "● parts  (solver=sample | majority_vote, whole=False)   [6 calls]",
        "    solver: 3 calls each time",
        "    ● sample  (n=3)   [3 calls]",
        "      │",
        "    ● majority_vote",
        "    other: 1 call each time",
        "    ● sample   [1 call]",
        "",
        "6 model calls per problem",
    ]


def test_an_estimate_names_every_model_and_bounds_no_prompt_that_it_does_not_know() -> None:
    stage = Parts(solver=Sample(model="a", n=3), other=Sample(model="b"), parts=2)
    models = {
        name: Scripted(replies={"*": ("x",)}, max_tokens=10, price={"input": 1, "output": 1}) for name in "ab"
    }

    async def work() -> list[Line]:
        async with Session(models=models, store=InstantStore()) as session:
            return estimate(Pipeline([stage, Sample(model="a")]).graph(), [PROBLEM], session)

    lines = patiently(work())
    assert [(one.stage, one.model, one.calls, one.usd is None) for one in lines] == [
        ("parts", "a", Count(7, 7), True),
        ("parts", "b", Count(7, 7), True),
        ("sample", "a", Count(1, 1), False),
    ]


def test_the_other_forms_show_it_too() -> None:
    data = as_json(DRAWN)
    assert data["calls"]["total"] == {"low": 6, "high": 6}
    inner = data["stages"]["parts"]["solves_with"]
    assert list(inner) == ["solver", "other"]
    assert inner["solver"]["calls"]["total"] == {"low": 3, "high": 3}
    chart = mermaid(DRAWN).splitlines()
    assert '  subgraph s0_0["parts: solver"]' in chart and "  s0 -.- s0_0" in chart
    assert "  s0_0_0 --> s0_0_1" in chart and chart.count("  end") == 2
    assert "sample | majority_vote" in svg(DRAWN)
