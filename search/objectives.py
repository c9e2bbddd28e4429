"""What a search is for: objectives over evaluated problems, found by name.

An `Evaluation` is what came of one configuration on one problem, an objective gives its value in the objective's own
unit, and a configuration's figure is the mean over problems. Unknown is never zero: money without a price, work without
a size and the time of a replay are errors. Costs count replayed samples with what they cost when they were drawn;
what a search spends anew is in `fresh`. Cost: no calls.

Sources: pass@k is the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, section 2.1); the utility with a price
on false positives is that of Stroebl, Kapoor and Narayanan 2024 (arXiv 2411.17501).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from archon import registry
from archon.component import Component, Nested
from archon.errors import UnpricedModel, UserError
from archon.usage import NOTHING, Usage

Direction = Literal["maximise", "minimise"]


@dataclass(frozen=True)
class Evaluation:
    """What came of one configuration on one problem."""

    problem: str
    """The problem's id."""
    right: float = 0.0
    """How right the chosen answer is, from 0 to 1; 0 where none was chosen."""
    answered: bool = True
    """Whether an answer was chosen: not so where the pipeline abstained, or had nothing to choose from."""
    accepted: bool | None = None
    """Whether every verifier that says yes or no said yes to the chosen answer; None where none said."""
    samples: int = 0
    """How many answers the pipeline had to choose from."""
    right_samples: int = 0
    """How many of them are right."""
    outcome: str = ""
    """solved, wrong, failed, timed_out, cancelled or abstained."""
    usage: Usage = NOTHING
    """What the problem cost, replayed samples with what they cost when they were drawn."""
    fresh: Usage = NOTHING
    """The part that was spent now."""
    seconds: float | None = None
    """How long the problem took, from its start to its grading; None where some of it was replayed."""

    @property
    def some_right(self) -> float:
        """1 where some sample is right (coverage, and not selected accuracy), else 0."""
        return float(self.right_samples > 0)

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON, exact."""
        return {**asdict(self), "usage": self.usage.exact(), "fresh": self.fresh.exact()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """The inverse of `as_json`."""
        usages = {name: Usage.from_json(data[name]) for name in ("usage", "fresh")}
        return cls(**{**data, **usages})

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """From a line of `problems.jsonl` (docs/results.md)."""
        at, truth = record["selected"], record["truth"]
        usage, fresh = Usage.from_json(record["usage"]), Usage.from_json(record["fresh"])
        verdicts = [] if at is None else [one["accepted"][at] for one in record["verdicts"].values()]
        said = [verdict for verdict in verdicts if verdict is not None]
        return cls(
            problem=record["id"],
            right=float(record["outcome"] == "solved"),
            answered=at is not None,
            accepted=all(said) if said else None,
            samples=len(truth),
            right_samples=sum(truth),
            outcome=record["outcome"],
            usage=usage,
            fresh=fresh,
            seconds=record["seconds"] if fresh.requests == usage.requests else None,
        )


class Objective(Component):
    """Something to maximise or to minimise, as a file names it: `objective: accuracy`, or
    `objective: {utility: {false_positive: 4}}`. Others register in the entry-point group `archon.objectives`."""

    kind: ClassVar[str] = "objective"
    direction: ClassVar[Direction] = "maximise"
    unit: ClassVar[str] = ""
    """What its values are counted in."""

    @property
    def low(self) -> float:
        """The least value of a problem."""
        return 0.0

    @property
    def high(self) -> float:
        """The greatest value of a problem; infinite where it has no bound of its own."""
        return 1.0

    @abstractmethod
    def value(self, evaluation: Evaluation) -> float:
        """Its value on a problem, from `low` to `high`. Raises UserError where it cannot be known."""
        raise NotImplementedError

    def mean(self, evaluations: Iterable[Evaluation]) -> float:
        """Its mean over problems. Raises ValueError where there are none."""
        values = [self.value(evaluation) for evaluation in evaluations]
        if not values:
            raise ValueError(f"the mean of {self.name!r} needs a problem")
        return math.fsum(values) / len(values)

    def signed(self, value: float) -> float:
        """A value such that more is better: for proposers."""
        return value if self.direction == "maximise" else -value

    def scaled(self, value: float, most: float | None = None) -> float:
        """A value in [0, 1] such that more is better: for races. What has no bound of its own needs `most`, and
        beyond it counts as it. Raises ValueError where that is lacking."""
        high = self.high if most is None else most
        if not (math.isfinite(high) and high > self.low):
            raise ValueError(f"values of {self.name!r} have no bound; give one above {self.low:g} (`most`)")
        share = (min(max(value, self.low), high) - self.low) / (high - self.low)
        return share if self.direction == "maximise" else 1.0 - share


AnyObjective = Annotated[Objective, Nested("objective")]
"""The type of a field that holds an objective."""


class Accuracy(Objective):
    """Selected accuracy: whether the answer that was chosen is right."""

    def value(self, evaluation: Evaluation) -> float:
        """How right it is; 0 where none was chosen."""
        return evaluation.right


class Coverage(Objective):
    """Whether some sample is right, chosen or not: what a perfect choice would reach, and no accuracy."""

    def value(self, evaluation: Evaluation) -> float:
        """1 where some sample is right."""
        return evaluation.some_right


class PassAtK(Objective):
    """pass@k: the chance that some of k samples is right, from all that were drawn.

    Of a problem with fewer than k samples the others count as wrong. It is biased where the pipeline stops sampling
    because of what it saw.
    """

    k: Annotated[int, Field(ge=1)]
    """How many samples are drawn."""

    def value(self, evaluation: Evaluation) -> float:
        """The unbiased estimate."""
        return pass_at_k(max(evaluation.samples, self.k), evaluation.right_samples, self.k)


class Utility(Objective):
    """Expected utility: a right answer is worth 1, a wrong one costs `false_positive`, and no answer is worth 0."""

    false_positive: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """What a wrong answer costs, in right ones."""
    accepted_only: bool = False
    """Whether an answer that no verifier accepted counts as no answer."""

    @property
    def low(self) -> float:
        """A wrong answer's."""
        return -self.false_positive

    def value(self, evaluation: Evaluation) -> float:
        """A partly right answer is worth its part, and costs the rest of it."""
        if not evaluation.answered or (self.accepted_only and not evaluation.accepted):
            return 0.0
        return evaluation.right - self.false_positive * (1.0 - evaluation.right)


