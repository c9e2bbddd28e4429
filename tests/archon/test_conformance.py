"""The shipped suites, run on everything that ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from archon.backends.base import Backend, Request
from archon.backends.openai import OpenAI
from archon.backends.replay import Replay
from archon.backends.scripted import Scripted
from archon.problem import Message
from archon.stage import Stage
from archon.store import MemoryStore, SQLiteStore, Store
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.testing import BackendCases, StageCases, StoreCases, StubServer
from archon.verifiers.unit_tests import UnitTests


class TestSQLiteStore(StoreCases):
    async def open_store(self, path: Path) -> Store:
        return SQLiteStore(path)


class TestMemoryStore(StoreCases):
    persistent = False

    async def open_store(self, path: Path) -> Store:
        return MemoryStore()


class TestStoreInMemory(StoreCases):
    persistent = False

    async def open_store(self, path: Path) -> Store:
        return SQLiteStore()


class TestScripted(BackendCases):
    async def open_backend(self) -> Backend:
        return Scripted(reply=lambda call: f"answer {call.index}", max_n=3).connect()


class TestScriptedTable(BackendCases):
    async def open_backend(self) -> Backend:
        return Scripted(replies={"conformance": ("a", "b", "c", "d")}).connect()

    def unanswerable(self) -> Request:
        return Request((Message(role="user", content="?"),), problem="another problem")


class TestReplay(BackendCases):
    @pytest.fixture(autouse=True)
    def recording(self, tmp_path: Path) -> None:
        self.file = tmp_path / "recorded.jsonl"
        self.file.write_text('{"id": "conformance", "samples": ["a", {"text": "b"}, "c", "d"]}\n')

    async def open_backend(self) -> Backend:
        return Replay(path=self.file).connect()

    def unanswerable(self) -> Request:
        return Request((Message(role="user", content="?"),), problem="another problem")


class TestOpenAI(BackendCases):
    def model(self, url: str) -> OpenAI:
        return OpenAI(model="m", base_url=url, server="vllm")

    async def open_backend(self) -> Backend:
        self.server = await StubServer(lambda asked: f"answer {asked.number}").__aenter__()
        return self.model(self.server.url).connect()

    async def close_backend(self, backend: Backend) -> None:
        await backend.close()
        await self.server.__aexit__()


class TestOpenAICompletions(TestOpenAI):
    def model(self, url: str) -> OpenAI:
        return OpenAI(model="m", base_url=url, server="vllm", api="completions")


class TestOpenAIStreaming(TestOpenAI):
    def model(self, url: str) -> OpenAI:
        return OpenAI(model="m", base_url=url, server="vllm", stream=True)


class TestOpenAIOverHttpx(TestOpenAI):
    def model(self, url: str) -> OpenAI:
        return OpenAI(model="m", base_url=url, transport="httpx")


class TestSample(StageCases):
    def make_stage(self) -> Stage:
        return Sample(n=1, temperature=0.5, stop=("END",))


class TestVerify(StageCases):
    def make_stage(self) -> Stage:
        return Verify(verifier=UnitTests(stop_at_first_failure=True), ahead=3)


class TestFirstPassing(StageCases):
    def make_stage(self) -> Stage:
        return FirstPassing()


class TestBestOf(StageCases):
    def make_stage(self) -> Stage:
        return BestOf(by="every_third")


class TestTopK(StageCases):
    def make_stage(self) -> Stage:
        return TopK(k=3, by="every_third")


class TestMajorityVote(StageCases):
    def make_stage(self) -> Stage:
        return MajorityVote()


class TestWeightedVote(StageCases):
    def make_stage(self) -> Stage:
        return WeightedVote(by="every_third")
