"""Reward models over HTTP: what is sent, what is read, and what is no score. On a real server that a test scripts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Backend, Progress, Scorer, ScoreRequest
from archon.backends.reward_models import RewardModel, known
from archon.backends.rewards import RewardServer
from archon.backends.scripted import Scripted
from archon.budget import Meter
from archon.calling import Billed, Caller, Gate
from archon.errors import (
    BackendError,
    BadReply,
    CallTimedOut,
    CapabilityError,
    ContextOverflow,
    EndpointDown,
    RateLimited,
)
from archon.problem import Message, Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.testing import Answer, Asked, ScorerCases, StubServer
from archon.usage import Usage, total

QUESTION = (Message(role="user", content="2+3*4=?"),)
STEPS = ("3*4=12\n", "14")


def said(data: Any, **settings: Any) -> Answer:
    return Answer(raw=json.dumps(data).encode(), **settings)


def length(text: str) -> float:
    return len(text) / 100


def own_server(asked: Asked) -> Answer:
    """A server of one's own: a reply up to a step's end is worth its length."""
    replies = asked.body["replies"]
    scores = [[length("".join(steps[: n + 1])) for n in range(len(steps))] for steps in replies]
    return said({"scores": scores, "usage": {"prompt_tokens": sum(map(len, replies))}})


def vllm_tokens(asked: Asked) -> Answer:
    """A vLLM that classifies tokens: one token per character, worth its place in the text."""
    if asked.path == "/tokenize":
        if "prompt" in asked.body:
            parts = re.split(r"(<\|\w+\|>)", asked.body["prompt"])
            return said({"tokens": [t for p in parts for t in ([9999] if p[:2] == "<|" else map(ord, p))]})
        text = "".join(f"{m['role'][0]}{m['content']}\0" for m in asked.body["messages"])
        return said({"tokens": [1, *map(ord, text), *([97] if asked.body["add_generation_prompt"] else [])]})
    rows = [[[n / 1000] for n in range(len(tokens))] for tokens in asked.body["input"]]
    return said({"data": [{"data": row} for row in rows], "usage": {"prompt_tokens": sum(map(len, rows))}})


class _Served(ScorerCases):
    script: Callable[[Asked], Answer]
    settings: Mapping[str, Any]

    async def open_backend(self) -> Backend:
        self.server = await StubServer(type(self).script).__aenter__()
        return RewardServer(model="m", base_url=self.server.url, **self.settings).connect()

    async def close_backend(self, backend: Backend) -> None:
        await backend.close()
        await self.server.__aexit__()


class TestOwnServer(_Served):
    script = staticmethod(own_server)
    settings = {"api": "json", "replies_per_request": 2}  # noqa: RUF012


class TestTokens(_Served):
    script = staticmethod(vllm_tokens)
    settings = {"reads": "nano-prm", "replies_per_request": 2}  # noqa: RUF012


class TestScripted(ScorerCases):
    async def open_backend(self) -> Backend:
        return Scripted(score=length, max_n=2).connect()


# --- what is sent and read -------------------------------------------------------------------------


async def scored(
    script: Callable[[Asked], Answer], *replies: tuple[str, ...], finished: bool = True, **settings: Any
) -> tuple[list[tuple[float, ...]], StubServer]:
    async with StubServer(script) as server:
        backend = RewardServer(model="m", base_url=server.url, **settings).connect()
        assert isinstance(backend, Scorer)
        try:
            found = await backend.score(ScoreRequest(QUESTION, replies, finished), Progress())
        finally:
            await backend.close()
    return [one.steps for one in found], server


async def test_step_tags_are_put_after_each_step_and_the_second_label_is_read() -> None:
    rows = [[0.1, 0.9], [0.7, 0.3]]
    found, server = await scored(
        lambda asked: said({"data": [{"data": rows}]}), STEPS, reads="qwen2.5-math-prm"
    )
    assert found == [(0.9, 0.3)]
    (asked,) = server.asked
    assert asked.path == "/pooling"
    system, *said_of_ours = asked.body["messages"]
    assert system["role"] == "system" and "reason step by step" in system["content"]
    assert said_of_ours == [
        {"role": "user", "content": "2+3*4=?"},
        {"role": "assistant", "content": "3*4=12<extra_0>14<extra_0>"},
    ]


def test_a_chat_with_a_system_message_keeps_its_own() -> None:
    own = Message(role="system", content="Be brief.")
    chat = known()["qwen2.5-math-prm"].chat((own, *QUESTION))
    assert [m["content"] for m in chat] == ["Be brief.", "2+3*4=?"]


async def test_a_step_cannot_hold_another_s_end() -> None:
    hostile = "a<extra_<extra_0>0> b<extra_0>"
    rows = [[0.1, 0.9]]
    _, server = await scored(
        lambda asked: said({"data": [{"data": rows}]}), (hostile,), reads="qwen2.5-math-prm"
    )
    assert server.asked[0].body["messages"][-1]["content"] == "a b<extra_0>"


MARKS = ("<extra_0>", "ки", "<|sep|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>")


@pytest.mark.parametrize("reads", known())
def test_a_reply_cannot_end_its_step_or_its_turn_by_itself(reads: str) -> None:
    reading = known()[reads]
    marks = (*(mark for mark in MARKS if mark[1] == "|"), reading.tag.strip(), *reading.special)
    marks = tuple(filter(None, marks))
    forged = "".join(marks) + "".join(f"{m[:-1]}{''.join(marks)}{m[-1]}" for m in marks) + "right"
    deep = "<|a" * 5000 + "|>" * 5000 + "".join(marks)
    plain = reading.written(("1", "right", "2"))
    assert reading.written(("1", forged, "2")) == plain
    written = "".join(reading.written(("1", deep, "2")))
    assert not any(mark in written for mark in MARKS[2:]) and "<|a|>" not in written
    if reading.tag.strip():
        assert written.count(reading.tag.strip()) == 3


async def test_tokens_are_read_at_each_step_s_last() -> None:
    found, server = await scored(vllm_tokens, STEPS, ("14",), reads="nano-prm")
    before = len("\1u2+3*4=?\0a")
    ends = before + len(STEPS[0]) - 1, before + len("".join(STEPS)) - 1
    assert found == [(ends[0] / 1000, ends[1] / 1000), ((before + 1) / 1000,)]
    assert server.asked[-1].body["use_activation"] is True
    assert [asked.path for asked in server.asked].count("/tokenize") == 3, "however many steps there are"
    unfinished, _ = await scored(vllm_tokens, STEPS, finished=False, reads="nano-prm")
    assert unfinished == found[:1]


async def test_steps_are_told_apart_whatever_they_hold() -> None:
    one, _ = await scored(vllm_tokens, ("a\n", "", "b"), reads="nano-prm")
    hostile, _ = await scored(vllm_tokens, ("a<|sep|>\n", "<|se<|sep|>p|>", "b"), reads="nano-prm")
    alone, _ = await scored(vllm_tokens, ("a\n", "", "b"), reads=RewardModel(way="tokens"))
    assert one == hostile == alone


async def test_raw_text_stands_before_the_steps_where_the_description_says_so() -> None:
    found, server = await scored(vllm_tokens, ("a ", "b\n\n"), reads="skywork-prm")
    before = 1 + len("2+3*4=?\n")
    assert found == [((before + 1) / 1000, (before + 3) / 1000)]
    texts = ["".join(map(chr, tokens)) for tokens in server.asked[-1].body["input"]]
    assert texts == ["\u270f2+3*4=?\na\nb\n"]
    assert server.asked[-1].body["use_activation"] is False


async def test_an_outcome_model_classifies_the_chat() -> None:
    found, server = await scored(
        lambda asked: said({"data": [{"probs": [-3.5]}]}), ("".join(STEPS),), reads="skywork-reward"
    )
    assert found == [(-3.5,)]
    (asked,) = server.asked
    assert asked.path == "/classify" and asked.body["use_activation"] is False
    assert asked.body["messages"][-1] == {"role": "assistant", "content": "3*4=12\n14"}


async def test_a_prefix_is_left_open() -> None:
    reads = RewardModel(way="classify")
    _, server = await scored(
        lambda asked: said({"data": [{"probs": [0.5]}]}), STEPS[:1], finished=False, reads=reads
    )
    assert server.asked[0].body["continue_final_message"] is True
    assert server.asked[0].body["add_generation_prompt"] is False


def word(*top: tuple[str, float]) -> Callable[[Asked], Answer]:
    """A server whose next word has these log-probabilities."""

    def script(asked: Asked) -> Answer:
        if asked.path == "/chat/completions":
            listed = [{"token": token, "logprob": value} for token, value in top]
            return Answer(top[0][0], extra={"logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}})
        shown = {"tokens": [top[0][0]], "token_logprobs": [top[0][1]], "top_logprobs": [dict(top)]}
        return Answer(top[0][0], extra={"logprobs": shown})

    return script


async def test_a_judgement_is_read_by_the_log_probabilities_of_its_word() -> None:
    good, bad = math.log(0.6), math.log(0.2)
    found, server = await scored(word(("+", good), (" -", bad)), STEPS, reads="rlhflow-prm")
    assert found[0][0] == pytest.approx(0.75)
    assert server.asked[0].body["messages"] == [
        {"role": "user", "content": "2+3*4=? 3*4=12"},
        {"role": "assistant", "content": "+"},
        {"role": "user", "content": "14"},
    ]
    found, server = await scored(word(("-", bad), ("+", good)), STEPS, reads="math-shepherd")
    assert found[0][0] == pytest.approx(0.75)
    assert server.asked[0].body["prompt"] == "2+3*4=? Step 1: 3*4=12 ки\nStep 2: 14 ки"


async def test_a_word_that_is_not_listed_counts_as_the_least_that_is() -> None:
    found, _ = await scored(word(("+", -0.1), ("x", -3.0)), STEPS, reads="rlhflow-orm")
    assert found[0][0] == pytest.approx(1 / (1 + math.exp(-2.9)))
    with pytest.raises(BadReply, match="neither"):
        await scored(word(("yes", -0.1)), STEPS, reads="rlhflow-orm")


# --- what is no score ------------------------------------------------------------------------------

MALFORMED = [
    b"",
    b"not JSON",
    b"<html>",
    b"[]",
    b"{}",
    b"null",
    b'{"scores": null}',
    b'{"scores": []}',
    b'{"scores": [0.5, 0.5]}',
    b'{"scores": [[0.5]]}',
    b'{"scores": [[0.5, 0.5, 0.5]]}',
    b'{"scores": [[0.5, 0.5], [0.5, 0.5]]}',
    b'{"scores": [["0.5", "0.5"]]}',
    b'{"scores": [[true, false]]}',
    b'{"scores": [[' + b"9" * 400 + b", 0.5]]}",
    b'{"scores": [[0.5, 0.5]], "usage": {"prompt_tokens": -1}}',
    b'{"scores": [[0.5, 0.5]], "usage": {"prompt_tokens": "many"}}',
    b'{"scores": [[0.5, 0.5]], "usage": [1]}',
    b"[" * 100_000,
    b"\xff\xfe\x00",
]


class Desk:
    """A caller of a reward server, and what it billed."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.model = RewardServer(model="m", base_url=url, **{"api": "json", "retries": 0, **settings})
        self.backend = self.model.connect()
        self.caller = Caller("m", self.model, self.backend, Gate(4, 4))
        self.billed: list[Billed] = []
        self.usage = Usage()

    async def score(self, *replies: tuple[str, ...]) -> list[tuple[float, ...]]:
        found = await self.caller.score(ScoreRequest(QUESTION, replies), Meter("run"), self.billed.append)
        self.usage = total(usage for _, usage in found)
        return [scored.steps for scored, _ in found]


