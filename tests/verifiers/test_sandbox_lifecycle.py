"""Zygotes come and go: killed ones are replaced, closed ones leave no process and no folder, whoever ends first."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archon.errors import ExecutionError
from archon.execution import Call, Limits, Suite
from archon.execution import TestReport as Report
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import (
    BARE,
    CASES,
    CHECK,
    NO_FILTER,
    PATIENT,
    RIGHT,
    end,
    members,
    opened,
    processes,
    program,
    zygotes,
)

NAPPING = "import time\ntime.sleep(1.5)\ndef f(x): return x + 1"
SLEEPING = "import time\ndef f(x): time.sleep(600)"
SHORT = Limits(cpu_seconds=2, wall_seconds=3)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the scratch folders of one test; whatever is left in it in the end is put away."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    end(processes(folder))
    subprocess.run(["rm", "-rf", str(folder)], check=True)  # shutil cannot remove folders nested so deep


def clean(scratch: Path) -> bool:
    alive, folders = processes(scratch), list(scratch.iterdir())
    if alive or folders:
        print(f"left: {[_told(pid) for pid in alive]}, {folders}")
    return not alive and not folders


def _told(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text().partition("Umask")[0]
    return f"{pid}, gone by now"


async def until(condition: Callable[[], object]) -> None:
    """Wait for another process; fail rather than wait for ever."""
    async with asyncio.timeout(300):
        while not condition():
            await asyncio.sleep(0.01)


async def napping(sandbox: Sandbox, scratch: Path, suite: Suite = CASES) -> asyncio.Future[Report]:
    """A program that has been seen at work; another one where we were held up for all of its nap."""
    while True:
        running = asyncio.ensure_future(sandbox.test(program(NAPPING), suite, PATIENT))
        while not running.done():
            if len(processes(scratch)) > 1:
                return running
            await asyncio.sleep(0.01)


async def right(sandbox: Sandbox) -> None:
    for suite in (CASES, CHECK):
        assert (await sandbox.test(program(RIGHT), suite, PATIENT)).status == "passed"


async def test_nothing_starts_before_it_is_needed(scratch: Path) -> None:
    async with opened():
        assert clean(scratch)


async def test_closing_leaves_no_process_and_no_folder(scratch: Path) -> None:
    async with opened(3) as sandbox:
        reports = await asyncio.gather(
            *(sandbox.test(program(NAPPING), suite, PATIENT) for suite in (CASES, CHECK) * 3)
        )
        assert {r.status for r in reports} == {"passed"}
        assert 1 <= len(zygotes(scratch)) <= 3, "one zygote per worker, used again and again"
        assert processes(scratch) == zygotes(scratch)
    assert clean(scratch)


async def test_closing_twice_or_unused_is_fine(scratch: Path) -> None:
    sandbox = Sandbox(1)
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(ExecutionError, match="closed"):
        await sandbox.test(program(RIGHT), CASES, PATIENT)
    with pytest.raises(ExecutionError, match="closed"):
        await sandbox.evaluate(program(RIGHT), [Call(args=(1,))], PATIENT)
    assert clean(scratch)


async def test_closing_ends_what_is_running(scratch: Path) -> None:
    sandbox = Sandbox(1)
    running = asyncio.ensure_future(sandbox.test(program(SLEEPING), CASES, PATIENT))
    await until(lambda: len(processes(scratch)) > 1)
    await sandbox.close()
    await until(lambda: not processes(scratch))
    with contextlib.suppress(ExecutionError):
        await running
    assert clean(scratch)


async def test_closing_ends_the_children_of_what_is_running_too(scratch: Path) -> None:
    source = "import os, time\ndef f(x):\n    if os.fork() == 0: os.setsid()\n    time.sleep(600)"
    sandbox = Sandbox(1, without=NO_FILTER)
    limits = Limits(cpu_seconds=10, wall_seconds=600)
    running = asyncio.ensure_future(sandbox.test(program(source), CASES, limits))
    await until(lambda: len(processes(scratch)) == 3)
    await sandbox.close()
    with contextlib.suppress(ExecutionError):
        await running
    await until(lambda: clean(scratch))


async def test_what_runs_while_it_is_closed_is_cleaned_up_when_it_ends(scratch: Path) -> None:
    sandbox = Sandbox(1)
    running = await napping(sandbox, scratch)
    await sandbox.close()
    with contextlib.suppress(ExecutionError):
        await running
    assert clean(scratch)


# --- a zygote that is killed -------------------------------------------------------------------------


LEAKS = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a test of its own says that nothing leaks


@LEAKS
async def test_an_idle_zygote_that_is_killed_is_replaced(scratch: Path) -> None:
    async with opened() as sandbox:
        before = await killed_while_idle(sandbox, scratch)
        await right(sandbox)
        assert zygotes(scratch) and zygotes(scratch) != before
    assert not processes(scratch)
    gc.collect()


async def killed_while_idle(sandbox: Sandbox, scratch: Path) -> set[int]:
    await right(sandbox)
    before = zygotes(scratch)
    end(before)
    await until(lambda: not processes(scratch))
    return before


@LEAKS
@pytest.mark.parametrize("suite", [CASES, CHECK], ids=["cases", "check"])
async def test_a_zygote_that_is_killed_in_the_middle_is_replaced(scratch: Path, suite: Suite) -> None:
    async with opened() as sandbox:
        running = await napping(sandbox, scratch, suite)
        end(zygotes(scratch))
        assert (await running).status == "passed", "the program is run again"
        await right(sandbox)
    assert not processes(scratch)


@pytest.fixture
def unraised(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was said of things thrown away without being closed."""
    gc.collect()
    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: heard.append(unraisable.exc_value))
    return heard


