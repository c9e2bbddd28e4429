"""Errors as plain data, so that what a worker raises is raised by the driver as it was: its class and its message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archon import errors
from archon.errors import ArchonError, ConfigError, Flaw


def packed(error: ArchonError) -> dict[str, Any]:
    """An error as data for JSON. A class of somebody else's travels as the nearest of ours that it is."""
    name = next(cls.__name__ for cls in type(error).__mro__ if getattr(errors, cls.__name__, None) is cls)
    facts = {key: value for key, value in vars(error).items() if isinstance(value, str | int | float | None)}
    flaws = [list(flaw) for flaw in error.flaws] if isinstance(error, ConfigError) else []
    return {"class": name, "message": str(error), "facts": facts, "flaws": flaws}


def unpacked(data: Mapping[str, Any]) -> ArchonError:
    """The inverse of `packed`."""
    cls = getattr(errors, data["class"], None)
    if not (isinstance(cls, type) and issubclass(cls, ArchonError)):
        return ArchonError(data["message"])
    error = cls.__new__(cls)
    Exception.__init__(error, data["message"])
    vars(error).update(data["facts"])
    if isinstance(error, ConfigError):
        error.flaws = tuple(Flaw(*flaw) for flaw in data["flaws"])
    return error
