"""One hard budget over tasks that cannot see each other's spending (D6).

Each task gets an allowance, held out of what is left before it starts, and is settled with what it really used; the
rest of its allowance comes back. So what is spent and what is held never exceed the limit together, in whatever order
tasks end. Of a task that was lost nobody knows what it spent, so its whole allowance counts as spent.

An allowance is an equal share of what is left among the workers that have none, and no more than a few times what the
dearest problem needed so far: a lost one then costs little. A task that does not get by with it is given everything
that is left, once no other task holds any. Cost: no calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

from archon.budget import Budget

Amounts = Mapping[Any, Any]
"""By dimension of a budget."""

_MARGIN = 4
"""How many times what the dearest problem needed is held for each problem."""
_LEAST_USD = Decimal("1e-12")


@dataclass(eq=False)
class Allowance:
    """What a task may spend."""

    amounts: dict[Any, Any]
    """By dimension; empty where nothing is limited."""
    problems: int = 1
    open: bool = field(default=True, init=False)

    def budget(self, limit: Budget) -> Budget:
        """It as a budget that counts as `limit` does."""
        return Budget(**self.amounts, counts=limit.counts)


class Account:
    """What is spent and held of a budget: pure bookkeeping, without waiting."""

    def __init__(self, limit: Budget, workers: int) -> None:
        self.limits: dict[Any, Any] = dict(limit.limits)
        self.spent: dict[Any, Any] = dict.fromkeys(self.limits, 0)
        self.held: dict[Any, Any] = dict.fromkeys(self.limits, 0)
        self._workers = workers
        self._open = 0
        self._dearest: dict[Any, Any] = {}

    def give(self, problems: int, *, everything: bool = False) -> Allowance | Literal["later", "never"]:
        """An allowance for so many problems: a share, or everything that is left. `later` where that takes others
        to settle first, `never` where nothing is left."""
        if not self.limits:
            return Allowance({}, problems)
        left = {d: limit - self.spent[d] - self.held[d] for d, limit in self.limits.items()}
        if everything and self._open:
            return "later"
        if not everything:
            idle = max(1, self._workers - self._open)
            left = {d: self._share(d, amount, idle, problems) for d, amount in left.items()}
        if any(amount <= 0 for amount in left.values()):
            return "later" if self._open else "never"
        for dimension, amount in left.items():
            self.held[dimension] += amount
        self._open += 1
        return Allowance(left, problems)

    def _share(self, dimension: str, left: Any, idle: int, problems: int) -> Any:
        share: Any
        if dimension == "usd":
            share = (Decimal(left) / idle).quantize(_LEAST_USD, rounding=ROUND_DOWN)
        else:
            share = int(left) // idle
        dearest = self._dearest.get(dimension)
        return min(share, _MARGIN * problems * dearest) if dearest else share

    def settle(self, allowance: Allowance, spent: Amounts) -> None:
        """What a task really spent; the rest comes back. More than its allowance is counted as it is."""
        self._close(allowance)
        for dimension in allowance.amounts:
            amount = spent.get(dimension, 0)
            self.spent[dimension] += amount
            mean = amount / allowance.problems
            if mean > self._dearest.get(dimension, 0):
                whole = dimension != "usd"
                self._dearest[dimension] = -(-amount // allowance.problems) if whole else mean

    def lose(self, allowance: Allowance) -> None:
        """Nobody knows what a task spent: it may have been all of it."""
        self._close(allowance)
        for dimension, amount in allowance.amounts.items():
            self.spent[dimension] += amount

    def _close(self, allowance: Allowance) -> None:
        if not allowance.open:
            raise ValueError("this allowance is settled already")
        allowance.open = False
        if allowance.amounts:
            self._open -= 1
        for dimension, amount in allowance.amounts.items():
            self.held[dimension] -= amount


class Allowances:
    """An account whose tasks wait in line."""

    def __init__(self, limit: Budget, workers: int) -> None:
        self.account = Account(limit, workers)
        self._line = asyncio.Lock()
        self._settled = asyncio.Event()

    async def take(self, problems: int, *, everything: bool = False) -> Allowance | None:
        """An allowance, first come first served; None where nothing is left."""
        async with self._line:
            while (found := self.account.give(problems, everything=everything)) == "later":
                self._settled.clear()
                await self._settled.wait()
            return None if found == "never" else found

    def settle(self, allowance: Allowance, spent: Amounts) -> None:
        """What a task really spent."""
        self.account.settle(allowance, spent)
        self._settled.set()

    def lose(self, allowance: Allowance) -> None:
        """A task is gone, and what it spent is unknown."""
        self.account.lose(allowance)
        self._settled.set()
