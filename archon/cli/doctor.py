"""`archon doctor`: what can be used here, and what protects this machine from the programs that a model writes."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from typing import Any

import click

SCHEMA = 1


@click.command(short_help="Say what can be used here, and what the sandbox protects.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON (docs/doctor.md).")
def doctor(as_json: bool) -> None:
    """Look for backends, engines and extras, with what is missing and how to get it; try every layer of the sandbox.

    Exit code 0 if programs can be run in isolation here, else 1.

    \b
    archon doctor
    archon doctor --json | jq '.backends[] | select(.usable | not)'
    """
    from archon import __version__
    from archon.surroundings import surroundings

    here = surroundings()
    layers, refusal = asyncio.run(_examined())
    if as_json:
        data = {
            "schema": SCHEMA,
            "archon": __version__,
            "python": platform.python_version(),
            **here,
            "strict": not refusal,
            "refusal": refusal,
            "layers": [
                {"name": x.name, "active": x.active, "protects": x.protects, "why": x.why} for x in layers
            ],
        }
        print(json.dumps(data, indent=1))
    else:
        for what in ("backends", "engines", "extras"):
            for part in here[what]:
                print(_line(f"{what[:-1]} {part['name']}", part))
        for layer in layers:
            mark = "yes" if layer.active else "NO "
            print(
                f"{mark} {layer.name}: {layer.protects}{'' if layer.active else f' (not here: {layer.why})'}"
            )
        print(refusal or "Programs run in isolation here.")
    sys.exit(1 if refusal else 0)


def _line(name: str, part: dict[str, Any]) -> str:
    if part["usable"]:
        return f"yes {name}" + (f": {part['about']}" if part["about"] else "")
    return f"no  {name}: {part['missing']}" + (f". Get it: {part['get']}" if part["get"] else "")


async def _examined() -> tuple[Any, str]:
    """The layers, and why the sandbox would refuse to run programs, if it would."""
    from archon import registry
    from archon.errors import ExecutionError

    kind = registry.find("executor", "sandbox")
    weak, strict = kind(1, isolation="weak"), kind(1, isolation="strict")
    try:
        layers = await weak.layers()
        try:
            await strict.layers()
        except ExecutionError as error:
            return layers, str(error)
        return layers, ""
    finally:
        await weak.close()
        await strict.close()
