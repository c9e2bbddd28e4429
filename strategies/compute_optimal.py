"""Compute-optimal scaling: how hard a problem is decides how it is solved, and with how much.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (arXiv 2408.03314), section 3: the difficulty of a problem is estimated without knowing its answer, problems
fall into bins by it, and each bin has the strategy that was best on problems set apart for that, at the budget given.
Cost: `probes` calls (and their verifier's), and what the bin's pipeline costs; nothing more where the bin has none.

The probes are ordinary samples, and they are paid for, while the paper leaves the cost of telling the difficulty out
of its figures. `python -m archon.benchmarks.compute_optimal learn` finds the bins and their pipelines.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from functools import reduce
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from archon.answers import normal_form
from archon.backends.base import Sampling
from archon.candidate import Candidate
from archon.component import Value
from archon.pipeline import AnyPipeline
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stage, Stream
from archon.verifier import AnyVerifier

Signal: TypeAlias = Literal["agreement", "score", "logprob"]
"""What says how easy a problem is."""


class Bin(Value):
    """Problems of one difficulty, and how they are solved."""

    below: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Problems whose signal is below this, and not below that of the bin before. The last bin has none: the rest."""
    solver: AnyPipeline | None = None
    """What solves them; none: the probes are enough."""


class Policy(Value):
    """How problems are solved at one budget."""

    n: Annotated[int, Field(ge=1)]
    """The budget, in samples' worth of tokens per problem."""
    probes: Annotated[int, Field(ge=1)]
    """How many samples tell the difficulty."""
    bins: tuple[Bin, ...]
    """From the hardest (the lowest signal) to the easiest."""

    @model_validator(mode="after")
    def _bins_in_order(self) -> Self:
        if not self.bins:
            raise ValueError("`bins` is empty; a policy has at least one, for all problems")
        *bounded, last = (one.below for one in self.bins)
        if last is not None or None in bounded:
            raise ValueError("every bin but the last has a `below`, and the last has none")
        bounds = self.bounds
        if any(bounds[i] >= bounds[i + 1] for i in range(len(bounds) - 1)):
            raise ValueError(f"the bins' `below` rise from bin to bin, and are {', '.join(map(str, bounds))}")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """Where one bin ends and the next begins."""
        return tuple(one.below for one in self.bins if one.below is not None)

    def bin_of(self, signal: float | None) -> int:
        """The bin of a problem with this signal; the hardest where it is not known."""
        return 0 if signal is None else bisect_right(self.bounds, signal)


