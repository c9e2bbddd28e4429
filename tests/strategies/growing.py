"""Worlds that grow partial answers without a model: what a search asks for is answered at once, and written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.stepping.search import Given, Search, Weigh, Wish, dumped, loaded

Step = tuple[str, Ending | None] | None
"""What is written, and why nothing follows; None where the call failed."""


@dataclass
class World:
    """Its i-th continuation of a beginning is the same whoever asks, and no continuation is handed out twice."""

    step: Callable[[str, int], Step]
    """The i-th continuation of a text."""
    value: Callable[[str], float | None]
    """What the reward model says of a text."""
    asked: list[list[tuple[str, int]]] = field(default_factory=list)
    """Round by round, what was to be continued and how often."""
    handed: Counter[str] = field(default_factory=Counter)
    likely: Callable[[str, str], float | None] = lambda before, text: -1.0
    """The log-probability of a text after another; None where that call fails."""
    weighed: list[list[str]] = field(default_factory=list)
    """Round by round, what the given continuations make of their beginnings."""

    def draw(self, partial: Partial) -> Partial | None:
        """The next continuation of one beginning."""
        assert not partial.finished, f"{partial.text!r} is finished, and asked for again"
        number = self.handed[partial.text]
        self.handed[partial.text] += 1
        written = self.step(partial.text, number)
        if written is None:
            return None
        text, ending = written
        value = self.value(partial.text + text)
        return Partial(
            steps=(*partial.steps, text),
            value=value,
            ending=ending,
            samples=(*partial.samples, f"{partial.text}#{number}"),
        )

    def grow(self, wishes: Sequence[Wish | Weigh]) -> list[list[Partial]]:
        """What became of a round's wishes."""
        asked = [(wish.partial.text, wish.n) for wish in wishes if isinstance(wish, Wish)]
        if asked:
            self.asked.append(asked)
        if len(asked) < len(wishes):
            self.weighed.append([])
        return [self.weigh(wish) if isinstance(wish, Weigh) else self.drawn(wish) for wish in wishes]

    def drawn(self, wish: Wish) -> list[Partial]:
        """The next continuations of one beginning."""
        some = [self.draw(wish.partial) for _ in range(wish.n)]
        return [partial for partial in some if partial is not None]

    def weigh(self, wish: Weigh) -> list[Partial]:
        """What a given continuation makes of its beginning."""
        assert not wish.partial.finished and wish.rounds, "nothing follows a finished answer"
        found: list[Partial] = []
        steps = wish.partial.steps
        for number, added in enumerate(wish.rounds, 1):
            logprob = self.likely("".join(steps), "".join(added))
            if logprob is None:
                return []
            steps = (*steps, *added)
            ending = wish.ending if number == len(wish.rounds) else None
            found.append(Partial(steps, value=self.value("".join(steps)), ending=ending, logprob=logprob))
        self.weighed[-1].append(found[-1].text)
        return found


def searched(search: Search[Any], world: World, *, rounds: int = 1000) -> Any:
    """The state when the search is over, or after so many rounds. Each state goes to JSON and back on the way."""
    state = search.start(Given(0))
    for _ in range(rounds):
        wishes = search.ask(state)
        if not wishes:
            return state
        state = search.tell(state, world.grow(wishes))
        assert loaded(type(state), dumped(state)) == state
    return state


def texts(partials: Sequence[Partial]) -> list[str]:
    return [partial.text for partial in partials]