class _Cost(Objective):
    """What a problem costs."""

    direction: ClassVar[Direction] = "minimise"

    @property
    def high(self) -> float:
        """Without a bound."""
        return math.inf


class Latency(_Cost):
    """How long a problem takes, from its start to its grading; of problems that ran beside each other too."""

    unit: ClassVar[str] = "seconds"

    def value(self, evaluation: Evaluation) -> float:
        """Its seconds. Raises UserError where some of it was replayed."""
        if evaluation.seconds is None:
            raise UserError(
                f"`latency` of problem {evaluation.problem!r} is not known, for some of it was replayed. "
                "Evaluate it with an empty store, or take `tokens` as the objective"
            )
        return evaluation.seconds


class Requests(_Cost):
    """How many model calls a problem takes, retries included."""

    unit: ClassVar[str] = "calls"

    def value(self, evaluation: Evaluation) -> float:
        """Its calls."""
        return float(evaluation.usage.requests)


class Tokens(_Cost):
    """How many tokens a problem takes, in and out."""

    unit: ClassVar[str] = "tokens"

    def value(self, evaluation: Evaluation) -> float:
        """Its tokens."""
        return float(evaluation.usage.tokens)


class Usd(_Cost):
    """What a problem costs in US dollars."""

    unit: ClassVar[str] = "usd"

    def value(self, evaluation: Evaluation) -> float:
        """Its dollars. Raises UnpricedModel where a call has no price."""
        if evaluation.usage.unpriced:
            raise UnpricedModel(
                f"`usd` of problem {evaluation.problem!r} is not known: {evaluation.usage.unpriced} of its calls have "
                "no price. Give the model a `price`, or take `tokens` as the objective"
            )
        return float(evaluation.usage.usd)


class Flops(_Cost):
    """What a problem costs in floating-point operations."""

    unit: ClassVar[str] = "flops"

    def value(self, evaluation: Evaluation) -> float:
        """Its operations. Raises UnpricedModel where a model's size is not known."""
        if evaluation.usage.unsized:
            raise UnpricedModel(
                f"`flops` of problem {evaluation.problem!r} are not known: {evaluation.usage.unsized} of its calls "
                "went to a model of unknown size. Give the model its `parameters`, or take `tokens` as the objective"
            )
        return float(evaluation.usage.flops)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, c of which are right, hold a right one: 1 - C(n - c, k) / C(n, k).

    Summed in logarithms of the factors 1 - k / i for the c numbers i from n - c + 1 to n. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, and has n={n}, c={c}, k={k}")
    if k > n - c:
        return 1.0
    return float(-np.expm1(np.log1p(-k / np.arange(n - c + 1.0, n + 1.0)).sum()))


for _one in (Accuracy, Coverage, PassAtK, Utility, Latency, Requests, Tokens, Usd, Flops):
    registry.add(_one.kind, _one.name, _one)
