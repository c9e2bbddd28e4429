"""Agreement by execution: groups by the tests that candidates pass, clusters by what they return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Outcome, Verdict
from archon.execution import Limits
from archon.problem import Problem
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.testing import VerifierCases
from archon.testing.stages import verified_samples
from archon.verifier import Verifier
from archon.verifiers.execution_agreement import BehaviourClusters, ExecutionAgreement
from tests.verifiers.test_generated_tests import PROBLEM, TESTS, writer
from tests.verifiers.test_unit_tests import GOOD, reply

SAME = reply("return 1 + x")
SMALL = reply("return 2 if x == 1 else 0")
RAISES = reply("return 1 // 0")
BRIEF = Limits(cpu_seconds=0.5)


class TestExecutionAgreement(VerifierCases):
    good = GOOD
    bad = RAISES

    def make_verifier(self) -> Verifier:
        return ExecutionAgreement(model="writer", n=1, weigh="sqrt", repeats=False, packages=False)

    def problem(self) -> Problem:
        return PROBLEM

    def models(self) -> Mapping[str, Model]:
        return {"writer": writer(TESTS)}


class TestBehaviourClusters(TestExecutionAgreement):
    def make_verifier(self) -> Verifier:
        return BehaviourClusters(model="writer", n=1, packages=False)


async def solved(
    verifier: Verifier, *replies: str, tests: Model, problem: Problem = PROBLEM, store: Any = None
) -> Outcome:
    models = {"default": Scripted(replies={"*": replies}), "writer": tests}
    async with Session(models=models, store=store) as session:
        return await session.solve(verified_samples(len(replies), verifier) | BestOf(), problem)


async def verdicts(verifier: Verifier, *replies: str, tests: Model, **more: Any) -> list[Verdict]:
    outcome = await solved(verifier, *replies, tests=tests, **more)
    return [c.verdicts[verifier.name] for c in outcome.candidates]


async def test_the_score_is_solutions_times_tests() -> None:
    verifier = ExecutionAgreement(model="writer", n=1, limits=BRIEF)
    found = await verdicts(verifier, SMALL, GOOD, SAME, GOOD, SMALL, RAISES, "", tests=writer(TESTS))
    assert [v.score for v in found] == [4, 12, 12, 12, 4, 0, 0]  # SMALL: f(1) and f(-1), by 2 candidates
    assert [v.accepted for v in found] == [False, True, True, True, False, False, False]
    assert {v.status for v in found} == {"passed", "wrong"}
    assert "3 candidates" in found[1].detail


async def test_the_authors_code_takes_the_root_of_the_solutions() -> None:
    verifier = ExecutionAgreement(model="writer", n=1, weigh="sqrt")
    found = await verdicts(verifier, SMALL, GOOD, SAME, SMALL, SMALL, tests=writer(TESTS))
    assert [v.score for v in found] == [
        pytest.approx(s) for s in (12**0.5, 32**0.5, 32**0.5, 12**0.5, 12**0.5)
    ]
    assert found[1].score == pytest.approx(math.sqrt(2) * 4)


async def test_a_test_counts_as_often_as_it_was_written_unless_it_must_not() -> None:
    tests = writer(
        "assert f(1) == 5", "assert f(1) == 5", "assert f(1) == 5", "assert f(1) == 2\nassert f(2) == 3"
    )
    wrong = reply("return 5")
    often = await solved(ExecutionAgreement(model="writer", n=4), GOOD, wrong, tests=tests)
    once = await solved(ExecutionAgreement(model="writer", n=4, repeats=False), GOOD, wrong, tests=tests)
    assert often.answer == wrong and once.answer == GOOD


async def test_agreement_outvotes_what_no_other_candidate_backs() -> None:
    tests = writer(TESTS + "\nassert f(3) == 0\nassert f(4) == 0")
    alone = reply("return {3: 0, 4: 0}.get(x, x + 1)")
    outcome = await solved(
        ExecutionAgreement(model="writer", n=1, per_reply=9), alone, GOOD, SAME, tests=tests
    )
    assert outcome.answer == GOOD


async def test_candidates_that_return_the_same_are_a_cluster_whatever_tests_expect() -> None:
    tests = writer("assert f(1) == 77\nassert f(2) == 78\nassert f(2) == 79")
    found = await verdicts(
        BehaviourClusters(model="writer", n=1), SMALL, GOOD, SAME, RAISES, RAISES, RAISES, "", tests=tests
    )
    assert [v.score for v in found] == [1, 2, 2, 0, 0, 0, 0]
    assert [v.accepted for v in found] == [False, True, True, False, False, False, False]


async def test_a_value_is_told_from_one_that_only_equals_it() -> None:
    found = await verdicts(
        BehaviourClusters(model="writer", n=1),
        reply("return 1"),
        reply("return True"),
        reply("return 1.0"),
        tests=writer("assert f(1) == 1"),
    )
    assert [v.score for v in found] == [1, 1, 1]


@pytest.mark.parametrize("kind", [ExecutionAgreement, BehaviourClusters])
async def test_an_input_that_hangs_does_not_take_those_behind_it_along(kind: type[Verifier]) -> None:
    hangs = reply("while x == 2: pass\n    return x + 1")
    other = reply("while x == 2: pass\n    return x + 1 if x < 9 else 0")
    verifier = kind(model="writer", n=1, limits=BRIEF)  # type: ignore[call-arg]
    found = await verdicts(verifier, hangs, hangs, other, tests=writer(TESTS))
    assert found[0].score != found[2].score


@pytest.mark.parametrize("kind", [ExecutionAgreement, BehaviourClusters])
async def test_it_is_undecided_where_there_is_nothing_to_agree_on(kind: type[Verifier]) -> None:
    verifier = kind(model="writer", n=1)  # type: ignore[call-arg]
    for tests, replies in (("none", (GOOD,)), (TESTS, (RAISES, ""))):
        for verdict in await verdicts(verifier, *replies, tests=writer(tests)):
            assert (verdict.accepted, verdict.score, verdict.status) == (None, None, "undecided")
    prose = Problem.ask("Why?", id="q")
    (verdict,) = await verdicts(verifier, "so", tests=writer(TESTS), problem=prose)
    assert verdict.accepted is None and verdict.detail


@pytest.mark.parametrize("kind", [ExecutionAgreement, BehaviourClusters])
async def test_it_asks_once_and_runs_equal_programs_once(kind: type[Verifier], tmp_path: Path) -> None:
    verifier = kind(model="writer", n=2)  # type: ignore[call-arg]
    store = tmp_path / "store.sqlite"
    first = await solved(verifier, GOOD, GOOD, SMALL, tests=writer(TESTS), store=store)
    assert first.by_model["writer"].requests == 2
    again = await solved(verifier, GOOD, GOOD, SMALL, tests=writer(TESTS), store=store)
    assert again.fresh.requests == 0
    assert [dict(c.verdicts) for c in first.candidates] == [dict(c.verdicts) for c in again.candidates]
    plan = verified_samples(3, verifier).graph().plan()
    assert [p.calls.high for p in plan.values()] == [3, 2]
