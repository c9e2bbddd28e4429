"""What a search file says beside its space: problems, objectives, how much to spend, how to propose and to race.

    benchmark: {lab/arith: {level: [5, 6], problems: 100}}
    objectives: [accuracy]             # two: their front, such as [accuracy, tokens]
    target: 0.7                        # with two: the least cost at this value, instead of the front
    splits: {search: 0.5, validation: 0.25, test: 0.25}
    proposers: [frugal, random]        # in turn
    effort: {trials: 60, tokens: 2000000}
    baselines: {one sample: self_consistency@1, vote: self_consistency@16}
    race: {alpha: 0.05}
    finalists: 4

Everything has a default but the benchmark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from archon.component import Value
from archon.config.build import Builder
from archon.config.source import Source, shown
from archon.search.axes import Axes
from archon.search.objectives import Accuracy, AnyObjective, Evaluation, Objective
from archon.search.optimism import Splits
from archon.search.proposers.base import AnyProposes, Proposes
from archon.search.proposers.frugal import Frugal, listed
from archon.search.proposers.optuna_sampler import TPE
from archon.search.proposers.portfolio import Portfolio

Effort = Literal["light", "medium", "heavy"]
EFFORTS: Final[Mapping[Effort, int]] = {"light": 20, "medium": 60, "heavy": 200}
"""Trials of a search that is described in words."""


class Spending(Value):
    """When a search ends: with whatever comes first. Replayed samples cost nothing anew."""

    trials: Annotated[int, Field(ge=1)] | None = None
    """Configurations that are tried."""
    evaluations: Annotated[int, Field(ge=1)] | None = None
    """Configurations times problems, of the search split."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """Fresh tokens of all processes, those of validation and test included: a hard limit, also over restarts."""
    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False)] | None = None
    """Fresh dollars, likewise."""


class Racing(Value):
    """How configurations are compared (search/racing.py)."""

    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The chance that the best is dropped."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Differences in value that do not matter."""
    first: Annotated[int, Field(ge=1)] = 8
    """Problems in everyone's first batch."""
    growth: Annotated[float, Field(gt=1)] = 1.5
    """How many times as many problems survivors have after each batch."""
    width: Annotated[int, Field(ge=2)] = 8
    """Configurations that are under way at once."""


class Settings(Value):
    """What a search file says beside its space."""

    benchmark: str | Mapping[str, Mapping[str, Any] | None]
    """Its name, or a JSONL file; or its name with its settings."""
    objectives: tuple[AnyObjective, ...] = (Accuracy(),)
    """What is wanted: one, or a value and a cost."""
    target: Annotated[float, Field(ge=0, le=1)] | None = None
    """The value at which the least cost is wanted."""
    splits: Splits = Splits()
    """Which problems are searched on, which the winner is chosen by, and which are reported on."""
    effort: Effort | Spending = "medium"
    """In words, or as limits."""
    proposers: tuple[AnyProposes, ...] = ()
    """In turn; where none is given, see `proposing`."""
    baselines: Mapping[str, Any] = Field(default_factory=dict)
    """What the winner is held against, by name: a pipeline, the name of a ready one, or NAME@N with so many samples."""
    race: Racing = Racing()
    finalists: Annotated[int, Field(ge=1)] = 4
    """How many are validated."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        directions = [one.direction for one in self.objectives]
        if directions not in (["maximise"], ["maximise", "minimise"]):
            raise ValueError(
                "objectives should be one to maximise (accuracy, coverage, pass_at_k, utility), alone or followed by "
                f"a cost (tokens, usd, flops, requests, latency); these are {[o.name for o in self.objectives]}"
            )
        if self.target is not None and len(self.objectives) == 1:
            raise ValueError("a target needs a cost to minimise: objectives: [accuracy, tokens]")
        return self

    @property
    def value(self) -> Objective:
        """What is maximised."""
        return self.objectives[0]

    @property
    def cost(self) -> Objective | None:
        """What is minimised, if anything."""
        return self.objectives[1] if len(self.objectives) > 1 else None

    @property
    def spending(self) -> Spending:
        """The effort as limits."""
        return self.effort if isinstance(self.effort, Spending) else Spending(trials=EFFORTS[self.effort])

    def means(self, known: Mapping[str, Evaluation], problems: Iterable[str]) -> tuple[float, ...]:
        """Of each objective, over those of the problems that are known. Raises ValueError where none is."""
        some = [known[problem] for problem in problems if problem in known]
        return tuple(objective.mean(some) for objective in self.objectives)

    def signed(self, values: Sequence[float]) -> tuple[float, ...]:
        """Objectives such that more is better; with a target one figure: how far below it, or how cheap above it."""
        if self.target is None:
            return tuple(one.signed(v) for one, v in zip(self.objectives, values, strict=True))
        value, cost = values
        return (value - self.target if value < self.target else 1.0 / (1.0 + cost),)

    def proposing(self, axes: Axes) -> Proposes:
        """Who proposes: as the file says, in turn. Else `frugal` for one objective over a space that it weighs as a
        whole, and `tpe` in any other search."""
        if len(self.proposers) > 1:
            return Portfolio(of=self.proposers)
        if self.proposers:
            return self.proposers[0]
        return TPE() if self.cost is not None or listed(axes) is None else Frugal()


def read_settings(source: Source) -> Settings:
    """The settings from what a search file says beside its space. Raises ConfigError with all that is wrong."""
    builder = Builder(source)
    data = source.data if isinstance(source.data, Mapping) else {}
    if "benchmark" not in data:
        builder.flaw((), "`benchmark` is missing", "Name one: benchmark: gsm8k")
        builder.check()
    fields = dict(data)
    for name, kind in (("objectives", "objective"), ("proposers", "proposer")):
        if name in fields:
            fields[name] = _components(builder, kind, fields[name], name)
    effort = fields.get("effort")
    if isinstance(effort, Mapping):
        fields["effort"] = builder.value(Spending, effort, ("effort",))
    built = builder.value(Settings, {k: v for k, v in fields.items() if v is not None}, ())
    builder.check()
    assert built is not None
    return built


def _components(builder: Builder, kind: str, data: Any, name: str) -> Any:
    """One, or a list of them."""
    if not isinstance(data, list):
        data = [data]
    if not data:
        builder.flaw((name,), f"expected at least one {kind}, and found {shown(data)}")
        return None
    found = [builder.component(kind, one, (name, i)) for i, one in enumerate(data)]
    return tuple(one for one in found if isinstance(one, Objective | Proposes))
