"""Recorded generations as a model: nothing is generated, everything else is real.

Sample i of a problem is its i-th recording. Asking beyond what was recorded is an error, or goes on to a
live model where one is named. Asking for other sampling parameters than it was recorded with is refused:
the answer would be about another model. So is asking for what was recorded in several ways, where nothing
tells which is meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from archon.backends.base import Backend, Capabilities, Completion, Model, Progress, Request, Sampling, Tokens
from archon.backends.recordings import Pool, Recordings, read_recordings
from archon.candidate import Finish
from archon.code import cut
from archon.component import Nested
from archon.errors import CapabilityError, DataError, NotRecorded

_FINISHES: tuple[Finish, ...] = ("stop", "stop_string", "length", "content_filter", "tool_calls", "unknown")
_CHECKED = ("temperature", "top_p", "top_k", "min_p", "seed")
"""Parameters that a replay cannot change, where they were recorded."""


class Replay(Model):
    """Plays recorded generations back, in the order they were recorded."""

    name: ClassVar[str] = "replay"
    short: ClassVar[str] = "path"

    path: Path
    """A JSONL file of recordings, or a folder with one (archon/backends/recordings.py)."""
    model: str = "recorded"
    """What the model was, for reports and prices; where several were recorded, the one to replay."""
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
        pools = [pool for of_problem in self.recordings.pools.values() for pool in of_problem]
        limits = [self._sampling(pool).max_tokens for pool in pools]
        self._max_tokens = None if None in limits else max(limit for limit in limits if limit is not None)
        self._prefix = any(pool.asked is not None and pool.asked[1] for pool in pools)
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
            prefix=self._prefix,
            raw_prompt=True,
            seed=True,
            truncation_params=True,
            recorded=self._beyond is None,
            aborts=True,
            max_tokens=self._max_tokens,
        )

    async def complete(
        self, request: Request, indices: Sequence[int], progress: Progress
    ) -> AsyncGenerator[Completion, None]:
        """The recordings of these indices, at once."""
        pool = self._pool(request)
        samples = {} if pool is None else pool.samples
        beyond = [i for i in indices if i not in samples]
        for index in indices:
            if pool is not None and index in samples:
                yield self._completion(index, samples[index], pool, request)
        if not beyond:
            return
        if self._beyond is None:
            gap = max(beyond) < max(samples, default=0)  # a call that failed, where others did not
            raise NotRecorded(
                f"problem {request.problem!r} has {len(samples)} recorded samples in {self.recordings.path.name}, "
                f"and number {max(beyond) + 1} is {'not among them' if gap else 'asked for'}. "
                "Ask for fewer (`n`, --samples), or name a live model to go on with (`beyond:`)"
            )
        async with aclosing(self._beyond.complete(request, beyond, progress)) as stream:
            async for completion in stream:
                yield self._priced(completion)

    async def close(self) -> None:
        """Close the live model, if there is one."""
        if self._beyond is not None:
            await self._beyond.close()

    def _sampling(self, pool: Pool) -> Sampling:
        """How a pool was drawn."""
        return self.config.recorded or pool.sampling

    def _pool(self, request: Request) -> Pool | None:
        """The one pool that is asked for; None where there is none. Raises CapabilityError."""
        recorded = self.recordings.of(request)
        pools = [pool for pool in recorded if self._contradiction(pool, request) is None]
        if recorded and not pools:
            name = self._contradiction(recorded[0], request) or ""
            asked, drawn = getattr(request.sampling, name), getattr(self._sampling(recorded[0]), name)
            raise CapabilityError(
                f"{name} {asked} is asked for, and {self.recordings.path.name} was recorded with {drawn}. "
                f"Leave `{name}` out, or sample from a live model"
            )
        if len(pools) > 1:
            pools = [p for p in pools if p.model == self.config.model] or pools
        for names in (_CHECKED, tuple(Sampling.model_fields)):
            if len(pools) > 1:
                pools = [p for p in pools if self._same(p, request, names)] or pools
        if len(pools) > 1:
            raise CapabilityError(
                f"problem {request.problem!r} was recorded in {len(pools)} ways in {self.recordings.path.name}, which "
                f"differ in {_differences(pools)}, and nothing tells which is meant. Say it (`model` of the replay, "
                "parameters of the stage), or export one alone (archon store export --model)"
            )
        return pools[0] if pools else None

    def _contradiction(self, pool: Pool, request: Request) -> str | None:
        """A parameter that contradicts how the pool was recorded."""
        for name in _CHECKED:
            asked, drawn = getattr(request.sampling, name), getattr(self._sampling(pool), name)
            if asked is not None and drawn is not None and asked != drawn:
                return name
        return None

    def _same(self, pool: Pool, request: Request, names: Sequence[str]) -> bool:
        return all(getattr(pool.sampling, name) == getattr(request.sampling, name) for name in names)

    def _completion(self, index: int, sample: Any, pool: Pool, request: Request) -> Completion:
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
        return Completion(
            index,
            kept,
            ended,
            stop=data.get("stop") if kept == text else None,
            reasoning=str(data.get("reasoning") or ""),
            tokens=self._tokens(data, text, pool, request),
            requests=_count(data, "requests", 1),
            recorded=True,
        )

    def _tokens(self, data: Mapping[str, Any], text: str, pool: Pool, request: Request) -> Tokens:
        if isinstance(data.get("completion_tokens"), int):
            return Tokens(
                _count(data, "prompt_tokens"),
                _count(data, "cached_tokens"),
                data["completion_tokens"],
                _count(data, "reasoning_tokens"),
                usd=data.get("usd"),
                estimated=bool(data.get("estimated")),
            )

        def estimate(text: str) -> int:
            return max(1, round(len(text.encode("utf-8", "replace")) / self.config.bytes_per_token))

        asked = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages)
        most = self._sampling(pool).max_tokens or self.config.max_tokens
        completion = estimate(text) if most is None else min(most, estimate(text))
        return Tokens(estimate(asked), completion=completion, usd=data.get("usd"), estimated=True)

    def _priced(self, completion: Completion) -> Completion:
        """A live completion with its own model's price, as the caller only knows the recordings'."""
        price = self.config.beyond.price if self.config.beyond is not None else None
        tokens = completion.tokens
        if price is None or tokens.usd is not None:
            return completion
        usd = float(price.cost(tokens.prompt, tokens.cached, tokens.completion, completion.requests))
        return completion._replace(tokens=tokens._replace(usd=usd))


def _count(data: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = data.get(name)
    return value if isinstance(value, int) and value >= 0 else default


def _differences(pools: Sequence[Pool]) -> str:
    """In what pools differ: `model ('a', 'b'), temperature (0.5, None)`."""
    told = [
        {"model": p.model, "server": dict(p.backend), "earlier messages": p.asked, **dict(p.sampling)}
        for p in pools
    ]
    values = {name: list(dict.fromkeys(repr(one[name])[:80] for one in told)) for name in told[0]}
    return ", ".join(f"{name} ({', '.join(some)})" for name, some in values.items() if len(some) > 1)


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
