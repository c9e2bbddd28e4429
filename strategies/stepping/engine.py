"""What extends and scores partial answers: all that are wanted at once, each distinct beginning asked for once.

Every wish of a round is a sample whose beginning is given, so the server's prefix cache holds what it continues, and
all of them are in flight together, beside those of other problems: the server batches them. Those that want the same
beginning continued are one draw of several samples. What is finished is never asked for again. All new partial
answers of a round are scored together; equal ones once.

Cost of a round: one call per continuation that is wanted, and one per further step of a roll-out (one in all where it
goes to the end); a reward model's call for each new partial answer, or per batch of them where it takes several. What
is given and only weighed costs a reading by the writer, and as much of the reward model. A score that failed for a
passing reason is asked for again where a later round needs it, twice at most: as retries, on top of that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from archon.backends.base import Request, Sampling
from archon.candidate import Candidate, Scale
from archon.errors import CapabilityError
from archon.run import Likelihood, Run
from archon.steps import Aggregation, Steps, aggregated, convert
from archon.strategies.stepping.continuing import Rules, continued
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import Weigh, Wish
from archon.strategies.stepping.weighing import closed, joined, likely, reply
from archon.usage import NOTHING, Usage, total


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
    weighs: bool = False
    """Whether the writer is to tell how likely given continuations are."""


class _Ask(NamedTuple):
    """What is asked of the writer. Those who ask the same share one draw."""

    prefix: str
    greedy: bool = False
    to_the_end: bool = False
    most: int | None = None
    """A limit on the new tokens of a roll-out to the end, where there is one."""


class Engine:
    """Extends and scores the partial answers of one problem.

    Raises, before anything is spent, CapabilityError where the writer cannot continue a given beginning or does not
    tell what ended a step, the reward model cannot score a beginning, or a product is to be made of scores that are no
    probabilities; where given continuations are to be weighed,
    also where the writer cannot, or samples otherwise than by its own probabilities; UnknownName; UnpricedModel.
    """

    def __init__(self, manner: Manner, run: Run) -> None:
        self._manner = manner
        self._run = run
        session, problem, steps = run.session, run.problem, manner.steps
        self._scale: Scale = "probability"
        if manner.reward is not None:
            caller = session.caller(manner.reward)
            caller.check_scoring(run.meter, finished=False)
            self._scale = caller.backend.capabilities.score_scale
            if manner.aggregate == "product" and not self.calibrated:
                raise CapabilityError(
                    f"`aggregate: product` needs probabilities, and the scores of model {manner.reward!r} are "
                    "uncalibrated. Take `min`, `mean` or `last`"
                )
        writer = session.caller(manner.model)
        as_text = writer.config.continues_text and problem.prompt is not None
        stops = session.sampling(manner.model, manner.sampling).stop or (problem.stop if as_text else ())
        until = None if manner.until is None else re.compile(manner.until)
        self._rules = Rules(steps, stops, until, manner.max_steps, manner.reward is None)
        end = self._rules.end
        own: dict[str, Any] = {"stop": (*stops, end)} if end is not None else {"max_tokens": steps}
        self._step = manner.sampling.model_copy(update=own)
        """How a step is sampled."""
        if end is not None and not writer.backend.capabilities.tells_stop:
            raise CapabilityError(
                f"model {manner.model!r} ({writer.backend.endpoint}) does not say which stop string ended a reply, so "
                f"the end of a step ({end!r}) cannot be told from the end of the answer. Let steps be so many tokens "
                "(`steps: {tokens: 64}`), or, if this server says it, set `tells_stop` in the model's `capabilities`"
            )
        writer.check(Request(problem.messages, None, "a beginning", self._step), run.meter)
        if manner.weighs:
            writer.check_likelihoods(run.meter)
            _check_own(manner.model, session.sampling(manner.model, manner.sampling), stops)
        unlimited = manner.sampling.model_copy(update={"max_tokens": None})
        self._most = session.sampling(manner.model, unlimited).max_tokens
        """The model's own limit on new tokens."""
        self._greedy: dict[_Ask, list[Candidate]] = {}
        """What is likeliest after a beginning, which is the same whenever it is asked for."""
        self._usage: dict[str, Usage] = {}
        """What each sample used, by its id."""
        self._round = 0

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
        return total(self._usage.get(sample, NOTHING) for sample in partial.samples)

    async def grow(self, wishes: Sequence[Wish | Weigh]) -> list[list[Partial]]:
        """The continuations of each wish, scored; fewer where calls failed or a budget ran out."""
        self._round += 1
        growing = [wish for wish in wishes if isinstance(wish, Wish)]
        if len(growing) == len(wishes):
            return await self._grown(growing)
        weighing = [wish for wish in wishes if isinstance(wish, Weigh)]
        grown, weighed = map(iter, await self._run.gather(self._grown(growing), self._weighed(weighing)))
        return [next(grown if isinstance(wish, Wish) else weighed) for wish in wishes]

    async def _grown(self, wishes: Sequence[Wish]) -> list[list[Partial]]:
        asks = [(wish.partial, wish.n, _Ask(wish.partial.text)) for wish in wishes]
        grown = await self._extended(asks)
        looked = await self._looked_ahead(
            [(partial, wish) for wish, some in zip(wishes, grown, strict=True) for partial in some]
        )
        scored = iter(await self._scored(looked))
        return [[next(scored) for _ in some] for some in grown]

    # --- writing -----------------------------------------------------------------------------------

    async def _extended(self, wanted: Sequence[tuple[Partial, int, _Ask]]) -> list[list[Partial]]:
        """So many continuations of each."""
        counts: dict[_Ask, int] = {}
        for _, count, ask in wanted:
            if ask not in self._greedy:
                counts[ask] = 1 if ask.greedy else counts.get(ask, 0) + count
        drawn = await self._run.gather(*(self._draw(ask, count) for ask, count in counts.items()))
        samples = dict(zip(counts, drawn, strict=True))
        self._greedy.update({ask: some for ask, some in samples.items() if ask.greedy and some})
        results = []
        for partial, count, ask in wanted:
            if ask.greedy:
                taken = self._greedy.get(ask, []) * count
            else:
                taken, samples[ask] = samples[ask][:count], samples[ask][count:]
            results.append([self._continued(partial, ask, sample) for sample in taken])
        return results

    async def _draw(self, ask: _Ask, count: int) -> list[Candidate]:
        manner = self._manner
        sampling = self._step
        if ask.to_the_end:
            sampling = manner.sampling.model_copy(update={"max_tokens": ask.most})
        if ask.greedy:
            sampling = sampling.model_copy(update={"temperature": 0.0})
        draw = self._run.sample(
            manner.model,
            n=count,
            system=manner.system,
            prefix=ask.prefix,
            sampling=sampling,
            place=1 if ask.greedy else 0,
        )
        return sorted([sample async for sample in draw], key=lambda sample: sample.index)

    def _continued(self, partial: Partial, ask: _Ask, sample: Candidate) -> Partial:
        self._usage[sample.id] = sample.usage
        return continued(partial, sample, self._rules, before=ask.prefix, to_the_end=ask.to_the_end)

    async def _looked_ahead(self, grown: Sequence[tuple[Partial, Wish]]) -> list[Partial]:
        """Each with what it is rolled out to, where its wish asks for that."""
        heads = [partial for partial, _ in grown]
        ends = list(heads)
        left = [i for i, (partial, wish) in enumerate(grown) if wish.ahead != 0 and not partial.finished]
        step = 0
        while left:
            came = await self._extended([(ends[i], 1, self._further(ends[i], grown[i][1])) for i in left])
            step += 1
            further = []
            for i, some in zip(left, came, strict=True):
                if not some:  # a call failed, or a budget ran out: it is judged as far as it came
                    continue
                ends[i] = some[0]
                if not ends[i].finished and grown[i][1].ahead != step:
                    further.append(i)
            left = further
        return [
            head if end is head else replace(head, ahead=end) for head, end in zip(heads, ends, strict=True)
        ]

    def _further(self, end: Partial, wish: Wish) -> _Ask:
        """What is asked to roll a partial answer out."""
        if wish.ahead is not None:
            return _Ask(end.text, wish.greedy)
        manner = self._manner
        each = manner.steps if isinstance(manner.steps, int) else manner.sampling.max_tokens
        limits = [self._most, None if each is None else each * (manner.max_steps - len(end.steps))]
        most = min((limit for limit in limits if limit is not None), default=None)
        return _Ask(end.text, wish.greedy, True, most)

    # --- weighing ----------------------------------------------------------------------------------

    async def _weighed(self, wishes: Sequence[Weigh]) -> list[list[Partial]]:
        """What each makes of its beginning, with how likely that is."""
        certain = self._rules.certain
        made = [joined(wish, self._rules) for wish in wishes]
        likelihoods: list[Sequence[Likelihood] | None] = [None] * len(wishes)

        async def read(finished: bool) -> None:
            some = [i for i, wish in enumerate(wishes) if made[i] and closed(wish, self._rules) is finished]
            if not some:
                return
            replies = [reply(wishes[i], each=certain) for i in some]
            manner = self._manner
            told = await self._run.likelihoods(
                manner.model, replies, system=manner.system, sampling=manner.sampling, finished=finished
            )
            for i, one in zip(some, told, strict=True):
                likelihoods[i] = one

        scored: list[tuple[float, ...] | None] = []

        async def score(reward: str) -> None:
            """Of what each ends in, and of the same steps without an end where the last round adds that alone."""
            scored.extend(await self._told(reward, [end for some in made for end in _distinct(some)]))

        judging = () if self._manner.reward is None else (score(self._manner.reward),)
        await self._run.gather(read(False), read(True), *judging)
        scores = iter(scored)
        found: list[list[Partial]] = []
        for wish, some, told in zip(wishes, made, likelihoods, strict=True):
            known = {end: None if certain else next(scores) for end in _distinct(some)}
            if not some or told is None or (not certain and None in known.values()):
                found.append([])
                continue
            last = known.get(some[-1]) or ()
            judged = []
            for partial, weighed in zip(some, likely(wish, some, told, certain=certain), strict=True):
                own = weighed.scores if certain else known.get(partial) or last[: len(partial.steps)]
                judged.append(self._judged(weighed, own))
            found.append(judged)
        return found

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
            told = await self._run.score(reward, replies, finished=finished, round=self._round)
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


def _distinct(joined: Sequence[Partial]) -> list[Partial]:
    """The last, and before it what has as many steps: their scores are not among its own."""
    return [partial for partial in joined if len(partial.steps) == len(joined[-1].steps)]


def _check_own(model: str, sampling: Sampling, stops: Sequence[str]) -> None:
    """Raise CapabilityError where samples do not come by the model's own probabilities, or do not end by them."""
    cut = sampling.top_k is not None or sampling.top_p not in (None, 1.0) or sampling.min_p not in (None, 0.0)
    if sampling.temperature != 1.0 or cut:
        raise CapabilityError(
            f"given text is weighed by the probabilities of model {model!r} itself, and its samples are not drawn by "
            "them. Set `temperature: 1`, and leave out `top_p`, `top_k` and `min_p`"
        )
    if stops:
        raise CapabilityError(
            f"given text is weighed with its end, and stop strings ({', '.join(map(repr, stops))}) may end an answer "
            f"of model {model!r} as well as the model itself, which cannot be told apart. Leave them out"
        )
