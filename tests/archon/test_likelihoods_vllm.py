"""How likely given text is on a real vLLM: what it said of its samples, and what the numpy engine says."""

from __future__ import annotations

import random

import pytest

from archon.backends.base import Backend, LikelihoodRequest, Progress, Reader
from archon.backends.nano.backend import Nano
from archon.backends.vllm.config import VLLM
from archon.problem import Message
from archon.testing import LikelihoodCases

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


class TestVLLM(LikelihoodCases):
    @pytest.fixture(autouse=True)
    def model(self, vllm: VLLM) -> None:
        self.vllm = vllm

    async def open_backend(self) -> Backend:
        backend: Backend = self.vllm.connect()
        return backend

    async def test_fifty_replies_are_as_likely_as_the_numpy_engine_says(self) -> None:
        draw = random.Random(1)

        def text(most: int) -> str:
            return "".join(draw.choices("0123456789+-*=\n ", k=draw.randint(0, most)))

        chat = (Message(role="system", content="count"), Message(role="user", content=self.question))
        replies = tuple((text(20), text(5), text(20), text(3)) for _ in range(50))
        local = Nano(weights=self.vllm.model, workers=1).connect()
        served = await self.open_backend()
        assert isinstance(served, Reader)
        try:
            for finished in (False, True):
                wanted = await local.likelihoods(LikelihoodRequest(chat, replies, finished), Progress())
                progress = Progress()
                found = await served.likelihoods(LikelihoodRequest(chat, replies, finished), progress)
                assert progress.sent
                assert [one.counts for one in found] == [one.counts for one in wanted]
                for one, other in zip(found, wanted, strict=True):
                    assert one.steps == pytest.approx(other.steps, abs=2e-3)
                    assert one.tokens.prompt == other.tokens.prompt + finished and one.tokens.completion == 1
        finally:
            await local.close()
            await self.close_backend(served)
