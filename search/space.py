"""Search spaces: a file of models and a pipeline with marks, and the pipeline of every configuration.

    space = SearchSpace.read("search.yaml")
    configuration = space.axes.draw(rng)
    if space.refusal(configuration) is None:
        graph = space.graph(configuration)

A search file is a configuration file (archon/config) with marks (marks.py) under `models` and `pipeline`, with
`choices` beside a pipeline (paths.py), and with `limits` (constraints.py). In the place of `pipeline` it may name a
ready space: `space: {archon: {generators: [a, b]}}` (archon_space.py). Keys that are none of these are left unread in
`others`, for whoever evaluates.

Two kinds of hard limits hold for each problem. Under `limits` a configuration is refused unless its worst case is known
to be within them. `budget: {problem: ...}` holds when a configuration runs, and one is refused only where its worst
case is known to exceed it. What is refused is never run. Cost: no calls.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path as File
from typing import Any, Final, Self, TypeVar

from archon.budget import Budgets
from archon.config import Config, dump
from archon.config.build import Builder
from archon.config.graphs import plain_pipeline
from archon.config.lines import Path
from archon.config.source import Source, dots, read_file, read_text, shown
from archon.errors import ConfigError, Flaw, UnknownName, UserError
from archon.graph import Graph
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.search.archon_space import read_space
from archon.search.axes import Axes, Choice, Configuration
from archon.search.constraints import Bound, Limits, bounds, exceeds, lacking, largest, whole
from archon.search.expected import Cost, ExpectedCost
from archon.search.marks import Marked, find
from archon.search.paths import placed
from archon.search.trials import Assembler, check
from archon.session import Session
from archon.suggest import hint

OWN: Final = ("models", "budget", "axes", "pipeline", "choices", "space", "limits")
"""The keys of a search file that a space reads."""
_MOST_REFUSALS = 100_000
_MOST_CONFIGS = 256
K = TypeVar("K")
V = TypeVar("V")


class SearchSpace:
    """What may be chosen, and what it builds. Immutable but for what it remembers; not for several threads at once."""

    def __init__(
        self,
        marked: Marked,
        *,
        limits: Limits | None = None,
        others: Source | None = None,
        problems: Sequence[Problem] = (),
        session: Session | None = None,
    ) -> None:
        """Use `read` or `from_data`. Raises UserError where limits beyond calls have no models to go by."""
        self._marked = marked
        self.limits = limits or Limits()
        """The most that a configuration may cost a problem."""
        self.others = others or Source({})
        """What the file says beside, unread, with its lines."""
        self._problems = largest(problems)
        self._session = session
        self._assembler = Assembler()
        self._refusals: OrderedDict[str, str | None] = OrderedDict()
        self._configs: OrderedDict[str, Config] = OrderedDict()
        self._graphs: OrderedDict[str, Graph] = OrderedDict()

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        others: Collection[str] | None = None,
        problems: Sequence[Problem] = (),
        session: Session | None = None,
    ) -> Self:
        """Read a search file, YAML or TOML by its ending. `others` are the further keys that it may have; any where
        not given. `problems` and `session` are as for `bound_to`.

        Raises DataError where it cannot be read, ConfigError with everything that is wrong in it.
        """
        return cls.of(read_file(File(path)), others, problems, session)

    @classmethod
    def from_data(
        cls,
        data: Mapping[str, Any] | Sequence[Any] | str,
        *,
        format: str = "yaml",
        others: Collection[str] | None = None,
        problems: Sequence[Problem] = (),
        session: Session | None = None,
    ) -> Self:
        """The same of plain data, or of the text itself. Just a pipeline may be given as a list."""
        source = read_text(data, format) if isinstance(data, str) else Source(_plain(data, ()))
        return cls.of(source, others, problems, session)

    @classmethod
    def of(
        cls,
        source: Source,
        others: Collection[str] | None = None,
        problems: Sequence[Problem] = (),
        session: Session | None = None,
    ) -> Self:
        """The same of what was read."""
        if isinstance(source.data, list):
            lines = {("pipeline", *path): line for path, line in source.lines.items()}
            source = Source({"pipeline": source.data}, source.name, lines)
        builder = Builder(source)
        if not isinstance(source.data, Mapping):
            builder.flaw((), f"expected `pipeline:` or `space:`, and found {shown(source.data)}")
            builder.check()
        data: Mapping[str, Any] = source.data
        for key in data:
            if others is not None and key not in OWN and key not in others:
                builder.flaw((key,), f"unknown key {shown(key)}", hint(key, (*OWN, *others)))
        if "pipeline" not in data and "space" not in data:
            near = [key for key in data if key not in OWN]
            builder.flaw((), "`pipeline` is missing", f"It has {', '.join(map(shown, near))}" if near else "")
        if "space" in data and not {"pipeline", "choices", "axes"}.isdisjoint(data):
            what = "`space` stands in the place of `pipeline`, `axes` and `choices`"
            builder.flaw(("space",), what, "Keep one of them")
        given = {} if data.get("limits") is None else data["limits"]
        if isinstance(given, Mapping) and "seconds" in given:
            builder.flaw(
                ("limits", "seconds"),
                "nobody knows in advance how many seconds a problem takes",
                "Write `budget: {problem: {seconds: ...}}`, which ends it in time",
            )
            given = {key: one for key, one in given.items() if key != "seconds"}
        limits = builder.value(Limits, given, ("limits",))
        builder.value(Budgets, {} if data.get("budget") is None else data["budget"], ("budget",))
        marked = None
        try:
            file = placed(read_space(_part(source, [key for key in OWN if key != "limits"])))
            marked = find(file)
            check(marked, file)
        except ConfigError as error:
            known = set(builder.flaws)
            builder.flaws.extend(flaw for flaw in error.flaws if flaw not in known)
        builder.check()
        assert marked is not None and limits is not None
        beside = _part(source, [key for key in data if key not in OWN])
        return cls(marked, limits=limits, others=beside, problems=problems, session=session)

    def bound_to(self, *, problems: Sequence[Problem], session: Session | None) -> Self:
        """The same space for these problems and a session with the models: what limits on tokens, money and FLOPs,
        and what models can do, are decided by. Nothing is asked of the models."""
        return type(self)(
            self._marked, limits=self.limits, others=self.others, problems=problems, session=session
        )

    @classmethod
    def ready(cls, name: str, *, problems: Sequence[Problem] = (), session: Session | None = None) -> Self:
        """A search file that ships with the package, by its name. Raises UnknownName with the nearest one."""
        file = shipped().get(name)
        if file is None:
            raise UnknownName(f"no search file named {name!r} ships. {hint(name, shipped())}")
        source = read_text(file.read_text(encoding="utf-8"), "yaml", file.name)
        return cls.of(source, None, problems, session)

    # --- what proposers need -----------------------------------------------------------------------

    @property
    def axes(self) -> Axes:
        """The open choices."""
        return self._marked.axes

    def refusal(self, configuration: Mapping[str, Choice]) -> str | None:
        """Why this configuration is never run; None where it may be. Remembered.

        Raises UserError where limits beyond calls are set and there are no models or problems to go by.
        """
        if self.limits.need_models and (self._session is None or not self._problems):
            raise UserError(
                "`limits` beyond calls need models and problems to go by. Give the space both (`bound_to`)"
            )
        known = configuration if isinstance(configuration, Configuration) else Configuration(configuration)
        return _remembered(self._refusals, known.key, _MOST_REFUSALS, lambda: self._refusal(known))

    def _refusal(self, configuration: Configuration) -> str | None:
        try:
            graph = self.graph(configuration)
            budget = self.config(configuration).budget.problem
        except UserError as error:
            return "; ".join(str(error).splitlines())
        if self._session is not None and (unable := lacking(graph, self._session)) is not None:
            return unable
        parts = self.bounds(configuration).values()
        most = whole(parts)
        return exceeds(most, budget) or exceeds(most.within(budget), self.limits)

    # --- what evaluates ----------------------------------------------------------------------------

    def config(self, configuration: Mapping[str, Choice]) -> Config:
        """Models, budget and pipeline. Remembered for the last few. Raises ConfigError where it does not build,
        UserError where it is no configuration of these axes."""
        known = self.axes.configuration(configuration)
        return _remembered(
            self._configs, known.key, _MOST_CONFIGS, lambda: self._assembler.config(self._marked.fill(known))
        )

    def graph(self, configuration: Mapping[str, Choice]) -> Graph:
        """The pipeline, compiled. Remembered for the last few. Raises as `config` does."""
        known = self.axes.configuration(configuration)
        return _remembered(
            self._graphs, known.key, _MOST_CONFIGS, lambda: self._assembler.graph(self.config(known))
        )

    def stack(self, configuration: Mapping[str, Choice]) -> str:
        """The pipeline in one line, for people: `sample(n=4) > verify(unit_tests) > best_of`."""
        return described(self.config(configuration).pipeline)

    def dump(self, configuration: Mapping[str, Choice]) -> str:
        """A configuration file, as YAML text ready for `archon run`. Raises as `config` does."""
        return dump(self.config(configuration))

    def bounds(self, configuration: Mapping[str, Choice]) -> dict[str, Bound]:
        """The most that each stage costs a problem, by its path. Raises as `config` does."""
        return bounds(self.graph(configuration), self._problems, self._session)

    def expected(self, configuration: Mapping[str, Choice], known: ExpectedCost) -> Cost:
        """What it is expected to cost a problem, by what is known so far. Raises as `config` does."""
        return known.of(self.graph(configuration), self.bounds(configuration))


def shipped() -> dict[str, Traversable]:
    """The search files that ship with the package, by name."""
    folder = files("archon.search.spaces").iterdir()
    return {f.name.removesuffix(".yaml"): f for f in folder if f.name.endswith(".yaml")}


def described(pipeline: Pipeline) -> str:
    """A pipeline in one line."""
    return _line(plain_pipeline(pipeline))


def _line(data: Any) -> str:
    if isinstance(data, list):
        return " > ".join(_item(item) for item in data)
    parts = []
    for name, item in data.items():
        after = item.get("after", []) if isinstance(item, Mapping) else []
        rest = (
            {key: one for key, one in item.items() if key != "after"} if isinstance(item, Mapping) else item
        )
        text = _item(rest)
        named = text if text.split("(")[0] == name else f"{name}: {text}"
        parts.append(f"{named} after {', '.join(after)}" if after else named)
    return "; ".join(parts)


def _item(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    ((name, fields),) = item.items()
    if name == "pipeline":
        return f"({_line(fields)})"
    return f"{name}({_settings(fields)})" if fields else str(name)


def _settings(fields: Any) -> str:
    if not isinstance(fields, Mapping):
        return _value(fields)
    given = [_value(one) if key == "verifier" else f"{key}={_value(one)}" for key, one in fields.items()]
    return ", ".join(given)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(next(iter(value.values())), Mapping):
            return _item(value)
        return "{" + _settings(value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, str):
        text = " ".join(value.split())
        return text if len(text) <= 24 else f"{text[:21]}..."
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _plain(value: Any, path: Path) -> Any:
    """Data from Python as a file would hold it: keys are text, what is in order is a list. Raises ConfigError."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                what = f"the key {shown(key)} is {type(key).__name__}, not text"
                raise ConfigError([Flaw(dots(path), what, "Put it in quotes")])
        return {key: _plain(one, (*path, key)) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, (*path, i)) for i, one in enumerate(value)]
    return value


def _part(source: Source, keys: Collection[str]) -> Source:
    """Some of the top-level keys, with their lines."""
    data = {key: source.data[key] for key in source.data if key in keys}
    lines: dict[Path, int] = {
        path: line for path, line in source.lines.items() if not path or path[0] in keys
    }
    return Source(data, source.name, lines)


def _remembered(known: OrderedDict[K, V], key: K, most: int, make: Callable[[], V]) -> V:
    """What is known under a key, or made now; the longest unused are forgotten."""
    if key in known:
        known.move_to_end(key)
        return known[key]
    made = known[key] = make()
    if len(known) > most:
        known.popitem(last=False)
    return made
