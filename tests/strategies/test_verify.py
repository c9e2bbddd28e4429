"""Verify: one verdict more for each candidate, nothing filtered, nothing reordered, so many at once."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Verdict
from archon.errors import ArchonError, ConfigError, RequestRejected, UnknownName
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from archon.verifiers.unit_tests import UnitTests
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import NUMBER, PROBLEM, ids, replies, solved, table

AT_WORK: list[int] = [0, 0]
"""How many are being judged now, and how many were at most (verifiers keep nothing on themselves)."""


class Uneven(Verifier):
    """Takes as long as the candidate's text says."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        AT_WORK[0] += 1
        AT_WORK[1] = max(AT_WORK)
        try:
            await asyncio.sleep(float(candidates[0].text))
        finally:
            AT_WORK[0] -= 1
        return [Verdict(self.name, True, 1.0, status="passed") for _ in candidates]


class UnevenBatches(Verifier):
    """The same, up to three together; scores by index."""

    batch: ClassVar[int] = 3

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        AT_WORK[0] += len(candidates)
        AT_WORK[1] = max(AT_WORK)
        try:
            await asyncio.sleep(max(float(c.text) for c in candidates))
        finally:
            AT_WORK[0] -= len(candidates)
        return [Verdict(self.name, True, float(c.index), status="passed") for c in candidates]


class Judge(Verifier):
    """Two calls for each candidate."""

    @property
    def models(self) -> tuple[str, ...]:
        return ("judge",)

    @property
    def calls_per_candidate(self) -> int:
        return 2

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        said = []
        for candidate in candidates:
            asked = [c async for c in run.sample("judge", n=2, prompt=f"Is {candidate.text} right?")]
            said.append(Verdict(self.name, None, sum(len(c.text) for c in asked)))
        return said


class Together(Verifier):
    """Likes four at once, and says how many it was given."""

    batch: ClassVar[int] = 4

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        await asyncio.sleep(1)
        return [Verdict(self.name, True, float(len(candidates))) for _ in candidates]


class Arrivals(Stage):
    """Passes on in order of arrival."""

    ranks: ClassVar[bool] = True

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            yield candidate


@settings(max_examples=80, deadline=None)
@given(
    pauses=st.lists(st.sampled_from(["0", "1", "2.5", "7"]), max_size=12),
    order=st.permutations(range(12)),
    ahead=st.integers(1, 20),
)
def test_every_candidate_gets_its_verdict_in_its_place_and_so_many_are_judged_at_once(
    pauses: list[str], order: list[int], ahead: int
) -> None:
    AT_WORK[:] = [0, 0]
    pipeline = Sample(n=len(pauses)) | Verify(verifier=Uneven(), ahead=ahead) | Arrivals()
    model = replies(*pauses, latencies=[0.1 * place for place in order])
    outcome, _ = patiently(solved(pipeline, model, store=InstantStore()))
    assert ids(outcome.final) == sorted(range(len(pauses)), key=lambda i: order[i])
    assert all(c.verdicts["uneven"].accepted for c in outcome.final)
    assert AT_WORK[0] == 0 and AT_WORK[1] <= ahead
    if pauses and all(p == "7" for p in pauses):
        assert AT_WORK[1] == min(ahead, len(pauses)), "as many as it may"


def test_candidates_are_judged_while_others_are_still_being_written() -> None:
    def reply(call: Call) -> Reply:
        return Reply("1", latency=float(call.index))

    async def work() -> float:
        async with Session(models=Scripted(reply=reply, identity="m"), store=InstantStore()) as session:
            await session.solve(Sample(n=5) | Verify(verifier=Uneven()), PROBLEM)
            return now()

    assert patiently(work()) == 5.0, "the last was written at 4 and judged by 5"


