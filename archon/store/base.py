"""The store contract: pools of samples, and a memory for what was computed (D5).

A *pool* is the growing list of independent samples of one (backend identity, model, prompt, sampling
parameters), addressed by index. The store is append-only and crash-safe: what `put` has confirmed
survives a `kill -9`. It is safe for several processes: an index is *claimed* before it is sampled, so
two processes that want the same sample pay for it once.

Samples are read in the order they arrived, which is why replaying a run that stopped at the first
passing sample stops at the same one. Attempts that gave no sample (cancelled, failed, retried) are
recorded with what they cost, so a replay has the recorded cost of the run and not less.

`archon.testing.StoreCases` is the conformance suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from archon.candidate import Finish, TokenLogprob
from archon.usage import NOTHING, Usage

AttemptKind = Literal["cancelled", "failed", "retried", "duplicate"]


class Recorded(NamedTuple):
    """One sample as it is stored: never changed, never removed."""

    index: int  # type: ignore[assignment]
    text: str
    finish: Finish = "stop"
    stop: str | None = None
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that gave no sample, and what it cost all the same."""

    index: int
    kind: AttemptKind
    usage: Usage
    error: str = ""
    """`ErrorName: message`, for failed ones."""


class Page(NamedTuple):
    """Some samples of a pool in order of arrival, and where to go on."""

    samples: Sequence[Recorded]
    cursor: int
    """Give it to the next `read`."""
    done: bool
    """Nothing more is stored (now)."""


class PoolSummary(NamedTuple):
    """One pool, for people."""

    id: int
    model: str
    backend: Mapping[str, Any]
    request: Mapping[str, Any]
    samples: int
    attempts: int
    usage: Usage


class Store(Protocol):
    """Pools of samples and a memory. Every method may be called concurrently."""

    async def pool(self, key: str, identity: Mapping[str, Any], request: Mapping[str, Any]) -> int:
        """The pool of this key, made where it does not exist."""
        ...

    async def read(self, pool: int, indices: range, cursor: int = 0, limit: int = 256) -> Page:
        """Samples of these indices, in order of arrival, from `cursor` on."""
        ...

    async def attempts(self, pool: int, indices: range) -> Sequence[Attempt]:
        """Attempts on these indices, oldest first."""
        ...

    def claim(self, pool: int, indices: Iterable[int]) -> Awaitable[Sequence[int]]:
        """Those of the indices that are now ours to sample; the others are stored, or claimed by a
        draw that is still alive."""
        ...

    def put(self, pool: int, samples: Sequence[Recorded]) -> asyncio.Future[Sequence[Recorded]]:
        """Record samples and give up their claims; the samples as they are stored.

        Where one of an index was there already, that one stays and is given back, and what the new one
        cost is kept as an attempt.

        They are handed over before this returns (so cancelling the caller does not lose them); when
        the future is done they survive a `kill -9`.
        """
        ...

    def note(self, pool: int, attempts: Sequence[Attempt], release: Iterable[int] = ()) -> None:
        """Record attempts and give up claims, without waiting (it is called while being cancelled)."""
        ...

    async def wait(self, pool: int, timeout: float) -> None:
        """Until something may have changed in the pool, or the time is over."""
        ...

    async def recall(self, kind: str, keys: Sequence[str]) -> Mapping[str, bytes]:
        """What was remembered under these keys; absent ones are left out."""
        ...

    async def remember(self, kind: str, items: Mapping[str, bytes], *, replace: bool = False) -> None:
        """Remember; what is already there stays, unless it is to be replaced."""
        ...

    async def summaries(self) -> Sequence[PoolSummary]:
        """Every pool, largest first."""
        ...

    async def close(self) -> None:
        """Write what is pending and let go."""
        ...
