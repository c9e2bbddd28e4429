"""The axes that the marks of a file make: their names, what they need, and their order. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archon.config.lines import Path
from archon.config.source import Source, shown
from archon.errors import ConfigError, Flaw
from archon.pipeline import fresh_name
from archon.search.axes import Axes, Axis, Choice, described, exact
from archon.search.templates import Needs
from archon.suggest import hint


class Register:
    """Axes as they are found, and everything that is wrong."""

    def __init__(self, source: Source) -> None:
        self.flaws: list[Flaw] = []
        self._source = source
        self._axes: dict[str, Axis] = {}
        self._at: dict[str, Path] = {}
        self._plain: dict[str, bool] = {}
        self._repeats: list[tuple[str, Path, Needs]] = []
        self._conditions: list[tuple[Needs, Path]] = []
        self._declared: dict[str, Path] = {}

    def flaw(self, path: Path, what: str, hint: str = "") -> None:
        """Note a mistake at a path of the file."""
        self.flaws.append(Flaw(self._source.where(path), what, hint))

    def fresh(self, labels: Sequence[str]) -> str:
        """A name that no axis has yet, from the labels of its place."""
        text = ""
        for label in labels:
            text += label if label.startswith("[") else f".{label}" if text else label
        return fresh_name(text or "choice", set(self._axes))

    def add(self, axis: Axis, path: Path, *, plain: bool = True) -> None:
        """An axis whose mark stands at a path; not `plain`: it chooses among alternatives, which are no values."""
        if axis.name in self._axes:
            self.flaw(
                (*path, "name"),
                f"another axis is named {axis.name!r} ({self._source.where(self._at[axis.name])})",
                f"Take another name; for the same choice once more write `{{axis: {axis.name}}}`",
            )
        self._axes[axis.name] = axis
        self._at[axis.name] = path
        self._plain[axis.name] = plain

    def declare(self, name: str, path: Path) -> None:
        """That an axis was declared beside the pipeline, so that something has to go by it."""
        if not self._plain.get(name, True):
            self.flaw(path, "an axis beside the pipeline takes plain values", "Write a list of them")
        self._declared[name] = path

    def repeat(self, name: str, path: Path, needs: Needs) -> None:
        """That the value of an axis is used once more, in a place that is there under these needs."""
        self._repeats.append((name, path, needs))

    def condition(self, needs: Needs, path: Path) -> None:
        """That something goes by the values of axes (`where`)."""
        self._conditions.append((needs, path))

    def finish(self) -> Axes:
        """All axes in order. Raises ConfigError with every flaw."""
        for needs, place in self._conditions:
            for name, wanted in needs:
                self._check_condition(name, wanted, place)
        for name, path, needs in self._repeats:
            self._check_repeat(name, path, needs)
        used = {name for name, _, _ in self._repeats}
        used |= {name for needs, _ in self._conditions for name, _ in needs}
        for name, path in self._declared.items():
            if name not in used:
                what = f"nothing goes by axis {name!r}"
                self.flaw(path, what, f"Use it as `{{axis: {name}}}` or in a `where`, or leave it out")
        ordered = [] if self.flaws else self._ordered()
        if self.flaws:
            raise ConfigError(self.flaws)
        return Axes(ordered)

    def _check_condition(self, name: str, wanted: tuple[Choice, ...], place: Path) -> None:
        axis = self._axes.get(name)
        if axis is None:
            self.flaw((*place, name), f"there is no axis {name!r}", hint(name, self._axes))
            return
        for one in wanted:
            if not axis.holds(one):
                self.flaw((*place, name), f"axis {name!r} is never {shown(one)}", f"It is {described(axis)}")

    def _check_repeat(self, name: str, path: Path, needs: Needs) -> None:
        axis = self._axes.get(name)
        if axis is None:
            self.flaw(path, f"there is no axis {name!r}", hint(name, self._axes))
            return
        if not self._plain[name]:
            next_step = "Write `{optional: ..., where: {" + name + ": [...]}}` for what goes with one of them"
            self.flaw(path, f"axis {name!r} chooses among alternatives, which are no values", next_step)
            return
        known = merged(needs)
        for other, values in merged(axis.needs).items():
            if not (other in known and set(map(exact, known[other])) <= set(map(exact, values))):
                wanted = " or ".join(map(repr, values))
                self.flaw(
                    path,
                    f"axis {name!r} has a value only where {other!r} is {wanted}, and here it need not be",
                    "Choose it where both see it, or make a choice of its own here",
                )

    def _ordered(self) -> list[Axis]:
        """Each after what it needs, otherwise as they stand."""
        for axis in self._axes.values():
            for name, values in merged(axis.needs).items():
                if not values:
                    what = f"it is never there: {name!r} would have two values at once"
                    self.flaw(self._at[axis.name], what, "Leave it out")
        waiting, placed = dict(self._axes), dict[str, Axis]()
        while waiting:
            ready = next((a for a in waiting.values() if all(n in placed for n, _ in a.needs)), None)
            if ready is None:
                name, loop = next(iter(waiting)), ", ".join(map(repr, waiting))
                self.flaw(self._at[name], f"these axes wait for one another: {loop}", "Mend one `where`")
                break
            placed[ready.name] = replace(ready, needs=tuple(merged(ready.needs).items()))
            del waiting[ready.name]
        return list(placed.values())


def merged(needs: Needs) -> dict[str, tuple[Choice, ...]]:
    """Each axis once, with the values that all its needs allow."""
    found: dict[str, tuple[Choice, ...]] = {}
    for name, values in needs:
        allowed = set(map(exact, values))
        found[name] = tuple(v for v in found[name] if exact(v) in allowed) if name in found else values
    return found
