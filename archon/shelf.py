"""Ready pipelines: YAML files that packages bring along, one per technique, found by entry points."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable

from archon.config import Config, build
from archon.config.source import read_text
from archon.errors import UnknownName
from archon.suggest import hint


@cache
def _shelf() -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for entry in entry_points(group="archon.pipelines"):
        for file in files(import_module(entry.value)).iterdir():
            if file.name.endswith(".yaml"):
                found.setdefault(file.name.removesuffix(".yaml"), file)
    return found


def names() -> list[str]:
    """Every ready pipeline's name, sorted."""
    return sorted(_shelf())


def summary(name: str) -> str:
    """The first comment of a ready pipeline's file: what it is, in one line."""
    first = _shelf()[name].read_text().splitlines()[0]
    return first.removeprefix("#").strip()


def ready(name: str) -> Config:
    """A ready pipeline by name. Raises UnknownName with the nearest one."""
    file = _shelf().get(name)
    if file is None:
        raise UnknownName(f"there is no ready pipeline named {name!r}. {hint(name, names())}")
    return build(read_text(file.read_text(), "yaml", f"{name}.yaml"))
