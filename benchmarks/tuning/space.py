"""The tuning file: an engine with marks, and the model of every configuration.

    engine:
      vllm:
        model: some/model
        options: {max_num_seqs: {choose: [16, 64, 256]}, enforce_eager: {choose: [true, false]}}
    models: {judge: {backend: openai, model: ...}}      # others that a pipeline names, as they are
    workload: {concurrency: {choose: [8, 32]}}

Any field of any backend may hold a mark (archon.search.marks); so may the concurrency of the load. An axis goes by the
last key of its place where that is one of a kind, else by its path. Cost: no calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any, Final

import numpy as np

from archon.backends.base import Model, canonical
from archon.benchmarks.tuning.settings import Settings
from archon.config.build import Builder, plain
from archon.config.lines import Path
from archon.config.source import Source, dots, read_file, shown
from archon.errors import ConfigError, Flaw, UserError
from archon.search.axes import Axes, Choice, Configuration
from archon.search.marks import KEYS, find
from archon.search.trials import check
from archon.suggest import hint

_CHOICES: Final = ("choose", "range", "optional")
_DRAWS: Final = 50
_TRIED: Final = 8
"""Values of an axis whose answers are compared."""
_MISSING: Any = object()


@dataclass
class _Moved(Source):
    """An engine as a model of a configuration file; says where things stand in the tuning file."""

    file: Source = field(default_factory=lambda: Source(None))
    backend: str = ""

    def where(self, path: Path) -> str:
        """Its place in the tuning file."""
        if path[:2] == ("models", "default"):
            path = ("engine", self.backend, *path[2:])
        elif path[:2] == ("models", "load"):
            path = ("workload", *path[2:])
        return self.file.where(path)


class EngineSpace:
    """What may be chosen, and the model that it makes. Immutable but for what it remembers."""

    def __init__(self, source: Source) -> None:
        """Raises ConfigError with everything that is wrong in the file."""
        data = source.data
        if not isinstance(data, Mapping):
            raise ConfigError(
                [Flaw(source.name, f"expected `engine:` and the load, and found {shown(data)}")]
            )
        backend, engine = _engine(source, data)
        load = data.get("workload")
        chosen = load.get("concurrency") if isinstance(load, Mapping) else None
        loaded = isinstance(chosen, Mapping)
        named = _named(engine, {"concurrency"} if loaded else set())
        moved = _moved(source, backend, {**named, "backend": backend})
        self._engine = find(moved)
        check(self._engine, moved)
        axes = list(self._engine.axes)
        self._load = None
        if loaded:
            assert isinstance(chosen, Mapping)
            mark = {**chosen, "name": "concurrency"}
            at = _Moved({"models": {"load": {"concurrency": mark}}}, source.name, file=source)
            self._load = find(at)
            axes += self._load.axes
            _check_load(self._load.axes, source)
        if not axes:
            what = "nothing is left to choose: no field has a mark"
            raise ConfigError(
                [Flaw(source.where(("engine",)), what, "Write one: max_num_seqs: {choose: [64, 256]}")]
            )
        self.axes = Axes(axes)
        self.settings = _settings(source, data, loaded)
        self.others = _others(source, data)
        self.backend = backend
        self._marks = named
        self._known: dict[str, Model | UserError] = {}
        self._check_names(source)
        self.default_load = self._default_load()
        self.default = self._default(source)
        """The model of the baseline: options with marks are left out, so that they are the engine's own."""

    @classmethod
    def read(cls, path: File) -> EngineSpace:
        """Read a tuning file. Raises DataError, and ConfigError with everything that is wrong."""
        return cls(read_file(path))

    # --- what proposers need -----------------------------------------------------------------------

    def refusal(self, configuration: Mapping[str, Choice]) -> str | None:
        """Why no engine is started with it; None where one may be."""
        try:
            self.model(configuration)
        except UserError as error:
            return "; ".join(str(error).splitlines())
        load = self.load(configuration)
        if load > self.settings.workload.requests:
            return f"{load} requests cannot be in flight where a round has {self.settings.workload.requests}"
        return None

    # --- what measures -----------------------------------------------------------------------------

    def model(self, configuration: Mapping[str, Choice]) -> Model:
        """The model of a configuration. Raises ConfigError where it does not build."""
        known = self.axes.configuration(configuration)
        if known.key not in self._known:
            try:
                self._known[known.key] = self._built(self._engine.fill(known)["models"]["default"])
            except ConfigError as error:
                self._known[known.key] = error
        found = self._known[known.key]
        if isinstance(found, UserError):
            raise found
        return found

    def load(self, configuration: Mapping[str, Choice]) -> int:
        """How many requests are in flight under a configuration."""
        if self._load is None:
            return self.settings.workload.concurrency
        return int(self._load.fill(configuration)["models"]["load"]["concurrency"])

    @property
    def loads(self) -> int | list[Choice]:
        """How many requests are in flight; where that is chosen, its values, or both ends of many."""
        if self._load is None:
            return self.settings.workload.concurrency
        axis = self.axes.by_name["concurrency"]
        return list(axis.values) if axis.values is not None else [axis.low, axis.high]

    def plain(self, model: Model) -> dict[str, Any]:
        """A model as a configuration file has it under `models`."""
        found = plain(model)
        ((name, fields),) = found.items() if isinstance(found, Mapping) else ((found, {}),)
        return {"backend": name, **fields}

    async def changed_answers(self) -> list[str]:
        """The axes whose choice changes what the model says, and not just how fast: other samples are theirs by the
        identity that the backend gives them. Nothing is started or asked."""
        return [axis.name for axis in self._engine.axes if await self._changes(axis.name)]

    async def _changes(self, name: str) -> bool:
        rng = np.random.default_rng(0)
        for _ in range(_DRAWS):
            base = self.axes.draw(rng)
            if name not in base or self.refusal(base) is not None:
                continue
            axis = self.axes.by_name[name]
            values = axis.values if axis.values is not None and len(axis.values) <= _TRIED else None
            tried = values or [axis.nearest(x) for x in np.linspace(axis.low, axis.high, _TRIED)]
            said = {await _says(self.model(one)) for value in tried for one in self._with(base, name, value)}
            if len(said) > 1:
                return True
        return False

    def _with(self, base: Configuration, name: str, value: Choice) -> Iterator[Configuration]:
        """A configuration with another value of an axis, where the others can stay and it is allowed."""
        try:
            found = self.axes.configuration({**base, name: value})
        except UserError:  # another axis begins to matter
            return
        if self.refusal(found) is None:
            yield found

    # --- reading -----------------------------------------------------------------------------------

    def _built(self, data: Mapping[str, Any]) -> Model:
        builder = Builder(Source(None))
        rest = {key: one for key, one in data.items() if key != "backend"}
        found = builder.named("backend", self.backend, rest, (self.backend,))
        builder.check()
        assert isinstance(found, Model)
        return found

    def _default(self, source: Source) -> Model:
        try:
            return self._built(_without_marks(self._marks, self.settings.baseline))
        except ConfigError as error:
            raise ConfigError(
                [
                    Flaw(
                        source.where(("engine",)),
                        f"without what is chosen it is no engine to compare with ({error})",
                        "Give the options of one: baseline: {option: value}",
                    )
                ]
            ) from None

    def _default_load(self) -> int:
        if self._load is None:
            return self.settings.workload.concurrency
        axis = self.axes.by_name["concurrency"]
        given = self.settings.baseline.get("concurrency", axis.options[0] if axis.options else axis.low)
        return int(given)  # type: ignore[arg-type]

    def _check_names(self, source: Source) -> None:
        flaws = []
        for key in ("baseline", "may_change_answers"):
            for name in getattr(self.settings, key):
                if name not in self.axes.by_name:
                    what = f"there is no axis {name!r}"
                    flaws.append(Flaw(source.where((key,)), what, hint(name, self.axes.by_name)))
        for name, value in self.settings.baseline.items():
            axis = self.axes.by_name.get(name)
            if name == "concurrency" and self._load is not None and axis and not axis.holds(value):
                what = f"`concurrency` is never {shown(value)} here"
                flaws.append(Flaw(source.where(("baseline", name)), what, "Name one that is tried"))
        if self._load is None and self.settings.workload.concurrency > self.settings.workload.requests:
            load = self.settings.workload
            what = f"{load.concurrency} requests cannot be in flight where a round has {load.requests}"
            flaws.append(Flaw(source.where(("workload",)), what, "Give a round more requests"))
        if flaws:
            raise ConfigError(flaws)


