"""Invariant 3: no candidate is lost, duplicated or reordered in silence; every verdict stays with its candidate.

Random graphs of stages that pass on, judge and drop, each at its own pace on the virtual clock, against a
reference that knows only sets: what a stage passes on is what its predecessors passed on, less what it drops.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from archon.candidate import Candidate, Outcome, Verdict
from archon.pipeline import Node, Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently
from tests.archon.wild import hash_of

PROBLEM = Problem.ask("a question", id="p")
SEEN: dict[str, list[str]] = {}
"""What each stage was given, in order (stages keep nothing on themselves)."""


async def linger(pace: int, candidate: Candidate) -> None:
    """A while that differs by candidate; no time at all at pace 0."""
    if pace:
        await asyncio.sleep(0.01 * (hash_of(pace, candidate.id) % 6))


class Source(Stage):
    """So many candidates, at some pace."""

    takes: ClassVar[bool] = False
    count: int
    pace: int = 0

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        for i in range(self.count):
            candidate = Candidate(f"{run.stage}#{i}", f"{problem.id} {i}", run.stage, i)
            await linger(self.pace, candidate)
            yield candidate


class Step(Stage):
    """Passes on what it is given, less every `drops`-th."""

    pace: int = 0
    drops: int = 0

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            SEEN.setdefault(run.stage, []).append(candidate.id)
            await linger(self.pace, candidate)
            if not self.dropped(candidate.id):
                yield candidate

    def dropped(self, candidate: str) -> bool:
        return bool(self.drops) and hash_of(self.drops, candidate) % self.drops == 0


class Opinion(Verifier):
    """Likes everything, by its index."""

    pace: int = 0

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        for c in candidates:
            await linger(self.pace, c)
        return [Verdict(self.name, True, float(c.index), status="passed") for c in candidates]


class Take(Stage):
    """The first few, and no more."""

    stops_early: ClassVar[bool] = True
    ranks: ClassVar[bool] = True
    count: int

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        left = self.count
        async for candidate in candidates:
            SEEN.setdefault(run.stage, []).append(candidate.id)
            yield candidate
            left -= 1
            if not left:
                return


PACES = st.sampled_from([0, 0, 1, 2, 3])
STEPS = st.builds(Step, pace=PACES, drops=st.sampled_from([0, 0, 2, 3]))
FAITHFUL = st.builds(Step, pace=PACES)
JUDGES = st.builds(Verify, verifier=st.builds(Opinion, pace=PACES), ahead=st.integers(1, 4))
SOURCES = st.builds(Source, count=st.sampled_from([0, 1, 2, 5, 9, 70, 140]), pace=PACES)


def called(stage: Stage, name: str) -> Stage:
    """With verdicts of a name of its own."""
    return stage.model_copy(update={"called": name}) if isinstance(stage, Verify) else stage


@st.composite
def graphs(draw: st.DrawFn, steps: st.SearchStrategy[Stage]) -> Pipeline:
    """Any graph: each stage after any of those before it; one that takes none is a source."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 7))):
        before = [n.name for n in nodes]
        after = draw(st.lists(st.sampled_from(before), max_size=3, unique=True)) if before else []
        stage = draw(steps | JUDGES) if after else draw(SOURCES)
        nodes.append(Node(f"n{number}", called(stage, f"judge {number}"), tuple(after)))
    ends = [n.name for n in nodes if not any(n.name in m.after for m in nodes)]
    return Pipeline([*nodes, Node("end", Step(), tuple(ends))])


@st.composite
def nested(draw: st.DrawFn, steps: st.SearchStrategy[Stage]) -> Pipeline:
    """A graph whose end is a pipeline of its own, with a fork inside."""
    outer = draw(graphs(steps))
    inner = draw(steps) | (draw(steps) & called(draw(JUDGES), "inner judge")) | Step()
    return Pipeline([*outer.nodes, Node("inner", inner, ("end",)), Node("last", Step(), ("inner",))])


class Expected(NamedTuple):
    """What the reference says of a graph."""

    given: dict[str, set[str]]
    passed: dict[str, set[str]]
    verdicts: dict[str, set[str]]
    """Names of verdicts, by candidate."""


