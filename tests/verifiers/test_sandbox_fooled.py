"""Attacks seen from other sides: evaluating them, every rule of comparison, and checks that are easily fooled."""

from __future__ import annotations

import pytest

from archon.benchmarks.hostile.forgeries import EQUALITY, EXCEPTIONS, EXITS, FRAMES, SLOW
from archon.execution import Call, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import ASSERTS, CASES, CHECK, FORMS, PATIENT, RIGHT, SHORT, program
from tests.verifiers.test_sandbox_attacks import BRIEF, STATUSES, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINITE = {name: source for name, source in EQUALITY.items() if name not in SLOW}
SPEAKING = {name: source for name, source in {**EXITS, **EXCEPTIONS, **FRAMES}.items() if name not in SLOW}


@pytest.mark.parametrize("source", SPEAKING.values(), ids=SPEAKING)
async def test_evaluating_an_attack_gives_data_and_spoils_nothing(sandbox: Sandbox, source: str) -> None:
    calls = [Call(args=(i,)) for i in range(4)]
    returned = await sandbox.evaluate(program(source), calls, SHORT)
    assert len(returned) == 4
    for one in returned:
        assert one.status in {"returned", "failed", "timed_out", "violation", "skipped"}
        assert one.seconds >= 0 and len(one.detail) < 1000
        assert type(one.value).__module__ in ("builtins", "archon.verifiers.sandbox.wire")
    assert (await sandbox.evaluate(program(RIGHT), calls, PATIENT))[3].value == 4


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import os\nos._exit(0)", "failed"),
        ("def f(x): raise SystemExit(0)", "failed"),
        ("def f(x): raise AssertionError", "failed"),
        ("def f(x): raise StopIteration", "failed"),
        ("class E(Exception):\n    def __str__(self): return None\ndef f(x): raise E", "failed"),
        ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", "wrong"),
        ("def f(x):\n    while True: pass", "timed_out"),
        ("import time\ndef f(x): time.sleep(1000)", "timed_out"),
        ("import time\ntime.sleep(1000)", "timed_out"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
async def test_the_ways_not_to_be_right_stay_distinct(
    sandbox: Sandbox, source: str, status: str, form: str
) -> None:
    limits = BRIEF if status == "timed_out" else PATIENT
    assert (await sandbox.test(program(source), FORMS[form], limits)).status == status


@pytest.mark.parametrize("end", ["os._exit(0)", "os._exit(3)", "os.kill(os.getpid(), 9)", "os.abort()"])
async def test_a_process_that_ends_has_failed(sandbox: Sandbox, end: str) -> None:
    report = await sandbox.test(program(f"import os\ndef f(x): {end}"), CASES, PATIENT)
    assert [t.status for t in report.tests] == ["failed", "skipped", "skipped", "skipped"]
    assert "signal" in report.tests[0].detail or "exit code" in report.tests[0].detail


async def test_a_process_that_ends_has_failed_however_slowly_the_judge_goes(sandbox: Sandbox) -> None:
    suite = Suite(
        check="import sys, time\n"
        "def slowly(frame, event, arg):\n"
        "    if event == 'return' and frame.f_code.co_name == 'be_judge': time.sleep(5)\n"
        "sys.setprofile(slowly)\n"
        "def check(c): c(1)"
    )
    report = await sandbox.test(program("import os\ndef f(x): os._exit(0)"), suite, PATIENT)
    assert report.status == "failed", report


@pytest.mark.parametrize("source", FINITE.values(), ids=FINITE)
async def test_no_rule_of_comparison_is_fooled(sandbox: Sandbox, source: str) -> None:
    suite = Suite(
        cases=(
            Case(args=(0,), expected=0.5, tolerance=0.01),
            Case(args=(0,), expected=[0.5, 0.25], tolerance=0.01),
            Case(args=(0,), expected=["a"], alternatives=("b", {"c": 1})),
            Case(args=(0,), expected=["secret", 77], rule="same_set"),
            Case(args=(0,), expected={"secret": {77: None}}),
        )
    )
    if "range" in source:
        suite = Suite(cases=tuple(c for c in suite.cases if c.rule == "equal"))  # it has a test of its own
    report = await sandbox.test(program(source), suite, SHORT)
    assert report.passed == 0, report


async def test_a_range_of_astronomic_length_is_a_wrong_answer(sandbox: Sandbox) -> None:
    suite = Suite(cases=(Case(args=(0,), expected=[1, 2], rule="same_set"),))
    report = await sandbox.test(program("def f(x): return range(10**15)"), suite, SHORT)
    assert report.status in STATUSES


# --- checks that are easily fooled --------------------------------------------------------------------

SWALLOWING = Suite(
    check="def check(c):\n    try:\n        c(-1)\n    except BaseException:\n        return\n    assert False"
)


async def test_a_check_that_catches_everything_still_tells_a_raise_from_a_value(sandbox: Sandbox) -> None:
    assert (await sandbox.test(program("def f(x): raise ValueError"), SWALLOWING, PATIENT)).status == "passed"
    assert (await sandbox.test(program(RIGHT), SWALLOWING, PATIENT)).status == "wrong"


async def test_a_process_that_ended_is_not_an_exception_that_a_check_can_swallow(sandbox: Sandbox) -> None:
    report = await sandbox.test(program("import os\ndef f(x): os._exit(0)"), SWALLOWING, PATIENT)
    assert report.status == "failed"


async def test_an_answer_that_cannot_be_read_is_not_the_exception_a_check_waits_for(sandbox: Sandbox) -> None:
    suite = Suite(
        check="def check(c):\n    try: c(-1)\n    except ValueError: return\n    raise AssertionError('no ValueError')"
    )
    for source in (EQUALITY["colliding numbers"], FRAMES["an answer of nothing"], FRAMES["noise"]):
        await refused(sandbox, source, suite, PATIENT)


async def test_the_end_of_an_iteration_does_not_end_the_checks_own(sandbox: Sandbox) -> None:
    suite = Suite(check="def check(c):\n    assert all(map(lambda i: c(i) == i + 1, range(4)))")
    assert (await sandbox.test(program(RIGHT), suite, PATIENT)).status == "passed"
    report = await sandbox.test(program("def f(x): raise StopIteration"), suite, PATIENT)
    assert report.status != "passed"


async def test_an_object_that_is_false_is_not_true_for_a_check(sandbox: Sandbox) -> None:
    suite = Suite(check="def check(c):\n    assert c(1)\n    assert len(c(1)) == 1")
    report = await sandbox.test(
        program("class Nothing:\n    def __len__(self): return 0\ndef f(x): return Nothing()"), suite, PATIENT
    )
    assert report.status != "passed"


@pytest.mark.parametrize(
    "check",
    [
        "def check(c):\n    for i in range(3):\n        assert c(i) == i + 1",
        "def check(c):\n    assert not c(1) != 2",
        "def check(c):\n    assert 2 == c(1)",
        "def check(c):\n    assert c(1) in (2,)",
        "def check(c):\n    assert c(1) in {2: 0}",
        "def check(c):\n    assert abs(c(1) - 2) < 1e-6",
        "def check(c):\n    assert [c(1)] == [2]",
        "def check(c):\n    assert str(c(1)) == '2'",
        "def check(c):\n    assert isinstance(c(1), int) and c(1) >= 2 and c(1) <= 2",
        "def check(c):\n    assert tuple(map(c, [1, 2])) == (2, 3)",
        "assert f(1) == 2\nassert f(f(1)) == 3",
    ],
)
async def test_no_way_to_write_a_check_lets_an_object_through(sandbox: Sandbox, check: str) -> None:
    suite = Suite(check=check, names=("f",))
    assert (await sandbox.test(program(RIGHT), suite, PATIENT)).status == "passed"
    for name in ("a object equal to everything", "a int equal to everything", "a tuple equal to everything"):
        await refused(sandbox, EQUALITY[name], suite, SHORT)
    await refused(sandbox, EQUALITY["a mock equal to everything"], suite, SHORT)


async def test_a_program_cannot_replace_the_check(sandbox: Sandbox) -> None:
    source = (
        "def check(candidate): pass\nimport builtins\nbuiltins.check = check\nimport sys, types\n"
        "sys.modules['solution'].check = check\ncandidate = f = check"
    )
    for suite in (CHECK, ASSERTS):
        await refused(sandbox, source, suite, SHORT)