async def test_a_zygote_that_is_killed_leaves_no_socket_open(scratch: Path, unraised: list[object]) -> None:
    async with opened() as sandbox:
        await killed_in_the_middle(sandbox, scratch)
    gc.collect()
    assert unraised == []


async def test_an_idle_zygote_that_is_killed_leaves_no_socket_open(
    scratch: Path, unraised: list[object]
) -> None:
    async with opened() as sandbox:
        await killed_while_idle(sandbox, scratch)
        await right(sandbox)
    gc.collect()
    assert unraised == []


@LEAKS
async def test_a_zygote_that_is_killed_leaves_no_folder(scratch: Path) -> None:
    async with opened() as sandbox:
        await killed_in_the_middle(sandbox, scratch)
    assert clean(scratch)


HEAVY = """
import os, time
def f(x):
    for _ in range(20):
        if os.fork() == 0: break
    held = bytearray(30_000_000)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(600)
"""


@LEAKS
async def test_what_takes_long_to_die_after_its_zygote_was_killed_is_waited_for(scratch: Path) -> None:
    sandbox = Sandbox(1, without=NO_FILTER)
    running = asyncio.ensure_future(sandbox.test(program(HEAVY), CASES, PATIENT))
    await until(lambda: len(processes(scratch)) > 20)
    end(zygotes(scratch))
    await sandbox.close()
    await asyncio.gather(running, return_exceptions=True)
    assert clean(scratch)


@LEAKS
@pytest.mark.parametrize("seen", [1, 2], ids=["before it forks", "between its forks"])
async def test_a_zygote_that_is_killed_while_it_starts_leaves_nothing(scratch: Path, seen: int) -> None:
    for _ in range(8):
        async with opened(1) as sandbox:
            running = asyncio.ensure_future(sandbox.test(program(RIGHT), CASES, PATIENT))
            while len(members(scratch)) < seen:
                await asyncio.sleep(0)
            end(zygotes(scratch))
            await asyncio.gather(running, return_exceptions=True)
        await until(
            lambda: clean(scratch)
        )  # a child without a zygote ends by itself, a moment later on a busy machine


async def killed_in_the_middle(sandbox: Sandbox, scratch: Path) -> None:
    running = await napping(sandbox, scratch)
    end(zygotes(scratch))
    await running


@LEAKS
@pytest.mark.parametrize("without", [(), BARE], ids=["in memory", "on disk"])
async def test_folders_nested_a_thousand_deep_are_removed_and_raise_nothing(
    scratch: Path, without: tuple[str, ...]
) -> None:
    source = "import os\ndef f(x):\n    for _ in range(265): os.mkdir('d'), os.chdir('d')\n    return x + 1"
    async with opened(without=without) as sandbox:
        report = await sandbox.test(program(source), CASES, PATIENT)
        assert report.status == "passed"
        await right(sandbox)
    assert clean(scratch)


KILLING = "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return x"


@LEAKS
async def test_a_program_that_kills_its_zygote_each_time_raises_nothing(scratch: Path) -> None:
    async with opened(without=BARE) as sandbox:
        report = await sandbox.test(program(KILLING), CASES, PATIENT)
        assert report.status in ("wrong", "failed", "violation")
        await right(sandbox)
    assert clean(scratch)


