"""Programs run as a whole: text in, text out, and its end; compared word by word."""

from __future__ import annotations

import pytest

from archon.benchmarks.hostile.forgeries import QUICK, VERDICT
from archon.execution import Exchange, Limits, Program, Suite
from archon.execution import TestReport as Report
from archon.verifiers.sandbox import Sandbox
from archon.verifiers.sandbox.output import differs
from tests.verifiers.cell import PATIENT, SHORT

pytestmark = pytest.mark.asyncio(loop_scope="module")

TWICE = Suite(exchanges=tuple(Exchange(stdin=f"{i}\n", stdout=f"{2 * i}\n") for i in (1, 21)))


async def ran(sandbox: Sandbox, source: str, suite: Suite = TWICE, limits: Limits = PATIENT) -> Report:
    return await sandbox.test(Program(source=source, entry_point=""), suite, limits)


RIGHT = {
    "input and print": "print(2 * int(input()))",
    "a main program": "def main(): print(2 * int(input()))\nif __name__ == '__main__': main()",
    "buffers": "import sys\nsys.stdout.buffer.write(b'%d' % (2 * int(sys.stdin.buffer.read())))",
    "open(0)": "print(2 * int(open(0).read()))",
    "descriptors": "import os\nos.write(1, str(2 * int(os.read(0, 99))).encode())\nos._exit(0)",
    "lines": "import sys\nfor line in sys.stdin: print(2 * int(line), end='   \\n\\n')",
    "a deliberate end": "import sys\nprint(2 * int(input()))\nsys.exit()",
    "exit": "print(2 * int(input()))\nexit()",
    "a thread": "import threading\nthreading.Thread(target=lambda: print(2 * int(input()))).start()",
    "at the end": "import atexit\natexit.register(lambda: print(2 * int(input())))",
    "no state kept": "import os\nprint(2 * int(input()) if not os.listdir() else 0)\nopen('left', 'w').close()",
}  # fmt: skip
NOT = {
    "wrong": ("print(int(input()))", "wrong", "word 1 is '1', expected '2'"),
    "nothing printed": ("input()", "wrong", "printed 0 words, expected 1"),
    "too much printed": ("print(2 * int(input()), 1)", "wrong", "printed 2 words, expected 1"),
    "an exception after the answer": ("print(2 * int(input()))\n1 / 0", "failed", "ZeroDivisionError"),
    "an exit code after the answer": ("print(2 * int(input()))\nexit(3)", "failed", "exit code 3"),
    "a signal": ("import os\nos.kill(os.getpid(), 9)", "failed", "signal 9"),
    "no syntax": ("print(", "failed", "SyntaxError"),
    "more input than there is": ("input()\ninput()", "failed", "EOFError"),
    "a verdict of its own": (f"import os\nos.write(3, {VERDICT!r})\nos.write(1, {VERDICT!r})", "wrong", ""),
    "every descriptor closed": ("import os\nos.closerange(0, 99)\nos._exit(0)", "wrong", "0 words"),
    "its input rewritten": ("import os\nprint(2 * int(input()))\nos.pwrite(0, b'2', 0)", "failed", "PermissionError"),
    "endless": ("while True: pass", "timed_out", "CPU"),
    "waiting": ("import time\ntime.sleep(99)", "timed_out", "waiting"),
    "endless output": ("while True: print('2')", "violation", "more than 1 MB"),
    "too much memory": ("bytes(2**40)", "violation", "MemoryError"),
}  # fmt: skip


@pytest.mark.parametrize("source", RIGHT.values(), ids=RIGHT)
async def test_however_a_program_reads_and_prints_it_is_right(sandbox: Sandbox, source: str) -> None:
    report = await ran(sandbox, source)
    assert report.status == "passed" and report.passed == 2, report
    assert report.cpu_seconds > 0 and report.peak_mb > 1


@pytest.mark.parametrize(("source", "status", "detail"), NOT.values(), ids=NOT)
async def test_each_way_not_to_be_right_has_its_status(
    sandbox: Sandbox, source: str, status: str, detail: str
) -> None:
    limits = (
        Limits(cpu_seconds=1, wall_seconds=2 if detail == "waiting" else 300, output_mb=1)
        if status in ("timed_out", "violation")
        else PATIENT
    )
    report = await ran(sandbox, source, limits=limits)
    assert report.status == status, report
    assert len(report.tests) == 2 and detail in report.tests[0].detail


@pytest.mark.parametrize("source", QUICK.values(), ids=QUICK)
async def test_no_attack_prints_its_way_to_a_pass(sandbox: Sandbox, source: str) -> None:
    suite = Suite(exchanges=TWICE.exchanges[:1])
    assert (await ran(sandbox, f"{source}\nprint(f(1))", suite, SHORT)).status != "passed"


async def test_a_long_input_and_a_long_output_arrive(sandbox: Sandbox) -> None:
    text = "\n".join(map(str, range(200_000)))
    suite = Suite(exchanges=(Exchange(stdin=text, stdout=text),))
    assert (await ran(sandbox, "import sys\nsys.stdout.write(sys.stdin.read())", suite)).status == "passed"


async def test_stopping_at_the_first_failure_skips_the_rest(sandbox: Sandbox) -> None:
    program = Program(source="print(0)", entry_point="")
    report = await sandbox.test(program, TWICE, PATIENT, stop_at_first_failure=True)
    assert [t.status for t in report.tests] == ["wrong", "skipped"]


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("1 2\n3", "1 2 3", 0, True),
        ("2.0", "2", 0, True),
        ("2.0000001", "2", 0, False),
        ("02", "2", 0, False),
        ("3", "2", 0, False),
        ("3", "2", 1, True),
        ("0.3333333", "0.33333333", 0, True),
        ("0.3334", "0.33333333", 0, False),
        ("0.3334", "0.33333333", 1e-3, True),
        ("1e3", "1000.0", 0, True),
        ("nan", "nan", 0, True),
        ("nan", "1.0", 0, False),
        ("1e999", "1.0", 0, False),
        ("inf", "1e999", 0, False),
        ("Yes", "YES", 0, False),
        ("1_0.0", "10.0", 0, False),
        ("٣.0", "3.0", 0, False),
        ("", "", 0, True),
        ("a", "", 0, False),
        ("1000000000.5", "1000000000.0", 0, True),
    ],
)
async def test_printed_text_is_compared_word_by_word(
    printed: str, expected: str, tolerance: float, same: bool
) -> None:
    assert (differs(printed.encode(), expected, tolerance) == "") is same


async def test_suites_without_exchanges_are_remembered_as_before() -> None:
    assert Suite(check="x").digest == Suite(check="x", exchanges=()).digest
    assert len({TWICE.digest, Suite().digest, Suite(exchanges=TWICE.exchanges[:1]).digest}) == 3
