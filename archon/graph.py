"""A pipeline compiled for running: nested pipelines laid flat, every rule checked, every count bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import networkx as nx

from archon.errors import ConfigError, Flaw
from archon.pipeline import Pipeline, fresh_name, pipelines_in
from archon.stage import NONE, Count, Fact, Plan, Stage

_WHO_GIVES: dict[Fact, str] = {
    "candidates": "`sample`",
    "verdicts": "`verify`",
    "scores": "`verify`",
    "tests": "`write_tests`",
}


class Place(NamedTuple):
    """One stage in its place: its path, the paths before and after it, its number in running order."""

    path: str
    stage: Stage
    before: tuple[str, ...]
    after: tuple[str, ...]
    number: int


class Graph:
    """The flat, checked graph of a pipeline. Raises ConfigError with everything that is wrong."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        graph: nx.DiGraph = nx.DiGraph()
        stages: dict[str, Stage] = {}
        for path, stage, before in _flat(pipeline):
            stages[path] = stage
            graph.add_node(path)
            graph.add_edges_from((b, path) for b in before)
        born = {path: i for i, path in enumerate(stages)}
        order = list(nx.lexicographical_topological_sort(graph, key=born.__getitem__))
        self.places: dict[str, Place] = {
            path: Place(
                path,
                stages[path],
                tuple(sorted(graph.predecessors(path), key=born.__getitem__)),
                tuple(sorted(graph.successors(path), key=born.__getitem__)),
                number,
            )
            for number, path in enumerate(order)
        }
        self.order: dict[str, int] = {path: number for number, path in enumerate(order)}
        self.downstream: dict[str, frozenset[str]] = {p: frozenset(nx.descendants(graph, p)) for p in order}
        self.upstream: dict[str, frozenset[str]] = {p: frozenset(nx.ancestors(graph, p)) for p in order}
        self.titles: dict[str, str] = {}
        """What the verdicts of each verifying stage go by: of two of one name on one candidate, one would be
        forgotten."""
        for path in order:
            if (name := stages[path].title) is not None:
                met = {t for p, t in self.titles.items() if self._meet(p, path)}
                self.titles[path] = fresh_name(name, met)
        self.inner: dict[str, dict[str, Graph]] = {}
        """The pipelines that stages solve with, compiled: by the stage's path, then by their field."""
        flaws = [*self._compile_inner(), *self._flaws()]
        if flaws:
            raise ConfigError(flaws)

    @property
    def sinks(self) -> list[Place]:
        """Where candidates leave the pipeline."""
        return [p for p in self.places.values() if not p.after]

    @property
    def ranks(self) -> bool:
        """Whether what leaves the pipeline comes best first."""
        return len(self.sinks) == 1 and self.sinks[0].stage.ranks

    @property
    def stages(self) -> Iterator[Stage]:
        """Every stage, those included that stages solve with."""
        for place in self.places.values():
            yield place.stage
            for graph in self.inner.get(place.path, {}).values():
                yield from graph.stages

    @property
    def models(self) -> dict[str, list[str]]:
        """Names of the models that stages call, with the stages that call them; those that a stage solves with
        go by its path and its field's name."""
        named: dict[str, list[str]] = {}
        for place in self.places.values():
            for model in dict.fromkeys(place.stage.models):
                named.setdefault(model, []).append(place.path)
            for field, graph in self.inner.get(place.path, {}).items():
                for model, paths in graph.models.items():
                    named.setdefault(model, []).extend(f"{place.path}/{field}/{path}" for path in paths)
        return named

    def may_stop_early(self, path: str) -> bool:
        """Whether some later stage may close its input before the end."""
        return any(self.places[p].stage.stops_early for p in self.downstream[path])

    def share_ancestor(self, branches: Iterable[str]) -> bool:
        """Whether two of these branches come from one stage, so that the same candidate arrives by both."""
        lines = [self.upstream[branch] | {branch} for branch in branches]
        return sum(map(len, lines)) > len(frozenset().union(*lines))

    def whose_score(self, stage: Stage, among: Iterable[str]) -> str:
        """What is wrong where a stage that goes by a score (its field `by` says whose) names none, and the
        verifiers among these stages may have given one candidate several; empty where nothing is."""
        if "scores" not in stage.requires or getattr(stage, "by", "") is not None:
            return ""
        return self.rivals(stage, among)

    def rivals(self, stage: Stage, among: Iterable[str]) -> str:
        """The same of a stage that goes by a score for certain, and does not name whose."""
        among = frozenset(among)
        judges = [path for path in self.titles if path in among]
        rivals = {
            self.titles[path]: None for pair in combinations(judges, 2) if self._meet(*pair) for path in pair
        }
        if not rivals:
            return ""
        names = ", ".join(map(repr, rivals))
        return f"{stage.name!r} goes by a score, and several verifiers give one: {names}; `by` says whose"

    def _meet(self, earlier: str, later: str) -> bool:
        """Whether both stages may see the same candidate."""
        return earlier in self.upstream[later] or bool(self.upstream[earlier] & self.upstream[later])

    def plan(self) -> dict[str, Plan]:
        """Model calls and candidates per stage, for one problem: exact, or bounds."""
        plans: dict[str, Plan] = {}
        for place in self.places.values():
            plan = place.stage.plan(self._met(place.before, plans))
            if self.may_stop_early(place.path):  # it may be cut short once something has been seen
                plan = Plan(_at_least_one(plan.calls), _at_least_one(plan.passes))
            plans[place.path] = plan
        return plans

    def incoming(self, path: str) -> Count:
        """Candidates that may flow into a stage."""
        return self._met(self.places[path].before, self.plan())

    @property
    def total(self) -> Plan:
        """Model calls for one problem, and candidates that leave the pipeline: exact, or bounds."""
        plans = self.plan()
        calls: Count = reduce(Count.plus, (plan.calls for plan in plans.values()), NONE)
        return Plan(calls, self._met([place.path for place in self.sinks], plans))

    def _met(self, branches: Sequence[str], plans: Mapping[str, Plan]) -> Count:
        """Candidates where branches meet: what comes by several ways is one, so each branch may bring nothing new."""
        counts = [plans[branch].passes for branch in branches]
        every: Count = reduce(Count.plus, counts, NONE)
        if self.share_ancestor(branches):
            return Count(max(count.low for count in counts), every.high)
        return every

    def _compile_inner(self) -> Iterator[Flaw]:
        """What is wrong with the pipelines that stages solve with; the others are kept."""
        for path, place in self.places.items():
            for field, pipeline in pipelines_in(place.stage):
                try:
                    self.inner.setdefault(path, {})[field] = Graph(pipeline)
                except ConfigError as error:
                    for flaw in error.flaws:
                        yield flaw._replace(where=f"{path}/{field}/{flaw.where}")

    def _flaws(self) -> Iterator[Flaw]:
        facts: dict[str, frozenset[Fact]] = {}
        for place in self.places.values():
            stage = place.stage
            inflow = [facts[b] for b in place.before]
            arriving = frozenset[Fact].intersection(*inflow) if inflow else frozenset[Fact]()
            facts[place.path] = arriving | stage.provides
            if stage.takes and not place.before:
                yield Flaw(
                    place.path,
                    f"{stage.name!r} needs candidates, and nothing comes before it",
                    "Put a source such as `sample` before it",
                )
                continue
            if not stage.takes and place.before:
                yield Flaw(
                    place.path,
                    f"{stage.name!r} draws from the problem alone and takes no candidates, "
                    f"but comes after {', '.join(map(repr, place.before))}",
                    "Put it beside that stage instead (`&`, or leave out `after`)",
                )
                continue
            for fact in sorted(stage.requires - arriving):
                some = [b for b in place.before if fact in facts[b]]
                lacking = [b for b in place.before if fact not in facts[b]]
                what = f"{stage.name!r} needs {fact}, and " + (
                    f"the branch of {', '.join(map(repr, lacking))} gives none"
                    if some
                    else "no stage before it gives any"
                )
                yield Flaw(place.path, what, f"Put {_WHO_GIVES[fact]} before it")
            if unclear := self.whose_score(stage, self.upstream[place.path]):
                yield Flaw(place.path, unclear)
            before = tuple(self.places[p].stage for p in self.upstream[place.path])
            after = tuple(self.places[p].stage for p in self.downstream[place.path])
            for broken in stage.rules(before, after):
                yield Flaw(place.path, broken)
            yield from stage.misplaced(self, place.path)
        yield from self._loose_ends()

    def _loose_ends(self) -> Iterator[Flaw]:
        """A source that ends beside a stage that chooses: its candidates would bypass the choice."""
        sinks = self.sinks
        loose = [p for p in sinks if not p.stage.takes]
        if loose and len(loose) < len(sinks):
            ends = ", ".join(repr(p.path) for p in sinks if p.stage.takes)
            for place in loose:
                yield Flaw(
                    place.path,
                    f"nothing comes after it, so its candidates bypass {ends}",
                    f"Name it in some stage's `after`: [..., {place.path}]",
                )


