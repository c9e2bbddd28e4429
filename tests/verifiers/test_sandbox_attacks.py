"""No program that only tries to look right is a pass, and none spoils the run of the one after it (D8)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from archon.benchmarks.hostile.forgeries import QUICK
from archon.execution import Limits, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import CASES, CHECK, PATIENT, RIGHT, SHORT, opened, program

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATUSES = {"wrong", "failed", "timed_out", "violation"}
BRIEF = Limits(cpu_seconds=0.3, wall_seconds=0.3)


async def refused(sandbox: Sandbox, source: str, suite: Suite, limits: Limits) -> None:
    report = await sandbox.test(program(source), suite, limits)
    assert report.status in STATUSES, report
    assert len(report.tests) == len(suite)
    assert report.passed < len(report.tests)
    assert all(len(test.detail) < 1000 for test in report.tests)


async def unspoiled(sandbox: Sandbox) -> None:
    report = await sandbox.test(program(RIGHT), CASES, PATIENT)
    assert report.status == "passed", report


@pytest.mark.parametrize("source", QUICK.values(), ids=QUICK)
async def test_an_attack_is_not_a_pass_and_spoils_nothing(sandbox: Sandbox, source: str) -> None:
    await refused(sandbox, source, CASES, SHORT)
    await refused(sandbox, source, CHECK, SHORT)
    await unspoiled(sandbox)


async def test_a_forged_frame_is_only_another_way_to_return_a_value(sandbox: Sandbox) -> None:
    forged = (
        "import os, struct\ndef f(x):\n"
        "    value = b'i' + struct.pack('>I', 1) + bytes([x + {add}])\n"
        "    body = b'f' + bytes(8) + value\n"
        "    os.write(3, struct.pack('>IB', len(body), 4) + body)\n"
        "    os.read(3, 5)\n    os._exit(0)"
    )
    one = Suite(cases=(Case(args=(1,), expected=2),))
    assert (await sandbox.test(program(forged.replace("{add}", "1")), one, PATIENT)).status == "passed"
    assert (await sandbox.test(program(forged.replace("{add}", "2")), one, PATIENT)).status == "wrong"


async def test_answers_given_before_the_questions_count_for_nothing_more(sandbox: Sandbox) -> None:
    early = (
        "import os, struct\n"
        "body = b'f' + bytes(8) + b'i\\0\\0\\0\\1\\1'\n"
        "os.write(3, struct.pack('>IB', 0, 2) + (struct.pack('>IB', len(body), 4) + body) * 4)\n"
        "def f(x): return 0"
    )
    report = await sandbox.test(program(early), CASES, PATIENT)
    assert report.status == "wrong" and report.passed == 1  # 1 is right for 0, and only for 0
    assert (await sandbox.test(program(early), CHECK, SHORT)).status in STATUSES


async def test_far_more_items_than_expected_are_wrong_and_not_read(sandbox: Sandbox) -> None:
    for value in ("[b''] * 10**5", "[1] * 10**5", "{i: [] for i in range(10**5)}", "[[[0]] * 100] * 1000"):
        report = await sandbox.test(program(f"def f(x): return {value}"), CASES, PATIENT)
        assert {t.status for t in report.tests} == {"wrong"}
        assert "more than 20000 items, expected 1" in report.tests[0].detail


async def test_as_many_items_as_expected_are_read_however_many(sandbox: Sandbox) -> None:
    expected = [0.5, b""] * 50_000
    suite = Suite(cases=(Case(expected=expected, alternatives=([*expected, 1],)),))
    almost = "def f(): return [0.5, bytearray()] * 50_000"
    assert (await sandbox.test(program(almost), suite, PATIENT)).status == "passed"
    assert (await sandbox.test(program(f"{almost} + [1]"), suite, PATIENT)).status == "passed"
    assert (await sandbox.test(program(f"{almost} + [2]"), suite, PATIENT)).status == "wrong"


async def test_an_exception_described_at_length_is_not_read(sandbox: Sandbox) -> None:
    endless = (
        "import os, struct\ndef f(x):\n    n = 5 * 2**20\n    body = b'l' + struct.pack('>I', n) + b'N' * n\n"
        "    data = memoryview(struct.pack('>IB', len(body), 5) + body)\n"
        "    while data: data = data[os.write(3, data):]\n    os.read(3, 1)"
    )
    report = await sandbox.test(program(endless), CASES, PATIENT, stop_at_first_failure=True)
    assert report.tests[0].status == "failed" and "did not describe" in report.tests[0].detail


@pytest.mark.slow
async def test_what_one_program_answers_costs_another_no_time(scratch: Path) -> None:
    heavy = (
        "import os, struct, time\ndef f(x):\n    time.sleep(0.2)\n    n = 12 * 2**20\n"
        "    body = b'f' + bytes(8) + b'l' + struct.pack('>I', n) + b'N' * n\n"
        "    data = memoryview(struct.pack('>IB', len(body), 4) + body)\n"
        "    while data: data = data[os.write(3, data):]\n    os.read(3, 1)"
    )
    patient = "import time\ndef f(x):\n    time.sleep(1.5)\n    return x + 1"
    one = Suite(cases=CASES.cases[:1])
    async with opened(2) as sandbox:
        await asyncio.gather(*(sandbox.test(program(RIGHT), CASES, PATIENT) for _ in range(4)))
        wrong, right = await asyncio.gather(
            sandbox.test(program(heavy), one, PATIENT),
            sandbox.test(program(patient), one, Limits(cpu_seconds=1, wall_seconds=2.5)),
        )
    assert wrong.status == "wrong"
    assert right.status == "passed", right
