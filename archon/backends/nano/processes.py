"""The workers of a backend, as seen from its event loop: started when needed, told what to do, heard, ended.

One process with one BLAS thread per core: decoding a tiny model is many small products, which a BLAS hardly spreads
over threads. A worker that ends early takes its requests with it: they fail as a dropped connection
does, and the next request starts another.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import archon

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_LONGEST_LINE = 1 << 26
_PATIENCE = 5.0
LOST = {"op": "lost"}
"""What a request hears when its worker has ended."""


class Worker:
    """One process, or the place for one."""

    def __init__(self, folder: Path, capacity: int) -> None:
        self._folder = folder
        self._capacity = capacity
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._requests: dict[int, tuple[asyncio.Queue[Mapping[str, Any]], int]] = {}

    @property
    def load(self) -> int:
        """Samples it was asked for and has not given."""
        return sum(samples for _, samples in self._requests.values())

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return None if self._process is None else self._process.pid

    async def ask(
        self, message: Mapping[str, Any], heard: asyncio.Queue[Mapping[str, Any]], load: int
    ) -> None:
        """Give it a message with a new key; what it says of that key is put into `heard`."""
        self._requests[message["key"]] = (heard, load)
        async with self._starting:
            if self._process is None:
                await self._start()
        self._say(message)

    def cancel(self, key: int) -> bool:
        """Ask to let a request go; whether an answer is to come."""
        if key not in self._requests or self._process is None:
            return False
        self._say({"op": "cancel", "key": key})
        return True

    def forget(self, key: int) -> None:
        """No more is wanted of this key."""
        self._requests.pop(key, None)

    async def close(self) -> None:
        """End the process."""
        process, hearing = self._process, self._hearing
        if process is None or hearing is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await hearing

    async def _start(self) -> None:
        home = str(Path(archon.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "archon.backends.nano.worker", str(self._folder), str(self._capacity),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path},
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the parent, which ends it
        )  # fmt: skip
        self._hearing = asyncio.create_task(self._hear(self._process))

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        last: Mapping[str, Any] = LOST
        while line := await process.stdout.readline():
            message = json.loads(line)
            if message["op"] == "failed":
                last = message
            elif message["key"] in self._requests:
                self._requests[message["key"]][0].put_nowait(message)
        await process.wait()
        self._process = None
        for heard, _ in self._requests.values():
            heard.put_nowait(last)
        self._requests.clear()


class Workers:
    """As many workers as there are cores to use."""

    def __init__(self, folder: Path, count: int, capacity: int) -> None:
        self._workers = [Worker(folder, capacity) for _ in range(count)]
        self._keys = itertools.count()

    def shares(self, samples: Sequence[int], least: int) -> list[Sequence[int]]:
        """Samples of one request in parts for different workers, none below `least`."""
        parts = max(1, min(len(self._workers), len(samples) // least))
        size = -(-len(samples) // parts)
        return [samples[at : at + size] for at in range(0, len(samples), size)]

    async def ask(
        self, message: Mapping[str, Any], heard: asyncio.Queue[Mapping[str, Any]], load: int
    ) -> tuple[Worker, int]:
        """Give a message to the worker with the least to do; returns the worker and the message's key."""
        worker, key = min(self._workers, key=lambda worker: worker.load), next(self._keys)
        try:
            await worker.ask({**message, "key": key}, heard, load)
        except BaseException:
            worker.forget(key)
            raise
        return worker, key

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(*(worker.close() for worker in self._workers))
