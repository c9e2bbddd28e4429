"""How likely given text is, as a vLLM server tells it: the log-probabilities of a prompt's own tokens.

The server makes the tokens (`/tokenize`, by its chat template), as it would of a sample that continues the same
beginning. They are sent to `/v1/completions` with `prompt_logprobs`, several replies per request; it writes one token
after each, which is billed. What ends a reply is the token that the chat template puts after one.

A reply's tokens are made of its whole text. Those of a beginning of it may be others at its very end, where a token
reaches over it into what follows: such a token, and so the text of the beginning that is in it, counts to the step in
which it ends. vLLM reads no cached prompt where it is to tell these log-probabilities: every reply is computed anew.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

from archon.backends.base import LikelihoodRequest, Scored, Tokens
from archon.errors import RequestRejected
from archon.tasks import together

_KEPT = 4096
"""Beginnings whose tokens are kept."""
_SLACK = 1e-3
"""How far rounding may take a log-probability above 0."""
_LEAST = -9999.0
"""What vLLM says for minus infinity, which JSON does not have."""
_OF_PROMPTS = ("chat_template", "chat_template_kwargs", "add_special_tokens", "mm_processor_kwargs")
"""What of `extra` makes the prompt."""


class Post(Protocol):
    """Sends JSON to a path of the server, and reads JSON."""

    def __call__(self, path: str, body: Mapping[str, Any]) -> Awaitable[Any]:
        """Raises BackendError, and ValueError where the answer is no JSON."""
        ...


class Reading(NamedTuple):
    """A reply as tokens."""

    tokens: Sequence[int]
    """Those of the chat before it, and its own."""
    ends: Sequence[int]
    """Where the reply begins among them, and where each of its steps ends."""


class Tokenizer:
    """Makes tokens of replies by asking the server, each beginning once."""

    def __init__(self, post: Post, model: str) -> None:
        self._post = post
        self._model = model
        self._known: dict[bytes, Sequence[int]] = {}

    async def read(self, request: LikelihoodRequest) -> list[Reading]:
        """Every reply. Raises RequestRejected where its end cannot be told, ValueError for answers that are none."""
        end = [await self._end(request)] if request.finished else []
        readings: list[Reading] = await together(
            self._reading(request, steps, end) for steps in request.replies
        )
        return readings

    async def _reading(self, request: LikelihoodRequest, steps: Sequence[str], end: list[int]) -> Reading:
        texts = list(accumulate(steps, initial=""))
        parts = await together(self._tokens(request, text) for text in texts)
        whole = parts[-1]
        ends = [_common(part, whole) for part in parts[:-1]]
        for place in reversed(range(len(ends) - 1)):  # a beginning ends no later than one that is longer
            ends[place] = min(ends[place], ends[place + 1])
        return Reading([*whole, *end], [*ends, len(whole) + len(end)])

    async def _tokens(self, request: LikelihoodRequest, text: str, *, closed: bool = False) -> Sequence[int]:
        """The chat with the beginning of a reply, which goes on or (`closed`) is over."""
        turns = [{"role": m.role, "content": m.content} for m in request.messages]
        body: dict[str, Any] = {"model": self._model, "messages": turns}
        if text:
            turns.append({"role": "assistant", "content": text})
            body |= {"add_generation_prompt": False, "continue_final_message": not closed}
        body |= {name: request.extra[name] for name in _OF_PROMPTS if name in request.extra}
        key = hashlib.sha256(repr(body).encode("utf-8", "surrogatepass")).digest()
        if key not in self._known:
            data = await self._post("/tokenize", body)
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            tokens = array("I", data["tokens"])
            if not tokens:
                raise ValueError("no tokens")
            self._known[key] = tokens
        return self._known[key]

    async def _end(self, request: LikelihoodRequest) -> int:
        """The token that ends a reply, whatever it says."""
        going_on, over = [await self._tokens(request, "x", closed=closed) for closed in (False, True)]
        after = over[len(going_on) :]
        if not after or list(over[: len(going_on)]) != list(going_on):
            raise RequestRejected(
                "which token ends a reply cannot be told: the chat template puts none after one",
                model=self._model,
            )
        return after[0]


async def told(
    post: Post, model: str, readings: Sequence[Reading], sending: Callable[[], None]
) -> list[Scored]:
    """The log-probabilities of what was read, by one request; `sending` is called before it. Raises ValueError for
    an answer that is none."""
    prompts = [list(reading.tokens) for reading in readings]
    body = {"model": model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    sending()
    data = await post("/v1/completions", body)
    choices = sorted(data["choices"], key=lambda choice: choice["index"])
    if len(choices) != len(readings):
        raise ValueError(f"{len(choices)} choices for {len(readings)} prompts")
    usage = data.get("usage") or {}
    cached = max(0, int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0))
    found = []
    for number, (reading, choice) in enumerate(zip(readings, choices, strict=True)):
        logs = choice["prompt_logprobs"]
        if len(logs) != len(reading.tokens):
            raise ValueError(f"{len(logs)} log-probabilities for {len(reading.tokens)} tokens")
        spans = list(pairwise(reading.ends))
        sums = [math.fsum(_log(logs[at], reading.tokens[at]) for at in range(*span)) for span in spans]
        size = len(reading.tokens)
        tokens = Tokens(size, min(cached, size), 1)
        cached -= tokens.cached
        counts = tuple(end - start for start, end in spans)
        found.append(Scored(tuple(sums), tokens, requests=int(number == 0), counts=counts))
    return found


def _log(place: Mapping[str, Any], token: int) -> float:
    value = place[str(token)]["logprob"]
    if value is None:
        return _LEAST
    if not float(value) <= _SLACK:
        raise ValueError(f"{value!r} is no logarithm of a probability")
    return max(float(value), _LEAST)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    differing = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
