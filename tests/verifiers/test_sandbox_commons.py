"""Plain programs share a process, and none can tell: not from its own answers, not from anybody's verdict."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from archon.backends.recordings import read_jsonl
from archon.benchmarks.speed.sandbox import tasks
from archon.execution import Call, Limits, Program, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from archon.verifiers.sandbox.plain import BUILTINS
from tests.verifiers.cell import (
    BARE,
    CASES,
    CHECK,
    FORMS,
    PATIENT,
    RIGHT,
    called,
    end,
    members,
    opened,
    program,
)

WRONG = "def f(x): return x"
OWN = "import os\ndef f(x):\n    return x + 1"
"""It needs a process of its own."""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@contextlib.asynccontextmanager
async def closing(sandbox: Sandbox) -> AsyncIterator[Sandbox]:
    try:
        yield sandbox
    finally:
        await sandbox.close()


def commons(scratch: Path) -> set[int]:
    return called(scratch, "archon-commons")


async def status(sandbox: Sandbox, source: str, suite: Suite = CASES, limits: Limits = PATIENT) -> str:
    return (await sandbox.test(program(source), suite, limits)).status


async def value(sandbox: Sandbox, source: str, *args: object, limits: Limits = PATIENT) -> object:
    (returned,) = await sandbox.evaluate(program(source), [Call(args=args)], limits)
    return returned.value if returned.status == "returned" else returned.status


@pytest.mark.parametrize("form", FORMS)
async def test_one_process_serves_program_after_program(scratch: Path, form: str) -> None:
    async with opened() as sandbox:
        seen = set()
        for source, expected in (
            (RIGHT, "passed"),
            (WRONG, "wrong"),
            ("def f(x): return 1 / 0", "failed"),
            ("def f(x", "failed"),
            ("def g(x): return 1", "failed"),
            (OWN, "passed"),
            (RIGHT, "passed"),
        ):
            assert await status(sandbox, source, FORMS[form]) == expected, source
            seen |= commons(scratch)
        assert len(seen) == 1
    assert not members(scratch)


async def test_nothing_is_shared_where_it_is_not_wanted_or_not_guarded(scratch: Path) -> None:
    for sandbox in (
        Sandbox(1, together=False),
        Sandbox(1, without=BARE, isolation="weak"),
        Sandbox(1, without=("namespaces",)),
    ):
        async with closing(sandbox):
            assert await status(sandbox, RIGHT) == "passed"
            assert not commons(scratch)


async def test_each_finds_the_same_world() -> None:
    """Names, draws and counts are as they are for the first one, and as they are for one that is alone."""
    sources = [
        "import random\nseen = [random.random()]\ndef f(): return seen, random.randint(0, 10**9)",
        "calls = []\ndef f():\n    calls.append(1)\n    return calls",
        "from functools import lru_cache\nruns = []\n@lru_cache\ndef g(x):\n    runs.append(x)\n    return x\n"
        "def f(): return g(1), runs",
        "def f():\n    global left\n    try: return left\n    except NameError:\n        left = 5\n        return 'none'",  # noqa: E501
    ]
    async with closing(Sandbox(1)) as sandbox, closing(Sandbox(1, together=False)) as alone:
        for source in sources:
            first = await value(sandbox, source)
            assert first not in ("failed", "violation", "timed_out"), first
            assert first == await value(sandbox, source) == await value(sandbox, source)
            assert first == await value(alone, source)


async def test_verdicts_are_those_of_processes_of_their_own() -> None:
    sources = [
        RIGHT, WRONG, OWN, "def f(x): return [x]", "def f(x): return f(x)", "def f(x): return bytearray(10**12)",
        "def f(x): return 'x' * 10**10", "def f(x): raise KeyError(x)",
        "def f(x): return {x: f}", "x = 1 / 0", "def f(x):\n    try: return f(x)\n    except Exception: return x + 1",
        "def f(x): return x + True", "def f(x): return x + 1 if type(x) == int else type(x) is str", "def f(x): return x + 1.0", "def f(): return 1", "f = 3", "f = abs", "import re\nf = re",  # noqa: E501
        "def f(x):\n    x = [x]\n    x[0] = x\n    return x", "def f(x): return 10**5000", "def f(x):\n    return int('9' * 5000)",  # noqa: E501
    ]  # fmt: skip
    found = []
    for together in (True, False):
        async with closing(Sandbox(1, together=together)) as sandbox:
            found.append(
                [
                    [(t.status, t.detail) for t in (await sandbox.test(program(s), suite, PATIENT)).tests]
                    for s in sources
                    for suite in FORMS.values()
                ]
            )
    assert found[0] == found[1]


ENDLESS = "def f(x):\n    while True: pass"


@pytest.mark.parametrize("form", FORMS)
async def test_a_program_without_end_is_ended_by_its_own_time_alone(scratch: Path, form: str) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=300)
    busy = "def f(x):\n    for _ in range(6 * 10**6): pass\n    return x + 1"  # some 0.2 s
    async with opened() as sandbox:
        for _ in range(6):
            assert await status(sandbox, busy, FORMS[form], PATIENT) == "passed"
        report = await sandbox.test(program(ENDLESS), FORMS[form], limits)
        assert report.status == "timed_out"
        assert 0.9 < report.cpu_seconds < 3
        assert await status(sandbox, RIGHT, FORMS[form], limits) == "passed"


async def test_what_comes_after_the_first_failure_does_not_hold_it_up() -> None:
    source = "def f(x):\n    while x: pass\n    return 'wrong'"
    async with opened() as sandbox:
        report = await sandbox.test(
            program(source), CASES, Limits(cpu_seconds=60, wall_seconds=600), stop_at_first_failure=True
        )
        assert [t.status for t in report.tests] == ["wrong", "skipped", "skipped", "skipped"]
        assert await status(sandbox, RIGHT) == "passed"


async def test_memory_that_one_took_is_not_missing_for_the_next(scratch: Path) -> None:
    """Large programs end the commons; one that finds too little memory there runs again alone."""
    limits = Limits(cpu_seconds=10, wall_seconds=60, memory_mb=400)
    large = "kept = [bytes(150 * 2**20)]\nkept.append(kept)\ndef f(x): return x + len(kept) - 1"
    async with opened() as sandbox:
        for _ in range(5):
            assert await status(sandbox, large, CASES, limits) == "passed"
            assert await status(sandbox, RIGHT, CASES, limits) == "passed"


async def test_commons_that_are_killed_are_made_anew(scratch: Path) -> None:
    async with opened() as sandbox:
        for suite in (CASES, CHECK):
            assert await status(sandbox, RIGHT, suite) == "passed"
            end(first := commons(scratch))
            assert await status(sandbox, RIGHT, suite) == "passed"
            assert commons(scratch) != first


@pytest.mark.parametrize("form", FORMS)
async def test_a_program_whose_commons_are_killed_under_it_runs_again(scratch: Path, form: str) -> None:
    slow = "def f(x):\n    for _ in range(3 * 10**7): pass\n    return x + 1"
    async with opened() as sandbox:
        await status(sandbox, RIGHT)
        running = asyncio.ensure_future(status(sandbox, slow, FORMS[form], PATIENT))
        await asyncio.sleep(0.2)
        end(commons(scratch))
        assert await running == "passed"


async def test_a_cancelled_program_leaves_nothing_to_the_next(scratch: Path) -> None:
    async with opened() as sandbox:
        for suite in (CASES, CHECK):
            running = asyncio.ensure_future(status(sandbox, ENDLESS, suite))
            await asyncio.sleep(0.3)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert await status(sandbox, RIGHT, suite) == "passed"
    assert not members(scratch)


async def test_an_answer_that_is_too_large_is_told_as_ever() -> None:
    limits = Limits(cpu_seconds=10, wall_seconds=60, output_mb=1)
    large = "def f(x): return 'a' * 3_000_000"
    async with opened() as sandbox:
        for form, suite in FORMS.items():
            assert await status(sandbox, large, suite, limits) == "violation", form
            assert await status(sandbox, RIGHT, suite, limits) == "passed"


async def test_many_at_once_of_both_kinds() -> None:
    kinds = [RIGHT, WRONG, OWN, "import os\ndef f(x): return x"]
    async with opened(3) as sandbox:
        found = await asyncio.gather(
            *(status(sandbox, kinds[i % 4], [CASES, CHECK][i // 4 % 2]) for i in range(80))
        )
    assert found == ["passed", "wrong", "passed", "wrong"] * 20


async def test_what_would_get_past_the_reading_finds_no_built_in_of_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second wall: names that are not listed are not there."""
    for name in "open eval exec getattr setattr vars globals compile __build_class__ super object".split():
        assert name not in BUILTINS
    assert BUILTINS["type"] is not type
    names: dict[str, Any] = {"__builtins__": dict(BUILTINS)}
    exec("def f(): return open('x')", names)  # noqa: S102
    with pytest.raises(NameError):
        names["f"]()


