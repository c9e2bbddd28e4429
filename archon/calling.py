"""Calling a model: concurrency that adapts, retries that are counted, bills that are complete.

All backends are called through here, so that none of them needs to retry, throttle or price. For each
call: hold its worst case in every budget, wait for a slot at the endpoint, call, charge what it used;
on a retryable error wait (honouring Retry-After) and try again, each attempt held and billed by
itself.

Concurrency follows additive increase, multiplicative decrease (as TCP does; design/concurrency.md):
the limit grows while calls succeed and use it fully, and halves on 429 or 503.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
from abc import abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from archon import abilities
from archon.backends.base import (
    Backend,
    Completion,
    LikelihoodRequest,
    Model,
    Progress,
    Reader,
    Request,
    Scored,
    Scorer,
    ScoreRequest,
    Starts,
    Tokens,
)
from archon.budget import FREE, Hold, Meter
from archon.errors import (
    BackendError,
    BadReply,
    BudgetExhausted,
    CallTimedOut,
    ConnectionDropped,
    EndpointDown,
    Overloaded,
    RateLimited,
    RequestRejected,
    RetryableError,
    UnpricedModel,
)
from archon.prices import Price, price_of
from archon.store.base import AttemptKind
from archon.usage import NOTHING, ZERO_USD, Usage

_BYTES_PER_TOKEN = 4
"""For estimates only (English text with a modern tokenizer); bounds use one byte per token."""
_UNLIMITED = 1_000_000
"""Reserved for a reply without any limit: more than any model gives."""
FAILURES_UNTIL_DOWN = 20
"""So many in a row, and the model is at fault and not what it is asked."""
_LONGEST_PAUSE = 60.0


class Gate:
    """The slots of one endpoint."""

    def __init__(self, start: int, most: int) -> None:
        self.limit = float(min(start, most))
        self.most = most
        self.in_use = 0
        self.failures_in_a_row = 0
        self.ever_answered = False
        self.unreachable = False
        """Whether the last that came to an end could not even connect."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._resume_at = 0.0
        self._halved_at = -math.inf
        self._probing = True
        """Until the first refusal the limit grows by one per success, which doubles it per round trip."""

    async def __aenter__(self) -> None:
        """Wait for a slot, and hold it."""
        loop = asyncio.get_running_loop()
        if self.in_use >= int(self.limit) or self._waiting or loop.time() < self._resume_at:
            ticket: asyncio.Future[None] = loop.create_future()
            self._waiting.append(ticket)
            self._admit()
            try:
                await ticket
            except asyncio.CancelledError:
                if ticket.done() and not ticket.cancelled():
                    self._leave()
                elif ticket in self._waiting:
                    self._waiting.remove(ticket)
                raise
        else:
            self.in_use += 1

    async def __aexit__(self, *exc: object) -> None:
        self._leave()

    def succeeded(self) -> None:
        """A call was answered."""
        self.failures_in_a_row = 0
        self.ever_answered = True
        self.unreachable = False
        if self.in_use >= int(self.limit) and self.limit < self.most:
            self.limit = min(self.most, self.limit + (1.0 if self._probing else 1.0 / self.limit))
            self._admit()

    def refused(self, started: float, retry_after: float | None) -> None:
        """The server asked to slow down; `started` is when the refused call began."""
        now = asyncio.get_running_loop().time()
        if started >= self._halved_at:  # one halving per round trip, however many calls were refused in it
            self.limit = max(1.0, self.limit / 2)
            self._halved_at = now
            self._probing = False
        if retry_after:
            self._resume_at = max(self._resume_at, now + min(retry_after, _LONGEST_PAUSE))

    def _leave(self) -> None:
        self.in_use -= 1
        self._admit()

    def _admit(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self._resume_at - loop.time()
        if pause > 0:
            if self._waiting:
                loop.call_later(pause, self._admit)
            return
        while self._waiting and self.in_use < int(self.limit):
            ticket = self._waiting.popleft()
            if not ticket.done():
                self.in_use += 1
                ticket.set_result(None)


class Billed(NamedTuple):
    """What one call or attempt used, for the ledger and the store."""

    kind: AttemptKind
    indices: tuple[int, ...]
    usage: Usage
    error: str = ""


class Caller:
    """One named model, ready to be called."""

    def __init__(
        self, name: str, config: Model, backend: Backend, gate: Gate, prices: Path | None = None
    ) -> None:
        self.name = name
        self.config = config
        self.backend = backend
        self.gate = gate
        self.price: Price | None = config.price
        self.price_source = "its configuration"
        if self.price is None:
            self.price, self.price_source = price_of(config.label, prices)
        self.flops, self.shape = config.flops(), config.shape()
        self._starts = backend if isinstance(backend, Starts) else None
        self._tokens_per_second = 0.0
        self.odd_in_a_row = 0
        """Scores that were no numbers, since the last that was one."""
        self._max_n = backend.capabilities.max_n
        self._jitter = random.Random(f"{name}|{os.getpid()}")  # processes that share a server spread out

    @property
    def max_n(self) -> int:
        """Samples the server gives per request (lowered when a server turns out to ignore n)."""
        return self._max_n

    def check(self, request: Request, meter: Meter) -> None:
        """Raise CapabilityError or UnpricedModel before anything is spent."""
        abilities.check(self.name, self.backend, request)
        self._check_prices(meter)

    def check_scoring(self, meter: Meter, *, finished: bool) -> Scorer:
        """The backend as what scores replies. Raises CapabilityError or UnpricedModel."""
        scorer = abilities.scorer(self.name, self.backend, finished=finished)
        self._check_prices(meter)
        return scorer

    def check_likelihoods(self, meter: Meter) -> Reader:
        """The backend as what tells the log-probability of given text. Raises CapabilityError or UnpricedModel."""
        reader = abilities.reader(self.name, self.backend)
        self._check_prices(meter)
        return reader

    def _check_prices(self, meter: Meter) -> None:
        limited = meter.limited()
        if "usd" in limited and self.price is None:
            raise UnpricedModel(
                f"a budget counts dollars, and model {self.name!r} ({self.config.label}) has no price. "
                "Give it `price: {input: ..., output: ...}` ($ per million tokens), "
                "or put it into the table named by ARCHON_PRICES"
            )
        if "flops" in limited and self.flops is None:
            raise UnpricedModel(
                f"a budget counts FLOPs, and the size of model {self.name!r} ({self.config.label}) is unknown. "
                "Give it `parameters:`, the number of active parameters, or its `architecture:`"
            )

    def max_tokens(self, request: Request | ScoreRequest) -> int:
        """The limit on new tokens per sample; scoring writes none, or the one that judges. Servers that read given
        text write one token after it."""
        if isinstance(request, LikelihoodRequest):
            return 1
        if isinstance(request, ScoreRequest):
            return self.backend.capabilities.max_tokens or 0
        limits = (request.sampling.max_tokens, self.config.max_tokens, self.backend.capabilities.max_tokens)
        return next((limit for limit in limits if limit is not None), _UNLIMITED)

    def worst_case(
        self,
        request: Request | ScoreRequest,
        samples: int,
        prompt_tokens: int | None = None,
        first: bool = True,
    ) -> Usage:
        """An upper bound of what one request for so many samples can use; not `first`: of further samples of
        a request, whose prompt came with another sample."""
        prompt = request.prompt_bound if prompt_tokens is None else prompt_tokens
        tokens = Tokens(prompt if first else 0, completion=self.max_tokens(request) * samples)
        return self._apart(request, self._usage(tokens, 1 if first else 0, samples=samples, context=prompt))

    def _apart(self, request: Request | ScoreRequest, usage: Usage) -> Usage:
        """With the work of each reply by itself, where replies are scored: they do not see one another."""
        if self.flops is None or not self.flops.exact or not isinstance(request, ScoreRequest):
            return usage
        each = -(-usage.completion_tokens // len(request.replies))
        reads = request.shares(usage.prompt_tokens)
        return usage._replace(flops=sum(self.flops.of(read, 0, each) for read in reads))

    async def call(
        self,
        request: Request,
        indices: Sequence[int],
        meter: Meter,
        deliver: Callable[[Completion, Usage], None],
        bill: Callable[[Billed], None],
        prompt_tokens: int | None = None,
    ) -> Sequence[int]:
        """Get these samples by one request, retrying as needed; `deliver` gets each as it finishes.

        Returns those that are still to be asked for: a server may give fewer per request, a budget may be enough for
        fewer, and samples with seeds must follow each other to be drawn by one. `bill` gets every attempt that gave no
        sample. `prompt_tokens` is the prompt's true size where known. Raises BudgetExhausted, or the last error once
        retrying is over.
        """
        size = self._affordable(request, request.joinable(indices[: self.max_n]), meter, prompt_tokens)
        wanted, others = indices[:size], indices[size:]
        asking = _Asking(self, request, wanted, deliver, bill, prompt_tokens)
        try:
            await self._persist(asking, meter)
        except BudgetExhausted:  # others spent in the meantime, and may have left enough for fewer
            if not meter.could_hold(self.worst_case(request, 1, prompt_tokens)):
                raise
            return (*asking.missing, *others)
        if asking.missing:  # fewer choices than asked for: this server ignores n
            self._max_n = 1
        return (*asking.missing, *others)

    def _affordable(self, request: Request, most: int, meter: Meter, prompt_tokens: int | None) -> int:
        """How many samples one request is for: as many as a budget can hold the worst case of, and at least one."""
        if meter.unlimited:
            return most

        def too_many(samples: int) -> bool:
            return not meter.could_hold(self.worst_case(request, samples, prompt_tokens))

        return 1 + bisect_left(range(2, most + 1), True, key=too_many)

    async def score(
        self, request: ScoreRequest, meter: Meter, bill: Callable[[Billed], None]
    ) -> Sequence[tuple[Scored, Usage]]:
        """Have replies scored (or given texts read) by one request, retrying as needed; each with what it used.

        `bill` gets every attempt that gave no scores. Raises as `call` does.
        """
        scoring = _Scoring(self, request, bill)
        await self._persist(scoring, meter)
        return scoring.scored

    async def _persist(self, work: _Work, meter: Meter) -> None:
        """Attempt it until it succeeds, each attempt held and billed by itself."""
        retries = 0
        while True:
            if self._starts is not None:
                await self._starts.ready()
            hold = FREE if meter.unlimited else await meter.reserve(work.worst())
            work.begin(hold)
            try:
                async with self.gate:
                    if self._starts is not None:  # it may have died while we waited
                        await self._starts.ready()
                    await work.attempt()
                    self.gate.succeeded()
                return
            except asyncio.CancelledError:
                work.settle("cancelled")
                raise
            except BackendError as error:
                self.gate.unreachable = not work.sent
                again = self._again(error, work, retries)
                work.settle("retried" if again else "failed", error)
                if not again:
                    raise self._final(error) from error
                retries += 1
                pause = self._pause(error, retries)
            except Exception as error:  # a fault of the backend's own: the call was made all the same
                work.settle("failed", BackendError(f"{type(error).__name__}: {error}"))
                raise
            finally:
                hold.close()
            await asyncio.sleep(pause)

    def _again(self, error: BackendError, work: _Work, retries: int) -> bool:
        """Whether to try once more; the endpoint's state is noted."""
        if isinstance(error, BadReply) and self.gate.ever_answered:
            return retries < self.config.retries  # it spoke the protocol before: a passing fault
        if not isinstance(error, RetryableError):
            self.gate.ever_answered |= isinstance(error, RequestRejected)
            return False
        self.gate.failures_in_a_row += 1
        if isinstance(error, RateLimited | Overloaded):
            self.gate.refused(work.started, error.retry_after)
        return retries < self.config.retries

    def heard(self, got: Completion | Scored, seconds: float, context: int = 0) -> Usage:
        """What it used, with its price; the speed at which the server writes is noted.

        `context` is the prompt's size, where the prompt came with another sample.
        """
        if got.requests and got.tokens.completion and seconds > 0:
            speed = got.tokens.completion / seconds
            self._tokens_per_second = max(self._tokens_per_second * 0.99, speed)
        return self._usage(got.tokens, got.requests, seconds if got.requests else 0.0, context=context)

    def valued(self, usage: Usage, context: int = 0) -> Usage:
        """One recorded call, with its price and its work as known now where they were not known then;
        `context` as for `heard`."""
        sibling = usage.requests == 0  # of a request that has its price with another sample
        if self.price is not None and not usage.usd and (usage.unpriced or sibling):
            usd = self.price.cost(
                usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.requests
            )
            usage = usage._replace(usd=usd, unpriced=0)
        if self.flops is not None and not usage.flops and (usage.unsized or sibling):
            flops = self.flops.of(
                usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, context=context
            )
            usage = usage._replace(flops=flops, unsized=0)
        return usage

    def _usage(
        self, tokens: Tokens, requests: int = 1, seconds: float = 0.0, *, samples: int = 1, context: int = 0
    ) -> Usage:
        """Tokens of so many samples, with their price and their work."""
        usd, unpriced, flops, unsized = ZERO_USD, 0, 0, 0
        if tokens.usd is not None:
            usd = Decimal(str(tokens.usd))
        elif self.price is not None:
            usd = self.price.cost(tokens.prompt, tokens.cached, tokens.completion, requests)
        else:
            unpriced = requests
        if self.flops is not None:
            flops = self.flops.of(tokens.prompt, tokens.cached, tokens.completion, samples, context)
        else:
            unsized = requests
        return Usage(
            requests,
            tokens.prompt,
            tokens.cached,
            tokens.completion,
            tokens.reasoning,
            usd,
            flops,
            seconds,
            unpriced,
            unsized,
            requests if tokens.estimated else 0,
        )

    def partial(
        self,
        request: Request | ScoreRequest,
        samples: int,
        progress: Progress,
        elapsed: float,
        error: BackendError | None,
        *,
        begun: bool,
        prompt_tokens: int | None = None,
    ) -> Usage:
        """What an attempt that did not finish is billed, by what is known of it.

        `samples` are those that did not come; `begun` says that others of the same request did, with
        whom its prompt is billed already. `error` is None where it was cancelled. `prompt_tokens` is the
        prompt's true size where known.
        """
        if not progress.sent or (error is None and self.gate.unreachable):
            return NOTHING
        heard = progress.prompt_tokens is not None
        if error is not None and not isinstance(error, CallTimedOut | ConnectionDropped) and not heard:
            return self._usage(Tokens(), 0 if begun else 1)  # refused: nothing was generated
        prompt = progress.prompt_tokens
        completion = progress.completion_tokens
        estimated = prompt is None or completion is None
        if prompt is None:
            prompt = prompt_tokens
        if prompt is None:
            prompt = max(1, request.prompt_bound // _BYTES_PER_TOKEN)
        if completion is None:
            completion = self._generated(request, elapsed) * samples
        tokens = Tokens(0 if begun else prompt, completion=completion, estimated=estimated)
        usage = self._usage(tokens, 0 if begun else 1, elapsed, samples=samples, context=prompt)
        return self._apart(request, usage)

    def _generated(self, request: Request | ScoreRequest, elapsed: float) -> int:
        """Tokens a sample may have got when its call was cut off without telling.

        All of them where closing the connection does not stop the server, or where its speed is not
        known yet; otherwise its speed times the time.
        """
        most = self.max_tokens(request)
        if not self.backend.capabilities.aborts or not self._tokens_per_second:
            return most
        return min(most, math.ceil(self._tokens_per_second * elapsed))

    def _pause(self, error: BackendError, retries: int) -> float:
        if error.retry_after is not None:
            return min(error.retry_after, _LONGEST_PAUSE) + self._jitter.uniform(0, 0.25)
        return min(8.0, 0.5 * 2.0 ** (retries - 1)) * self._jitter.uniform(0.5, 1.0)

    def _final(self, error: BackendError) -> BackendError:
        """The error once retrying is over: the whole endpoint may be gone."""
        gate = self.gate
        unreachable = isinstance(error, ConnectionDropped | CallTimedOut | Overloaded)
        if unreachable and (not gate.ever_answered or gate.failures_in_a_row >= FAILURES_UNTIL_DOWN):
            return EndpointDown(
                f"{self.backend.endpoint} does not answer ({type(error).__name__}: {error}), "
                f"{gate.failures_in_a_row} attempts in a row. Check that the server runs and that the model's "
                "`base_url` is right, then run the same command again: finished samples are kept",
                model=self.name,
                status=error.status,
            )
        return error


class _Work:
    """One request and its attempts, each from its reservation to its bill."""

    def __init__(
        self,
        caller: Caller,
        request: Request | ScoreRequest,
        missing: Sequence[int],
        bill: Callable[[Billed], None],
        prompt_tokens: int | None = None,
    ) -> None:
        self._caller = caller
        self._request = request
        self._bill = bill
        self._prompt_tokens = prompt_tokens
        self._clock = asyncio.get_running_loop().time
        self._hold: Hold
        self.missing = list(missing)
        """Samples (or scored replies) that have not come yet."""
        self.started = 0.0

    def worst(self) -> Usage:
        """The most that the next attempt can use."""
        return self._caller.worst_case(self._request, len(self.missing), self._prompt_tokens)

    def begin(self, hold: Hold) -> None:
        """Another attempt, for what is missing."""
        self._hold = hold
        self._asked = len(self.missing)
        self._progress = Progress()
        self.started = self._clock()

    @property
    def sent(self) -> bool:
        """Whether the request has left."""
        return self._progress.sent

    async def attempt(self) -> None:
        """Send the request and take what comes, within the time limit. Raises BackendError."""
        timeout = self._caller.config.timeout
        self.started = self._clock()
        try:
            await self._make(self.started + timeout)
        except TimeoutError as error:
            raise CallTimedOut(f"no reply within {timeout:g} s", model=self._caller.name) from error

    @abstractmethod
    async def _make(self, deadline: float) -> None:
        """Send the request and take what comes. Raises BackendError, or TimeoutError after the deadline."""
        raise NotImplementedError

    def settle(self, kind: AttemptKind, error: BackendError | None = None) -> None:
        """Bill what did not finish, as far as it came."""
        elapsed = self._clock() - self.started
        begun = len(self.missing) < self._asked
        usage = self._caller.partial(
            self._request,
            len(self.missing),
            self._progress,
            elapsed,
            error,
            begun=begun,
            prompt_tokens=self._prompt_tokens,
        )
        self._hold.charge(usage)
        reason = "" if error is None else f"{type(error).__name__}: {error}"
        self._bill(Billed(kind, tuple(self.missing), usage, reason))


class _Asking(_Work):
    """Asks for samples, and delivers each as it finishes."""

    def __init__(
        self,
        caller: Caller,
        request: Request,
        wanted: Sequence[int],
        deliver: Callable[[Completion, Usage], None],
        bill: Callable[[Billed], None],
        prompt_tokens: int | None,
    ) -> None:
        super().__init__(caller, request, wanted, bill, prompt_tokens)
        self._for = request
        self._deliver = deliver
        self._context = prompt_tokens or 0

    async def _make(self, deadline: float) -> None:
        caller = self._caller
        stream = caller.backend.complete(self._for, tuple(self.missing), self._progress)
        async with aclosing(stream):
            async with asyncio.timeout_at(deadline):
                async for completion in stream:
                    self._take(completion)
                    if not self.missing:
                        break
        if len(self.missing) == self._asked:
            raise ConnectionDropped("the reply holds no sample", model=caller.name)

    def _take(self, completion: Completion) -> None:
        caller = self._caller
        if completion.index not in self.missing:
            raise BadReply(
                f"the backend gave sample {completion.index}, which was not asked for", model=caller.name
            )
        self._context = completion.tokens.prompt or self._context or self._progress.prompt_tokens or 0
        usage = caller.heard(completion, self._clock() - self.started, self._context)
        self._hold.charge(usage)
        self.missing.remove(completion.index)
        self._deliver(completion, usage)


class _Scoring(_Work):
    """Has replies scored, all or none."""

    def __init__(self, caller: Caller, request: ScoreRequest, bill: Callable[[Billed], None]) -> None:
        super().__init__(caller, request, range(len(request.replies)), bill)
        self._for = request
        self.scored: list[tuple[Scored, Usage]] = []

    async def _make(self, deadline: float) -> None:
        caller, backend, request = self._caller, self._caller.backend, self._for
        async with asyncio.timeout_at(deadline):
            if isinstance(request, LikelihoodRequest):
                assert isinstance(backend, Reader)
                found = await backend.likelihoods(request, self._progress)
                stepwise, counted = True, [len(scored.counts) for scored in found]
            else:
                assert isinstance(backend, Scorer)
                found = await backend.score(request, self._progress)
                stepwise, counted = backend.capabilities.scores == "steps", None
        wanted = [len(steps) if stepwise else 1 for steps in request.replies]
        if [len(scored.steps) for scored in found] != wanted or counted not in (None, wanted):
            raise BadReply("the backend gave another number of scores than asked for", model=caller.name)
        seconds = self._clock() - self.started
        self.scored = [(scored, caller.heard(scored, seconds)) for scored in found]
        for _, usage in self.scored:
            self._hold.charge(usage)
        self.missing.clear()