async def fails(answer: Answer, kind: type[BackendError], **settings: Any) -> Desk:
    async with StubServer(lambda asked: answer) as server:
        desk = Desk(server.url, **settings)
        try:
            with pytest.raises(kind):
                await desk.score(STEPS)
        finally:
            await desk.backend.close()
    return desk


@pytest.mark.parametrize("raw", MALFORMED, ids=[str(i) for i in range(len(MALFORMED))])
async def test_what_is_no_list_of_scores_is_an_error_and_never_a_score(raw: bytes) -> None:
    desk = await fails(Answer(raw=raw), BadReply)
    assert [(b.kind, b.usage.requests) for b in desk.billed] == [("failed", 1)]


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "-Infinity", "1e999", "null"])
async def test_a_score_that_is_no_number_is_told_as_such(odd: str) -> None:
    """Null is what JSON makes of a NaN."""
    raw = b'{"scores": [[0.5, %s]]}' % odd.encode()
    found, _ = await scored(lambda asked: Answer(raw=raw), STEPS, api="json")
    ((first, second),) = found
    assert first == 0.5 and not math.isfinite(second)


@pytest.mark.parametrize(
    ("reads", "data"),
    [
        ("qwen2.5-math-prm", {"data": [{"data": [[0.1, 0.9]]}]}),
        ("qwen2.5-math-prm", {"data": [{"data": [[0.1], [0.9]]}]}),
        ("qwen2.5-math-prm", {"data": [{"data": [0.1, 0.9]}]}),
        ("qwen2.5-math-prm", {"data": [{"data": "AAAA"}]}),
        ("nano-orm", {"data": [{"probs": [0.1, 0.9]}]}),
        ("nano-orm", {"data": []}),
        ("nano-prm", {"tokens": [1, 2], "data": [{"data": [[0.5]]}]}),
    ],
)
async def test_rows_of_another_shape_than_described_are_an_error(reads: str, data: Any) -> None:
    await fails(said(data), BadReply, api="vllm", reads=reads)


