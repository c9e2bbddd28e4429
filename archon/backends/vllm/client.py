"""A client of one vLLM server: an OpenAI-compatible one that knows its server and reads its engine's figures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from archon.backends.base import Capabilities, Completion, Progress, Request
from archon.backends.openai import OpenAI, OpenAIBackend
from archon.backends.vllm import metrics
from archon.backends.vllm.capabilities import Known, fields, known, needs_fields
from archon.engine import EngineFigures


class VLLMClient(OpenAIBackend):
    """Asks one server. The first request meets it: its version, its context, its figures so far."""

    def __init__(self, config: OpenAI) -> None:
        super().__init__(config)
        self._meeting = asyncio.Lock()
        self._known: Known | None = None
        self._fields: frozenset[str] | None = None
        self._before = EngineFigures()

    @property
    def capabilities(self) -> Capabilities:
        """By the table and the overrides, and by the server once it has been met."""
        table = super().capabilities
        return table if self._known is None else self._known.capabilities(table)

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """As any server; raises CapabilityError, before anything is sent, for what this one would ignore."""
        server = await self._meet()
        api = self._config.api
        if needs_fields(request, api):
            server.check(request, await self._published(), api)
        async with aclosing(super().complete(request, indices, progress)) as stream:
            async for completion in stream:
                yield completion

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

    async def _published(self) -> frozenset[str]:
        async with self._meeting:
            if self._fields is None:
                published = await self.fetch("/openapi.json")
                if published is None:
                    return frozenset()
                self._fields = fields(published, self._config.api)
            return self._fields

    async def _figures(self) -> EngineFigures | None:
        page = await self.fetch("/metrics")
        return None if page is None else metrics.read(page.decode("utf-8", "replace"))
