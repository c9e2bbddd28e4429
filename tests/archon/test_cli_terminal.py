"""The root command, and the terminal that the tests of its commands share."""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import click
import pytest

from archon import __version__, registry
from archon.cli import cli, main
from archon.testing import StubServer
from archon.testing.server import Script

COMMANDS = ("bench", "report", "run", "show", "store", "validate")


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of the error stream that are not usage lines, cost or progress."""
        return [line for line in self.err.splitlines() if line.lower().startswith("error:")]


def archon(capsys: pytest.CaptureFixture[str], *words: str | Path, stdin: str | None = None) -> Said:
    """Run a command here; it leaves the environment as it is."""
    capsys.readouterr()
    environment = dict(os.environ)
    with (
        mock.patch.object(sys, "stdin", io.StringIO(stdin or "")),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert os.environ == environment
    assert isinstance(ended.value.code, int)
    assert "Traceback" not in out + err
    return Said(ended.value.code, out, err)


def process(*words: str | Path, stdin: bytes = b"", **environment: str) -> Said:
    """Run a command as a process of its own."""
    ended = subprocess.run(
        command(*words), input=stdin, capture_output=True, timeout=600, env={**os.environ, **environment}
    )
    return Said(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def command(*words: str | Path) -> list[str]:
    """The command line of a process."""
    return [sys.executable, "-m", "archon", *map(str, words)]


@contextmanager
def served(script: Script | None = None) -> Iterator[StubServer]:
    """A stub server in a thread, so that a command can run in this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = StubServer(script)
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(300)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(300)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def every_command(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words that lead to each command, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        yield (*before, name)
        if isinstance(found, click.Group):
            yield from every_command(found, (*before, name))


# --- the root --------------------------------------------------------------------------------------


def test_the_root_lists_every_command_with_a_line_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "--help")
    assert said.code == 0
    assert set(COMMANDS) <= set(registry.names("command"))
    for name in registry.names("command"):
        assert re.search(rf"^  {name} +\w.*", said.out, re.MULTILINE)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "--version")
    assert (said.code, said.err) == (0, "")
    assert __version__ in said.out


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            words,
            id=" ".join(words),
        )
        for words in [(), *every_command()]
    ],
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_of_every_command_shows_an_example(
    words: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, *words, flag)
    assert (said.code, said.err) == (0, "")
    assert re.search(rf"^  (echo .*\| )?archon {' '.join(words)}", said.out, re.MULTILINE)


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(cli)
    for words in every_command():
        found: click.Command = cli
        for word in words:
            assert isinstance(found, click.Group)
            inner = found.get_command(context, word)
            assert inner is not None
            found = inner
        for parameter in found.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{' '.join(words)} {parameter.name}"


def test_without_a_command_the_help_is_shown_and_nothing_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys)
    assert said.code == 2
    assert said.out == ""
    assert "Commands:" in said.err


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "valdate", "x.yaml")
    assert said.code == 2
    assert said.errors == ["Error: there is no command named 'valdate'. Did you mean 'validate'?"]


def test_a_misspelt_option_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "run", "Q", "--pipline", "best_of_n")
    assert said.code == 2
    assert "'--pipline'" in said.err and "--pipeline" in said.err


def test_a_command_that_cannot_be_imported_is_one_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_package_at_all:command", "archon.commands")
    monkeypatch.setattr(registry, "_entries", lambda kind: {"broken": broken})
    said = archon(capsys, "broken")
    assert said.code == 1
    assert "'broken'" in said.err and "no_such_package_at_all" in said.err


def test_python_m_archon_is_the_same_program() -> None:
    said = process("--version")
    assert (said.code, said.err) == (0, "")
    assert __version__ in said.out


def left_early() -> tuple[int, bytes]:
    """The exit code and the errors of a command whose reader is gone: `archon show --all | true`."""
    with subprocess.Popen(command("show", "--all"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as show:
        assert show.stdout is not None and show.stderr is not None
        show.stdout.close()
        err = show.stderr.read()
        return show.wait(60), err


def test_a_reader_that_leaves_early_is_told_nothing() -> None:
    assert left_early()[1] == b""


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    assert left_early()[0] == 0