async def test_nothing_is_filtered_and_undecided_is_neither_accepted_nor_rejected() -> None:
    judge = table({"good": (True, 1.0), "bad": (False, 0.0)})
    outcome, _ = await solved(Sample(n=3) | Verify(verifier=judge), replies("good", "bad", "odd"))
    assert [c.verdicts["table"].accepted for c in outcome.final] == [True, False, None]
    assert [c.accepted for c in outcome.final] == [True, False, False]
    assert outcome.final == outcome.candidates


@pytest.mark.parametrize(
    "problem", [PROBLEM, NUMBER, Problem.ask("write f", id="c", answer="code", entry_point="f")]
)
async def test_unit_tests_are_undecided_where_there_are_none(problem: Problem) -> None:
    outcome, _ = await solved(Sample(n=2) | Verify(verifier=UnitTests()), replies("a", "b"), problem)
    for candidate in outcome.final:
        verdict = candidate.verdicts["unit_tests"]
        assert (verdict.accepted, verdict.score, verdict.status) == (None, None, "undecided")
        assert verdict.detail


@pytest.mark.parametrize("n", [0, 1])
async def test_none_and_one(n: int) -> None:
    outcome, _ = await solved(Sample(n=n) | Verify(verifier=table({"x": (True, 1.0)})), replies("x"))
    assert [c.accepted for c in outcome.final] == [True] * n


async def test_two_verifiers_one_after_the_other_leave_both_verdicts() -> None:
    one, two = table({"x": (True, 1.0)}), table({"x": (False, 0.0)})
    judged = Sample(n=2) | Verify(verifier=one, called="one") | Verify(verifier=two, called="two")
    outcome, _ = await solved(judged, replies("x", "y"))
    assert [set(c.verdicts) for c in outcome.final] == [{"one", "two"}] * 2


async def test_two_of_one_kind_and_no_names_leave_both_verdicts() -> None:
    strict, lenient = Verify(verifier=table({"x": (False, 0.0)})), Verify(verifier=table({"x": (True, 1.0)}))
    for judged in (Sample(n=1) | strict | lenient, Sample(n=1) | (lenient & strict)):
        outcome, _ = await solved(judged, replies("x"))
        (candidate,) = outcome.candidates
        assert sorted(v.accepted is True for v in candidate.verdicts.values()) == [False, True]
        assert not candidate.accepted


GRADED = table({"poor": (False, 1.0), "rich": (True, 2.0)})
BRANCHES: list[Any] = [Sample(model=name, n=2) | Verify(verifier=GRADED) for name in ("a", "b")]
"""Two models, each one's samples judged by themselves; no candidate gets two verdicts."""


def ensemble(a: str, b: str) -> dict[str, Scripted]:
    """What the two models say; a model that says nothing fails."""

    def of(name: str, text: str) -> Scripted:
        return Scripted(reply=lambda call: text or RequestRejected("no"), identity=name)

    return {"a": of("a", a), "b": of("b", b), "default": of("default", "unused")}


@pytest.mark.parametrize("by", [None, "table"])
async def test_branches_that_share_no_candidate_share_a_verifiers_name(by: str | None) -> None:
    branches = BRANCHES[0] & BRANCHES[1]
    outcome, _ = await solved(branches | BestOf(by=by), ensemble("poor", "rich"))
    assert {name for c in outcome.candidates for name in c.verdicts} == {"table"}
    assert outcome.answer == "rich"


async def test_where_the_named_verifiers_branch_fails_the_others_are_chosen_from() -> None:
    named = Sample(model="a", n=2) | Verify(verifier=GRADED, called="first")
    other = Sample(model="b", n=2) | Verify(verifier=GRADED, called="second")
    outcome, _ = await solved((named & other) | BestOf(by="first"), ensemble("", "rich"))
    assert outcome.answer == "rich" and len(outcome.failures) == 2