def _engine(source: Source, data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The backend's name and its settings. Raises ConfigError."""
    valid = ("engine", "models", *Settings.model_fields)
    flaws = [
        Flaw(source.where((key,)), f"unknown key {shown(key)}", hint(key, valid))
        for key in data
        if key not in valid
    ]
    engine = data.get("engine")
    if isinstance(engine, Mapping) and isinstance(engine.get("backend"), str):
        engine = {engine["backend"]: {key: one for key, one in engine.items() if key != "backend"}}
    if not isinstance(engine, Mapping) or len(engine) != 1:
        what = "`engine` is missing" if engine is None else f"expected one backend, and found {shown(engine)}"
        flaws.append(
            Flaw(source.where(("engine",)), what, "Name it with its settings: engine: {vllm: {model: ...}}")
        )
    if flaws:
        raise ConfigError(flaws)
    assert isinstance(engine, Mapping)
    ((backend, fields),) = engine.items()
    if fields is not None and not isinstance(fields, Mapping):
        what = f"expected settings (key: value), and found {shown(fields)}"
        raise ConfigError([Flaw(source.where(("engine", backend)), what)])
    return backend, fields or {}


def _moved(source: Source, backend: str, model: Mapping[str, Any]) -> _Moved:
    return _Moved(
        {"models": {"default": model}, "pipeline": [{"sample": {}}]},
        source.name,
        file=source,
        backend=backend,
    )


def _settings(source: Source, data: Mapping[str, Any], loaded: bool) -> Settings:
    fields = {key: one for key, one in data.items() if key in Settings.model_fields and one is not None}
    if loaded:
        load = fields["workload"]
        fields["workload"] = {key: one for key, one in load.items() if key != "concurrency"}
    builder = Builder(source)
    if isinstance(fields.get("effort"), Mapping):
        from archon.benchmarks.tuning.settings import Spending

        fields["effort"] = builder.value(Spending, fields["effort"], ("effort",))
        builder.check()
    built = builder.value(Settings, fields, ())
    builder.check()
    assert built is not None
    return built


def _others(source: Source, data: Mapping[str, Any]) -> dict[str, Model]:
    """Models beside the engine."""
    builder = Builder(source)
    found: dict[str, Model] = {}
    for name, fields in (data.get("models") or {}).items():
        path = ("models", name)
        if name == "default":
            builder.flaw(path, "`default` is the engine that is tuned", "Give the other model another name")
        elif not isinstance(fields, Mapping) or not isinstance(fields.get("backend"), str):
            builder.flaw(path, "expected `backend:` and its settings")
        else:
            rest = {key: one for key, one in fields.items() if key != "backend"}
            built = builder.named("backend", fields["backend"], rest, path)
            if isinstance(built, Model):
                found[name] = built
    builder.check()
    return found


def _check_load(axes: Axes, source: Source) -> None:
    for axis in axes:
        whole = axis.kind == "int" or all(
            isinstance(one, int) and not isinstance(one, bool) for one in axis.options
        )
        least = min([one for one in axis.options if isinstance(one, int)], default=axis.low)
        if axis.kind == "float" or not whole or least < 1:
            what = "`concurrency` is a whole number of requests, from 1"
            raise ConfigError(
                [
                    Flaw(
                        source.where(("workload", "concurrency")),
                        what,
                        "With a range, add `integer: true`",
                    )
                ]
            )


# --- marks ---------------------------------------------------------------------------------------------


def _is_mark(value: Any) -> bool:
    return isinstance(value, Mapping) and any(key in value for key in _CHOICES)


def _places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where marks without a name of their own stand."""
    if _is_mark(value) and "name" not in value and "where" not in value:
        yield path
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, one in items:
        yield from _places(one, (*path, key))


def _label(path: Path) -> Path:
    return tuple(key for key in path if key not in KEYS) or ("engine",)


def _named(engine: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    """The engine's settings with a name at every mark."""
    labels = [_label(path) for path in _places(engine)]
    short = Counter(str(label[-1]) for label in labels)

    def name(path: Path) -> str:
        label = _label(path)
        last = str(label[-1])
        if short[last] == 1 and last not in taken and not isinstance(label[-1], int):
            return last
        return dots(("engine", *label) if len(label) == 1 else label)

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, list):
            return [walk(one, (*path, i)) for i, one in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        found = {key: walk(one, (*path, key)) for key, one in value.items()}
        if _is_mark(value) and "name" not in value and "where" not in value:
            found["name"] = name(path)
        return found

    found: dict[str, Any] = walk(engine, ())
    return found


def _without_marks(data: Any, values: Mapping[str, Choice]) -> Any:
    """The settings as the engine has them by itself: what is chosen is left out, but for these values."""
    if isinstance(data, Mapping):
        if _is_mark(data) or "axis" in data:
            name = data.get("name", data.get("axis"))
            return values.get(str(name), _MISSING)
        items = {key: _without_marks(one, values) for key, one in data.items()}
        return {key: one for key, one in items.items() if one is not _MISSING}
    if isinstance(data, list):
        return [one for one in (_without_marks(one, values) for one in data) if one is not _MISSING]
    return data


async def _says(model: Model) -> str:
    """What tells its samples from others': the backend's identity, and what it asks with."""
    identity = getattr(model, "identity", None)
    if identity is None:
        backend = model.connect()
        try:
            identity = backend.identity
        finally:
            await backend.close()
    return canonical([identity, model.sampling.content, model.max_tokens])