def _at_least_one(count: Count) -> Count:
    return Count(min(1, count.low), count.high)


def _flat(
    pipeline: Pipeline, prefix: str = "", before: tuple[str, ...] = ()
) -> Iterator[tuple[str, Stage, tuple[str, ...]]]:
    """Every stage with its path and the paths before it; nested pipelines are opened."""
    ends: dict[str, tuple[str, ...]] = {}
    for node in _in_order(pipeline):
        path = prefix + node.name
        comes_after = tuple(end for name in node.after for end in ends[name]) if node.after else before
        if isinstance(node.stage, Pipeline):
            inner = node.stage
            yield from _flat(inner, path + "/", comes_after)
            ends[node.name] = tuple(_ends(inner, path + "/"))
        else:
            yield path, node.stage, comes_after
            ends[node.name] = (path,)


def _in_order(pipeline: Pipeline) -> list:  # type: ignore[type-arg]
    graph: nx.DiGraph = nx.DiGraph()
    nodes = {n.name: n for n in pipeline.nodes}
    graph.add_nodes_from(nodes)
    graph.add_edges_from((b, n.name) for n in pipeline.nodes for b in n.after)
    rank = {name: i for i, name in enumerate(nodes)}
    return [nodes[name] for name in nx.lexicographical_topological_sort(graph, key=rank.__getitem__)]


def _ends(pipeline: Pipeline, prefix: str) -> Iterator[str]:
    for node in pipeline.sinks:
        if isinstance(node.stage, Pipeline):
            yield from _ends(node.stage, f"{prefix}{node.name}/")
        else:
            yield prefix + node.name
