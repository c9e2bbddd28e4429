"""Budget forcing: thinking that is capped, or made to go on, before the answer is written.

Source: Muennighoff et al. 2025, "s1: Simple test-time scaling" (arXiv 2501.19393), section 3. A reply is thinking
between two marks, then an answer. Where the thinking reaches its limit of tokens, the closing mark and a cue for the
answer are written in the model's place, and it continues with the answer. Where it ends before, up to `waits` times,
the closing mark is taken away and a word such as "Wait" written instead, and the model goes on thinking.

Cost: 2 to 2 + waits calls for each answer, exactly: one for the thinking (fewer requests where the server takes n > 1,
as the first ones are drawn together), one each time it is made to go on (none once its tokens are used up), one for
the answer. Each continues what was written so far as a given beginning of the reply, which the server has to be able
to do; the prompts after the first hold it, and a server finds it in its prefix cache.

The limit counts the completion tokens that the server reports for the thinking, over all its calls, and is never
exceeded; what is written in the model's place is not counted. Where the calls that make it go on give nothing, the
answer is written after what was thought; where a budget ran out before an answer, there is none. Where requests are
limited, no more answers are begun than they are enough for; the last one waits less often if need be.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from archon.backends.base import Request, Sampling
from archon.candidate import Candidate
from archon.draw import Draw
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.strategies.chains import AHEAD, Emit, begins_with_few, chained, requests_left
from archon.strategies.writing import numbered, one
from archon.usage import NOTHING, Usage

_FINISH: Mapping[str, Literal["limit", "filtered"]] = {"length": "limit", "content_filter": "filtered"}


class Thinking(NamedTuple):
    """Thinking as far as it has come."""

    text: str = ""
    tokens: int = 0
    """Completion tokens, as the server reports them."""
    finish: Literal["ended", "limit", "filtered"] = "ended"
    """Whether the model ended it by itself, or what cut it off."""
    usage: Usage = NOTHING


class ThinkingBudget(Stage):
    """Draw n answers with so much thinking before each; they flow on as they are finished.

    The thinking stands in `reasoning`; the text is what comes after its closing mark, the cue included.
    """

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    model: str = "default"
    """Which of the session's models answers. It has to continue a given beginning."""
    n: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """How many answers."""
    thinking: Annotated[int, Field(ge=1)] | None = 2048
    """How many tokens the thinking may have; as many as the model's own limit lets each call have where null."""
    waits: Annotated[int, Field(ge=0)] = 0
    """How often thinking that ends by itself is made to go on, at most."""
    wait: Annotated[str, Field(min_length=1)] = "Wait"
    """What is written instead of the closing mark then."""
    open: str = "<think>\n"
    """What begins the thinking. Empty where the model's chat template writes it."""
    close: Annotated[str, Field(min_length=1)] = "</think>"
    """What ends it."""
    cue: str = "Final answer:"
    """What is written after the closing mark where the thinking was cut off, so that the answer follows at once."""
    system: str | None = None
    """A system message to put before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on the tokens of the answer, after the thinking; the model's own where not given."""
    stop: tuple[str, ...] = ()
    """Stop strings of the answer. They do not stop the thinking."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Server-specific fields, sent as they are with every call."""
    ahead: Annotated[int, Field(ge=1)] = AHEAD
    """How many answers are in work at once."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """The first thoughts are drawn together; each answer goes its own way from there."""
        caller = run.session.caller(self.model)
        caller.check(Request(prefix=self.close), run.meter)  # before anything is spent
        chances = _affordable(self.n, self.waits, requests_left(run))

        async def answer(reply: Candidate, number: int, emit: Emit) -> None:
            found = await self._answered(reply, number, chances[number], run)
            if found is not None:
                emit(found)

        async def from_reply(reply: Candidate, emit: Emit) -> None:
            await answer(reply, reply.index % len(chances), emit)

        async def from_number(number: int, emit: Emit) -> None:
            reply = await one(self._draw(run, "", self._thinking(self.thinking), number))
            if reply is not None:
                await answer(reply, number, emit)

        if begins_with_few(run):  # each when its turn has come
            chains = chained(run, _numbers(len(chances)), from_number, ahead=self.ahead)
        else:
            sampling = self._thinking(self.thinking)
            draw = run.sample(
                self.model, n=len(chances), system=self.system, prefix=self.open, sampling=sampling
            )
            chains = chained(run, draw, from_reply, ahead=self.ahead)
        async with aclosing(chains) as answers:
            async for found in answers:
                yield found

    def plan(self, incoming: Count) -> Plan:
        """2 calls for each answer, and one more for each time it may be made to go on."""
        n = Count(self.n, self.n)
        return Plan(Count(2 * self.n, (2 + self.waits) * self.n), n)

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    @property
    def sampling(self) -> Sampling:
        """How answers are sampled, with the larger limit of a call: that of thinking, or that of an answer."""
        limits = (self.thinking, self.max_tokens)
        most = None if None in limits else max(limit for limit in limits if limit is not None)
        return self._answering.model_copy(update={"max_tokens": most})

    # --- one answer --------------------------------------------------------------------------------

    async def _answered(self, reply: Candidate, number: int, waits: int, run: Run) -> Candidate | None:
        """The answer that follows a first thought; None where its call gives none."""
        thinking = self._longer(Thinking(), reply)
        waited = 0
        while thinking.finish == "ended" and waited < waits and (left := self._left(thinking)) != 0:
            begun = thinking._replace(text=_followed(thinking.text, self.wait))
            more = await one(self._draw(run, begun.text, self._thinking(left), number))
            if more is None:
                break
            thinking, reply, waited = self._longer(begun, more), more, waited + 1
        run.trace("thinking", tokens=thinking.tokens, waits=waited, finish=thinking.finish)
        if thinking.finish == "filtered":  # what a filter cut off is not gone on from
            return numbered(replace(reply, text="", reasoning=thinking.text, usage=thinking.usage), number)
        forced = thinking.finish == "limit"
        closed = _followed(thinking.text, self.close) if forced else f"{thinking.text}{self.close}"
        cue = self.cue if forced else ""
        answer = await one(self._draw(run, f"{closed}\n\n{cue}" if cue else closed, self._answering, number))
        if answer is None:
            return None
        # A server that tells reasoning from text by marks that it does not see now may call the answer reasoning.
        text = (cue + (answer.text or answer.reasoning)).lstrip()
        usage = thinking.usage + answer.usage
        return numbered(replace(answer, text=text, reasoning=thinking.text, usage=usage), number)

    def _longer(self, thinking: Thinking, reply: Candidate) -> Thinking:
        """With what a call adds: what is before the closing mark, where a server does not stop at it."""
        text, mark, _ = (reply.reasoning + reply.text).partition(self.close)
        return Thinking(
            thinking.text + text,
            thinking.tokens + reply.usage.completion_tokens,
            "ended" if mark else _FINISH.get(reply.finish, "ended"),
            thinking.usage + reply.usage,
        )

    def _left(self, thinking: Thinking) -> int | None:
        """How many tokens it may still have; None where there is no limit."""
        return None if self.thinking is None else max(0, self.thinking - thinking.tokens)

    def _draw(self, run: Run, written: str, sampling: Sampling, number: int) -> Draw:
        """What follows, where so much has been written."""
        prefix = self.open + written
        return run.sample(self.model, system=self.system, prefix=prefix, sampling=sampling, place=number + 1)

    def _thinking(self, tokens: int | None) -> Sampling:
        """How thinking is sampled."""
        return self._answering.model_copy(update={"max_tokens": tokens, "stop": (self.close,)})

    @property
    def _answering(self) -> Sampling:
        """How an answer is."""
        return Sampling(
            **{name: value for name, value in self.given().items() if name in Sampling.model_fields}
        )


def _affordable(n: int, waits: int, requests: int | None) -> list[int]:
    """How often each answer may wait, for as many answers as so many requests are enough for."""
    if requests is None:
        return [waits] * n
    whole, left = divmod(max(0, requests), 2 + waits)
    chances = [waits] * min(n, whole)
    return [*chances, left - 2] if len(chances) < n and left >= 2 else chances


def _followed(text: str, word: str) -> str:
    """The text with a word written after it, on a line of its own where neither brings white space along."""
    apart = not text or text[-1].isspace() or word[0].isspace()
    return text + word if apart else f"{text}\n{word}"


async def _numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number
