"""What a program must not get to see: expected values, checks, other programs, and who runs it.

The programs here search all the memory, descriptors and files they have of their own for a secret whose form they
know but which is not in their source. That a search finds what *is* there is tested too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from archon.execution import Call, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from tests.verifiers.cell import PATIENT, RIGHT, opened, program

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "S3CRET-0123456789abcdef"
FORM = "r'S3CR' + r'ET-[0-9a-f]{16}'"

IN_MEMORY = f"""
import re
def f(*ignored):
    pattern = re.compile(({FORM}).encode())
    found = set()
    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb') as memory:
        for line in maps:
            area, rights = line.split()[:2]
            if 'r' not in rights or '[v' in line:
                continue
            start, end = (int(n, 16) for n in area.split('-'))
            try:
                memory.seek(start)
                found.update(m.decode() for m in pattern.findall(memory.read(end - start)))
            except (OSError, ValueError, OverflowError):
                pass
    return found.pop() if found else ''
"""
AMONG_OBJECTS = f"""
import gc, re, sys
def f(*ignored):
    pattern, seen = re.compile({FORM}), set()
    frame, queue = sys._getframe(1), [sys.modules, gc.get_objects()]
    while frame:
        queue += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    while queue and len(seen) < 200_000:
        one = queue.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (str, bytes)):
            text = one if isinstance(one, str) else one.decode('latin-1')
            if match := pattern.search(text):
                return match[0]
        else:
            queue += gc.get_referents(one)
    return ''
"""
AROUND = f"""
import os, re, socket, sys
def texts():
    yield from (*sys.argv, *sys.orig_argv, *os.environ.values())
    for name in ('cmdline', 'environ'):
        yield open('/proc/self/' + name, 'rb').read().decode('latin-1')
    for fd in range(64):
        if fd != 3:
            try:
                os.set_blocking(fd, False)
                yield os.read(fd, 1 << 20).decode('latin-1')
            except OSError:
                pass
    for folder, _, files in os.walk('.'):
        yield from files
        for file in files:
            yield open(os.path.join(folder, file), 'rb').read().decode('latin-1')
def f(*ignored):
    for text in texts():
        if match := re.search({FORM}, text):
            return match[0]
    return ''
"""
SEARCHES = {"in memory": IN_MEMORY, "among objects": AMONG_OBJECTS, "around": AROUND}

EXPECTED = Suite(
    cases=(Case(args=(0,), expected=SECRET), Case(args=(1,), expected=[SECRET], alternatives=(SECRET,)))
)
CHECKED = Suite(
    namespace=f"answer = {SECRET!r}",
    check=f"def check(c):\n    assert c(0) == {SECRET!r}\n    assert c(1) == answer",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(scratch: Path) -> AsyncIterator[Sandbox]:
    """One that is started with a secret in the environment and on the command line of its starter."""
    before = list(sys.argv)
    os.environ["ARCHON_TEST_SECRET"] = SECRET
    sys.argv.append(SECRET)
    try:
        async with opened() as sandbox:
            await sandbox.layers()
            yield sandbox
    finally:
        del os.environ["ARCHON_TEST_SECRET"]
        sys.argv[:] = before


async def search(sandbox: Sandbox, source: str, suite: Suite) -> None:
    report = await sandbox.test(program(source), suite, PATIENT)
    assert report.status == "wrong", report
    assert report.passed == 0
    assert "returned ''" in report.tests[0].detail or suite.check is not None


@pytest.mark.parametrize("source", [IN_MEMORY, AMONG_OBJECTS], ids=["in memory", "among objects"])
async def test_a_search_finds_what_is_there(sandbox: Sandbox, source: str) -> None:
    returned = await sandbox.evaluate(program(source), [Call(args=(SECRET,))], PATIENT)
    assert returned[0].value == SECRET


async def test_a_search_around_finds_what_is_there(sandbox: Sandbox) -> None:
    source = f"open('note', 'w').write({SECRET!r})\n{AROUND}"
    returned = await sandbox.evaluate(program(source), [Call()], PATIENT)
    assert returned[0].value == SECRET


@pytest.mark.parametrize("source", SEARCHES.values(), ids=SEARCHES)
async def test_expected_values_never_enter_the_programs_process(sandbox: Sandbox, source: str) -> None:
    await search(sandbox, source, EXPECTED)


@pytest.mark.parametrize("source", SEARCHES.values(), ids=SEARCHES)
async def test_a_checking_program_never_enters_the_programs_process(sandbox: Sandbox, source: str) -> None:
    await search(sandbox, source, CHECKED)


@pytest.mark.parametrize("source", SEARCHES.values(), ids=SEARCHES)
async def test_a_program_sees_nothing_of_the_one_before(sandbox: Sandbox, source: str) -> None:
    earlier = f"note = {SECRET!r}\nopen('note', 'w').write(note)\n{RIGHT}"
    for suite in (EXPECTED, CHECKED):
        await sandbox.test(program(earlier), suite, PATIENT)
    await sandbox.evaluate(program(earlier), [Call(args=(SECRET,))], PATIENT)
    returned = await sandbox.evaluate(program(source), [Call()], PATIENT)
    assert returned[0].value == ""


@pytest.mark.parametrize("source", SEARCHES.values(), ids=SEARCHES)
async def test_a_program_sees_nothing_of_the_cases_to_come(sandbox: Sandbox, source: str) -> None:
    suite = Suite(cases=(Case(args=(0,), expected=1), Case(args=(0,), expected=SECRET)))
    report = await sandbox.test(program(source), suite, PATIENT)
    assert [t.status for t in report.tests] == ["wrong", "wrong"]
    assert "returned ''" in report.tests[1].detail


async def test_a_program_stands_in_an_empty_folder_with_an_empty_environment(sandbox: Sandbox) -> None:
    source = (
        "import os, sys\ndef f():\n    return (os.getcwd(), os.listdir(), dict(os.environ), os.isatty(0),\n"
        "        sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1], os.getsid(0) == os.getpid())"
    )
    returned = await sandbox.evaluate(program(source), [Call()], PATIENT)
    folder, files, environment, terminal, descriptors, own_session = returned[0].value
    assert files == [] and not terminal and own_session
    assert descriptors == [0, 1, 2, 3]
    assert set(environment) <= {"HOME", "TMPDIR", "OPENBLAS_NUM_THREADS", "LC_ALL", "LC_CTYPE"}
    assert environment["HOME"] == folder != str(Path.cwd())


async def test_input_is_empty(sandbox: Sandbox) -> None:
    source = (
        "import os, sys\ndef f(x):\n    try:\n        input()\n    except EOFError:\n"
        "        return (os.read(0, 10), sys.stdin.read(), list(sys.stdin))"
    )
    returned = await sandbox.evaluate(program(source), [Call(args=(1,))], PATIENT)
    assert returned[0].value == (b"", "", [])


async def test_what_is_printed_goes_nowhere(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    source = (
        "import os, sys\ndef f(x):\n    print('out' * 10)\n    print('err', file=sys.stderr, flush=True)\n"
        "    sys.stdout.flush()\n    os.write(1, b'raw')\n    os.write(2, b'raw')\n    os.system('echo shell')\n"
        "    return x + 1"
    )
    assert (await sandbox.evaluate(program(source), [Call(args=(1,))], PATIENT))[0].value == 2
    assert capfd.readouterr() == ("", "")
