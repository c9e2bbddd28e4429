"""Each layer by itself: the holes it closes, what is refused where too little is left, and an ordinary user's."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from archon.benchmarks.hostile.forgeries import VERDICT
from archon.errors import ExecutionError, UserError
from archon.execution import Call, Program, Returned, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox
from archon.verifiers.sandbox.layers import layers, refusal, unguarded
from tests.verifiers.cell import BARE, CASES, CHECK, PATIENT, RIGHT, opened, program

LADDER = {
    "everything": (),
    "no Landlock": ("landlock",),
    "no filter": ("seccomp",),
    "namespaces alone": ("landlock", "seccomp"),
    "no namespaces": ("namespaces",),
}
"""Every way down that is still strict."""
SECRET = "H1DDEN-" + os.urandom(8).hex()
READS_MEMORY = """
import re
def f(pid):
    with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb', 0) as memory:
        for line in maps:
            area, rights = line.split()[:2]
            if rights[:2] != 'rw' or '[v' in line: continue
            start, end = (int(n, 16) for n in area.split('-'))
            for at in range(start, end, 1 << 20):
                memory.seek(at)
                if found := re.search(rb'H1DD' + rb'EN-[0-9a-f]{16}', memory.read(min(1 << 20, end - at))):
                    return found[0].decode()
    return ''
"""
TAKES_THE_JUDGES_SOCKET = f"""
import ctypes, os
libc = ctypes.CDLL(None)
def siblings():
    zygote = os.getppid()
    if zygote == 0: return range(2, 50)  # in a pen: whatever might be in there
    return map(int, open(f'/proc/{{zygote}}/task/{{zygote}}/children').read().split())
def f(x):
    for pid in siblings():
        judge = libc.syscall(434, pid, 0)
        if judge >= 0 and pid != os.getpid():
            taken = libc.syscall(438, judge, 3, 0)
            if taken >= 0: os.write(taken, {VERDICT!r})
    return 0
"""
"""It tries its siblings only: where nothing guards it would write to anybody's files."""
KERNEL = pytest.mark.skipif(sys.platform != "linux", reason="these layers are Linux's")


@pytest.fixture(params=[*LADDER.values()], ids=[*LADDER])
async def held(request: pytest.FixtureRequest, scratch: Path) -> AsyncIterator[Sandbox]:
    """A sandbox on each rung that this kernel has."""
    async with opened(without=request.param) as sandbox:
        try:
            await sandbox.layers()
        except ExecutionError as error:
            pytest.skip(f"LOUDLY: this kernel lacks what this rung stands on: {error}")
        yield sandbox


async def value(sandbox: Sandbox, source: str, *args: object) -> Returned:
    return (await sandbox.evaluate(program(source), [Call(args=args)], PATIENT))[0]


# --- two ways in which a wrong answer once became a pass ----------------------------------------------


async def test_no_program_reads_the_memory_of_who_compares(held: Sandbox) -> None:
    suite = Suite(cases=(Case(args=(os.getpid(),), expected=SECRET),))
    report = await held.test(program(READS_MEMORY), suite, PATIENT)
    assert report.status == "failed", report
    assert "Permission" in report.tests[0].detail or "FileNotFound" in report.tests[0].detail


async def test_no_program_takes_the_judges_socket(held: Sandbox) -> None:
    report = await held.test(program(TAKES_THE_JUDGES_SOCKET), CHECK, PATIENT)
    assert report.status in ("wrong", "failed"), report


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do these where nothing guards")
async def test_both_work_where_nothing_guards_and_so_can_fail(scratch: Path) -> None:
    suite = Suite(cases=(Case(args=(os.getpid(),), expected=SECRET),))
    async with opened(without=BARE) as sandbox:
        assert (await sandbox.test(program(READS_MEMORY), suite, PATIENT)).status == "passed"
        assert (await sandbox.test(program(TAKES_THE_JUDGES_SOCKET), CHECK, PATIENT)).status == "passed"