async def test_values_of_one_are_no_values_of_the_next() -> None:
    """What programs are given and give back is made anew each time."""
    suite = Suite(cases=(Case(args=([1, 2],), expected=[1, 2, 3]),))
    source = Program(source="def f(x):\n    x.append(3)\n    return x", entry_point="f")
    async with opened() as sandbox:
        for _ in range(3):
            assert (await sandbox.test(source, suite, PATIENT)).status == "passed"


@pytest.mark.data
async def test_recorded_programs_get_the_verdicts_they_get_alone(data: Path) -> None:
    rows = {row["task_id"]: row for _, row in read_jsonl(data / "humaneval" / "HumanEval.jsonl.gz")}
    suites = {
        name: Suite(
            check=row["test"],
            namespace=row["prompt"] + row["canonical_solution"],
            names=(row["entry_point"],),
        )
        for name, row in rows.items()
    }
    work = [(task.program(), suites[task.name]) for task in tasks(rows, data, 5)]
    assert len(work) > 500

    async def both_ways(some: list[tuple[Program, Suite]], cpu_seconds: float) -> list[tuple[Any, Any]]:
        limits = Limits(cpu_seconds=cpu_seconds, wall_seconds=30 * cpu_seconds)
        found = []
        for together in (True, False):
            async with closing(Sandbox(together=together)) as sandbox:
                reports = await asyncio.gather(*(sandbox.test(p, s, limits) for p, s in some))
                found.append([(r.status, [t.detail for t in r.tests]) for r in reports])
        return list(zip(*found, strict=True))

    found = await both_ways(work, 2)
    differing = [i for i, (a, b) in enumerate(found) if a != b]
    late = [i for i in differing if "timed_out" in (found[i][0][0], found[i][1][0])]
    assert [(work[i][0].source, *found[i]) for i in differing if i not in late] == []
    assert len(late) < 5  # those that take about two seconds, on a busy machine
    again = await both_ways([work[i] for i in late], 20)
    assert [(a, b) for a, b in again if a != b] == []
