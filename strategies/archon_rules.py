"""Archon's rules for putting components into layers, declared and checked.

Source: Saad-Falcon et al. 2024, "Archon: An Architecture Search Framework for Inference-Time Techniques"
(arXiv 2409.15254), section 3.2 and table 4. There a stack is a list of layers, and each layer takes what the whole
layer before it gave. Here stages form any graph, and candidates carry their critiques and verdicts with them, so
most of what the rules forbid works all the same. They are therefore checked where a pipeline is such a stack: of
Archon's components alone, in layers. `strict: false` on a component relaxes them at its place. That nothing but a
generator can come first is a rule of every pipeline (`takes`), and what a stage cannot do without is in its
`requires`. Cost: none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from archon.errors import Flaw
from archon.stage import Stage

if TYPE_CHECKING:
    from archon.graph import Graph, Place

Role = Literal["generator", "ranker", "fuser", "critic", "verifier", "test writer", "test evaluator"]

ROLES: Final[dict[str, Role]] = {
    "sample": "generator",
    "test_first": "generator",
    "rank": "ranker",
    "fuse": "fuser",
    "critique": "critic",
    "judge_verify": "verifier",
    "write_tests": "test writer",
    "test_evaluate": "test evaluator",
}
"""What each of the paper's components is called here; `test_first` writes its tests before it generates."""
_ALONE = frozenset({"ranker", "critic", "verifier", "test writer", "test evaluator"})

Rule = Literal[
    "one type per layer",
    "alone in its layer",
    "generators in the first layer",
    "a critic before a ranker or fuser",
    "tests written, then evaluated",
]


class Violation(NamedTuple):
    """One rule that a graph breaks: where, how, and what to do."""

    rule: Rule
    where: str
    what: str
    next_step: str


class ArchonComponent(Stage):
    """What Archon's components have in common."""

    strict: bool = True
    """Whether the paper's rules are checked at its place (archon/strategies/archon_rules.py)."""

    def misplaced(self, graph: Graph, path: str) -> Iterable[Flaw]:
        """The rules that are broken here, in a stack of Archon's components."""
        if not self.strict or not is_stack(graph):
            return
        for broken in violations(graph):
            if broken.where == path:
                yield Flaw(
                    path,
                    f"Archon's rule {broken.rule!r}: {broken.what}",
                    f"{broken.next_step}; or set `strict: false` here",
                )


def is_stack(graph: Graph) -> bool:
    """Whether a graph is what the rules speak of: Archon's components alone, each after the whole layer before."""
    layers = layers_of(graph)
    return all(
        place.stage.name in ROLES
        and (not number or set(place.before) == {p.path for p in layers[number - 1]})
        for number, layer in enumerate(layers)
        for place in layer
    )


def layers_of(graph: Graph) -> list[list[Place]]:
    """The stages by how many others come before them, at most, on any way."""
    depth: dict[str, int] = {}
    layers: list[list[Place]] = []
    for path, place in graph.places.items():
        depth[path] = 1 + max((depth[b] for b in place.before), default=-1)
        if depth[path] == len(layers):
            layers.append([])
        layers[depth[path]].append(place)
    return layers


def violations(graph: Graph) -> list[Violation]:
    """Every rule that the Archon components of a graph break, whatever their `strict` says."""
    layers = [[p for p in layer if p.stage.name in ROLES] for layer in layers_of(graph)]
    broken = [*_by_layer(layers), *_late_generators(graph, layers), *_by_order(graph)]
    return sorted(broken, key=lambda violation: graph.order[violation.where])


def _role(place: Place) -> Role:
    return ROLES[place.stage.name]


def _by_layer(layers: list[list[Place]]) -> Iterator[Violation]:
    for layer in layers:
        for place in layer[1:]:
            first, role = layer[0], _role(place)
            if role != _role(first):
                yield Violation(
                    "one type per layer",
                    place.path,
                    f"a {role} stands beside {first.path!r}, a {_role(first)}",
                    f"Put it in a layer of its own, after {first.path!r} or before it",
                )
            elif role in _ALONE:
                yield Violation(
                    "alone in its layer",
                    place.path,
                    f"a {role} stands beside another, {first.path!r}",
                    f"Keep one of them, or put it after {first.path!r}",
                )


def _late_generators(graph: Graph, layers: list[list[Place]]) -> Iterator[Violation]:
    """A source has nothing before it, so a late one shows in where its candidates go."""
    number = {place.path: n for n, layer in enumerate(layers) for place in layer}
    for place in graph.places.values():
        late = [after for after in place.after if number.get(after, 0) > 1]
        if ROLES.get(place.stage.name) == "generator" and late:
            yield Violation(
                "generators in the first layer",
                place.path,
                f"its candidates join at {late[0]!r}, in layer {number[late[0]] + 1}",
                "Let them flow into the second layer",
            )


def _by_order(graph: Graph) -> Iterator[Violation]:
    for path, place in graph.places.items():
        role = ROLES.get(place.stage.name)
        later = {ROLES.get(graph.places[p].stage.name) for p in graph.downstream[path]}
        if role == "critic" and not later & {"ranker", "fuser"}:
            yield Violation(
                "a critic before a ranker or fuser",
                path,
                "no ranker and no fuser comes after it, so nobody reads its critiques",
                "Put `rank` or `fuse` after it, or leave it out",
            )
        elif role == "test writer" and not _any(graph, place.after, "test_evaluate"):
            yield Violation(
                "tests written, then evaluated",
                path,
                "the stage right after it is no test evaluator",
                "Put `test_evaluate` right after it",
            )
        elif role == "test evaluator" and not _any(graph, place.before, "write_tests", "test_first"):
            yield Violation(
                "tests written, then evaluated",
                path,
                "the stage right before it writes no tests",
                "Put `write_tests` right before it",
            )


def _any(graph: Graph, paths: Iterable[str], *names: str) -> bool:
    return any(graph.places[path].stage.name in names for path in paths)
