"""Data with open choices in it, and what it becomes under a configuration: plain data as a file without choices holds.

A template is a tree. `fill` is pure: it takes the values of a configuration and gives new data. What is not there
takes nothing with it: a stage that is left out of a list closes the gap, and one that is left out of a mapping of nodes
hands what comes `after` it to what came before it, unless that comes there by another way too: of three branches
between two stages one may be left out. An alternative that is a list takes its place in a list item by
item, and elsewhere becomes a pipeline within the pipeline; an empty one is nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from archon.config.lines import Path
from archon.search.axes import Choice, exact

Origins: TypeAlias = dict[Path, Path]
"""Where something of the filled data stands in the file, by its path in the filled data."""
Needs: TypeAlias = tuple[tuple[str, tuple[Choice, ...]], ...]


@dataclass(frozen=True)
class Plain:
    """Data that is the same under every configuration."""

    at: Path
    value: Any


@dataclass(frozen=True)
class Picked:
    """The value of an axis itself."""

    at: Path
    axis: str


@dataclass(frozen=True)
class Table:
    """A mapping."""

    at: Path
    items: tuple[tuple[str, Template], ...]


@dataclass(frozen=True)
class Row:
    """A list."""

    at: Path
    items: tuple[Template, ...]


@dataclass(frozen=True)
class Nodes:
    """A pipeline as a mapping of named nodes: name, what stands there, what it comes after (as it was given)."""

    at: Path
    items: tuple[tuple[str, Template, Any], ...]


@dataclass(frozen=True)
class Either:
    """One of several, by the value of an axis."""

    at: Path
    axis: str
    options: tuple[tuple[Choice, Template], ...]


@dataclass(frozen=True)
class Perhaps:
    """There where every axis has one of these values, and else not."""

    at: Path
    where: Needs
    inner: Template


Template: TypeAlias = Plain | Picked | Table | Row | Nodes | Either | Perhaps


def fill(template: Template, values: Mapping[str, Choice], origins: Origins | None = None) -> Any:
    """The data under these values; None where nothing is there. `origins`, where given, is filled in."""
    opened = _open(template, values)
    return None if opened is None else _filled(opened, values, (), origins)


def _open(template: Template, values: Mapping[str, Choice]) -> Template | None:
    """What is chosen here, down to what is no choice; None where nothing is there."""
    while True:
        if isinstance(template, Either):
            chosen = exact(values[template.axis])
            template = next(inner for option, inner in template.options if exact(option) == chosen)
        elif isinstance(template, Perhaps):
            for axis, wanted in template.where:
                if axis not in values or exact(values[axis]) not in map(exact, wanted):
                    return None
            template = template.inner
        else:
            return template


def _filled(template: Template, values: Mapping[str, Choice], at: Path, origins: Origins | None) -> Any:
    if origins is not None:
        origins[at] = template.at
    if isinstance(template, Plain):
        return template.value
    if isinstance(template, Picked):
        return values[template.axis]
    if isinstance(template, Table):
        table: dict[str, Any] = {}
        for key, item in template.items:
            opened = _open(item, values)
            if opened is not None:
                table[key] = _filled(opened, values, (*at, key), origins)
        return table
    if isinstance(template, Row):
        row: list[Any] = []
        for opened in _items(template, values):
            row.append(_placed(opened, values, (*at, len(row)), origins))
        return row
    assert isinstance(template, Nodes)
    return _named(template, values, at, origins)


def _items(row: Row, values: Mapping[str, Choice]) -> Iterator[Template]:
    """What stands in a list, with what was chosen to stand there item by item."""
    for item in row.items:
        opened = _open(item, values)
        if isinstance(opened, Row) and opened is not item:
            yield from _items(opened, values)
        elif opened is not None:
            yield opened


def _placed(template: Template, values: Mapping[str, Choice], at: Path, origins: Origins | None) -> Any:
    """One item; nodes stand in a list as a pipeline."""
    if not isinstance(template, Nodes):
        return _filled(template, values, at, origins)
    if origins is not None:
        origins[at] = template.at
    return {"pipeline": _named(template, values, (*at, "pipeline"), origins)}


def _named(nodes: Nodes, values: Mapping[str, Choice], at: Path, origins: Origins | None) -> dict[str, Any]:
    """The nodes that are there, each after what is there."""
    opened = {name: _open(item, values) for name, item, _ in nodes.items}
    for name, item in opened.items():
        if isinstance(item, Row) and not any(True for _ in _items(item, values)):
            opened[name] = None
    before = {name: _names(after) for name, _, after in nodes.items}
    then = _after({name for name, item in opened.items() if item is not None}, before)
    named: dict[str, Any] = {}
    for name, _, after in nodes.items:
        item = opened[name]
        if item is None:
            continue
        place = (*at, name)
        if isinstance(item, Row):
            data: Any = {"pipeline": _filled(item, values, (*place, "pipeline"), origins)}
        else:
            data = _placed(item, values, place, origins)
        if origins is not None:
            origins[place] = item.at
        known = before[name]
        if known is None:  # malformed: whoever builds the pipeline says so
            data = {**_mapping(data), "after": after}
        elif then[name]:
            data = {**_mapping(data), "after": then[name]}
        named[name] = data
    return named


def _mapping(data: Any) -> dict[str, Any]:
    return {data: {}} if isinstance(data, str) else dict(data) if isinstance(data, Mapping) else {"": data}


def _names(after: Any) -> list[str] | None:
    """What a node comes after; None where it is no list of names."""
    if isinstance(after, str):
        return [after]
    if isinstance(after, list) and all(isinstance(name, str) for name in after):
        return after
    return [] if after is None else None


def _after(present: set[str], before: Mapping[str, list[str] | None]) -> dict[str, list[str]]:
    """What each node that is there comes after: the nodes that it names and, for each of them that is not there, what
    that came after, so far as that does not come by another way."""
    direct: dict[str, dict[str, bool]] = {}
    for name in before:
        found: dict[str, bool] = {}
        for named in before[name] or ():
            for one in _standing(named, present, before):
                found[one] = found.get(one, False) or one == named
        direct[name] = found
    upstream = {name: _upstream(name, direct) for name in before}
    return {
        name: [
            one
            for one, named in found.items()
            if named or not any(one in upstream.get(other, ()) for other in found if other != one)
        ]
        for name, found in direct.items()
    }


def _standing(name: str, present: set[str], before: Mapping[str, list[str] | None]) -> list[str]:
    """A node that is there (or that does not exist, which whoever builds the pipeline says); for one that is left
    out, what it came after."""
    found: dict[str, None] = {}
    waiting, seen = [name], set[str]()
    while waiting:
        one = waiting.pop()
        if one in present or one not in before:
            found[one] = None
        elif one not in seen:
            seen.add(one)
            waiting.extend(reversed(before[one] or []))
    return list(found)


def _upstream(name: str, direct: Mapping[str, Mapping[str, bool]]) -> set[str]:
    """Every node that candidates of a node may come from."""
    found: set[str] = set()
    waiting = list(direct[name])
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(direct.get(one, ()))
    return found
