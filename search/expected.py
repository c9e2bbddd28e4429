"""What a configuration is expected to cost a problem: its bound at first, then what was measured of such stages.

A bound is far from what most problems need: replies end before their limit, prompts have fewer tokens than bytes, and
what stops early does. So whoever ranks by cost takes the mean of what was measured, from the most alike that was:

1. the same stage after the same stages: what it used per problem;
2. the same stage after others: tokens per call, times its calls here;
3. a stage of the same technique with the same models: the same;
4. nothing like it: its bound.

Calls of 2 and 3 are the bound here times the share of their bounds that was used there; where there is no bound, the
calls per problem that were measured. An `ExpectedCost` is a value: `refined` gives another. Cost: no calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from archon.graph import Graph
from archon.search.constraints import Bound
from archon.usage import NOTHING, Usage, total


class Cost(NamedTuple):
    """What something is expected to cost a problem; None where nobody can say."""

    calls: float | None = 0.0
    prompt_tokens: float | None = 0.0
    completion_tokens: float | None = 0.0
    usd: float | None = 0.0
    flops: float | None = 0.0
    seconds: float | None = 0.0
    """Inside calls, added up over concurrent ones; only measured."""
    measured: bool = True
    """Whether all of it was measured in some way, and none of it is a bound."""

    @property
    def tokens(self) -> float | None:
        """Tokens in and out."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        sums = {
            name: None if one is None or more is None else one + more
            for name, one, more in zip(self._fields[:-1], self[:-1], other[:-1], strict=True)
        }
        return Cost(**sums, measured=self.measured and other.measured)


class _Seen(NamedTuple):
    """What was measured of stages that are alike in some way."""

    problems: int = 0
    possible: int | None = 0
    """The sum of their bounds on calls; None where one had none."""
    used: Usage = NOTHING

    def plus(self, problems: int, calls: int | None, used: Usage) -> _Seen:
        possible = None if calls is None or self.possible is None else self.possible + calls * problems
        return _Seen(self.problems + problems, possible, self.used + used)

    def cost(self, calls: float) -> Cost:
        """Of so many calls like these."""
        share = calls / self.used.requests if self.used.requests else 0.0
        return _cost(self.used, share, calls)

    def calls(self, most: int | None) -> float:
        """Of a stage that makes at most so many."""
        if most is None or not self.possible:
            return self.used.requests / self.problems
        return most * min(1.0, self.used.requests / self.possible)


@dataclass(frozen=True)
class ExpectedCost:
    """What is known of costs so far. Immutable."""

    seen: Mapping[tuple[str, str], _Seen] = field(default_factory=dict)
    """By how alike (`place`, `stage`, `technique`) and by what is alike."""

    def refined(self, graph: Graph, by_stage: Mapping[str, Usage], problems: int = 1) -> ExpectedCost:
        """With what so many problems, at least one, used together in a pipeline, by stage (`Outcome.by_stage`; what a
        stage solved with counts to it). Samples that were replayed count with what they once cost."""
        plans = graph.plan()
        seen = dict(self.seen)
        for path, likeness in _likenesses(graph).items():
            used = total(u for row, u in by_stage.items() if row == path or row.startswith(f"{path}/"))
            for key in likeness:
                seen[key] = seen.get(key, _Seen()).plus(problems, plans[path].calls.high, used)
        return ExpectedCost(MappingProxyType(seen))

    def by_stage(self, graph: Graph, bounds: Mapping[str, Bound]) -> dict[str, Cost]:
        """What each stage of a pipeline is expected to cost a problem; `bounds` are those of its stages
        (`constraints.bounds`)."""
        return {path: self._expected(keys, bounds[path]) for path, keys in _likenesses(graph).items()}

    def of(self, graph: Graph, bounds: Mapping[str, Bound]) -> Cost:
        """What a pipeline is expected to cost a problem."""
        return _sum(self.by_stage(graph, bounds).values())

    def _expected(self, keys: tuple[tuple[str, str], ...], bound: Bound) -> Cost:
        place, *others = keys
        if (same := self.seen.get(place)) is not None:
            return _cost(same.used, 1 / same.problems, same.used.requests / same.problems)
        for key in others:
            like = self.seen.get(key)
            if like is not None and (like.used.requests or bound.calls == 0 or not like.possible):
                return like.cost(like.calls(bound.calls))
        usd, flops = bound.usd, bound.flops
        return Cost(
            bound.calls,
            bound.prompt_tokens,
            bound.completion_tokens,
            None if usd is None else float(usd),
            None if flops is None else float(flops),
            0.0 if bound.calls == 0 else None,
            measured=bound.calls == 0,
        )


def _cost(used: Usage, share: float, calls: float) -> Cost:
    """A share of what was used; money and work where all of it is known."""
    return Cost(
        calls,
        used.prompt_tokens * share,
        used.completion_tokens * share,
        None if used.unpriced else float(used.usd) * share,
        None if used.unsized else used.flops * share,
        used.seconds * share,
    )


def _sum(costs: Iterable[Cost]) -> Cost:
    whole = Cost()
    for cost in costs:
        whole = whole.plus(cost)
    return whole


def _likenesses(graph: Graph) -> dict[str, tuple[tuple[str, str], ...]]:
    """What each stage is alike to others by, the most alike first."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    places: dict[str, str] = {}
    for path, place in graph.places.items():
        stage = repr(place.stage)
        before = sorted(places[other] for other in place.before)
        text = "\0".join((stage, *before))
        places[path] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        technique = " ".join((place.stage.name, *place.stage.models))
        found[path] = (("place", places[path]), ("stage", stage), ("technique", technique))
    return found
