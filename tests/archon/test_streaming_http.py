"""Over real HTTP: the first passing sample ends the work, all the way to the server."""

from __future__ import annotations

import asyncio

from archon.backends.openai import OpenAI
from archon.backends.servers import Overrides
from archon.candidate import Outcome
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Case, Message, Problem
from archon.session import Session
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import Answer, Asked, StubServer
from archon.verifiers.unit_tests import UnitTests

PASSING = 5
IN_TIME = 30
RIGHT = "```python\ndef double(x):\n    return 2 * x\n```"
WRONG = "```python\ndef double(x):\n    return x\n```"

PROBLEM = Problem(
    id="double",
    messages=(Message(role="user", content="Write double(x)."),),
    answer="code",
    entry_point="double",
    tests=(Case(args=(3,), expected=6),),
)


def late(asked: Asked) -> Answer:
    """Sample i after i × 50 ms; the sixth is the first that passes, and from the thirtieth on they take too long."""
    delay = 0.05 * asked.number if asked.number < IN_TIME else 600
    return Answer(RIGHT if asked.number >= PASSING else WRONG, delay=delay)


def pipeline(n: int = 64) -> Pipeline:
    return Sample(n=n) | Verify(verifier=UnitTests()) | FirstPassing()


async def solve(stub: StubServer, **settings: object) -> tuple[Outcome, Session]:
    model = OpenAI(
        model="m",
        base_url=stub.url,
        concurrency=64,
        max_tokens=100,
        price=Price(input=1, output=2),
        **settings,
    )
    async with Session(models=model) as session:
        outcome = await session.solve(pipeline(), PROBLEM)
    return outcome, session


async def until_quiet(server: StubServer) -> None:
    """The server notices closed connections a moment later."""
    async with asyncio.timeout(300):
        while server.in_flight:
            await asyncio.sleep(0.01)


async def test_the_first_passing_sample_is_returned_and_the_others_are_cut_off() -> None:
    async with StubServer(late) as server:
        outcome, _ = await solve(server)
        await until_quiet(server)
        assert outcome.answer == RIGHT
        assert outcome.chosen is not None and outcome.chosen.accepted
        assert outcome.stopped == "early"
        assert len(server.asked) == 64
        assert server.cut_off + server.answered == 64
        # The sixth sample came after 250 ms; the thirty-first would have come after ten minutes.
        assert server.answered <= IN_TIME
        assert server.cut_off >= 64 - IN_TIME


async def test_every_call_is_billed_and_estimates_are_marked() -> None:
    async with StubServer(late) as server:
        outcome, session = await solve(server)
        await until_quiet(server)
        usage = outcome.usage
        assert usage.requests == 64, "cancelled calls are requests too"
        assert 34 <= usage.estimated <= 64 - len(outcome.candidates)
        assert usage == session.ledger.total == session.ledger.fresh
        written = sum(c.usage.completion_tokens for c in outcome.candidates)
        assert usage.completion_tokens >= usage.estimated * 100 + written, (
            "a server that may go on generating is billed the whole limit"
        )
        assert usage.unpriced == 0 and usage.usd > 0


async def test_a_server_that_stops_on_close_is_billed_by_its_speed() -> None:
    async with StubServer(late) as server:
        outcome, _ = await solve(server, capabilities=Overrides(aborts=True))
        await until_quiet(server)
        cancelled = outcome.usage.estimated
        assert cancelled >= 34
        assert outcome.usage.completion_tokens < cancelled * 100


async def test_a_streamed_call_is_billed_by_what_was_received() -> None:
    def slow(asked: Asked) -> Answer:
        if asked.number == 0:
            return Answer(RIGHT, delay=1)
        return Answer("word " * 2000, delay=100)  # a word every 50 ms

    async with StubServer(slow) as server:
        outcome, _ = await solve(server, server="vllm", stream=True)
        await until_quiet(server)
        assert outcome.answer == RIGHT
        assert server.cut_off == 63
        assert outcome.usage.estimated == 0, "the server told how much it had used with every chunk"
        assert 63 < outcome.usage.completion_tokens <= server.streamed


async def test_a_replay_of_the_early_stop_asks_nothing_and_costs_the_same() -> None:
    async with StubServer(late) as server:
        model = OpenAI(model="m", base_url=server.url, concurrency=64, max_tokens=100)
        first_store = "replayed.sqlite"
        async with Session(models=model, store=first_store) as session:
            first = await session.solve(pipeline(), PROBLEM)
        await until_quiet(server)
        asked = len(server.asked)
        async with Session(models=model, store=first_store) as session:
            again = await session.solve(pipeline(), PROBLEM)
        assert len(server.asked) == asked
        assert again.answer == first.answer
        assert again.usage == first.usage
        assert again.by_stage == first.by_stage
        assert again.fresh.requests == 0


async def test_ending_the_whole_run_cuts_everything_off() -> None:
    async with StubServer(lambda asked: Answer(WRONG, delay=600)) as server:
        model = OpenAI(model="m", base_url=server.url, concurrency=64)
        async with Session(models=model) as session:
            running = asyncio.ensure_future(session.solve(pipeline(16), PROBLEM))
            while server.in_flight < 16:
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            await until_quiet(server)
            assert server.cut_off == 16
            assert session.ledger.total.requests == 16
