"""Scripted models: replies, latencies and failures exactly as the script says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from archon.backends.base import Completion, Progress, Request, Sampling, ScoreRequest, Tokens
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.errors import NotRecorded, Overloaded
from archon.problem import Message
from tests.archon.virtual import now, virtually

REQUEST = Request((Message(role="user", content="one two three"),), problem="p")


async def collect(backend: ScriptedBackend, *indices: int, request: Request = REQUEST) -> list[Completion]:
    return [c async for c in backend.complete(request, indices, Progress())]


def test_a_table_gives_sample_i_the_i_th_reply_of_its_problem() -> None:
    async def work() -> None:
        backend = Scripted(replies={"p": ("a", "b"), "*": ("other",)}).connect()
        assert [c.text for i in (1, 0) for c in await collect(backend, i)] == ["b", "a"]
        other = Request(REQUEST.messages, problem="q")
        assert [c.text for c in await collect(backend, 0, request=other)] == ["other"]

    virtually(work())


def test_beyond_the_table_is_an_error_that_says_what_to_do_or_starts_over() -> None:
    async def work() -> None:
        table = {"p": ("a", "b")}
        with pytest.raises(NotRecorded, match=r"2 replies for problem 'p' and is asked for number 3.*cycle"):
            await collect(Scripted(replies=table).connect(), 2)
        (third,) = await collect(Scripted(replies=table, cycle=True).connect(), 2)
        assert third.text == "a"
        with pytest.raises(NotRecorded, match="no replies for problem 'p'"):
            await collect(Scripted(replies={"q": ("a",)}).connect(), 0)
        with pytest.raises(NotRecorded, match="is empty"):
            await collect(Scripted(replies={"p": ()}, cycle=True).connect(), 0)

    virtually(work())


def test_a_function_sees_what_is_asked_and_how_often_it_was_asked_before() -> None:
    async def work() -> None:
        backend = Scripted(reply=lambda c: f"{c.problem}|{c.text}|{c.index}|{c.attempt}").connect()
        assert [(await collect(backend, 4))[0].text for _ in range(2)] == [
            "p|one two three|4|0",
            "p|one two three|4|1",
        ]
        raw = Request(prompt="def f():", problem="p")
        assert (await collect(backend, 4, request=raw))[0].text == "p|def f():|4|0"

    virtually(work())


@pytest.mark.parametrize("raising", [True, False])
def test_an_error_that_is_raised_or_returned_is_raised(raising: bool) -> None:
    def reply(call: Call) -> Any:
        error = Overloaded("busy")
        if raising:
            raise error
        return error

    async def work() -> None:
        backend = Scripted(reply=reply).connect()
        with pytest.raises(Overloaded, match="busy"):
            await collect(backend, 0)
        assert (len(backend.calls), backend.in_flight, backend.cancelled) == (1, 0, [])

    virtually(work())


def test_samples_of_one_request_come_as_they_finish_and_share_one_prompt() -> None:
    async def work() -> None:
        backend = Scripted(reply=lambda c: Reply("x y", latency=(3, 1, 2)[c.index]), max_n=3).connect()
        seen = []
        async for completion in backend.complete(REQUEST, (0, 1, 2), Progress()):
            seen.append((completion.index, now(), completion.requests, completion.tokens))
        first, other = Tokens(3, completion=2), Tokens(0, completion=2)
        assert seen == [(1, 1, 1, first), (2, 2, 0, other), (0, 3, 0, other)]

    virtually(work())


def test_a_reply_says_everything_else_too() -> None:
    async def work() -> None:
        tokens = Tokens(9, 4, 30, 20, 0.5)
        reply = Reply("x", "length", "END", "because", tokens=tokens)
        (completion,) = await collect(Scripted(reply=lambda c: reply).connect(), 0)
        assert (completion.finish, completion.stop, completion.reasoning) == ("length", "END", "because")
        assert completion.tokens == tokens

    virtually(work())


def test_what_is_closed_early_is_counted_as_cancelled() -> None:
    async def work() -> None:
        backend = Scripted(reply=lambda c: Reply("x", latency=c.index * 100), max_n=3).connect()
        stream = backend.complete(REQUEST, (0, 1, 2), Progress())
        assert (await anext(stream)).index == 0
        assert backend.in_flight == 2
        await stream.aclose()
        assert [c.index for c in backend.cancelled] == [1, 2]
        assert (backend.in_flight, backend.most_in_flight) == (0, 3)

    virtually(work())


@pytest.mark.parametrize(("reports", "known"), [(True, (3, 0)), (False, (None, None))])
def test_whether_a_cancelled_call_s_tokens_are_known_is_the_script_s_choice(
    reports: bool, known: tuple[int | None, int | None]
) -> None:
    async def work() -> None:
        progress = Progress()
        backend = Scripted(reply=lambda c: Reply("x", latency=9), reports_partial=reports).connect()
        task = asyncio.ensure_future(anext(backend.complete(REQUEST, (0,), progress)))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert progress.sent
        assert (progress.prompt_tokens, progress.completion_tokens) == known

    virtually(work())


def test_a_beginning_is_judged_once_however_often_replies_go_on_from_it() -> None:
    asked = []

    def score(text: str) -> float:
        asked.append(text)
        return len(text) / 10

    async def work() -> None:
        backend = Scripted(score=score).connect()
        told = [
            await backend.score(ScoreRequest(REQUEST.messages, (steps,)), Progress())
            for steps in (("a ",), ("a ", "b c"), ("a ", "d"), ("e", "f"), ("a ", "b c"))
        ]
        assert [one.steps for (one,) in told] == [(0.2,), (0.2, 0.5), (0.2, 0.3), (0.1, 0.2), (0.2, 0.5)]
        assert [one.tokens.prompt for (one,) in told] == [4, 6, 5, 5, 6]
        assert asked == ["a ", "a b c", "a d", "e", "ef"]

    virtually(work())


def test_two_scripts_never_share_samples_unless_they_say_the_same() -> None:
    def one(call: Call) -> str:
        return "one"

    def other(call: Call) -> str:
        return "other"

    identities = [
        Scripted(reply=one).connect().identity,
        Scripted(reply=other).connect().identity,
        Scripted(replies={"p": ("a",)}).connect().identity,
        Scripted(replies={"p": ("b",)}).connect().identity,
        Scripted(reply=one, identity="mine").connect().identity,
    ]
    assert len({str(i) for i in identities}) == 5
    assert Scripted(replies={"p": ("a",)}).connect().identity == identities[2]
    assert Scripted(reply=other, identity="mine").connect().identity == identities[4]


def test_it_can_do_everything_that_can_be_asked_for() -> None:
    can = Scripted(max_n=5).connect().capabilities
    assert can.max_n == 5
    assert all((can.prefix, can.logprobs, can.seed, can.raw_prompt, can.truncation_params, can.aborts))


def test_the_seed_of_a_sample_is_its_own_and_the_same_in_every_run() -> None:
    seeds = [Request(sampling=Sampling(seed=s)).seed_of(i) for s in (1, 2) for i in range(50)]
    assert len(set(seeds)) == 100
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)
    assert Request().seed_of(3) is None
