"""Marks: choices written where they are, in a file of models and a pipeline.

    pipeline:
      - sample: {model: {choose: [small, big]}, n: {choose: [1, 4, 16]}, temperature: {range: [0.2, 1.2], step: 0.2}}
      - optional: {verify: {verifier: reward}}      # there or not
      - choose:                                     # alternatives by name: a stage, a list of stages, or named nodes
          vote: majority_vote
          best: [{verify: {verifier: {reward: {model: prm}}}}, best_of]
          none: []

The marks, which may stand wherever a stage, a list of stages, a model, or the value of a field may:

- `{choose: [a, b], name: N}`: one of these. Values that are no plain value go by the name of their component.
- `{choose: {name: ..., name: ...}, name: N}`: one of these, by name.
- `{range: [low, high], step: S, log: true, integer: true, name: N}`: a number, both ends included.
- `{optional: X, name: N}`: X, or nothing; of a field, its default.
- `{optional: X, where: {axis: [values]}}`: X where other axes have one of these values; no choice of its own.
- `{axis: N}`: the value of axis N once more.
- `{verbatim: X}`: X as it is, though it looks like a mark.

What is chosen in no place of its own stands beside the pipeline, `axes: {depth: {choose: [1, 2]}}`, and is used by
`axis` and `where`; with a `where` of its own it matters only there.

An axis is named by the path of its place (`sample.n`; `verify` of a stage that may be left out; `choice` of
alternatives among stages), and what stands in an alternative by the alternative's name before it (`best.verify.ahead`).
Axes inside an alternative or of an optional part need it.

A mapping with one of these keys is a mark, except where it holds the settings of a component that has a field of that
name: in `{atom_of_thoughts: {choose: all}}`, `choose` is the stage's own. So a node cannot have a mark's name in a file
with marks, and the settings of a component are never chosen as a whole: the component is, or a field. Everything that
is wrong is reported at once, each with its line. Everything here is pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from archon import registry
from archon.component import Nested, Value
from archon.config.build import holds
from archon.config.lines import Path
from archon.config.source import Source, dots, shown
from archon.errors import ArchonError
from archon.pipeline import fresh_name
from archon.search.axes import Axes, Axis, Choice, exact
from archon.search.register import Register
from archon.search.slips import SLIP_ENDINGS, slip
from archon.search.templates import (
    Either,
    Needs,
    Nodes,
    Origins,
    Perhaps,
    Picked,
    Plain,
    Row,
    Table,
    Template,
)
from archon.search.templates import fill as filled
from archon.suggest import hint

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "choose": ("name",),
    "range": ("step", "log", "integer", "name"),
    "optional": ("name", "where"),
    "axis": (),
    "verbatim": (),
}
"""Every mark, and what may stand beside it."""

Kind: TypeAlias = Literal["pipeline", "stage", "stages", "model", "data"] | Nested | type[Value]
"""What stands in a place: a pipeline, a stage, a stage or several as an alternative, a model's settings, plain data, a
component, or the settings of a class."""
_MISSING: Any = object()


class Marked:
    """Data, its axes, and what it becomes under a configuration."""

    def __init__(self, axes: Axes, template: Template) -> None:
        self.axes = axes
        self._template = template

    def fill(self, values: Mapping[str, Choice]) -> Any:
        """The data without marks, under a configuration of `axes`. Pure. It shares what has no marks with the file's
        data, so it is read, never written."""
        return filled(self._template, values)

    def origins(self, values: Mapping[str, Choice]) -> Origins:
        """Where the parts of `fill(values)` stand in the data with marks, by path."""
        found: Origins = {}
        filled(self._template, values, found)
        return found


def find(source: Source) -> Marked:
    """Find the marks under `axes`, `models` and `pipeline`. Raises ConfigError with everything that is wrong with
    them."""
    finder = _Finder(source)
    items: list[tuple[str, Template]] = []
    finder.declare(source.data.get("axes"))
    for key, value in source.data.items():
        if key == "axes":
            continue
        if key == "models" and isinstance(value, Mapping):
            models = [
                (name, finder.walk(one, "model", (key, name), _Context(("models", name))))
                for name, one in value.items()
            ]
            items.append((key, Table((key,), tuple(models))))
        elif key == "pipeline":
            items.append((key, finder.walk(value, "pipeline", (key,), _Context())))
        else:
            items.append((key, Plain((key,), value)))
    return Marked(finder.register.finish(), Table((), tuple(items)))


@dataclass(frozen=True)
class _Context:
    """Where the finder is: names for axes, what an axis here needs, and the names of stages taken beside it."""

    labels: tuple[str, ...] = ()
    needs: Needs = ()
    taken: set[str] = field(default_factory=set)
    here: bool = False
    """Whether the last label is that of the stage that stands here (a node's name)."""

    def under(self, *labels: str) -> _Context:
        return _Context((*self.labels, *labels), self.needs)

    def within(self, label: str) -> _Context:
        """Inside a stage of this name; not named twice where an alternative goes by its only stage."""
        again = self.here or (self.labels[-1:] == (label,) and not self.taken)
        return self.under() if again else self.under(label)

    def given(self, needs: Needs) -> _Context:
        return replace(self, needs=(*self.needs, *needs))


class _Finder:
    def __init__(self, source: Source) -> None:
        self.register = Register(source)
        self.flaw = self.register.flaw

    def declare(self, declared: Any) -> None:
        """The axes that are chosen beside the pipeline, for `axis` and `where`."""
        if declared is None:
            return
        if not isinstance(declared, Mapping):
            self.flaw(("axes",), f"expected marks by the names of their axes, and found {shown(declared)}")
            return
        for name, mark in declared.items():
            path = ("axes", name)
            words = [key for key in ("choose", "range") if isinstance(mark, Mapping) and key in mark]
            if len(words) != 1 or "name" in mark:
                self.flaw(
                    path, f"expected `{{choose: [...]}}` or `{{range: [...]}}`, and found {shown(mark)}"
                )
                continue
            rest = {key: one for key, one in mark.items() if key != "where"}
            needs = self._needs(mark["where"], (*path, "where")) if "where" in mark else ()
            self.walk(rest, "data", path, _Context((name,), needs))
            self.register.declare(name, path)

    # --- places ------------------------------------------------------------------------------------

    def walk(self, value: Any, kind: Kind, path: Path, context: _Context) -> Template:
        """What stands in a place of a kind."""
        if isinstance(value, Mapping):
            marks = [key for key in KEYS if key in value and not _own(kind, key)]
            if marks:
                return self._mark(value, marks, kind, path, context)
            if (meant := slip(value, kind)) is not None:
                return self._slipped(value, meant, path)
        if kind == "pipeline":
            if isinstance(value, list):
                return self._row(value, "stage", path, context)
            return self._nodes(value, path, context) if isinstance(value, Mapping) else Plain(path, value)
        if kind == "stages" and isinstance(value, list):
            return self._row(value, "stage", path, replace(context, here=False))
        if kind == "stages" and isinstance(value, Mapping) and len(value) > 1:
            return self._nodes(value, path, context)
        if kind in ("stage", "stages"):
            return self._stage(value, path, context)
        if kind == "model":
            return self._model(value, path, context)
        if isinstance(kind, Nested):
            if kind.kind == "pipeline":
                return self.walk(value, "pipeline", path, context)
            return self._component(value, kind.kind, path, context)
        if isinstance(kind, type) and isinstance(value, Mapping):
            return self._settings(value, kind, path, context)
        if isinstance(value, Mapping):
            return self._table(value, path, context)
        return self._row(value, "data", path, context) if isinstance(value, list) else Plain(path, value)

    def _row(self, value: list[Any], kind: Kind, path: Path, context: _Context) -> Template:
        items = []
        for i, one in enumerate(value):
            inner = context if kind == "stage" else context.under(f"[{i}]")
            items.append(self.walk(one, kind, (*path, i), inner))
        return Row(path, tuple(items))

    def _table(self, value: Mapping[str, Any], path: Path, context: _Context) -> Template:
        items = (
            (key, self.walk(one, "data", (*path, key), context.under(key))) for key, one in value.items()
        )
        return Table(path, tuple(items))

    def _nodes(self, value: Mapping[str, Any], path: Path, context: _Context) -> Template:
        items = []
        for name, item in value.items():
            after: Any = None
            if isinstance(item, Mapping) and "after" in item and len(item) > 1:
                after = item["after"]
                item = {key: one for key, one in item.items() if key != "after"}
            inner = replace(context.under(name), here=True)
            items.append((name, self.walk(item, "stage", (*path, name), inner), after))
        return Nodes(path, tuple(items))

    def _stage(self, value: Any, path: Path, context: _Context) -> Template:
        label = fresh_name(_label(value), context.taken)
        inner = context.within(label)
        context.taken.add(label)
        if isinstance(value, Mapping) and set(value) == {"pipeline"}:
            held = self.walk(value["pipeline"], "pipeline", (*path, "pipeline"), inner)
            return Table(path, (("pipeline", held),))
        return self._component(value, "stage", path, inner)

    def _component(self, value: Any, kind: str, path: Path, context: _Context) -> Template:
        if not isinstance(value, Mapping) or len(value) != 1:
            return self._table(value, path, context) if isinstance(value, Mapping) else Plain(path, value)
        ((name, fields),) = value.items()
        inner = context if kind == "stage" or context.labels[-1:] == (name,) else context.under(name)
        cls = _class(kind, name)
        if cls is None or not isinstance(fields, Mapping):
            return Table(path, ((name, self.walk(fields, "data", (*path, name), inner)),))
        for key in KEYS:
            if key in fields and not _own(cls, key):
                self.flaw(
                    (*path, name, key),
                    f"the settings of {name!r} cannot be chosen as a whole, and it has no field {key!r}",
                    f"Put the mark around it, `{{{key}: ...}}` with {name!r} inside, or at one of its fields",
                )
                return Plain(path, value)
        return Table(path, ((name, self._settings(fields, cls, (*path, name), inner)),))

    def _settings(
        self, value: Mapping[str, Any], cls: type[Value], path: Path, context: _Context
    ) -> Template:
        items = []
        for key, one in value.items():
            inner, place = context.under(key), (*path, key)
            held = holds(cls, key) if key in cls.model_fields else None
            if held is not None and held.each is not None and isinstance(one, list):
                items.append((key, self._row(one, held.each, place, inner)))
            else:
                kind: Kind = "data" if held is None or held.one is None else held.one
                items.append((key, self.walk(one, kind, place, inner)))
        return Table(path, tuple(items))

    def _model(self, value: Any, path: Path, context: _Context) -> Template:
        if not isinstance(value, Mapping):
            return Plain(path, value)
        backend = value.get("backend")
        cls = _class("backend", backend) if isinstance(backend, str) else None
        if cls is None:
            return self._table(value, path, context)
        rest = {key: one for key, one in value.items() if key != "backend"}
        settings = self._settings(rest, cls, path, context)
        assert isinstance(settings, Table)
        return Table(path, (("backend", Plain((*path, "backend"), backend)), *settings.items))

    # --- marks -------------------------------------------------------------------------------------

    def _mark(
        self, value: Mapping[str, Any], marks: Sequence[str], kind: Kind, path: Path, context: _Context
    ) -> Template:
        word, before = marks[0], len(self.register.flaws)
        if len(marks) > 1:
            both = " and ".join(f"`{mark}`" for mark in marks)
            self.flaw(path, f"{both} stand in one mark", "Put one inside the other, or keep one of them")
        for key in value:
            if key not in (*marks, *KEYS[word]):
                valid = KEYS[word]
                found = hint(key, valid) if valid else f"Nothing may stand beside `{word}`."
                self.flaw((*path, key), f"{shown(key)} stands beside `{word}`", found)
        name = value.get("name")
        if "name" in KEYS[word] and "name" in value and not (isinstance(name, str) and name.strip()):
            self.flaw((*path, "name"), f"the name of an axis should be text, and is {shown(name)}")
        if len(self.register.flaws) > before:
            return Plain(path, None)
        if word == "verbatim":
            return Plain(path, value["verbatim"])
        read = {"choose": self._choose, "range": self._range, "optional": self._optional, "axis": self._axis}
        return read[word](value, kind, path, context)

    def _slipped(self, value: Mapping[str, Any], meant: tuple[str, str], path: Path) -> Template:
        key, word = meant
        self.flaw(
            (*path, key),
            f"{shown(key)} is no mark",
            f"Did you mean {word!r}? {SLIP_ENDINGS}",
        )
        return Plain(path, dict(value))

    def _choose(self, value: Mapping[str, Any], kind: Kind, path: Path, context: _Context) -> Template:
        given, place = value["choose"], (*path, "choose")
        options: dict[int, tuple[Choice, Any, Path]] = {}
        if isinstance(given, Mapping):
            options = {i: (key, one, (*place, key)) for i, (key, one) in enumerate(given.items())}
        elif isinstance(given, list):
            for i, one in enumerate(given):
                options[i] = (self._option(one, (*place, i)), one, (*place, i))
        else:
            self.flaw(place, f"`choose` takes a list, or alternatives by name, and is {shown(given)}")
            return Plain(path, None)
        if not options:
            self.flaw(place, "`choose` has nothing to choose from", "Give at least one value")
            return Plain(path, None)
        seen: set[tuple[bool, Choice]] = set()
        for option, _, at in options.values():
            if exact(option) in seen:
                self.flaw(
                    at,
                    f"the option {shown(option)} is there twice",
                    "Keep one of them, or give alternatives names: `choose: {name: ..., name: ...}`",
                )
            seen.add(exact(option))
        plain = all(_is_plain(one) for _, one, _ in options.values()) and isinstance(given, list)
        label = ""
        if kind in ("stage", "stages") and not context.here:
            label = fresh_name("choice", context.taken)
            context.taken.add(label)
        names = tuple(dict.fromkeys(option for option, _, _ in options.values()))
        axis = Axis(self._name(value, context, label), "choice", options=names, needs=context.needs)
        self.register.add(axis, path, plain=plain)
        if plain:
            return Picked(path, axis.name)
        alternatives = []
        for option, one, at in options.values():
            inner = context.under(str(option)).given(((axis.name, (option,)),))
            alternatives.append((option, self.walk(one, _body(kind), at, inner)))
        return Either(path, axis.name, tuple(alternatives))

    def _option(self, one: Any, path: Path) -> Choice:
        """What an option of a list goes by."""
        if isinstance(one, float) and not math.isfinite(one):
            self.flaw(path, f"{shown(one)} is no value to choose", "Give a finite number")
        if _is_plain(one):
            return one  # type: ignore[no-any-return]
        if isinstance(one, Mapping) and len(one) == 1 and next(iter(one)) not in KEYS:
            return str(next(iter(one)))
        self.flaw(
            path,
            f"the option {shown(one)} has no name to go by",
            "Give alternatives names: `choose: {name: ..., name: ...}`",
        )
        return f"#{dots(path)}"

    def _range(self, value: Mapping[str, Any], kind: Kind, path: Path, context: _Context) -> Template:
        before = len(self.register.flaws)
        ends, step = value["range"], value.get("step", _MISSING)
        log, integer = value.get("log", False), value.get("integer", False)
        for key, one in (("log", log), ("integer", integer)):
            if not isinstance(one, bool):
                self.flaw((*path, key), f"`{key}` is true or false, and not {shown(one)}")
        if not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_number, ends))):
            self.flaw((*path, "range"), f"`range` takes two numbers, [low, high], and is {shown(ends)}")
            return Plain(path, None)
        low, high = ends
        if low > high:
            self.flaw((*path, "range"), f"`range` goes from {low} to {high}", f"Write [{high}, {low}]")
        if log is True and low <= 0:
            self.flaw((*path, "range"), f"on a log scale a range begins above 0, and this at {low}")
        if step is not _MISSING and not (_is_number(step) and step > 0):
            self.flaw((*path, "step"), f"`step` is a number above 0, and not {shown(step)}")
        elif step is not _MISSING and step > high - low >= 0:
            self.flaw((*path, "step"), f"a step of {step} leads out of the range from {low} to {high}")
        whole = [one for one in (low, high, step) if _is_number(one) and one != int(one)]
        if integer is True and whole:
            self.flaw(path, f"a whole number has whole ends and steps, and not {whole[0]}")
        if len(self.register.flaws) > before:
            return Plain(path, None)
        numbers = int if integer else float
        axis = Axis(
            self._name(value, context, ""),
            "int" if integer else "float",
            low=numbers(low),
            high=numbers(high),
            step=None if step is _MISSING else numbers(step),
            log=log,
            needs=context.needs,
        )
        self.register.add(axis, path)
        return Picked(path, axis.name)

    def _optional(self, value: Mapping[str, Any], kind: Kind, path: Path, context: _Context) -> Template:
        inner, place = value["optional"], (*path, "optional")
        if kind == "pipeline" and len(path) == 1:
            self.flaw(path, "the whole pipeline cannot be left out", "Make stages of it optional")
            return Plain(path, None)
        if "where" in value:
            return self._where(value, inner, kind, path, context)
        if kind in ("stage", "stages"):
            label = "" if context.here else fresh_name(_label(inner), context.taken)
            name = self._name(value, context, label)
        else:
            name = self._name(value, context, "given")
        self.register.add(Axis(name, "choice", options=(False, True), needs=context.needs), path, plain=False)
        needs: Needs = ((name, (True,)),)
        body = self.walk(inner, _body(kind), place, context.given(needs))
        return Perhaps(path, needs, body)

    def _where(
        self, value: Mapping[str, Any], inner: Any, kind: Kind, path: Path, context: _Context
    ) -> Template:
        if "name" in value:
            self.flaw((*path, "name"), "with `where` it is no choice of its own, so it has no name")
        needs = self._needs(value["where"], (*path, "where"))
        body = self.walk(inner, _body(kind), (*path, "optional"), context.given(needs))
        return Perhaps(path, needs, body)

    def _needs(self, given: Any, place: Path) -> Needs:
        """What `where` says; checked when all axes are known."""
        if not isinstance(given, Mapping) or not given:
            self.flaw(place, f"`where` takes axes with their values, and is {shown(given)}")
            return ()
        needs: list[tuple[str, tuple[Choice, ...]]] = []
        for name, wanted in given.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            if not values or not all(map(_is_plain, values)):
                self.flaw(
                    (*place, name), f"`where` takes a value or a list of values, and is {shown(wanted)}"
                )
                continue
            needs.append((name, tuple(values)))
        self.register.condition(tuple(needs), place)
        return tuple(needs)

    def _axis(self, value: Mapping[str, Any], kind: Kind, path: Path, context: _Context) -> Template:
        name = value["axis"]
        if not isinstance(name, str):
            self.flaw((*path, "axis"), f"`axis` takes the name of an axis, and is {shown(name)}")
            return Plain(path, None)
        self.register.repeat(name, (*path, "axis"), context.needs)
        return Picked(path, name)

    def _name(self, value: Mapping[str, Any], context: _Context, label: str) -> str:
        """What an axis goes by: what its mark says, or its place."""
        if "name" in value:
            return str(value["name"])
        return self.register.fresh((*context.labels, *([label] if label else [])))


def _body(kind: Kind) -> Kind:
    """What an alternative is, where a mark stands for something of this kind."""
    return "stages" if kind == "stage" else kind


def _own(kind: Kind, key: str) -> bool:
    """Whether the settings that stand here have a field of that name."""
    return isinstance(kind, type) and key in kind.model_fields


def _class(kind: str, name: str) -> type[Value] | None:
    try:
        found = registry.find(kind, name)
    except ArchonError:
        return None
    return found if isinstance(found, type) and issubclass(found, Value) else None


def _label(value: Any) -> str:
    """What a stage, or stages, go by in names of axes."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "+".join(_label(one) for one in value[:3]) or "nothing"
    if isinstance(value, Mapping) and value:
        return "+".join(map(str, list(value)[:3]))
    return "stage"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
