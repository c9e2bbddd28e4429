"""Several proposers in turn, behind the one contract.

Each is told of everything, so each learns from what the others proposed, and none proposes what another did. One that
has nothing to propose is passed over. Cost: no calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from archon.search.axes import Configuration, Space
from archon.search.proposers.base import (
    TRIES,
    AnyProposes,
    Heeding,
    Price,
    Proposer,
    Proposes,
    Told,
    Tracking,
)


class Portfolio(Proposes):
    """Several proposers in turn."""

    of: Annotated[tuple[AnyProposes, ...], Field(min_length=1)]
    """Who proposes, in turn: names, or `{name: settings}`."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises UserError or MissingExtra where one of them does."""
        names = [one.name for one in self.of]
        members = [
            one.over(space, seed=seed + place, objectives=objectives) for place, one in enumerate(self.of)
        ]
        return InTurn(space, seed, objectives, names, members)

    @property
    def alike(self) -> bool:
        """Where it is so of each."""
        return all(one.alike for one in self.of)


class InTurn(Tracking):
    """Proposers that take turns; whose turn it is follows from how much is known."""

    def __init__(
        self, space: Space, seed: int, objectives: int, names: Sequence[str], members: Sequence[Proposer]
    ) -> None:
        super().__init__(space, seed, objectives)
        self._names = names
        self._members = members

    @property
    def notes(self) -> Sequence[str]:
        """What each says, with its name."""
        pairs = zip(self._names, self._members, strict=True)
        return tuple(dict.fromkeys(f"{name}: {note}" for name, one in pairs for note in one.notes))

    def propose(self) -> Configuration | None:
        """What the one whose turn it is proposes; it is asked again where another proposed that before."""
        turn = len(self.known)
        for step in range(len(self._members)):
            member = self._members[(turn + step) % len(self._members)]
            for _ in range(TRIES):
                found = member.ask()
                if found is None:
                    break
                if found.key not in self.known:
                    return found
        return None

    def heed(self, price: Price) -> None:
        """Tell those that go by prices."""
        for member in self._members:
            if isinstance(member, Heeding):
                member.heed(price)

    def learn(self, configuration: Configuration, result: Told) -> None:
        """Tell each."""
        for member in self._members:
            member.tell(configuration, result)
