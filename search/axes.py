"""What may be chosen: axes, which of them matter under which choices, and configurations.

An axis is one open choice of a search space: one of several options, a whole number, or a real one. An axis inside an
alternative matters only where that alternative is chosen, so a configuration has values for the axes that matter, and
for no others: two configurations that build the same pipeline are one. Everything here is a value.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from archon.backends.base import canonical
from archon.errors import UserError
from archon.suggest import hint

Choice: TypeAlias = str | int | float | bool | None
"""A value of an axis."""
Kind = Literal["choice", "int", "float"]


@dataclass(frozen=True)
class Axis:
    """One open choice."""

    name: str
    kind: Kind
    options: tuple[Choice, ...] = ()
    """Of a choice: its values, or the names of its alternatives."""
    low: float = 0
    high: float = 0
    """Of a number: both ends count."""
    step: float | None = None
    """Between the values of a number; a real one has none where it is continuous."""
    log: bool = False
    """Whether its factors matter, not its differences."""
    needs: tuple[tuple[str, tuple[Choice, ...]], ...] = ()
    """It matters where each of these axes, which come before it, matters and has one of these values."""

    @cached_property
    def values(self) -> tuple[Choice, ...] | None:
        """All its values in order; None where it is continuous, or has more than 10,000."""
        if self.kind == "choice":
            return self.options
        step = self.step or (1 if self.kind == "int" else None)
        if step is None or self._steps > 10_000:
            return None
        found = [self._at(number) for number in range(self._steps)]
        return tuple(found)

    @property
    def _steps(self) -> int:
        step = self.step or 1
        return math.floor((self.high - self.low) / step + 1e-9) + 1

    def _at(self, number: int) -> Choice:
        value = self.low + number * (self.step or 1)
        return round(value) if self.kind == "int" else self._short(value)

    def _short(self, value: float) -> float:
        """With 12 digits, and not beyond the ends by that."""
        return min(max(float(f"{value:.12g}"), self.low), self.high)

    def draw(self, rng: np.random.Generator) -> Choice:
        """A value at random: every option alike, numbers evenly, or evenly in their logarithm."""
        if self.kind == "choice":
            return self.options[int(rng.integers(len(self.options)))]
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = float(rng.uniform(self.low, self.high))
        step = self.step or (1 if self.kind == "int" else None)
        if step is not None and not self.log:
            return self._at(int(rng.integers(self._steps)))
        return self.nearest(value)

    def nearest(self, value: float) -> Choice:
        """Of a number: its value that is nearest to this one."""
        step = self.step or (1 if self.kind == "int" else None)
        if step is None:
            return self._short(value)
        return self._at(min(self._steps - 1, max(0, round((value - self.low) / step))))

    def holds(self, value: Choice) -> bool:
        """Whether this is one of its values."""
        if self.kind == "choice":
            return any(value == option and type(value) is type(option) for option in self.options)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        if self.kind == "int" and value != int(value):
            return False
        if not self.low <= value <= self.high:
            return False
        step = self.step or (1 if self.kind == "int" else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-6


class Configuration(Mapping[str, Choice]):
    """One choice for every axis that matters, in the order of the axes."""

    def __init__(self, values: Mapping[str, Choice]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Choice:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self.key == other.key

    def __repr__(self) -> str:
        return f"Configuration({self._values})"

    @cached_property
    def key(self) -> str:
        """It as a short hash: the same in every process."""
        return hashlib.sha256(canonical(self._values).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def as_json(self) -> dict[str, Choice]:
        """A dictionary for JSON."""
        return dict(self._values)


class Space(Protocol):
    """What proposers need to know of a search space."""

    @property
    def axes(self) -> Axes:
        """The open choices."""
        ...

    def refusal(self, configuration: Configuration) -> str | None:
        """Why this configuration is never run, known before anything is spent: it is no valid pipeline, or over the
        budget; None where it may be run."""
        ...


class Axes(Sequence[Axis]):
    """The axes of a space; what an axis needs comes before it."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        """Raises UserError where two have one name, one has no values, or one needs what does not come before it."""
        self._axes = tuple(axes)
        known: dict[str, Axis] = {}
        for axis in self._axes:
            if axis.name in known:
                raise UserError(f"two axes are named {axis.name!r}; name one of them (`name:`)")
            _check(axis)
            for name, values in axis.needs:
                if name not in known:
                    raise UserError(f"axis {axis.name!r} needs {name!r}, which does not come before it")
                wrong = [value for value in values if not known[name].holds(value)]
                if wrong or not values:
                    raise UserError(
                        f"axis {axis.name!r} needs {name!r} to be {wrong or values}, which it cannot be"
                    )
            known[axis.name] = axis
        self.by_name: Mapping[str, Axis] = known

    def __getitem__(self, place: Any) -> Any:
        return self._axes[place]

    def __len__(self) -> int:
        return len(self._axes)

    def matters(self, axis: Axis, values: Mapping[str, Choice]) -> bool:
        """Whether an axis matters, given the values of those before it that do."""
        return all(
            name in values and exact(values[name]) in map(exact, wanted) for name, wanted in axis.needs
        )

    def configuration(self, values: Mapping[str, Choice]) -> Configuration:
        """These values, of the axes that matter. Raises UserError where one has none, has one that is not its own, or
        does not exist."""
        for name in values:
            if name not in self.by_name:
                raise UserError(f"there is no axis {name!r}. {hint(name, self.by_name)}")
        found: dict[str, Choice] = {}
        for axis in self._axes:
            if not self.matters(axis, found):
                continue
            if axis.name not in values:
                raise UserError(f"axis {axis.name!r} has no value, and matters under these choices")
            value = values[axis.name]
            if not axis.holds(value):
                raise UserError(f"axis {axis.name!r} cannot be {value!r}; it is {described(axis)}")
            number = {"int": int, "float": float}.get(axis.kind)
            found[axis.name] = value if number is None else number(value)
        return Configuration(found)

    def draw(self, rng: np.random.Generator) -> Configuration:
        """A configuration at random: axis by axis, each evenly."""
        found: dict[str, Choice] = {}
        for axis in self._axes:
            if self.matters(axis, found):
                found[axis.name] = axis.draw(rng)
        return Configuration(found)

    @property
    def size(self) -> int | None:
        """How many configurations there are; None where an axis is continuous."""
        if any(axis.values is None for axis in self._axes):
            return None
        return (
            sum(1 for _ in self.every())
            if any(axis.needs for axis in self._axes)
            else math.prod(len(axis.values or ()) for axis in self._axes)
        )

    def every(self) -> Iterator[Configuration]:
        """All configurations, the last axis fastest. Raises UserError where an axis is continuous."""
        for axis in self._axes:
            if axis.values is None:
                raise UserError(
                    f"axis {axis.name!r} is continuous, so not every configuration can be tried; give a `step`"
                )
        return map(Configuration, self._every(0, {}))

    def _every(self, place: int, values: dict[str, Choice]) -> Iterator[dict[str, Choice]]:
        if place == len(self._axes):
            yield values
            return
        axis = self._axes[place]
        if not self.matters(axis, values):
            yield from self._every(place + 1, values)
            return
        for value in axis.values or ():
            yield from self._every(place + 1, {**values, axis.name: value})

    def neighbours(self, configuration: Configuration, rng: np.random.Generator) -> Iterator[Configuration]:
        """Those that differ in one choice; axes that begin to matter by it are drawn at random."""
        for axis in self._axes:
            if axis.name not in configuration:
                continue
            values = axis.values or tuple(axis.draw(rng) for _ in range(8))
            for value in values:
                if value == configuration[axis.name]:
                    continue
                found: dict[str, Choice] = {}
                for other in self._axes:
                    if self.matters(other, found):
                        kept = (
                            configuration.get(other.name) if other.name in configuration else other.draw(rng)
                        )
                        found[other.name] = value if other is axis else kept
                yield Configuration(found)


def exact(value: Choice) -> tuple[bool, Choice]:
    """What tells two values apart: `true` is not 1, and 1 is 1.0."""
    return isinstance(value, bool), value


def described(axis: Axis) -> str:
    """What it may be, in words."""
    if axis.kind == "choice":
        return "one of " + ", ".join(map(repr, itertools.islice(axis.options, 20)))
    step = f" in steps of {axis.step:g}" if axis.step else ""
    return (
        f"{'a whole number' if axis.kind == 'int' else 'a number'} from {axis.low:g} to {axis.high:g}{step}"
    )


def _check(axis: Axis) -> None:
    where = f"axis {axis.name!r}"
    if axis.kind == "choice":
        if not axis.options:
            raise UserError(f"{where} has nothing to choose from")
        if len({(type(o), o) for o in axis.options}) < len(axis.options):
            raise UserError(f"{where} has an option twice")
        return
    if not (math.isfinite(axis.low) and math.isfinite(axis.high)) or axis.low > axis.high:
        raise UserError(
            f"{where} goes from {axis.low:g} to {axis.high:g}; its ends should be numbers in order"
        )
    if axis.log and axis.low <= 0:
        raise UserError(f"{where} is on a log scale and begins at {axis.low:g}; it should begin above 0")
    if axis.step is not None and axis.step <= 0:
        raise UserError(f"{where} has steps of {axis.step:g}; they should be above 0")
    if axis.kind == "int" and any(x != int(x) for x in (axis.low, axis.high, axis.step or 1)):
        raise UserError(f"{where} is a whole number, and so should be its ends and its step")
