"""The client of reward models: vLLM's pooling and classification, judgements of one word, or a server of your own.

What a model is asked and where its score stands is data (reward_models.py). With `api: json` any server can
give scores: it gets

    {"model": "m", "messages": [{"role": "user", "content": "..."}], "replies": [["step 1", "step 2"], ...],
     "finished": true}

and answers with a list per reply, of one score per step (or, as `scores: outcome`, of a single one):

    {"scores": [[0.9, 0.4], ...], "usage": {"prompt_tokens": 123}}

`usage` may be left out; tokens are estimated then. Retries, throttling and budgets are the caller's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from archon.backends import reply
from archon.backends.base import (
    Capabilities,
    Completion,
    Progress,
    Request,
    Scored,
    ScoreRequest,
    Tokens,
)
from archon.backends.openai import OpenAIBackend
from archon.errors import BadReply, CapabilityError
from archon.problem import Message
from archon.tasks import together

if TYPE_CHECKING:
    from archon.backends.rewards import RewardServer

_BYTES_PER_TOKEN = 4
_MOST_WORDS = 20
"""Alternatives asked for where a word is read by its log-probability; what vLLM gives by default."""
_KEPT = 256
"""Beginnings whose tokens are kept."""
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)
_JSON: Any = {"headers": {"Content-Type": "application/json"}}


class _Answer(NamedTuple):
    """The scores of some replies, and what the server counted for them together."""

    scores: Sequence[Sequence[float]]
    usage: Any = None
    lengths: Sequence[int] = ()
    """Each reply's share of what was counted, where that is known."""


class RewardBackend(OpenAIBackend):
    """What every kind of server has in common."""

    def __init__(self, config: RewardServer, address: str, served: str) -> None:
        super().__init__(config.client(address))
        self.config = config
        self._served = served
        """The model's name, as the server spells it."""

    def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Not what it is for. Raises CapabilityError."""
        raise CapabilityError(f"{self.config.model!r} is a reward model: it scores replies and writes none")

    async def score(self, request: ScoreRequest, progress: Progress) -> list[Scored]:
        """One request, besides those that only count tokens."""
        with self._errors(progress):
            progress.sent = True
            try:
                scores, usage, lengths = await self._ask(request)
                if len(scores) != len(request.replies):
                    raise ValueError(f"{len(scores)} lists of scores for {len(request.replies)} replies")
                tokens = _shares(usage, request, lengths)
            except _UNREADABLE as error:
                raise BadReply(
                    f"{self.endpoint} answered what are no scores ({type(error).__name__}: {str(error)[:200]}). "
                    "Check that the server runs a reward model, as its description wants it"
                ) from None
        return [
            Scored(tuple(one), tokens[place], requests=1 if place == 0 else 0)
            for place, one in enumerate(scores)
        ]

    async def _ask(self, request: ScoreRequest) -> _Answer:
        raise NotImplementedError

    async def _post(self, address: str, body: Mapping[str, Any]) -> Any:
        """The reply, as JSON. Raises ValueError where it is none."""
        response = await self._send(address, body)
        return json.loads(response.content)

    async def _send(self, address: str, body: Mapping[str, Any]) -> Any:
        import httpx2

        content = json.dumps(body).encode()
        return await self._client.post(address, cast_to=httpx2.Response, content=content, options=_JSON)


class JSONRewards(RewardBackend):
    """A server of your own."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Address and model."""
        return {
            "backend": "reward_server",
            "base_url": self.endpoint,
            "model": self.config.model,
            "api": "json",
        }

    @property
    def capabilities(self) -> Capabilities:
        """As the configuration says."""
        config = self.config
        return Capabilities(
            completes=False,
            scores=config.scores,
            score_scale=config.scale or "score",
            max_replies=config.replies_per_request,
        )

    async def _ask(self, request: ScoreRequest) -> _Answer:
        body = {
            "model": self.config.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "replies": [list(steps) for steps in request.replies],
            "finished": request.finished,
        }
        data = await self._post(self.endpoint, body)
        return _Answer([[_number(score) for score in one] for one in data["scores"]], data.get("usage"))


