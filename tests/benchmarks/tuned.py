"""A toy engine for tests of `archon tune`: how fast it is follows from its options, exactly, on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from archon import registry
from archon.backends.base import Backend, Capabilities, Completion, Model, Progress, Request, Tokens
from archon.benchmarks.tuning.command import tune
from archon.errors import EndpointDown, RequestRejected
from tests.archon.virtual import VirtualLoop

FILE = """
engine:
  toy:
    slots: {choose: [1, 4, 16]}
    pace: {choose: [1.0, 0.5]}
workload: {requests: 8, prompt_tokens: 40, max_tokens: 10, concurrency: 8}
limits: {latency: 30}
proposer: grid
rounds: {count: 2}
confirm: 2
effort: {trials: 6}
"""


class Toy(Model):
    """So many samples at once, each of them so slow."""

    name: ClassVar[str] = "toy"

    slots: int = 2
    pace: float = 1.0
    """Seconds per token."""
    per_slot: float = 0.0
    """Seconds more per token, for every slot: what a large batch costs each of its samples."""
    dialect: str = "plain"
    """Changes what it says."""
    starts: bool = True
    serves: bool = True
    tires: float = 0.0
    """Slower by so much in every start after its first."""

    def connect(self) -> Backend:
        """Open it."""
        return Engine(self)


class Engine:
    """A toy that runs. The class knows of all."""

    running = 0
    most_running = 0
    asked: ClassVar[list[list[str]]] = []
    """What was asked, start by start."""
    options: ClassVar[list[Toy]] = []
    ends_after: ClassVar[int | None] = None
    """Starts until the process is ended, as by Ctrl-C."""

    def __init__(self, config: Toy) -> None:
        self.config = config
        self._slots = asyncio.Semaphore(config.slots)
        self._open = False
        self._pace = config.pace + config.per_slot * config.slots

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"backend": "toy", "dialect": self.config.dialect}

    @property
    def endpoint(self) -> str:
        return "toy"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(max_n=64)

    async def ready(self) -> None:
        if self._open:
            return
        if Engine.ends_after is not None and len(Engine.asked) >= Engine.ends_after:
            raise KeyboardInterrupt
        self._open = True
        before = sum(_options(one) == _options(self.config) for one in Engine.options)
        self._pace *= 1 + self.config.tires * before
        Engine.running += 1
        Engine.most_running = max(Engine.most_running, Engine.running)
        Engine.asked.append([])
        Engine.options.append(self.config)
        if not self.config.starts:
            raise EndpointDown("it ran out of memory. The end of its log: <b>no space</b>")

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        if not self.config.serves:
            raise RequestRejected("this request is too long")
        text = request.messages[-1].content
        Engine.asked[-1].append(text)
        for place, index in enumerate(indices):
            async with self._slots:
                await asyncio.sleep(self._pace * (request.sampling.max_tokens or 1))
            tokens = Tokens(len(text.split()) + 5 if not place else 0, 0, request.sampling.max_tokens or 1)
            yield Completion(index, "done", tokens=tokens, requests=int(not place))

    async def close(self) -> None:
        if self._open:
            Engine.running -= 1
        self._open = False


def _options(config: Toy) -> dict[str, Any]:
    return {name: value for name, value in config.given().items() if name != "concurrency"}


def forget() -> None:
    """Begin anew."""
    registry.add("backend", "toy", Toy)
    Engine.running = Engine.most_running = 0
    Engine.asked.clear()
    Engine.options.clear()
    Engine.ends_after = None


def virtually(work: Coroutine[Any, Any, Any]) -> Any:
    """As `asyncio.run`, on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class Tuned:
    """A folder in which `archon tune` runs on a virtual clock."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = patch

    def run(self, file: str = FILE, *options: str, name: str = "tuned") -> Result:
        """Run it to its end, whatever that is."""
        (self.folder / "engine.yaml").write_text(file)
        with self._patch.context() as patch:
            patch.setattr(asyncio, "run", virtually)
            arguments = [str(self.folder / "engine.yaml"), "--out", str(self.folder / name), *options]
            return CliRunner().invoke(tune, [*arguments, "--no-pictures"], standalone_mode=False)

    def told(self, file: str = FILE, *options: str, name: str = "tuned", code: int = 0) -> dict[str, Any]:
        """What it writes."""
        found = self.run(file, *options, name=name)
        if found.exception is not None:
            raise found.exception
        assert found.return_value == code, found.output
        told: dict[str, Any] = json.loads((self.folder / name / "tune.json").read_text())
        return told
