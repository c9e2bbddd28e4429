"""Reading what an OpenAI-compatible server answers: completions, streams, errors.

Everything a server sends is hostile until it has been read: a reply of another shape than the protocol's
is one clear error, never a half-read sample, and never tells the key, which a server may echo.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from archon.backends.base import Completion, Progress, Request, Tokens
from archon.candidate import Finish, TokenLogprob
from archon.errors import (
    AuthenticationFailed,
    BackendError,
    BadReply,
    CallTimedOut,
    ContextOverflow,
    ModelNotFound,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    RequestRejected,
)

if TYPE_CHECKING:
    import httpx2

_BYTES_PER_TOKEN = 4
_LONGEST_MESSAGE = 500
_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
Secrets: TypeAlias = Sequence[str]
"""What a server may echo, and an error must not tell: the key, and headers like it."""
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def completions(
    response: httpx2.Response, request: Request, indices: Sequence[int], api: str, secrets: Secrets = ()
) -> list[Completion]:
    """The completions of a whole reply. Raises BadReply where it is none."""
    try:
        data = json.loads(response.content)
    except (ValueError, RecursionError):
        raise _no_protocol(response, secrets) from None
    if isinstance(data, dict) and data.get("error") and not data.get("choices"):
        raise _classified(_status_of(data["error"]), data, response, secrets)
    try:
        choices = data["choices"]
        texts = [_text(choice, api) for choice in choices[: len(indices)]]
        if not texts:
            raise ValueError("no choices")
        logprobs = [_logprobs(choice.get("logprobs"), api) for choice in choices[: len(texts)]]
        shares = _shares(data.get("usage"), request, texts, logprobs)
        return [
            Completion(
                indices[i],
                text,
                *_finish(choices[i]),
                _reasoning(choices[i]),
                logprobs[i],
                shares[i],
                requests=1 if i == 0 else 0,
            )
            for i, text in enumerate(texts)
        ]
    except _UNREADABLE as error:
        raise _no_protocol(response, secrets, f"{type(error).__name__}: {error}") from None


class Parts:
    """A streamed reply of one sample, gathered chunk by chunk."""

    def __init__(self, api: str, secrets: Secrets = ()) -> None:
        self._api = api
        self._secrets = secrets
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._last: dict[str, Any] = {}
        self._usage: Any = None
        self._chunks = 0

    def add(self, chunk: Any, progress: Progress) -> None:
        """One chunk; notes how much has been received. Raises BadReply where it is none."""
        try:
            if chunk.get("error"):
                message = redact(str(chunk["error"]), self._secrets)[:_LONGEST_MESSAGE]
                raise BadReply(f"the stream carries an error: {message}")
            usage = chunk.get("usage")
            if usage:
                self._usage = usage
                progress.prompt_tokens = int(usage["prompt_tokens"])
                progress.completion_tokens = int(usage.get("completion_tokens") or 0)
            for choice in chunk.get("choices") or ():
                delta = choice if self._api == "completions" else choice.get("delta") or {}
                text = delta.get("text" if self._api == "completions" else "content") or ""
                thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
                if text or thought:
                    self._chunks += 1
                    self._text.append(text)
                    self._reasoning.append(thought)
                self._logprobs.extend(_logprobs(choice.get("logprobs"), self._api) or ())
                if choice.get("finish_reason"):
                    self._last = choice
            if not usage:
                progress.completion_tokens = max(self._chunks, progress.completion_tokens or 0)
        except _UNREADABLE as error:
            raise BadReply(
                f"a chunk of the stream is not of this protocol ({type(error).__name__}: {error})"
            ) from None

    def completion(self, request: Request, index: int) -> Completion:
        """The whole sample. Raises BadReply where the stream ended before it did."""
        if not self._last:
            raise BadReply("the stream ended without a finish reason")
        text = "".join(self._text)
        logprobs = tuple(self._logprobs) or None
        tokens = _shares(self._usage, request, [text], [logprobs])[0]
        return Completion(index, text, *_finish(self._last), "".join(self._reasoning), logprobs, tokens)


def status_error(response: httpx2.Response, secrets: Secrets = ()) -> BackendError:
    """The error that an HTTP status stands for."""
    try:
        data = json.loads(response.content)
    except (ValueError, RuntimeError):  # not JSON, or a stream whose body was not read
        data = None
    return _classified(response.status_code, data, response, secrets)


def redact(text: str, secrets: Secrets) -> str:
    """The text without these secrets, and without anything that looks like one; as UTF-8 can hold it."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"\b(sk|key|Bearer)([-_ ])[A-Za-z0-9_\-*]{8,}", r"\1\2[hidden]", text)


