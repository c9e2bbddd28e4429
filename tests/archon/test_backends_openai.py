"""OpenAI-compatible servers over real HTTP: what is sent, and what is read from an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Request, Sampling
from archon.backends.openai import OpenAI
from archon.budget import Meter
from archon.calling import Caller, Gate
from archon.candidate import Outcome, TokenLogprob
from archon.errors import CapabilityError, UserError
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Message, Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.sample import Sample
from archon.testing import Answer, Asked, StubServer

PROBLEM = Problem(
    id="p",
    messages=(Message(role="system", content="Be brief."), Message(role="user", content="two words")),
)
RAW = PROBLEM.model_copy(update={"prompt": "def f():", "stop": ("\ndef",)})


async def solve(
    stub: StubServer, pipeline: Stage | Pipeline, problem: Problem = PROBLEM, /, **settings: Any
) -> Outcome:
    model = OpenAI(**{"model": "m", "base_url": stub.url, "max_tokens": 99, **settings})
    async with Session(models=model) as session:
        return await session.solve(pipeline, problem)


async def body(pipeline: Stage, problem: Problem = PROBLEM, **settings: Any) -> Mapping[str, Any]:
    """What the first request says."""
    async with StubServer() as server:
        await solve(server, pipeline, problem, **settings)
        return server.asked[0].body


# --- what is sent -----------------------------------------------------------------------------------


async def test_only_what_was_given_is_sent() -> None:
    assert await body(Sample()) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "two words"}],
        "max_tokens": 99,
    }


async def test_sampling_parameters_go_by_their_names() -> None:
    sample = Sample(
        temperature=0,
        top_p=0.5,
        top_k=7,
        min_p=0.1,
        max_tokens=5,
        stop=("\n", "END"),
        extra={"min_tokens": 2},
    )
    sent = dict(await body(sample, server="vllm"))
    del sent["model"], sent["messages"]
    assert sent == {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "max_tokens": 5,
        "stop": ["\n", "END"],
        "min_tokens": 2,
    }


async def test_openai_s_own_chat_api_calls_the_limit_otherwise() -> None:
    sent = await body(Sample(), server="openai")
    assert sent["max_completion_tokens"] == 99 and "max_tokens" not in sent


async def test_several_samples_share_a_request_where_the_server_takes_n() -> None:
    async with StubServer() as server:
        outcome = await solve(server, Sample(n=5), server="vllm", capabilities={"max_n": 3})
        assert sorted(a.body.get("n", 1) for a in server.asked) == [2, 3]
        assert len(outcome.candidates) == 5 and outcome.usage.requests == 2
        server.asked.clear()
        await solve(server, Sample(n=5))
        assert [a.body.get("n") for a in server.asked] == [None] * 5, (
            "a server of unknown kind is not asked for n"
        )


async def test_a_server_that_ignores_n_still_gives_every_sample() -> None:
    async with StubServer(lambda asked: Answer(f"reply {asked.number}", choices=1)) as server:
        outcome = await solve(server, Sample(n=6), server="vllm")
        assert [c.index for c in outcome.candidates] == list(range(6))
        assert len({c.text for c in outcome.candidates}) == 6
        assert [a.body.get("n", 1) for a in server.asked] == [6, 1, 1, 1, 1, 1]
        assert outcome.usage.requests == 6


async def test_each_sample_has_its_own_seed_and_the_same_in_every_run() -> None:
    async def seeds(seed: int | None) -> list[Any]:
        async with StubServer() as server:
            await solve(server, Sample(n=4, seed=seed))
            return sorted(str(a.body.get("seed")) for a in server.asked)

    first = await seeds(7)
    assert len(set(first)) == 4 and first == await seeds(7)
    assert not set(first) & set(await seeds(8))
    assert await seeds(None) == ["None"] * 4


async def test_a_sample_that_was_missing_between_others_is_drawn_by_its_own_seed() -> None:
    def counting(asked: Asked) -> Answer:  # as vLLM does: a seed for the first sample, and so on from there
        texts = [str(asked.body["seed"] + i) for i in range(asked.body.get("n", 1))]
        choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
        return Answer(raw=json.dumps({"choices": choices}).encode())

    async with StubServer(counting) as server:
        model = OpenAI(model="m", base_url=server.url, server="vllm")
        backend = model.connect()
        caller = Caller("m", model, backend, Gate(4, 4))
        request = Request((Message(role="user", content="q"),), sampling=Sampling(seed=7))
        found: dict[int, str] = {}
        for wanted in (range(6), (0, 1, 3, 5)):
            found.clear()
            left: Sequence[int] = tuple(wanted)
            while left:
                left = await caller.call(
                    request, left, Meter("run"), lambda c, _: found.update({c.index: c.text}), print
                )
            assert found == {i: str(request.seed_of(i)) for i in wanted}
        await backend.close()
    assert [asked.body.get("n", 1) for asked in server.asked] == [6, 2, 1, 1]


async def test_log_probabilities_are_asked_for_and_read() -> None:
    shown = [
        {"token": "o", "logprob": -0.5, "top_logprobs": [{"token": "o", "logprob": -0.5}]},
        {"token": "k", "logprob": -0.25},
    ]
    answer = Answer("ok", extra={"logprobs": {"content": shown}})
    async with StubServer(lambda asked: answer) as server:
        outcome = await solve(server, Sample(logprobs=1))
        assert (server.asked[0].body["logprobs"], server.asked[0].body["top_logprobs"]) == (True, 1)
    assert outcome.candidates[0].logprobs == (
        TokenLogprob("o", -0.5, (("o", -0.5),)),
        TokenLogprob("k", -0.25),
    )


async def test_log_probabilities_of_raw_completions_have_another_form() -> None:
    shown = {"tokens": ["o", "k"], "token_logprobs": [None, -0.25], "top_logprobs": [None, {"k": -0.25}]}
    async with StubServer(lambda asked: Answer("ok", extra={"logprobs": shown})) as server:
        outcome = await solve(server, Sample(logprobs=1), RAW, api="completions")
        assert server.asked[0].body["logprobs"] == 1
    assert outcome.candidates[0].logprobs == (TokenLogprob("k", -0.25, (("k", -0.25),)),)


async def test_a_base_model_continues_the_raw_prompt_up_to_the_problem_s_stop() -> None:
    async with StubServer() as server:
        await solve(server, Sample(), RAW, api="completions")
        (asked,) = server.asked
    assert asked.path == "/completions"
    assert (asked.body["prompt"], asked.body["stop"], asked.body["max_tokens"]) == ("def f():", ["\ndef"], 99)
    assert "messages" not in asked.body


async def test_a_chat_model_is_asked_in_messages_even_if_there_is_a_raw_prompt() -> None:
    async with StubServer() as server:
        await solve(server, Sample(), RAW)
        assert server.asked[0].path == "/chat/completions"
        assert "prompt" not in server.asked[0].body and "stop" not in server.asked[0].body


async def test_the_key_is_read_from_the_environment_and_stands_in_no_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-1234567890")
    async with StubServer() as server:
        model = OpenAI(model="m", base_url=server.url, api_key_env="MY_KEY", headers={"X-Team": "a"})
        async with Session(models=model, store="s.sqlite") as session:
            await session.solve(Sample(), PROBLEM)
            assert "secret" not in repr(model) + str(session.caller("default").backend.identity)
        sent = {name.lower(): value for name, value in server.asked[0].headers.items()}
        assert (sent["authorization"], sent["x-team"]) == ("Bearer sk-secret-1234567890", "a")
    assert not any(b"secret" in f.read_bytes() for f in Path().glob("s.sqlite*"))


def test_openai_itself_without_a_key_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        OpenAI(model="gpt-4o-mini").check()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": ""},
        {"base_url": "localhost:8000"},
        {"headers": {"authorization": "Bearer x"}},
        {"timeout": 0},
        {"tempreature": 1},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAI(**{"model": "m", **fields})


async def test_what_a_server_cannot_do_is_an_error_before_anything_is_sent() -> None:
    async with StubServer() as server:
        with pytest.raises(CapabilityError, match="top_k"):
            await solve(server, Sample(top_k=3))
        assert server.asked == []
        await solve(server, Sample(top_k=3), capabilities={"truncation_params": True})
        assert server.asked[0].body["top_k"] == 3


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "extra", "expected"),
    [
        ("stop", {}, ("stop", None)),
        ("length", {}, ("length", None)),
        ("content_filter", {}, ("content_filter", None)),
        ("stop", {"stop_reason": "END"}, ("stop_string", "END")),
        ("stop", {"stop_reason": 128009}, ("stop", None)),  # vLLM: a token's number
        ("something new", {}, ("unknown", None)),
    ],
)
async def test_why_a_reply_ended_is_kept(
    finish: str, extra: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    async with StubServer(lambda asked: Answer("x", finish=finish, extra=extra)) as server:
        (candidate,) = (await solve(server, Sample())).candidates
    assert (candidate.finish, candidate.stop) == expected


async def test_hidden_reasoning_is_kept_beside_the_text() -> None:
    message = {"role": "assistant", "content": "42", "reasoning_content": "6 x 7"}
    async with StubServer(lambda asked: Answer(extra={"message": message})) as server:
        (candidate,) = (await solve(server, Sample())).candidates
    assert (candidate.text, candidate.reasoning) == ("42", "6 x 7")


async def test_a_reply_without_text_is_an_empty_text() -> None:
    message = {"role": "assistant", "content": None}
    async with StubServer(lambda asked: Answer(extra={"message": message})) as server:
        assert (await solve(server, Sample())).answer == ""


async def test_tokens_are_those_the_server_reports_split_to_the_exact_sum() -> None:
    usage = {
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    answer = Answer("one two", completion_tokens=11, usage_extra=usage)
    async with StubServer(lambda asked: answer) as server:
        outcome = await solve(
            server, Sample(n=3), server="vllm", price=Price(input=1, output=2, cached_input=0)
        )
    used = outcome.usage
    assert (used.requests, used.prompt_tokens, used.cached_tokens) == (1, 4, 3)
    assert (used.completion_tokens, used.reasoning_tokens, used.estimated) == (33, 7, 0)
    assert used.usd == Decimal("0.000067")
    assert sum(c.usage.completion_tokens for c in outcome.candidates) == 33


async def test_without_usage_tokens_are_estimated_and_marked() -> None:
    async with StubServer(lambda asked: Answer("twelve bytes", usage=False)) as server:
        used = (await solve(server, Sample())).usage
    assert (used.estimated, used.completion_tokens) == (1, 3)
    assert used.prompt_tokens > 0


@pytest.mark.parametrize("model", ["gpt-4o-mini", "m"])
async def test_a_cost_the_provider_reports_wins_over_every_price(model: str) -> None:
    async with StubServer(lambda asked: Answer(usage_extra={"cost": 0.0123})) as server:
        used = (await solve(server, Sample(), model=model, price=Price(input=99, output=99))).usage
        assert (used.usd, used.unpriced) == (Decimal("0.0123"), 0)


async def test_the_price_is_the_configuration_s_else_the_table_s_else_unpriced() -> None:
    async with StubServer(lambda asked: Answer("x", completion_tokens=1000)) as server:
        own = await solve(server, Sample(), model="gpt-4o-mini", price=Price(input=0, output=1))
        table = await solve(server, Sample(), model="gpt-4o-mini")
        none = await solve(server, Sample(), model="mystery")
    assert own.usage.usd == Decimal("0.001")
    assert table.usage.usd == Decimal("0.15") * 4 / 10**6 + Decimal("0.60") * 1000 / 10**6
    assert (none.usage.usd, none.usage.unpriced) == (Decimal(0), 1)


@pytest.mark.parametrize("api", ["chat", "completions"])
async def test_a_streamed_reply_reads_like_a_whole_one(api: str) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer("one two  three", extra={"stop_reason": "END"})

    async with StubServer(reply) as server:
        whole = await solve(server, Sample(), RAW, api=api)
        streamed = await solve(server, Sample(), RAW, api=api, stream=True, server="vllm")
        assert [bool(a.body.get("stream")) for a in server.asked] == [False, True]
        assert server.asked[1].body["stream_options"] == {
            "include_usage": True,
            "continuous_usage_stats": True,
        }
    one, other = whole.candidates[0], streamed.candidates[0]
    assert (one.text, one.finish, one.stop) == (other.text, other.finish, other.stop)
    assert other.usage.estimated == 0 and other.usage.prompt_tokens == one.usage.prompt_tokens
