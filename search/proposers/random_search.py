"""Random search: configurations at random, axis by axis, each evenly over its values.

Source: Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization". What all others are measured by.
The seed fixes one sequence; what is known or refused is passed over, so the evenness is over the axes, given that the
configuration is allowed. Cost: no calls.
"""

from __future__ import annotations

from archon.search.axes import Configuration, Space
from archon.search.proposers.base import Proposer, Proposes, Tracking


class Random(Proposes):
    """Configurations at random, without repetition."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Any space, any number of objectives."""
        return RandomSearch(space, seed, objectives)

    @property
    def alike(self) -> bool:
        """Nothing is learnt, so any order does."""
        return True


class RandomSearch(Tracking):
    """A random search that runs."""

    def propose(self) -> Configuration | None:
        """The next draw."""
        return self.draw()
