"""What extends and scores partial answers: all that are wanted at once, each distinct beginning asked for once.

Every wish of a round is a sample whose beginning is given, so the server's prefix cache holds what it continues, and
all of them are in flight together, beside those of other problems: the server batches them. Those that want the same
beginning continued are one draw of several samples. What is finished is never asked for again. All new partial
answers of a round are scored together; equal ones once.

Cost of a round: one call per continuation that is wanted, and one per further step of a roll-out (one in all where it
goes to the end); a reward model's call for each new partial answer, or per batch of them where it takes several.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from archon.backends.base import Sampling
from archon.candidate import Candidate, Scale
from archon.run import Run
from archon.steps import Aggregation, Steps, aggregated, convert, cut, end_of
from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.stepping.search import Wish
from archon.usage import NOTHING, Usage


class Manner(NamedTuple):
    """How partial answers are extended and scored."""

    model: str
    """Which model writes."""
    sampling: Sampling
    """How; without what ends a step."""
    system: str | None
    steps: Steps | int
    """What ends a step: a delimiter, or so many tokens."""
    until: str | None
    """A regular expression: an answer that matches anywhere is finished."""
    max_steps: int
    reward: str | None
    """Which reward model scores; None: the writer's own certainty."""
    aggregate: Aggregation


class Engine:
    """Extends and scores the partial answers of one problem."""

    def __init__(self, manner: Manner, run: Run) -> None:
        self._manner = manner
        self._run = run
        self._until = None if manner.until is None else re.compile(manner.until)
        self._end = None if isinstance(manner.steps, int) else end_of(manner.steps)
        self._scale: Scale = "probability"
        if manner.reward is not None:
            caller = run.session.caller(manner.reward)
            caller.check_scoring(run.meter, finished=False)
            self._scale = caller.backend.capabilities.score_scale
        self._writer = run.session.caller(manner.model)
        self._usage: dict[str, Usage] = {}
        """What each sample used, by its id."""

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities."""
        return self._scale in ("probability", "logit")

    @property
    def scale(self) -> Scale:
        """What the scores of partial answers are."""
        return "probability" if self.calibrated else self._scale

    def used(self, partial: Partial) -> Usage:
        """What writing all its steps used."""
        return sum((self._usage.get(sample, NOTHING) for sample in partial.samples), NOTHING)

    async def grow(self, wishes: Sequence[Wish]) -> list[list[Partial]]:
        """The continuations of each wish, scored; fewer where calls failed or a budget ran out."""
        grown = await self._extended([(wish.partial, wish.n) for wish in wishes])
        looked = await self._looked_ahead(
            [(partial, wish) for wish, some in zip(wishes, grown, strict=True) for partial in some]
        )
        scored = iter(await self._scored(looked))
        return [[next(scored) for _ in some] for some in grown]

    # --- writing -----------------------------------------------------------------------------------

    async def _extended(
        self, wanted: Sequence[tuple[Partial, int]], *, greedy: bool = False, to_the_end: bool = False
    ) -> list[list[Partial]]:
        """So many continuations of each: by one step, or to the end."""
        counts: dict[str, int] = {}
        for partial, count in wanted:
            text = partial.text
            counts[text] = 1 if greedy else counts.get(text, 0) + count
        drawn = await self._run.gather(*(self._draw(t, n, greedy, to_the_end) for t, n in counts.items()))
        samples = dict(zip(counts, drawn, strict=True))
        results = []
        for partial, count in wanted:
            some = samples[partial.text]
            taken = some[:1] * count if greedy else [some.pop(0) for _ in range(min(count, len(some)))]
            results.append([self._continued(partial, sample) for sample in taken])
        return results

    async def _draw(self, prefix: str, count: int, greedy: bool, to_the_end: bool) -> list[Candidate]:
        manner = self._manner
        sampling = manner.sampling
        if greedy:
            sampling = sampling.model_copy(update={"temperature": 0.0})
        if isinstance(manner.steps, int):
            if not to_the_end:
                sampling = sampling.model_copy(update={"max_tokens": manner.steps})
        elif self._end is not None and not to_the_end:
            sampling = sampling.model_copy(update={"stop": (*self._stops(), self._end)})
        draw = self._run.sample(manner.model, n=count, system=manner.system, prefix=prefix, sampling=sampling)
        return sorted([sample async for sample in draw], key=lambda sample: sample.index)

    def _stops(self) -> tuple[str, ...]:
        """What ends a whole answer."""
        problem = self._run.problem
        as_text = self._writer.config.continues_text and problem.prompt is not None
        return self._manner.sampling.stop or (problem.stop if as_text else ())

    def _continued(self, partial: Partial, sample: Candidate) -> Partial:
        """The partial answer with what a sample adds to it."""
        self._usage[sample.id] = sample.usage
        at_delimiter = self._end is not None and sample.stop == self._end
        text = sample.text + (self._end or "" if at_delimiter else "")
        whole = sample.finish != "stop_string" and self._end is not None and self._end in text
        added = (
            cut(text, self._manner.steps) if whole and not isinstance(self._manner.steps, int) else (text,)
        )
        logprobs = sample.logprobs or ()
        longer = replace(
            partial,
            steps=(*partial.steps, *added),
            scores=(),
            value=None,
            tokens=partial.tokens + sample.usage.completion_tokens,
            logprob=math.fsum(token.logprob for token in logprobs),
            logprobs=len(logprobs),
            samples=(*partial.samples, sample.id),
            ahead=None,
        )
        if self._manner.reward is None:
            certainty = longer.certainty
            sure = 0.0 if certainty is None else math.exp(certainty)
            longer = replace(longer, scores=(*partial.scores, *(sure for _ in added)))
        return replace(longer, ending=self._ending(longer, sample, at_delimiter))

    def _ending(self, longer: Partial, sample: Candidate, at_delimiter: bool) -> Ending | None:
        if self._until is not None and self._until.search(longer.text):
            return "until"
        if sample.finish == "content_filter":
            return "filtered"
        more = at_delimiter or (
            isinstance(self._manner.steps, int) and sample.finish == "length" and bool(sample.text)
        )
        if more:
            return "steps" if len(longer.steps) >= self._manner.max_steps else None
        return "length" if sample.finish == "length" else "stop"

    async def _looked_ahead(self, grown: Sequence[tuple[Partial, Wish]]) -> list[Partial]:
        """Each with what it is rolled out to, where its wish asks for that."""
        heads = [partial for partial, _ in grown]
        ends = list(heads)
        wishes = [wish for _, wish in grown]
        step = 0
        while True:
            left = [
                i
                for i, wish in enumerate(wishes)
                if not ends[i].finished and (wish.ahead is None or step < wish.ahead)
            ]
            if not left:
                break
            for greedy in (True, False):
                for to_the_end in (True, False):
                    some = [
                        i
                        for i in left
                        if wishes[i].greedy is greedy and (wishes[i].ahead is None) is to_the_end
                    ]
                    if not some:
                        continue
                    further = await self._extended(
                        [(ends[i], 1) for i in some], greedy=greedy, to_the_end=to_the_end
                    )
                    for i, came in zip(some, further, strict=True):
                        if came:
                            ends[i] = came[0]
                        else:  # a call failed, or a budget ran out: it is judged as far as it came
                            wishes[i] = wishes[i]._replace(ahead=0)
            step += 1
        return [
            head if end is head else replace(head, ahead=end) for head, end in zip(heads, ends, strict=True)
        ]

    # --- scoring -----------------------------------------------------------------------------------

    async def _scored(self, partials: Sequence[Partial]) -> list[Partial]:
        """Each with the scores of its steps, and judged by those of what it was rolled out to."""
        ends = [partial.ahead or partial for partial in partials]
        if self._manner.reward is None:
            told: Sequence[tuple[float, ...] | None] = [end.scores for end in ends]
        else:
            told = await self._told(self._manner.reward, ends)
        return [self._judged(p, scores) for p, scores in zip(partials, told, strict=True)]

    async def _told(self, reward: str, ends: Sequence[Partial]) -> list[tuple[float, ...] | None]:
        found: list[tuple[float, ...] | None] = [None] * len(ends)

        async def ask(finished: bool) -> None:
            some = [i for i, end in enumerate(ends) if end.finished is finished]
            if not some:
                return
            replies = [ends[i].steps for i in some]
            told = await self._run.score(reward, replies, finished=finished)
            for i, scores in zip(some, told, strict=True):
                found[i] = scores

        await self._run.gather(ask(False), ask(True))
        return found

    def _judged(self, partial: Partial, scores: tuple[float, ...] | None) -> Partial:
        if not scores:
            return partial
        if self._scale == "logit":
            scores = tuple(convert(score, "logit", "probability") for score in scores)
        value = aggregated(scores, self._manner.aggregate, self.scale)
        if partial.ahead is not None:
            partial = replace(partial, ahead=partial.ahead.judged(scores, value))
        return partial.judged(scores[: len(partial.steps)], value)
