"""Budgets that hold: reserve before spending, settle after (D6).

A `Budget` is configuration; a `Meter` is its state during a run. Meters nest (run > problem > stage),
and a call must fit every one of them. Before a call its worst case is *held*: an upper bound of what it
can cost. After it the true usage is *charged* and the rest of the hold released. So what is spent plus
what is held never exceeds the limit, whatever runs concurrently, as long as servers keep to the token
limit they were given.

Where the worst case does not fit now but would once outstanding calls settle below theirs, `reserve`
waits, first come first served. Where it could never fit it raises BudgetExhausted, on which sources
stop and the pipeline finishes with what it has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import Field

from archon.component import Value
from archon.errors import BudgetExhausted
from archon.usage import Usage

Dimension = Literal["requests", "prompt_tokens", "completion_tokens", "tokens", "usd", "flops"]
DIMENSIONS: tuple[Dimension, ...] = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "tokens",
    "usd",
    "flops",
)
_amount = {dimension: attrgetter(dimension) for dimension in DIMENSIONS}

_Count = Annotated[int, Field(ge=0)]


class Budget(Value):
    """Hard limits; what is not given is not limited.

    Requests, tokens, money and FLOPs are checked *before* each call against its worst case, so they
    are never exceeded. Seconds are a deadline: calls in flight are cancelled when it passes and billed
    as far as they came.
    """

    requests: _Count | None = None
    """Calls, retries included."""
    prompt_tokens: _Count | None = None
    """Tokens in."""
    completion_tokens: _Count | None = None
    """Tokens out, reasoning included."""
    tokens: _Count | None = None
    """Tokens in and out."""
    usd: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)] | None = None
    """Dollars. Every model used must have a price."""
    flops: Annotated[int | float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Floating-point operations. Every model used must have its number of parameters."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Wall-clock time from the start of what the budget covers."""
    counts: Literal["recorded", "fresh"] = "recorded"
    """Whether replayed samples count with the cost they once had (so that a budget means the same with
    and without a store) or only what is spent now."""

    @property
    def limits(self) -> dict[Dimension, Any]:
        """The limits that are set, without seconds."""
        return {d: limit for d in DIMENSIONS if (limit := getattr(self, d)) is not None}


class Budgets(Value):
    """The budgets of a run, by scope."""

    run: Budget = Budget()
    """For everything together."""
    problem: Budget = Budget()
    """For each problem."""


NO_LIMIT = Budget()


