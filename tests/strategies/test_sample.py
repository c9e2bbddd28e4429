"""Repeated sampling: every setting reaches the request, and nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Request, Sampling
from archon.backends.openai import OpenAI
from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import TokenLogprob
from archon.errors import CapabilityError
from archon.problem import Message, Problem
from archon.session import Session
from archon.stage import NONE, Count
from archon.strategies.sample import Sample
from archon.testing import StubServer
from archon.usage import NOTHING
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import PROBLEM, ids, replies, solved


class Continuing(Scripted):
    """A base model: it continues text."""

    @property
    def continues_text(self) -> bool:
        return True


RAW = Problem(
    id="raw",
    messages=(Message(role="user", content="Write f."),),
    prompt="def f(x):\n",
    stop=("\ndef", "\nclass"),
)

EVERYTHING: Mapping[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "max_tokens": 77,
    "stop": ("END", "\n\n"),
    "seed": 11,
    "logprobs": 3,
    "extra": {"guided_choice": ["a", "b"]},
}


async def request_of(stage: Sample, problem: Problem = PROBLEM, **settings: Any) -> Request:
    """What the model is asked."""
    model = settings.pop("model", None) or Scripted(reply=lambda call: "x", identity="sample")
    outcome, backend = await solved(stage, model, problem, **settings)
    assert len(outcome.candidates) == stage.n
    requests = {id(call.request): call.request for call in backend.calls}
    (request,) = requests.values()
    assert isinstance(request, Request)
    return request


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERYTHING)
async def test_each_setting_reaches_the_request_and_no_other_is_touched(name: str) -> None:
    request = await request_of(Sample(**{name: EVERYTHING[name]}))
    bare = await request_of(Sample())
    assert getattr(request.sampling, name) == EVERYTHING[name]
    assert request.sampling.model_copy(update={name: getattr(bare.sampling, name)}) == bare.sampling


async def test_all_settings_together_are_the_request() -> None:
    request = await request_of(Sample(n=2, **EVERYTHING))
    assert request.sampling == Sampling(**EVERYTHING)
    assert request.messages == PROBLEM.messages and request.prompt is None and request.prefix == ""
    assert request.problem == PROBLEM.id


async def test_what_is_not_given_is_the_models_own() -> None:
    own = Sampling(temperature=0.2, top_p=0.5, stop=("MODEL",), extra={"a": 1})
    model = Scripted(reply=lambda call: "x", identity="own", sampling=own, max_tokens=123)
    request = await request_of(Sample(top_p=0.8), model=model)
    assert request.sampling == own.model_copy(update={"top_p": 0.8, "max_tokens": 123})


async def test_greedy_is_a_temperature_and_not_a_missing_one() -> None:
    warm = Scripted(reply=lambda call: "x", identity="own", sampling=Sampling(temperature=0.9))
    assert (await request_of(Sample(temperature=0), model=warm)).sampling.temperature == 0


async def test_logprobs_of_zero_alternatives_are_asked_for() -> None:
    assert (await request_of(Sample(logprobs=0))).sampling.logprobs == 0


async def test_the_limit_is_the_stages_else_the_samplings_else_the_models() -> None:
    model = Scripted(reply=lambda call: "x", identity="m", max_tokens=50, sampling=Sampling(max_tokens=40))
    assert (await request_of(Sample(max_tokens=30), model=model)).sampling.max_tokens == 30
    assert (await request_of(Sample(), model=model)).sampling.max_tokens == 40
    model = Scripted(reply=lambda call: "x", identity="m", max_tokens=50)
    assert (await request_of(Sample(), model=model)).sampling.max_tokens == 50


async def test_the_seed_is_the_stages_else_the_sessions_and_each_sample_gets_its_own() -> None:
    assert (await request_of(Sample(), seed=5)).sampling.seed == 5
    assert (await request_of(Sample(seed=0), seed=5)).sampling.seed == 0
    request = await request_of(Sample(seed=3))
    assert len({request.seed_of(i) for i in range(1000)}) == 1000
    assert (await request_of(Sample())).seed_of(0) is None


async def test_a_model_that_continues_text_gets_the_system_message_before_the_problems_own_beginning() -> (
    None
):
    request = await request_of(
        Sample(system="Be brief."), RAW, model=Continuing(reply=lambda call: "x", identity="base")
    )
    assert request.prompt == "Be brief.\n\ndef f(x):\n"
    assert (request.messages, request.sampling.stop) == ((), RAW.stop)


async def test_a_system_message_comes_first_and_the_chat_stays_as_it_is() -> None:
    chat = (
        Message(role="user", content="first"),
        Message(role="assistant", content="second"),
        Message(role="user", content="third"),
    )
    request = await request_of(Sample(system="Be brief."), Problem(id="chat", messages=chat))
    assert request.messages == (Message(role="system", content="Be brief."), *chat)
    assert (await request_of(Sample(system=""), PROBLEM)).messages[0].content == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": -1},
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": 0},
        {"min_p": 1.5},
        {"max_tokens": 0},
        {"logprobs": 21},
        {"per_request": 0},
        {"per_request": "all"},
        {"temprature": 1},
        {"temperature": float("nan")},
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sample(**wrong)


# --- raw prompts ------------------------------------------------------------------------------------


async def test_a_model_that_continues_text_gets_the_raw_prompt_and_its_stop_strings() -> None:
    request = await request_of(Sample(), RAW, model=Continuing(reply=lambda call: "x", identity="base"))
    assert (request.prompt, request.messages, request.sampling.stop) == (RAW.prompt, (), RAW.stop)


async def test_stop_strings_of_the_stage_win_over_the_problems() -> None:
    base = Continuing(reply=lambda call: "x", identity="base")
    assert (await request_of(Sample(stop=("END",)), RAW, model=base)).sampling.stop == ("END",)


async def test_a_chat_model_gets_the_chat_and_no_stop_strings_of_a_raw_prompt() -> None:
    request = await request_of(Sample(), RAW)
    assert (request.prompt, request.messages, request.sampling.stop) == (None, RAW.messages, ())


async def test_without_a_raw_prompt_a_model_that_continues_text_gets_the_chat() -> None:
    request = await request_of(Sample(), model=Continuing(reply=lambda call: "x", identity="base"))
    assert request.messages == PROBLEM.messages and request.sampling.stop == ()


async def test_a_chat_and_a_raw_prompt_of_one_problem_never_share_samples() -> None:
    for model in (
        Scripted(reply=lambda call: "x", identity="m"),
        Continuing(reply=lambda c: "x", identity="m"),
    ):
        _, backend = await solved(Sample(n=2), model, RAW, store="store.sqlite")
        assert len(backend.calls) == 2


# --- how many, and in which requests ----------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 17])
async def test_n_is_how_many_samples_are_drawn(n: int) -> None:
    outcome, backend = await solved(Sample(n=n), Scripted(reply=lambda call: f"{call.index}", identity="n"))
    assert [c.text for c in outcome.candidates] == [str(i) for i in range(n)]
    assert [c.id for c in outcome.candidates] == [f"sample#{i}" for i in range(n)]
    assert len(backend.calls) == outcome.usage.requests == n


@pytest.mark.parametrize(
    ("per_request", "max_n", "own", "requests"),
    [
        ("auto", 1, "auto", 12),
        ("auto", 5, "auto", 3),  # 5 + 5 + 2
        (4, 5, "auto", 3),
        (1, 5, "auto", 12),
        (50, 5, "auto", 3),
        (50, 1, "auto", 12),
        ("auto", 5, 2, 6),
        (3, 5, 2, 4),
    ],
)
async def test_samples_share_requests_as_the_stage_says_and_the_server_can(
    per_request: Any, max_n: int, own: Any, requests: int
) -> None:
    model = Scripted(reply=lambda call: "x", identity="n", max_n=max_n, samples_per_request=own)
    outcome, backend = await solved(Sample(n=12, per_request=per_request), model)
    assert outcome.usage.requests == requests
    assert sorted(c.index for c in backend.calls) == list(range(12))


def test_its_plan_is_exact() -> None:
    for n in (0, 1, 9):
        assert Sample(n=n).plan(NONE) == (Count(n, n), Count(n, n))
    assert Sample(model="coder").models == ("coder",)


def test_ten_thousand_samples_arrive_once_each_and_in_order() -> None:
    def reply(call: Call) -> Reply:
        return Reply(str(call.index), latency=0.001 * (1 + call.index % 7))

    outcome, backend = patiently(
        solved(Sample(n=10_000), Scripted(reply=reply, identity="many"), store=InstantStore())
    )
    assert [c.text for c in outcome.candidates] == [str(i) for i in range(10_000)]
    assert len(backend.calls) == 10_000


# --- what comes back --------------------------------------------------------------------------------


async def test_a_candidate_keeps_what_the_model_said_of_it() -> None:
    logprobs = (TokenLogprob("x", -0.5, (("y", -1.0),)),)
    reply = Reply("text", "stop_string", "END", "thought", logprobs=logprobs)
    outcome, _ = await solved(Sample(logprobs=1), Scripted(reply=lambda call: reply, identity="m"))
    (candidate,) = outcome.candidates
    assert (candidate.text, candidate.finish, candidate.stop, candidate.reasoning, candidate.logprobs) == (
        "text",
        "stop_string",
        "END",
        "thought",
        logprobs,
    )
    assert (candidate.model, candidate.stage, candidate.parents) == ("default", "sample", ())


def test_samples_flow_on_as_they_arrive_and_are_reported_in_their_order() -> None:
    outcome, _ = patiently(
        solved(Sample(n=4), replies(*"abcd", latencies=[4, 3, 2, 1]), store=InstantStore())
    )
    assert ids(outcome.candidates) == [0, 1, 2, 3] and [c.text for c in outcome.candidates] == list("abcd")


async def test_an_empty_reply_is_a_candidate_and_not_a_failure() -> None:
    outcome, _ = await solved(Sample(n=3), replies("", "x", ""))
    assert [c.text for c in outcome.candidates] == ["", "x", ""]
    assert not outcome.failures


@pytest.mark.parametrize("stage", [Sample(logprobs=1), Sample(top_k=5), Sample(min_p=0.1)])
async def test_what_the_server_cannot_do_is_an_error_before_anything_is_asked(stage: Sample) -> None:
    async with StubServer() as server:
        model = OpenAI(model="m", base_url=server.url, server="generic", capabilities={"logprobs": False})
        async with Session(models=model) as session:
            with pytest.raises(CapabilityError):
                await session.solve(stage, PROBLEM)
            assert session.ledger.total == NOTHING and server.asked == []


async def test_every_setting_reaches_the_wire() -> None:
    async with StubServer() as server:
        model = OpenAI(model="m", base_url=server.url, server="vllm")
        async with Session(models=model) as session:
            await session.solve(Sample(n=2, system="Be brief.", per_request=1, **EVERYTHING), PROBLEM)
    bodies = [asked.body for asked in server.asked]
    assert len(bodies) == 2
    for body in bodies:
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.7, 0.9, 40, 0.05)
        assert body["stop"] == ["END", "\n\n"] and body["guided_choice"] == ["a", "b"]
        assert (body["logprobs"], body["top_logprobs"]) == (True, 3)
        assert 77 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert len({body["seed"] for body in bodies}) == 2, "two samples, two seeds"