class VLLMRewards(RewardBackend):
    """vLLM, asked and read as the model's description says."""

    def __init__(self, config: RewardServer, address: str, served: str) -> None:
        super().__init__(config, address, served)
        self._reading = config.reading
        self._root = self.endpoint.removesuffix("/v1")
        self._openings: dict[tuple[Message, ...], list[int]] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """Server, model, and how it is asked."""
        about = {"source", "checked", "tried", "served", "options", "note"}
        return {
            "backend": "reward_server",
            "base_url": self.endpoint,
            "model": self.config.model,
            "reads": self._reading.model_dump(exclude=about, exclude_defaults=True, mode="json"),
        }

    @property
    def capabilities(self) -> Capabilities:
        """By the description."""
        return Capabilities(
            completes=False,
            scores=self._reading.scores,
            score_scale=self._reading.scale,
            max_replies=self.config.replies_per_request if self._batches else 1,
            max_tokens=1 if self._reading.way in ("chat", "completions") else None,
            aborts=True,
        )

    @property
    def _batches(self) -> bool:
        """Whether a request can hold several replies: not as a chat."""
        way = self._reading.way
        return way == "tokens" or (way in ("tags", "classify") and self._reading.prompt is not None)

    async def _ask(self, request: ScoreRequest) -> _Answer:
        way = self._reading.way
        if way == "tokens":
            return await self._by_tokens(request)
        if way in ("tags", "classify"):
            return await self._pooled(request)
        return await self._by_word(request)

    async def _pooled(self, request: ScoreRequest) -> _Answer:
        """Rows of numbers: one for each step's tag, or one for the whole."""
        written = ["".join(self._reading.written(steps)) for steps in request.replies]
        body: dict[str, Any]
        if self._reading.prompt is not None:
            opening = self._reading.opening(request.messages)
            body = {"input": [opening + text for text in written]}
        else:
            chat = self._reading.chat(request.messages)
            body = {"messages": [*chat, {"role": "assistant", "content": written[0]}]}
            if not request.finished:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        tags = self._reading.way == "tags"
        data = await self._numbers("/pooling" if tags else "/classify", body)
        rows = [item["data"] for item in data["data"]] if tags else [[item["probs"]] for item in data["data"]]
        return _Answer([[self._read(row) for row in one] for one in rows], data.get("usage"))

    async def _by_tokens(self, request: ScoreRequest) -> _Answer:
        """A row for each token, of which each step's last one counts."""
        opening = await self._opening(request.messages)
        inputs, ends = [], []
        pieces = [self._reading.written(steps) for steps in request.replies]
        cut = iter(await self._apart([piece for texts in pieces for piece in texts]))
        for texts in pieces:
            tokens, places = list(opening), []
            for step in islice(cut, len(texts)):
                tokens += step
                places.append(len(tokens) - 1)
            inputs.append(tokens)
            ends.append(places)
        data = await self._numbers("/pooling", {"input": inputs})
        scores = []
        for item, tokens, places in zip(data["data"], inputs, ends, strict=True):
            if len(item["data"]) != len(tokens):
                raise ValueError(
                    f"{len(item['data'])} rows for {len(tokens)} tokens: start it with {self._reading.flags}"
                )
            scores.append([self._read(item["data"][place]) for place in places])
        return _Answer(scores, data.get("usage"), list(map(len, inputs)))

    async def _by_word(self, request: ScoreRequest) -> _Answer:
        """The model's next word: one that approves, or one that disapproves."""
        reading, (steps,) = self._reading, request.replies
        body: dict[str, Any] = {"model": self._served, "max_tokens": 1, "temperature": 0}
        if reading.way == "completions":
            path, api = "/v1/completions", "completions"
            body |= {"prompt": reading.opening(request.messages) + "".join(reading.written(steps))}
            body |= {"logprobs": _MOST_WORDS}
        else:
            path, api = "/v1/chat/completions", "chat"
            body |= {"messages": self._turns(request), "logprobs": True, "top_logprobs": _MOST_WORDS}
        response = await self._send(self._root + path, body)
        (completion,) = reply.completions(response, Request(request.messages), [0], api, self._secrets)
        if not completion.logprobs:
            raise ValueError("no log-probabilities")
        first = completion.logprobs[0]
        logit = _odds({**dict(first.top), first.token: first.logprob}, reading.good, reading.bad)
        score = logit if reading.scale == "logit" else _sigmoid(logit)
        counted = completion.tokens
        usage = None if counted.estimated else {"prompt_tokens": counted.prompt, "completion_tokens": 1}
        return _Answer([[score]], usage)

    def _turns(self, request: ScoreRequest) -> list[dict[str, str]]:
        """A turn of the user's per step, each answered by approval but the last; or the whole in one."""
        reading, (steps,) = self._reading, request.replies
        texts = reading.written(steps if reading.process else ["".join(steps)])
        turns = []
        if reading.prompt is None:
            turns += reading.chat(request.messages)
        else:
            texts[0] = reading.opening(request.messages) + texts[0]
        for text in texts:
            turns += [{"role": "user", "content": text}, {"role": "assistant", "content": reading.good}]
        return turns[:-1]

    async def _numbers(self, path: str, body: dict[str, Any]) -> Any:
        body["model"] = self._served
        if (
            self._reading.activation is not None
        ):  # vLLM has called it so since 0.11.1, and before by the other
            body |= {"use_activation": self._reading.activation, "activation": self._reading.activation}
        return await self._post(self._root + path, body)

    def _read(self, row: Any) -> float:
        numbers = row if isinstance(row, list) else [row]
        if len(numbers) != self._reading.labels:
            raise ValueError(
                f"{len(numbers)} numbers where its description has {self._reading.labels} labels"
            )
        return _number(numbers[self._reading.label])

    # --- tokens ------------------------------------------------------------------------------------

    async def _opening(self, messages: tuple[Message, ...]) -> list[int]:
        """The tokens before a reply."""
        kept = self._openings.get(messages)
        if kept is None:
            if self._reading.prompt is not None:
                kept = await self._tokens(self._reading.opening(messages))
            else:
                kept = await self._tokenize(messages=self._reading.chat(messages), add_generation_prompt=True)
            while len(self._openings) >= _KEPT:
                del self._openings[next(iter(self._openings))]
            self._openings[messages] = kept
        return kept

    async def _apart(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each of these texts."""
        separator = self._reading.separator
        if not separator:
            return await together(self._tokens(text) for text in texts)
        (between,), joined = await together(map(self._tokens, (separator, separator.join(texts))))
        parts: list[list[int]] = [[]]
        for token in joined:
            if token == between:
                parts.append([])
            else:
                parts[-1].append(token)
        if len(parts) != len(texts):
            raise ValueError(f"{len(parts)} texts for {len(texts)}: {separator!r} is no special token")
        return parts

    async def _tokens(self, text: str) -> list[int]:
        return await self._tokenize(prompt=text) if text else []

    async def _tokenize(self, **body: Any) -> list[int]:
        """What a text's or a chat's tokens are; no work for the model."""
        body |= {"model": self._served, "add_special_tokens": False}
        data = await self._post(self._root + "/tokenize", body)
        return [int(token) for token in data["tokens"]]


# --- reading ---------------------------------------------------------------------------------------


def _number(value: Any) -> float:
    """A score; what is no number to the model itself arrives as null, for JSON has no other word for it."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.80} is no number")
    return float(value)


