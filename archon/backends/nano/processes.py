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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archon
from archon.backends.nano.routing import Reader, blocks, choose
from archon.errors import ConnectionDropped, EndpointDown

_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_LONGEST_LINE = 1 << 26
LOST = {"op": "lost"}
"""What a request hears when its worker has ended."""


@dataclass
class _Request:
    heard: asyncio.Queue[Mapping[str, Any]]
    left: int
    """Samples, or scored replies, that have not come."""


class Worker:
    """One process, or the place for one."""

    def __init__(self, model: Path, sha256: str, capacity: int) -> None:
        self._given = str(model), sha256, str(capacity)
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._requests: dict[int, _Request] = {}
        self.load = 0
        """Samples it was asked for and has not given."""
        self.reader = Reader()

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return None if self._process is None else self._process.pid

    async def ask(
        self, message: Mapping[str, Any], heard: asyncio.Queue[Mapping[str, Any]], load: int
    ) -> None:
        """Give it a message with a new key; what it says of that key is put into `heard`.

        Raises ConnectionDropped where no process can be started, EndpointDown once it is closed.
        """
        self._requests[message["key"]] = _Request(heard, load)
        self.load += load
        async with self._starting:
            if self._closed:
                raise EndpointDown("the nano engine was closed; open a session of its own for this call")
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
        request = self._requests.pop(key, None)
        if request is not None:
            self.load -= request.left

    async def close(self) -> None:
        """End the process, for good. It keeps nothing, so that nothing is waited for."""
        first, self._closed = not self._closed, True
        async with self._starting:
            process, hearing = self._process, self._hearing
        if first and process is not None:
            _kill(process)
        if hearing is not None:
            await hearing

    async def _start(self) -> None:
        home = str(Path(archon.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "archon.backends.nano.worker", *self._given,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": path},
                limit=_LONGEST_LINE,
                start_new_session=True,  # Ctrl-C is for the parent, which ends it
            )  # fmt: skip
        except OSError as error:
            raise ConnectionDropped(
                f"no worker process of the nano engine can be started ({error})"
            ) from error
        self._hearing = asyncio.create_task(self._hear(self._process))

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        """Until it ends, however it ends: then whoever still waits for it is told."""
        assert process.stdout is not None
        last: Mapping[str, Any] = LOST
        try:
            while (line := await process.stdout.readline()).endswith(b"\n"):  # half a line is its last
                message = json.loads(line)
                if message["op"] == "failed":
                    last = message
                elif (request := self._requests.get(message["key"])) is not None:
                    if message["op"] != "cancelled":
                        request.left -= 1
                        self.load -= 1
                    request.heard.put_nowait(message)
        except BaseException as error:  # the loop ends, or what was said is no line of ours
            _kill(process)
            if not isinstance(error, ValueError):
                raise
        finally:
            self._process = None
            for request in self._requests.values():
                request.heard.put_nowait(last)
            self._requests.clear()
            self.load = 0
            self.reader.forget()
        await process.wait()


class Workers:
    """As many workers as there are cores to use."""

    def __init__(self, model: Path, sha256: str, count: int, capacity: int) -> None:
        self._workers = [Worker(model, sha256, capacity) for _ in range(count)]
        self._keys = itertools.count()

    def shares(self, samples: Sequence[int], least: int) -> list[Sequence[int]]:
        """Samples of one request in parts for different workers, none below `least`."""
        parts = max(1, min(len(self._workers), len(samples) // least))
        size = -(-len(samples) // parts)
        return [samples[at : at + size] for at in range(0, len(samples), size)]

    async def ask(
        self, message: Mapping[str, Any], heard: asyncio.Queue[Mapping[str, Any]], load: int
    ) -> tuple[Worker, int]:
        """Give a message to the worker that has read most of its `tokens`, or to one with less to do; returns it and
        the message's key."""
        text = blocks(message["tokens"])
        loads, readers = zip(*((worker.load, worker.reader) for worker in self._workers), strict=True)
        worker, key = self._workers[choose(loads, readers, text)], next(self._keys)
        worker.reader.note(text)
        try:
            await worker.ask({**message, "key": key}, heard, load)
        except BaseException:
            worker.forget(key)
            raise
        return worker, key

    async def close(self) -> None:
        """End every process."""
        await asyncio.gather(*(worker.close() for worker in self._workers))


def _kill(process: asyncio.subprocess.Process) -> None:
    """Not for one that has ended: asyncio would hear of its end from nobody."""
    with suppress(ProcessLookupError):
        process.kill()
