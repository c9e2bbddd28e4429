"""Configuration files: models, budgets and a pipeline in one YAML or TOML file.

    models:
      coder: {backend: openai, model: gpt-4o-mini}
    budget: {problem: {usd: 0.05}, run: {usd: 5}}
    pipeline:
      - sample: {model: coder, n: 16, temperature: 0.8}
      - verify: {verifier: unit_tests}
      - first_passing: {}

`load` reads, `dump` writes, and `load(dump(c)) == c`. A file is data: it can only name what is
registered (D10), and nothing in it is imported or evaluated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field

from archon.backends.base import Model
from archon.budget import Budgets
from archon.component import Component, Value
from archon.config.build import Builder, fields_of
from archon.config.source import Source, dots, read_file, read_text, shown
from archon.errors import ConfigError, Flaw
from archon.pipeline import Pipeline
from archon.suggest import hint

V = TypeVar("V", bound=Value)


class Config(Value):
    """What a configuration file says."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    models: Mapping[str, Model] = Field(default_factory=dict)
    """Models by the names that stages use."""
    budget: Budgets = Budgets()
    """Hard limits for each problem and for the run."""
    pipeline: Pipeline
    """The stages."""


def load(source: str | os.PathLike[str], format: str | None = None) -> Config:
    """Read a configuration: a path, or the text itself with its `format` (`yaml` or `toml`).

    Raises DataError where the file cannot be read, ConfigError with everything that is wrong in it.
    """
    if format is None:
        return build(read_file(Path(source)))
    return build(read_text(str(source), _format(format)))


def build(source: Source) -> Config:
    """A configuration from what was read. Raises ConfigError."""
    from archon.config.graphs import build_pipeline

    builder = Builder(source)
    data = source.data
    if isinstance(data, list):  # just the pipeline
        data = {"pipeline": data}
        source.lines = {("pipeline", *path): line for path, line in source.lines.items()}
    if not isinstance(data, Mapping):
        builder.flaw((), f"expected `pipeline:`, `models:` and `budget:`, and found {shown(data)}")
        builder.check()
    for key in data:
        if key not in Config.model_fields:
            builder.flaw((key,), f"unknown key {shown(key)}", hint(key, Config.model_fields))
    models: dict[str, Any] = {}
    raw_models = {} if data.get("models") is None else data["models"]
    if not isinstance(raw_models, Mapping):
        builder.flaw(("models",), f"expected models by name, and found {shown(raw_models)}")
        raw_models = {}
    for name, fields in raw_models.items():
        models[name] = _model(builder, fields, ("models", name))
    budgets = builder.value(Budgets, {} if data.get("budget") is None else data["budget"], ("budget",))
    pipeline = None
    if "pipeline" not in data:
        builder.flaw((), "`pipeline` is missing")
    else:
        pipeline = build_pipeline(builder, data["pipeline"], ("pipeline",))
    if pipeline is not None and budgets is not None:
        _check_whole(builder, pipeline, models)
    builder.check()
    assert pipeline is not None and budgets is not None
    return Config(models=models, budget=budgets, pipeline=pipeline)


def dump(config: Config | Pipeline, format: str = "yaml") -> str:
    """A configuration, or a pipeline alone, as YAML or TOML text."""
    data = plain(config)
    if _format(format) == "toml":
        import tomli_w

        _refuse_nulls(data, ())
        return tomli_w.dumps(data)
    import yaml

    odd = any(mark in repr(data) for mark in ("\\x85", "\\u2028", "\\u2029", "\\ufeff"))  # line ends to YAML
    return str(
        yaml.safe_dump(data, sort_keys=False, allow_unicode=not odd, default_flow_style=None, width=100)
    )


def _format(name: str) -> str:
    if name not in ("yaml", "toml"):
        raise ConfigError([Flaw("", f"there is no format {name!r}", "Valid: yaml, toml")])
    return name


def _refuse_nulls(data: Any, path: tuple[str | int, ...]) -> None:
    """TOML cannot say null."""
    if data is None:
        raise ConfigError([Flaw(dots(path), "it is null, which TOML cannot say", "Write YAML instead")])
    if isinstance(data, Mapping | list):
        for key, inner in data.items() if isinstance(data, Mapping) else enumerate(data):
            _refuse_nulls(inner, (*path, key))


def plain(config: Config | Pipeline) -> dict[str, Any]:
    """A configuration as plain data."""
    from archon.config.graphs import plain_pipeline

    if isinstance(config, Pipeline):
        return {"pipeline": plain_pipeline(config)}
    data: dict[str, Any] = {}
    if config.models:
        data["models"] = {
            name: {"backend": model.name, **fields_of(model)} for name, model in config.models.items()
        }
    if config.budget != Budgets():
        data["budget"] = fields_of(config.budget)
    return {**data, "pipeline": plain_pipeline(config.pipeline)}


def read_value(cls: type[V], text: str, name: str) -> V:
    """A value of one class from YAML text. Raises ConfigError with file and line."""
    source = read_text(text, "toml" if name.endswith(".toml") else "yaml", name)
    builder = Builder(source)
    value = builder.value(cls, source.data, ())
    builder.check()
    assert value is not None
    return value


def _model(builder: Builder, fields: Any, path: tuple[str, ...]) -> Any:
    if not isinstance(fields, Mapping) or "backend" not in fields:
        builder.flaw(path, "expected `backend:` and its settings")
        return None
    rest = {key: value for key, value in fields.items() if key != "backend"}
    return builder.named("backend", str(fields["backend"]), rest, path)


def _check_whole(builder: Builder, pipeline: Pipeline, models: Mapping[str, Any]) -> None:
    """Whether the graph makes sense, and every model it names is defined (where any is)."""
    try:
        graph = pipeline.graph()
    except ConfigError as error:
        for flaw in error.flaws:
            builder.flaw(_place(builder, pipeline, flaw.where), flaw.what, flaw.hint)
        return
    if not models:
        return
    for name, stages in graph.models.items():
        if name not in models:
            builder.flaw(
                _place(builder, pipeline, stages[0]),
                f"model {shown(name)} is not defined under `models`",
                hint(name, models),
            )


def _place(builder: Builder, pipeline: Pipeline, where: str) -> tuple[str | int, ...]:
    """The path in the file of a stage by its path in the graph."""
    path: tuple[str | int, ...] = ("pipeline",)
    inside: Any = builder.source.data
    inside = inside.get("pipeline") if isinstance(inside, Mapping) else inside
    current: Any = pipeline
    try:
        for name in where.split("/"):
            if isinstance(current, Pipeline):
                number = next(i for i, n in enumerate(current.nodes) if n.name == name)
                key: str | int = number if isinstance(inside, list) else name
                current, inside, path = current.nodes[number].stage, inside[key], (*path, key)
                if isinstance(current, Pipeline):
                    inside, path = inside["pipeline"], (*path, "pipeline")
                continue
            if isinstance(current, Component):  # its settings stand under its name
                inside, further = inside[current.name], (*path, current.name)
            else:
                further = path
            key = name if isinstance(inside, Mapping) else int(name)
            current = getattr(current, name) if isinstance(current, Value) else current[key]
            inside, path = inside[key], (*further, key)
    except (StopIteration, LookupError, TypeError, ValueError, AttributeError):
        pass  # what is not in the file has its place where it would stand
    return path


__all__ = ["Config", "build", "dump", "load", "plain", "read_value"]
