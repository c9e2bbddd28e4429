"""Building what a configuration says, quickly, and trying every option of a file before a search begins.

A file with marks is wrong where some option can never be built: a stage of no such name, a key that is unknown, a value
of the wrong type, a model that is not defined. So each option is built once, with the first options of all other axes,
and where that fails a few times more with others of theirs; what fails each time is a flaw of the file, with its line.
What some combinations only forbid (a rule of composition) is no flaw: those configurations are refused. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from archon.backends.base import canonical
from archon.budget import Budgets
from archon.component import Component
from archon.config import Config
from archon.config.build import Builder
from archon.config.graphs import build_pipeline
from archon.config.lines import Path
from archon.config.source import Source, shown
from archon.errors import ConfigError, Flaw
from archon.graph import Graph
from archon.pipeline import Pipeline, pipelines_in
from archon.search.axes import Axes, Axis, Choice, Configuration
from archon.search.marks import Marked
from archon.search.templates import Origins
from archon.stage import Stage
from archon.suggest import hint

_MOST_PARTS = 10_000
_AGAIN: Final = 6
"""Further configurations that are tried with an option that cannot be built."""
_MOST_OPTIONS: Final = 200
"""Options of one axis that are tried; of more, the first ones."""


class Assembler:
    """Builds configurations, and remembers the stages and models that they have in common."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], Component] = {}

    def config(self, data: Mapping[str, Any]) -> Config:
        """A configuration from data without marks. Raises ConfigError."""
        builder = _Remembering(Source(data), self._parts)
        models, budget, pipeline = parts(builder, data)
        builder.check()
        assert pipeline is not None
        return Config(models=models, budget=budget, pipeline=pipeline)

    def graph(self, config: Config) -> Graph:
        """Its pipeline compiled, with every model defined. Raises ConfigError."""
        graph = config.pipeline.graph()
        if config.models:
            missing = [
                Flaw(
                    stages[0], f"model {shown(name)} is not defined under `models`", hint(name, config.models)
                )
                for name, stages in graph.models.items()
                if name not in config.models
            ]
            if missing:
                raise ConfigError(missing)
        return graph


def parts(builder: Builder, data: Mapping[str, Any]) -> tuple[dict[str, Any], Budgets, Pipeline | None]:
    """Models, budget and pipeline, as archon/config reads them; what is wrong is noted in the builder."""
    models: dict[str, Any] = {}
    given = {} if data.get("models") is None else data["models"]
    if not isinstance(given, Mapping):
        builder.flaw(("models",), f"expected models by name, and found {shown(given)}")
        given = {}
    for name, fields in given.items():
        path = ("models", name)
        if not isinstance(fields, Mapping) or "backend" not in fields:
            builder.flaw(path, "expected `backend:` and its settings")
            continue
        rest = {key: value for key, value in fields.items() if key != "backend"}
        models[name] = builder.named("backend", str(fields["backend"]), rest, path)
    budget = builder.value(Budgets, {} if data.get("budget") is None else data["budget"], ("budget",))
    pipeline = None
    if "pipeline" not in data:
        builder.flaw((), "`pipeline` is missing")
    else:
        pipeline = build_pipeline(builder, data["pipeline"], ("pipeline",))
    return models, budget or Budgets(), pipeline


class _Remembering(Builder):
    """A builder that builds equal components once."""

    def __init__(self, source: Source, known: dict[tuple[str, str], Component]) -> None:
        super().__init__(source)
        self._known = known

    def component(self, kind: str, data: Any, path: Path) -> Component | None:
        """As the builder does."""
        return self._once(
            (kind, canonical(data)), lambda: super(_Remembering, self).component(kind, data, path)
        )

    def named(self, kind: str, name: str, fields: Any, path: Path) -> Component | None:
        """As the builder does."""
        key = (f"{kind} {name}", canonical(fields))
        return self._once(key, lambda: super(_Remembering, self).named(kind, name, fields, path))

    def _once(self, key: tuple[str, str], build: Any) -> Component | None:
        known = self._known.get(key)
        if known is None:
            known = build()
            if known is not None:
                if len(self._known) >= _MOST_PARTS:
                    self._known.clear()
                self._known[key] = known
        return known