def _odds(words: Mapping[str, float], good: str, bad: str) -> float:
    """The logit of one word against the other; one that is not listed counts as the least that is."""
    found: dict[str, float] = {}
    for word, logprob in words.items():
        if math.isfinite(logprob):
            found[word.strip()] = max(logprob, found.get(word.strip(), -math.inf))
    if good not in found and bad not in found:
        raise ValueError(f"neither {good!r} nor {bad!r} is among the likeliest words {list(words)[:5]}")
    least = min(found.values())
    return found.get(good, least) - found.get(bad, least)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def _shares(usage: Any, request: ScoreRequest, lengths: Sequence[int]) -> list[Tokens]:
    """Each reply's part of what the server counted, by length, to the exact sum."""
    weights = lengths or [1 + sum(map(len, steps)) for steps in request.replies]
    if not usage:
        most = request.prompt_bound // _BYTES_PER_TOKEN
        return [Tokens(max(1, most * weight // sum(weights)), estimated=True) for weight in weights]
    prompt, completion = int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    if min(prompt, completion, cached) < 0:
        raise ValueError("negative token counts")
    marks = [0, *accumulate(weights)]
    parts = [prompt * after // marks[-1] - prompt * before // marks[-1] for before, after in pairwise(marks)]
    return [
        Tokens(part, min(cached, part) if place == 0 else 0, completion if place == 0 else 0)
        for place, part in enumerate(parts)
    ]
