"""`Session.test_many`: equal programs run once, results are remembered, a cancelled tester is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from archon.errors import ExecutionError
from archon.execution import Call, Limits, Program, Returned, Suite, TestReport, TestResult
from archon.problem import Case
from archon.session import Session

LIMITS = Limits()
SUITE = Suite(cases=(Case(args=(1,), expected=2),))


class Counting:
    """An executor that writes down what it runs; a program passes where its source says so."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.hold: asyncio.Event | None = None
        self.fault: Exception | None = None
        self.closed = False

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        self.ran.append(program.source)
        if self.hold is not None:
            await self.hold.wait()
        if self.fault is not None:
            raise self.fault
        status = "passed" if "good" in program.source else "wrong"
        result = TestResult(status, "" if status == "passed" else "got 1")  # type: ignore[arg-type]
        return TestReport(status, (result,), 0.25, 10.5)  # type: ignore[arg-type]

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        raise AssertionError("not asked")

    async def close(self) -> None:
        self.closed = True


def program(source: str, **fields: bool) -> Program:
    return Program(source=source, entry_point="f", **fields)


async def test_equal_programs_run_once_and_results_come_in_order() -> None:
    executor = Counting()
    async with Session(executor=executor) as session:
        programs = [program(s) for s in ("good", "bad", "good", "bad", "good")]
        reports = await session.test_many(programs, SUITE, LIMITS)
    assert [r.status for r in reports] == ["passed", "wrong", "passed", "wrong", "passed"]
    assert sorted(executor.ran) == ["bad", "good"]
    assert not executor.closed, "whoever opened it closes it"


async def test_nothing_to_test_gives_nothing() -> None:
    async with Session(executor=Counting()) as session:
        assert await session.test_many([], SUITE, LIMITS) == []


async def test_a_result_is_remembered_whole_in_the_store() -> None:
    first, second = Counting(), Counting()
    async with Session(executor=first, store="s.sqlite") as session:
        report = await session.test(program("bad"), SUITE, LIMITS)
    async with Session(executor=second, store="s.sqlite") as session:
        assert await session.test(program("bad"), SUITE, LIMITS) == report
    assert (first.ran, second.ran) == (["bad"], [])
    assert report.tests == (TestResult("wrong", "got 1"),)


@pytest.mark.parametrize(
    ("suite", "limits", "packages", "stop"),
    [
        (Suite(cases=(Case(args=(1,), expected=3),)), LIMITS, False, False),
        (Suite(cases=(Case(args=(1,), expected=2.0),)), LIMITS, False, False),
        (Suite(cases=(Case(args=(True,), expected=2),)), LIMITS, False, False),
        (Suite(cases=(Case(args=(1,), expected=2, tolerance=0.1),)), LIMITS, False, False),
        (Suite(cases=SUITE.cases, check="def check(c): pass"), LIMITS, False, False),
        (Suite(cases=SUITE.cases, namespace="import math"), LIMITS, False, False),
        (SUITE, Limits(cpu_seconds=1), False, False),
        (SUITE, LIMITS, True, False),
        (SUITE, LIMITS, False, True),
    ],
)
async def test_whatever_may_change_the_result_is_tested_anew(
    suite: Suite, limits: Limits, packages: bool, stop: bool
) -> None:
    executor = Counting()
    async with Session(executor=executor) as session:
        await session.test(program("good"), SUITE, LIMITS)
        await session.test(program("good", packages=packages), suite, limits, stop_at_first_failure=stop)
    assert executor.ran == ["good", "good"]


async def test_who_asks_for_what_is_being_tested_waits_for_it() -> None:
    executor = Counting()
    executor.hold = asyncio.Event()
    async with Session(executor=executor) as session:
        asking = [asyncio.ensure_future(session.test(program("good"), SUITE, LIMITS)) for _ in range(5)]
        while not executor.ran:
            await asyncio.sleep(0.001)
        executor.hold.set()
        reports = await asyncio.gather(*asking)
    assert executor.ran == ["good"]
    assert {r.status for r in reports} == {"passed"}


async def test_if_the_one_who_tests_is_cancelled_another_takes_over() -> None:
    executor = Counting()
    executor.hold = asyncio.Event()
    async with Session(executor=executor) as session, asyncio.timeout(300):
        first = asyncio.ensure_future(session.test(program("good"), SUITE, LIMITS))
        while not executor.ran:
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(session.test(program("good"), SUITE, LIMITS)) for _ in range(3)]
        await asyncio.sleep(0.02)
        first.cancel()
        while len(executor.ran) < 2:
            await asyncio.sleep(0.001)
        executor.hold.set()
        reports = await asyncio.gather(*others)
    assert first.cancelled()
    assert executor.ran == ["good", "good"]
    assert all(r.status == "passed" for r in reports)


async def test_a_broken_machine_is_an_error_and_is_not_remembered_as_a_result() -> None:
    executor = Counting()
    executor.fault = ExecutionError("no more processes")
    async with Session(executor=executor) as session:
        with pytest.raises(ExecutionError):
            await session.test(program("good"), SUITE, LIMITS)
        executor.fault = None
        assert (await session.test(program("good"), SUITE, LIMITS)).status == "passed"


def test_what_is_equal_has_one_digest_whatever_the_order_of_a_set() -> None:
    one = Suite(cases=(Case(args=({"a", "b", "c", "d"},), expected=10**5000),))
    other = Suite(cases=(Case(args=({"d", "c", "b", "a"},), expected=10**5000),))
    assert one.digest == other.digest
    assert one.digest != Suite(cases=(Case(args=(["a", "b", "c", "d"],), expected=10**5000),)).digest


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (1, 1.0), ("1", 1), ([1], (1,)), ("a", b"a"), (None, "None")]
)
def test_values_that_are_only_alike_have_digests_of_their_own(one: object, other: object) -> None:
    def suite(value: object) -> Suite:
        return Suite(cases=(Case(args=(), expected=value),))

    assert suite(one).digest != suite(other).digest


def test_the_parts_of_a_suite_do_not_run_into_each_other() -> None:
    assert Suite(check="ab", namespace="c").digest != Suite(check="a", namespace="bc").digest
    assert program("x").digest != Program(source="xf", entry_point="").digest
