"""The proposer contract: what says which configuration to try next.

Ask for a configuration, tell what came of it. What a proposer is asked for is allowed by its space (`refusal`), and is
never what it proposed, or was told of, before. Several may be asked for before any is told of, and it may be told of
what it did not propose: earlier searches, other processes. Equal seeds and equal asks and tells give equal proposals.

Chance comes from the seed and from how much is known, never from a generator that only asking moves on. So a search
that was killed goes on from its history alone: `rebuild`. Cost: no calls.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Annotated, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from archon.component import Component, Nested
from archon.errors import UserError
from archon.search.axes import Configuration, Space

TRIES = 1000
"""So many draws in a row that are refused, or were drawn before, and drawing gives up."""
SCAN = 100_000
"""So many configurations in a row that are refused, and enumerating gives up until it is asked again."""


Price = Callable[[Configuration], float]
"""The fresh work that a configuration would cost now, in any unit."""


class Told(NamedTuple):
    """What came of a configuration."""

    values: tuple[float, ...] | None
    """The objectives, all to be maximised; None where it failed."""
    problems: int = 0
    """How many problems they rest on."""
    finished: bool = True
    """False: it lost a race, and the values are those of the problems so far."""
    cost: float | None = None
    """What the evaluation cost, in the unit of the search's budget."""


class Proposer(Protocol):
    """Says what to try next, in one search."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know of how it proposes here, a sentence each."""
        ...

    def ask(self) -> Configuration | None:
        """A new configuration that is allowed. None: it has nothing to propose now; where all it proposed has been
        told, it never will again, unless it is told of more."""
        ...

    def tell(self, configuration: Configuration, result: Told) -> None:
        """What came of a configuration, proposed here or not. Told again, the later result counts.

        Raises UserError where it is none of the space's, ValueError where there is not one finite value per objective.
        """
        ...


@runtime_checkable
class Heeding(Protocol):
    """A proposer that goes by prices too."""

    def heed(self, price: Price) -> None:
        """From now on, this is what configurations cost; it is asked anew for each proposal, because what is paid for
        grows."""
        ...


class Proposes(Component):
    """A way to propose, as a file names it: `proposer: tpe`, or `proposer: {tpe: {startup: 20}}`.

    Others register in the entry-point group `archon.proposers`.
    """

    kind: ClassVar[str] = "proposer"

    @abstractmethod
    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """A proposer for one search. Raises UserError where it cannot propose for so many objectives, or over this
        space, and MissingExtra where what it needs is not installed."""
        raise NotImplementedError

    @property
    def alike(self) -> bool:
        """Whether the order of its proposals carries no judgement, so that what costs least may go first."""
        return False


AnyProposes = Annotated[Proposes, Nested("proposer")]
"""The type of a field that holds a way to propose."""


def rebuild(
    proposes: Proposes,
    space: Space,
    history: Iterable[tuple[Configuration, Told]],
    *,
    seed: int = 0,
    objectives: int = 1,
) -> Proposer:
    """The proposer of a search that was cut off, from what it had been told, in order.

    It goes on as the one that was cut off would have, had that been told of all it proposed; what was proposed and
    never told may be proposed again.
    """
    proposer = proposes.over(space, seed=seed, objectives=objectives)
    for configuration, result in history:
        proposer.tell(configuration, result)
    return proposer


def one_objective(name: str, objectives: int) -> None:
    """Raise UserError where there are several objectives."""
    if objectives != 1:
        raise UserError(
            f"proposer {name!r} improves one objective, and there are {objectives}. Take one of them, or a proposer "
            "for several: 'tpe', 'nsga_ii', 'gp', 'evolve', 'random', 'grid'"
        )


