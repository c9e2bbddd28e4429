"""Plain data to components and back (D2, D10).

Only registered names can be built, and every mistake is collected with its path: unknown keys with the
nearest valid one, values of the wrong type, missing fields. `plain` is the inverse: what differs from
the defaults.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from archon import registry
from archon.component import Component, Nested, Value
from archon.config.lines import Path
from archon.config.source import Source, shown
from archon.errors import ConfigError, Flaw, UnknownName
from archon.suggest import hint

V = TypeVar("V", bound=Value)
_SECRET = re.compile(r"secret|password|key does not belong")
"""What a message speaks of when the value must not be shown."""


class Builder:
    """Builds values from one source, collecting what is wrong."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.flaws: list[Flaw] = []

    def flaw(self, path: Path, what: str, hint: str = "") -> None:
        """Note a mistake."""
        self.flaws.append(Flaw(self.source.where(path), what, hint))

    def check(self) -> None:
        """Raise ConfigError if there were mistakes."""
        if self.flaws:
            raise ConfigError(self.flaws)

    def component(self, kind: str, data: Any, path: Path) -> Component | None:
        """`name` or `{name: keys}` as the component registered under that name."""
        if isinstance(data, str):
            name = data
            path = (*path, name)
            fields: Any = {}
        elif isinstance(data, Mapping) and len(data) == 1:
            ((name, fields),) = data.items()
            path = (*path, name)
            fields = {} if fields is None else fields
        else:
            several = isinstance(data, Mapping) and len(data) > 1
            found = f"the keys {', '.join(map(shown, data))}" if several else shown(data)
            self.flaw(path, f"expected one {kind}, as its name or {{name: settings}}, and found {found}")
            return None
        return self.named(kind, name, fields, path)

    def named(self, kind: str, name: str, fields: Any, path: Path) -> Component | None:
        """The component of this name with these fields."""
        try:
            found = registry.find(kind, name)
        except UnknownName:
            self.flaw(path, f"there is no {kind} named {shown(name)}", hint(name, registry.names(kind)))
            return None
        return self.value(found, fields, path)

    def pipeline(self, data: Any, path: Path) -> Any:
        """The pipeline of a field; what is none of ours is left to the field's own check."""
        from archon.config.graphs import build_pipeline

        return build_pipeline(self, data, path) if isinstance(data, str | list | Mapping) else data

    def value(self, cls: type[V], fields: Any, path: Path) -> V | None:
        """A value of this class from a mapping of its fields."""
        if not isinstance(fields, Mapping):
            self.flaw(path, f"expected settings (key: value), and found {shown(fields)}")
            return None
        before = len(self.flaws)
        ready: dict[str, Any] = {}
        for key, raw in fields.items():
            info = cls.model_fields.get(key)
            if info is None:
                self.flaw((*path, key), f"unknown key {shown(key)}", hint(key, cls.model_fields))
                continue
            ready[key] = self._field(_marked(info), info.annotation, raw, (*path, key))
        if len(self.flaws) > before:
            return None
        try:
            return cls.model_validate(ready)
        except ValidationError as error:
            for one in error.errors(include_url=False, include_context=True):
                self._explain(cls, one, path)
            return None

    def _field(self, nested: Nested | None, annotation: Any, raw: Any, path: Path) -> Any:
        if nested is not None and nested.kind == "pipeline":
            return self.pipeline(raw, path)
        if nested is not None and isinstance(raw, str | Mapping):
            return self.component(nested.kind, raw, path)
        inner = _value_class(annotation)
        if inner is not None and isinstance(raw, Mapping):
            return self.value(inner, raw, path)
        item = _item_class(annotation)
        if item is not None and isinstance(raw, list):
            return [self._item(item, one, (*path, i)) for i, one in enumerate(raw)]
        return raw

    def _item(self, kind: type[Value] | Nested, raw: Any, path: Path) -> Any:
        if isinstance(kind, Nested) and kind.kind == "pipeline":
            return self.pipeline(raw, path)
        if isinstance(kind, Nested):
            return self.component(kind.kind, raw, path) if isinstance(raw, str | Mapping) else raw
        return self.value(kind, raw, path) if isinstance(raw, Mapping) else raw

    def _explain(self, cls: type[Value], error: Any, path: Path) -> None:
        loc = tuple(part for part in error["loc"] if not (isinstance(part, str) and "[" in part))
        place = (*path, *loc)
        kind, given = error["type"], error["input"]
        if kind == "missing":
            self.flaw(place, f"{loc[-1]!r} is missing")
        elif kind == "extra_forbidden":
            self.flaw(place, f"unknown key {loc[-1]!r}", hint(str(loc[-1]), cls.model_fields))
        else:
            message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            # What is wrong with several settings together names them itself: nobody needs to see all of them.
            found = "" if not loc or _SECRET.search(message) else f", and found {shown(given)}"
            self.flaw(place, f"{message[0].lower()}{message[1:]}{found}")