class ComputeOptimal(Stage):
    """Draw a few samples, tell by them how hard the problem is, and solve it as its difficulty asks for.

    What leaves the bin's pipeline flows on; the probes do where the bin has none, and where its pipeline gave nothing
    (a budget, a failure). A selector after it chooses among them.
    """

    takes: ClassVar[bool] = False
    stops_early: ClassVar[bool] = (
        True  # how much it samples depends on what it saw, so pass@k would be biased
    )

    n: Annotated[int, Field(ge=1)] = 16
    """The budget, in samples' worth per problem: the policy with the largest `n` that is not above it applies."""
    policies: Annotated[tuple[Policy, ...], Field(min_length=1)]
    """How problems are solved, by budget."""
    signal: Signal = "agreement"
    """What tells the difficulty. `agreement`: the share of the probes that give their most frequent answer. `score`:
    the mean of the verifier's scores (ranks negated). `logprob`: the mean log-probability of the probes' tokens
    (natural log, at most 0), averaged over the probes."""
    verifier: AnyVerifier | None = None
    """Who scores the probes, for the signal `score`."""
    keep_probes: bool = False
    """Whether the probes flow on too, with what the bin's pipeline gives, where that has not been chosen among (its
    last stage does not rank): then they are samples like the others."""
    model: str = "default"
    """Which of the session's models writes the probes."""
    system: str | None = None
    """A system message for the probes, before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The probes'; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """The probes' nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per probe; the model's own where not given."""

    @model_validator(mode="after")
    def _policies_fit(self) -> Self:
        budgets = [policy.n for policy in self.policies]
        if sorted(set(budgets)) != budgets:
            raise ValueError(f"the policies' `n` rise, and are {', '.join(map(str, budgets))}")
        if self.n < budgets[0]:
            raise ValueError(f"`n` {self.n} is below the smallest budget that has a policy, {budgets[0]}")
        if (self.signal == "score") != (self.verifier is not None):
            raise ValueError("the signal `score` and `verifier` go together")
        return self

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Probe, find the bin, and let its pipeline's answers flow on."""
        policy = self.policy
        draw = run.sample(self.model, n=policy.probes, system=self.system, sampling=self._sampling)
        probes = sorted([probe async for probe in draw], key=run.birth)
        if self.verifier is not None and probes:
            probes = await run.verify(self.verifier, probes)
        signal = self.signal_of(problem, probes)
        number = policy.bin_of(signal)
        solver = policy.bins[number].solver
        run.trace("difficulty", signal=signal, bin=number)
        solved = False
        if solver is not None:
            async with aclosing(run.stream(solver, problem, f"bin-{number}")) as answers:
                if kept := self.keep_probes and not answers.ranks:
                    for probe in probes:
                        yield probe
                async for answer in answers:
                    solved = True
                    yield answer
            solved = solved or kept
        if not solved:
            for probe in probes:
                yield probe

    @property
    def policy(self) -> Policy:
        """The one that applies."""
        return max((one for one in self.policies if one.n <= self.n), key=lambda one: one.n)

    def signal_of(self, problem: Problem, probes: Sequence[Candidate]) -> float | None:
        """How easy the problem is, by its probes: higher is easier. None where they do not tell. Pure."""
        if self.signal == "agreement":
            return agreement([normal_form(problem, probe.text) for probe in probes])
        if self.signal == "score":
            return _mean(probe.score(self._judge(probe)) for probe in probes)
        return _mean(mean_logprob(probe) for probe in probes)

    def plan(self, incoming: Count) -> Plan:
        """The probes and their verdicts, and the least and the most that a bin costs."""
        policy = self.policy
        drawn = Count(policy.probes, policy.probes)
        calls, passes = drawn, []
        if self.verifier is not None:
            calls = calls.plus(drawn.times(self.verifier.calls_per_candidate))
            calls = calls.plus(Count(0, self.verifier.calls_per_problem))
        costs = []
        for one in policy.bins:
            solved = None if one.solver is None else one.solver.plan()
            costs.append(Count(0, 0) if solved is None else solved.calls)
            passes.append(drawn if solved is None else _either(solved.passes, drawn))
            if solved is not None and self.keep_probes:
                passes.append(solved.passes.plus(drawn))
        return Plan(calls.plus(reduce(_either, costs)), reduce(_either, passes))

    @property
    def models(self) -> tuple[str, ...]:
        """The probes' writer and their verifier's."""
        return (self.model, *(() if self.verifier is None else self.verifier.models))

    @property
    def title(self) -> str | None:
        """What the probes' verdicts go by."""
        return None if self.verifier is None else self.verifier.name

    @property
    def _sampling(self) -> Sampling:
        given = {name: value for name, value in self.given().items() if name in Sampling.model_fields}
        return Sampling(**given, logprobs=0 if self.signal == "logprob" else None)

    def _judge(self, probe: Candidate) -> str | None:
        """What the verdict of its verifier goes by: the only one that a probe has."""
        return next(iter(probe.verdicts), None)


def agreement(answers: Sequence[str | None]) -> float | None:
    """The share of the answers that are the most frequent one; those that are missing agree with none."""
    if not answers:
        return None
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes.values(), default=0) / len(answers)


def mean_logprob(candidate: Candidate) -> float | None:
    """The mean log-probability of its tokens; None where they are not known."""
    if not candidate.logprobs:
        return None
    return sum(token.logprob for token in candidate.logprobs) / len(candidate.logprobs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else math.nan
    return None if math.isnan(mean) else mean


def _either(one: Count, other: Count) -> Count:
    """Bounds that hold for both."""
    high = None if one.high is None or other.high is None else max(one.high, other.high)
    return Count(min(one.low, other.low), high)
