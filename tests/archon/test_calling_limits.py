"""What a call may cost: reservations, prices, FLOPs, and what a server can do."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from archon.backends.base import Completion, Progress, Request, Sampling, ScoreRequest, Tokens
from archon.backends.scripted import Reply, ScriptedBackend
from archon.budget import Budget, Meter
from archon.calling import Caller, Gate
from archon.compute import Architecture
from archon.errors import (
    ArchonError,
    BudgetExhausted,
    CapabilityError,
    Overloaded,
    UnpricedModel,
)
from archon.prices import Price
from archon.problem import Message
from archon.usage import Usage
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


TINY = Architecture(layers=2, hidden=8, heads=2, ffn=16, vocab=50)


def test_by_its_architecture_the_samples_of_a_request_cost_what_the_request_costs() -> None:
    """The prompt is read with the first, and seen by all of them."""

    async def work() -> None:
        desk = Desk(lambda call: "w " * (call.index + 1), architecture=TINY, max_n=3)
        await desk.call(0, 1, 2)
        usages = [usage for _, _, usage in desk.delivered]
        assert [u.prompt_tokens for u in usages] == [2, 0, 0]
        alone = [TINY.flops.of(2, 2, n) for n in (1, 2, 3)]
        assert [u.flops for u in usages] == [TINY.flops.of(2, 0, 1), *alone[1:]]
        assert sum(u.unsized for u in usages) == 0

    virtually(work())


def test_a_flops_budget_reserves_the_longest_reply_and_settles_what_came() -> None:
    async def work() -> None:
        desk = Desk(lambda call: Reply("one two", latency=1), architecture=TINY)
        most = TINY.flops.of(REQUEST.prompt_bound, 0, 50)
        meter = Meter("run", Budget(flops=most))
        calling = asyncio.ensure_future(desk.call(0, meter=meter))
        await asyncio.sleep(0.5)
        assert (meter.held["flops"], meter.spent["flops"]) == (most, 0)
        await calling
        assert (meter.held["flops"], meter.spent["flops"]) == (0, TINY.flops.of(2, 0, 2))
        with pytest.raises(BudgetExhausted):
            await desk.call(1, meter=meter)
        assert len(desk.backend.calls) == 1

    virtually(work())


def test_a_cancelled_call_costs_the_prompt_and_what_had_come_of_every_sample() -> None:
    caller = Desk(lambda call: "x", architecture=TINY).caller
    progress = Progress()
    progress.sent, progress.prompt_tokens, progress.completion_tokens = True, 10, 8
    whole = caller.partial(REQUEST, 4, progress, 1.0, None, begun=False)
    rest = caller.partial(REQUEST, 4, progress, 1.0, None, begun=True)
    assert whole.flops == TINY.flops.of(10, 0, 8, samples=4)
    assert rest.flops == TINY.flops.of(10, 10, 8, samples=4), "the prompt was billed with those that came"


def test_replies_that_are_scored_together_are_reserved_and_billed_as_read_one_by_one() -> None:
    """As one long text, attention would cost as if each had read all others."""
    caller = Desk(lambda call: "x", architecture=TINY).caller
    question = (Message(role="user", content="q" * 36),)
    alone = [ScoreRequest(question, (("x" * size,),)) for size in (10, 110, 310)]
    together = ScoreRequest(question, tuple(one.replies[0] for one in alone))
    reserved = caller.worst_case(together, 3).flops
    assert reserved == sum(caller.worst_case(one, 1).flops for one in alone)
    assert reserved < TINY.flops.of(together.prompt_bound, 0, 0)
    progress = Progress()
    progress.sent, progress.prompt_tokens, progress.completion_tokens = True, together.prompt_bound // 2, 0
    billed = caller.partial(together, 3, progress, 1.0, None, begun=False).flops
    assert TINY.flops.of(together.prompt_bound // 2 // 3, 0, 0) * 3 <= billed < reserved / 2


def test_what_was_recorded_before_the_size_was_known_is_counted_by_its_own_context() -> None:
    caller = Desk(lambda call: "x", architecture=TINY).caller
    first = Usage(1, prompt_tokens=20, completion_tokens=5, unsized=1)
    sibling = Usage(0, completion_tokens=5)
    valued = [caller.valued(first), caller.valued(sibling, 20)]
    assert sum(u.flops for u in valued) == TINY.flops.of(20, 0, 10, samples=2)
    assert valued[0].unsized == 0
    assert caller.valued(valued[0]) == valued[0], "and what is recorded stays"


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


def test_a_server_that_starts_anew_while_a_call_waits_for_its_slot_costs_the_call_no_time() -> None:
    class Dies(ScriptedBackend):
        """Starts again now and then, and takes longer for it than a call may take."""

        starts = 0

        async def ready(self) -> None:
            if self.starts:
                self.starts -= 1
                await asyncio.sleep(100)

    async def work() -> None:
        desk = Desk(lambda call: Reply("x", latency=1), Gate(1, 1), timeout=10, retries=0)
        backend = Dies(desk.model)
        desk.caller = Caller("m", desk.model, backend, desk.gate)
        calls = [asyncio.ensure_future(desk.call(index)) for index in range(2)]
        await asyncio.sleep(0.5)  # the second waits for the first
        backend.starts = 1
        await asyncio.gather(*calls)
        assert [at for _, at, _ in desk.delivered] == [1, 102]
        assert [usage.seconds for _, _, usage in desk.delivered] == [1, 1]

    virtually(work())
