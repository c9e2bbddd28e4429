"""Pipelines: stages composed into a directed acyclic graph (D1).

`|` chains, `&` puts branches side by side, and a pipeline nests like a stage. Its structure is checked
when it is built (names, cycles); whether it makes sense as a whole (what every stage needs is there,
nothing is left unconnected) when it is compiled into a `Graph` by `run`, `validate` or `show`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

from archon.component import Nested, Value
from archon.errors import ConfigError, Flaw
from archon.stage import Composable, Plan, Stage
from archon.suggest import hint

if TYPE_CHECKING:
    from pathlib import Path

    from archon.backends.base import Backend, Model
    from archon.budget import Budget
    from archon.candidate import Outcome
    from archon.graph import Graph
    from archon.problem import Problem
    from archon.store import Store


class Node(NamedTuple):
    """A place in a pipeline: a name, what stands there, and the names it comes after."""

    name: str
    stage: Stage | Pipeline
    after: tuple[str, ...] = ()


class Pipeline(Composable):
    """An immutable graph of stages. Any number of problems may run through one object at once.

    Raises ConfigError with everything that is wrong: no nodes, names that clash or are unknown, cycles.
    """

    __slots__ = ("nodes",)
    nodes: tuple[Node, ...]

    def __init__(self, nodes: Iterable[Node | Stage | Pipeline]) -> None:
        placed = tuple(n if isinstance(n, Node) else Node(_name(n), n) for n in nodes)
        object.__setattr__(self, "nodes", placed)
        flaws = list(_flaws(placed))
        if flaws:
            raise ConfigError(flaws)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Pipeline is immutable; compose a new one with | and &")

    def __eq__(self, other: object) -> bool:
        return self.nodes == other.nodes if isinstance(other, Pipeline) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple((n.name, n.after) for n in self.nodes))

    def __deepcopy__(self, memo: object) -> Pipeline:
        return self

    def __repr__(self) -> str:
        parts = []
        previous: tuple[str, ...] = ()
        for node in self.nodes:
            after = "" if node.after == previous else f" after ({', '.join(map(repr, node.after))})"
            parts.append(f"{node.name}={node.stage!r}{after}")
            previous = (node.name,)
        return f"Pipeline({', '.join(parts)})"

    @property
    def sources(self) -> tuple[Node, ...]:
        """Nodes that come after nothing."""
        return tuple(n for n in self.nodes if not n.after)

    @property
    def sinks(self) -> tuple[Node, ...]:
        """Nodes that nothing comes after."""
        used = {name for n in self.nodes for name in n.after}
        return tuple(n for n in self.nodes if n.name not in used)

    def graph(self) -> Graph:
        """Compile: nested pipelines are laid flat, and the whole is checked. Raises ConfigError."""
        from archon.graph import Graph

        return Graph(self)

    def plan(self) -> Plan:
        """Model calls for one problem, and candidates that leave it: exact, or bounds. Raises ConfigError."""
        return self.graph().total

    async def run(
        self,
        problem: Problem | str,
        *,
        models: Mapping[str, Model | Backend] | Model | None = None,
        budget: Budget | None = None,
        store: Store | str | Path | None = None,
        seed: int | None = None,
    ) -> Outcome:
        """Run one problem through this pipeline and return the outcome.

        `models` maps the names that stages use to models (a single model serves every name). `budget`
        limits this problem. `store` is a store or a path; without one, nothing is kept. For many
        problems, open a `Session` once and call its `solve`.

        Raises ConfigError, UserErrors of the models, AllCandidatesFailed.
        """
        from archon.budget import Budgets
        from archon.problem import Problem
        from archon.session import Session

        asked = Problem.ask(problem) if isinstance(problem, str) else problem
        budgets = Budgets() if budget is None else Budgets(problem=budget)
        async with Session(models=models, budget=budgets, store=store, seed=seed) as session:
            return await session.solve(self, asked)


AnyPipeline: TypeAlias = Annotated[Pipeline, Nested("pipeline")]
"""The type of a field that holds a pipeline, which its stage solves with (`Run.solve`)."""


def pipelines_in(value: Any, path: str = "") -> Iterator[tuple[str, Pipeline]]:
    """The pipelines that a component holds in its fields, with their paths (`solver`, `solvers/0`)."""
    if isinstance(value, Pipeline):
        yield path, value
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Value):
        inner = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, tuple | list):
        inner = enumerate(value)
    for name, one in inner:
        yield from pipelines_in(one, f"{path}/{name}" if path else str(name))


def chain(first: Stage | Pipeline, then: Stage | Pipeline) -> Pipeline:
    """`first | then`: what comes out of the first's ends flows into the second's beginnings."""
    left, right = _nodes(first), _beside(_nodes(first), _nodes(then))
    ends = tuple(n.name for n in _sinks(left))
    return Pipeline((*left, *(n if n.after else n._replace(after=ends) for n in right)))


def beside(one: Stage | Pipeline, other: Stage | Pipeline) -> Pipeline:
    """`one & other`: both, side by side."""
    left = _nodes(one)
    return Pipeline((*left, *_beside(left, _nodes(other))))


def _name(stage: Stage | Pipeline) -> str:
    return stage.name if isinstance(stage, Stage) else "pipeline"


def _nodes(part: Stage | Pipeline) -> tuple[Node, ...]:
    return part.nodes if isinstance(part, Pipeline) else (Node(_name(part), part),)


def _sinks(nodes: tuple[Node, ...]) -> list[Node]:
    used = {name for n in nodes for name in n.after}
    return [n for n in nodes if n.name not in used]


def _beside(taken: tuple[Node, ...], nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes renamed where their names are taken: `verify` becomes `verify-2`."""
    names = {n.name for n in taken}
    renamed: dict[str, str] = {}
    for node in nodes:
        renamed[node.name] = fresh_name(node.name, names)
        names.add(renamed[node.name])
    return tuple(Node(renamed[n.name], n.stage, tuple(renamed[name] for name in n.after)) for n in nodes)


