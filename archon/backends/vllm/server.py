"""One vLLM server as its users hold it: started where it does not run yet, and let go of in the end.

What a server is told to be (model, options, environment, Python) has a key, and everything of one key finds the
same keeper (keeper.py), in this process and in others. Its log stays in a file that errors name.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from archon.backends.vllm import errors, keeper
from archon.errors import EndpointDown, UserError
from archon.progress import clock

_LOG = re.compile(r"[0-9a-f]{16}-\d{8}-\d{6}-\d{6}\.log")
_LOGS_KEPT = 20
_LONGEST_SOCKET = 100
_PATIENCE = 60.0
_SAY_EVERY = 15.0
_TRIES = 5
_PHASES = (
    (r"Loading weights|Starting to load model|Loading safetensors", "loading weights"),
    (r"Compiling a graph|Dynamo bytecode|torch\.compile takes", "compiling"),
    (r"[Cc]apturing CUDA|Graph capturing", "capturing graphs"),
    (r"KV cache size", "allocating the cache"),
    (r"init engine", "nearly ready"),
)


@dataclass(frozen=True)
class Orders:
    """What a server is to be."""

    model: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    without: tuple[str, ...] = ()
    """Variables of ours that it must not see."""
    port: int = 0
    """A free one where 0."""
    start_timeout: float = 1800.0
    contents: str = ""
    """A digest of the model's folder and of other files: another model in the same place is another server."""
    key_from: str = "VLLM_API_KEY"
    """The variable that holds the key which the server asks for, if it does."""
    replica: int = 0

    @cached_property
    def key(self) -> str:
        """Equal for what one server can serve."""
        server = (self.command, self.environment, self.without, self.key_from, self.port)
        parts = (*server, self.contents, self.replica)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class Server:
    """A hold on the server of these orders. `say` gets what happens, for people."""

    def __init__(self, orders: Orders, keep: float, say: Callable[[str], None]) -> None:
        self.orders = orders
        self._keep = keep
        self._say = say
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._told: Mapping[str, Any] = {}
        self._news = asyncio.Event()
        self._heard = 0
        self._gone = False
        self._log = ""
        """Of the keeper that was started last: where it had nothing to tell, this does."""

    @property
    def running(self) -> bool:
        """Whether it can be asked, as far as its keeper knows."""
        return self._told.get("state") == "ready" and not self._gone

    @property
    def url(self) -> str:
        """Its address, once it runs."""
        return f"http://127.0.0.1:{self._told['port']}/v1"

    @property
    def end(self) -> str:
        """How it came to its end."""
        return errors.death(self._told)

    async def start(self) -> None:
        """Wait until it runs. Raises FatalError where it does not come to that."""
        started, said = time.monotonic(), 0.0
        alone = await self._hold()
        name, log, tries = self.orders.model, "", 0
        while not self.running:
            if self._gone and self._told.get("state") != "failed" and tries < _TRIES:
                alone, tries = await self._hold(), tries + 1  # it was about to end when we came
                continue
            if self._gone or self._told.get("state") == "failed":
                told = self._told
                await self.close()
                raise errors.failure(name, told if "log" in told else {**told, "log": self._log})
            elapsed = time.monotonic() - started
            if not log and "log" in self._told:
                log = str(self._told["log"])
                self._say(f"{'starting' if alone else 'waiting for'} {name} (log: {log})")
            elif log and elapsed - said >= _SAY_EVERY:
                said = elapsed
                self._say(f"{name}: {phase(log)}, {clock(elapsed)}")
            await self._wait(1.0)
        if log:
            self._say(f"{name} is ready, {clock(time.monotonic() - started)}")

    async def lives(self) -> bool:
        """Whether it still answers, by its keeper's look at it now; waits for the end of one that is ending."""
        if self._gone or self._writer is None:
            return False
        before = self._heard
        with contextlib.suppress(OSError):
            self._writer.write(b"?\n")
            while self._heard == before and not self._gone:
                await self._wait(5.0)
        return self.running

    async def close(self) -> None:
        """Let go, and wait until nothing is left of it where nobody else holds it and it is not kept."""
        writer, listening = self._writer, self._listening
        self._writer = self._listening = None
        if writer is None or listening is None:
            return
        with contextlib.suppress(OSError):
            writer.write_eof()
        try:
            await asyncio.wait_for(asyncio.shield(listening), _PATIENCE)
        except TimeoutError:
            self._say(f"{self.orders.model}: its keeper does not end; its log: {self._told.get('log')}")
        finally:
            listening.cancel()
            writer.close()

    async def _hold(self) -> bool:
        """Come to hold the server, in whatever state it is; whether it is us who started it."""
        await self._let_go()
        self._told, self._gone = {}, False
        folder = place()
        socket = folder / f"{self.orders.key}.sock"
        until = time.monotonic() + _PATIENCE
        alone = False
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(str(socket))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                alone |= await self._launch(folder, socket)
                if time.monotonic() > until:
                    raise EndpointDown(
                        f"the keeper of {self.orders.model!r} does not answer: {socket}"
                    ) from None
                await asyncio.sleep(0.05)
        self._writer.write(json.dumps({"keep": self._keep}).encode() + b"\n")
        self._listening = asyncio.create_task(self._listen(reader))
        return alone

    async def _let_go(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hear what the keeper says, to the end."""
        try:
            while line := await reader.readline():
                self._told = json.loads(line)
                self._heard += 1
                self._news.set()
        except (OSError, ValueError):
            pass
        if self._told.get("state") in ("starting", "ready") and self._writer is not None:
            log = str(self._told.get("log", ""))
            self._told = {"state": "ended", "why": "gone", "log": log}
            if log:  # the keeper was killed, and left its server to us
                await asyncio.to_thread(keeper.kill_writers, log)
        self._gone = True
        self._news.set()

    async def _wait(self, seconds: float) -> None:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    async def _launch(self, folder: Path, socket: Path) -> bool:
        """Start a keeper; False where another is at it."""
        logs = folder / f"{self.orders.key}-"
        orders = {
            "command": self.orders.command,
            "environment": dict(self.orders.environment),
            "without": self.orders.without,
            "key_from": self.orders.key_from,
            "port": self.orders.port,
            "start_timeout": self.orders.start_timeout,
            "lock": str(folder / f"{self.orders.key}.lock"),
            "socket": str(socket),
            "logs": str(logs),
            "log": f"{logs}{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}.log",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", keeper.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        _, said = await process.communicate(json.dumps(orders).encode())
        if process.returncode not in (0, keeper.TAKEN):
            raise EndpointDown(
                f"the keeper of {self.orders.model!r} could not start: {said.decode('utf-8', 'replace')[-500:]}"
            )
        if process.returncode == 0:
            self._log = str(orders["log"])
        return process.returncode == 0


def place() -> Path:
    """Where keepers have their sockets, locks and logs: a folder of this user's alone. Raises UserError."""
    given = os.environ.get("ARCHON_VLLM_STATE")
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"archon-vllm-{os.getuid()}"
    if not given and folder.is_symlink():  # where anybody could have put it
        raise UserError(f"{str(folder)!r} is a link. Remove it, or name a folder: ARCHON_VLLM_STATE")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()  # as /proc tells whose output goes to a log in it
    state = folder.stat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise UserError(
            f"the folder {str(folder)!r} can be written by others. Remove it, or name another: ARCHON_VLLM_STATE"
        )
    if len(str(folder)) > _LONGEST_SOCKET - 24:
        raise UserError(
            f"the path {str(folder)!r} is too long for a socket. Name a shorter ARCHON_VLLM_STATE"
        )
    logs = sorted(
        (path for path in folder.iterdir() if _LOG.fullmatch(path.name)),
        key=lambda path: path.stat().st_mtime,
    )
    for old in logs[:-_LOGS_KEPT]:
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:  # else its server may still write
                old.unlink()
    return folder


def phase(log: str) -> str:
    """What a server is doing, by the last line of its log that tells."""
    for line in reversed(errors.tail(log)):
        for pattern, doing in _PHASES:
            if re.search(pattern, line):
                return doing
    return "starting"
