"""The contract of a search over partial answers: a pure function of a state that is a value (D3).

    state = search.start(given)
    while wishes := search.ask(state):
        state = search.tell(state, what_became_of(wishes))
    answers = search.found(state)

A state is a frozen dataclass of plain values: `dumped` and `loaded` take it to JSON and back. What is random is drawn
from `generator(given.seed, round)`, so a search is the same wherever it runs; nothing random is kept between calls.
Cost: none of its own; what is asked is paid for by the engine (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from pydantic import TypeAdapter

from archon.strategies.stepping.partial import Ending, Partial

S = TypeVar("S")


class Given(NamedTuple):
    """What a search knows before it begins."""

    seed: int = 0
    """Of everything random in it."""
    calibrated: bool = True
    """Whether values are probabilities; else they are uncalibrated scores, of which only the order has a meaning."""


class Wish(NamedTuple):
    """What a search wants: so many independent continuations of a partial answer, by one step."""

    partial: Partial
    n: int = 1
    ahead: int | None = 0
    """Judge each by what it becomes after so many further steps (a roll-out; it is in `ahead`); None: after all."""
    greedy: bool = True
    """Whether those further steps are the model's likeliest (temperature 0), or sampled as the others are."""


class Weigh(NamedTuple):
    """What a search wants to know of a continuation that it has: how likely the writer finds it after this partial
    answer, and what the answer is judged by then."""

    partial: Partial
    rounds: tuple[tuple[str, ...], ...]
    """What is added, round by round: usually one step, or none where only the end is."""
    ending: Ending | None = None
    """Why nothing is added any more; None where more would follow."""

    @property
    def n(self) -> int:
        """How many partial answers come of it: one for each round."""
        return len(self.rounds)


class Search(Protocol[S]):
    """An algorithm. All of it is pure."""

    def start(self, given: Given) -> S:
        """The state before anything is written."""
        ...

    def ask(self, state: S) -> Sequence[Wish | Weigh]:
        """What is wanted next; nothing where the search is over. Only partial answers that are not finished."""
        ...

    def tell(self, state: S, grown: Sequence[Sequence[Partial]]) -> S:
        """The state after what was asked for has come: the continuations of each wish, in order.

        Fewer than were wanted, or none, where calls failed. What is scored has a `value`; one whose scoring failed
        has None. Of a `Weigh` the partial answer after each of its rounds, with the log-probability of what that
        added; nothing where calls failed or the writer could not have come to it.
        """
        ...

    def found(self, state: S) -> Sequence[Partial]:
        """The answers so far, at any time: finished ones first; where the search was cut off, others after them."""
        ...


def generator(seed: int, *place: int) -> np.random.Generator:
    """The random generator of one place in a search: the same for the same seed and place, independent of others'."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *place])))


def dumped(state: object) -> bytes:
    """A state as JSON."""
    return TypeAdapter(type(state)).dump_json(state)


def loaded(kind: type[S], text: bytes) -> S:
    """A state of this type from JSON. Raises ValueError where it is not one."""
    return TypeAdapter(kind).validate_json(text)
