"""`archon validate`: check configuration files without running anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command(short_help="Check pipeline files; print the JSON Schema for editors.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configuration files, for editors.")
def validate(files: tuple[Path, ...], schema: bool) -> None:
    """Check configuration files: exit code 0 if all are valid, else 2 with one error per line.

    \b
    archon validate pipeline.yaml
    archon validate --schema > archon.schema.json    # then, in the YAML's first line:
                                                     # yaml-language-server: $schema=archon.schema.json
    """
    if schema:
        from archon.config.schema import config_schema

        print(json.dumps(config_schema(), indent=2))
        return
    if not files:
        raise click.UsageError("name the files to check, or use --schema")
    from archon.config import load
    from archon.errors import ConfigError, UserError

    flawed = False
    for file in files:
        try:
            load(file)
        except ConfigError as error:
            flawed = True
            for flaw in error.flaws:
                print(_one_line(str(flaw)))
        except UserError as error:
            flawed = True
            print(_one_line(str(error)))
        else:
            print(f"{file}: valid", file=sys.stderr)
    sys.exit(2 if flawed else 0)


def _one_line(text: str) -> str:
    return " ".join(text.split())
