"""DeepConf: answers are weighed by the writer's own confidence, and those that lose it are cut off as they are written.

Source: Fu et al. 2025, "Deep Think with Confidence" (arXiv 2508.15260), section 3. What confidence is, and the paper's
measures of an answer's: archon/strategies/confidence.py.

`confidence_filter` is the offline form: it takes finished answers and keeps the most confident share of them, by any of
the measures. Cost: none of its own; `sample` asks for the log-probabilities.

`confidence_stop` is the online form: the first `warm_up` answers are written to their end, and the confidence that a
share `keep` of them reaches is the bar. Every further answer is cut off when a group falls below the bar, and nothing
more is sampled once one answer has a share `consensus` of the confidence of all that voted. Backends hand over whole
replies, so an answer is written in chunks, each a call that continues what is there: an answer that falls below the bar
costs what is left of its chunk. Cost: a call per chunk, at most n × ceil(max_tokens / chunk); each sends again what is
written so far, which a server's prefix cache holds. The server must continue a given beginning; without it,
`chunk: null` writes every answer in one call, and only the consensus saves anything.

`weighted_vote` makes the choice after either.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archon.answers import normal_form
from archon.backends.base import Request, Sampling
from archon.candidate import Candidate, TokenLogprob, Verdict
from archon.problem import Problem
from archon.run import Run
from archon.stage import NONE, Candidates, Count, Fact, Plan, Stage, Stream
from archon.strategies.confidence import MEASURES, Measure, bar, confidences, groups, lowest_group
from archon.strategies.writing import one
from archon.usage import NOTHING, Usage

NAME = "confidence"
"""What its scores go by."""


def _below(value: float, least: float) -> bool:
    """Whether it is below the bar, and not for the rounding of a running sum."""
    return value < least - 1e-9 * abs(least)


class _Confidence(Stage):
    """What both forms go by."""

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "scores"})

    keep: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of answers that vote: the paper has 0.1, which saves more, and 0.9, which is safer."""
    window: Annotated[int, Field(ge=1)] = 2048
    """Tokens of a group, and of the tail. An answer with fewer is one group."""
    top: Annotated[int, Field(ge=1, le=20)] = 20
    """How many of the likeliest tokens a token's confidence is the mean of (k)."""

    @property
    def title(self) -> str:
        """What its scores go by, unless another verifier before it goes by that."""
        return NAME

    def scored(
        self, candidates: Sequence[Candidate], known: Sequence[float | None], measure: Measure, run: Run
    ) -> list[Candidate]:
        """The candidates, each with its confidence as its score."""
        verdicts = [Verdict(NAME, None, value, "score", detail=measure) for value in known]
        return run.judged(candidates, verdicts, NAME)


class ConfidenceFilter(_Confidence):
    """Keep the most confident share of candidates, each scored by its confidence.

    The candidates need log-probabilities with alternatives (`sample: {logprobs: 20}`). One without them is kept where
    there is room after all others, and has no score. Equally confident ones are kept in their order.
    """

    measure: Measure = "lowest"
    """What an answer's confidence is the mean of: all tokens (`mean`), the weakest tenth of groups (`bottom`), the
    weakest group (`lowest`), the last tokens (`tail`)."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, then keep the most confident ones, in sample order."""
        gathered = sorted([c async for c in candidates], key=run.birth)
        measure = MEASURES[self.measure]
        known = [measure(confidences(c.logprobs, self.top), self.window) for c in gathered]
        order = sorted(range(len(known)), key=lambda i: math.inf if (c := known[i]) is None else -c)
        kept = sorted(order[: math.ceil(self.keep * len(order) - 1e-9)])
        chosen = self.scored([gathered[i] for i in kept], [known[i] for i in kept], self.measure, run)
        for candidate in chosen:
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        """No calls; a share of what flows in."""
        return Plan(NONE, Count(min(1, incoming.low), incoming.high))


# --- online -----------------------------------------------------------------------------------------


