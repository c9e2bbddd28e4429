"""Choices beside a pipeline: `choices: {sample.n: {choose: [1, 4, 16]}}` puts marks at paths into it.

A path is what names an axis in its place: the name of a stage (as the pipeline's nodes are named: `verify-2` is the
second), then the field, then for a component in it its name and its field, `[i]` for an item of a list. Every field of
every stage has a path, given or not. The pipeline may be a ready one, by its name. Everything here is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from archon import registry, shelf
from archon.component import Nested, Value
from archon.config.build import holds
from archon.config.graphs import plain_pipeline
from archon.config.lines import Path
from archon.config.source import Source, dots, shown
from archon.errors import ArchonError, ConfigError, Flaw, UnknownName
from archon.pipeline import fresh_name
from archon.suggest import hint

_DEEPEST = 12
"""Components inside components; configurations nest two or three deep."""


def placed(source: Source) -> Source:
    """The source with its pipeline written out where that is the name of a ready one, and every one of its `choices` in
    its place there; the lines of a choice go with it. Raises ConfigError with every path that leads nowhere."""
    data = dict(source.data)
    choices = data.pop("choices", None)
    lines = dict(source.lines)
    if isinstance(data.get("pipeline"), str):
        try:
            data["pipeline"] = plain_pipeline(shelf.ready(data["pipeline"]).pipeline)
        except UnknownName as error:
            raise ConfigError([Flaw(source.where(("pipeline",)), str(error))]) from None
    if choices is None:
        return Source(data, source.name, lines)
    flaws: list[Flaw] = []
    if not isinstance(choices, Mapping):
        where = source.where(("choices",))
        raise ConfigError([Flaw(where, f"expected marks by their paths, and found {shown(choices)}")])
    known = {dots(label): path for label, path in _paths(data.get("pipeline"), ("pipeline",), (), 0)}
    targets: dict[str, Path] = {}
    for name in choices:
        if name not in known:
            flaws.append(
                Flaw(source.where(("choices", name)), f"there is no {name!r} in it", hint(name, known))
            )
            continue
        path = known[name]
        for other, taken in targets.items():
            if path[: len(taken)] == taken or taken[: len(path)] == path:
                what = f"{name!r} and {other!r} are one place, or one lies within the other"
                flaws.append(Flaw(source.where(("choices", name)), what, "Choose one of them"))
        targets[name] = path
    if flaws:
        raise ConfigError(flaws)
    for name, path in targets.items():
        data = _put(data, path, choices[name])
        for at, line in source.lines.items():
            if at[:2] == ("choices", name):
                lines[(*path, *at[2:])] = line
    return Source(data, source.name, lines)


def _put(data: Any, path: Path, value: Any) -> Any:
    """A copy of the data with a value at a path. A bare name on the way becomes one with settings."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(data, list):
        assert isinstance(step, int)
        return [_put(one, rest, value) if i == step else one for i, one in enumerate(data)]
    table = {data: {}} if isinstance(data, str) else dict(data or {})
    return {**table, step: _put(table.get(str(step)), rest, value)}


def _paths(pipeline: Any, path: Path, label: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    """Every place in a pipeline: what it goes by, and its path in the data."""
    if depth > _DEEPEST:
        return
    if isinstance(pipeline, list):
        taken: set[str] = set()
        for i, item in enumerate(pipeline):
            name = fresh_name(_name(item), taken)
            taken.add(name)
            yield from _in_stage(item, (*path, i), (*label, name), depth)
    elif isinstance(pipeline, Mapping):
        for name, item in pipeline.items():
            if isinstance(item, Mapping):
                item = {key: one for key, one in item.items() if key != "after"}
            yield from _in_stage(item, (*path, name), (*label, name), depth)


def _in_stage(item: Any, path: Path, label: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    if isinstance(item, Mapping) and set(item) == {"pipeline"}:
        yield from _paths(item["pipeline"], (*path, "pipeline"), label, depth + 1)
        return
    yield from _in_component("stage", item, path, label, depth)


def _in_component(kind: str, item: Any, path: Path, label: Path, depth: int) -> Iterator[tuple[Path, Path]]:
    name = _name(item)
    try:
        cls = registry.find(kind, name)
    except ArchonError:
        return
    fields = item[name] if isinstance(item, Mapping) else {}
    yield from _in_settings(cls, fields or {}, (*path, name), label, depth + 1)


def _in_settings(
    cls: type[Value], fields: Any, path: Path, label: Path, depth: int
) -> Iterator[tuple[Path, Path]]:
    if not isinstance(fields, Mapping) or depth > _DEEPEST:
        return
    for field in cls.model_fields:
        place, called, given = (*path, field), (*label, field), fields.get(field)
        yield called, place
        held = holds(cls, field)
        yield from _in_field(held.one, given, place, called, depth)
        if held.each is not None and isinstance(given, list):
            for i, one in enumerate(given):
                yield (*called, i), (*place, i)
                yield from _in_field(held.each, one, (*place, i), (*called, i), depth)


def _in_field(
    one: Nested | type[Value] | None, given: Any, path: Path, label: Path, depth: int
) -> Iterator[tuple[Path, Path]]:
    if isinstance(one, Nested) and one.kind == "pipeline":
        yield from _paths(given, path, label, depth + 1)
    elif isinstance(one, Nested) and given is not None:
        yield from _in_component(one.kind, given, path, (*label, _name(given)), depth)
    elif isinstance(one, type):
        yield from _in_settings(one, given or {}, path, label, depth + 1)


def _name(item: Any) -> str:
    """The name that a component is written with; empty where it is none."""
    if isinstance(item, str):
        return item
    return str(next(iter(item))) if isinstance(item, Mapping) and len(item) == 1 else ""
