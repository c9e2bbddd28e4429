"""What a vLLM server is asked, and what it tells: capabilities by its own description, figures, and real requests."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from archon.backends.base import Backend, Capabilities, Completion, Model, Progress, Request, Sampling
from archon.backends.nano.backend import Nano
from archon.backends.vllm import metrics
from archon.backends.vllm.capabilities import Known, fields, known, needs_fields, number
from archon.backends.vllm.config import VLLM
from archon.engine import EngineFigures
from archon.errors import CapabilityError
from archon.pipeline import Pipeline
from archon.problem import Message, Problem
from archon.session import Session
from archon.strategies.sample import Sample
from tests.archon.engines import idle, until

# --- capabilities -----------------------------------------------------------------------------------


def asking(prefix: str = "", **extra: Any) -> Request:
    return Request((Message(role="user", content="q"),), prefix=prefix, sampling=Sampling(extra=extra))


PUBLISHED = frozenset({"messages", "n", "structured_outputs", "priority", "allowed_token_ids"})


def test_a_field_that_a_later_version_renamed_is_refused_with_its_new_name() -> None:
    with pytest.raises(
        CapabilityError, match=r"vLLM 0\.32\.0 has no field 'guided_choice'.*structured_outputs: "
    ):
        Known("0.32.0").check(asking(guided_choice=["yes", "no"]), PUBLISHED, "chat")


def test_a_misspelt_field_is_refused_with_the_nearest_that_there_is() -> None:
    with pytest.raises(CapabilityError, match="Did you mean 'priority'"):
        Known("0.32.0").check(asking(prioritiy=1), PUBLISHED, "chat")


def test_what_the_server_publishes_is_sent() -> None:
    Known("0.32.0").check(asking(priority=1, structured_outputs={"choice": ["a"]}), PUBLISHED, "chat")


def test_a_server_that_publishes_nothing_is_believed_but_for_what_is_known_to_be_gone() -> None:
    Known("0.32.0").check(asking(anything=1, prefix="so"), frozenset(), "chat")
    Known("0.9.2").check(asking(guided_choice=["a"]), frozenset(), "chat")
    for version in ("0.12.0", "0.33.1rc2", ""):
        with pytest.raises(CapabilityError, match="guided_choice"):
            Known(version).check(asking(guided_choice=["a"]), frozenset(), "chat")


def test_a_given_beginning_needs_a_server_that_continues_it() -> None:
    with pytest.raises(CapabilityError, match=r"vLLM 0\.5\.0 cannot continue"):
        Known("0.5.0").check(asking(prefix="so"), PUBLISHED, "chat")
    Known("0.32.0").check(asking(prefix="so"), PUBLISHED | {"continue_final_message"}, "chat")
    Known("0.5.0").check(asking(prefix="so"), PUBLISHED, "completions")  # its prompt simply goes on


def test_plain_requests_need_no_description() -> None:
    assert not needs_fields(asking(), "chat") and not needs_fields(asking(prefix="so"), "completions")
    assert needs_fields(asking(prefix="so"), "chat") and needs_fields(asking(priority=1), "completions")


def test_versions_compare_as_numbers() -> None:
    assert number("0.9.2") < number("0.12.0rc1") == (0, 12, 0) < number("v0.32.0+cpu") < number("")


def test_the_context_is_that_of_the_model_asked() -> None:
    listed = {"data": [{"id": "other", "max_model_len": 9}, {"id": "m", "max_model_len": 1024}]}
    server = known(b'{"version": "0.32.0"}', json.dumps(listed).encode(), "m")
    assert server == Known("0.32.0", 1024)
    assert server.capabilities(Capabilities(max_n=7)) == Capabilities(max_n=7, max_tokens=1024)
    assert server.capabilities(Capabilities(max_tokens=5)).max_tokens == 5


@pytest.mark.parametrize(
    "content", [None, b"", b"<html>", b"[1]", b'{"data": [3], "version": 4}', b'{"paths": {}}']
)
def test_what_is_no_description_tells_nothing(content: bytes | None) -> None:
    assert known(content, content, "m") == Known()
    assert fields(content, "chat") == frozenset()


def test_fields_are_read_by_reference_or_in_place() -> None:
    schema: dict[str, Any] = {"properties": {"n": {}, "seed": {}}}
    for where in ({"$ref": "#/components/schemas/Asked"}, schema):
        body = {"content": {"application/json": {"schema": where}}}
        described = {
            "paths": {"/v1/chat/completions": {"post": {"requestBody": body}}},
            "components": {"schemas": {"Asked": schema}},
        }
        assert fields(json.dumps(described).encode(), "chat") == {"n", "seed"}


# --- figures ----------------------------------------------------------------------------------------

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c}"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 750.0
vllm:prefix_cache_hits_created{engine="0",model_name="m"} 1.79e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 4.0e+02
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 16.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 16.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} NaN
python_gc_objects_collected_total{generation="0"} 1.0
"""


