"""A backend whose replies you write: for tests, demonstrations and dry runs.

    model = Scripted(reply=lambda call: "42" if call.index % 3 else "41", latency=0.05)
    reward = Scripted(score=lambda text: 0.9 if text.endswith("42") else 0.1)

Replies come from a function of the call, or from a table by problem id. Latency, failures and the pace
of streaming are the script's to choose, and everything is deterministic in (request, sample index), so
a test can say exactly what happens.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import ConfigDict, Field

from archon.backends.base import (
    Capabilities,
    Completion,
    LikelihoodRequest,
    Model,
    Progress,
    Request,
    Scored,
    ScoreRequest,
    Scores,
    Tokens,
)
from archon.candidate import Finish, Scale, TokenLogprob
from archon.errors import NotRecorded


class Call(NamedTuple):
    """One sample that is asked for, as a script sees it."""

    request: Request
    index: int  # type: ignore[assignment]
    """The sample's index in its pool."""
    attempt: int
    """How often this sample has been asked for before: 0, 1, ..."""

    @property
    def problem(self) -> str:
        """The problem's id."""
        return self.request.problem

    @property
    def text(self) -> str:
        """What is asked: the raw prompt, or the last message."""
        if self.request.prompt is not None:
            return self.request.prompt
        return self.request.messages[-1].content if self.request.messages else ""


@dataclass(frozen=True)
class Reply:
    """A scripted sample: text, how it ended, when it comes."""

    text: str
    finish: Finish = "stop"
    stop: str | None = None
    reasoning: str = ""
    latency: float | None = None
    """Seconds until it is finished; the model's `latency` where not given."""
    tokens: Tokens | None = None
    """Tokens to report; words are counted where not given."""
    logprobs: tuple[TokenLogprob, ...] | None = None


Script = Callable[[Call], "str | Reply | Exception"]


class Scripted(Model):
    """A model that replies as its script says.

    The script is a function of a `Call` that returns text, a `Reply`, or an exception to raise (raising
    it does the same); or a table of replies by problem id, of which sample i gets the i-th (or, with
    `cycle`, the i-th modulo their number).
    """

    name: ClassVar[str] = "scripted"
    model_config = ConfigDict(arbitrary_types_allowed=True)

    reply: Script | None = None
    """A function of the call (from Python only)."""
    replies: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Replies by problem id; `"*"` serves every other problem."""
    cycle: bool = False
    """Start a table over when it is used up, instead of refusing."""
    score: Callable[[str], float] | None = None
    """A function of a reply's text up to a step's end: its score, or an exception to raise (from Python only)."""
    likelihood: Callable[[str, str, bool], float] | None = None
    """A function of a reply's beginning, the step after it, and whether the reply ends with that: the step's
    log-probability, finite, or an exception to raise (from Python only)."""
    scores: Scores = "steps"
    """What of a reply it scores."""
    score_scale: Scale = "probability"
    """What its scores are."""
    latency: Annotated[float, Field(ge=0)] = 0.0
    """Seconds a sample, or scoring, takes."""
    max_n: Annotated[int, Field(ge=1)] = 1
    """Samples, and replies to score or to read, that it takes per request."""
    reports_partial: bool = True
    """Whether it knows how much a cancelled call had generated."""
    identity: str = ""
    """Tells its samples from another script's in a store; derived from a table, or the function's name."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Further attempts after a retryable error."""

    @property
    def label(self) -> str:
        """Scripts have no price but their own."""
        return f"scripted:{self.identity}"

    def connect(self) -> ScriptedBackend:
        """Ready at once."""
        return ScriptedBackend(self)


