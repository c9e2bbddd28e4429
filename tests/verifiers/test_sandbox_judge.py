"""A judge checks many programs, and none of them notices the others."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from archon.execution import Limits, Suite
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import (
    BARE,
    CASES,
    CHECK,
    PATIENT,
    RIGHT,
    called,
    end,
    members,
    opened,
    processes,
    program,
)

WRONG = "def f(x): return x"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def judges(scratch: Path) -> set[int]:
    return called(scratch, "archon-judge")


async def status(sandbox: Sandbox, source: str, suite: Suite = CHECK, limits: Limits = PATIENT) -> str:
    return (await sandbox.test(program(source), suite, limits)).status


async def test_one_judge_checks_program_after_program(scratch: Path) -> None:
    async with opened() as sandbox:
        seen = set()
        for source, expected in (
            (RIGHT, "passed"),
            (WRONG, "wrong"),
            ("def f(x): 1 / 0", "failed"),
            (RIGHT, "passed"),
        ):
            assert await status(sandbox, source) == expected
            seen |= judges(scratch)
        assert len(seen) == 1
    assert not members(scratch)


async def test_it_judges_by_many_suites_each_by_its_own(scratch: Path) -> None:
    suites = [Suite(check=f"def check(c):\n    assert c(5) == {n}\n") for n in range(12)]
    async with opened() as sandbox:
        seen = set()
        for turn in range(3):
            for n, suite in enumerate(suites):
                for answer in (n, n + 1):
                    found = await status(sandbox, f"def f(x): return {answer}", suite)
                    assert found == ("passed" if answer == n else "wrong"), (turn, n)
            seen |= judges(scratch)
        assert len(seen) == 1


async def test_data_needs_none_and_other_room_another(scratch: Path) -> None:
    async with opened() as sandbox:
        assert await status(sandbox, RIGHT, CASES) == "passed"
        assert not judges(scratch)
        assert await status(sandbox, RIGHT) == "passed"
        first = judges(scratch)
        assert await status(sandbox, RIGHT, CASES) == "passed"
        assert await status(sandbox, RIGHT, CHECK, Limits(cpu_seconds=9, wall_seconds=60)) == "passed"
        assert judges(scratch) == first
        assert await status(sandbox, RIGHT, CHECK, PATIENT.model_copy(update={"memory_mb": 300})) == "passed"
        assert len(judges(scratch) - first) == 1


async def test_after_tests_that_may_leave_something_it_goes(scratch: Path) -> None:
    async with opened() as sandbox:
        await status(sandbox, RIGHT)
        assert (
            await status(sandbox, RIGHT, Suite(check="import sys\ndef check(c):\n    assert c(1) == 2"))
            == "passed"
        )
        assert not judges(scratch)


async def test_where_programs_could_reach_it_none_is_kept(scratch: Path) -> None:
    async with opened(without=BARE) as sandbox:
        await status(sandbox, RIGHT)
        assert not judges(scratch)


COUNTING = """
import {module}
def check(candidate):
    {module}.{name} = getattr({module}, '{name}', 0) + 1 if isinstance(getattr({module}, '{name}', 0), int) else 1
    assert {module}.{name} == 1, 'somebody was here'
    assert candidate(1) == 2
"""


@pytest.mark.parametrize(
    "check",
    [
        COUNTING.format(module="builtins", name="seen"),
        COUNTING.format(module="math", name="pi_"),
        "import os\ndef check(c):\n    assert 'SEEN' not in os.environ\n    os.environ['SEEN'] = '1'\n"
        "    assert c(1) == 2",
        "import sys\ndef check(c):\n    assert sys.getrecursionlimit() == 1000\n    sys.setrecursionlimit(5000)\n"
        "    assert c(1) == 2",
        "import decimal\ndef check(c):\n    assert decimal.getcontext().prec == 28\n    decimal.getcontext().prec = 3\n"
        "    assert c(1) == 2",
        "import copy\ndef check(c):\n    assert not hasattr(copy, 'seen')\n    setattr(copy, 'seen', c)\n"
        "    assert c(1) == 2",
        "import random\ndef check(c):\n    assert random.random() == 0.8444218515250481\n    assert c(1) == 2",
        "import threading, time\ndef check(c):\n    assert threading.active_count() == 1\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n    assert c(1) == 2",
        "seen = []\ndef check(c):\n    seen.append(c(1))\n    assert seen == [2]",
    ],
)
async def test_what_a_check_changes_is_gone_for_the_next_program(check: str) -> None:
    suite = Suite(check=check)
    async with opened() as sandbox:
        for source, expected in ((RIGHT, "passed"), (WRONG, "wrong"), (RIGHT, "passed"), (RIGHT, "passed")):
            assert await status(sandbox, source, suite) == expected


async def test_an_end_that_an_earlier_program_may_have_caused_is_looked_at_again(scratch: Path) -> None:
    """The third program finds the judge's memory full."""
    kept = "copy.dispatch_table"
    suite = Suite(
        check="import copy\ndef check(c):\n    assert len(c(0)) == 2\n"
        f"    {kept}.setdefault(len({kept}), bytes(90 * 2**20))\n"
    )
    limits = Limits(cpu_seconds=10, wall_seconds=60, memory_mb=256)
    async with opened() as sandbox:
        seen = set()
        for _ in range(4):
            assert await status(sandbox, "def f(x): return [1, 2]", suite, limits) == "passed"
            seen |= judges(scratch)
        assert len(seen) == 2


async def test_a_judge_that_was_killed_between_programs_is_replaced(scratch: Path) -> None:
    async with opened() as sandbox:
        await status(sandbox, RIGHT)
        end(first := judges(scratch))
        assert await status(sandbox, RIGHT) == "passed"
        assert await status(sandbox, WRONG) == "wrong"
        assert judges(scratch) and judges(scratch) != first


@pytest.mark.parametrize(
    "source", ["def f(x):\n    while True: pass", "import os\nos._exit(0)", "def f(x): return [0] * 10**7"]
)
async def test_programs_that_end_badly_do_not_spoil_the_next(source: str) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=300, output_mb=1)
    async with opened() as sandbox:
        for _ in range(2):
            assert await status(sandbox, RIGHT, CHECK, limits) == "passed"
            assert await status(sandbox, source, CHECK, limits) in ("timed_out", "failed", "violation")


async def test_a_run_cancelled_while_it_is_judged_takes_its_judge_with_it(scratch: Path) -> None:
    async with opened() as sandbox:
        await status(sandbox, RIGHT)
        first = judges(scratch)
        running = asyncio.ensure_future(status(sandbox, "import time\ndef f(x): time.sleep(600)"))
        async with asyncio.timeout(300):
            while len(processes(scratch)) < 2:  # until the program runs
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await status(sandbox, RIGHT) == "passed"
        assert judges(scratch) != first


async def test_programs_of_many_suites_at_once_each_get_their_own_verdict() -> None:
    suites = [Suite(check=f"def check(c):\n    assert c(1) == {n}\n") for n in range(4)]
    async with opened(3) as sandbox:
        reports = await asyncio.gather(
            *(
                sandbox.test(program(f"def f(x): return {answer}"), suite, PATIENT)
                for answer in range(4)
                for suite in suites * 2
            )
        )
    assert [r.status == "passed" for r in reports] == [
        answer == asked for answer in range(4) for asked in [0, 1, 2, 3] * 2
    ]
