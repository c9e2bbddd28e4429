"""Names to components, by entry points (D10).

The built-in stages, verifiers, backends, benchmarks and commands register exactly as a third party's
do: an entry point in the group `archon.<kind>s`. `add` registers from Python, for notebooks and tests.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from archon.errors import ArchonError, UnknownName
from archon.suggest import hint

_added: dict[str, dict[str, Any]] = {}


@cache
def _entries(kind: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"archon.{kind}s")}


def names(kind: str) -> list[str]:
    """Every registered name of a kind, sorted."""
    return sorted({*_entries(kind), *_added.get(kind, {})})


def find(kind: str, name: str) -> Any:
    """What is registered under a name. Raises UnknownName with the nearest valid name."""
    added = _added.get(kind, {})
    if name in added:
        return added[name]
    entry = _entries(kind).get(name)
    if entry is None:
        raise UnknownName(f"there is no {kind} named {name!r}. {hint(name, names(kind))}")
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise ArchonError(f"{kind} {name!r} ({entry.value}) cannot be imported: {error}") from error


def add(kind: str, name: str, component: Any) -> None:
    """Register from Python; replaces what had the name before."""
    _added.setdefault(kind, {})[name] = component


def name_of(kind: str, component: type[Any]) -> str:
    """The name a configuration file can use for this class. Raises UnknownName where there is none."""
    name: str = component.name
    registered = name in names(kind) and find(kind, name) is component
    if not registered:
        raise UnknownName(
            f"{component.__qualname__} is not registered as a {kind}, so no file can name it. "
            f"Declare an entry point {name!r} in the group 'archon.{kind}s', "
            f"or call archon.registry.add({kind!r}, {name!r}, {component.__qualname__})."
        )
    return name
