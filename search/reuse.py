"""What is paid for: how many fresh calls a configuration would take, given those that were evaluated before.

Pools of samples grow (D5): after n = 16 has been sampled, n = 8 is there, and n = 20 takes four more. So what a stage
was evaluated for is known by everything of it and of what comes before it, but how many; and a configuration's price is
the calls that go beyond the most there were. It is an upper bound of calls per problem, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from archon.backends.base import canonical
from archon.config.build import fields_of
from archon.graph import Graph
from archon.search.axes import Configuration
from archon.search.constraints import Bound
from archon.search.space import SearchSpace

_COUNT = "n"
"""The field of a source that says how many."""
_UNBOUNDED = 10**6
_REMEMBERED = 20_000
Needed: TypeAlias = tuple[tuple[str, int], ...]
"""What calls are for, and how many at most."""


class Paid:
    """The calls that were paid for, by what they were for."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}
        self.noted = 0
        """How often something was."""

    def note(self, needs: Needed) -> None:
        """Something is evaluated that needs these."""
        for key, calls in needs:
            self._calls[key] = max(self._calls.get(key, 0), calls)
        self.noted += 1

    def price(self, needs: Needed) -> float:
        """Calls per problem that something which needs these would take anew, at most."""
        return float(sum(max(0, calls - self._calls.get(key, 0)) for key, calls in needs))


class Needs:
    """What the configurations of a space need, each worked out once."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._known: dict[str, Needed] = {}

    def __call__(self, configuration: Configuration) -> Needed:
        """See `needed`. Raises ConfigError where it does not build."""
        key = configuration.key
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = needed(self._space.graph(configuration), self._space.bounds(configuration))
        return self._known[key]


class Prices:
    """What configurations would cost now."""

    def __init__(self, needs: Needs, paid: Paid) -> None:
        self._needs = needs
        self._paid = paid
        self._now: dict[Needed, float] = {}
        """Many need the same, and cost the same until more is paid for."""
        self._at = -1

    def __call__(self, configuration: Configuration) -> float:
        """Calls per problem anew, at most. Raises ConfigError where it does not build."""
        needs = self._needs(configuration)
        if self._at != self._paid.noted:
            self._at = self._paid.noted
            self._now.clear()
        if needs not in self._now:
            self._now[needs] = self._paid.price(needs)
        return self._now[needs]


def needed(graph: Graph, bounds: Mapping[str, Bound]) -> Needed:
    """The calls of each stage of a pipeline."""
    told: dict[str, str] = {}
    found: dict[str, int] = {}
    for path in sorted(graph.places, key=lambda path: graph.order[path]):
        place = graph.places[path]
        fields = {key: value for key, value in fields_of(place.stage).items() if key != _COUNT}
        told[path] = canonical([place.stage.name, fields, [told[before] for before in place.before]])
        bound = bounds.get(path)
        calls = None if bound is None else bound.calls
        if calls != 0:
            found[told[path]] = max(found.get(told[path], 0), _UNBOUNDED if calls is None else calls)
    return tuple(found.items())
