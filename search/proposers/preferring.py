"""What is paid for goes first: of proposals that are as good as each other, the one that costs least fresh work.

Where the order of a proposer's proposals carries no judgement (random search, a grid), a few are asked for ahead, and
the cheapest of them comes first. None is lost: one that was passed over `patience` times comes next, whatever it
costs. One that goes by prices itself (`Heeding`) is given them. Any other that learns is left alone, since to ask ahead
is to ask it before it was told. Cost: no calls; `price` is asked about the whole window each time, because what is paid
for grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archon.errors import UserError
from archon.search.axes import Configuration, Space
from archon.search.proposers.base import Heeding, Price, Proposer, Proposes, Told


def preferring(
    proposes: Proposes,
    space: Space,
    price: Price,
    *,
    seed: int = 0,
    objectives: int = 1,
    window: int = 8,
    patience: int = 24,
) -> Proposer:
    """The proposer of a search, such that what costs least goes first where its proposals are alike.

    Raises as `Proposes.over` does, and UserError where the window or the patience is below 1.
    """
    proposer = proposes.over(space, seed=seed, objectives=objectives)
    if isinstance(proposer, Heeding):
        proposer.heed(price)
    return Preferring(proposer, price, window=window, patience=patience) if proposes.alike else proposer


@dataclass
class _Waiting:
    configuration: Configuration
    passed: int = 0


class Preferring:
    """A proposer with a window of proposals, the cheapest of which comes first."""

    def __init__(self, proposer: Proposer, price: Price, *, window: int = 8, patience: int = 24) -> None:
        if window < 1 or patience < 1:
            raise UserError(f"the window and the patience are 1 or more, not {window} and {patience}")
        self._proposer = proposer
        self._price = price
        self._window = window
        self._patience = patience
        self._waiting: list[_Waiting] = []

    @property
    def notes(self) -> Sequence[str]:
        """What the proposer says."""
        return self._proposer.notes

    def ask(self) -> Configuration | None:
        """The cheapest of the window, of equal ones the earlier; or the one that was passed over for too long."""
        while len(self._waiting) < self._window:
            found = self._proposer.ask()
            if found is None:
                break
            self._waiting.append(_Waiting(found))
        if not self._waiting:
            return None
        first = self._waiting[0]
        taken = first
        if first.passed < self._patience:
            taken = min(self._waiting, key=lambda one: self._price(one.configuration))
        place = next(i for i, one in enumerate(self._waiting) if one is taken)
        for passed in self._waiting[:place]:
            passed.passed += 1
        del self._waiting[place]
        return taken.configuration

    def tell(self, configuration: Configuration, result: Told) -> None:
        """Tell the proposer; one that waits here is told of by another, and so not proposed."""
        self._proposer.tell(configuration, result)
        self._waiting = [one for one in self._waiting if one.configuration != configuration]
