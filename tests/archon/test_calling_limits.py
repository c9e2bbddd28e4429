"""What a call may cost: reservations, prices, FLOPs, and what a server can do."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from archon.backends.base import Completion, Request, Sampling, Tokens
from archon.backends.scripted import Reply
from archon.budget import Budget, Meter
from archon.calling import Caller, Gate
from archon.errors import (
    ArchonError,
    BudgetExhausted,
    CapabilityError,
    Overloaded,
    UnpricedModel,
)
from archon.prices import Price
from tests.archon.desk import REQUEST, Desk, failing
from tests.archon.virtual import virtually


def test_each_attempt_is_reserved_by_itself_so_that_retries_keep_to_the_budget() -> None:
    async def work() -> None:
        desk = Desk(failing(99, Overloaded("busy")), retries=9)
        meter = Meter("run", Budget(requests=3))
        with pytest.raises(BudgetExhausted):
            await desk.call(0, meter=meter)
        assert len(desk.backend.calls) == meter.spent["requests"] == desk.usage.requests == 3
        assert meter.held["requests"] == 0

    virtually(work())


def test_a_cancelled_call_releases_what_it_held_and_keeps_what_it_used() -> None:
    async def work() -> None:
        desk = Desk(lambda call: Reply("late", latency=100))
        meter = Meter("run", Budget(tokens=500))
        calling = asyncio.ensure_future(desk.call(0, meter=meter))
        await asyncio.sleep(1)
        assert meter.held["tokens"] == 50 + REQUEST.prompt_bound
        calling.cancel()
        await asyncio.wait([calling])
        assert (meter.held["tokens"], meter.spent["tokens"]) == (0, 2)

    virtually(work())


@pytest.mark.parametrize(
    ("settings", "tokens", "usd", "unpriced"),
    [
        ({}, Tokens(100, 0, 50), "0", 1),
        ({"price": Price(input=2, output=8)}, Tokens(100, 0, 50), "0.0006", 0),
        ({"price": Price(input=2, output=8, cached_input=1)}, Tokens(100, 40, 50), "0.00056", 0),
        ({"price": Price(input=2, output=8, request="0.01")}, Tokens(100, 0, 50), "0.0106", 0),
        ({"price": Price(input=2, output=8)}, Tokens(100, 0, 50, usd=0.123), "0.123", 0),
        ({}, Tokens(100, 0, 50, usd=0.0), "0", 0),
    ],
)
def test_money_is_what_the_provider_says_else_the_price_else_unpriced(
    settings: dict[str, Any], tokens: Tokens, usd: str, unpriced: int
) -> None:
    desk = Desk(lambda call: "x", **settings)
    usage = desk.caller.heard(Completion(0, "x", tokens=tokens), 1.0)
    assert (usage.usd, usage.unpriced) == (Decimal(usd), unpriced)


def test_flops_are_two_per_parameter_and_token_that_was_not_cached() -> None:
    desk = Desk(lambda call: "x", parameters=7e9)
    usage = desk.caller.heard(Completion(0, "x", tokens=Tokens(100, 40, 50)), 1.0)
    assert (usage.flops, usage.unsized) == (2 * 7_000_000_000 * 110, 0)
    assert Desk(lambda call: "x").caller.heard(Completion(0, "x"), 1.0).unsized == 1


@pytest.mark.parametrize(
    ("budget", "error"), [(Budget(usd=1), UnpricedModel), (Budget(flops=1e9), UnpricedModel)]
)
def test_a_budget_that_cannot_be_counted_is_an_error_before_anything_is_spent(
    budget: Budget, error: type[ArchonError]
) -> None:
    desk = Desk(lambda call: "x")
    with pytest.raises(error):
        desk.caller.check(REQUEST, Meter("problem", Budget(), Meter("run", budget)))
    assert desk.backend.calls == []


def test_asking_for_what_a_server_cannot_do_names_all_of_it() -> None:
    from archon.backends.openai import OpenAI

    model = OpenAI(model="m", base_url="http://127.0.0.1:11434/v1")
    caller = Caller("local", model, model.connect(), Gate(1, 1))
    asked = Request(prefix="So", sampling=Sampling(logprobs=2, top_k=5))
    with pytest.raises(CapabilityError) as caught:
        caller.check(asked, Meter("run"))
    for what in ("'local'", "prefix", "logprobs", "top_k"):
        assert what in str(caught.value)
