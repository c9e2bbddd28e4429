"""Whom a request goes to: who has read its beginning, unless too busy."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from archon.backends.base import Completion, Progress, Request, Sampling
from archon.backends.nano.backend import Nano
from archon.backends.nano.routing import Reader, blocks, choose
from archon.problem import Message


def test_texts_have_the_blocks_that_they_begin_with_in_common() -> None:
    one, other = list(range(100)), [*range(40), *range(60)]
    assert len(blocks(one)) == 6
    assert blocks(one)[:2] == blocks(other)[:2] and blocks(one)[2] != blocks(other)[2]
    assert blocks(one[:47]) == blocks(one)[:2]
    assert blocks([1] * 15) == []
    shifted = [9, *one]
    assert not set(blocks(shifted)) & set(blocks(one)), (
        "the same tokens after another beginning are another text"
    )


def test_the_one_that_has_read_most_of_it_unless_it_is_too_busy() -> None:
    readers = [Reader(), Reader(), Reader()]
    long, short = blocks(range(100)), blocks(range(40))
    readers[1].note(short)
    readers[2].note(long)
    assert choose([0, 0, 0], readers, long) == 2
    assert choose([0, 0, 32], readers, long) == 2
    assert choose([0, 0, 33], readers, long) == 1
    assert choose([0, 33, 33], readers, long) == 0
    assert choose([5, 3, 4], readers, blocks(range(1000, 1100))) == 1, "the idlest, where none has"
    assert choose([5, 3, 4], readers, []) == 1
    readers[2].forget()
    assert choose([0, 0, 0], readers, long) == 1


def test_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    reader, kept = Reader(), blocks(range(160))
    for text in range(2000):
        reader.note(kept)
        reader.note(blocks(range(text * 1000, text * 1000 + 160)))
    assert len(reader._blocks) == 1 << 13
    assert reader.known(kept) == 10
    assert reader.known(blocks(range(5000, 5160))) == 0


async def test_a_reply_goes_on_where_its_beginning_was_read() -> None:
    """Begun by the second worker, as the first is busy; then both are idle."""
    backend = Nano(workers=2).connect()
    question = (Message(role="user", content="Compute (11+50)-(36-22)+56 step by step."),)
    other = Request((Message(role="user", content="something else"),), sampling=Sampling(max_tokens=500))

    async def go_on(beginning: str) -> Completion:
        request = Request(question, prefix=beginning, sampling=Sampling(seed=1, max_tokens=16))
        async with aclosing(backend.complete(request, [0], Progress())) as stream:
            return await anext(stream)

    try:
        async with aclosing(backend.complete(other, range(2), Progress())) as busy:
            begun = [asyncio.ensure_future(anext(busy)), asyncio.ensure_future(go_on(""))]
            await asyncio.wait(begun)
        told = [await begun[1]]
        for step in range(1, 6):
            told.append(await go_on("61-14+56+1-99+12" * step))
    finally:
        await backend.close()
    tokens = [one.tokens for one in told if isinstance(one, Completion) and one.tokens]
    assert [one.cached for one in tokens[1:]] == [one.prompt for one in tokens[:-1]]
