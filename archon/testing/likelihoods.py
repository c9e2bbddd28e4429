"""The conformance suite of backends that tell the log-probability of given text."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from archon.backends.base import (
    Backend,
    Completion,
    LikelihoodRequest,
    Progress,
    Reader,
    Request,
    Sampling,
    Scored,
)
from archon.problem import Message

Replies = Sequence[tuple[str, ...]]


class LikelihoodCases:
    """What every backend that tells likelihoods must do. Subclass it, and say how to open one."""

    question = "2+3*4=?"
    beginnings = ("3*4=12\n", "5*4=20\n")
    """Two beginnings of a reply, after which what follows is not equally likely."""
    following = "2+12=14\n"
    """What may follow. Each token of it and of the beginnings ends where it does, or before."""
    samples = 4
    """Samples whose own log-probabilities are compared."""
    tolerance = 1e-4
    """By how much the same log-probability may differ in another batch."""

    @abstractmethod
    async def open_backend(self) -> Backend:
        """A backend that completes the question, with log-probabilities, and tells likelihoods."""
        raise NotImplementedError

    async def close_backend(self, backend: Backend) -> None:
        """Close what `open_backend` opened."""
        await backend.close()

    def request(self, replies: Replies, *, finished: bool = False) -> LikelihoodRequest:
        """A request to read these replies to the question."""
        return LikelihoodRequest((Message(role="user", content=self.question),), tuple(replies), finished)

    async def told(self, backend: Backend, replies: Replies, *, finished: bool = False) -> list[Scored]:
        """What the backend says of these replies, in requests it can take."""
        assert isinstance(backend, Reader)
        most = backend.capabilities.max_replies
        found: list[Scored] = []
        for start in range(0, len(replies), most):
            request = self.request(replies[start : start + most], finished=finished)
            found.extend(await backend.likelihoods(request, Progress()))
        return found

    async def sampled(self, backend: Backend, prefix: str = "", **sampling: object) -> list[Completion]:
        """Samples at temperature 1, with the log-probabilities of their tokens."""
        chosen = Sampling(temperature=1.0, logprobs=0, seed=7, **sampling)
        request = Request(
            self.request([("",)]).messages, prefix=prefix, sampling=chosen, problem="likelihood"
        )
        found: list[Completion] = []
        for index in range(self.samples):
            async with aclosing(backend.complete(request, [index], Progress())) as stream:
                found.extend([completion async for completion in stream])
        return found

    async def test_it_says_that_it_can(self) -> None:
        backend = await self.open_backend()
        try:
            assert isinstance(backend, Reader) and backend.capabilities.likelihoods
        finally:
            await self.close_backend(backend)

    async def test_a_sample_is_as_likely_as_it_was_said_to_be(self) -> None:
        """Its end, which is no text, counts where it ended."""
        backend = await self.open_backend()
        try:
            for prefix in ("", self.beginnings[0]):
                compared = 0
                for sample in await self.sampled(backend, prefix):
                    assert sample.logprobs is not None and sample.finish in ("stop", "length")
                    finished = sample.finish == "stop"
                    (one,) = await self.told(backend, [(prefix, sample.text)], finished=finished)
                    if one.counts[1] != len(
                        sample.logprobs
                    ):  # it wrote marks, which are no text, or other tokens
                        continue
                    hoped = math.fsum(token.logprob for token in sample.logprobs)
                    assert one.steps[1] == pytest.approx(hoped, abs=self.tolerance)
                    compared += 1
                assert compared
        finally:
            await self.close_backend(backend)

    async def test_a_cut_into_steps_changes_no_sum(self) -> None:
        backend = await self.open_backend()
        try:
            first = self.beginnings[0]
            whole, cut = await self.told(backend, [(first + self.following,), (first, "", self.following)])
            assert math.fsum(cut.steps) == pytest.approx(whole.steps[0], abs=self.tolerance)
            assert sum(cut.counts) == whole.counts[0] and whole.steps[0] < 0
            assert cut.steps[1] == cut.counts[1] == 0, "an empty text is certain"
        finally:
            await self.close_backend(backend)

    async def test_the_beginning_matters_and_what_follows_does_not(self) -> None:
        backend = await self.open_backend()
        try:
            one, other = await self.told(backend, [(begin, self.following) for begin in self.beginnings])
            assert abs(one.steps[1] - other.steps[1]) > 10 * self.tolerance
            (alone,) = await self.told(backend, [(self.beginnings[0],)])
            assert alone.steps[0] == pytest.approx(one.steps[0], abs=self.tolerance)
        finally:
            await self.close_backend(backend)

    async def test_the_end_of_a_reply_has_a_probability(self) -> None:
        backend = await self.open_backend()
        try:
            reply = (self.beginnings[0], self.following)
            (going_on,), (ended,) = [await self.told(backend, [reply], finished=end) for end in (False, True)]
            assert ended.steps[0] == pytest.approx(going_on.steps[0], abs=self.tolerance)
            assert ended.steps[1] < going_on.steps[1]
            assert ended.counts == (going_on.counts[0], going_on.counts[1] + 1)
        finally:
            await self.close_backend(backend)

    async def test_tokens_and_requests_are_counted(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.told(backend, [(begin, self.following) for begin in self.beginnings])
            assert sum(one.requests for one in found) == -(-len(found) // backend.capabilities.max_replies)
            for one in found:
                assert one.tokens.prompt >= sum(one.counts) > 0
                assert 0 <= one.tokens.cached <= one.tokens.prompt and one.tokens.completion <= 1
        finally:
            await self.close_backend(backend)

    async def test_concurrent_calls_do_not_mix(self) -> None:
        backend = await self.open_backend()
        try:
            replies = [(begin, self.following) for begin in self.beginnings] * 2
            together = await asyncio.gather(*(self.told(backend, [reply]) for reply in replies))
            for reply, (one,) in zip(replies, together, strict=True):
                (alone,) = await self.told(backend, [reply])
                assert one.steps == pytest.approx(alone.steps, abs=self.tolerance)
        finally:
            await self.close_backend(backend)
