"""`archon cost`: what a model costs in FLOPs and bytes, and how fast it could run on which machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from archon.compute import Architecture
    from archon.roofline import Hardware, Ideal

SCHEMA = 1


@click.command(short_help="What a model costs in FLOPs and bytes, and how fast it could run.")
@click.argument("model", type=click.Path(exists=True, path_type=Path), metavar="CONFIG")
@click.option(
    "--hardware",
    default="h100-sxm",
    show_default=True,
    metavar="NAME,...",
    help="Machines, by their names in archon/hardware.yaml; `here` measures this one.",
)
@click.option(
    "--hardware-table",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A table of yours (or ARCHON_HARDWARE).",
)
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Devices that share the model; what they say to each other is free here.",
)
@click.option(
    "--batch", default="1,16,64,256", show_default=True, metavar="N,...", help="Requests in work at once."
)
@click.option(
    "--prompt",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="TOKENS",
    help="Length of the prompt.",
)
@click.option(
    "--cached",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="TOKENS",
    help="The part of it that is in the prefix cache.",
)
@click.option(
    "--output",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="TOKENS",
    help="Length of the reply.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON (docs/costs.md).")
def cost(
    model: Path, hardware: str, hardware_table: Path | None, devices: int, batch: str,
    prompt: int, cached: int, output: int, as_json: bool,
) -> None:  # fmt: skip
    """Idealised runtime of a model: a lower bound, by its arithmetic and its memory traffic.

    CONFIG is a model's config.json, or the folder that holds it.

    \b
    archon cost models/Qwen2.5-7B-Instruct --hardware h100-sxm,l40s --batch 1,64
    archon cost config.json --hardware here --prompt 100 --output 50 --json
    """
    from archon.compute import Architecture
    from archon.roofline import find_hardware, ideal

    if cached >= prompt:
        raise click.BadParameter(f"it must be less than the prompt's {prompt} tokens", param_hint="--cached")
    shape = Architecture.read(model)
    machines = {
        n.strip(): find_hardware(n.strip(), hardware_table).times(devices) for n in hardware.split(",")
    }
    found = [
        (name, size, ideal(shape, machine, prompt=prompt, cached=cached, output=output, batch=size))
        for name, machine in machines.items()
        for size in _sizes(batch)
    ]
    if as_json:
        print(json.dumps(_data(shape, machines, found, prompt, cached, output), indent=1))
        return
    flops = shape.flops
    print(
        f"{shape.parameters:,} parameters ({shape.active_parameters:,} active), "
        f"{_bytes(shape.weight_bytes)} in {_formats(shape)}; {_bytes(shape.kv_bytes)} of keys and values per token\n"
        f"{flops.of(prompt, cached, 0):.3g} FLOPs to read {prompt - cached:,} tokens, "
        f"{flops.of(prompt, cached, output) - flops.of(prompt, cached, 0):.3g} to write {output:,}"
    )
    _table(machines, found)


def _formats(shape: Architecture) -> str:
    return shape.dtype if shape.weights is None else f"{shape.weights} and {shape.dtype}"


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise click.BadParameter(f"{text!r} should be whole numbers, such as 1,16,64", param_hint="--batch")
    return sizes


def _table(machines: dict[str, Hardware], found: list[tuple[str, int, Ideal]]) -> None:
    from rich.console import Console
    from rich.table import Table

    priced = any(machine.usd_per_hour is not None for machine in machines.values())
    table = Table(show_edge=False, pad_edge=False)
    for title in ("hardware", "batch", "prefill", "per token", "whole batch", "tokens/s", "memory"):
        table.add_column(title, justify="left" if title == "hardware" else "right")
    if priced:
        table.add_column("$ per million", justify="right")
    for name, size, one in found:
        memory = _bytes(one.memory) + ("" if one.fits else " (does not fit)")
        cells = [
            name,
            str(size),
            f"{_seconds(one.prefill.seconds)} ({one.prefill.bound})",
            f"{_seconds(one.seconds_per_token)} ({one.decode.bound})",
            _seconds(one.seconds),
            f"{one.tokens_per_second:,.0f}",
            memory,
        ]
        if priced:
            usd = _usd(machines[name], one)
            cells.append("" if usd is None else f"{usd:.3f}")
        table.add_row(*cells)
    console = Console(width=120)
    console.print(table)
    console.print("A lower bound on time, and an upper one on speed (docs/costs.md).", style="dim")


def _usd(machine: Hardware, one: Ideal) -> float | None:
    """Dollars per million generated tokens."""
    if machine.usd_per_hour is None:
        return None
    return machine.usd_per_hour / 3600 / one.tokens_per_second * 1e6


def _data(
    shape: Architecture,
    machines: dict[str, Hardware],
    found: list[tuple[str, int, Ideal]],
    prompt: int,
    cached: int,
    output: int,
) -> dict[str, Any]:
    from archon.config.build import fields_of

    return {
        "schema": SCHEMA,
        "architecture": fields_of(shape),
        "parameters": shape.parameters,
        "active_parameters": shape.active_parameters,
        "weight_bytes": shape.weight_bytes,
        "kv_bytes_per_token": shape.kv_bytes,
        "flops": {**asdict(shape.flops), "request": shape.flops.of(prompt, cached, output)},
        "prompt": prompt,
        "cached": cached,
        "output": output,
        "hardware": {name: fields_of(machine) for name, machine in machines.items()},
        "ideal": [
            {
                "hardware": name,
                "batch": size,
                **one._asdict(),
                "prefill": one.prefill._asdict(),
                "decode": one.decode._asdict(),
                "usd_per_million_tokens": _usd(machines[name], one),
            }
            for name, size, one in found
        ],
    }


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
