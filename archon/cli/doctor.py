"""`archon doctor`: what protects this machine from the programs that a model writes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click


@click.command(short_help="Say what the sandbox protects here, and what not.")
@click.option("--json", "as_json", is_flag=True, help="Print the layers as JSON.")
def doctor(as_json: bool) -> None:
    """Try every layer of the sandbox: exit code 0 if programs can be run in isolation here, else 1.

    \b
    archon doctor
    """
    layers, refusal = asyncio.run(_examined())
    if as_json:
        print(
            json.dumps(
                {
                    "strict": not refusal,
                    "refusal": refusal,
                    "layers": [
                        {"name": x.name, "active": x.active, "protects": x.protects, "why": x.why}
                        for x in layers
                    ],
                }
            )
        )
    else:
        for layer in layers:
            mark = "yes" if layer.active else "NO "
            print(
                f"{mark} {layer.name}: {layer.protects}{'' if layer.active else f' (not here: {layer.why})'}"
            )
        print(refusal or "Programs run in isolation here.")
    sys.exit(1 if refusal else 0)


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
