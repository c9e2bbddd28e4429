"""A problem that the run's budget cut off, solved again when others have paid for what it lacked."""

from __future__ import annotations

import pytest

from archon import Problem, Session
from archon.backends.nano.backend import Nano
from archon.budget import Budget, Budgets, Meter
from archon.config import load
from archon.store import MemoryStore

PROBLEM = Problem.ask("Compute 3 + 4 * 2 step by step.", id="one")
VOTED = load("pipeline: [{sample: {n: 1}}, majority_vote]", "yaml").pipeline
PLAIN = load("pipeline: [{sample: {n: 1}}]", "yaml").pipeline


@pytest.mark.parametrize("others", [True, False])
async def test_it_is_not_cut_off_for_ever(others: bool) -> None:
    limit = Budget(tokens=20_000, counts="fresh")
    async with Session(
        models={"default": Nano()}, budget=Budgets(run=limit), store=MemoryStore(), seed=0
    ) as session:
        session.meter = Meter("run", Budget(tokens=10, counts="fresh"))
        cut = await session.solve(VOTED, PROBLEM)
        assert cut.stopped == "budget" and cut.exhausted == "run.tokens" and cut.fresh.tokens == 0
        if others:
            session.meter = Meter("run", limit)
            assert (await session.solve(PLAIN, PROBLEM)).fresh.tokens > 0
            session.meter = Meter("run", Budget(tokens=0, counts="fresh"))
        again = await session.solve(VOTED, PROBLEM)
        assert (again.stopped == "complete") is others
        assert (again.chosen is not None) is others
        assert again.fresh.tokens == 0
        once_more = await session.solve(VOTED, PROBLEM)
        assert once_more.as_json() == again.as_json()
