"""The backend `vllm`: one or several servers, and each request to the one with the least to do.

A server that dies in the middle of a run takes its requests with it: they fail as dropped connections, which the
caller tries again (archon/calling.py). Before it does, `ready` has another replica take over, or waits until the
server has been started anew; so nothing is asked of a server that is not there, and no sample comes twice.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import reduce
from typing import Any

from archon.backends.base import (
    Capabilities,
    Completion,
    LikelihoodRequest,
    Progress,
    Request,
    Scored,
)
from archon.backends.vllm.client import VLLMClient
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.server import Server
from archon.engine import EngineFigures
from archon.errors import CapabilityError, ConnectionDropped, EndpointDown, FatalError, Overloaded

_DEATHS_UNTIL_DOWN = 3
"""A server that dies so often without having answered in between is not started again."""


class VLLMBackend:
    """Asks vLLM servers, and keeps them running while it is open."""

    def __init__(self, config: VLLM) -> None:
        self.config = config
        self._identity = config.identity
        self._endpoint = config.url or f"vllm {config.model} ({config.mark})"
        self._replicas = [_Replica(config, number) for number in range(config.replicas)]
        self._table = VLLMClient(config.client(config.url or "http://127.0.0.1:0/v1"))
        if config.url is not None:
            self._replicas[0].client = self._table

    @property
    def running(self) -> Sequence[int]:
        """The replicas that can be asked now, by their numbers."""
        return [number for number, replica in enumerate(self._replicas) if replica.running]

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's: its weights and options, wherever it runs."""
        return self._identity

    @property
    def endpoint(self) -> str:
        """A server of ours has no address before it runs: its model, and what tells it from others."""
        return self._endpoint

    @property
    def capabilities(self) -> Capabilities:
        """By what the server says of itself once it has been asked, by the table before."""
        clients = [r.client for r in self._replicas if r.client is not None]
        return (clients[0] if clients else self._table).capabilities

    async def ready(self) -> None:
        """Wait until a replica can be asked; those that do not run are started. Raises FatalError."""
        if self.config.url is not None:
            return
        while True:
            for replica in self._replicas:
                replica.wake()
            if any(r.running for r in self._replicas):
                return
            starting = [
                r.starting for r in self._replicas if r.starting is not None and not r.starting.done()
            ]
            if not starting:
                raise next(r.failed for r in self._replicas if r.failed is not None)
            await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """One request for all of the indices, to one replica; cancelling closes its connection. Raises
        CapabilityError, before anything is started or sent, for what it would ignore."""
        ranks = self.config.options.get("scheduling_policy") == "priority"
        if self.config.url is None and not ranks and request.sampling.extra.get("priority"):
            raise CapabilityError(
                "vLLM ignores `priority` without a word unless it schedules by it. "
                "Give the model `options: {scheduling_policy: priority}`"
            )
        async with self._least(len(indices)) as replica:
            assert replica.client is not None
            async with aclosing(replica.client.complete(request, indices, progress)) as stream:
                async for completion in stream:
                    replica.deaths = 0
                    yield completion

    async def likelihoods(self, request: LikelihoodRequest, progress: Progress) -> list[Scored]:
        """One request, to one replica (likelihoods.py)."""
        async with self._least(len(request.replies)) as replica:
            assert replica.client is not None
            found = await replica.client.likelihoods(request, progress)
            replica.deaths = 0
            return found

    @asynccontextmanager
    async def _least(self, load: int) -> AsyncIterator[_Replica]:
        """The replica with the least to do, while it has so much more to do."""
        await self.ready()
        replica = min((r for r in self._replicas if r.running), key=lambda r: r.outstanding)
        replica.outstanding += load
        try:
            yield replica
        except (ConnectionDropped, Overloaded):
            replica.suspect = True
            raise
        finally:
            replica.outstanding -= load

    async def figures(self) -> EngineFigures | None:
        """The engines' figures since they were first asked, all replicas together; None where none tells."""
        running = [r.client for r in self._replicas if r.running and r.client is not None]
        told = [f for f in await asyncio.gather(*(client.figures() for client in running)) if f is not None]
        return reduce(EngineFigures.__add__, told) if told else None

    async def close(self) -> None:
        """Let go of the servers: those that nobody else holds and that are not kept are gone afterwards."""
        await asyncio.gather(*(r.close() for r in self._replicas))
        await self._table.close()


class _Replica:
    """One server, and what is asked of it."""

    def __init__(self, config: VLLM, number: int) -> None:
        self._config = config
        self._number = number
        self._server: Server | None = None
        self.client: VLLMClient | None = None
        self.starting: asyncio.Task[None] | None = None
        self.failed: FatalError | None = None
        """Why it will not be started again."""
        self.outstanding = 0
        """Samples asked for and not yet there."""
        self.suspect = False
        """Whether a request failed as they do when a server dies."""
        self.deaths = 0

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        if self._config.url is not None:
            return True
        alive = self._server is not None and self._server.running and self.client is not None
        return alive and not self.suspect

    def wake(self) -> None:
        """See to it that it runs, or soon does."""
        if self.running or self.failed is not None:
            return
        if self.starting is None or self.starting.done():
            self.starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        """Start it, or start it anew where it died. Never raises: `failed` says why it did not work."""
        try:
            if self.suspect and self._server is not None and await self._server.lives():
                self.suspect = False
                return
            self.suspect = False
            if self._server is not None:
                self._say(f"{self._config.model}: {self._server.end}; starting it again")
                self.deaths += 1
                if self.deaths >= _DEATHS_UNTIL_DOWN:
                    raise EndpointDown(
                        f"vLLM with {self._config.model!r} died {self.deaths} times in a row without having answered: "
                        f"{self._server.end}",
                        model=self._config.model,
                    )
                await self._server.close()
                self._server = None
            if self.client is not None:
                await self.client.close()
                self.client = None
            orders = await asyncio.to_thread(self._config.orders, self._number)
            self._server = Server(orders, self._config.keep, self._say)
            await self._server.start()
            self.client = VLLMClient(self._config.client(self._server.url))
        except FatalError as error:
            self.failed = error
            if self._config.replicas > 1:  # the others go on, and nobody else would say it
                self._say(str(error))
        except Exception as error:
            self.failed = EndpointDown(f"vLLM cannot be started: {error}", model=self._config.model)

    def _say(self, text: str) -> None:
        number = f" [{self._number + 1}/{self._config.replicas}]" if self._config.replicas > 1 else ""
        print(f"vllm{number}: {text}", file=sys.stderr, flush=True)

    async def close(self) -> None:
        """Let go of it."""
        if self.starting is not None and not self.starting.done():
            self.starting.cancel()
            await asyncio.wait([self.starting])
        if self.client is not None:
            await self.client.close()
        if self._server is not None:
            await self._server.close()