def fresh_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or `wanted-2`, `wanted-3`, ... where it is taken."""
    if wanted not in taken:
        return wanted
    stem, _, number = wanted.rpartition("-")
    if not (stem and number.isdigit()):
        stem = wanted
    count = 2
    while f"{stem}-{count}" in taken:
        count += 1
    return f"{stem}-{count}"


def _flaws(nodes: tuple[Node, ...]) -> Iterable[Flaw]:
    if not nodes:
        yield Flaw("pipeline", "it has no stages", "A pipeline needs at least one")
        return
    counts = Counter(n.name for n in nodes)
    for name, count in counts.items():
        if count > 1:
            yield Flaw(name, f"{count} stages have this name", "Give each its own")
        if not name or "/" in name or "#" in name:
            yield Flaw(
                name or "pipeline",
                f"{name!r} cannot name a stage",
                "Leave out '/' and '#', and do not leave it empty",
            )
    unknown = False
    for node in nodes:
        for before in node.after:
            if before not in counts:
                unknown = True
                yield Flaw(
                    node.name, f"`after` names {before!r}, which is no stage here", hint(before, counts)
                )
        if len(set(node.after)) < len(node.after):
            yield Flaw(node.name, "`after` names a stage twice", "Name each once")
    if not unknown:
        yield from _cycles(nodes)


def _cycles(nodes: tuple[Node, ...]) -> Iterable[Flaw]:
    import networkx as nx

    graph = nx.DiGraph([(before, n.name) for n in nodes for before in n.after])
    try:
        cycle = [edge[0] for edge in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return
    loop = " -> ".join([*cycle, cycle[0]])
    yield Flaw(
        cycle[0],
        f"the stages run in a circle: {loop}",
        "Candidates can only flow forward; remove one `after`",
    )
