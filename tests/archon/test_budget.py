"""Budgets: reserve before spending, settle after, first come first served, never over a hard limit."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.budget import Budget, Budgets, Hold, Meter
from archon.errors import BudgetExhausted
from archon.usage import NOTHING, Usage


def calls(n: int) -> Usage:
    return Usage(requests=n)


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def nested(run: Budget, problem: Budget, stage: Budget) -> tuple[Meter, Meter, Meter]:
    outer = Meter("run", run)
    middle = Meter("problem", problem, outer)
    return outer, middle, Meter("stage s", stage, middle)


async def test_what_is_held_counts_until_it_is_settled_below() -> None:
    meter = Meter("run", Budget(tokens=100))
    hold = await meter.reserve(Usage(completion_tokens=80))
    assert meter.try_reserve(Usage(completion_tokens=21)) is None
    hold.charge(Usage(completion_tokens=10))
    assert (meter.spent["tokens"], meter.held["tokens"]) == (10, 70)
    hold.close()
    assert (meter.spent["tokens"], meter.held["tokens"]) == (10, 0)
    assert meter.try_reserve(Usage(completion_tokens=90)) is not None


async def test_the_limit_itself_may_be_spent_and_not_a_token_more() -> None:
    meter = Meter("run", Budget(completion_tokens=10))
    (await meter.reserve(Usage(completion_tokens=10))).close()
    with pytest.raises(BudgetExhausted):
        await meter.reserve(Usage(completion_tokens=11))


async def test_what_could_never_fit_is_refused_with_the_scope_and_what_ran_out() -> None:
    _, _, stage = nested(Budget(), Budget(usd=Decimal("0.05")), Budget(requests=9))
    with pytest.raises(BudgetExhausted) as caught:
        await stage.reserve(Usage(requests=1, usd=Decimal("0.06")))
    assert (caught.value.scope, caught.value.dimension) == ("problem", "usd")
    assert str(caught.value) == ("the problem budget of 0.05 usd has 0 spent; the next call could need 0.06")


async def test_a_zero_budget_admits_what_uses_none_of_it() -> None:
    meter = Meter("run", Budget(usd=Decimal(0)))
    hold = await meter.reserve(Usage(requests=1, completion_tokens=9))
    hold.close()
    with pytest.raises(BudgetExhausted):
        await meter.reserve(Usage(usd=Decimal("0.000001")))


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_call_must_fit_every_budget_around_it(which: int) -> None:
    limits = [Budget(requests=2 if i == which else 99) for i in range(3)]
    meters = nested(limits[0], limits[1], limits[2])
    hold = await meters[2].reserve(calls(2))
    assert all(m.held["requests"] == 2 for m in meters)
    assert meters[2].try_reserve(calls(1)) is None
    hold.charge(calls(2))
    hold.close()
    with pytest.raises(BudgetExhausted) as caught:
        await meters[2].reserve(calls(1))
    assert caught.value.scope == ("run", "problem", "stage s")[which]
    assert all(m.spent["requests"] == 2 for m in meters)


async def test_what_does_not_fit_one_budget_holds_nothing_in_the_others() -> None:
    run, problem, stage = nested(Budget(requests=9), Budget(requests=9), Budget(requests=1))
    assert stage.try_reserve(calls(2)) is None
    with pytest.raises(BudgetExhausted):
        await stage.reserve(calls(2))
    assert [m.held["requests"] for m in (run, problem, stage)] == [0, 0, 0]


async def test_siblings_share_the_budget_around_them() -> None:
    run = Meter("run", Budget(requests=3))
    one, other = Meter("problem", Budget(), run), Meter("problem", Budget(), run)
    (await one.reserve(calls(2))).charge(calls(2))
    assert other.try_reserve(calls(2)) is None
    assert other.try_reserve(calls(1)) is not None


async def test_waiters_are_served_in_the_order_they_came() -> None:
    meter = Meter("run", Budget(requests=3))
    first = await meter.reserve(calls(3))
    served: list[int] = []

    async def wait(number: int, n: int) -> None:
        hold = await meter.reserve(calls(n))
        served.append(number)
        await turn()
        hold.close()  # nothing was spent: the next may have it all

    tasks = [asyncio.ensure_future(wait(i, n)) for i, n in enumerate((3, 1, 2, 1))]
    await turn()
    assert served == []
    first.close()
    await asyncio.gather(*tasks)
    assert served == [0, 1, 2, 3]


async def test_a_small_request_does_not_overtake_a_large_one_that_waits() -> None:
    meter = Meter("run", Budget(requests=3))
    hold = await meter.reserve(calls(2))
    large = asyncio.ensure_future(meter.reserve(calls(3)))
    await turn()
    small = asyncio.ensure_future(meter.reserve(calls(1)))
    await turn()
    assert not large.done() and not small.done(), "the small one fits, but is not first in line"
    hold.close()
    (await large).close()
    (await small).close()
    assert meter.held["requests"] == 0


async def test_waiters_that_can_no_longer_be_served_are_told_so() -> None:
    meter = Meter("run", Budget(requests=2))
    hold = await meter.reserve(calls(2))
    waiting = [asyncio.ensure_future(meter.reserve(calls(n))) for n in (2, 1)]
    await turn()
    hold.charge(calls(1))
    hold.close()
    with pytest.raises(BudgetExhausted):
        await waiting[0]
    assert (await waiting[1]) is not None


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_waiter_keeps_nothing_and_blocks_nobody(granted: bool) -> None:
    meter = Meter("run", Budget(requests=2))
    hold = await meter.reserve(calls(1))
    gone = asyncio.ensure_future(meter.reserve(calls(2)))
    await turn()
    next_in_line = asyncio.ensure_future(meter.reserve(calls(1)))
    await turn()
    if granted:  # it has just been given what it waited for, and has not run yet
        hold.close()
    gone.cancel()
    await turn()
    assert gone.cancelled()
    (await next_in_line).close()
    hold.close()
    assert meter.held["requests"] == 0


async def test_a_release_elsewhere_serves_the_waiter_of_the_budget_around() -> None:
    run = Meter("run", Budget(requests=1))
    one, other = Meter("problem", Budget(requests=5), run), Meter("problem", Budget(requests=5), run)
    hold = await one.reserve(calls(1))
    waiting = asyncio.ensure_future(other.reserve(calls(1)))
    await turn()
    assert not waiting.done()
    hold.close()
    (await waiting).close()


async def test_more_than_was_held_is_still_counted() -> None:
    meter = Meter("run", Budget(completion_tokens=100))
    hold = await meter.reserve(Usage(completion_tokens=10))
    hold.charge(Usage(completion_tokens=15))
    hold.close()
    assert (meter.spent["completion_tokens"], meter.held["completion_tokens"]) == (15, 0)


async def test_closing_twice_releases_once_and_a_late_charge_is_counted() -> None:
    meter = Meter("run", Budget(requests=5))
    hold, other = await meter.reserve(calls(2)), await meter.reserve(calls(3))
    hold.close()
    hold.close()
    assert meter.held["requests"] == 3
    hold.charge(calls(1))
    assert (meter.spent["requests"], meter.held["requests"]) == (1, 3)
    other.close()


async def test_a_replayed_sample_counts_unless_the_budget_counts_only_fresh_ones() -> None:
    run, problem = Budget(requests=5, counts="fresh"), Budget(requests=5)
    outer = Meter("run", run)
    inner = Meter("problem", problem, outer)
    (await inner.reserve(calls(1), fresh=False)).charge(calls(1))
    assert (outer.spent["requests"], inner.spent["requests"]) == (0, 1)
    (await inner.reserve(calls(1))).charge(calls(1))
    assert (outer.spent["requests"], inner.spent["requests"]) == (1, 2)


async def test_without_limits_anything_goes() -> None:
    hold = await Meter("run").reserve(Usage(requests=10**9, usd=Decimal(10**9)))
    hold.charge(Usage(requests=10**9))
    hold.close()


def test_limited_names_every_dimension_of_every_budget_around() -> None:
    _, _, stage = nested(Budget(usd=Decimal(1)), Budget(flops=5, seconds=3), Budget(requests=0))
    assert stage.limited() == {"usd", "flops", "requests"}


@pytest.mark.parametrize(
    "fields",
    [{"requests": -1}, {"usd": -1}, {"usd": "NaN"}, {"usd": "Infinity"}, {"seconds": -1}, {"euro": 1}],
)
def test_a_limit_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Budget(**fields)
    with pytest.raises(ValidationError):
        Budgets(run=fields)


@settings(max_examples=60, deadline=None)
@given(
    limits=st.tuples(*[st.none() | st.integers(0, 12)] * 3),
    worsts=st.lists(st.integers(1, 6), max_size=15),
    seed=st.integers(0, 999),
    cancelled=st.sets(st.integers(0, 14)),
)
def test_spent_and_held_never_exceed_any_limit_and_everybody_gets_an_answer(
    limits: tuple[int | None, ...], worsts: list[int], seed: int, cancelled: set[int]
) -> None:
    meters = nested(*(Budget(requests=limit) for limit in limits))
    draw = random.Random(seed)

    def check() -> None:
        for meter, limit in zip(meters, limits, strict=True):
            if limit is not None:
                assert 0 <= meter.spent["requests"] + meter.held["requests"] <= limit
                assert meter.held["requests"] >= 0

    async def one(worst: int) -> Usage:
        meter = draw.choice(meters)
        hold: Hold = await meter.reserve(calls(worst))
        used = NOTHING
        try:
            check()
            await asyncio.sleep(0)
            used = calls(draw.randint(0, worst))
            hold.charge(used)
            await asyncio.sleep(0)
        finally:
            hold.close()
            check()
        return used

    async def all_of_them() -> None:
        tasks = [asyncio.ensure_future(one(worst)) for worst in worsts]
        await asyncio.sleep(0)
        for number in cancelled:
            if number < len(tasks):
                tasks[number].cancel()
        async with asyncio.timeout(300):
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, Usage | BudgetExhausted | asyncio.CancelledError), repr(result)
        assert all(held == 0 for meter in meters for held in meter.held.values())

    asyncio.run(all_of_them())
