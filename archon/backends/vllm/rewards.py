"""Reward models on vLLM servers of ours: started when they are first asked, and ended with the run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archon.backends.base import Capabilities, Completion, Progress, Request, Scored, ScoreRequest
from archon.backends.reward_client import VLLMRewards
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.replicas import VLLMBackend
from archon.errors import CapabilityError, ConnectionDropped, Overloaded

if TYPE_CHECKING:
    from archon.backends.rewards import RewardServer


class StartedRewards(VLLMBackend):
    """Keeps servers running as `vllm` does, and asks them for scores."""

    def __init__(self, config: RewardServer, started: VLLM) -> None:
        super().__init__(started)
        self._rewards = config
        self._table_of_scores = VLLMRewards(config, "http://127.0.0.1:0/v1", started.served)
        self._clients: dict[str, VLLMRewards] = {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """The weights and options, and how it is asked."""
        return {**super().identity, "reads": self._table_of_scores.identity["reads"]}

    @property
    def capabilities(self) -> Capabilities:
        """By the description."""
        return self._table_of_scores.capabilities

    def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """Not what it is for. Raises CapabilityError."""
        raise CapabilityError(f"{self.config.model!r} is a reward model: it scores replies and writes none")

    async def score(self, request: ScoreRequest, progress: Progress) -> list[Scored]:
        """One request, to the replica with the least to do."""
        await self.ready()
        replica = min((r for r in self._replicas if r.running), key=lambda r: r.outstanding)
        assert replica.client is not None
        address = replica.client.endpoint
        client = self._clients.get(address)
        if client is None:
            client = self._clients[address] = VLLMRewards(self._rewards, address, self.config.served)
        replica.outstanding += len(request.replies)
        try:
            found = await client.score(request, progress)
        except (ConnectionDropped, Overloaded):
            replica.suspect = True
            raise
        finally:
            replica.outstanding -= len(request.replies)
        replica.deaths = 0
        return found

    async def close(self) -> None:
        """Let go of the servers, and of what asked them."""
        for client in (*self._clients.values(), self._table_of_scores):
            await client.close()
        await super().close()
