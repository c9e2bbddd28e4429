"""Those that learn beat random search, over seeds.

The function is `worth_of` over `stack_space`, at most 0. With as many evaluations as each is given here, the median of
random search over 40 seeds is -0.93 at 60, -0.76 at 100 and -0.65 at 150. Measured over more seeds than are run here:
TPE was above it in 5 of 5 (50 evaluations, worst -0.69), local search in 20 of 20, NSGA-II in 8 of 8, CMA-ES, which
learns only four of seven axes or so, in 7 of 8. The tests ask that it be so of the median of five seeds.
"""

from __future__ import annotations

import importlib.util
from statistics import median

import pytest

from archon.search.proposers import Proposes, Told
from archon.search.proposers.evolve import Evolve
from archon.search.proposers.frugal import Frugal
from archon.search.proposers.optuna_sampler import CMAES, GP, NSGAII, TPE
from archon.search.proposers.random_search import Random
from archon.search.testing import stack_space, worth_of

NO_TORCH = importlib.util.find_spec("torch") is None


def best(one: Proposes, count: int, seed: int) -> float:
    proposer = one.over(stack_space(), seed=seed)
    found = -99.0
    for _ in range(count):
        asked = proposer.ask()
        assert asked is not None
        worth = worth_of(asked)
        found = max(found, worth)
        proposer.tell(asked, Told((worth,), problems=10))
    return found


def by_chance(count: int) -> float:
    return median(best(Random(), count, seed) for seed in range(100, 140))


@pytest.mark.parametrize(
    ("one", "count"),
    [
        (TPE(), 50),
        (Evolve(), 60),
        (CMAES(population=6), 100),
        (NSGAII(population=10), 150),
        (Frugal(pool=500), 40),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_it_finds_better_than_random_search_does(one: Proposes, count: int) -> None:
    found = [best(one, count, seed) for seed in range(5)]
    assert median(found) > by_chance(count) + 0.1


@pytest.mark.skipif(NO_TORCH, reason="GP needs torch, which is not installed")
def test_the_gaussian_process_finds_better_than_random_search_does() -> None:
    """Measured: -0.55, -1.17 and -0.51, and by chance -1.30. It takes more than a second to ask."""
    assert median(best(GP(startup=6), 20, seed) for seed in range(3)) > by_chance(20)


def test_random_search_would_not_pass() -> None:
    found = [best(Random(), 60, seed) for seed in range(40)]
    assert median(found) < by_chance(60) + 0.1