class Meter:
    """What is spent and held under one budget, within the meters around it."""

    def __init__(self, scope: str, budget: Budget = NO_LIMIT, parent: Meter | None = None) -> None:
        self.scope = scope
        self.budget = budget
        self.parent = parent
        self._limits = budget.limits
        self.spent: dict[Dimension, Any] = dict.fromkeys(self._limits, 0)
        self.held: dict[Dimension, Any] = dict.fromkeys(self._limits, 0)
        self._waiting: deque[_Waiter] = deque()
        self._counting: tuple[Meter, ...] = tuple(m for m in self._upwards() if m._limits)
        self._counting_replays = tuple(m for m in self._counting if m.budget.counts == "recorded")

    def _upwards(self) -> Iterator[Meter]:
        meter: Meter | None = self
        while meter is not None:
            yield meter
            meter = meter.parent

    @property
    def unlimited(self) -> bool:
        """Whether neither this meter nor one around it limits anything."""
        return not self._counting

    def limited(self) -> set[Dimension]:
        """Every dimension that this meter or one around it limits."""
        return {dimension for meter in self._counting for dimension in meter._limits}

    async def reserve(self, worst: Usage, *, fresh: bool = True) -> Hold:
        """Hold the worst case of a call in every budget around it, waiting while others may release.

        `fresh` is false for replayed samples. Raises BudgetExhausted where it could never fit.
        """
        meters = self._counting if fresh else self._counting_replays
        if not meters:
            return FREE
        waiter = _Waiter(meters, worst)
        blocking = None
        for meter in meters:
            if meter._waiting and meter._room(worst) is not _NEVER:
                blocking = meter
                break
        if blocking is None:
            blocking = waiter.attempt()
        if blocking is None:
            return waiter.hold()
        waiter.future = asyncio.get_running_loop().create_future()
        blocking._waiting.append(waiter)
        waiter.queued_at = blocking
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
            elif waiter.queued_at is not None:
                meter = waiter.queued_at
                meter._waiting.remove(waiter)
                meter._serve()
            raise

    def could_hold(self, worst: Usage) -> bool:
        """Whether it would fit every budget around it, were all that is held given back."""
        return all(meter._room(worst) is not _NEVER for meter in self._counting)

    def try_reserve(self, amount: Usage, *, fresh: bool = True) -> Hold | None:
        """Hold an amount if it fits right now."""
        meters = self._counting if fresh else self._counting_replays
        if any(meter._room(amount) is not _FITS for meter in meters):
            return None
        return _Waiter(meters, amount).hold()

    def charge(self, usage: Usage) -> None:
        """Count what a replay once cost beyond the samples it used; it was within the limits then."""
        for meter in self._counting_replays:
            for dimension in meter._limits:
                meter.spent[dimension] += _amount[dimension](usage)

    def _room(self, worst: Usage) -> str | Dimension:
        """_FITS, _LATER, or _NEVER with the dimension that is exhausted."""
        verdict = _FITS
        for dimension, limit in self._limits.items():
            amount = _amount[dimension](worst)
            if not amount:
                continue
            if self.spent[dimension] + amount > limit:
                return _NEVER
            if self.spent[dimension] + self.held[dimension] + amount > limit:
                verdict = _LATER
        return verdict

    def _exhausted(self, worst: Usage) -> BudgetExhausted:
        for dimension, limit in self._limits.items():
            amount = _amount[dimension](worst)
            if amount and self.spent[dimension] + amount > limit:
                return BudgetExhausted(
                    self.scope,
                    dimension,
                    f"the {self.scope} budget of {limit} {dimension} has {self.spent[dimension]} spent; "
                    f"the next call could need {amount}",
                )
        raise AssertionError("not exhausted")

    def _serve(self) -> None:
        """Give what was released to those who wait, in order."""
        while self._waiting:
            waiter = self._waiting[0]
            if waiter.future.done():  # cancelled, and its task has not run since
                self._waiting.popleft()
                waiter.queued_at = None
                continue
            try:
                blocking = waiter.attempt()
            except BudgetExhausted as error:
                self._waiting.popleft()
                waiter.queued_at = None
                waiter.future.set_exception(error)
                continue
            if blocking is self:
                return
            self._waiting.popleft()
            if blocking is None:
                waiter.queued_at = None
                waiter.future.set_result(waiter.hold())
            else:
                waiter.queued_at = blocking
                blocking._waiting.append(waiter)


class Hold:
    """A reservation: charge what was used, then close. Closing twice is harmless."""

    __slots__ = ("_closed", "_left", "_meters")

    def __init__(self, meters: tuple[Meter, ...], worst: Usage) -> None:
        self._meters = meters
        self._left: dict[Dimension, Any] = {d: get(worst) for d, get in _amount.items()}
        self._closed = False

    def charge(self, usage: Usage) -> None:
        """Count what was used; the hold shrinks by as much."""
        if not self._meters:
            return
        for dimension, get in _amount.items():
            amount = get(usage)
            if not amount:
                continue
            release = min(self._left[dimension], amount) if not self._closed else 0
            self._left[dimension] -= release
            for meter in self._meters:
                if dimension in meter._limits:
                    meter.spent[dimension] += amount
                    meter.held[dimension] -= release

    def close(self) -> None:
        """Release what is still held and let the next in line have it."""
        if self._closed:
            return
        self._closed = True
        for meter in self._meters:
            for dimension in meter._limits:
                meter.held[dimension] -= self._left[dimension]
        for meter in self._meters:
            meter._serve()


class _Waiter:
    __slots__ = ("future", "meters", "queued_at", "worst")
    future: asyncio.Future[Hold]

    def __init__(self, meters: tuple[Meter, ...], worst: Usage) -> None:
        self.meters = meters
        self.worst = worst
        self.queued_at: Meter | None = None

    def attempt(self) -> Meter | None:
        """The meter that has no room yet, or None where all have. Raises BudgetExhausted."""
        blocking = None
        for meter in self.meters:
            room = meter._room(self.worst)
            if room is _NEVER:
                raise meter._exhausted(self.worst)
            if room is _LATER and blocking is None:
                blocking = meter
        return blocking

    def hold(self) -> Hold:
        for meter in self.meters:
            for dimension in meter._limits:
                meter.held[dimension] += _amount[dimension](self.worst)
        return Hold(self.meters, self.worst)


_FITS, _LATER, _NEVER = "fits", "later", "never"
FREE = Hold((), Usage())
"""What is held where nothing is limited."""
