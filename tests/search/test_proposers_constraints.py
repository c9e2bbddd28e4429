"""10,000 proposals from every proposer, 600 from those that learn: none is refused, none comes twice.

The space has axes within axes, orders, logarithms and a real number, and refuses half of what is drawn evenly, and half
of what is good. Everything proposed is told of, and some of it failed, so that those that learn do learn. GP takes
seconds to ask, so it makes 20 proposals, 12 of them by its model.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

from archon.search.axes import Axis, Configuration
from archon.search.proposers import Proposes, Told
from archon.search.proposers.evolve import Evolve
from archon.search.proposers.frugal import Frugal
from archon.search.proposers.greedy import Greedy
from archon.search.proposers.grid import Grid
from archon.search.proposers.optuna_sampler import CMAES, GP, NSGAII, TPE
from archon.search.proposers.portfolio import Portfolio
from archon.search.proposers.random_search import Random
from archon.search.testing import ToySpace

NO_TORCH = importlib.util.find_spec("torch") is None


def number(value: object) -> float:
    return float(str(value))


def refused(configuration: Configuration) -> bool:
    """The limit cuts through the best: n = 16 with t = 0.5 is on it."""
    return number(configuration["n"]) * (0.5 + number(configuration["t"])) > 16


def space() -> ToySpace:
    return ToySpace(
        [
            Axis("kind", "choice", ("plain", "vote", "judge")),
            Axis("n", "int", low=1, high=256, log=True),
            Axis("t", "float", low=0, high=1),
            Axis("k", "choice", (1, 2, 4, 8), needs=(("kind", ("vote",)),)),
            Axis("s", "float", low=0, high=1, step=0.01, needs=(("kind", ("vote", "judge")),)),
        ],
        refused,
    )


def told(configuration: Configuration) -> Told:
    if configuration.get("k") == 1:
        return Told(None)
    value = -abs(np.log(number(configuration["n"]) / 16)) - abs(number(configuration["t"]) - 0.5)
    return Told((float(value),), problems=10, finished=number(configuration["t"]) < 0.9)


def check(one: Proposes, count: int) -> None:
    over = space()
    proposer = one.over(over, seed=11)
    seen: set[str] = set()
    for _ in range(count):
        found = proposer.ask()
        assert found is not None
        assert not refused(found)
        assert over.axes.configuration(found) == found
        assert found.key not in seen
        seen.add(found.key)
        proposer.tell(found, told(found))


def test_half_of_the_space_is_refused() -> None:
    rng = np.random.default_rng(0)
    drawn = [space().axes.draw(rng) for _ in range(4000)]
    assert 0.4 < np.mean([refused(one) for one in drawn]) < 0.6


@pytest.mark.parametrize(
    "one",
    [
        Random(),
        Grid(points=100),
        Greedy(restarts=2000, points=9),
        Evolve(),
        Portfolio(of=(Random(), Evolve())),
    ],
    ids=lambda one: one.name,
)
def test_ten_thousand_proposals(one: Proposes) -> None:
    check(one, 10_000)


@pytest.mark.slow
@pytest.mark.parametrize("one", [TPE(), CMAES(), NSGAII(), Frugal(pool=200)], ids=lambda one: one.name)
def test_proposals_of_those_that_learn(one: Proposes) -> None:
    """TPE takes some 40 ms to ask; `ARCHON_PROPOSALS=10000` makes as many of them as of the others."""
    check(one, int(os.environ.get("ARCHON_PROPOSALS", "600")))


def test_a_hundred_proposals_of_the_frugal_one() -> None:
    check(Frugal(pool=200), 100)


@pytest.mark.skipif(NO_TORCH, reason="GP needs torch, which is not installed")
def test_twenty_proposals_of_the_gaussian_process() -> None:
    check(GP(startup=8), 20)
