"""The verifier of visible tests: its verdicts, their reasons, and when it has nothing to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.candidate import Verdict
from archon.errors import StageFailed
from archon.execution import Call, Limits, Program, Returned, Suite
from archon.execution import TestReport as Report
from archon.execution import TestResult as Result
from archon.execution import TestStatus as Status
from archon.problem import Case, Message, Problem
from archon.session import Session
from archon.testing import VerifierCases
from archon.testing.stages import verified_samples
from archon.verifier import Verifier
from archon.verifiers.unit_tests import UnitTests

TESTS = tuple(Case(args=(i,), expected=i + 1) for i in range(4))
PROBLEM = Problem(
    id="p",
    messages=(Message(role="user", content="Write f."),),
    answer="code",
    entry_point="f",
    tests=TESTS,
)
GOOD = "```python\ndef f(x):\n    return x + 1\n```"


def reply(body: str) -> str:
    return f"```python\ndef f(x):\n    {body}\n```"


class TestUnitTests(VerifierCases):
    good = GOOD
    bad = reply("return x")

    def make_verifier(self) -> Verifier:
        return UnitTests(stop_at_first_failure=True, packages=False, limits=Limits(cpu_seconds=1))

    def problem(self) -> Problem:
        return PROBLEM


class Told:
    """An executor that gives one report for every program, and writes down what it was asked."""

    def __init__(self, *statuses: Status, detail: str = "why") -> None:
        first: Status = next((s for s in statuses if s != "passed"), "passed")
        tests = tuple(Result(s, "" if s in ("passed", "skipped") else detail) for s in statuses)
        self.report = Report(first, tests)
        self.asked: list[tuple[Program, Suite, Limits, bool]] = []

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> Report:
        self.asked.append((program, suite, limits, stop_at_first_failure))
        return self.report

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        raise AssertionError("not asked")

    async def close(self) -> None:
        pass


async def verdicts(
    *replies: str,
    verifier: UnitTests | None = None,
    problem: Problem = PROBLEM,
    executor: Told | None = None,
    **settings: Any,
) -> list[Verdict]:
    judge = verifier or UnitTests()
    model = Scripted(replies={"*": replies})
    async with Session(models={"default": model}, executor=executor, **settings) as session:
        outcome = await session.solve(verified_samples(len(replies), judge), problem)
    return [c.verdicts[judge.name] for c in outcome.candidates]


async def test_the_score_is_the_fraction_of_tests_passed() -> None:
    partly = reply("return x + 1 if x < 3 else 0")
    raising = reply("return x + 1 if x == 2 else 1 // 0")
    right, most, quarter, none = await verdicts(GOOD, partly, raising, reply("return None"))
    assert [v.score for v in (right, most, quarter, none)] == [1.0, 0.75, 0.25, 0.0]
    assert [v.accepted for v in (right, most, quarter, none)] == [True, False, False, False]
    assert [v.status for v in (right, most, quarter, none)] == ["passed", "wrong", "failed", "wrong"]
    assert {v.scale for v in (right, most)} == {"fraction"}
    assert right.detail == "" and "4" in most.detail and "ZeroDivisionError" in quarter.detail


@pytest.mark.parametrize(
    ("statuses", "status", "score"),
    [
        (("passed", "passed", "passed", "passed"), "passed", 1.0),
        (("passed", "wrong", "passed", "passed"), "wrong", 0.75),
        (("passed", "failed", "wrong", "passed"), "failed", 0.5),
        (("timed_out", "skipped", "skipped", "skipped"), "timed_out", 0.0),
        (("passed", "timed_out", "skipped", "skipped"), "timed_out", 0.25),
        (("violation", "skipped", "skipped", "skipped"), "failed", 0.0),
        (("wrong", "wrong", "wrong", "violation"), "wrong", 0.0),
    ],
)
async def test_the_ways_not_to_pass_stay_distinct(
    statuses: tuple[Status, ...], status: str, score: float
) -> None:
    (verdict,) = await verdicts(GOOD, executor=Told(*statuses))
    assert (verdict.status, verdict.score) == (status, score)
    assert verdict.accepted is (status == "passed")
    assert verdict.detail == ("" if status == "passed" else "why")
    assert verdict.verifier == "unit_tests"


async def test_a_program_that_takes_too_long_is_timed_out_not_wrong() -> None:
    brief = UnitTests(limits=Limits(cpu_seconds=0.3, wall_seconds=20))
    (verdict,) = await verdicts(reply("while True: pass"), verifier=brief)
    assert (verdict.status, verdict.accepted, verdict.score) == ("timed_out", False, 0.0)


@pytest.mark.parametrize("text", ["", " \n", "\n\n\t"])
async def test_a_reply_without_a_program_is_wrong_and_runs_nothing(text: str) -> None:
    executor = Told("passed")
    (verdict,) = await verdicts(text, executor=executor)
    assert (verdict.accepted, verdict.score, verdict.status) == (False, 0.0, "wrong")
    assert verdict.detail and executor.asked == []


async def test_prose_is_no_program_that_passes() -> None:
    for verdict in await verdicts(
        "I cannot do that.", "```\n\n```", "```js\nfunction f(x) {}\n```", "def f(x"
    ):
        assert verdict.accepted is False and verdict.score == 0.0


# --- nothing to say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"tests": ()}, {"entry_point": None}, {"tests": (), "answer": "text"}])
async def test_without_tests_it_is_undecided_and_runs_nothing(change: dict[str, Any]) -> None:
    executor = Told("passed")
    given = await verdicts(GOOD, "", problem=PROBLEM.model_copy(update=change), executor=executor)
    for verdict in given:
        assert (verdict.accepted, verdict.score, verdict.status) == (None, None, "undecided")
        assert verdict.detail
    assert len(given) == 2 and executor.asked == []


def test_it_applies_where_there_are_tests() -> None:
    assert UnitTests().applies(PROBLEM)
    assert not UnitTests().applies(PROBLEM.model_copy(update={"tests": ()}))


def test_it_does_not_apply_where_it_can_say_nothing() -> None:
    assert not UnitTests().applies(PROBLEM.model_copy(update={"entry_point": None}))


# --- what it asks of the sandbox ---------------------------------------------------------------------


async def test_its_settings_reach_the_sandbox() -> None:
    limits = Limits(cpu_seconds=3, memory_mb=64)
    for packages in (True, False):
        for stop in (True, False):
            executor = Told("passed", "passed", "passed", "passed")
            verifier = UnitTests(limits=limits, packages=packages, stop_at_first_failure=stop)
            await verdicts(GOOD, verifier=verifier, executor=executor)
            ((program, suite, used, stopping),) = executor.asked
            assert (program.entry_point, program.packages) == ("f", packages)
            assert "return x + 1" in program.source
            assert (suite.cases, suite.check, used, stopping) == (TESTS, None, limits, stop)


async def test_stopping_at_the_first_failure_changes_no_verdict() -> None:
    replies = (GOOD, reply("return x + 1 if x != 1 else 0"), reply("return 1 // x"))
    whole = await verdicts(*replies, verifier=UnitTests())
    short = await verdicts(*replies, verifier=UnitTests(stop_at_first_failure=True))
    assert [(v.accepted, v.status) for v in whole] == [(v.accepted, v.status) for v in short]
    assert [v.score for v in whole] == [1.0, 0.75, 0.0]
    assert [v.score for v in short] == [1.0, 0.25, 0.0]


async def test_packages_are_there_unless_they_are_refused() -> None:
    text = "```python\nimport numpy\ndef f(x):\n    return int(numpy.int64(x) + 1)\n```"
    (there,) = await verdicts(text)
    (absent,) = await verdicts(text, verifier=UnitTests(packages=False))
    assert there.accepted is True
    assert (absent.accepted, absent.status) == (False, "failed")


async def test_a_raw_continuation_is_judged_with_its_prompt() -> None:
    prompt = "from math import floor\n\ndef f(x):\n    "
    problem = PROBLEM.model_copy(update={"prompt": prompt, "stop": ("\ndef",)})
    first, second = await verdicts("return floor(x) + 1\ndef g(): no", "return floor(x)", problem=problem)
    assert (first.accepted, second.accepted) == (True, False)


async def test_equal_programs_run_once() -> None:
    executor = Told("passed", "passed", "passed", "passed")
    given = await verdicts(GOOD, GOOD, GOOD, executor=executor)
    assert len(executor.asked) == 1 and {v.accepted for v in given} == {True}


async def test_a_broken_sandbox_is_an_error_and_not_a_verdict() -> None:
    class Broken(Told):
        async def test(self, *args: Any, **kwargs: Any) -> Report:
            raise OSError("no more processes")

    with pytest.raises((StageFailed, OSError)):
        await verdicts(GOOD, executor=Broken("passed"))


async def test_it_calls_no_model() -> None:
    assert UnitTests().models == () and UnitTests().calls_per_candidate == 0