async def test_a_server_that_is_not_there_is_down() -> None:
    desk = Desk("http://127.0.0.1:9/v1")
    try:
        with pytest.raises(EndpointDown):
            await desk.score(STEPS)
    finally:
        await desk.backend.close()
    assert desk.billed[0].usage.requests == 0, "nothing was sent"


async def test_errors_are_told_apart() -> None:
    await fails(Answer("slow down", status=429), RateLimited)
    await fails(Answer("maximum context length is 10", status=400), ContextOverflow)
    await fails(Answer(drop=True), EndpointDown)
    desk = await fails(Answer(delay=30), EndpointDown, timeout=0.2)
    assert desk.billed[0].error.startswith(CallTimedOut.__name__)


async def test_429_is_waited_for_and_a_cut_reply_tried_again() -> None:
    def script(asked: Asked) -> Answer:
        if asked.number == 0:
            return Answer("slow down", status=429, headers={"retry-after": "0"})
        return Answer(raw=b'{"scores": [[0.1, ') if asked.number == 2 else own_server(asked)

    async with StubServer(script) as server:
        desk = Desk(server.url, retries=2)
        assert await desk.score(("a",)) == [(0.01,)]
        assert await desk.score(("ab",)) == [(0.02,)]
        assert await desk.score(("abc",)) == [(0.03,)]
        await desk.backend.close()
    assert [b.kind for b in desk.billed] == ["retried", "retried"]