def reference(pipeline: Pipeline) -> Expected:
    given: dict[str, set[str]] = {}
    passed: dict[str, set[str]] = {}
    verdicts: dict[str, set[str]] = {}
    for path, place in pipeline.graph().places.items():
        given[path] = set().union(*(passed[b] for b in place.before))
        passed[path] = set(given[path])
        if isinstance(place.stage, Source):
            passed[path] = {f"{path}#{i}" for i in range(place.stage.count)}
        elif isinstance(place.stage, Step):
            passed[path] = {c for c in given[path] if not place.stage.dropped(c)}
        elif isinstance(place.stage, Verify):
            for candidate in given[path]:
                verdicts.setdefault(candidate, set()).add(str(place.stage.called))
    return Expected(given, passed, verdicts)


def solve(pipeline: Pipeline) -> Outcome:
    SEEN.clear()

    async def work() -> Outcome:
        async with Session(store=InstantStore()) as session:
            return await session.solve(pipeline, PROBLEM)

    return patiently(work())


def number(candidate: str) -> int:
    return int(candidate.rpartition("#")[2])


def by_source(candidates: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for candidate in candidates:
        found.setdefault(candidate.rpartition("#")[0], []).append(number(candidate))
    return found


@settings(max_examples=120, deadline=None)
@given(graphs(STEPS) | nested(STEPS))
def test_every_stage_is_given_exactly_what_those_before_it_passed_on(pipeline: Pipeline) -> None:
    outcome = solve(pipeline)
    expected = reference(pipeline)
    for path, place in pipeline.graph().places.items():
        if isinstance(place.stage, Step):
            seen = SEEN.get(path, [])
            assert len(seen) == len(set(seen)), f"{path} was given one twice"
            assert set(seen) == expected.given[path], path
    (sink,) = pipeline.graph().sinks
    assert {c.id for c in outcome.final} == expected.passed[sink.path]
    assert len(outcome.final) == len(expected.passed[sink.path])
    born = set().union(
        *(expected.passed[p] for p, place in pipeline.graph().places.items() if not place.before)
    )
    assert [c.id for c in outcome.candidates] == sorted(
        born, key=lambda c: (pipeline.graph().places[c.rpartition("#")[0]].number, number(c))
    )
    assert outcome.stopped == "complete"


@settings(max_examples=80, deadline=None)
@given(graphs(STEPS) | nested(STEPS))
def test_every_candidate_has_every_verdict_that_any_branch_gave_it(pipeline: Pipeline) -> None:
    outcome = solve(pipeline)
    verdicts = reference(pipeline).verdicts
    for candidate in (*outcome.candidates, *outcome.final):
        assert set(candidate.verdicts) == verdicts.get(candidate.id, set()), candidate.id
        assert all(v.score == candidate.index for v in candidate.verdicts.values()), "its own, not another's"
        assert candidate.text == f"p {candidate.index}"


@settings(max_examples=120, deadline=None)
@given(graphs(FAITHFUL) | nested(FAITHFUL))
def test_where_nothing_is_dropped_the_candidates_of_a_source_keep_their_order_everywhere(
    pipeline: Pipeline,
) -> None:
    solve(pipeline)
    for path, seen in SEEN.items():
        for source, numbers in by_source(seen).items():
            assert numbers == sorted(numbers), f"{path} got those of {source} out of order"


@settings(max_examples=80, deadline=None)
@given(graphs(STEPS), st.integers(1, 40))
def test_who_stops_early_gets_the_first_and_loses_none_of_them(pipeline: Pipeline, count: int) -> None:
    outcome = solve(Pipeline([*pipeline.nodes, Node("take", Take(count=count), ("end",))]))
    everything = reference(pipeline).passed["end"]
    taken = SEEN.get("take", [])
    assert len(taken) == len(set(taken)) == min(count, len(everything))
    assert set(taken) <= everything
    assert [c.id for c in outcome.final] == taken
    assert taken == SEEN.get("end", [])[: len(taken)], "in the order in which they came"


@settings(max_examples=60, deadline=None)
@given(graphs(STEPS))
def test_the_same_graph_delivers_the_same_in_the_same_order_every_time(pipeline: Pipeline) -> None:
    runs = []
    for _ in range(2):
        outcome = solve(pipeline)
        runs.append((dict(SEEN), [c.id for c in outcome.final]))
    assert runs[0] == runs[1]