def _classified(status: int, data: Any, response: httpx2.Response, secrets: Secrets) -> BackendError:
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, Mapping):
        message, code = str(error.get("message") or error), str(error.get("code") or error.get("type") or "")
    elif isinstance(data, dict) and (error or data.get("message") or data.get("detail")):
        message, code = str(error or data.get("message") or data.get("detail")), ""
    else:
        message, code = _snippet(response, secrets), ""
    message = redact(message, secrets)[:_LONGEST_MESSAGE]
    about: dict[str, Any] = {
        "status": status,
        "request_id": response.headers.get("x-request-id"),
        "retry_after": _retry_after(response.headers),
    }
    text = f"{status}: {message}"
    if status in (401, 403):
        return AuthenticationFailed(
            f"the server refuses the key ({text}). Check the environment variable named by `api_key_env`",
            **about,
        )
    if status == 404:
        return ModelNotFound(
            f"{text}. Check `model` and `base_url` ({response.url}): it usually ends in /v1", **about
        )
    if status == 429:
        if "insufficient_quota" in code or "billing" in code:
            return QuotaExhausted(f"credit or quota is used up ({text})", **about)
        return RateLimited(text, **about)
    if status == 408:
        return CallTimedOut(text, **about)
    if status >= 500:
        return Overloaded(text, **about)
    if re.search(
        r"context.{0,20}(length|window)|maximum context|too (long|many tokens)|context_length",
        f"{code} {message}",
        re.I,
    ):
        return ContextOverflow(text, **about)
    return RequestRejected(text, **about)


def _no_protocol(response: httpx2.Response, secrets: Secrets, why: str = "") -> BadReply:
    kind = response.headers.get("content-type", "nothing known").split(";")[0]
    what = f"answered {kind} that is no completion" + (f" ({why})" if why else "")
    return BadReply(
        f"{response.url} {what}: {_snippet(response, secrets)!r}. Check `base_url`: it usually ends in /v1",
        status=response.status_code,
    )


def _snippet(response: httpx2.Response, secrets: Secrets) -> str:
    try:
        text = response.content[:4000].decode("utf-8", "replace")
    except RuntimeError:
        return "no text"
    return " ".join(redact(text, secrets).split())[:200]


def _status_of(error: Any) -> int:
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms`, `retry-after` in seconds, or as a date."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        try:
            return max(0.0, float(value))
        except ValueError:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _text(choice: Mapping[str, Any], api: str) -> str:
    if api == "completions":
        return str(choice["text"])
    message = choice["message"]
    return str(message.get("content") or message.get("refusal") or "")


def _reasoning(choice: Mapping[str, Any]) -> str:
    message = choice.get("message") or {}
    return str(message.get("reasoning_content") or message.get("reasoning") or "")


def _finish(choice: Mapping[str, Any]) -> tuple[Finish, str | None]:
    """Why it ended; vLLM and SGLang tell which stop string it was."""
    finish = _FINISH.get(str(choice.get("finish_reason")), "unknown")
    stop = choice.get("stop_reason", choice.get("matched_stop"))
    if finish == "stop" and isinstance(stop, str):
        return "stop_string", stop
    return finish, None


def _logprobs(data: Any, api: str) -> tuple[TokenLogprob, ...] | None:
    if not data:
        return None
    if api == "completions":
        tops = data.get("top_logprobs") or [None] * len(data["tokens"])
        return tuple(
            TokenLogprob(str(token), float(value), tuple((str(k), float(v)) for k, v in (top or {}).items()))
            for token, value, top in zip(data["tokens"], data["token_logprobs"], tops, strict=True)
            if value is not None
        )
    content = data.get("content")
    if content is None:
        return None
    return tuple(
        TokenLogprob(
            str(t["token"]),
            float(t["logprob"]),
            tuple((str(o["token"]), float(o["logprob"])) for o in t.get("top_logprobs") or ()),
        )
        for t in content
    )


def _shares(
    usage: Any,
    request: Request,
    texts: Sequence[str],
    logprobs: Sequence[tuple[TokenLogprob, ...] | None],
) -> list[Tokens]:
    """Each sample's tokens. The server counts per request: the prompt goes to the first sample, the
    completion tokens are split by the tokens we were shown, else by length, to the exact sum."""
    if not usage:
        return [
            Tokens(
                max(1, request.prompt_bound // _BYTES_PER_TOKEN) if i == 0 else 0,
                completion=max(1, len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN),
                estimated=True,
            )
            for i, text in enumerate(texts)
        ]
    prompt, completion = int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    reasoning = int((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
    if min(prompt, completion, cached, reasoning) < 0:
        raise ValueError("negative token counts")
    cost = None if usage.get("cost") is None else float(usage["cost"])
    if cost is not None and not 0 <= cost < 1e6:
        raise ValueError(f"a cost of {cost}")
    weights = [len(shown) if shown else 1 + len(text) for text, shown in zip(texts, logprobs, strict=True)]
    parts, thoughts = _split(completion, weights), _split(reasoning, weights)
    return [
        Tokens(
            prompt if i == 0 else 0,
            min(cached, prompt) if i == 0 else 0,
            parts[i],
            thoughts[i],
            usd=None if cost is None else cost if i == 0 else 0.0,
        )
        for i in range(len(texts))
    ]


def _split(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to weights that add up to the total."""
    whole = sum(weights)
    bounds = [0]
    for weight in weights:
        bounds.append(bounds[-1] + weight)
    marks = [total * bound // whole for bound in bounds]
    return [after - before for before, after in pairwise(marks)]
