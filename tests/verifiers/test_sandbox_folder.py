"""Each program finds the folder that the first one found, whatever those before it did to theirs."""

from __future__ import annotations

import pytest

from archon.execution import Call, Limits
from tests.verifiers.cell import PATIENT, opened, program

LOOK = """
import os
def f():
    s = os.stat('.')
    return [s.st_mode, s.st_uid, s.st_nlink, s.st_size, s.st_atime_ns, s.st_mtime_ns, os.listdir(), os.listxattr('.')]
"""
MARKS = {
    "a file": "open('mark', 'w').write('x')",
    "a hidden folder": "os.makedirs('.mark/deep')",
    "a file that is removed again": "open('mark', 'w').close(), os.remove('mark')",
    "rights": "os.chmod('.', 0o711)",
    "no rights": "os.chmod('.', 0)",
    "a date": "os.utime('.', (5, 5))",
    "the date of use alone": "os.utime('.', ns=(7, 0))",
    "the date as it was, to be seen as nothing": "os.chmod('.', 0o711), os.chmod('.', 0o700), os.utime('.', ns=(0, 0))",
    "an attribute": "os.setxattr('.', 'user.mark', b'x')",
    "a full folder": "[open(str(i), 'w').close() for i in range(4000)]",
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
async def test_no_mark_is_found_by_the_next(mark: str) -> None:
    marking = f"import os\ndef f():\n    try: {mark}\n    except OSError: return 'refused'\n    return 'done'"
    async with opened() as sandbox:

        async def result(source: str) -> object:
            (returned,) = await sandbox.evaluate(program(source), [Call()], PATIENT)
            assert returned.status == "returned", returned
            return returned.value

        first = await result(LOOK)
        assert first == await result(LOOK)
        for _ in range(2):
            assert await result(marking) in ("done", "refused")
            assert await result(LOOK) == first


async def test_a_mark_in_the_flags_of_a_folder_is_refused() -> None:
    source = (
        "import fcntl, os\ndef f():\n    fd = os.open('.', os.O_RDONLY)\n"
        "    try: fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little'))\n"
        "    except PermissionError: return 'refused'\n    return 'done'"
    )
    async with opened() as sandbox:
        (returned,) = await sandbox.evaluate(program(source), [Call()], PATIENT)
    assert returned.value == "refused"


async def test_room_is_as_each_program_is_given() -> None:
    source = "def f(x):\n    open('a', 'wb').write(bytes(3 * 2**20))\n    return x"
    async with opened() as sandbox:
        for megabytes, expected in ((1, "failed"), (8, "returned"), (1, "failed"), (8, "returned")):
            limits = Limits(cpu_seconds=10, wall_seconds=60, output_mb=megabytes)
            (returned,) = await sandbox.evaluate(program(source), [Call(args=(1,))], limits)
            assert returned.status == expected, returned
