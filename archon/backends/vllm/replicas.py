"""The backend `vllm`: one or several servers, and each request to the one with the least to do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from archon.backends.base import Capabilities, Completion, Progress, Request
from archon.backends.openai import OpenAIBackend
from archon.backends.vllm.config import VLLM


class VLLMBackend:
    """Asks a vLLM server."""

    def __init__(self, config: VLLM) -> None:
        self.config = config
        assert config.url is not None
        self._client = OpenAIBackend(config.client(config.url))

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's."""
        return self.config.identity

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return self._client.endpoint

    @property
    def capabilities(self) -> Capabilities:
        """By the table of servers and the overrides."""
        return self._client.capabilities

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """One request for all of the indices; cancelling closes its connection."""
        async with aclosing(self._client.complete(request, indices, progress)) as stream:
            async for completion in stream:
                yield completion

    async def close(self) -> None:
        """Let go of the server."""
        await self._client.close()
