"""The conformance suite of backends."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from contextlib import aclosing

import pytest

from archon.backends.base import Backend, Completion, Progress, Request, Sampling
from archon.errors import BackendError
from archon.problem import Message


class BackendCases:
    """What every backend must do. Subclass it, and say how to open one that answers `self.request`."""

    request_text = "What is 6 times 7?"

    @abstractmethod
    async def open_backend(self) -> Backend:
        """A backend that answers at least four samples of `self.request()`."""
        raise NotImplementedError

    async def close_backend(self, backend: Backend) -> None:
        """Close what `open_backend` opened."""
        await backend.close()

    def request(self) -> Request:
        """A request it answers."""
        return Request((Message(role="user", content=self.request_text),), problem="conformance")

    async def collect(self, backend: Backend, request: Request, indices: list[int]) -> list[Completion]:
        """Every completion of the indices, in requests the backend can take."""
        found: list[Completion] = []
        most = backend.capabilities.max_n
        for start in range(0, len(indices), most):
            async with aclosing(
                backend.complete(request, indices[start : start + most], Progress())
            ) as stream:
                found.extend([c async for c in stream])
        return found

    async def test_it_yields_one_completion_per_index(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.collect(backend, self.request(), [0, 1, 2, 3])
            assert sorted(c.index for c in found) == [0, 1, 2, 3]
            assert all(isinstance(c.text, str) for c in found)
        finally:
            await self.close_backend(backend)

    async def test_indices_need_not_start_at_zero(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.collect(backend, self.request(), [3, 1])
            assert sorted(c.index for c in found) == [1, 3]
        finally:
            await self.close_backend(backend)

    async def test_tokens_and_requests_are_counted(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.collect(backend, self.request(), [0, 1])
            assert sum(c.requests for c in found) >= 1
            assert all(c.tokens.prompt >= 0 and c.tokens.completion >= 0 for c in found)
            assert all(c.tokens.cached <= c.tokens.prompt for c in found)
            assert all(c.tokens.reasoning <= c.tokens.completion for c in found)
        finally:
            await self.close_backend(backend)

    async def test_its_identity_is_json_and_stable(self) -> None:
        backend = await self.open_backend()
        try:
            first = json.dumps(backend.identity, sort_keys=True)
            assert first == json.dumps(backend.identity, sort_keys=True)
            assert backend.endpoint
        finally:
            await self.close_backend(backend)

    async def test_concurrent_calls_do_not_mix(self) -> None:
        backend = await self.open_backend()
        try:
            calls = [self.collect(backend, self.request(), [i]) for i in range(4)]
            found = await asyncio.gather(*calls)
            assert [[c.index for c in one] for one in found] == [[0], [1], [2], [3]]
        finally:
            await self.close_backend(backend)

    async def test_closing_a_stream_early_is_harmless(self) -> None:
        backend = await self.open_backend()
        try:
            stream = backend.complete(self.request(), [0], Progress())
            await stream.aclose()
            assert len(await self.collect(backend, self.request(), [0])) == 1
        finally:
            await self.close_backend(backend)

    async def test_sampling_parameters_are_part_of_the_key(self) -> None:
        backend = await self.open_backend()
        try:
            plain = self.request()
            warm = Request(plain.messages, sampling=Sampling(temperature=0.7))
            longer = Request(plain.messages, sampling=Sampling(max_tokens=7))
            keys = {r.key(backend.identity) for r in (plain, warm, longer)}
            assert len(keys) == 3
        finally:
            await self.close_backend(backend)

    async def test_a_request_it_cannot_answer_is_an_error_never_text(self) -> None:
        request = self.unanswerable()
        if request is None:  # it answers everything
            return
        backend = await self.open_backend()
        try:
            with pytest.raises(BackendError):
                await self.collect(backend, request, [0])
        finally:
            await self.close_backend(backend)

    def unanswerable(self) -> Request | None:
        """A request that must fail, if there is one."""
        return None
