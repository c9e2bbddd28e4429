"""An OpenAI-compatible server on a real port, whose replies, delays and faults a test chooses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Asked:
    """A request, as the server got it."""

    number: int
    """0 for the first request, in order of arrival."""
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float = 0.0
    """When it came (`time.monotonic`)."""

    @property
    def text(self) -> str:
        """What is asked: the prompt, or the last message."""
        if "prompt" in self.body:
            return str(self.body["prompt"])
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Answer:
    """What to answer: a completion, or anything else at all."""

    text: str = "ok"
    delay: float = 0.0
    """Seconds before answering."""
    status: int = 200
    finish: str = "stop"
    completion_tokens: int | None = None
    """Words are counted where not given."""
    usage: bool = True
    """Whether to report usage."""
    choices: int | None = None
    """How many choices; as many as asked for where not given."""
    others: tuple[Answer, ...] = ()
    """The choices after the first, where they are not all the same."""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Send this body instead, as `content_type`."""
    content_type: str = "application/json"
    drop: bool = False
    """Close the connection instead of answering."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the first choice."""
    usage_extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the usage."""


Script = Callable[[Asked], Answer | str]


class StubServer:
    """Serves a script on 127.0.0.1. Use it as an async context manager.

    `asked` lists requests, `answered` counts those answered in full, `cut_off` those whose client closed the
    connection first, `in_flight` and `most_in_flight` those being answered, `streamed` the words sent in
    streams.
    """

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        self._script: Script = script or (lambda asked: Answer())
        self._port = port
        self._runner: web.AppRunner | None = None
        self.asked: list[Asked] = []
        self.answered = 0
        self.cut_off = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.streamed = 0
        self.url = ""

    async def __aenter__(self) -> StubServer:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_post("/v1/{path:.*}", self._answer)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=2048)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        asked = Asked(
            len(self.asked), "/" + request.match_info["path"], body, dict(request.headers), time.monotonic()
        )
        self.asked.append(asked)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self._script(asked)
            if isinstance(answer, str):
                answer = Answer(answer)
            if body.get("stream") and answer.status == 200 and answer.raw is None and not answer.drop:
                return await self._stream(request, body, answer)
            if answer.delay:
                await asyncio.sleep(answer.delay)
            if answer.drop:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            self.answered += 1
            return self._whole(asked, answer)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        finally:
            self.in_flight -= 1

    def _whole(self, asked: Asked, answer: Answer) -> web.Response:
        headers = dict(answer.headers)
        if answer.raw is not None:
            return web.Response(
                body=answer.raw, status=answer.status, headers=headers, content_type=answer.content_type
            )
        if answer.status != 200:
            error = {"error": {"message": answer.text, "type": "error", "code": answer.extra.get("code")}}
            return web.json_response(error, status=answer.status, headers=headers)
        n = answer.choices if answer.choices is not None else int(asked.body.get("n", 1))
        raw = "prompt" in asked.body
        choices = []
        for index in range(n):
            one = answer.others[index - 1] if index and answer.others else answer
            content: dict[str, Any] = (
                {"text": one.text} if raw else {"message": {"role": "assistant", "content": one.text}}
            )
            extra = {} if index and one is answer else one.extra
            choices.append({"index": index, "finish_reason": one.finish, **content, **extra})
        data: dict[str, Any] = {
            "id": f"r{asked.number}",
            "object": "text_completion" if raw else "chat.completion",
            "created": 0,
            "model": asked.body.get("model", ""),
            "choices": choices,
        }
        if answer.usage:
            data["usage"] = self._usage(asked.body, answer, n)
        return web.json_response(data, headers=headers)

    async def _stream(
        self, request: web.Request, body: Mapping[str, Any], answer: Answer
    ) -> web.StreamResponse:
        """Word by word, spread over the delay."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = answer.text.split(" ")
        running = bool((body.get("stream_options") or {}).get("continuous_usage_stats"))
        raw = "prompt" in body
        for number, word in enumerate(words, 1):
            await asyncio.sleep(answer.delay / len(words))
            text = word if number == len(words) else word + " "
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            choice |= {"text": text} if raw else {"delta": {"content": text}}
            chunk: dict[str, Any] = {"choices": [choice]}
            if running:
                chunk["usage"] = self._counted(body, number)
            await response.write(_event(chunk))
            self.streamed += 1
        last: dict[str, Any] = {"index": 0, "finish_reason": answer.finish, **answer.extra}
        if raw:
            last["text"] = ""
        else:
            last["delta"] = {}
        await response.write(_event({"choices": [last]}))
        if answer.usage:
            await response.write(_event({"choices": [], "usage": self._counted(body, len(words))}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        self.answered += 1
        return response

    def _usage(self, body: Mapping[str, Any], answer: Answer, n: int) -> dict[str, Any]:
        told = [answer, *answer.others] if answer.others else [answer] * n
        words = (len(a.text.split()) if a.completion_tokens is None else a.completion_tokens for a in told)
        return {**self._counted(body, sum(words)), **answer.usage_extra}

    def _counted(self, body: Mapping[str, Any], completion: int) -> dict[str, int]:
        asked = (
            str(body["prompt"]) if "prompt" in body else " ".join(str(m["content"]) for m in body["messages"])
        )
        prompt = len(asked.split())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
