"""Calling a model: retries that are counted, bills that are complete. On a virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply
from archon.calling import Gate
from archon.errors import (
    BackendError,
    BadReply,
    CallTimedOut,
    ConnectionDropped,
    EndpointDown,
    Overloaded,
    RateLimited,
    RequestRejected,
)
from archon.usage import NOTHING, Usage
from tests.archon.desk import Desk, failing
from tests.archon.virtual import now, virtually


def test_every_attempt_is_counted_and_the_sample_is_delivered_once() -> None:
    async def work() -> None:
        desk = Desk(failing(2, ConnectionDropped("reset")))
        await desk.call(0)
        assert [(i, u.requests) for i, _, u in desk.delivered] == [(0, 1)]
        assert [(b.kind, b.indices, b.usage.requests) for b in desk.billed] == [("retried", (0,), 1)] * 2
        assert desk.billed[0].error == "ConnectionDropped: reset"
        assert desk.usage.requests == len(desk.backend.calls) == 3

    virtually(work())


@pytest.mark.parametrize("kind", [RateLimited, Overloaded])
def test_the_server_says_how_long_to_wait(kind: type[BackendError]) -> None:
    async def work() -> None:
        desk = Desk(failing(1, kind("wait", retry_after=7)))
        await desk.call(0)
        assert 7 <= now() <= 7.25, "as long as asked, and a little for the jitter"

    virtually(work())


def test_a_server_cannot_make_us_wait_for_an_hour() -> None:
    async def work() -> None:
        desk = Desk(failing(1, RateLimited("wait", retry_after=3600)))
        await desk.call(0)
        assert 60 <= now() <= 60.25

    virtually(work())


def test_without_a_word_from_the_server_pauses_double_up_to_eight_seconds() -> None:
    async def work() -> None:
        times: list[float] = []

        def reply(call: Call) -> Any:
            times.append(now())
            return ConnectionDropped("gone") if call.attempt < 7 else "fine"

        desk = Desk(reply, retries=7)
        await desk.call(0)
        pauses = [b - a for a, b in itertools.pairwise(times)]
        for pause, most in zip(pauses, (0.5, 1, 2, 4, 8, 8, 8), strict=True):
            assert most / 2 <= pause <= most

    virtually(work())


def test_after_the_last_retry_the_error_comes_out_and_the_bill_says_failed() -> None:
    async def work() -> None:
        desk = Desk(lambda call: Overloaded("busy", status=503) if call.index else "fine", retries=2)
        await desk.call(0)
        with pytest.raises(Overloaded, match="busy"):
            await desk.call(1)
        assert [b.kind for b in desk.billed] == ["retried", "retried", "failed"]
        assert desk.usage.requests == 4

    virtually(work())


@pytest.mark.parametrize("error", [RequestRejected("no"), BadReply("html")])
def test_a_permanent_error_is_not_tried_again(error: BackendError) -> None:
    async def work() -> None:
        desk = Desk(failing(9, error))
        with pytest.raises(type(error)):
            await desk.call(0)
        assert len(desk.backend.calls) == 1
        assert [(b.kind, b.usage.requests, b.usage.tokens) for b in desk.billed] == [("failed", 1, 2)]

    virtually(work())


def test_a_bad_reply_of_a_server_that_spoke_the_protocol_before_is_tried_again() -> None:
    async def work() -> None:
        desk = Desk(lambda call: BadReply("cut") if call.index == 1 and not call.attempt else "fine")
        await desk.call(0)
        await desk.call(1)
        assert [i for i, _, _ in desk.delivered] == [0, 1]

    virtually(work())


def test_an_endpoint_that_never_answered_is_down() -> None:
    async def work() -> None:
        desk = Desk(failing(99, ConnectionDropped("refused")))
        with pytest.raises(EndpointDown, match="does not answer") as caught:
            await desk.call(0)
        assert isinstance(caught.value.__cause__, ConnectionDropped)

    virtually(work())


def test_twenty_failures_in_a_row_mean_that_an_endpoint_is_down_and_fewer_do_not() -> None:
    async def work() -> None:
        desk = Desk(lambda call: ConnectionDropped("gone") if call.index else "fine", retries=0)
        await desk.call(0)
        for index in range(1, 20):
            with pytest.raises(ConnectionDropped):
                await desk.call(index)
        with pytest.raises(EndpointDown):
            await desk.call(20)

    virtually(work())


def test_a_server_that_rejects_a_request_does_answer() -> None:
    async def work() -> None:
        desk = Desk(lambda call: (RequestRejected, Overloaded)[call.index]("no"), retries=0)
        with pytest.raises(RequestRejected):
            await desk.call(0)
        with pytest.raises(Overloaded):
            await desk.call(1)

    virtually(work())


@pytest.mark.parametrize(
    ("reports", "usage"),
    [
        (True, Usage(1, 2, seconds=10, unpriced=1, unsized=1)),
        # What was generated is unknown, and the prompt is estimated by its bytes (9 + 64, a quarter).
        (False, Usage(1, 18, 0, 50, seconds=10, unpriced=1, unsized=1, estimated=1)),
    ],
)
def test_a_cancelled_call_is_billed_as_far_as_is_known_and_else_by_its_limit(
    reports: bool, usage: Usage
) -> None:
    async def work() -> None:
        desk = Desk(lambda call: Reply("late", latency=100), reports_partial=reports)
        calling = asyncio.ensure_future(desk.call(0))
        await asyncio.sleep(10)
        calling.cancel()
        await asyncio.wait([calling])
        assert [(b.kind, b.indices) for b in desk.billed] == [("cancelled", (0,))]
        assert desk.usage == usage
        assert len(desk.backend.cancelled) == 1

    virtually(work())


def test_a_server_that_stops_when_cut_off_is_billed_by_its_speed() -> None:
    async def work() -> None:
        tokens = Tokens(2, completion=30)
        desk = Desk(
            lambda call: Reply("x", latency=10 + 90 * call.index, tokens=tokens), reports_partial=False
        )
        await desk.call(0)  # three tokens per second
        calling = asyncio.ensure_future(desk.call(1))
        await asyncio.sleep(4)
        calling.cancel()
        await asyncio.wait([calling])
        assert desk.billed[0].usage.completion_tokens == 12

    virtually(work())


def test_what_never_left_is_not_billed() -> None:
    async def work() -> None:
        desk = Desk(lambda call: Reply("late", latency=100), gate=Gate(1, 1))
        first, waiting = asyncio.ensure_future(desk.call(0)), asyncio.ensure_future(desk.call(1))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert desk.usage == NOTHING
        await first
        assert [i for i, _, _ in desk.delivered] == [0]
        assert desk.gate.in_use == 0

    virtually(work())


def test_a_call_that_takes_too_long_is_cut_off_and_billed() -> None:
    async def work() -> None:
        desk = Desk(lambda call: Reply("x", latency=100 * call.index), timeout=5, retries=0)
        await desk.call(0)
        with pytest.raises(CallTimedOut, match="no reply within 5 s"):
            await desk.call(1)
        assert now() == 5
        assert desk.billed[0].usage.requests == 1 and desk.billed[0].usage.prompt_tokens == 2

    virtually(work())


def test_samples_that_came_before_a_failure_are_kept_and_only_the_others_are_asked_again() -> None:
    async def work() -> None:
        def reply(call: Call) -> Any:
            if call.index == 1 and call.attempt == 0:
                return ConnectionDropped("cut")
            return Reply("x", latency=0 if call.index == 0 else 1)

        desk = Desk(reply, max_n=3, latency=0.5)
        await desk.call(0, 1, 2)
        assert sorted(i for i, _, _ in desk.delivered) == [0, 1, 2]
        assert [(c.index, c.attempt) for c in desk.backend.calls] == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]
        assert [(b.indices, b.usage.requests) for b in desk.billed] == [((1, 2), 0)]
        assert desk.usage.requests == 2, "two requests were sent"

    virtually(work())
