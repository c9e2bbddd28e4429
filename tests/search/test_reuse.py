"""What a configuration costs anew: calls that go beyond the most there were, stage by stage."""

from __future__ import annotations

import pytest

from archon.search.axes import Configuration
from archon.search.reuse import Needs, Paid, Prices, needed
from archon.search.space import SearchSpace

SPACE = """
pipeline:
  - sample: {n: {choose: [2, 8, 12], name: n}, temperature: {choose: [0.5, 1.0], name: temperature}}
  - name: chosen by
    choose:
      vote: majority_vote
      best: [{verify: {verifier: reward}}, best_of]
      weighted: [{verify: {verifier: reward}}, weighted_vote]
"""


def test_what_is_there_costs_nothing_and_growing_costs_the_rest() -> None:
    space, paid = SearchSpace.from_data(SPACE), Paid()
    needs = Needs(space)
    price = Prices(needs, paid)

    def one(n: int, temperature: float, way: str) -> Configuration:
        return space.axes.configuration({"n": n, "temperature": temperature, "chosen by": way})

    assert price(one(8, 0.5, "vote")) == 8
    assert price(one(8, 0.5, "best")) == 16, "a reward of each"
    paid.note(needs(one(8, 0.5, "vote")))
    assert price(one(2, 0.5, "vote")) == price(one(8, 0.5, "vote")) == 0
    assert price(one(12, 0.5, "vote")) == 4
    assert price(one(8, 0.5, "best")) == 8
    assert price(one(8, 1.0, "vote")) == 8, "another pool"
    paid.note(needs(one(2, 0.5, "best")))
    assert price(one(8, 0.5, "weighted")) == 6, "rewards are shared by all that choose by them"
    assert price(one(8, 0.5, "vote")) == 0, "what is paid for stays so"


def test_what_needs_the_same_is_equal() -> None:
    space = SearchSpace.from_data(SPACE)
    best, weighted = (
        space.axes.configuration({"n": 2, "temperature": 1.0, "chosen by": way})
        for way in ("best", "weighted")
    )
    assert Needs(space)(best) == needed(space.graph(weighted), space.bounds(weighted))


def test_a_stage_without_a_bound_is_dear_until_it_is_paid_for() -> None:
    space = SearchSpace.from_data(SPACE)
    one = space.axes.configuration({"n": 2, "temperature": 1.0, "chosen by": "vote"})
    paid = Paid()
    unbounded = needed(space.graph(one), {})
    assert paid.price(unbounded) == pytest.approx(1e6 * len(unbounded))
    paid.note(unbounded)
    assert paid.price(unbounded) == 0
