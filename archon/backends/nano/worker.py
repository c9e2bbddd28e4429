"""A worker: one engine in a process of its own, which takes and gives lines of JSON.

    python -P -m archon.backends.nano.worker FOLDER FINGERPRINT SAMPLES_AT_ONCE

It ends when its standard input does: with its parent, however that ends. Between two steps it takes what has come, so a
cancelled sample gets no further token.
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archon.backends.nano.engine import Ask, Engine
from archon.backends.nano.folder import fingerprint
from archon.backends.nano.llama import Llama
from archon.backends.nano.reading import Prefix
from archon.backends.nano.sampling import Choice, log_probabilities
from archon.errors import DataError

_READ_AT_ONCE = 4096
"""Tokens of texts that are read together, those that were read before included."""


def main(folder: str, sha256: str, capacity: str) -> None:
    """Serve until standard input ends."""
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever prints does not speak for us
    try:
        model = Llama(Path(folder))
        if fingerprint(Path(folder)) != sha256:  # samples of other weights would be stored as theirs
            raise DataError(f"{folder!r} has changed since this run began; start again")
        worker = _Worker(Engine(model, int(capacity)), replies)
    except (DataError, OSError, MemoryError) as error:
        _write(replies, [{"op": "failed", "why": str(error)}])
        return
    try:
        worker.serve()
    except BrokenPipeError:
        pass


class _Worker:
    def __init__(self, engine: Engine, replies: int) -> None:
        self._engine = engine
        self._replies = replies
        self._to_read: deque[Mapping[str, Any]] = deque()
        self._rest = b""

    def serve(self) -> None:
        """Step as long as there is work, and wait for it otherwise."""
        while True:
            said: list[Mapping[str, Any]] = []
            messages = self._take(wait=self._engine.idle and not self._to_read)
            if messages is None:
                return
            for message in messages:
                said += self._obey(message)
            if self._to_read:
                said += self._read()
            if not self._engine.idle:
                said += ({"op": "done", **done._asdict()} for done in self._engine.step())
            if said:
                _write(self._replies, said)

    def _take(self, *, wait: bool) -> list[Mapping[str, Any]] | None:
        """What has come; None once nothing can come any more."""
        messages: list[Mapping[str, Any]] = []
        while select.select([0], [], [], None if wait and not messages else 0)[0]:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return None
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            messages += map(json.loads, lines)
        return messages

    def _obey(self, message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        key = message["key"]
        if message["op"] in ("score", "weigh"):
            self._to_read.append(message)
        elif message["op"] == "cancel":
            self._to_read = deque(other for other in self._to_read if other["key"] != key)
            return [{"op": "cancelled", "key": key, "tokens": self._engine.cancel(key)}]
        else:
            self._engine.add(
                Ask(
                    key,
                    tuple(message["tokens"]),
                    tuple((number, seed) for number, seed in message["samples"]),
                    Choice(*message["choice"]),
                    message["limit"],
                    tuple(map(tuple, message["stops"])),
                    message["logprobs"],
                )
            )
        return []

    def _read(self) -> list[Mapping[str, Any]]:
        """The next texts, so many that those who are decoded do not wait long."""
        messages: list[Mapping[str, Any]] = []
        size = 0
        while self._to_read and (not messages or size + len(self._to_read[0]["tokens"]) <= _READ_AT_ONCE):
            messages.append(self._to_read.popleft())
            size += len(messages[-1]["tokens"])
        read = self._engine.read([tuple(message["tokens"]) for message in messages])
        return [_told(message, *found) for message, found in zip(messages, read, strict=True)]


def _told(message: Mapping[str, Any], prefix: Prefix, cached: int) -> Mapping[str, Any]:
    """The scores at some places, or the log-probability of each token that is to follow the first ones."""
    if message["op"] == "score":
        numbers = [float(prefix.outcome[place]) for place in message["places"]]
    else:
        following = np.asarray(message["following"], dtype=np.int64)
        first = message["first"]
        logs = log_probabilities(prefix.outcome[first : first + len(following)])
        numbers = logs[np.arange(len(following)), following].tolist()
    return {
        "op": "told",
        "key": message["key"],
        "number": message["number"],
        "numbers": numbers,
        "cached": cached,
    }


def _write(file: int, messages: list[Mapping[str, Any]]) -> None:
    data = memoryview("".join(json.dumps(message) + "\n" for message in messages).encode())
    while data:
        data = data[os.write(file, data) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
