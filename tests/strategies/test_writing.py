"""What stages that write share: streams that wait until they are read, numbers, replies that are whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from pydantic import ConfigDict

from archon.backends.scripted import Reply, Scripted
from archon.candidate import Candidate
from archon.errors import RequestRejected, StageFailed
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.writing import descended, merged, numbered, whole
from tests.strategies.made import PROBLEM, made


class Does(Stage):
    """Does one thing with its run."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    takes = False
    work: Callable[[Run], Awaitable[Any]]

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        await self.work(run)
        yield made("done", stage="")


async def does(work: Callable[[Run], Awaitable[Any]], reply: Any = "x") -> None:
    models = Scripted(reply=reply if callable(reply) else lambda call: reply, identity="m")
    async with Session(models=models) as session:
        await session.solve(Does(work=work), PROBLEM)


async def counting(begun: list[int], n: int, *, first: int = 0) -> AsyncGenerator[Candidate, None]:
    for number in range(first, first + n):
        begun.append(number)
        yield made(f"{number}", number)


async def test_a_stream_goes_on_when_what_it_gave_has_been_taken() -> None:
    async def work(run: Run) -> None:
        begun: list[int] = []
        async with aclosing(merged(run, counting(begun, 3))) as stream:
            async for candidate in stream:
                for _ in range(20):
                    await asyncio.sleep(0)
                assert begun == list(range(candidate.index + 1))
        assert begun == [0, 1, 2]

    await does(work)


async def test_what_follows_a_candidate_begins_when_it_has_been_taken() -> None:
    async def work(run: Run) -> None:
        begun: list[int] = []
        seen = []
        follow = lambda c: counting(begun, 2, first=10 * (c.index + 1))  # noqa: E731
        async with aclosing(merged(run, counting(begun, 2), follow=follow)) as stream:
            async for candidate in stream:
                seen.append(candidate.index)
                assert candidate.index in begun and len(begun) <= len(seen) + 1
        assert sorted(seen) == [0, 1, 10, 11, 20, 21], "nothing follows what followed"

    await does(work)


async def test_streams_that_are_left_are_closed() -> None:
    closed = []

    async def endless(name: str) -> AsyncGenerator[Candidate, None]:
        try:
            while True:
                await asyncio.sleep(0)
                yield made(name)
        finally:
            closed.append(name)

    async def work(run: Run) -> None:
        async with aclosing(merged(run, endless("a"), endless("b"))) as stream:
            async for _ in stream:
                break

    await does(work)
    assert sorted(closed) == ["a", "b"]


async def test_what_a_stream_raises_is_raised() -> None:
    async def broken() -> AsyncGenerator[Candidate, None]:
        yield made("a")
        raise ZeroDivisionError

    async def work(run: Run) -> None:
        async for _ in merged(run, broken(), counting([], 2)):
            pass

    with pytest.raises(StageFailed, match="ZeroDivisionError"):
        await does(work)


async def test_of_no_streams_nothing_comes() -> None:
    async def work(run: Run) -> None:
        assert [c async for c in merged(run)] == []

    await does(work)


def test_a_number_replaces_the_one_that_a_candidate_came_with() -> None:
    candidate = Candidate("outer/direct#1/sample#3", "x", "outer/direct#1/sample", 3)
    assert numbered(candidate, 7).id == "outer/direct#1/sample#7" and numbered(candidate, 7).index == 7


def test_a_descendant_has_its_origins_number_or_the_next_that_is_free() -> None:
    taken: set[int] = set()
    given = [descended(made("new", 50), made("old", index), taken).index for index in (3, 0, 3, 4)]
    assert given == [3, 0, 4, 5] and taken == {0, 3, 4, 5}


@pytest.mark.parametrize(
    ("reply", "is_whole"),
    [
        ("text", True),
        (" \n", False),
        (Reply("text", finish="length"), False),
        (Reply("text", finish="stop_string"), True),
        (RequestRejected("no", status=400), False),
    ],
)
async def test_a_reply_is_whole_or_none(reply: Any, is_whole: bool) -> None:
    async def work(run: Run) -> None:
        found = await whole(run.sample("default"))
        assert (found is not None) is is_whole

    await does(work, lambda call: reply)
