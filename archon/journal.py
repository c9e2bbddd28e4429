"""The order in which one problem's samples were delivered, and a replay that keeps to it (invariant 1).

Where two branches meet, where a run stops early, and where a budget runs out, the outcome depends on
what came before what. So a finished run remembers, beside its cost, which samples each draw delivered
and in which order; when the same run is run again, its draws deliver the same samples in that order,
and those of a budget that ran out end where they ended.

A draw waits for its turn only while those before it may still come. Once every stage waits (for a
candidate, for room, or for a turn) nobody else can move, and the first of those that wait goes on. Last
are those that want something the record does not have: in a replay they are closed before, as they once
were; where something else has changed (a verifier's code, say) they go on, and from then on nobody waits.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

_TURNS = 10
"""Turns of the event loop in which nothing happens, until we believe that nobody can move."""
_KEY = 16
"""Hexadecimal digits of a pool's key: enough to tell the pools of one problem apart."""


class Journal:
    """What a run notes down."""

    def __init__(self) -> None:
        self._draws: list[tuple[str, str, int, int, int, str]] = []
        self._order: list[int] = []

    def opened(self, stage: str, pool: str, start: int, count: int, born: int = 0, apart: str = "") -> int:
        """A draw of `count` samples from index `start`, the stage's candidates from number `born` on; the number
        under which it delivers. `apart` tells draws of a stage apart that ask the same."""
        self._draws.append((stage, pool[:_KEY], start, count, born, apart))
        return len(self._draws) - 1

    def delivered(self, draw: int, index: int) -> None:
        """A draw has handed this sample to its reader."""
        self._order += (draw, index)

    def as_json(self) -> dict[str, Any]:
        """Read back by `Replay`."""
        return {"draws": self._draws, "order": self._order}


@dataclass(slots=True)
class Script:
    """What one draw delivered, and may deliver again."""

    start: int
    born: int | None
    """The number of its first candidate; draws that begin at the same moment may begin in another order."""
    ended: bool
    """Whether a budget ended it there."""
    turns: deque[tuple[int, int]] = field(default_factory=deque)
    """Place in the order of the run, and index of the sample."""


class Replay:
    """The turns of a run that is run again.

    `quiet` tells whether every stage waits, given those with a draw that waits for its turn.
    """

    def __init__(self, record: Mapping[str, Any], *, ended: bool) -> None:
        self.quiet: Callable[[Collection[str]], bool] = lambda waiting: True
        self.ended = ended
        """Whether a budget of its own ended it: nothing new is paid for."""
        self.looking = 0
        """Draws that read the store at this moment."""
        self._drawn: dict[str, int] = defaultdict(int)
        self._born: dict[str, int] = defaultdict(int)
        self._scripts: dict[tuple[str, str, int], list[tuple[str, Script]]] = defaultdict(list)
        self._asking: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._done: set[int] = set()
        self._next = 0
        self._last = len(record["order"]) // 2
        self._free = self._confirming = False
        self._changes = 0
        scripts = []
        for stage, pool, start, count, *more in record["draws"]:
            born, apart = more[0] if more else None, more[1] if len(more) > 1 else ""
            scripts.append(Script(start, born, ended))
            self._born[stage] = max(self._born[stage], 0 if born is None else born + count)
            self._scripts[stage, pool, count].append((apart, scripts[-1]))
            self._drawn[pool] = max(self._drawn[pool], start + count)
        order = record["order"]
        for place, (draw, index) in enumerate(zip(order[::2], order[1::2], strict=True)):
            scripts[draw].turns.append((place, index))

    def script(self, stage: str, pool: str, count: int, apart: str = "") -> Script | None:
        """What this draw delivered; None where the run had no such draw."""
        known = self._scripts[stage, pool[:_KEY], count]
        own = next((i for i, (name, _) in enumerate(known) if name == apart), 0)
        return known.pop(own)[1] if known else None

    def drawn(self, pool: str) -> int:
        """Samples that the run drew from a pool: what is new comes after them."""
        return self._drawn[pool[:_KEY]]

    def born(self, stage: str) -> int:
        """Candidates that the stage had: what is new is numbered after them."""
        return self._born[stage]

    async def turn(self, stage: str, place: int) -> None:
        """Wait until it is this place's turn."""
        if self._free or place <= self._next:
            return
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asking[place] = stage, ticket
        self.look()
        try:
            await ticket
        finally:
            self._asking.pop(place, None)

    async def end(self, stage: str) -> None:
        """Wait until nobody can move: now comes what the record does not have, and its order is over."""
        if not self._free:
            self._last += 1
            await self.turn(stage, self._last)
            self.release()

    def over(self, *places: int) -> None:
        """These are delivered, or will never be."""
        self._done.update(places)
        while self._next in self._done:
            self._done.discard(self._next)
            self._next += 1
        self.look()

    def look(self) -> None:
        """Something changed: whoever's turn it is goes on."""
        self._changes += 1
        if not self._asking:
            return
        if self._free or min(self._asking) <= self._next:
            self._admit()
        elif not self._confirming:
            self._confirming = True
            self._confirm(self._changes, _TURNS)

    def _confirm(self, changes: int, turns: int) -> None:
        """Let the first go on once nothing has changed for so many turns, and every stage waits."""
        self._confirming = False
        if not self._asking or self.looking or not self.quiet({stage for stage, _ in self._asking.values()}):
            return  # whatever goes on will change something, and we are asked to look again
        if changes != self._changes:
            turns = _TURNS
        if not turns:
            self._admit()
            return
        self._confirming = True
        asyncio.get_running_loop().call_soon(self._confirm, self._changes, turns - 1)

    def _admit(self) -> None:
        ticket = self._asking[min(self._asking)][1]
        if not ticket.done():
            ticket.set_result(None)

    def release(self) -> None:
        """Nobody waits for a turn any more."""
        self._free = True
        for _, ticket in self._asking.values():
            if not ticket.done():
                ticket.set_result(None)
