"""A client of one vLLM server: an OpenAI-compatible one that knows its server and reads its engine's figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from archon.backends.base import (
    Capabilities,
    Completion,
    LikelihoodRequest,
    Progress,
    Request,
    Scored,
)
from archon.backends.openai import OpenAI, OpenAIBackend
from archon.backends.vllm import metrics
from archon.backends.vllm.capabilities import Known, fields, known, needs_fields
from archon.backends.vllm.likelihoods import Tokenizer, told
from archon.engine import EngineFigures
from archon.errors import BadReply

_READ_AT_ONCE = 16
"""Given texts per request."""
_UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError
)  # fmt: skip
_JSON: Any = {"headers": {"Content-Type": "application/json"}}


class VLLMClient(OpenAIBackend):
    """Asks one server. The first request meets it: its version, its context, its figures so far."""

    def __init__(self, config: OpenAI) -> None:
        super().__init__(config)
        self._meeting = asyncio.Lock()
        self._known: Known | None = None
        self._fields: dict[str, frozenset[str]] = {}
        self._before = EngineFigures()
        self._tokenizer = Tokenizer(self._post, config.model)

    @property
    def capabilities(self) -> Capabilities:
        """By the table and the overrides, and by the server once it has been met."""
        reads = self._config.api == "chat"  # of raw text nobody says which token ends it
        table = super().capabilities.model_copy(
            update={"likelihoods": reads, "max_replies": _READ_AT_ONCE if reads else 1}
        )
        return table if self._known is None else self._known.capabilities(table)

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """As any server; raises CapabilityError, before anything is sent, for what this one would ignore."""
        server = await self._meet()
        api = self._config.api
        if needs_fields(request, api):
            server.check(request, await self._published(api), api)
        async with aclosing(super().complete(request, indices, progress)) as stream:
            async for completion in stream:
                yield completion

    async def likelihoods(self, request: LikelihoodRequest, progress: Progress) -> list[Scored]:
        """One request, besides those that only make tokens; raises CapabilityError, before it is sent, where this
        server would ignore what it is asked for."""
        server = await self._meet()
        server.check_reading(request.prompt is None, await self._published("completions"))

        def sending() -> None:
            progress.sent = True

        with self._errors(progress):
            try:
                readings = await self._tokenizer.read(request)
                return await told(self._post, self._config.model, readings, sending)
            except _UNREADABLE as error:
                raise BadReply(
                    f"{self.endpoint} answered what are no log-probabilities of a prompt "
                    f"({type(error).__name__}: {str(error)[:200]})"
                ) from None

    async def figures(self) -> EngineFigures | None:
        """The engine's figures since it was met, other clients' requests included; None where it was asked
        nothing, or tells nothing."""
        now = None if self._known is None else await self._figures()
        if now is None:
            return None
        began_anew = now.first_tokens < self._before.first_tokens
        return now if began_anew else now - self._before

    async def _meet(self) -> Known:
        async with self._meeting:
            if self._known is not None:
                return self._known
            version = await self.fetch("/version")
            server = known(version, await self.fetch("/v1/models"), self._config.model)
            if version is not None:  # else it cannot be reached now: the next request tries again
                self._before = await self._figures() or EngineFigures()
                self._known = server
            return server

    async def _published(self, api: str) -> frozenset[str]:
        async with self._meeting:
            if api not in self._fields:
                published = await self.fetch("/openapi.json")
                if published is None:
                    return frozenset()
                self._fields[api] = fields(published, api)
            return self._fields[api]

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        import httpx2

        root = self._config.address.removesuffix("/v1")
        content = json.dumps(body).encode()
        response = await self._client.post(
            root + path, cast_to=httpx2.Response, content=content, options=_JSON
        )
        return json.loads(response.content)

    async def _figures(self) -> EngineFigures | None:
        page = await self.fetch("/metrics")
        return None if page is None else metrics.read(page.decode("utf-8", "replace"))
