"""What a real engine says of itself, once it says so: replies come before its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from archon.backends.vllm.replicas import VLLMBackend
from archon.engine import EngineFigures


async def until(
    backend: VLLMBackend, holds: Callable[[EngineFigures], bool], unless: asyncio.Future[Any] | None = None
) -> EngineFigures:
    """The engine's figures once this holds of them, or this is done; `TimeoutError` where neither comes."""
    async with asyncio.timeout(300):
        while True:
            figures = await backend.figures() if backend.running else None
            if figures is not None and (holds(figures) or (unless is not None and unless.done())):
                return figures
            await asyncio.sleep(0.02)


async def idle(backend: VLLMBackend) -> EngineFigures:
    """The engine's figures once nothing runs."""
    return await until(backend, lambda figures: figures.running == 0)
