"""`archon show`: a pipeline as a picture, with its calls."""

from __future__ import annotations

import json
from pathlib import Path

import click

from archon.cli.options import read_pipeline


@click.command(short_help="Show a pipeline: terminal, Mermaid, SVG, JSON.")
@click.argument("pipeline", required=False, metavar="NAME|FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "mermaid", "svg", "json", "yaml"]),
    default="terminal",
    show_default=True,
    help="The picture's form.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--all", "every", is_flag=True, help="List every ready pipeline with its calls per problem.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to a file instead of the terminal."
)
def show(pipeline: str | None, form: str, as_json: bool, every: bool, out: Path | None) -> None:
    """Show a ready pipeline or a file: its stages, what flows where, and the model calls it makes.

    \b
    archon show best_of_n
    archon show pipeline.yaml --format svg --out pipeline.svg
    archon show --all
    archon show best_of_n --json | jq .calls.total
    """
    from archon import picture

    if every:
        _write(_shelf(as_json or form == "json"), out)
        return
    if pipeline is None:
        raise click.UsageError("name a pipeline or a file, or use --all")
    config = read_pipeline(pipeline)
    graph = config.pipeline.graph()
    if as_json:
        form = "json"
    if form == "json":
        text = json.dumps(picture.as_json(graph), indent=2)
    elif form == "yaml":
        from archon.config import dump

        text = dump(config).rstrip()
    else:
        text = {"terminal": picture.terminal, "mermaid": picture.mermaid, "svg": picture.svg}[form](graph)
    _write(text, out)


def _shelf(as_json: bool) -> str:
    """Every ready pipeline with its calls per problem."""
    from archon import picture
    from archon.shelf import names, ready, summary

    calls = {name: picture.total_calls(ready(name).pipeline.graph()) for name in names()}
    if as_json:
        listed = {name: {"summary": summary(name), "calls": picture.bounds(calls[name])} for name in calls}
        return json.dumps(listed, indent=2, ensure_ascii=False)
    wide = max(map(len, calls), default=0)
    high = max((len(str(count)) for count in calls.values()), default=0)
    return "\n".join(f"{n:<{wide}}  {count!s:>{high}} calls  {summary(n)}" for n, count in calls.items())


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
