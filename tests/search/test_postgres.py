"""The server of these tests leaves nothing behind, however the tests end."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.search import postgres


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("end", ["the tests are gone", "its keeper is killed"])
def test_a_server_ends_with_who_needs_it(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="archon-postgres-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # its user passes through
        monkeypatch.setenv("TMPDIR", folder)
        pipe = subprocess.PIPE
        keeper = subprocess.Popen(
            [sys.executable, "-P", postgres.__file__],
            stdin=pipe,
            stdout=pipe,
            text=True,
            start_new_session=True,
        )
        assert keeper.stdin is not None and keeper.stdout is not None
        told = json.loads(keeper.stdout.readline())
        if "without" in told:
            keeper.communicate()
            pytest.skip(told["without"])
        assert answers(told["port"]) and list(Path(folder).iterdir())
        if end == "its keeper is killed":
            keeper.kill()
        keeper.communicate()  # its input ends, as when a process is killed that has the other end
        deadline = time.monotonic() + 30
        while answers(told["port"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if end == "the tests are gone":
            assert keeper.returncode == 0 and not list(Path(folder).iterdir())


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_PACKAGE", "no_such_package")
    with pytest.raises(postgres.NoServer, match=r"pip install 'archon\[dev\]'.*ARCHON_POSTGRES"):
        postgres.programs()


def test_where_root_cannot_be_another_user_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("subprocess.run", refused)
    with pytest.raises(postgres.NoServer, match=r"nor we as `nobody`.*ARCHON_POSTGRES"):
        postgres.identity()


def test_programs_that_its_user_cannot_run_are_copied(tmp_path: Path) -> None:
    who = postgres.identity()
    if not who:
        pytest.skip("not root: the server runs as the same user")
    closed, home = tmp_path / "closed", tmp_path / "home"
    (closed / "bin").mkdir(parents=True)
    home.mkdir()
    program = closed / "bin" / "postgres"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    closed.chmod(0o700)
    assert postgres.ready_for(who, home, closed) == home / "programs"
    assert (home / "programs" / "bin" / "postgres").is_file()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        closed.chmod(0o755)
        closed.rename(place / "open")
        assert postgres.ready_for(who, home, place / "open") == place / "open"
