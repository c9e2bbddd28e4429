"""One hard budget over tasks and processes that cannot see each other's spending (D6): pure bookkeeping.

Each task gets an allowance, held out of what is left before it starts, and is settled with what it really used; the
rest of its allowance comes back. So what is spent and what is held never exceed the limit together, in whatever order
tasks end. Of a task that was lost nobody knows what it spent, so its whole allowance counts as spent; likewise of a
process that is gone.

An allowance is an equal share of what is left among the workers that have none, and no more than a few times what the
dearest problem needed so far: a lost one then costs little. A task that does not get by with it is given everything
that is left, once no other task holds any. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from archon.budget import Budget
from archon.usage import Usage

Amounts = Mapping[Any, Any]
"""By dimension of a budget."""
Given = TypeVar("Given")

_MARGIN = 4
"""How many times what the dearest problem needed is held for each problem."""
LEAST_USD = Decimal("1e-12")
"""Money is given in multiples of this."""


class Others(NamedTuple):
    """What the other processes have of a budget."""

    taken: Amounts
    """What they have spent, or hold; those that are gone have spent what they held."""
    returning: Amounts
    """The part that living ones hold, and may give back."""
    processes: int = 1
    """How many live, this one included."""


NOBODY = Others({}, {})


class Entry(NamedTuple):
    """What a process has of a budget."""

    spent: Amounts
    held: Amounts
    fresh: Usage
    """Everything that it spent, limited or not."""


class Purse(Protocol):
    """A budget that processes share, wherever it is kept."""

    limit: Budget

    def turn(self, decide: Callable[[Others], tuple[Given, Entry]]) -> Given:
        """Decide by what the others have, while none of them changes it; the entry is then ours."""
        ...


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
    """What one process has spent and holds of a budget, and gives to its tasks."""

    def __init__(self, limit: Budget, workers: int) -> None:
        self.limits: dict[Any, Any] = dict(limit.limits)
        self.spent: dict[Any, Any] = dict.fromkeys(self.limits, 0)
        self.held: dict[Any, Any] = dict.fromkeys(self.limits, 0)
        self.others = NOBODY
        """As far as is known."""
        self._workers = workers
        self._open = 0
        self._dearest: dict[Any, Any] = {}

    def give(self, problems: int, *, everything: bool = False) -> Allowance | Literal["later", "never"]:
        """An allowance for so many problems: a share, or everything that is left. `later` where that takes others
        to settle first, `never` where nothing is left."""
        if not self.limits:
            return Allowance({}, problems)
        taken, busy = self.others.taken, self._open > 0 or any(self.others.returning.values())
        left = {d: m - taken.get(d, 0) - self.spent[d] - self.held[d] for d, m in self.limits.items()}
        if everything and busy:
            return "later"
        if not everything:
            idle = max(1, self._workers * self.others.processes - self._open)
            left = {d: self._share(d, amount, idle, problems) for d, amount in left.items()}
        if any(amount <= 0 for amount in left.values()):
            return "later" if busy else "never"
        for dimension, amount in left.items():
            self.held[dimension] += amount
        self._open += 1
        return Allowance(left, problems)

    def _share(self, dimension: str, left: Any, idle: int, problems: int) -> Any:
        share: Any
        if dimension == "usd":
            share = (Decimal(left) / idle).quantize(LEAST_USD, rounding=ROUND_DOWN)
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


class SharedAccount(Account):
    """An account whose limit holds over all processes that share a purse, and over those that went before."""

    def __init__(self, purse: Purse, workers: int, fresh: Callable[[], Usage]) -> None:
        """`fresh` is what this process has spent in all. Methods raise what the purse does."""
        super().__init__(purse.limit, workers)
        self._purse = purse
        self._fresh = fresh

    def give(self, problems: int, *, everything: bool = False) -> Allowance | Literal["later", "never"]:
        """As an `Account`, by what the other processes have left."""
        if not self.limits:
            return super().give(problems)

        def decide(others: Others) -> tuple[Allowance | Literal["later", "never"], Entry]:
            self.others = others
            return super(SharedAccount, self).give(problems, everything=everything), self._entry()

        return self._purse.turn(decide)

    def settle(self, allowance: Allowance, spent: Amounts) -> None:
        """As an `Account`."""
        super().settle(allowance, spent)
        self.report()

    def lose(self, allowance: Allowance) -> None:
        """As an `Account`."""
        super().lose(allowance)
        self.report()

    def report(self) -> None:
        """Let the others know what is spent and held here."""
        self._purse.turn(lambda others: (None, self._entry()))

    def _entry(self) -> Entry:
        return Entry(self.spent, self.held, self._fresh())
