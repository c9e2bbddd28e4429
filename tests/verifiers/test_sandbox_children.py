"""Children of a program: none outlives its run, and none keeps us waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from archon.execution import Limits
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import CASES, FORMS, PATIENT, processes, program, zygotes

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


@pytest.mark.parametrize("body", CHILDREN.values(), ids=CHILDREN)
@pytest.mark.parametrize("form", ["cases", "check"])
async def test_no_process_outlives_the_run(sandbox: Sandbox, scratch: Path, body: str, form: str) -> None:
    source = f"import os, signal, subprocess, time\ndef f(x):\n    if x: return x + 1\n    {body}\n    return x + 1"
    await sandbox.layers()  # it has a zygote now
    before = zygotes(scratch)
    report = await sandbox.test(program(source), FORMS[form], PATIENT)
    assert report.status == "passed", report
    assert processes(scratch) == before


HOLDING = {
    "and it ends": "os.read(r, 1)\n    os._exit(0)",
    "and it waits": "time.sleep(600)",
}


@pytest.mark.parametrize("then", HOLDING.values(), ids=HOLDING)
async def test_a_child_that_holds_the_socket_does_not_hold_us(
    sandbox: Sandbox, scratch: Path, then: str
) -> None:
    source = (
        "import os, time\ndef f(x):\n    r, w = os.pipe()\n    if os.fork() == 0:\n        os.setsid()\n"
        f"        os.write(w, b'x')\n        time.sleep(600)\n    {then}"
    )
    await sandbox.layers()  # it has a zygote now
    before = zygotes(scratch)
    async with asyncio.timeout(20):  # many times what it may take
        report = await sandbox.test(program(source), CASES, WALL)
    assert report.status in ("failed", "timed_out")
    assert processes(scratch) == before
