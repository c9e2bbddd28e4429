"""Recorded generations as a model: nothing is generated, everything else is real.

Sample i of a problem is its i-th recording. Asking beyond what was recorded is an error, or goes on to a
live model where one is named. Asking for other sampling parameters than it was recorded with is refused:
the answer would be about another model.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archon.backends.base import Backend, Capabilities, Completion, Model, Progress, Request, Sampling, Tokens
from archon.backends.recordings import Recordings, read_recordings
from archon.candidate import Finish
from archon.code import cut
from archon.component import Nested
from archon.errors import CapabilityError, DataError, NotRecorded

_FINISHES: tuple[Finish, ...] = ("stop", "stop_string", "length", "content_filter", "tool_calls", "unknown")


class Replay(Model):
    """Plays recorded generations back, in the order they were recorded."""

    name: ClassVar[str] = "replay"

    path: Path
    """A JSONL file of recordings, or a folder with one (archon/backends/recordings.py)."""
    model: str = "recorded"
    """What the model was, for reports and prices."""
    recorded: Sampling | None = None
    """How the samples were drawn; read from the file where it tells."""
    bytes_per_token: Annotated[float, Field(gt=0)] = 3.0
    """For recordings without token counts: an estimate, and marked as one."""
    beyond: Annotated[Model, Nested("backend")] | None = None
    """A live model to go on with where the recordings end."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The limit the samples were recorded with, where the file does not tell."""
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    """Recordings need no patience."""

    @property
    def continues_text(self) -> bool:
        """Recorded continuations of raw prompts are cut where the problem says."""
        return True

    @property
    def label(self) -> str:
        """Prices go by the model's name."""
        return self.model

    def connect(self) -> ReplayBackend:
        """Read the recordings. Raises DataError."""
        return ReplayBackend(self)


class ReplayBackend:
    """Recordings, read once."""

    def __init__(self, config: Replay) -> None:
        self.config = config
        self.recordings = _read(config.path.resolve(), _stamp(config.path))
        self._drawn_with = config.recorded or self.recordings.sampling
        self._beyond: Backend | None = None if config.beyond is None else config.beyond.connect()

    @property
    def identity(self) -> Mapping[str, Any]:
        """The file's content, wherever it lies; and the model that goes on."""
        identity: dict[str, Any] = {
            "backend": "replay",
            "model": self.config.model,
            "recordings": _fingerprint(self.recordings.path, _stamp(self.recordings.path)),
        }
        if self._beyond is not None:
            identity["beyond"] = self._beyond.identity
        return identity

    @property
    def endpoint(self) -> str:
        """The file."""
        return f"replay of {self.recordings.path.name}"

    @property
    def capabilities(self) -> Capabilities:
        """Anything that needs no generation."""
        return Capabilities(
            max_n=64,
            raw_prompt=True,
            seed=True,
            recorded=self._beyond is None,
            aborts=True,
            max_tokens=self._drawn_with.max_tokens,
        )

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """The recordings of these indices, at once."""
        self._check(request)
        samples = self._samples(request)
        beyond = [i for i in indices if i >= len(samples)]
        for index in indices:
            if index < len(samples):
                yield self._completion(index, samples[index], request)
        if not beyond:
            return
        if self._beyond is None:
            raise NotRecorded(
                f"problem {request.problem!r} has {len(samples)} recorded samples in {self.recordings.path.name}, "
                f"and number {max(beyond) + 1} is asked for. Ask for fewer (`n`, --samples), or name a live model "
                "to go on with (`beyond:`)"
            )
        async with aclosing(self._beyond.complete(request, beyond, progress)) as stream:
            async for completion in stream:
                yield self._priced(completion)

    async def close(self) -> None:
        """Close the live model, if there is one."""
        if self._beyond is not None:
            await self._beyond.close()

    def _samples(self, request: Request) -> Sequence[Any]:
        known = self.recordings.samples
        if request.problem in known:
            return known[request.problem]
        prompt = request.prompt if request.prompt is not None else request.messages[-1].content
        return known.get(self.recordings.by_prompt.get(prompt, ""), ())

    def _check(self, request: Request) -> None:
        """Refuse parameters that contradict the recordings."""
        for name in ("temperature", "top_p", "top_k", "min_p"):
            asked, drawn = getattr(request.sampling, name), getattr(self._drawn_with, name)
            if asked is not None and drawn is not None and asked != drawn:
                raise CapabilityError(
                    f"{name} {asked:g} is asked for, and {self.recordings.path.name} was recorded with {drawn:g}. "
                    f"Leave `{name}` out, or sample from a live model"
                )

    def _completion(self, index: int, sample: Any, request: Request) -> Completion:
        data: Mapping[str, Any] = {"text": sample} if isinstance(sample, str) else sample
        text = data.get("text") if isinstance(data, Mapping) else None
        if not isinstance(text, str):
            raise DataError(
                f"{self.recordings.path.name}: sample {index} of problem {request.problem!r} is {str(sample)[:60]!r}; "
                'expected text, or {"text": ...}'
            )
        kept = cut(text, request.sampling.stop)
        finish: Finish = data["finish"] if data.get("finish") in _FINISHES else "unknown"
        ended: Finish = "stop_string" if kept != text else finish
        return Completion(index, kept, ended, tokens=self._tokens(data, text, request), recorded=True)

    def _tokens(self, data: Mapping[str, Any], text: str, request: Request) -> Tokens:
        if isinstance(data.get("completion_tokens"), int):
            return Tokens(
                int(data.get("prompt_tokens") or 0), completion=data["completion_tokens"], usd=data.get("usd")
            )

        def estimate(text: str) -> int:
            return max(1, round(len(text.encode("utf-8", "replace")) / self.config.bytes_per_token))

        asked = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages)
        most = self._drawn_with.max_tokens or self.config.max_tokens
        completion = estimate(text) if most is None else min(most, estimate(text))
        return Tokens(estimate(asked), completion=completion, usd=data.get("usd"), estimated=True)

    def _priced(self, completion: Completion) -> Completion:
        """A live completion with its own model's price, as the caller only knows the recordings'."""
        price = self.config.beyond.price if self.config.beyond is not None else None
        tokens = completion.tokens
        if price is None or tokens.usd is not None:
            return completion
        usd = float(price.cost(tokens.prompt, tokens.cached, tokens.completion, completion.requests))
        return replace(completion, tokens=replace(tokens, usd=usd))


def _stamp(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise DataError(f"cannot read the recordings {str(path)!r}: {error.strerror}") from error


@lru_cache(maxsize=4)
def _read(path: Path, stamp: float) -> Recordings:
    return read_recordings(path)


@lru_cache(maxsize=16)
def _fingerprint(path: Path, stamp: float) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