def test_a_page_of_metrics_is_read_and_its_engines_are_added_up() -> None:
    figures = metrics.read(PAGE)
    assert figures == EngineFigures(
        running=5,
        waiting=1,
        finished=7,
        prompt_tokens=1000,
        completion_tokens=400,
        looked_up=1000,
        cached=750,
        first_tokens=16,
        first_token_seconds=4.0,
    )
    assert figures.hit_rate == 0.75 and figures.time_to_first_token == 0.25
    assert figures.describe() == (
        "7 sequences, 4 more cut off, 75% of 1,000 prompt tokens from the prefix cache, "
        "first token after 0.25 s on average"
    )
    assert EngineFigures.from_json(figures.as_json()) == figures


def test_labels_may_hold_quotes_and_braces() -> None:
    first = next(iter(metrics.samples(PAGE)))
    assert first == ("num_requests_running", {"engine": "0", "model_name": 'a \\"b\\" {c}'}, 3.0)


@pytest.mark.parametrize(
    "page", ["", "<html>404</html>", "python_info 1.0", "vllm:prompt_tokens_total{} many"]
)
def test_a_page_without_figures_of_vllm_s_gives_none(page: str) -> None:
    assert metrics.read(page) is None


def test_a_difference_counts_what_happened_and_keeps_what_is_now() -> None:
    before = EngineFigures(running=2, finished=10, first_tokens=10, first_token_seconds=5.0)
    now = EngineFigures(running=1, waiting=3, finished=14, first_tokens=15, first_token_seconds=6.0)
    since = now - before
    assert (since.running, since.waiting, since.finished, since.time_to_first_token) == (1, 3, 4, 0.2)
    assert since + since == EngineFigures(2, 6, 8, first_tokens=10, first_token_seconds=2.0)
    assert EngineFigures().describe() == "0 sequences"


# --- a real server ----------------------------------------------------------------------------------

REAL = pytest.mark.vllm


def chat(text: str, prefix: str = "", **sampling: Any) -> Request:
    return Request(
        (Message(role="user", content=text),),
        prefix=prefix,
        sampling=Sampling(**{"temperature": 0, **sampling}),
    )


async def ask(backend: Backend, request: Request, *indices: int) -> list[Completion]:
    """The completions of these samples (of the first alone where none are named), by index."""
    async with aclosing(backend.complete(request, indices or (0,), Progress())) as stream:
        return sorted([c async for c in stream], key=lambda c: c.index)


@asynccontextmanager
async def opened(model: Model) -> AsyncIterator[Any]:
    backend = model.connect()
    try:
        yield backend
    finally:
        await backend.close()


@REAL
async def test_a_greedy_reply_continued_from_its_own_beginning_ends_the_same(vllm: VLLM) -> None:
    printed = {"allowed_token_ids": list(range(5, 101))}  # no marks, which are not in the text
    async with opened(vllm) as backend:
        whole = (await ask(backend, chat("What is 2 + 3?", max_tokens=24, extra=printed)))[0].text
        rest = await ask(backend, chat("What is 2 + 3?", prefix=whole[:9], max_tokens=15, extra=printed))
        assert len(whole) == 24 and whole[:9] + rest[0].text == whole
        raw = vllm.model_copy(update={"api": "completions"})
    async with opened(raw) as backend:
        request = Request(prompt="Once", prefix=" upon", sampling=Sampling(temperature=0, max_tokens=8))
        joined = Request(prompt="Once upon", sampling=request.sampling)
        assert (await ask(backend, request))[0].text == (await ask(backend, joined))[0].text


@REAL
async def test_closing_the_stream_stops_the_engine(vllm: VLLM) -> None:
    async with opened(vllm) as backend:
        await ask(backend, chat("hello", max_tokens=1))
        long = chat("go on", temperature=1, max_tokens=900, extra={"ignore_eos": True})
        for number in range(20):  # once more where a fast engine had ended it before we looked
            stream = backend.complete(long, range(32 * number, 32 * (number + 1)), Progress())
            first = asyncio.ensure_future(anext(stream))
            await until(backend, lambda figures: figures.running == 32, unless=first)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
            await stream.aclose()
            figures = await idle(backend)
            if figures.cut_off:
                break
        assert figures.cut_off == 32 and figures.completion_tokens < figures.first_tokens * 900


