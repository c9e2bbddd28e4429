"""Children of a program: there are none where the kernel filters calls; elsewhere none outlives its run, and none
keeps us waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from archon.execution import Limits
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import BARE, CASES, FORMS, NO_FILTER, PATIENT, opened, processes, program, zygotes

pytestmark = pytest.mark.asyncio(loop_scope="module")

WALL = Limits(cpu_seconds=30, wall_seconds=0.4)

CHILDREN = {
    "children that sleep": "for _ in range(20):\n        if os.fork() == 0: time.sleep(600); os._exit(0)",
    "children with sessions of their own": (
        "for _ in range(20):\n        if os.fork() == 0:\n            os.setsid()\n            time.sleep(600)"
    ),
    "a daemon": (
        "if os.fork() == 0:\n        os.setsid()\n        if os.fork(): os._exit(0)\n        os.closerange(0, 64)\n"
        "        os.chdir('/')\n        time.sleep(600)"
    ),
    "another program": "subprocess.Popen(['sleep', '600'], start_new_session=True)",
    "deaf children": (
        "for n in {*range(1, 65)} - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\n"
        "    for _ in range(3):\n        if os.fork() == 0:\n            os.setsid()\n"
        "            while True: time.sleep(600)"
    ),
    "children of children": (
        "for _ in range(3):\n        if os.fork() == 0:\n            os.setsid()\n"
        "            for _ in range(5):\n                if os.fork() == 0:\n                    os.setsid()\n"
        "                    time.sleep(600)\n            time.sleep(600)"
    ),
    "stopped children": (
        "for _ in range(3):\n        if os.fork() == 0:\n            os.setsid()\n            os.kill(os.getpid(), 19)"
    ),
    "children that go on forking": (
        "if os.fork() == 0:\n        os.setsid()\n        while True:\n            if os.fork(): os._exit(0)\n"
        "            time.sleep(0.001)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=[NO_FILTER, BARE], ids=["in a pen", "bare"])
def without(request: pytest.FixtureRequest) -> tuple[str, ...]:
    layers: tuple[str, ...] = request.param
    return layers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forking(scratch: Path, without: tuple[str, ...]) -> AsyncIterator[Sandbox]:
    """A sandbox whose programs may fork, and that has a zygote."""
    async with opened(without=without) as sandbox:
        await sandbox.layers()
        yield sandbox


@pytest.mark.parametrize("body", CHILDREN.values(), ids=CHILDREN)
@pytest.mark.parametrize("form", ["cases", "check"])
async def test_no_process_outlives_the_run(
    forking: Sandbox, without: tuple[str, ...], scratch: Path, body: str, form: str
) -> None:
    source = f"import os, signal, subprocess, time\ndef f(x):\n    if x: return x + 1\n    {body}\n    return x + 1"
    before = zygotes(scratch)
    report = await forking.test(program(source), FORMS[form], PATIENT)
    if "subprocess" not in body or without == BARE:  # in a pen there is no other program to become
        assert report.status == "passed", report
    assert processes(scratch) == before


@pytest.mark.parametrize("body", CHILDREN.values(), ids=CHILDREN)
async def test_where_calls_are_filtered_no_process_is_born(
    sandbox: Sandbox, scratch: Path, body: str
) -> None:
    await sandbox.layers()
    if "seccomp" in {layer.name for layer in await sandbox.layers() if not layer.active}:
        pytest.skip("this kernel does not filter system calls")
    before = zygotes(scratch)
    source = f"import os, signal, subprocess, time\ndef f(x):\n    {body}\n    return x + 1"
    report = await sandbox.test(program(source), CASES, PATIENT)
    assert report.status == "failed" and "not permitted" in report.tests[0].detail
    assert processes(scratch) == before


HOLDING = {
    "and it ends": "os.read(r, 1)\n    os._exit(0)",
    "and it waits": "time.sleep(600)",
}


@pytest.mark.parametrize("then", HOLDING.values(), ids=HOLDING)
async def test_a_child_that_holds_the_socket_does_not_hold_us(
    forking: Sandbox, scratch: Path, then: str
) -> None:
    source = (
        "import os, time\ndef f(x):\n    r, w = os.pipe()\n    if os.fork() == 0:\n        os.setsid()\n"
        f"        os.write(w, b'x')\n        time.sleep(600)\n    {then}"
    )
    before = zygotes(scratch)
    async with asyncio.timeout(300):  # half of what the child takes
        report = await forking.test(program(source), CASES, WALL)
    assert report.status in ("failed", "timed_out")
    assert processes(scratch) == before