async def test_a_judges_calls_are_planned_made_and_billed_to_its_stage() -> None:
    models = {
        "default": replies("a", "b", "c"),
        "judge": Scripted(reply=lambda call: "yes", identity="judge"),
    }
    stage = Verify(verifier=Judge())
    assert stage.models == ("judge",)
    assert stage.plan(Count(3, 3)) == (Count(6, 6), Count(3, 3))
    outcome, _ = await solved(Sample(n=3) | stage, models)
    assert {name: u.requests for name, u in outcome.by_stage.items()} == {"sample": 3, "verify": 6}
    assert {name: u.requests for name, u in outcome.by_model.items()} == {"default": 3, "judge": 6}


async def test_a_verifier_can_be_named_and_a_wrong_name_is_an_error() -> None:
    named: Any = "unit_tests"
    assert Verify(verifier=named) == Verify(verifier=UnitTests())
    settings_: Any = {"unit_tests": {"stop_at_first_failure": True}}
    assert Verify(verifier=settings_).verifier == UnitTests(stop_at_first_failure=True)
    wrong: Any = "unit_test"
    with pytest.raises((ConfigError, UnknownName, ValidationError), match="unit_tests"):
        Verify(verifier=wrong)
    with pytest.raises(ValidationError):
        Verify(verifier=UnitTests(), ahead=0)


async def test_a_verdict_too_few_is_an_error_and_never_shifts_the_others() -> None:
    class Short(Verifier):
        async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
            return [Verdict(self.name, True)][: len(candidates[0].text)]

    with pytest.raises(ArchonError, match="'short' gave 0 verdicts for 1 candidates"):
        await solved(Sample(n=3) | Verify(verifier=Short()), replies("x", "", "x"))


def test_ten_thousand_are_judged_and_the_best_is_found() -> None:
    class Index(Verifier):
        scale = "count"

        async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
            return [Verdict(self.name, None, float(c.index % 9_973)) for c in candidates]

    model = Scripted(reply=lambda call: Reply("x", latency=0.001), identity="many")
    pipeline = Sample(n=10_000) | Verify(verifier=Index()) | BestOf()
    outcome, _ = patiently(solved(pipeline, model, store=InstantStore()))
    assert ids(outcome.final) == [9_972]
    assert all("index" in c.verdicts for c in outcome.candidates)


def test_a_verifier_that_likes_batches_gets_them_where_candidates_wait() -> None:
    outcome, _ = patiently(
        solved(Sample(n=8) | Verify(verifier=Together(), ahead=8), replies(*"abcdefgh"), store=InstantStore())
    )
    sizes = [c.verdicts["together"].score for c in outcome.final]
    assert max(sizes, key=lambda s: s or 0) == 4.0


def test_ahead_counts_candidates_in_batches_too() -> None:
    AT_WORK[:] = [0, 0]
    texts = ["1"] * 40
    pipeline = Sample(n=len(texts)) | Verify(verifier=UnevenBatches(), ahead=4)
    outcome, _ = patiently(solved(pipeline, replies(*texts), store=InstantStore()))
    assert all(c.accepted for c in outcome.final)
    assert AT_WORK[1] <= 4


@settings(max_examples=60, deadline=None)
@given(
    pauses=st.lists(st.sampled_from(["0", "1", "2.5"]), max_size=12),
    order=st.permutations(range(12)),
    ahead=st.integers(1, 5),
)
def test_in_batches_too_every_candidate_gets_its_own_verdict_in_its_place(
    pauses: list[str], order: list[int], ahead: int
) -> None:
    pipeline = Sample(n=len(pauses)) | Verify(verifier=UnevenBatches(), ahead=ahead) | Arrivals()
    model = replies(*pauses, latencies=[0.1 * place for place in order])
    outcome, _ = patiently(solved(pipeline, model, store=InstantStore()))
    assert ids(outcome.final) == sorted(range(len(pauses)), key=lambda i: order[i])
    assert [c.verdicts["uneven_batches"].score for c in outcome.final] == ids(outcome.final)
