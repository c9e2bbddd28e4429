"""`archon audit`: what a verifier falls for, before it is trusted with anything."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import click

from archon.cli.options import parse_model

if TYPE_CHECKING:
    from archon.verifier import Verifier
    from archon.verifiers.audit import Audit, Finding

_MOST_SHOWN = 10
_WIDTH = 70
_WIDE = 110


@click.command(short_help="Try a verifier on answers that only look right.")
@click.argument("verifier", metavar="VERIFIER")
@click.option("--model", "-m", "models", multiple=True, metavar="[NAME=]BACKEND:MODEL",
              help="A model of the verifier's, such as openai:gpt-4o-mini (NAME: `default`).")  # fmt: skip
@click.option("--base-url", metavar="URL", help="The server of models given by --model openai:...")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
@click.option("--all", "every", is_flag=True, help="List every mistake.")
@click.option("--strict", is_flag=True, help="Exit code 1 if it made a mistake.")
def audit(
    verifier: str, models: tuple[str, ...], base_url: str | None, as_json: bool, every: bool, strict: bool
) -> None:
    """Let VERIFIER judge replies that are right in odd forms, or wrong and look right: negated answers, lists of
    answers, the right number in the wrong place, the question again, orders to the judge, forged verdicts. What
    it wrongly accepts and wrongly rejects is told by trick. Only a judge calls a model.

    VERIFIER is a name, or its settings as in a file.

    \b
    archon audit exact
    archon audit "regex: {match: whole, of: answer}"
    archon audit "cascade: {verifiers: [exact, judge]}" --model openai:gpt-4o-mini --json
    """
    from archon.errors import UserError
    from archon.verifiers import audit as auditing

    judged = read_verifier(verifier)
    given = dict(parse_model(text, base_url) for text in models)
    for name in judged.models:
        if name not in given:
            option = "" if name == "default" else f"{name}="
            raise UserError(
                f"{judged.name} calls the model {name!r}, and none is given: --model {option}openai:NAME"
            )
    for model in given.values():
        model.check()
    result = asyncio.run(auditing.audit(judged, given))
    if not result.findings:
        kinds = ", ".join(result.skipped)
        raise UserError(
            f"{judged.name} speaks about none of the corpus's questions (kinds: {kinds}; their info has the keys "
            f"{', '.join(map(repr, auditing.problems()[0].info))})"
        )
    if as_json:
        print(json.dumps(result.as_json(), indent=2, ensure_ascii=False))
    else:
        show(result, every=every)
    sys.exit(1 if strict and (result.wrongly_accepted() or result.wrongly_rejected()) else 0)


def read_verifier(text: str) -> Verifier:
    """A verifier by its name, or as `name: {settings}`. Raises ConfigError."""
    from archon.config.build import Builder
    from archon.config.source import read_text
    from archon.verifier import Verifier

    builder = Builder(read_text(text, "yaml") if ":" in text else read_text(f"{text}: {{}}", "yaml"))
    built = builder.component("verifier", builder.source.data, ())
    builder.check()
    assert isinstance(built, Verifier)
    return built


def show(result: Audit, *, every: bool = False) -> None:
    """Print the table, and the mistakes."""
    from rich.console import Console
    from rich.table import Table

    from archon.usage import describe
    from archon.verifiers.tricks import TRICKS

    console = Console(highlight=False)
    table = Table(title=f"audit of {result.verifier}", title_justify="left")
    table.add_column("trick")
    for column in ("replies", "accepted", "rejected", "undecided"):
        table.add_column(column, justify="right")
    wide = console.width >= _WIDE
    if wide:
        table.add_column("what it is")
    for name, counts in result.by_trick().items():
        trick = TRICKS[name]
        accepted, rejected = str(counts["accepted"]), str(counts["rejected"])
        if trick.right and counts["rejected"]:
            rejected = f"[red]{rejected} ![/red]"
        if not trick.right and counts["accepted"]:
            accepted = f"[red]{accepted} ![/red]"
        cells = (name, str(counts["replies"]), accepted, rejected, str(counts["undecided"]), trick.about)
        table.add_row(*cells[: 6 if wide else 5], end_section=name == "corrected")
    console.print(table)
    for title, findings in (
        ("wrongly accepted", result.wrongly_accepted()),
        ("wrongly rejected", result.wrongly_rejected()),
    ):
        wrong = sum(f.right == (title == "wrongly rejected") for f in result.findings)
        console.print(f"{title}: {len(findings)} of {wrong}")
        for finding in findings if every else findings[:_MOST_SHOWN]:
            console.print(f"  {finding.trick}: {_line(finding)}", markup=False, soft_wrap=True)
        if len(findings) > _MOST_SHOWN and not every:
            console.print(f"  and {len(findings) - _MOST_SHOWN} more (--all)")
    if result.skipped:
        console.print(
            f"left out, as it does not apply to them: questions of kind {', '.join(result.skipped)}"
        )
    if result.usage.requests:
        console.print(f"Cost: {describe(result.usage)}")


def _line(finding: Finding) -> str:
    text = " ⏎ ".join(line for line in finding.reply.splitlines() if line.strip())
    return repr(text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…")
