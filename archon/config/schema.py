"""The JSON Schema of configuration files, for editors: completion, hover texts, errors while typing."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from archon import registry
from archon.budget import Budgets
from archon.component import COMPONENT, Component
from archon.config.build import plain
from archon.pipeline import Pipeline


def config_schema() -> dict[str, Any]:
    """The schema, with everything that is registered at this moment."""
    kinds = {kind: _registered(kind) for kind in ("stage", "verifier", "retriever", "backend")}
    models: list[Any] = [(cls, "validation") for by_name in kinds.values() for cls in by_name.values()]
    references, defs = models_json_schema([*models, (Budgets, "validation")], schema_generator=_Tolerant)
    definitions: dict[str, Any] = defs.get("$defs", {})
    for kind in ("stage", "verifier", "retriever"):
        definitions[kind] = _named(kinds[kind], references)
    definitions["backend"] = _named(kinds["backend"], references)
    definitions["model"] = {
        "oneOf": [
            _model(name, references[(cls, "validation")]["$ref"], definitions)
            for name, cls in kinds["backend"].items()
        ]
    }
    node = {
        "oneOf": [
            {"$ref": "#/$defs/stage"},
            {
                "type": "object",
                "properties": {"pipeline": {"$ref": "#/$defs/pipeline"}},
                "required": ["pipeline"],
                "additionalProperties": False,
            },
        ]
    }
    definitions["node"] = node
    definitions["pipeline"] = {
        "description": "A list is a chain; a mapping of named nodes with `after` is a graph.",
        "oneOf": [
            {"type": "array", "items": {"$ref": "#/$defs/node"}, "minItems": 1},
            {
                "type": "object",
                "additionalProperties": _placed(kinds["stage"], references),
                "minProperties": 1,
            },
        ],
    }
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Archon configuration",
        "oneOf": [
            {"$ref": "#/$defs/pipeline"},
            {
                "type": "object",
                "properties": {
                    "models": {"type": "object", "additionalProperties": {"$ref": "#/$defs/model"}},
                    "budget": references[(Budgets, "validation")],
                    "pipeline": {"$ref": "#/$defs/pipeline"},
                },
                "required": ["pipeline"],
                "additionalProperties": False,
            },
        ],
        "$defs": definitions,
    }
    return dict(_filled_in(whole))


def _filled_in(schema: Any) -> Any:
    """The schema with references where components go."""
    if isinstance(schema, dict):
        filled = {key: _filled_in(value) for key, value in schema.items() if key != COMPONENT}
        return {"$ref": f"#/$defs/{schema[COMPONENT]}", **filled} if COMPONENT in schema else filled
    return [_filled_in(item) for item in schema] if isinstance(schema, list) else schema


class _Tolerant(GenerateJsonSchema):
    """Fields that only Python can fill (functions) are left open."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {"not": {}, "description": "Only from Python."}

    def encode_default(self, dft: Any) -> Any:
        """A pipeline's default as a file would say it."""
        return plain(dft) if isinstance(dft, Pipeline) else super().encode_default(dft)


def _registered(kind: str) -> dict[str, type[Component]]:
    return {name: registry.find(kind, name) for name in registry.names(kind)}


def _named(classes: dict[str, type[Component]], references: Any) -> dict[str, Any]:
    """A bare name, or one name with its settings."""
    return {
        "oneOf": [
            {"enum": sorted(classes)},
            *(_single(name, references[(cls, "validation")]) for name, cls in sorted(classes.items())),
        ]
    }


def _single(name: str, reference: Any, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"oneOf": [reference, {"type": "null"}]}, **more},
        "required": [name],
        "additionalProperties": False,
    }


def _placed(classes: dict[str, type[Component]], references: Any) -> dict[str, Any]:
    after = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    pipeline = _single("pipeline", {"$ref": "#/$defs/pipeline"}, after=after)
    stages = [
        _single(name, references[(cls, "validation")], after=after) for name, cls in sorted(classes.items())
    ]
    return {"oneOf": [{"enum": sorted(classes)}, *stages, pipeline]}


def _model(name: str, reference: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A model's fields with its backend's name beside them."""
    fields = definitions[reference.removeprefix("#/$defs/")]
    return {
        **fields,
        "properties": {"backend": {"const": name}, **fields.get("properties", {})},
        "required": ["backend", *fields.get("required", [])],
    }
