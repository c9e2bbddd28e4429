"""Random pipelines that run in little time: every registered stage and verifier, at random small settings.

The random configurations of tests/archon/test_config_roundtrip.py go to every bound of a field; these stay where a
run is short. Both are made from the fields' own types and bounds.
"""

from __future__ import annotations

import random
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from archon.component import Component, Nested, Value
from archon.errors import ConfigError
from archon.pipeline import Node, Pipeline
from archon.prompting import Places
from archon.stage import Fact, Stage
from archon.strategies.sample import Sample

MODELS = ("default", "other", "judge")
MOST_CALLS = 60
"""How many calls a random pipeline may plan for one problem."""
_AS_THEY_ARE = {
    "budget", "seed", "extra", "stop", "system", "first_system", "max_tokens", "called", "tests", "folder", "files",
    "key", "limits", "restarts", "packages", "examples", "read", "small", "strict",
    "steps", "until",
}  # fmt: skip
"""Fields that say nothing about what happens here, or that must fit something elsewhere."""
_MODELS = {"model", "writer", "judge", "reader"}
_GIVEN: Mapping[tuple[str, str], Any] = {
    ("Regex", "pattern"): "####",
    ("ParallelTempering", "n"): 4,
    ("ParallelTempering", "replicas"): 2,
    ("ParallelTempering", "ladder"): (),
    ("ParticleGibbs", "ancestor_sampling"): False,
}
"""Fields that have no default, that have to fit each other, or that ask for more than chat, and a value that does."""
_NOT_HERE = {"reward"}
"""What needs more than a model that chats."""


@cache
def registered(kind: str) -> list[type[Any]]:
    """Every class that ships under a kind; not what other tests have added."""
    return [entry.load() for entry in sorted(entry_points(group=f"archon.{kind}s"), key=lambda e: e.name)]


class _Keep(Exception):
    """The field stays as it is."""


def made(cls: type[Value], rng: random.Random, depth: int = 2, but: Mapping[str, Any] | None = None) -> Any:
    """A random value of a class, `but` for some fields; rules that its fields have together are found by trying."""
    for _ in range(30):
        given: dict[str, Any] = {**(but or {})}
        for name, info in cls.model_fields.items():
            if name in given:
                continue
            if (cls.__name__, name) in _GIVEN:
                given[name] = _GIVEN[cls.__name__, name]
            elif name == "reward" and info.default == "reward":
                given[name] = None  # what judges steps needs more than a model that chats
            elif name in _MODELS and isinstance(info.default, str):
                given[name] = rng.choice(MODELS)
            elif info.is_required() or (name not in _AS_THEY_ARE and rng.random() < 0.5):
                try:
                    given[name] = _value(info.annotation, list(info.metadata), rng, depth)
                except _Keep:
                    continue
        try:
            return cls(**given)
        except (ValidationError, ConfigError):
            continue
    raise AssertionError(f"no random value of {cls.__name__} is valid: teach {__name__}")


