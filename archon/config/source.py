"""Reading YAML and TOML as plain data, with the line of everything in it.

A file can only hold data: mappings with text keys, lists, text, numbers, booleans, null. Tags that would
construct objects, repeated keys, anchors that would expand without bound, and text that is no text are
errors that name the line. TOML's lines are in archon/config/lines.py, as its parser tells none.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import yaml

from archon.config.lines import Path, toml_lines
from archon.errors import ConfigError, DataError, Flaw

_MOST_NODES = 100_000
_MOST_BYTES = 10_000_000
_MOST_DEPTH = 100
"""Keys and indices above a value: what reads, checks, shows and writes a configuration may recurse."""
_TOO_DEEP = "nested too deeply"
_MOST_SHOWN = 60
_YAML = "tag:yaml.org,2002:"
_BUILT = {_YAML + kind for kind in ("null", "bool", "int", "float")}
_TEXT = {_YAML + kind for kind in ("str", "timestamp", "value", "merge")}
"""Dates, `=` and `<<` as values are text like any other."""


@dataclass
class Source:
    """Plain data, and where each part of it stands."""

    data: Any
    name: str = ""
    """The file's name, for messages."""
    lines: dict[Path, int] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """`file:line: a.b[2]` for a path; the nearest line known above it."""
        line = next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), None)
        place = ":".join(part for part in (self.name, "" if line is None else str(line)) if part)
        dotted = dots(path)
        return f"{place}: {dotted}" if place and dotted else place or dotted


def dots(path: Path) -> str:
    """A path as people write it: `pipeline[1].verify.verifier`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" if text else _cut(part)
    return text


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


def read_file(path: File) -> Source:
    """Read a YAML or TOML file, by its ending. Raises DataError (no such file) or ConfigError."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(
                f"{str(path)!r} has more than {_MOST_BYTES // 10**6} MB; that is no configuration"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            [Flaw(str(path), f"it is no text (byte {error.start} is not UTF-8)", "Expected YAML or TOML")]
        ) from None
    return read_text(text, "toml" if path.suffix == ".toml" else "yaml", str(path))


def read_text(text: str, format: str = "yaml", name: str = "") -> Source:
    """Read YAML or TOML text. Raises ConfigError with the line."""
    source = _toml(text, name) if format == "toml" else _yaml(text, name)
    if source.data is None:
        raise ConfigError([Flaw(name or "configuration", "it is empty", "Expected at least `pipeline:`")])
    return source


def _yaml(text: str, name: str) -> Source:
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        source = Source(None, name)
        if root is not None:
            source.data = _Plain(text, loader, source).value(root, ())
        return source
    except yaml.reader.ReaderError as error:
        place = _place(name, text.count("\n", 0, error.position) + 1)
        what = f"the character U+{error.character:04X} cannot stand in it"
        raise ConfigError([Flaw(place, f"not valid YAML: {what}")]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        if mark is None or (mark.index >= len(text) and error.context_mark is not None):
            mark = error.context_mark  # what was opened and never closed, not the end of the file
        what = " ".join(filter(None, (error.context, error.problem)))
        place = _place(name, None if mark is None else mark.line + 1)
        raise ConfigError([Flaw(place, f"not valid YAML: {what}")]) from None
    except RecursionError:
        raise ConfigError([Flaw(name, _TOO_DEEP)]) from None


class _Plain:
    """YAML nodes as plain data; notes their lines in the source."""

    def __init__(self, text: str, loader: yaml.SafeLoader, source: Source) -> None:
        self._text = text
        self._loader = loader
        self._source = source
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        """A node's data."""
        self._count += 1
        if self._count > _MOST_NODES:
            raise self._flaw(node, f"more than {_MOST_NODES:,} values once aliases are expanded")
        if len(path) > _MOST_DEPTH:
            raise self._flaw(node, _TOO_DEEP)
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _YAML + "merge":
                raise self._flaw(key_node, "not valid YAML: a merge key (`<<`)", "Write the settings out")
            if isinstance(key_node, yaml.CollectionNode):
                kind = "list" if isinstance(key_node, yaml.SequenceNode) else "mapping"
                text = self._text[key_node.start_mark.index : key_node.end_mark.index]
                what = f"the key {_cut(' '.join(text.split()))} is a {kind}, not text"
                raise self._flaw(key_node, what, "Put it in quotes")
            key = self._scalar(key_node)
            if not isinstance(key, str):
                what = f"the key {shown(key)} is {type(key).__name__}, not text"
                raise self._flaw(key_node, what, "Put it in quotes")
            if key in data:
                raise self._flaw(key_node, f"the key {shown(key)} is given twice", "Keep one of them")
            self._source.lines[(*path, key)] = key_node.start_mark.line + 1
            data[key] = self.value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _BUILT | _TEXT:
            what = f"the tag {node.tag!r} would construct an object"
            raise self._flaw(node, what, "A configuration is data; write it without tags")
        if node.tag in _TEXT:
            return node.value
        try:
            value = self._loader.construct_object(node)
            str(value)  # as it will be shown and written: Python refuses numbers of thousands of digits
        except (ValueError, LookupError):
            kind = node.tag.removeprefix(_YAML)
            raise self._flaw(node, f"not valid YAML: {shown(node.value)} is no {kind}") from None
        return value

    def _flaw(self, node: yaml.Node, what: str, hint: str = "") -> ConfigError:
        return ConfigError([Flaw(_place(self._source.name, node.start_mark.line + 1), what, hint)])


def _toml(text: str, name: str) -> Source:
    try:
        data = tomllib.loads(text)
        if _size(data) > _MOST_NODES:
            raise ConfigError([Flaw(name, f"more than {_MOST_NODES:,} values")])
        source = Source(None, name, toml_lines(text))
        source.data = _texts(data, (), source) or None
        return source
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        place = _place(name, int(found[1])) if found and name else name
        raise ConfigError([Flaw(place, f"not valid TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError([Flaw(name, _TOO_DEEP)]) from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError([Flaw(name, f"not valid TOML: {error}")]) from None


def _size(value: Any) -> int:
    """How many values there are."""
    if isinstance(value, dict | list):
        return 1 + sum(map(_size, value.values() if isinstance(value, dict) else value))
    return 1


def _texts(value: Any, path: Path, source: Source) -> Any:
    """TOML's dates and times as text, like everything that is not plain data."""
    if len(path) > _MOST_DEPTH:
        raise ConfigError([Flaw(source.where(path[:1]), _TOO_DEEP)])
    if isinstance(value, dict):
        return {key: _texts(inner, (*path, key), source) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner, (*path, i), source) for i, inner in enumerate(value)]
    text = str(value)
    return value if isinstance(value, str | bool | int | float) else text


def _place(name: str, line: int | None) -> str:
    """`file:line`, or what is known of it."""
    if line is None:
        return name
    return f"{name}:{line}" if name else f"line {line}"
