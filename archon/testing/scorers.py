"""The conformance suite of backends that score replies."""

from __future__ import annotations

import asyncio
import json
import math
from abc import abstractmethod
from collections.abc import Sequence

import pytest

from archon.backends.base import Backend, Progress, Scored, Scorer, ScoreRequest
from archon.problem import Message

Replies = Sequence[tuple[str, ...]]


class ScorerCases:
    """What every backend that scores must do. Subclass it, and say how to open one."""

    question = "2+3*4=?"
    replies: Replies = (("3*4=12\n", "2+12=14\n", "14"), ("2+3=5\n", "5*4=20\n", "20"), ("14",))
    tolerance = 1e-5
    """By how much equal replies may differ in another batch."""

    @abstractmethod
    async def open_backend(self) -> Backend:
        """A backend that scores the replies."""
        raise NotImplementedError

    async def close_backend(self, backend: Backend) -> None:
        """Close what `open_backend` opened."""
        await backend.close()

    def request(self, replies: Replies, *, finished: bool = True) -> ScoreRequest:
        """A request to score these replies to the question."""
        return ScoreRequest((Message(role="user", content=self.question),), tuple(replies), finished)

    async def scored(self, backend: Backend, replies: Replies, *, finished: bool = True) -> list[Scored]:
        """What the backend says of these replies, in requests it can take."""
        assert isinstance(backend, Scorer)
        most = backend.capabilities.max_replies
        found: list[Scored] = []
        for start in range(0, len(replies), most):
            request = self.request(replies[start : start + most], finished=finished)
            found.extend(await backend.score(request, Progress()))
        return found

    async def test_it_says_what_it_scores(self) -> None:
        backend = await self.open_backend()
        try:
            assert isinstance(backend, Scorer)
            assert backend.capabilities.scores is not None
            assert json.dumps(backend.identity, sort_keys=True) and backend.endpoint
        finally:
            await self.close_backend(backend)

    async def test_every_reply_gets_its_scores_in_order(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.scored(backend, self.replies)
            stepwise = backend.capabilities.scores == "steps"
            assert [len(one.steps) for one in found] == [len(r) if stepwise else 1 for r in self.replies]
            scores = [score for one in found for score in one.steps]
            assert all(math.isfinite(score) for score in scores)
            if backend.capabilities.score_scale == "probability":
                assert all(0 <= score <= 1 for score in scores)
            again = await self.scored(backend, self.replies[::-1])
            assert [one.steps for one in again[::-1]] == [self.close(one) for one in found]
        finally:
            await self.close_backend(backend)

    async def test_a_reply_s_scores_do_not_depend_on_its_batch(self) -> None:
        backend = await self.open_backend()
        try:
            together = await self.scored(backend, self.replies)
            alone = [(await self.scored(backend, [reply]))[0] for reply in self.replies]
            assert [one.steps for one in alone] == [self.close(one) for one in together]
        finally:
            await self.close_backend(backend)

    async def test_a_step_s_score_does_not_depend_on_what_follows(self) -> None:
        backend = await self.open_backend()
        try:
            if backend.capabilities.scores != "steps":
                return
            (whole,) = await self.scored(backend, self.replies[:1])
            for length in range(1, len(self.replies[0])):
                beginning = self.replies[0][:length]
                (part,) = await self.scored(backend, [beginning], finished=False)
                assert part.steps == pytest.approx(whole.steps[:length], abs=self.tolerance)
        finally:
            await self.close_backend(backend)

    async def test_tokens_and_requests_are_counted(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.scored(backend, self.replies)
            assert sum(one.requests for one in found) == -(-len(found) // backend.capabilities.max_replies)
            assert all(one.tokens.prompt > 0 for one in found)
            assert all(0 <= one.tokens.cached <= one.tokens.prompt for one in found)
        finally:
            await self.close_backend(backend)

    async def test_concurrent_calls_do_not_mix(self) -> None:
        backend = await self.open_backend()
        try:
            alone = [(await self.scored(backend, [reply]))[0] for reply in self.replies]
            calls = [self.scored(backend, [reply]) for reply in self.replies]
            found = [one for (one,) in await asyncio.gather(*calls)]
            assert [one.steps for one in found] == [self.close(one) for one in alone]
        finally:
            await self.close_backend(backend)

    def close(self, scored: Scored) -> object:
        """Equal to the same scores, computed in another batch."""
        return pytest.approx(scored.steps, abs=self.tolerance)