def _value(kind: Any, marks: Sequence[Any], rng: random.Random, depth: int) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    nested = next((m for m in marks if isinstance(m, Nested)), None)
    if nested is not None:
        return _nested(nested.kind, kind, rng, depth - 1)
    if any(isinstance(m, Places) for m in marks):
        raise _Keep
    if origin is Annotated:
        inner = [m for mark in parts[1:] for m in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
        return _value(parts[0], [*marks, *inner], rng, depth)
    if origin in (Union, types.UnionType):
        return _value(rng.choice(parts), marks, rng, depth)
    if kind is type(None):
        return None
    if origin is Literal:
        return rng.choice(parts)
    if origin is tuple:
        return tuple(_value(parts[0], (), rng, depth) for _ in range(rng.randint(1, 2)))
    if kind is bool:
        return rng.random() < 0.5
    if kind in (int, float):
        return _number(kind, marks, rng)
    if isinstance(kind, type) and issubclass(kind, Value):
        return made(kind, rng, depth)
    raise _Keep


def _number(kind: type, marks: Sequence[Any], rng: random.Random) -> int | float:
    def bound(mark: Any, name: str) -> Any:
        return next((getattr(m, name) for m in marks if isinstance(m, mark)), None)

    low, above = bound(bounds.Ge, "ge"), bound(bounds.Gt, "gt")
    high, below = bound(bounds.Le, "le"), bound(bounds.Lt, "lt")
    if kind is int:
        least = low if low is not None else 0 if above is None else above + 1
        return int(min(least + rng.randint(0, 2), least + 2 if high is None else high))
    values = [x for x in (0.25, 0.5, 1.0) if (high is None or x <= high) and (below is None or x < below)]
    return rng.choice(values or [float(low or 0)])


def _nested(kind: str, holds: Any, rng: random.Random, depth: int) -> Any:
    if kind == "pipeline":
        return Pipeline([Sample(n=rng.randint(1, 2), model=rng.choice(MODELS))])
    names = [cls for cls in registered(kind) if cls.name not in _NOT_HERE]
    if isinstance(holds, type):
        names = [cls for cls in names if issubclass(cls, holds)]
    if depth <= 0:
        names = [cls for cls in names if not _holds_others(cls)]
    return made(rng.choice(names), rng, depth)


def _holds_others(cls: type[Component]) -> bool:
    return any("Nested" in repr(info.metadata) + repr(info.annotation) for info in cls.model_fields.values())


# --- pipelines -------------------------------------------------------------------------------------


def stages(takes: bool) -> list[type[Stage]]:
    """The registered stages that take candidates, or that are sources."""
    return [cls for cls in registered("stage") if cls.takes == takes]


def pipeline(rng: random.Random, wanted: type[Stage] | None = None) -> Pipeline:
    """A random valid pipeline: sources, stages after one or several others, sometimes nested, one end. One of its
    stages is of the class that is wanted."""
    while True:
        try:
            drawn = _drawn(rng, wanted or rng.choice(stages(True)))
            calls = drawn.graph().total.calls.high
        except ConfigError:
            continue
        if calls is not None and calls <= MOST_CALLS:
            return drawn


def _drawn(rng: random.Random, wanted: type[Stage]) -> Pipeline:
    nodes: list[Node] = []
    gives: dict[str, frozenset[Fact]] = {}

    def add(name: str, stage: Stage | Pipeline, before: Sequence[str] = ()) -> None:
        nodes.append(Node(name, stage, tuple(before)))
        inner = [stage] if isinstance(stage, Stage) else [n.stage for n in stage.nodes]
        provided = frozenset[Fact]().union(*(one.provides for one in inner if isinstance(one, Stage)))
        gives[name] = provided | _met(gives, before)

    for number in range(rng.randint(1, 3)):
        source = rng.choice(stages(False)) if number or wanted.takes else wanted
        add(f"source-{number}", made(source, rng))
    for number in range(rng.randint(0, 3)):
        before = rng.sample([n.name for n in nodes], rng.randint(1, min(2, len(nodes))))
        add(f"step-{number}", _step(rng, _met(gives, before)), before)
    used = {name for n in nodes for name in n.after}
    ends = [n.name for n in nodes if n.name not in used]
    last = wanted if wanted.takes else rng.choice(stages(True))
    for fact in sorted(last.requires - _met(gives, ends)):
        givers = [cls for cls in stages(True) if fact in cls.provides and cls.requires <= _met(gives, ends)]
        add(fact, made(rng.choice(givers), rng), ends)
        ends = [fact]
    add("end", made(last, rng), ends)
    return Pipeline(nodes)


def _met(gives: Mapping[str, frozenset[Fact]], before: Sequence[str]) -> frozenset[Fact]:
    """What every candidate has that comes from these."""
    return frozenset[Fact].intersection(*(gives[name] for name in before)) if before else frozenset()


def _step(rng: random.Random, facts: frozenset[Fact]) -> Stage | Pipeline:
    """A stage, or a pipeline of two."""
    fitting = [cls for cls in stages(True) if cls.requires <= facts]
    one: Stage = made(rng.choice(fitting), rng)
    if rng.random() > 0.15:
        return one
    other: Stage = made(rng.choice(fitting), rng)
    return one | other
