"""The command line: `archon COMMAND`. Commands are found by entry points, ours and anyone's (D10).

Mistakes of the user end with one message, without a traceback, and exit code 2; other failures that were
foreseen with exit code 1; Ctrl-C with 130, SIGTERM with 143, SIGHUP with 129. Who stops reading our
output ends us without a word.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

import click

from archon import __version__, registry
from archon.errors import (
    ArchonError,
    AuthenticationFailed,
    BadReply,
    ConfigError,
    ModelNotFound,
    QuotaExhausted,
    StoreUnusable,
    StoreVersion,
    UnknownName,
    UserError,
)

_USERS_TO_MEND = (
    UserError,
    AuthenticationFailed,
    ModelNotFound,
    QuotaExhausted,
    BadReply,
    StoreUnusable,
    StoreVersion,
)


class Commands(click.Group):
    """Commands by entry point, loaded when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every registered command."""
        return registry.names("command")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command."""
        try:
            command = registry.find("command", cmd_name)
        except UnknownName as error:
            raise click.UsageError(str(error), ctx) from None
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a broken pipe is for `main` to judge, as click ends with exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeBroke from error


class _PipeBroke(Exception):
    """Somebody stopped reading, our output or something else."""


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="archon")
def cli() -> None:
    """Spend inference compute well: compose sampling, search, verification and voting, inside a budget.

    \b
    archon run "What is 17 * 23?" --pipeline self_consistency --model openai:gpt-4o-mini
    archon bench gsm8k --pipeline self_consistency --model openai:gpt-4o-mini --samples 16 --limit 100 --out runs/first
    archon report runs/first
    archon show best_of_n
    archon validate pipeline.yaml
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows a mark instead
            stream.reconfigure(errors="replace")
    code = _run(arguments)
    _flush()
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """Run the command line; its exit code."""
    with _terminable() as signals:
        try:
            code: Any = cli.main(args=arguments, prog_name="archon", standalone_mode=False)
        except (click.exceptions.Abort, KeyboardInterrupt):
            print(
                "interrupted; what was recorded is kept: run the same command again to go on", file=sys.stderr
            )
            return 128 + (signals[0] if signals else signal.SIGINT)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except _PipeBroke as error:
            if _nobody_reads():
                return 0
            print(f"error: {error.__cause__}", file=sys.stderr)
            return 1
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # rich ends so where nobody reads
                return 0
            code = error.code
        except _USERS_TO_MEND as error:
            _say(error)
            return 2
        except ArchonError as error:
            _say(error)
            return 1
        except OSError as error:  # a file that cannot be read or written; what was recorded is in the store
            where = f"{error.filename!r}: " if error.filename else ""
            print(f"error: {where}{error.strerror or error}{_next_step(error)}", file=sys.stderr)
            return 1
    return code if isinstance(code, int) else 0


@contextmanager
def _terminable() -> Iterator[list[int]]:
    """SIGTERM does what Ctrl-C does, and SIGHUP too (a terminal that is closed), unless somebody else has seen to
    it, as `nohup` has; yields the signals that came."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        interrupt = signal.getsignal(signal.SIGINT)  # asyncio's, while it runs
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _nobody_reads() -> bool:
    """Whether the reader of our output has left: `archon show --all | head`."""
    poll = select.poll()
    for stream in _outputs():
        poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _flush() -> None:
    """Write what is still to be written, or drop it where nobody reads it."""
    for stream in _outputs():
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _outputs() -> list[TextIO]:
    return [s for s in (sys.stdout, sys.stderr) if s is not None]  # None: closed before we began


def _next_step(error: OSError) -> str:
    """What to do about a full disk; other errors say it by what they are."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    return ". Make room, or name another place with --out; what was recorded is kept"


def _say(error: ArchonError) -> None:
    if isinstance(error, ConfigError):
        for flaw in error.flaws:
            print(f"error: {flaw}", file=sys.stderr)
        return
    cause = error.__cause__
    if isinstance(cause, _USERS_TO_MEND):
        error = cause
    print(f"error: {error}", file=sys.stderr)
