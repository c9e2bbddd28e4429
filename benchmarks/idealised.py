"""What a run's samples cost on one axis: dollars, tokens, FLOPs, or idealised seconds of a machine.

The first three are counted while a run goes. Seconds are computed afterwards, by the roofline of a machine that is
named then (archon/roofline.py): what the same calls would take of it, alone or in a batch, without queues or networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from archon.benchmarks.results import Record, Results
from archon.compute import Architecture
from archon.errors import DataError
from archon.roofline import Hardware, MachineTime, find_hardware, machine_time
from archon.usage import Usage

Axis = Literal["usd", "tokens", "flops", "seconds"]
AXES: tuple[Axis, ...] = ("usd", "tokens", "flops", "seconds")
_WHY = {
    "usd": "some of its calls have no price. Give the model `price:`, or put it into your price table",
    "flops": "the size of a model is not known. Give it `architecture:` or `parameters:`",
}


def check_axis(results: Results, axis: Axis) -> None:
    """Raise DataError where the run does not know this cost."""
    if any(cost.get(axis) is None for cost in results.data["cost"].values()):
        raise DataError(
            f"the run at {str(results.folder)!r} has no {axis}: {_WHY.get(axis, 'name a machine with --hardware')}, "
            "and run the same command again: what is stored is not asked for again"
        )


def with_seconds(
    results: Results, hardware: str, batch: int = 1, devices: int = 1, table: Path | None = None
) -> Results:
    """The run with `seconds` beside every cost: the idealised time for k samples per problem, of a machine of so many
    devices.

    Raises DataError where a model's architecture is not on record, UnknownName for a machine that is not known.
    """
    machine = find_hardware(hardware, table).times(devices)
    shapes = {name: _shape(results, name) for name in results.data["by_model"]}
    having = [r for r in results.records if r.truth]
    times = [_times(record, shapes, machine, batch) for record in having]
    each = [sum(t.seconds for t in found) / len(r.truth) for r, found in zip(having, times, strict=True)]
    mean = sum(each) / len(each) if each else 0.0
    cost = {k: {**at, "seconds": mean * int(k)} for k, at in results.data["cost"].items()}
    fits = all(time.fits for found in times for time in found)
    ideal = {"hardware": hardware, "devices": devices, "batch": batch, "fits": fits}
    return Results(results.folder, {**results.data, "cost": cost, "idealised": ideal}, results.records)


def _shape(results: Results, name: str) -> Architecture:
    data = results.data["models"].get(name, {}).get("architecture")
    if data is None:
        raise DataError(
            f"the run at {str(results.folder)!r} does not say what architecture the model {name!r} has. "
            "Give it `architecture:` (its config.json) and run the same command again: nothing is asked for again"
        )
    return Architecture(**data)


def _times(
    record: Record, shapes: Mapping[str, Architecture], machine: Hardware, batch: int
) -> list[MachineTime]:
    """What one problem's calls take, each model's as calls of their average length."""
    return [
        machine_time(shapes[name], machine, Usage.from_json(usage), sequences=len(record.truth), batch=batch)
        for name, usage in record.by_model.items()
    ]


def label(data: Mapping[str, Any]) -> str:
    """Which seconds are meant."""
    ideal = data["idealised"]
    machine = ideal["hardware"] if ideal["devices"] == 1 else f"{ideal['devices']} x {ideal['hardware']}"
    lacking = "" if ideal["fits"] else ", whose memory is too small for that"
    return f"idealised seconds on {machine}, batch {ideal['batch']}{lacking}"
