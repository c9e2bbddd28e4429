"""What a program may use, and what it is called when it uses more: time, memory, output, files, the network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from archon.execution import Call, Limits, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import CASES, CHECK, FORMS, PATIENT, RIGHT, case, processes, program

pytestmark = pytest.mark.asyncio(loop_scope="module")

CPU = Limits(cpu_seconds=0.3, wall_seconds=300)
WALL = Limits(cpu_seconds=30, wall_seconds=0.4)
SPIN = "while True: pass"
DEAF = (
    "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): 0\n"
)


@pytest.fixture(autouse=True)
async def nothing_is_left(sandbox: Sandbox, scratch: Path) -> None:
    """Before each test: what the one before it started is gone, and the zygote is alone and tidy."""
    assert len(processes(scratch)) <= 1
    assert [path for folder in scratch.iterdir() for path in folder.iterdir()] == []


# --- time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["cases", "check"])
@pytest.mark.parametrize(
    "source",
    [
        f"def f(x):\n    {SPIN}",
        SPIN,
        f"{DEAF}def f(x):\n    {SPIN}",
        "def f(x):\n    return sum(range(10**12))",
        f"import resource as r\ndef f(x):\n    try: r.setrlimit(0, (99, 99))\n    except ValueError: 0\n    {SPIN}",
        "import re\ndef f(x): re.match('(a+)+$', 'a' * 40 + 'b')",
        "def f(x):\n    try:\n        while True: pass\n    finally:\n        f(x)",
    ],
    ids=["called", "loaded", "deaf", "inside C", "raising its limit", "inside a regular expression", "again"],
)
async def test_computing_too_long_is_timed_out(sandbox: Sandbox, source: str, form: str) -> None:
    report = await sandbox.test(program(source), FORMS[form], CPU)
    assert report.status == "timed_out", report
    assert report.cpu_seconds >= 0.25
    assert "CPU" in next(t.detail for t in report.tests if t.status == "timed_out")


@pytest.mark.parametrize("form", ["cases", "check"])
@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef f(x): time.sleep(600)",
        "import time\ntime.sleep(600)",
        f"{DEAF}import time\ndef f(x):\n    while True: time.sleep(600)",
        "import threading\ndef f(x): threading.Event().wait()",
        "import os\ndef f(x): os.read(os.pipe()[0], 1)",
        "import os, signal\ndef f(x): os.kill(os.getpid(), signal.SIGSTOP)",
    ],
    ids=["called", "loaded", "deaf", "an event", "a pipe", "stopped"],
)
async def test_waiting_too_long_is_timed_out(sandbox: Sandbox, source: str, form: str) -> None:
    report = await sandbox.test(program(source), FORMS[form], WALL)
    assert report.status == "timed_out", report


async def test_time_is_for_all_tests_together(sandbox: Sandbox) -> None:
    source = (
        "import time\ndef f(x):\n    end = time.process_time() + 0.5\n    while time.process_time() < end: pass\n"
        "    return x + 1"
    )
    report = await sandbox.test(program(source), CASES, Limits(cpu_seconds=1.25, wall_seconds=60))
    assert [t.status for t in report.tests] == ["passed", "passed", "timed_out", "skipped"]
    assert report.status == "timed_out"


async def test_waiting_is_not_computing(sandbox: Sandbox) -> None:
    source = "import time\ndef f(x):\n    time.sleep(0.2)\n    return x + 1"
    report = await sandbox.test(program(source), CASES, Limits(cpu_seconds=0.5, wall_seconds=60))
    assert report.status == "passed"


async def test_a_check_that_never_ends_is_timed_out(sandbox: Sandbox) -> None:
    suite = Suite(check="def check(c):\n    while True: c(1)")
    report = await sandbox.test(program(RIGHT), suite, Limits(cpu_seconds=30, wall_seconds=0.4))
    assert report.status == "timed_out"


async def test_a_wrong_answer_before_the_time_is_up_stays_wrong(sandbox: Sandbox) -> None:
    source = f"def f(x):\n    if x < 2: return 0\n    {SPIN}"
    report = await sandbox.test(program(source), CASES, CPU)
    assert [t.status for t in report.tests] == ["wrong", "wrong", "timed_out", "skipped"]
    assert report.status == "wrong"


# --- memory, output, files ---------------------------------------------------------------------------

SMALL = Limits(cpu_seconds=10, wall_seconds=60, memory_mb=256, output_mb=1)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x): return len(bytes(2**31))",
        "def f(x): return [0] * 10**9",
        "def f(x):\n    x = 'a'\n    while True: x += x",
        "import mmap\ndef f(x): return len(mmap.mmap(-1, 2**31))",
        "x = bytearray(2**31)\ndef f(x): return x + 1",
        "import resource as r\ndef f(x):\n    r.setrlimit(r.RLIMIT_AS, (-1, -1))\n    return len(bytes(2**31))",
    ],
    ids=["bytes", "a list", "doubling", "a map", "loaded", "raising its limit"],
)
async def test_memory_beyond_the_limit_is_not_to_be_had(sandbox: Sandbox, source: str) -> None:
    for suite in (CASES, CHECK):
        report = await sandbox.test(program(source), suite, SMALL)
        assert report.status in ("failed", "violation"), report
        assert report.peak_mb < 300


BROKEN = {
    "memory": "def f(x): return len(bytes(2**31))",
    "a file": "def f(x):\n    open('a', 'wb').write(bytes(2**21))\n    return x + 1",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
async def test_a_broken_limit_is_a_violation(sandbox: Sandbox, source: str) -> None:
    assert (await sandbox.test(program(source), CASES, SMALL)).status == "violation"


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
async def test_a_broken_limit_is_a_violation_for_a_check_too(sandbox: Sandbox, source: str) -> None:
    assert (await sandbox.test(program(source), CHECK, SMALL)).status == "violation"


async def test_a_program_that_recovers_from_too_much_memory_is_right(sandbox: Sandbox) -> None:
    source = "def f(x):\n    try: bytes(2**31)\n    except MemoryError: return x + 1"
    assert (await sandbox.test(program(source), CASES, SMALL)).status == "passed"


async def test_too_much_output_is_a_violation(sandbox: Sandbox) -> None:
    enough, more = "def f(n): return 'x' * n", 2**20
    assert (
        await sandbox.test(program(enough), case("x" * (more - 100), more - 100), SMALL)
    ).status == "passed"
    assert (await sandbox.test(program(enough), case("x" * more, more), SMALL)).status == "violation"
    many = Suite(cases=tuple(Case(args=(more // 4,), expected="x" * (more // 4)) for _ in range(6)))
    report = await sandbox.test(program(enough), many, SMALL)
    assert [t.status for t in report.tests] == [
        "passed",
        "passed",
        "passed",
        "violation",
        "skipped",
        "skipped",
    ]


async def test_too_much_output_is_a_violation_for_a_check_too(sandbox: Sandbox) -> None:
    suite = Suite(check="def check(c):\n    assert len(c(3 * 2**20)) == 3 * 2**20")
    report = await sandbox.test(program("def f(n): return 'x' * n"), suite, SMALL)
    assert report.status == "violation", report


async def test_a_huge_file_is_not_written(sandbox: Sandbox) -> None:
    source = (
        "import os\ndef f(x):\n    with open('big', 'wb', 0) as file:\n        try:\n"
        "            while True: file.write(bytes(2**16))\n        except OSError: return os.path.getsize('big')"
    )
    returned = await sandbox.evaluate(program(source), [Call(args=(1,))], SMALL)
    assert 0 < returned[0].value <= 2**20


async def test_files_of_its_own_are_allowed_and_gone_afterwards(sandbox: Sandbox, scratch: Path) -> None:
    source = (
        "import os, tempfile\ndef f(x):\n    os.makedirs('a/b')\n    open('a/b/c', 'w').write('x')\n"
        "    os.symlink('/', 'root')\n    os.mkfifo('pipe')\n    os.chmod('a', 0)\n    tempfile.mkdtemp()\n"
        "    with tempfile.TemporaryFile() as file: file.write(b'x')\n    return x + 1"
    )
    report = await sandbox.test(program(source), case(2, 1), PATIENT)
    assert report.status == "passed", report
    assert [path for folder in scratch.iterdir() for path in folder.iterdir()] == []
    assert Path("/usr").is_dir(), "a link to the root is removed, not followed"


async def test_descriptors_are_few(sandbox: Sandbox) -> None:
    source = (
        "import os\ndef f(x):\n    n = 0\n    try:\n        while True: n += os.dup(0) > 0\n"
        "    except OSError: return n"
    )
    returned = await sandbox.evaluate(program(source), [Call(args=(1,))], PATIENT)
    assert 10 <= returned[0].value <= 1024


async def test_rights_cannot_be_gained(sandbox: Sandbox) -> None:
    source = (
        "def f(x):\n    status = open('/proc/self/status').read()\n"
        "    return dict(line.split(':\\t') for line in status.splitlines())['NoNewPrivs']"
    )
    assert (await sandbox.test(program(source), case("1", 0), PATIENT)).status == "passed"


# --- the network -------------------------------------------------------------------------------------


async def test_there_is_no_network(sandbox: Sandbox) -> None:
    guards = {layer.name for layer in await sandbox.layers() if layer.active}
    if not guards & {"network namespace", "seccomp"}:
        pytest.skip("this kernel lets nothing guard the network, and the sandbox says so")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        server.setblocking(False)
        local.bind(f"\0archon-test-{os.getpid()}")
        local.listen()
        local.setblocking(False)
        source = (
            "import socket\ndef f(port, name):\n    seen = []\n    for family, address in (\n"
            "        (socket.AF_INET, ('127.0.0.1', port)), (socket.AF_UNIX, name)):\n"
            "        try:\n            with socket.socket(family) as s:\n                s.settimeout(2)\n"
            "                s.connect(address)\n                seen.append(str(address))\n"
            "        except OSError: pass\n    return seen"
        )
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # from here it can be reached
        call = Call(args=(port, f"\0archon-test-{os.getpid()}"))
        returned = await sandbox.evaluate(program(source), [call], PATIENT)
        assert returned[0].value == [], returned
        for one in (server, local):
            with pytest.raises(BlockingIOError):
                one.accept()