def component(kind: str, data: Any) -> Component:
    """Build one component from plain data. Raises ConfigError."""
    builder = Builder(Source(data))
    built = builder.component(kind, data, ())
    builder.check()
    assert built is not None
    return built


def pipeline(value: Any) -> Any:
    """A pipeline from plain data, or from a stage; anything else as it is. Raises ConfigError."""
    from archon.pipeline import Pipeline
    from archon.stage import Stage

    if isinstance(value, Stage):
        return Pipeline([value])
    builder = Builder(Source(value))
    built = builder.pipeline(value, ())
    builder.check()
    return built


def plain(value: Any) -> Any:
    """The inverse of building: plain data that says what differs from the defaults.

    Raises UnknownName for a component that no file can name.
    """
    from archon.config.graphs import plain_pipeline
    from archon.pipeline import Pipeline

    if isinstance(value, Pipeline):
        return plain_pipeline(value)
    if isinstance(value, Component):
        name = registry.name_of(value.kind, type(value))
        fields = fields_of(value)
        return {name: fields} if fields else name
    if isinstance(value, Value):
        return fields_of(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(str(float(value))) == value else str(value)
    if isinstance(value, PurePath):
        return str(value)
    if callable(value):
        return f"<python {getattr(value, '__qualname__', value)}>"  # says what ran; no file can bring it back
    return value


class Holds(NamedTuple):
    """What a field is built from: a component of a kind, a value of a class, or (None) plain data."""

    one: Nested | type[Value] | None
    each: Nested | type[Value] | None
    """The same of its items, where it holds a list."""


def holds(cls: type[Value], field: str) -> Holds:
    """What a field of a class holds. Raises KeyError where it has none of that name."""
    info = cls.model_fields[field]
    return Holds(_marked(info) or _value_class(info.annotation), _item_class(info.annotation))


def fields_of(value: Value) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain data."""
    return {name: plain(inner) for name, inner in value.given().items()}


def _marked(info: FieldInfo) -> Nested | None:
    """The mark of a component on a field."""
    return next((m for m in info.metadata if isinstance(m, Nested)), None) or _nested(info.annotation)


def _value_class(annotation: Any) -> type[Value] | None:
    """The Value class of an annotation such as `Budget | None`, if it is one."""
    if isinstance(annotation, type) and issubclass(annotation, Value):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType):
        found = [c for c in map(_value_class, get_args(annotation)) if c is not None]
        return found[0] if len(found) == 1 else None
    return None


def _nested(annotation: Any) -> Nested | None:
    """The mark of a component in an annotation such as `Annotated[Model, Nested("backend")] | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(_nested, get_args(annotation))), None)
    return next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Nested)), None)


def _item_class(annotation: Any) -> type[Value] | Nested | None:
    """What a list holds, where that is values or components."""
    if get_origin(annotation) in (list, tuple):
        item = get_args(annotation)[0]
        return _nested(item) or _value_class(item)
    return None
