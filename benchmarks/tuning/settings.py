"""What a tuning file says beside its engine: the load, the limits, what is wanted, and how much to spend.

    workload: {requests: 64, samples: 1, prompt_tokens: 256, max_tokens: [64, 256], concurrency: 16}
    workload: {benchmark: lab/arith, pipeline: best_of_n, requests: 32}     # instead: problems through a pipeline
    limits: {latency: 2.0, percentile: 95}
    objective: throughput                     # completion tokens per second; or request_throughput
    effort: {trials: 20, minutes: 120}        # or light, medium, heavy
    rounds: {count: 3, margin: 0.2, cap: 4}
    finalists: 3
    confirm: 4                                # pairs of fresh starts, winner and defaults in turn
    proposer: tpe
    baseline: {max_num_seqs: 256}             # where the engine's own defaults are not what you run today
    may_change_answers: [quantization]

Everything has a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from archon.component import Value
from archon.search.proposers.base import AnyProposes

Effort = Literal["light", "medium", "heavy"]
EFFORTS: Final[Mapping[Effort, int]] = {"light": 8, "medium": 20, "heavy": 60}
"""Trials of a tuning that is described in words."""
Count = Annotated[int, Field(ge=1)]
Span = Count | tuple[Count, Count]
"""A number, or its least and its most: each request draws its own."""
_OF_PROMPTS: Final = ("samples", "prompt_tokens", "max_tokens", "exact")


class Workload(Value):
    """The requests of a round, which are the same for all configurations, and how many are in flight."""

    requests: Count = 64
    """Requests of a round: prompts, or problems."""
    concurrency: Count = 16
    """Requests in flight: when one is done, the next is sent. It may be chosen too."""
    warm_up: Annotated[int, Field(ge=0)] | None = None
    """Requests after each start that do not count; as many as are in flight where not given."""
    samples: Count = 1
    """Samples of a prompt."""
    prompt_tokens: Span = 128
    """Of a prompt, about: words are counted out by what the first engine says of two prompts."""
    max_tokens: Span = 128
    """Of a reply, at most."""
    exact: bool | Literal["auto"] = "auto"
    """Whether replies go on to `max_tokens` whatever the model would say (`ignore_eos`); `auto`: where it is vLLM."""
    benchmark: str | Mapping[str, Mapping[str, Any] | None] | None = None
    """Problems of a benchmark instead of prompts: a request is a problem, solved."""
    pipeline: str | None = None
    """What solves them: a ready pipeline, or a file. One sample where not given."""

    @field_validator("prompt_tokens", "max_tokens")
    @classmethod
    def _in_order(cls, value: Any) -> Any:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"the least is above the most: write [{value[1]}, {value[0]}]")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.benchmark is None:
            if self.pipeline is not None:
                raise ValueError("`pipeline` solves the problems of a benchmark: name one by `benchmark:`")
            return self
        for name in _OF_PROMPTS:
            if name in self.given():
                raise ValueError(f"`{name}` is of prompts, and the pipeline says what a problem is asked")
        return self


class Limits(Value):
    """What a configuration must keep to."""

    latency: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds, of a request from when it is sent to its last token."""
    percentile: Annotated[float, Field(gt=0, le=100)] = 95
    """So many percent of the requests are within the limit."""


class Spending(Value):
    """When no more is tried: with whatever comes first."""

    trials: Count | None = None
    """Configurations."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of this process; what comes after the trials (finalists, confirmation) is not in them."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.trials is None and self.minutes is None:
            raise ValueError("an effort is `trials:`, `minutes:`, or both")
        return self


class Rounds(Value):
    """How trials are compared, and when one ends early. These are rules of thumb: they claim no rate of error."""

    count: Count = 3
    """Rounds of a trial that is not ended early."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """A trial ends when its throughput so far is so much below that of the leader in the same rounds, or its latency
    so much above the limit: more after the first rounds, as the square root of all rounds by those it had."""
    cap: Annotated[float, Field(gt=1)] = 4.0
    """A round is cut off after so many times the seconds of the leader's slowest."""


class Settings(Value):
    """What a tuning file says beside its engine."""

    workload: Workload = Workload()
    limits: Limits = Limits()
    objective: Literal["throughput", "request_throughput"] = "throughput"
    """Completion tokens per second, or requests per second."""
    effort: Effort | Spending = "medium"
    """In words, or as limits."""
    rounds: Rounds = Rounds()
    finalists: Count = 3
    """How many are measured again, after a fresh start, before one is chosen."""
    confirm: Annotated[int, Field(ge=0)] = 4
    """Pairs of fresh starts, one of the winner and one of the baseline each, that the reported figures come from."""
    proposer: AnyProposes | None = None
    """What proposes configurations; `tpe` where not given."""
    baseline: Mapping[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Options of what the winner is held against; what is not named is left to the engine."""
    may_change_answers: tuple[str, ...] = ()
    """Options that may be chosen though they change what the model answers."""

    @property
    def spending(self) -> Spending:
        """The effort as limits."""
        return self.effort if isinstance(self.effort, Spending) else Spending(trials=EFFORTS[self.effort])

    @property
    def unit(self) -> str:
        """Of the objective."""
        return "tokens/s" if self.objective == "throughput" else "requests/s"