class Tracking:
    """What proposers share: what was proposed and told, what is refused, draws and enumeration.

    A proposer says `propose` (its next configuration, by `fresh`) and `learn`.
    """

    def __init__(self, space: Space, seed: int, objectives: int) -> None:
        """Raises UserError where the seed is negative, or there is no objective."""
        if seed < 0 or objectives < 1:
            raise UserError(f"the seed is 0 or more and objectives 1 or more, not {seed} and {objectives}")
        self.space = space
        self.axes = space.axes
        self.seed = seed
        self.objectives = objectives
        self.known: set[str] = set()
        """Keys of what was proposed or told."""
        self.told: dict[str, tuple[Configuration, Told]] = {}
        """By key, in the order of the first tell."""
        self._notes: dict[str, None] = {}
        self._refused: dict[str, bool] = {}
        self._draws = np.random.default_rng([seed])
        self._drawn: set[str] = set()
        self._rest: Iterator[Configuration] | None = None
        self._spent = False

    def propose(self) -> Configuration | None:
        """The next configuration, one that is `fresh`."""
        raise NotImplementedError

    def learn(self, configuration: Configuration, result: Told) -> None:
        """Take in what came of a configuration; it is in `told` already."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know."""
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Say something once."""
        self._notes[text] = None

    def ask(self) -> Configuration | None:
        """The next configuration; see `Proposer.ask`."""
        found = self.propose()
        if found is not None:
            self.known.add(found.key)
        return found

    def tell(self, configuration: Configuration, result: Told) -> None:
        """What came of a configuration; see `Proposer.tell`."""
        configuration = self.axes.configuration(configuration)
        if result.values is not None and (
            len(result.values) != self.objectives or not all(map(math.isfinite, result.values))
        ):
            raise ValueError(
                f"a configuration has {self.objectives} finite value(s), one per objective, not {result.values}"
            )
        self.known.add(configuration.key)
        self.told[configuration.key] = (configuration, result)
        self.learn(configuration, result)

    def allowed(self, configuration: Configuration) -> bool:
        """Whether the space does not refuse it; what was asked lately is remembered."""
        key = configuration.key
        if key not in self._refused:
            if len(self._refused) >= SCAN:
                self._refused.clear()
            self._refused[key] = self.space.refusal(configuration) is not None
        return not self._refused[key]

    def fresh(self, configuration: Configuration) -> bool:
        """Whether it may be proposed: neither proposed nor told before, and allowed."""
        return configuration.key not in self.known and self.allowed(configuration)

    def chance(self, *salt: int) -> np.random.Generator:
        """A generator that depends on the seed, on how much is known, and on the salt."""
        return np.random.default_rng([self.seed, len(self.known), *salt])

    def draw(self) -> Configuration | None:
        """The next of one sequence of random configurations that the seed fixes; what is known is passed over.

        After TRIES draws in a row that are refused or drawn before, it enumerates instead.
        """
        misses = 0
        while misses < TRIES and not self._spent:
            configuration = self.axes.draw(self._draws)
            if configuration.key in self._drawn or not self.allowed(configuration):
                misses += 1
                continue
            misses = 0
            self._drawn.add(configuration.key)
            if configuration.key not in self.known:
                return configuration
        self._spent = self._spent or self.small
        return self.scan()

    def scan(self) -> Configuration | None:
        """The next fresh one of all configurations in order, the last axis fastest. None where there is no other,
        where an axis is continuous, or after SCAN refused ones in a row."""
        if not self.finite:
            self.note(
                f"{TRIES} draws in a row were refused or drawn before, and a continuous axis leaves nothing to "
                "enumerate: it gave up"
            )
            return None
        if self._rest is None:
            self._rest = self.axes.every()
        return self.first(self._rest)

    def first(self, configurations: Iterator[Configuration]) -> Configuration | None:
        """The next fresh one of these. None at their end, or after SCAN refused ones in a row."""
        refused = 0
        for configuration in configurations:
            if configuration.key in self.known:
                continue
            if self.allowed(configuration):
                return configuration
            refused += 1
            if refused == SCAN:
                self.note(f"{SCAN:,} configurations in a row were refused: it gave up, though there are more")
                return None
        return None

    @cached_property
    def finite(self) -> bool:
        """Whether all configurations can be enumerated."""
        return all(axis.values is not None for axis in self.axes)

    @cached_property
    def small(self) -> bool:
        """Whether there are no more than SCAN configurations."""
        return self.finite and sum(1 for _ in islice(self.axes.every(), SCAN + 1)) <= SCAN
