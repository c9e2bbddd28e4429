"""Reading YAML and TOML as plain data, with the line of everything in it.

A file can only hold data: mappings with text keys, lists, text, numbers, booleans, null. Tags that would
construct objects, repeated keys, anchors that would expand without bound, and text that is no text are
errors that name the line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import yaml

from archon.errors import ConfigError, DataError, Flaw

Path = tuple[str | int, ...]
"""Where something is inside a file: keys and indices from the top."""

_MOST_NODES = 100_000
_MOST_BYTES = 10_000_000


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
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


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
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        source = Source(None, name)
        if root is not None:
            source.data = _plain(loader, root, (), source, [0])
        return source
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        place = f"{name}:{line}" if name and line else name or f"line {line}"
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError([Flaw(place, f"not valid YAML: {what}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Flaw(name, f"not valid YAML: {str(error).splitlines()[0]}")]) from None
    except RecursionError:
        raise ConfigError([Flaw(name, "nested too deeply")]) from None
    except ValueError as error:  # a scalar that is not what its form or its tag says
        raise ConfigError([Flaw(name, f"not valid YAML: {error}")]) from None
    finally:
        loader.dispose()


def _plain(loader: yaml.SafeLoader, node: yaml.Node, path: Path, source: Source, count: list[int]) -> Any:
    """A YAML node as plain data; notes its line."""
    count[0] += 1
    line = node.start_mark.line + 1
    place = f"{source.name}:{line}" if source.name else f"line {line}"
    if count[0] > _MOST_NODES:
        raise ConfigError([Flaw(place, f"more than {_MOST_NODES:,} values once aliases are expanded")])
    source.lines.setdefault(path, line)
    if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise ConfigError(
            [
                Flaw(
                    place,
                    f"the tag {node.tag!r} would construct an object",
                    "A configuration is data; write it without tags",
                )
            ]
        )
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            key_line = key_node.start_mark.line + 1
            at = f"{source.name}:{key_line}" if source.name else f"line {key_line}"
            if not isinstance(key, str):
                raise ConfigError(
                    [Flaw(at, f"the key {key!r} is {type(key).__name__}, not text", "Put it in quotes")]
                )
            if key in data:
                raise ConfigError([Flaw(at, f"the key {key!r} is given twice", "Keep one of them")])
            source.lines[(*path, key)] = key_line
            data[key] = _plain(loader, value_node, (*path, key), source, count)
        return data
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, i), source, count) for i, item in enumerate(node.value)]
    value = loader.construct_object(node)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(node.value)  # dates and the like: text


def _toml(text: str, name: str) -> Source:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        place = f"{name}:{found[1]}" if found and name else name
        raise ConfigError([Flaw(place, f"not valid TOML: {error}")]) from None
    except RecursionError:
        raise ConfigError([Flaw(name, "nested too deeply")]) from None
    except ValueError as error:  # a number of more digits than Python reads
        raise ConfigError([Flaw(name, f"not valid TOML: {error}")]) from None
    return Source(_texts(data) or None, name, dict(_toml_lines(text)))


def _texts(value: Any) -> Any:
    """TOML's dates and times as text, like everything that is not plain data."""
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    return value if isinstance(value, str | bool | int | float) else str(value)


def _toml_lines(text: str) -> Iterator[tuple[Path, int]]:
    """Lines of tables and keys, found by their form: good enough to point at, as tomllib tells none."""
    at: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$", line):
            at = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            if header[1] == "[[":
                index = counts.get(at, 0)
                counts[at] = index + 1
                yield at, number
                at = (*at, index)
            yield at, number
        elif key := re.match(r"\s*([\w.\-\"']+)\s*=\s*(.*)", line):
            path = (*at, *(part.strip("\"'") for part in key[1].split(".")))
            yield path, number
            for inner in re.finditer(r"[{,]\s*([\w\-]+)\s*=", key[2]):
                yield (*path, inner[1]), number