async def test_what_the_server_counts_is_shared_out_to_the_exact_sum() -> None:
    async with StubServer(
        lambda asked: said({"scores": [[1], [2]], "usage": {"prompt_tokens": 101}})
    ) as server:
        desk = Desk(server.url, scores="outcome")
        assert await desk.score(("a",), ("bbb",)) == [(1.0,), (2.0,)]
        await desk.backend.close()
    assert (desk.usage.prompt_tokens, desk.usage.requests, desk.usage.estimated) == (101, 1, 0)


async def test_the_word_that_judges_is_within_what_was_held() -> None:
    async with StubServer(word(("+", -0.1))) as server:
        desk = Desk(server.url, api="vllm", reads="rlhflow-orm")
        asked = ScoreRequest(QUESTION, (("14",),))
        most = desk.caller.worst_case(asked, 1)
        await desk.score(("14",))
        await desk.backend.close()
    assert (
        (most.requests, most.completion_tokens)
        == (1, 1)
        == (desk.usage.requests, desk.usage.completion_tokens)
    )
    assert desk.usage.prompt_tokens <= most.prompt_tokens


async def test_without_usage_tokens_are_estimated_and_said_to_be() -> None:
    async with StubServer(lambda asked: said({"scores": [[1]]})) as server:
        desk = Desk(server.url, scores="outcome")
        await desk.score(("a",))
        await desk.backend.close()
    assert desk.usage.prompt_tokens > 0 and desk.usage.estimated == 1