# --- what no program can do on any rung ---------------------------------------------------------------

REFUSED = {
    "read a file": "def f(path): return open(path).read()",
    "list a folder": "import os\ndef f(path): return os.listdir(os.path.dirname(path))",
    "write a file": "def f(path): return open(path, 'w').write('x')",
    "remove a file": "import os\ndef f(path): return os.remove(path)",
    "link a file": "import os\ndef f(path):\n    os.link(path, 'link')\n    return open('link').read()",
    "follow a link": "import os\ndef f(path):\n    os.symlink(path, 'link')\n    return open('link').read()",
    "make a device": (
        "import os, stat\ndef f(path):\n    os.mknod('d', stat.S_IFBLK | 0o600, os.makedev(254, 0))\n"
        "    return open('d', 'rb').read(9)"
    ),
    "signal its starter": "import os\ndef f(path): return os.kill({pid}, 0)",
    "signal everybody": "import os, signal\ndef f(path): return os.kill(-1, 0) or {pid}",
    "reach the network": "import socket\ndef f(path): return socket.create_connection(('127.0.0.1', {port}), 2)",
    "become root": (
        "import os\ndef f(path):\n    os.setuid(0) if os.getuid() else os.chroot('.')\n    return os.getuid()"
    ),
    "mount": (
        "import ctypes, os\ndef f(path):\n    if ctypes.CDLL(None).mount(b'x', b'.', b'tmpfs', 0, 0):\n"
        "        raise OSError"
    ),
    "load a library it wrote": (
        "import ctypes\ndef f(path):\n    open('l.so', 'wb').write(b'x')\n    return ctypes.CDLL('./l.so')"
    ),
    "execute what it wrote": (
        "import os\ndef f(path):\n    open('x', 'w').write('#!/bin/sh')\n    os.chmod('x', 0o700)\n"
        "    os.execv('x', ['x'])"
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
async def test_what_is_outside_stays_outside(held: Sandbox, source: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(SECRET)
    file.chmod(0o666)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        source = source.replace("{pid}", str(os.getpid())).replace("{port}", str(port))
        returned = await value(held, source, str(file))
    assert returned.status == "failed", returned
    assert file.read_text() == SECRET


async def test_an_ordinary_program_is_at_home_on_every_rung(held: Sandbox) -> None:
    source = (
        "import asyncio, decimal, sqlite3, tempfile, threading, zoneinfo\nfrom concurrent.futures import *\n"
        "def f(x):\n    with tempfile.TemporaryFile() as file: file.write(b'x')\n"
        "    with ThreadPoolExecutor(4) as pool: return sum(pool.map(int, '1234'))"
    )
    assert (await value(held, source, 1)).value == 10
    for suite in (CASES, CHECK):
        assert (await held.test(program(RIGHT), suite, PATIENT)).status == "passed"


# --- saying what there is, and refusing where it is too little ----------------------------------------


async def test_every_layer_says_what_it_protects_and_why_it_is_not_there() -> None:
    async with opened(without=("landlock",)) as sandbox:
        found = await sandbox.layers()
    assert all(layer.name and layer.protects for layer in found)
    assert all(layer.active != bool(layer.why) for layer in found)
    (landlock,) = (layer for layer in found if layer.name == "Landlock")
    assert landlock.why == "not used, as asked"


@pytest.mark.parametrize(
    ("missing", "open_to"),
    [
        ((), []),
        (("landlock", "seccomp"), []),
        (("namespaces", "network"), []),
        (("namespaces", "landlock"), ["files"]),
        (("network", "seccomp"), ["the network"]),
        (("namespaces", "network", "seccomp"), ["the network", "other processes"]),
    ],
)
def test_what_must_be_guarded_needs_one_guard(missing: tuple[str, ...], open_to: list[str]) -> None:
    reasons = dict.fromkeys(missing, "no")
    assert unguarded(reasons) == open_to
    assert all(what in refusal(reasons) for what in open_to)
    assert not [x for x in layers(reasons) if x.active and x.name.lower() in missing]


async def test_too_little_is_refused_unless_it_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(1, without=BARE)
    for _ in range(2):
        with pytest.raises(
            ExecutionError, match=r"(?s)files.*archon doctor.*isolation=\"weak\".*ARCHON_SANDBOX=weak"
        ):
            await sandbox.test(program(RIGHT), CASES, PATIENT)
    await sandbox.close()
    monkeypatch.setenv("ARCHON_SANDBOX", "weak")
    sandbox = Sandbox(1, without=BARE)
    assert (await sandbox.test(program(RIGHT), CASES, PATIENT)).status == "passed"
    await sandbox.close()


def test_no_other_level_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHON_SANDBOX", "off")
    with pytest.raises(UserError, match=r"'off'.*strict or weak"):
        Sandbox(1)


# --- an ordinary user ---------------------------------------------------------------------------------

AS_NOBODY = """
import asyncio, os, sys
from archon.verifiers.sandbox import kernel
import archon.verifiers.sandbox
from tests.verifiers.cell import *

def reachable(path):
    '''An interpreter may live in root's own folder: show it to others, in a mount namespace of ours.'''
    closed = [p for p in reversed(Path(path).parents) if not p.stat().st_mode & 1]
    kernel.unshare(kernel.NEWNS)
    kernel.mount('none', '/', flags=kernel.MS_REC | kernel.MS_PRIVATE)
    if closed:
        kernel.mount('none', '/mnt', 'tmpfs')
        os.mkdir('/mnt/kept')
        kernel.mount(path, '/mnt/kept', flags=kernel.MS_BIND)
        kernel.mount('none', str(closed[0]), 'tmpfs', data='mode=755')
        os.makedirs(path)
        kernel.mount('/mnt/kept', path, flags=kernel.MS_BIND)

reachable(sys.base_prefix)
os.setgroups([]); os.setgid(65534); os.setuid(65534)

async def main():
    async with opened() as sandbox:
        for layer in await sandbox.layers():
            if not layer.active: print('MISSING', layer.name, layer.why)
        for suite in (CASES, CHECK):
            print((await sandbox.test(program(RIGHT), suite, PATIENT)).status)
            print((await sandbox.test(program('def f(x): return open("/etc/passwd")'), suite, PATIENT)).status)

asyncio.run(main())
"""


@KERNEL
@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs as an ordinary user already")
def test_it_works_as_an_ordinary_user() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if "MISSING" in done.stdout:
        pytest.skip(f"LOUDLY: this kernel gives ordinary users less: {done.stdout}")
    assert done.stdout.split() == ["passed", "failed"] * 2, done.stderr


# --- a layer that the kernel offers is used --------------------------------------------------------------


def offers_namespaces() -> bool:
    """Asked of another program than ours, so that a fault of ours is not taken for the kernel's."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-Urmpf", "sh", "-c", "mount -t tmpfs none /mnt && mount -t proc proc /proc"],
        capture_output=True,
    )
    return tried.returncode == 0


@pytest.mark.skipif(not offers_namespaces(), reason="LOUDLY: this kernel offers no namespaces")
async def test_where_the_kernel_offers_namespaces_they_are_used(scratch: Path) -> None:
    async with opened() as sandbox:
        missing = [
            layer for layer in await sandbox.layers() if "namespace" in layer.name and not layer.active
        ]
    assert not missing, missing


@pytest.mark.skipif(not offers_namespaces(), reason="LOUDLY: this kernel offers no namespaces")
async def test_libraries_may_lie_where_the_private_root_has_folders_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = "import socket\ndef f(): return socket.gethostname()"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        packages = Path(folder) / "site-packages"
        packages.mkdir()
        monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
        async with opened() as sandbox:
            asked = Program(source=source, entry_point="f", packages=True)
            (said,) = await sandbox.evaluate(asked, [Call()], PATIENT)
    assert said.value == "archon", said