@LEAKS
async def test_a_report_on_a_program_that_kills_its_zygote_speaks_of_every_test(scratch: Path) -> None:
    async with opened(without=BARE) as sandbox:
        report = await sandbox.test(program(KILLING), CASES, PATIENT)
    assert len(report.tests) == len(CASES)


@LEAKS
async def test_deep_folders_of_a_killed_zygote_raise_nothing(scratch: Path) -> None:
    source = (
        "import os, signal\ndef f(x):\n    for _ in range(1100): os.mkdir('d'), os.chdir('d')\n"
        "    os.kill(os.getppid(), signal.SIGKILL)"
    )
    async with opened(without=BARE) as sandbox:
        report = await sandbox.test(program(source), CASES, PATIENT)
        assert report.status != "passed"
    assert clean(scratch)


# --- runs that are cancelled -------------------------------------------------------------------------


@pytest.mark.parametrize("suite", [CASES, CHECK], ids=["cases", "check"])
async def test_a_cancelled_run_leaves_nothing_and_spoils_nothing(scratch: Path, suite: Suite) -> None:
    async with opened() as sandbox:
        await right(sandbox)
        running = asyncio.ensure_future(sandbox.test(program(SLEEPING), suite, PATIENT))
        await until(lambda: len(processes(scratch)) > 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert processes(scratch) == zygotes(scratch)
        await right(sandbox)
    assert clean(scratch)


@LEAKS
async def test_runs_cancelled_while_their_zygote_starts_leave_nothing(scratch: Path) -> None:
    sandbox = Sandbox(1)
    for step in range(12):
        running = asyncio.ensure_future(sandbox.test(program(RIGHT), CASES, PATIENT))
        await asyncio.sleep(step * 0.005)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await right(sandbox)
    await sandbox.close()
    gc.collect()
    await until(lambda: not processes(scratch))
    assert clean(scratch)


@LEAKS
@pytest.mark.parametrize("suite", [CASES, CHECK], ids=["cases", "check"])
async def test_a_run_cancelled_again_while_it_ends_leaves_nothing(scratch: Path, suite: Suite) -> None:
    async with opened() as sandbox:
        await right(sandbox)
        running = asyncio.ensure_future(sandbox.test(program(SLEEPING), suite, PATIENT))
        await until(lambda: len(processes(scratch)) == 2)
        for _ in range(2):
            running.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await running
        await right(sandbox)
    gc.collect()
    assert clean(scratch)


async def test_who_waits_for_a_worker_can_be_cancelled(scratch: Path) -> None:
    async with opened() as sandbox:
        first = await napping(sandbox, scratch)
        waiting = [asyncio.ensure_future(sandbox.test(program(RIGHT), CASES, PATIENT)) for _ in range(5)]
        await asyncio.sleep(0)
        for one in waiting[:4]:
            one.cancel()
        assert (await first).status == (await waiting[4]).status == "passed"
    assert clean(scratch)


async def test_no_more_programs_run_at_once_than_there_are_workers(scratch: Path) -> None:
    async with opened(2) as sandbox:
        running = [asyncio.ensure_future(sandbox.test(program(NAPPING), CASES, PATIENT)) for _ in range(6)]
        most = 0
        while not all(one.done() for one in running):
            most = max(most, len(zygotes(scratch)))
            await asyncio.sleep(0.02)
        assert most <= 2
    assert clean(scratch)


# --- the end of everything ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "os.kill(os.getpid(), 9)",
        "raise SystemExit",
    ],
)
def test_when_its_user_ends_so_do_the_zygote_and_the_program(scratch: Path, ending: str) -> None:
    script = f"""
        import asyncio, os, pathlib, sys, tempfile
        tempfile.tempdir = sys.argv[1]
        from archon.verifiers.sandbox import Sandbox
        from tests.verifiers.cell import *

        async def main():
            sandbox = Sandbox(1)
            running = asyncio.ensure_future(sandbox.test(program({SLEEPING!r}), CASES, PATIENT))
            while len(processes(pathlib.Path(sys.argv[1]) / "archon-")) < 2:
                await asyncio.sleep(0.01)
            {ending}

        asyncio.run(main())
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(scratch)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stderr=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )
    deadline = time.monotonic() + 300
    while not clean(scratch):
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.02)
