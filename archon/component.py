"""Frozen configuration values, and components that a configuration file can name.

A component *is* its configuration (D2): its fields are its keys in YAML, and nothing else is kept on
it. `Component` subclasses belong to a kind (stage, verifier, backend, benchmark); a file can only name
what is registered for that kind (D10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

COMPONENT = "x-archon-component"
"""Stands in a JSON Schema where a component of a kind goes, until config/schema.py fills it in."""


class Value(BaseModel):
    """An immutable, keyword-only value that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, in the order they are declared."""
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in fields}
        return {
            name: value
            for name, value in values.items()
            if fields[name].is_required() or value != fields[name].get_default(call_default_factory=True)
        }

    def __copy__(self) -> Self:
        copied = super().__copy__()
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]  # what was computed from the original's fields, not the copy's
        return copied

    def __hash__(self) -> int:
        return hash(repr(self))  # fields may be mappings, which have no hash of their own

    def __repr_args__(self) -> Any:
        return list(self.given().items())


class Component(Value):
    """A value that a configuration file can name, as `{name: {field: value}}` or just `name`."""

    kind: ClassVar[str] = ""
    """Which registry it belongs to: stage, verifier, backend, benchmark."""
    name: ClassVar[str] = ""
    """Its name in that registry; by default the class name in snake_case."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        super().__init_subclass__(**kwargs)


class Nested:
    """Marks a field that holds another component: `Annotated[Verifier, Nested("verifier")]`.

    The configuration loader sees the mark and builds the value from its name and keys, so that every
    mistake inside it is reported with its full path (config/build.py). Written in Python, a field takes
    the component itself, its name, or `{name: keys}`; of the kind `pipeline` a pipeline, a stage, or what
    a file would say.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def build(value: Any) -> Any:
            from archon.config.build import component, pipeline

            if self.kind == "pipeline":
                return pipeline(value)
            return component(self.kind, value) if isinstance(value, str | Mapping) else value

        def dump(value: Any) -> Any:
            from archon.config.build import plain

            return plain(value)

        return core_schema.no_info_before_validator_function(
            build,
            core_schema.is_instance_schema(source),
            serialization=core_schema.plain_serializer_function_ser_schema(dump),
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {COMPONENT: self.kind}