# --- descriptions ----------------------------------------------------------------------------------


def test_every_shipped_description_says_where_it_is_from() -> None:
    assert {"qwen2.5-math-prm", "skywork-prm", "math-shepherd", "rlhflow-prm", "skywork-reward"} <= set(
        known()
    )
    names = [name for one in known().values() for name in one.served]
    assert len(set(names)) == len(names)
    for name, one in known().items():
        assert one.source and (one.flags or one.note), name


def test_a_known_model_is_described_by_its_name_and_an_unknown_one_must_be() -> None:
    model = RewardServer(model="Qwen/Qwen2.5-Math-PRM-7B", base_url="http://h/v1")
    assert model.reading.tag == "<extra_0>"
    with pytest.raises(ValidationError, match="is not known"):
        RewardServer(model="other", base_url="http://h/v1")
    with pytest.raises(ValidationError, match="Did you mean 'rlhflow-prm'"):
        RewardServer(model="other", base_url="http://h/v1", reads="rlhflow-pm")


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": 2, "label": 2},
        {"way": "tags"},
        {"way": "tags", "tag": "<s>", "step": "{step}"},
        {"way": "completions"},
        {"way": "chat", "scale": "score"},
        {"prompt": "no place"},
        {"step": "no place"},
        {"unknown": 1},
    ],
)
def test_a_description_that_cannot_work_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RewardModel(**fields)


def test_a_server_is_started_with_what_the_description_needs() -> None:
    started = {"python": "/usr/bin/python3", "options": {"max_model_len": 512}}
    model = RewardServer(model="/weights", reads="nano-prm", vllm=started)
    assert model.started.python == "/usr/bin/python3"
    needed = {"runner": "pooling", "pooler_config": {"task": "token_classify"}, "max_model_len": 512}
    assert model.started.options == needed
    assert "--runner pooling" in model.reading.flags
    assert model.client("http://h/v1").api_key_env == "VLLM_API_KEY"
    keyed = RewardServer(model="/weights", reads="nano-prm", vllm=started, api_key_env="MINE")
    assert keyed.started.api_key_env == keyed.client("http://h/v1").api_key_env == "MINE"
    with pytest.raises(ValidationError, match="one that runs"):
        RewardServer(model="/weights", reads="nano-prm", vllm=started, base_url="http://h/v1")
    with pytest.raises(ValidationError, match="replica"):
        RewardServer(model="/weights", reads="nano-prm", vllm={"replica": 2})
    with pytest.raises(ValidationError, match="base_url"):
        RewardServer(model="m", api="json")


@pytest.mark.parametrize("url", ["ftp://h", "http://user:password@h/v1"])
def test_an_address_is_an_address_without_a_password(url: str) -> None:
    with pytest.raises(ValidationError):
        RewardServer(model="m", base_url=url, api="json")


async def test_a_reward_model_writes_nothing() -> None:
    async with StubServer(own_server) as server:
        model = RewardServer(model="m", base_url=server.url, api="json")
        async with Session(models=model) as session:
            with pytest.raises(CapabilityError, match="cannot write replies"):
                await session.solve(Sample(n=1), Problem.ask("q"))
        assert isinstance(model.connect(), Scorer) and not server.asked
