"""A vLLM server that lies about how likely a text is: an error that the client turns into BadReply, never a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from archon.backends.base import LikelihoodRequest
from archon.backends.vllm.client import _UNREADABLE
from archon.backends.vllm.likelihoods import Reading, Tokenizer, told
from archon.problem import Message

READING = Reading([7, 8, 9], [1, 3])


def choice(*logprobs: Any) -> dict[str, Any]:
    places = [None, *({str(t): {"logprob": p}} for t, p in zip((8, 9), logprobs, strict=True))]
    return {"index": 0, "prompt_logprobs": places}


async def asked(answer: Any) -> Any:
    async def post(path: str, body: Mapping[str, Any]) -> Any:
        return answer

    return await told(post, "m", [READING], lambda: None)


async def test_what_is_true_is_taken() -> None:
    (scored,) = await asked({"choices": [choice(-1.0, -0.5)]})
    assert (scored.steps, scored.counts, scored.tokens.prompt) == ((-1.5,), (2,), 3)
    (scored,) = await asked({"choices": [choice(None, 0.0)]})
    assert scored.steps == (-9999.0,), "what has no probability, as vLLM says it"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "prompt_logprobs": None}]},
        {"choices": [{"index": 0, "prompt_logprobs": [None]}]},
        {"choices": [{"index": 0, "prompt_logprobs": [None, {"1": {"logprob": 0}}, {}]}]},
        {"choices": [choice(float("nan"), -1.0)]},
        {"choices": [choice(float("inf"), -1.0)]},
        {"choices": [choice(1e308, 1e308)]},
        {"choices": [choice(0.5, -1.0)]},
        {"choices": [choice("many", -1.0)]},
        {"choices": [choice(-1.0, -1.0)] * 2},
        {
            "choices": [choice(-1.0, -1.0)],
            "usage": {"prompt_tokens_details": {"cached_tokens": float("inf")}},
        },
    ],
)
async def test_what_is_no_log_probability_is_an_error(answer: Any) -> None:
    with pytest.raises(_UNREADABLE):
        await asked(answer)


async def test_fewer_cached_tokens_than_none_make_nothing_cheaper() -> None:
    lie = {"prompt_tokens_details": {"cached_tokens": -1_000_000}}
    (scored,) = await asked({"choices": [choice(-1.0, -1.0)], "usage": lie})
    assert scored.tokens.cached == 0


@pytest.mark.parametrize("tokens", [None, "abc", [], [1.5], [-1], [2**40], [None], [[1]], {}])
async def test_what_are_no_tokens_is_an_error(tokens: Any) -> None:
    async def post(path: str, body: Mapping[str, Any]) -> Any:
        return {"tokens": tokens}

    request = LikelihoodRequest((Message(role="user", content="q"),), (("a",),), False, "p")
    with pytest.raises(_UNREADABLE):
        await Tokenizer(post, "m").read(request)
