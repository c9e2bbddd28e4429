"""OpenAI-compatible servers that refuse, stall, lie or break off: each is one clear error, never an answer."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from archon.backends.openai import OpenAI
from archon.budget import Budget, Budgets
from archon.errors import (
    AllCandidatesFailed,
    ArchonError,
    AuthenticationFailed,
    BackendError,
    BadReply,
    CallTimedOut,
    ConnectionDropped,
    ContextOverflow,
    EndpointDown,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
)
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.testing import Answer, Asked, StubServer

PROBLEM = Problem.ask("two words", id="p")


async def fails(server: StubServer, n: int = 1, **settings: Any) -> ArchonError:
    """The error of a run; of every attempt, where every attempt failed."""
    model = OpenAI(**{"model": "m", "base_url": server.url, "retries": 0, **settings})
    async with Session(models=model) as session:
        with pytest.raises(ArchonError) as caught:
            await session.solve(Sample(n=n), PROBLEM)
        assert session.ledger.total.requests == len(server.asked), "every request is counted"
    error = caught.value
    if isinstance(error, AllCandidatesFailed):
        assert isinstance(error.causes[0], ArchonError)
        return error.causes[0]
    return error


def first_fine(*then: Answer) -> Any:
    """A server that has answered before."""
    return lambda asked: Answer("fine") if asked.number == 0 else then[min(asked.number, len(then)) - 1]


@pytest.mark.parametrize(
    ("status", "text", "code", "error"),
    [
        (400, "bad temperature", None, RequestRejected),
        (400, "This model's maximum context length is 4096 tokens", None, ContextOverflow),
        (400, "too big", "context_length_exceeded", ContextOverflow),
        (401, "wrong key", None, AuthenticationFailed),
        (403, "not allowed", None, AuthenticationFailed),
        (404, "no such model", None, ModelNotFound),
        (422, "unprocessable", None, RequestRejected),
        (429, "slow down", None, RateLimited),
        (429, "pay first", "insufficient_quota", QuotaExhausted),
        (408, "too slow", None, CallTimedOut),
        (500, "internal", None, Overloaded),
        (502, "bad gateway", None, Overloaded),
        (503, "overloaded", None, Overloaded),
        (529, "overloaded", None, Overloaded),
    ],
)
async def test_errors_are_classified(
    status: int, text: str, code: str | None, error: type[BackendError]
) -> None:
    refusal = Answer(text, status=status, extra={"code": code}, headers={"x-request-id": "r-7"})
    async with StubServer(first_fine(refusal)) as server:
        model = OpenAI(model="m", base_url=server.url, retries=0, concurrency=1, max_concurrency=1)
        async with Session(models=model) as session:
            first = await session.solve(Sample(), Problem.ask("first"))
            assert first.answer == "fine"
            with pytest.raises(ArchonError) as caught:
                await session.solve(Sample(), PROBLEM)
    found = caught.value
    if isinstance(found, AllCandidatesFailed):
        (cause,) = found.causes
        assert isinstance(cause, ArchonError)
        found = cause
    assert type(found) is error
    assert isinstance(found, BackendError)
    assert (found.status, found.request_id, found.model) == (status, "r-7", "m")
    assert text in str(found)


async def test_a_wrong_key_stops_at_once_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key")
    refusal = Answer("Incorrect API key provided: sk-very-secret-key", status=401)
    async with StubServer(lambda asked: refusal) as server:
        error = await fails(server, n=50, concurrency=1, max_concurrency=1)
        assert len(server.asked) == 1
    assert isinstance(error, AuthenticationFailed)
    assert "very-secret" not in str(error) and "api_key_env" in str(error)


async def test_a_key_in_a_page_that_is_not_json_is_not_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abcdef1234567")
    page = Answer(raw=b"<p>rejected: abcdef1234567</p>", content_type="text/html")
    async with StubServer(lambda asked: page) as server:
        assert "abcdef1234567" not in str(await fails(server))


async def test_a_dead_endpoint_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        model = OpenAI(model="m", base_url=f"http://127.0.0.1:{port}/v1", retries=1)
        async with Session(models=model) as session:
            with pytest.raises(EndpointDown, match=rf"127\.0\.0\.1:{port}/v1 does not answer.*base_url"):
                await session.solve(Sample(n=3), PROBLEM)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html><body>Welcome to nginx!</body></html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": "hello"}]}',
        b'{"choices": {"0": {"message": {"content": "hello"}}}}',
        b'{"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": -5}}',
        b'{"choices": [{"message": {"content": "hello"}}], "usage": {"completion_tokens": 5}}',
        b'{"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 1, "cost": NaN}}',
        b'{"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 1, "cost": -1}}',
        b'{"choices": [{"message": {"content": "hel',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
async def test_a_reply_of_another_shape_is_an_error_with_the_address_and_never_an_answer(raw: bytes) -> None:
    async with StubServer(lambda asked: Answer(raw=raw)) as server:
        error = await fails(server)
        assert isinstance(error, BadReply), repr(error)
        assert f"{server.url}/chat/completions" in str(error) and "/v1" in str(error)


async def test_a_page_of_html_is_shown_short() -> None:
    page = Answer(raw=b"<html>" + b"<p>Welcome to nginx!</p>" * 10_000, content_type="text/html")
    async with StubServer(lambda asked: page) as server:
        error = await fails(server)
        assert "text/html" in str(error) and "Welcome to nginx!" in str(error)
        assert len(str(error)) < 600


async def test_an_error_inside_a_reply_of_status_200_is_an_error() -> None:
    raw = json.dumps({"error": {"message": "upstream is busy", "code": 503}}).encode()
    async with StubServer(first_fine(Answer(raw=raw), Answer("fine again"))) as server:
        model = OpenAI(model="m", base_url=server.url, retries=2)
        async with Session(models=model) as session:
            await session.solve(Sample(), Problem.ask("first"))
            outcome = await session.solve(Sample(), PROBLEM)
    assert outcome.answer == "fine again"
    assert outcome.usage.requests == 2


async def test_a_refusal_with_retry_after_is_tried_again_and_counted() -> None:
    def script(asked: Asked) -> Answer:
        return (
            Answer("slow down", status=429, headers={"retry-after": "0"})
            if asked.number < 2
            else Answer("fine")
        )

    async with StubServer(script) as server:
        async with Session(models=OpenAI(model="m", base_url=server.url)) as session:
            outcome = await session.solve(Sample(), PROBLEM)
        assert outcome.answer == "fine"
        assert outcome.usage.requests == len(server.asked) == 3


@pytest.mark.parametrize(
    ("header", "value", "low", "high"),
    [
        ("retry-after", "7", 7, 7),
        ("retry-after", "1.5", 1.5, 1.5),
        ("retry-after-ms", "250", 0.25, 0.25),
        ("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("retry-after", "Wed, 21 Oct 2099 07:28:00 GMT", 10**8, 10**10),
    ],
)
async def test_retry_after_is_read_in_each_of_its_forms(
    header: str, value: str, low: float, high: float
) -> None:
    refusal = Answer("slow down", status=429, headers={header: value})
    async with StubServer(first_fine(refusal)) as server:
        found = await after_a_fine_one(server)
    assert found.retry_after is not None and low <= found.retry_after <= high


@pytest.mark.parametrize("value", ["soon", "-3", "", "nan", "Wed, 99 Oct"])
async def test_a_retry_after_that_makes_no_sense_is_no_number_to_wait_for(value: str) -> None:
    refusal = Answer("slow down", status=429, headers={"retry-after": value})
    async with StubServer(first_fine(refusal)) as server:
        found = await after_a_fine_one(server)
    assert type(found) is RateLimited
    assert found.retry_after is None or found.retry_after == 0


async def after_a_fine_one(server: StubServer) -> BackendError:
    async with Session(models=OpenAI(model="m", base_url=server.url, retries=0)) as session:
        await session.solve(Sample(), Problem.ask("first"))
        with pytest.raises(AllCandidatesFailed) as caught:
            await session.solve(Sample(), PROBLEM)
    (cause,) = caught.value.causes
    assert isinstance(cause, BackendError)
    return cause


async def test_a_dropped_connection_is_tried_again() -> None:
    async with StubServer(lambda asked: Answer("fine", drop=asked.number < 1)) as server:
        async with Session(models=OpenAI(model="m", base_url=server.url, retries=1)) as session:
            outcome = await session.solve(Sample(), PROBLEM)
        assert (outcome.answer, outcome.usage.requests) == ("fine", 2)


STREAMS = {
    "no end": (b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n', BadReply),
    "no chunk": (b"", BadReply),
    "an error": (b'data: {"error": {"message": "out of memory"}}\n\n', ConnectionDropped | BadReply),
    "a page": (b"<html>hello</html>\n\n", ConnectionDropped | BadReply),
    "half a chunk": (b'data: {"choices": [{"index": 0, "del', ConnectionDropped | BadReply),
    "other shapes": (b'data: {"choices": "none"}\n\n', BadReply),
    "a list": (b"data: [1, 2]\n\n", BadReply),
    "nested deeply": (b"data: " + b"[" * 100_000 + b"\n\n", ConnectionDropped | BadReply),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_breaks_off_is_an_error_and_never_half_an_answer(name: str) -> None:
    raw, error = STREAMS[name]
    answer = Answer(raw=raw, content_type="text/event-stream")
    async with StubServer(lambda asked: answer) as server:
        found = await fails(server, stream=True)
        if isinstance(found, EndpointDown):  # a first reply that was dropped
            assert "Dropped" in str(found)
        else:
            assert isinstance(found, error), repr(found)


async def test_retries_keep_to_the_budget() -> None:
    async with StubServer(lambda asked: Answer("busy", status=503, headers={"retry-after": "0"})) as server:
        model = OpenAI(model="m", base_url=server.url, retries=50)
        async with Session(models=model, budget=Budgets(problem=Budget(requests=4))) as session:
            outcome = await session.solve(Sample(), PROBLEM)
        assert len(server.asked) == outcome.usage.requests == 4
        assert (outcome.stopped, outcome.answer) == ("budget", None)