@REAL
async def test_a_prompt_that_was_read_before_comes_from_the_prefix_cache(vllm: VLLM) -> None:
    text = "Consider every case with care. " * 20
    async with opened(vllm) as backend:
        first = (await ask(backend, chat(text + "A", max_tokens=1)))[0].tokens
        second = (await ask(backend, chat(text + "B", max_tokens=1)))[0].tokens
        assert second.prompt == first.prompt == len(text) + 3  # a token per character, and the template's
        assert second.cached >= second.prompt // 2
        figures = await until(backend, lambda figures: figures.finished >= 2)
        assert figures.cached >= second.cached and 0 < (figures.hit_rate or 0) <= 1
        assert (figures.time_to_first_token or 0) > 0


@REAL
async def test_samples_of_one_request_have_seeds_of_their_own_and_are_drawn_again_by_them(vllm: VLLM) -> None:
    request = chat("Say something", temperature=1, seed=7, max_tokens=24, extra={"ignore_eos": True})
    async with opened(vllm) as backend:
        together = await ask(backend, request, *range(8))
        assert [c.index for c in together] == list(range(8))
        assert len({c.text for c in together}) == 8
        assert [c.requests for c in together] == [1] + [0] * 7
        again = await ask(backend, request, *range(8))
        assert [c.text for c in again] == [c.text for c in together]
        alone = await ask(backend, request, 5)
        assert alone[0].text == together[5].text, "sample 5 is sample 5, whoever it is asked with"


@REAL
async def test_many_seeded_prompts_at_once_do_not_kill_the_engine(vllm: VLLM) -> None:
    texts = [f"{i} " + "and so on " * 7 for i in range(64)]  # more than one step reads
    asked = [chat(text, temperature=1, seed=1, max_tokens=2) for text in texts]
    async with opened(vllm) as backend:
        replies = await asyncio.gather(*(ask(backend, request) for request in asked))
    assert len(replies) == 64


@REAL
async def test_log_probabilities_are_those_of_the_reply_s_tokens(vllm: VLLM) -> None:
    async with opened(vllm) as backend:
        reply = (await ask(backend, chat("What is 2 + 3?", max_tokens=8, logprobs=5)))[0]
        assert reply.logprobs is not None and len(reply.logprobs) == reply.tokens.completion
        for token in reply.logprobs:
            assert len(token.top) == 5 and token.top[0] == (token.token, token.logprob)
            assert sum(math.exp(logprob) for _, logprob in token.top) <= 1.001
        hot = (await ask(backend, chat("What is 2 + 3?", temperature=2, top_k=1, max_tokens=8, logprobs=5)))[
            0
        ]
        assert hot.logprobs is not None, "before temperature and cuts they are the model's own"
        assert dict(hot.logprobs[0].top) == pytest.approx(dict(reply.logprobs[0].top), abs=1e-3)


@REAL
async def test_a_choice_is_kept_to_and_a_renamed_field_is_refused(vllm: VLLM) -> None:
    async with opened(vllm) as backend:
        choice = {"structured_outputs": {"choice": ["yes", "no"]}}
        reply = (await ask(backend, chat("Is it so?", max_tokens=8, extra=choice)))[0]
        assert reply.text in ("yes", "no") and reply.finish == "stop"
        for extra in ({"guided_choice": ["yes", "no"]}, {"prioritty": 1}):
            progress = Progress()
            with pytest.raises(CapabilityError, match=r"structured_outputs|'priority'"):
                await anext(backend.complete(chat("Is it so?", extra=extra), (0,), progress))
            assert not progress.sent
        assert backend.capabilities.max_tokens == 1024, "the context's length, as the server says"


@REAL
async def test_greedy_replies_and_log_probabilities_are_those_of_the_numpy_engine(vllm: VLLM) -> None:
    assert vllm.folder is not None
    ours = Nano(weights=str(vllm.folder))
    asked = [chat(f"What is {i} + {i * i % 97} * {i % 7}?", max_tokens=16, logprobs=0) for i in range(200)]
    async with opened(vllm) as served, opened(ours) as numpy:
        for start in range(0, len(asked), 50):
            some = asked[start : start + 50]
            theirs = await asyncio.gather(*(ask(served, request) for request in some))
            own = await asyncio.gather(*(ask(numpy, request) for request in some))
            for request, (their,), (our,) in zip(some, theirs, own, strict=True):
                question = request.messages[0].content
                assert our.text == their.text, question
                assert our.logprobs is not None and their.logprobs is not None
                for a, b in zip(our.logprobs, their.logprobs, strict=True):
                    assert abs(a.logprob - b.logprob) < 2e-3, question


@REAL
async def test_a_session_tells_what_its_engines_did(vllm: VLLM) -> None:
    async with Session(models=vllm) as session:
        assert await session.engines() == {}, "nothing was asked, and nothing is started to tell that"
        await session.solve(Pipeline([Sample(n=6, temperature=1, max_tokens=8)]), Problem.ask("So?", id="p"))
        (figures,) = (await session.engines()).values()
        assert figures.finished >= 6 and figures.completion_tokens > 0