class _Tracing(_Remembering):
    """A builder that says where in the file with marks something stands."""

    def __init__(
        self, source: Source, known: dict[tuple[str, str], Component], file: Source, origins: Origins
    ) -> None:
        super().__init__(source, known)
        self._file = file
        self._origins = origins

    def flaw(self, path: Path, what: str, hint: str = "") -> None:
        """Note a mistake, where it stands in the file."""
        self.flaws.append(Flaw(self._file.where(self.origin(path)), what, hint))

    def origin(self, path: Path) -> Path:
        """Where what stands at a path of the data stands in the file; of what is not there, what is around it."""
        for n in range(len(path), -1, -1):
            if path[:n] in self._origins:
                return (*self._origins[path[:n]], *path[n:])
        return path


def check(marked: Marked, file: Source) -> None:
    """Raise ConfigError with the flaws of every option that no configuration tried can be built with."""
    known: dict[tuple[str, str], Component] = {}
    rng = np.random.default_rng(0)
    axes = marked.axes
    found: dict[Flaw, None] = {}

    def lasting(wanted: Mapping[str, Choice]) -> list[Flaw]:
        """What is wrong with these values, whatever the others are."""
        flaws = _flaws(marked, file, _with(axes, wanted, None), known)
        for _ in range(_AGAIN if flaws else 0):
            others = _flaws(marked, file, _with(axes, wanted, rng), known)
            flaws = [flaw for flaw in flaws if flaw in others]
        return flaws

    found.update(dict.fromkeys(lasting({})))
    for axis in axes:
        met: set[str] = set()
        for value in _tried(axis):
            for flaw in lasting({axis.name: value}):
                if axis.kind == "float" and "integer" in flaw.what and not flaw.hint:
                    flaw = flaw._replace(hint="Where it is a whole number, add `integer: true`")
                if flaw not in found and not (axis.kind != "choice" and flaw.where in met):
                    found[flaw] = None
                    met.add(flaw.where)
    if found:
        raise ConfigError(list(found))


def _tried(axis: Axis) -> tuple[Choice, ...]:
    """Options to try: of a number its ends, and what lies unevenly between them."""
    if axis.kind == "choice":
        return axis.options[:_MOST_OPTIONS]
    return tuple(
        dict.fromkeys((axis.nearest(axis.low), axis.nearest(axis.high), axis.nearest(_between(axis))))
    )


def _between(axis: Axis) -> float:
    return axis.low + (axis.high - axis.low) * 0.381966


def _with(axes: Axes, wanted: Mapping[str, Choice], rng: np.random.Generator | None) -> Configuration:
    """A configuration with these values, of axes that matter under them; the other axes at random, or by their first
    value."""
    forced: dict[str, Choice] = dict(wanted)
    for axis in reversed(axes):  # what an axis needs comes before it
        if axis.name in forced:
            for name, values in axis.needs:
                forced.setdefault(name, values[0])
    found: dict[str, Choice] = {}
    for axis in axes:
        if axes.matters(axis, found):
            if axis.name in forced:
                found[axis.name] = forced[axis.name]
            elif rng is not None:
                found[axis.name] = axis.draw(rng)
            else:
                found[axis.name] = axis.options[0] if axis.kind == "choice" else axis.nearest(axis.low)
    return Configuration(found)


def _flaws(
    marked: Marked, file: Source, configuration: Configuration, known: dict[tuple[str, str], Component]
) -> list[Flaw]:
    """What keeps a configuration from being built, beside rules of composition."""
    data, origins = marked.fill(configuration), marked.origins(configuration)
    builder = _Tracing(Source(data), known, file, origins)
    models, _, pipeline = parts(builder, data)
    if models and pipeline is not None and not builder.flaws:
        for stage in _stages(pipeline):
            for name in dict.fromkeys(stage.models):
                if name not in models:
                    what = f"model {shown(name)} is not defined under `models`"
                    builder.flaw(_place(data["pipeline"], name, ("pipeline",)), what, hint(name, models))
    return builder.flaws


def _stages(pipeline: Pipeline) -> Iterator[Stage]:
    for node in pipeline.nodes:
        if isinstance(node.stage, Pipeline):
            yield from _stages(node.stage)
        else:
            yield node.stage
            for _, inner in pipelines_in(node.stage):
                yield from _stages(inner)


def _place(data: Any, name: str, path: Path) -> Path:
    """The first place of a text in the data; the data's own where it is nowhere."""
    found = next(_places(data, name, path), None)
    return path if found is None else found


def _places(data: Any, name: str, path: Path) -> Iterator[Path]:
    if isinstance(data, Mapping | list):
        for key, one in data.items() if isinstance(data, Mapping) else enumerate(data):
            yield from _places(one, name, (*path, key))
    elif data == name and isinstance(data, str):
        yield path
