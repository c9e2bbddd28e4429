"""Repeated sampling: n independent answers to the problem.

Source: Brown et al. 2024, "Large Language Monkeys: Scaling Inference Compute with Repeated Sampling"
(arXiv 2407.21787), section 2. Cost: n calls (fewer requests where the server takes n > 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archon.backends.base import Sampling
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream


class Sample(Stage):
    """Draw n independent samples of a model's answer; they flow on as they arrive."""

    takes: ClassVar[bool] = False
    asks_the_problem: ClassVar[bool] = True
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    model: str = "default"
    """Which of the session's models answers."""
    n: Annotated[int, Field(ge=0)] = 1
    """How many samples."""
    system: str | None = None
    """A system message to put before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Only the k likeliest tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens at least this likely relative to the likeliest."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per sample; the model's own where not given."""
    stop: tuple[str, ...] = ()
    """Stop strings."""
    seed: int | None = None
    """Base seed; the run's where not given."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Ask for log-probabilities, with so many alternatives each."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Server-specific fields, sent as they are."""
    per_request: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Samples asked for in one request; the model's own setting where `auto`."""
    wave: Annotated[int, Field(ge=1)] | None = None
    """At most so many samples that the stages after it have not dealt with, in flight or just come: all at once where
    not given. Where a later stage stops early, no more than that are paid for in vain; 1 is one after the other."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Draw; the stored samples come first."""
        draw = run.sample(
            self.model,
            n=self.n,
            system=self.system,
            sampling=self.sampling,
            per_request=None if self.per_request == "auto" else self.per_request,
            wave=self.wave,
        )
        async for candidate in draw:
            yield candidate

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters that are given here."""
        return Sampling(
            **{name: value for name, value in self.given().items() if name in Sampling.model_fields}
        )

    def plan(self, incoming: Count) -> Plan:
        """n calls, n candidates (fewer where a budget or a later stage ends it)."""
        return Plan(Count(self.n, self.n), Count(self.n, self.n))

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)
