"""Configurations of the original Archon, made up; and the calls of the paper's table, counted from the JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from archon.errors import ConfigError
from archon.strategies.importing.conversion import Imported, converted
from archon.strategies.importing.original import parsed

SAID = {"temperature": 0.7, "max_tokens": 2048}


def part(kind: str, model: str = "m", **more: Any) -> dict[str, Any]:
    return {"type": kind, "model": model, "model_type": "OpenAI_API", "samples": 1, **SAID, **more}


def imported(*layers: Any, again: int = 0, **top: Any) -> Imported:
    return converted(parsed(json.dumps({"name": "x", "layers": layers, **top})), again)


def flaws(text: str | Mapping[str, Any], name: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        converted(parsed(text if isinstance(text, str) else json.dumps(text), name), name=name)
    return [str(flaw) for flaw in caught.value.flaws]


def wrong(*layers: Any, **top: Any) -> str:
    """The only thing that is wrong with these layers."""
    (said,) = flaws({"layers": layers, **top})
    return said


def table(layers: list[Any], of_one: int = 0) -> int:
    """The paper's table 3 on a configuration as it stands: calls of each component, by the candidates before it.

    A verifier or evaluator is asked about as many as may reach it. A ranker that only one can reach makes a call in
    the paper (`of_one` is 1), and none here.
    """
    calls = candidates = 0
    for kind, parts in components(layers):
        if kind in ("generator", "fuser"):
            candidates = sum(p.get("samples") or 1 for p in parts)
            calls += candidates
        elif kind == "verifier":
            calls += 2 * candidates
        elif kind == "unit_test_evaluator":
            calls += candidates
        else:
            calls += of_one if kind == "ranker" and candidates == 1 else 1
        candidates = min(candidates, kept(parts[0]) or candidates)
    return calls


def least(layers: list[Any]) -> int:
    """The same where as few as can be reach each component: verifiers let one pass, of a layer of fusers all but one
    write nothing, and what wants the first k finds them at once."""
    calls = candidates = 0
    for kind, parts in components(layers):
        first = parts[0].get("first_k") or (1 if parts[0].get("first_pass") else None)
        tried = min(candidates, first or candidates)
        if kind in ("generator", "fuser"):
            written = sum(p.get("samples") or 1 for p in parts)
            calls += written
            candidates = written if kind == "generator" else 1
        elif kind == "verifier":
            calls += 2 * tried
            candidates = 1
        elif kind == "unit_test_evaluator":
            calls += tried
            candidates = tried if kept(parts[0]) or first is None else 1
        elif kind != "ranker" or candidates > 1:
            calls += 1
        candidates = min(candidates, kept(parts[0]) or candidates)
    return calls


def components(layers: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    for layer in layers:
        parts = layer if isinstance(layer, list) else layer.get("models", [layer])
        yield parts[0]["type"], parts


def kept(component: Mapping[str, Any]) -> int:
    """How many a component keeps; 0 is all."""
    ranks = component["type"] in ("ranker", "unit_test_evaluator") and component.get("top_k")
    return max(component["top_k"], component.get("first_k") or 0) if ranks else 0
