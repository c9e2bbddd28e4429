"""The command line: `archon COMMAND`. Commands are found by entry points, ours and anyone's (D10).

Mistakes of the user end with one message, without a traceback, and exit code 2; other failures that were
foreseen with exit code 1; Ctrl-C with 130.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import click

from archon import __version__, registry
from archon.errors import (
    ArchonError,
    AuthenticationFailed,
    BadReply,
    ConfigError,
    ModelNotFound,
    QuotaExhausted,
    UnknownName,
    UserError,
)

_USERS_TO_MEND = (UserError, AuthenticationFailed, ModelNotFound, QuotaExhausted, BadReply)


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
    try:
        code: Any = cli.main(args=arguments, prog_name="archon", standalone_mode=False)
    except click.exceptions.Abort:
        print("interrupted; what was recorded is kept: run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was recorded is kept: run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except SystemExit as error:
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            sys.exit(0)  # the reader of our output has left: `archon show ... | head`
        raise
    except _USERS_TO_MEND as error:
        _say(error)
        sys.exit(2)
    except ArchonError as error:
        _say(error)
        sys.exit(1)
    except OSError as error:  # a file that cannot be read or written; what was recorded is in the store
        where = f"{error.filename!r}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _say(error: ArchonError) -> None:
    if isinstance(error, ConfigError):
        for flaw in error.flaws:
            print(f"error: {flaw}", file=sys.stderr)
        return
    cause = error.__cause__
    if isinstance(cause, _USERS_TO_MEND):
        error = cause
    print(f"error: {error}", file=sys.stderr)
