"""What the sandbox says of ordinary programs: right, wrong, failing; one status each, and never an error."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from archon.execution import Call, Limits, Suite
from archon.execution import TestReport as Report
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import ASSERTS, CASES, CHECK, FORMS, PATIENT, RIGHT, case, program

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAMS = {
    "right": (RIGHT, "passed"),
    "right by a lambda": ("f = lambda x: x + 1", "passed"),
    "right by a callable object": ("class F:\n    def __call__(self, x): return x + 1\nf = F()", "passed"),
    "right by a subclass of int": ("class N(int): pass\ndef f(x): return N(x + 1)", "passed"),
    "right though it prints": ("def f(x):\n    print('wrong' * 1000)\n    return x + 1", "passed"),
    "right though it writes to stderr": ("import sys\ndef f(x): return sys.stderr.write('no') and x + 1", "passed"),
    "right though its threads never end": (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=False).start()\n"
        "def f(x): return x + 1", "passed",
    ),
    "right beside a main program": ("if __name__ == '__main__': exit()\ndef f(x): return x + 1", "passed"),
    "right with its own class": (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x).x + 1", "passed",
    ),
    "right with a wide recursion": (
        "import sys\nsys.setrecursionlimit(5000)\ndef g(n): return 0 if n == 0 else g(n - 1)\n"
        "def f(x): return x + 1 + g(3000)", "passed",
    ),
    "wrong": ("def f(x): return x", "wrong"),
    "wrong type": ("def f(x): return str(x + 1)", "wrong"),
    "nothing returned": ("def f(x): pass", "wrong"),
    "a coroutine": ("async def f(x): return x + 1", "wrong"),
    "a generator": ("def f(x): yield x + 1", "wrong"),
    "an exception": ("def f(x): raise ValueError(x)", "failed"),
    "an exception when loaded": ("raise ValueError", "failed"),
    "no such function": ("def g(x): return x + 1", "failed"),
    "no function at all": ("f = 3", "failed"),
    "the wrong number of arguments": ("def f(): return 1", "failed"),
    "no program": ("", "failed"),
    "no syntax": ("def f(x:", "failed"),
    "a null character": ("\0", "failed"),
    "a lone surrogate": ("x = '\ud800'\ndef f(x): return x + 1", "failed"),
    "no such module": ("import no_such_module_anywhere\ndef f(x): return x + 1", "failed"),
    "endless recursion": ("def f(x): return f(x)", "failed"),
    "too many brackets": ("(" * 100_000, "failed"),
    "an assertion of its own": ("def f(x): assert False", "failed"),
    "a deliberate end": ("import sys\ndef f(x): sys.exit(0)", "failed"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("source", "status"), PROGRAMS.values(), ids=PROGRAMS)
async def test_each_program_gets_its_own_status(
    sandbox: Sandbox, source: str, status: str, form: str
) -> None:
    report = await sandbox.test(program(source), FORMS[form], PATIENT)
    assert report.status == status, report.tests
    assert len(report.tests) == len(FORMS[form])
    if status != "passed":
        assert any(test.status == status and test.detail for test in report.tests)


async def test_a_report_speaks_of_every_test(sandbox: Sandbox) -> None:
    source = "def f(x):\n    if x == 1: return 0\n    if x == 2: raise KeyError(x)\n    return x + 1"
    report = await sandbox.test(program(source), CASES, PATIENT)
    assert [t.status for t in report.tests] == ["passed", "wrong", "failed", "passed"]
    assert (report.status, report.passed) == ("wrong", 2)
    assert "0" in report.tests[1].detail and "2" in report.tests[1].detail
    assert report.tests[2].detail == "KeyError: 2"
    assert report.cpu_seconds > 0 and report.peak_mb > 1
    assert Report.from_json(report.as_json()) == report


async def test_stopping_at_the_first_failure_skips_the_rest(sandbox: Sandbox) -> None:
    source = "def f(x): return x + 1 if x != 1 else 0"
    report = await sandbox.test(program(source), CASES, PATIENT, stop_at_first_failure=True)
    assert [t.status for t in report.tests] == ["passed", "wrong", "skipped", "skipped"]
    assert report.status == "wrong"


async def test_cases_and_a_check_are_both_run(sandbox: Sandbox) -> None:
    both = Suite(cases=CASES.cases, check="def check(c): assert c(10) == 11")
    good = await sandbox.test(program(RIGHT), both, PATIENT)
    assert (good.status, good.passed, len(good.tests)) == ("passed", 5, 5)
    partly = await sandbox.test(program("def f(x): return x + 1 if x < 9 else 0"), both, PATIENT)
    assert (partly.status, [t.status for t in partly.tests][4]) == ("wrong", "wrong")
    stopped = await sandbox.test(program("def f(x): return 0"), both, PATIENT, stop_at_first_failure=True)
    assert stopped.status == "wrong" and stopped.passed == 0


async def test_keyword_arguments_and_every_type_reach_the_program(sandbox: Sandbox) -> None:
    given: list[Any] = [
        None,
        True,
        1,
        2.5,
        1j,
        "é\ud800",
        b"b",
        [1],
        (1,),
        {1},
        frozenset({1}),
        {1: [2]},
        range(3),
    ]
    names = [type(value).__name__ for value in given]
    suite = Suite(cases=(Case(args=(given,), kwargs={"more": 5}, expected=(names, 5)),))
    report = await sandbox.test(
        program("def f(x, *, more): return [type(v).__name__ for v in x], more"), suite, PATIENT
    )
    assert report.status == "passed", report.tests
    echo = Suite(cases=tuple(Case(args=(value,), expected=value) for value in given))
    assert (await sandbox.test(program("def f(x): return x"), echo, PATIENT)).status == "passed"


async def test_one_call_does_not_change_the_arguments_of_another(sandbox: Sandbox) -> None:
    shared = [1, 2]
    suite = Suite(cases=tuple(Case(args=(shared,), expected=3) for _ in range(3)))
    report = await sandbox.test(program("def f(x):\n    x.append(0)\n    return len(x)"), suite, PATIENT)
    assert report.status == "passed"
    assert shared == [1, 2]


async def test_one_nan_is_as_good_as_another(sandbox: Sandbox) -> None:
    expected = case([float("nan"), 1], 0)
    statuses = set()
    for nan in ("float('nan')", "-float('nan')", "float('inf') - float('inf')"):
        report = await sandbox.test(program(f"def f(x): return [{nan}, 1]"), expected, PATIENT)
        statuses.add(report.status)
    assert len(statuses) == 1


async def test_a_check_may_call_what_its_namespace_defines(sandbox: Sandbox) -> None:
    suite = Suite(
        namespace="import math\ndef near(a, b): return math.isclose(a, b)\ndef f(x): raise AssertionError",
        check="assert near(f(1), 2.0)\ndef check(c): assert near(c(2), 3)",
        names=("f",),
    )
    assert (await sandbox.test(program(RIGHT), suite, PATIENT)).status == "passed"
    assert (await sandbox.test(program("def f(x): return x"), suite, PATIENT)).status == "wrong"


async def test_a_check_can_expect_an_exception(sandbox: Sandbox) -> None:
    suite = Suite(
        check="def check(c):\n    try:\n        c(-1)\n    except ValueError as error:\n"
        "        assert 'negative' in str(error)\n    else:\n        assert False, 'no exception'"
    )
    good = "def f(x):\n    if x < 0: raise ValueError('negative')"
    assert (await sandbox.test(program(good), suite, PATIENT)).status == "passed"
    assert (await sandbox.test(program(RIGHT), suite, PATIENT)).status == "wrong"
    assert (await sandbox.test(program("def f(x): raise KeyError"), suite, PATIENT)).status == "failed"


async def test_a_fault_of_the_check_itself_is_not_a_pass(sandbox: Sandbox) -> None:
    for check in (
        "def check(",
        "raise SystemExit(0)",
        "import os\nos._exit(0)",
        "def check(c, d): pass",
        "1 / 0",
    ):
        assert (await sandbox.test(program(RIGHT), Suite(check=check), PATIENT)).status != "passed"


async def test_a_check_that_shows_a_huge_number_still_gives_its_verdict(sandbox: Sandbox) -> None:
    suite = Suite(check="def check(c):\n    assert c(1) == 2, c(1)")
    report = await sandbox.test(program("def f(x): return 10**5000"), suite, PATIENT)
    assert report.status == "wrong"


async def test_a_detail_is_one_line(sandbox: Sandbox) -> None:
    reports = [
        await sandbox.test(program(f"def f(x): raise {error}"), suite, PATIENT)
        for suite in (CASES, CHECK)
        for error in ("ValueError('a\\nb\\r\\nc')", "type('E\\nF', (Exception,), {})('x')")
    ]
    assert not any("\n" in test.detail for report in reports for test in report.tests)


# --- evaluate ----------------------------------------------------------------------------------------


async def test_evaluating_gives_values_in_order_from_one_process(sandbox: Sandbox) -> None:
    source = "seen = []\ndef f(x, y=0):\n    seen.append(x)\n    return (list(seen), y)"
    calls = [Call(args=(1,)), Call(args=(2,), kwargs={"y": 5}), Call(kwargs={"x": 3})]
    returned = await sandbox.evaluate(program(source), calls, PATIENT)
    assert [r.value for r in returned] == [([1], 0), ([1, 2], 5), ([1, 2, 3], 0)]
    assert {r.status for r in returned} == {"returned"}
    assert all(math.isfinite(r.seconds) and r.seconds >= 0 for r in returned)


async def test_evaluating_goes_on_after_an_exception_and_ends_with_the_process(sandbox: Sandbox) -> None:
    source = "import os\ndef f(x):\n    if x == 0: os._exit(0)\n    return 6 // (x - 2)"
    returned = await sandbox.evaluate(program(source), [Call(args=(x,)) for x in (3, 2, 4, 0, 5, 6)], PATIENT)
    assert [r.status for r in returned] == ["returned", "failed", "returned", "failed", "skipped", "skipped"]
    assert "ZeroDivisionError" in returned[1].detail


async def test_evaluating_nothing_gives_nothing(sandbox: Sandbox) -> None:
    assert list(await sandbox.evaluate(program(RIGHT), [], PATIENT)) == []


async def test_a_call_that_takes_too_long_is_timed_out_and_the_rest_skipped(sandbox: Sandbox) -> None:
    source = "def f(x):\n    while x: pass\n    return x"
    calls = [Call(args=(x,)) for x in (0, 1, 0)]
    returned = await sandbox.evaluate(program(source), calls, Limits(cpu_seconds=0.3, wall_seconds=300))
    assert [r.status for r in returned] == ["returned", "timed_out", "skipped"]


async def test_a_program_that_takes_too_long_to_load_is_timed_out(sandbox: Sandbox) -> None:
    returned = await sandbox.evaluate(
        program("while True: pass"), [Call(args=(1,))], Limits(cpu_seconds=0.3, wall_seconds=300)
    )
    assert returned[0].status == "timed_out"


async def test_a_program_that_does_not_load_gives_a_reason_for_every_call(sandbox: Sandbox) -> None:
    returned = await sandbox.evaluate(program("1 / 0"), [Call(args=(i,)) for i in range(3)], PATIENT)
    assert len(returned) == 3
    assert (
        all(r.status in ("failed", "skipped") for r in returned) and "ZeroDivisionError" in returned[0].detail
    )


# --- many at once, one after another -----------------------------------------------------------------


async def test_programs_at_once_do_not_mix_up_their_results(sandbox: Sandbox) -> None:
    sources = {i: f"def f(x): return x + {i}" for i in range(12)}
    reports = await asyncio.gather(
        *(sandbox.test(program(s), case(i + 100, 100), PATIENT) for i, s in sources.items()),
        *(sandbox.test(program(s), CHECK, PATIENT) for s in sources.values()),
    )
    assert [r.status for r in reports[:12]] == ["passed"] * 12
    assert [r.status for r in reports[12:]] == ["wrong", "passed", *["wrong"] * 10]


async def test_no_program_leaves_anything_for_the_next(sandbox: Sandbox) -> None:
    litter = (
        "import sys, math, builtins, json, random, os\nmath.pi = 3\nbuiltins.left = 1\nsys.modules['left'] = math\n"
        "json.left = 1\nsys.path.append('left')\nos.environ['LEFT'] = '1'\nrandom.seed(5)\nopen('left', 'w').close()\n"
    )
    look = (
        "import sys, math, builtins, json, os\ndef f():\n    return [math.pi == 3, hasattr(builtins, 'left'),\n"
        "        'left' in sys.modules, hasattr(json, 'left'), 'left' in sys.path, 'LEFT' in os.environ,\n"
        "        os.listdir() != []]"
    )
    for suite in (CASES, CHECK, ASSERTS):
        assert (await sandbox.test(program(litter + RIGHT), suite, PATIENT)).status == "passed"
        (seen,) = await sandbox.evaluate(program(look), [Call()], PATIENT)
        assert seen.value == [False] * 7


async def test_equal_programs_draw_equal_random_numbers_or_none_that_matter(sandbox: Sandbox) -> None:
    source = "def f(): return hash('text'), list({'a', 'b', 'c', 'd'})"
    first = await sandbox.evaluate(program(source), [Call()], PATIENT)
    second = await sandbox.evaluate(program(source), [Call()], PATIENT)
    assert first[0].value == second[0].value


async def test_packages_are_there_only_where_asked_for(sandbox: Sandbox) -> None:
    source = "import numpy\ndef f(x): return numpy.int64(x) + 1"
    assert (await sandbox.test(program(source, packages=True), CASES, PATIENT)).status == "passed"
    assert (await sandbox.test(program(source), CASES, PATIENT)).status == "failed"


async def test_without_packages_there_is_nothing_of_ours_to_import(sandbox: Sandbox) -> None:
    source = "import archon.problem\ndef f(x): return x + 1"
    assert (await sandbox.test(program(source), CASES, PATIENT)).status == "failed"