@dataclass
class Trace:
    """An answer as it is written."""

    number: int
    text: str = ""
    tokens: list[float] = field(default_factory=list)
    """The confidence of each."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    usage: Usage = NOTHING
    last: Candidate | None = None
    """The last chunk."""
    written: int = 0
    """Tokens."""
    ended: bool = False
    """Whether it was written to its end."""

    def add(self, chunk: Candidate, k: int, size: int) -> None:
        """One chunk more, of at most so many tokens: of so many where the server counts none."""
        self.text += chunk.text
        self.tokens += confidences(chunk.logprobs, k)
        self.logprobs += chunk.logprobs or ()
        self.usage += chunk.usage
        self.written += len(chunk.logprobs or ()) or chunk.usage.completion_tokens or size
        self.last = chunk


class ConfidenceStop(_Confidence):
    """Write answers until they agree, and none of them further than it is confident. `weighted_vote` comes after it."""

    takes: ClassVar[bool] = False
    stops_early: ClassVar[bool] = True

    model: str = "default"
    """Which of the session's models answers."""
    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """Answers that are begun, at most."""
    warm_up: Annotated[int, Field(ge=1)] = 16
    """How many of them are written to their end, to set the bar."""
    consensus: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    """The share of the votes at which the leading answer wins; null: all n are begun."""
    wave: Annotated[int, Field(ge=1)] = 16
    """Answers that are written at once, after the warm-up."""
    chunk: Annotated[int, Field(ge=1)] | None = 512
    """Tokens after which an answer is looked at; null: it is written in one call."""
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    """Limit on new tokens per answer."""
    system: str | None = None
    """A system message to put before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    stop: tuple[str, ...] = ()
    """Stop strings."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Server-specific fields, sent as they are."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Warm up, set the bar, then write on above it."""
        self._check(run)
        first = min(self.warm_up, self.n)
        warm = await run.gather(*(self._written(i, None, run) for i in range(first)))
        known = [c for trace in warm if trace.ended and (c := self._confidence(trace)) is not None]
        least = bar(known, self.keep) if known else None
        votes: dict[str, float] = {}
        for trace in warm:
            if self._votes(trace, least):
                yield self._heard(trace, problem, votes, run)
        if first == self.n or self._agreed(votes):
            return

        async def numbers() -> AsyncIterator[int]:
            for number in range(first, self.n):
                yield number

        async def written(number: int) -> Trace:
            return await self._written(number, least, run)

        async for trace in run.map(written, numbers(), ahead=self.wave):
            if self._votes(trace, least):
                yield self._heard(trace, problem, votes, run)
                if self._agreed(votes):
                    return

    async def _written(self, number: int, least: float | None, run: Run) -> Trace:
        """One answer, as far as it is written: to its end, or until it falls below the bar."""
        trace = Trace(number)
        while not trace.ended:
            room = self.max_tokens - trace.written
            size = room if self.chunk is None else min(self.chunk, room)
            draw = run.sample(
                self.model,
                system=self.system,
                prefix=trace.text,
                sampling=self._sampling(size),
                place=number,
            )
            chunk = await one(draw)
            if chunk is None:  # the call failed, or a budget ran out
                break
            seen = len(trace.tokens)
            trace.add(chunk, self.top, size)
            goes_on = chunk.finish == "length" and chunk.text and trace.written < self.max_tokens
            trace.ended = not goes_on
            if (
                least is not None
                and len(trace.tokens) >= self.window
                and _below(min(groups(trace.tokens, self.window, seen)), least)
            ):
                break
        run.trace("trace", number=number, tokens=trace.written, ended=trace.ended)
        return trace

    def _check(self, run: Run) -> None:
        """Raise CapabilityError before anything is spent, and not at the second chunk."""
        further = self.chunk is not None and self.chunk < self.max_tokens
        request = Request(prefix="..." if further else "", sampling=self._sampling(1))
        run.session.caller(self.model).check(request, run.meter)

    def _sampling(self, size: int) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            max_tokens=size,
            logprobs=self.top,
            extra=self.extra,
        )

    def _confidence(self, trace: Trace) -> float | None:
        return lowest_group(trace.tokens, self.window)

    def _votes(self, trace: Trace, least: float | None) -> bool:
        """Whether it was written to its end, above the bar."""
        known = self._confidence(trace)
        return trace.ended and (least is None or (known is not None and not _below(known, least)))

    def _heard(self, trace: Trace, problem: Problem, votes: dict[str, float], run: Run) -> Candidate:
        """The answer as a candidate; its vote is counted."""
        known, last = self._confidence(trace), trace.last
        assert last is not None
        answer = normal_form(problem, trace.text)
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + (known or 0.0)
        candidate = replace(
            last,
            id=f"{run.stage}#{trace.number}",
            index=trace.number,
            text=trace.text,
            logprobs=tuple(trace.logprobs),
            usage=trace.usage,
        )
        return self.scored([candidate], [known], "lowest", run)[0]

    def _agreed(self, votes: Mapping[str, float]) -> bool:
        total = math.fsum(votes.values())
        return self.consensus is not None and total > 0 and max(votes.values()) >= self.consensus * total

    def plan(self, incoming: Count) -> Plan:
        """A call per chunk; at most n answers."""
        chunks = 1 if self.chunk is None else -(-self.max_tokens // self.chunk)
        return Plan(Count(min(self.warm_up, self.n), self.n * chunks), Count(0, self.n))

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)
