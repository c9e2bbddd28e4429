"""`archon import-archon`: a configuration of the original Archon as ours. Cost: no calls."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from archon.errors import DataError


@click.command("import-archon", short_help="Read a configuration of the original Archon (JSON).")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="YAML", help="Write to a file instead of the terminal."
)
@click.option(
    "--again",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="How often to ask again where a reply cannot be read; 0 keeps to the calls of the paper's table.",
)
def import_archon(file: Path, out: Path | None, again: int) -> None:
    """Read a configuration of the original Archon and write it as ours: models, and a pipeline.

    What is not as it was is said in comments of the result and on the error output. Keys are not copied: models go
    by the names of environment variables.

    \b
    archon import-archon MoA.json --out moa.yaml
    archon show moa.yaml
    """
    from archon.strategies.importing.conversion import converted, written
    from archon.strategies.importing.original import read_original

    original = read_original(file)
    imported = converted(original, again, str(file))
    text = written(original, imported, file.name)
    for note in imported.notes:
        print(f"note: {note}", file=sys.stderr)
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {str(out)!r}: {error.strerror}") from error
    print(f"{out}: {imported.config.pipeline.plan().calls} model calls per problem", file=sys.stderr)
