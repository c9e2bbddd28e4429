"""A meter whose limit holds over all processes that share a budget, and over those that went before (D6).

What a process may spend is held in the purse before it is spent: as much as its next call can need, and a few calls
more. What it turns out not to need it gives back within a second, and at once when it has nothing in work or has to
wait for others: only calls in flight hold anything for long, so no two processes wait for each other. What one that is
gone held counts as spent. Cost: no calls; a small transaction now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

from archon.budget import Dimension, Meter
from archon.errors import BudgetExhausted, StoreError
from archon.search.accounts import LEAST_USD, NOBODY, Entry, Others, Purse
from archon.usage import Usage

_POLL_SECONDS = 0.2
"""How often to look whether another process has given something back."""
_RETURN_SECONDS = 1.0
"""How often to give back what was not needed."""
_CALLS = 4
"""How many more calls of the same size are held at once."""
_CAUTION = 4
"""Beyond the next call, a process holds no more than this part of its share of what is left."""

Answer = Literal["fits", "later", "never"]


def room(
    limits: Mapping[Dimension, Any],
    others: Others,
    spent: Mapping[Dimension, Any],
    held: Mapping[Dimension, Any],
    wanted: Mapping[Dimension, Any],
) -> Answer:
    """Whether so much more may be held: now, once others or we settle below what they hold, or never."""
    answer: Answer = "fits"
    for dimension, limit in limits.items():
        amount = wanted[dimension]
        if not amount:
            continue
        taken, returning = others.taken.get(dimension, 0), others.returning.get(dimension, 0)
        if taken - returning + spent[dimension] + amount > limit:
            return "never"
        if taken + spent[dimension] + held[dimension] + amount > limit:
            answer = "later"
    return answer


def _more(amount: Any, left: Any, processes: int) -> Any:
    """What to hold beyond the next call, where so much is left without it."""
    most = min(_CALLS * amount, max(left, 0) / (_CAUTION * processes))
    return most.quantize(LEAST_USD, rounding=ROUND_DOWN) if isinstance(most, Decimal) else int(most)


class SharedMeter(Meter):
    """What this process has spent and holds of a purse. One event loop's; methods raise what the purse does."""

    def __init__(self, purse: Purse, fresh: Callable[[], Usage]) -> None:
        """`fresh` is what this process has spent in all."""
        super().__init__("run", purse.limit)
        self._whole = dict(self._limits)
        self._limits = dict.fromkeys(self._whole, 0)  # what we may spend: what the purse holds for us
        self._purse = purse
        self._fresh = fresh
        self._others = NOBODY
        self._asked = -_POLL_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def report(self) -> None:
        """Let the others know what is spent, and give back what no call needs."""

        def decide(others: Others) -> tuple[None, Entry]:
            self._others = others
            return None, self._entry(self._in_use())

        self._purse.turn(decide)

    def close(self) -> None:
        """Report, for the last time."""
        if self._timer is not None:
            self._timer.cancel()
        self.report()

    def _room(self, worst: Usage) -> str | Dimension:
        if super()._room(worst) == "fits":
            return "fits"
        wanted = {dimension: getattr(worst, dimension) for dimension in self._whole}
        now = asyncio.get_running_loop().time()
        answer = room(self._whole, self._others, self.spent, self.held, wanted)
        if answer == "fits" or now - self._asked >= _POLL_SECONDS:
            answer = self._purse.turn(lambda others: self._decide(others, wanted))
            self._asked = now
        self._look_in(_POLL_SECONDS if answer == "later" else _RETURN_SECONDS)
        return answer

    def _decide(self, others: Others, wanted: Mapping[Dimension, Any]) -> tuple[Answer, Entry]:
        """Hold more, or give back all that is not in use: who waits for us may need it."""
        self._others, used = others, self._in_use()
        answer = room(self._whole, others, self.spent, self.held, wanted)
        if answer != "fits":
            return answer, self._entry(used)
        for dimension, amount in wanted.items():
            left = self._whole[dimension] - others.taken.get(dimension, 0) - used[dimension] - amount
            used[dimension] += amount + _more(amount, left, others.processes)
        return answer, self._entry(used)

    def _in_use(self) -> dict[Dimension, Any]:
        return {dimension: self.spent[dimension] + self.held[dimension] for dimension in self._whole}

    def _entry(self, allowed: dict[Dimension, Any]) -> Entry:
        self._limits = allowed
        held = {dimension: amount - self.spent[dimension] for dimension, amount in allowed.items()}
        return Entry(dict(self.spent), held, self._fresh())

    def _look_in(self, seconds: float) -> None:
        """Look again after so long, if not earlier."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if not self._timer.cancelled() and loop.time() <= self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Serve those who wait, as far as others have given something back; give back what nobody here needs."""
        self._timer = None
        try:
            if self._waiting:
                self._serve()
            elif self._limits != self._in_use():
                self.report()
        except StoreError as error:
            while self._waiting:
                waiter = self._waiting.popleft()
                waiter.queued_at = None
                if not waiter.future.done():
                    waiter.future.set_exception(error)
        if self._waiting:
            self._look_in(_POLL_SECONDS)
        elif self._limits != self.spent:
            self._look_in(_RETURN_SECONDS)

    def _exhausted(self, worst: Usage) -> BudgetExhausted:
        for dimension, limit in self._whole.items():
            amount = getattr(worst, dimension)
            others = self._others.taken.get(dimension, 0) - self._others.returning.get(dimension, 0)
            spent = self.spent[dimension] + others
            if amount and spent + amount > limit:
                return BudgetExhausted(
                    self.scope,
                    dimension,
                    f"the {self.scope} budget of {limit} {dimension} has {spent} spent, by all processes of the "
                    f"study; the next call could need {amount}",
                )
        raise AssertionError("not exhausted")