class ScriptedBackend:
    """Plays a script. `calls`, `scored` and `read` list what was asked, `cancelled` what was cut off, for tests to
    see."""

    def __init__(self, config: Scripted) -> None:
        self.config = config
        self.calls: list[Call] = []
        self.scored: list[ScoreRequest] = []
        self.read: list[LikelihoodRequest] = []
        self.cancelled: list[Call] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._known: dict[tuple[str, ...], tuple[tuple[float, ...], int]] = {}
        self._attempts: defaultdict[str, Counter[int]] = defaultdict(Counter)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """By its name, its table, or its function's name."""
        config = self.config
        mark = config.identity
        if not mark and config.reply is not None:
            mark = f"{config.reply.__module__}.{config.reply.__qualname__}"
        if not mark and config.score is not None:
            mark = f"{config.score.__module__}.{config.score.__qualname__}"
        if not mark and config.likelihood is not None:
            mark = f"{config.likelihood.__module__}.{config.likelihood.__qualname__}"
        if not mark:
            table = json.dumps({k: list(v) for k, v in config.replies.items()}, sort_keys=True)
            mark = hashlib.sha256(table.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return {"backend": "scripted", "model": mark}

    @property
    def endpoint(self) -> str:
        """One per script."""
        return f"scripted {self.identity['model']}"

    @cached_property
    def capabilities(self) -> Capabilities:
        """Everything: it is only a script."""
        return Capabilities(
            max_n=self.config.max_n,
            prefix=True,
            logprobs=True,
            seed=True,
            raw_prompt=True,
            truncation_params=True,
            aborts=True,
            scores=None if self.config.score is None else self.config.scores,
            score_scale=self.config.score_scale,
            max_replies=self.config.max_n,
            likelihoods=self.config.likelihood is not None,
        )

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Each sample when its latency is over; those of one request run side by side."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        progress.sent = True
        prompt_tokens = max(1, len(_asked(request).split()))
        if self.config.reports_partial:
            progress.prompt_tokens, progress.completion_tokens = prompt_tokens, 0
        calls = self._calls(request, indices)
        self.in_flight += len(calls)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        open_calls = list(calls)
        try:
            replies = [(call, self._reply(call)) for call in calls]
            first = True
            for call, reply in sorted(replies, key=lambda pair: self._latency(pair[1])):
                pause = started + self._latency(reply) - loop.time()
                if pause > 0:
                    await asyncio.sleep(pause)
                if isinstance(reply, Exception):
                    open_calls.remove(call)
                    self.in_flight -= 1
                    raise reply
                tokens = reply.tokens or Tokens(
                    prompt_tokens if first else 0, completion=max(1, len(reply.text.split()))
                )
                open_calls.remove(call)
                self.in_flight -= 1
                yield Completion(
                    call.index,
                    reply.text,
                    reply.finish,
                    reply.stop,
                    reply.reasoning,
                    reply.logprobs,
                    tokens,
                    requests=1 if first else 0,
                )
                first = False
        finally:
            self.in_flight -= len(open_calls)
            self.cancelled.extend(open_calls)

    async def score(self, request: ScoreRequest, progress: Progress) -> list[Scored]:
        """When its latency is over, what the script says of each."""
        script = self.config.score
        assert script is not None, "only where its capabilities say so"
        self.scored.append(request)
        question = sum(len(m.content.split()) for m in request.messages)
        await self._wait(question * len(request.replies), progress)
        found = []
        for place, steps in enumerate(request.replies):
            if self.config.scores == "steps":
                told, words = self._told(script, steps)
            else:
                text = "".join(steps)
                told, words = (script(text),), len(text.split())
            found.append(Scored(told, Tokens(question + words), requests=1 if place == 0 else 0))
        return found

    def _told(self, script: Callable[[str], float], steps: tuple[str, ...]) -> tuple[tuple[float, ...], int]:
        """What the script says up to each step's end, and the words it has read. As an engine does with what it has in
        its cache, it goes on from the longest beginning that it was asked about before."""
        known = len(steps)
        while known and steps[:known] not in self._known:
            known -= 1
        told, words = self._known.get(steps[:known], ((), 0))
        for end in range(known + 1, len(steps) + 1):
            told = (*told, script("".join(steps[:end])))
            words += len(steps[end - 1].split())
        self._known[steps] = told, words
        return told, words

    async def likelihoods(self, request: LikelihoodRequest, progress: Progress) -> list[Scored]:
        """When its latency is over, what the script says of each step. A word is a token, and so is a reply's end."""
        script = self.config.likelihood
        assert script is not None, "only where its capabilities say so"
        self.read.append(request)
        texts = [m.content for m in request.messages] if request.prompt is None else [request.prompt]
        question = sum(len(text.split()) for text in texts)
        await self._wait(question * len(request.replies), progress)
        found = []
        for place, steps in enumerate(request.replies):
            ends = [request.finished and number == len(steps) for number in range(1, len(steps) + 1)]
            told = tuple(
                script("".join(steps[:number]), step, end) if step or end else 0.0
                for number, (step, end) in enumerate(zip(steps, ends, strict=True))
            )
            counts = tuple(len(step.split()) + end for step, end in zip(steps, ends, strict=True))
            tokens = Tokens(question + len("".join(steps).split()))
            found.append(Scored(told, tokens, requests=1 if place == 0 else 0, counts=counts))
        return found

    async def _wait(self, prompt_tokens: int, progress: Progress) -> None:
        progress.sent = True
        if self.config.reports_partial:
            progress.prompt_tokens, progress.completion_tokens = prompt_tokens, 0
        await asyncio.sleep(self.config.latency)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _calls(self, request: Request, indices: Sequence[int]) -> list[Call]:
        attempts = self._attempts[request.encoded]
        calls = [Call(request, index, attempts[index]) for index in indices]
        attempts.update(indices)
        self.calls += calls
        return calls

    def _latency(self, reply: Reply | Exception) -> float:
        if isinstance(reply, Exception) or reply.latency is None:
            return self.config.latency
        return reply.latency

    def _reply(self, call: Call) -> Reply | Exception:
        config = self.config
        if config.reply is not None:
            try:
                reply = config.reply(call)
            except Exception as error:
                return error
            return Reply(reply) if isinstance(reply, str) else reply
        table = config.replies.get(call.problem, config.replies.get("*"))
        if table is None:
            return NotRecorded(
                f"the script has no replies for problem {call.problem!r}; add them, or some for '*'"
            )
        if not config.cycle and call.index >= len(table):
            return NotRecorded(
                f"the script has {len(table)} replies for problem {call.problem!r} and is asked for number "
                f"{call.index + 1}; add some, ask for fewer, or set `cycle: true`"
            )
        if not table:
            return NotRecorded(f"the script's list of replies for problem {call.problem!r} is empty")
        return Reply(table[call.index % len(table)])


def _asked(request: Request) -> str:
    if request.prompt is not None:
        return request.prompt
    return " ".join(m.content for m in request.messages)
