"""What is paid for: how many fresh calls a configuration would take, given those that were evaluated before.

Pools of samples grow (D5): after n = 16 has been sampled, n = 8 is there, and n = 20 takes four more. So what a stage
was evaluated for is known by everything of it and of what comes before it, but how many; and a configuration's price is
the calls that go beyond the most there were. It is an upper bound of calls per problem, and asks nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from archon.backends.base import canonical
from archon.config.build import fields_of
from archon.graph import Graph
from archon.search.constraints import Bound

_COUNT = "n"
"""The field of a source that says how many."""
_UNBOUNDED = 10**6


class Paid:
    """The calls that were paid for, by what they were for."""

    def __init__(self) -> None:
        self._calls: dict[str, int] = {}

    def note(self, graph: Graph, bounds: Mapping[str, Bound]) -> None:
        """A configuration that is evaluated."""
        for key, calls in _needed(graph, bounds).items():
            self._calls[key] = max(self._calls.get(key, 0), calls)

    def price(self, graph: Graph, bounds: Mapping[str, Bound]) -> float:
        """Calls per problem that it would take anew, at most."""
        return float(
            sum(max(0, calls - self._calls.get(key, 0)) for key, calls in _needed(graph, bounds).items())
        )


def _needed(graph: Graph, bounds: Mapping[str, Bound]) -> dict[str, int]:
    """By what they are for, the calls of each stage at most."""
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
    return found
