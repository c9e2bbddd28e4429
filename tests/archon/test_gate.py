"""The slots of an endpoint: additive increase, multiplicative decrease. On a virtual clock."""

from __future__ import annotations

import asyncio

from archon.calling import Gate
from tests.archon.virtual import now, virtually


async def occupy(gate: Gate, seconds: float) -> None:
    async with gate:
        await asyncio.sleep(seconds)
        gate.succeeded()


def test_slots_double_per_round_trip_until_the_first_refusal_and_never_pass_the_most() -> None:
    async def work() -> None:
        gate, in_use = Gate(2, 11), []
        calls = [asyncio.ensure_future(occupy(gate, 1)) for _ in range(60)]
        for _ in range(5):
            await asyncio.sleep(0.5)
            in_use.append(gate.in_use)
            await asyncio.sleep(0.5)
        assert in_use == [2, 4, 8, 11, 11]
        await asyncio.gather(*calls)
        assert gate.in_use == 0

    virtually(work())


def test_a_burst_of_refusals_halves_once_and_later_ones_down_to_one_slot() -> None:
    async def work() -> None:
        gate = Gate(16, 64)
        await asyncio.sleep(5)
        for _ in range(10):
            gate.refused(4.0, None)
        assert gate.limit == 8
        for expected in (4, 2, 1, 1):
            await asyncio.sleep(1)
            gate.refused(now(), None)
            assert gate.limit == expected

    virtually(work())


def test_after_a_refusal_it_grows_by_one_slot_per_round_trip() -> None:
    async def work() -> None:
        gate = Gate(16, 64)
        gate.refused(now(), None)
        calls = [asyncio.ensure_future(occupy(gate, 1)) for _ in range(100)]
        await asyncio.sleep(0.5)
        for _ in range(5):
            before = gate.limit
            await asyncio.sleep(1)
            assert 0.8 < gate.limit - before <= 1.2
        await asyncio.gather(*calls)

    virtually(work())


def test_it_does_not_grow_while_it_is_not_used_fully() -> None:
    async def work() -> None:
        gate = Gate(8, 64)
        for _ in range(20):
            await occupy(gate, 1)
        assert gate.limit == 8

    virtually(work())


def test_everyone_at_an_endpoint_waits_when_it_says_so() -> None:
    async def work() -> None:
        gate = Gate(8, 8)
        gate.refused(now(), 10)
        await asyncio.gather(*(occupy(gate, 0) for _ in range(3)))
        assert now() == 10

    virtually(work())


def test_a_cancelled_wait_leaves_the_slot_to_the_next() -> None:
    async def work() -> None:
        gate = Gate(1, 1)
        waiting = [asyncio.ensure_future(occupy(gate, 1)) for _ in range(4)]
        await asyncio.sleep(0.5)
        waiting[1].cancel()
        await asyncio.sleep(0.5)
        waiting[2].cancel()  # it has just been given the slot, perhaps
        await asyncio.wait(waiting)
        assert gate.in_use == 0 and waiting[3].exception() is None

    virtually(work())
