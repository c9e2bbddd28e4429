"""What an engine says of its own work during a run: the part of the account that only the server knows.

A backend whose engine publishes figures has `figures` beside the methods of `Backend`
(archon/backends/vllm/metrics.py reads vLLM's). They are the server's: what others asked of it at the same
time is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """Counts since the server started, or between two moments (`-`), of one engine or several (`+`)."""

    running: int = 0
    """Sequences being generated, as of the engine's last step: for a moment it still counts those that just ended."""
    waiting: int = 0
    """Requests that wait for a place in the batch, as of the same step."""
    finished: int = 0
    """Sequences that ended by themselves."""
    preempted: int = 0
    """Times a sequence lost its place in the cache and had to be computed again."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    looked_up: int = 0
    """Prompt tokens looked up in the prefix cache."""
    cached: int = 0
    """The part of `looked_up` that was there."""
    first_tokens: int = 0
    """Sequences that got a first token."""
    first_token_seconds: float = 0.0
    """Seconds until then, added up over them."""

    def __add__(self, other: EngineFigures) -> EngineFigures:
        return EngineFigures(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))

    def __sub__(self, before: EngineFigures) -> EngineFigures:
        """What happened since; `running` and `waiting` stay those of now."""
        since = {name: getattr(self, name) - getattr(before, name) for name in _FIELDS}
        return EngineFigures(**{**since, "running": self.running, "waiting": self.waiting})

    @property
    def cut_off(self) -> int:
        """Sequences that were begun and then stopped, because their connection was closed."""
        return max(0, self.first_tokens - self.finished - self.running)

    @property
    def hit_rate(self) -> float | None:
        """The share of prompt tokens that the prefix cache had."""
        return self.cached / self.looked_up if self.looked_up else None

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds, on average."""
        return self.first_token_seconds / self.first_tokens if self.first_tokens else None

    def describe(self) -> str:
        """One line for people."""
        parts = [f"{self.finished:,} sequences"]
        if self.cut_off:
            parts.append(f"{self.cut_off:,} more cut off")
        if self.hit_rate is not None:
            parts.append(f"{self.hit_rate:.0%} of {self.looked_up:,} prompt tokens from the prefix cache")
        if self.time_to_first_token is not None:
            parts.append(f"first token after {self.time_to_first_token:.2f} s on average")
        if self.preempted:
            parts.append(f"{self.preempted:,} preempted")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON, with what follows from the counts."""
        data: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        data["first_token_seconds"] = round(self.first_token_seconds, 6)
        derived = ("cut_off", "hit_rate", "time_to_first_token")
        return {**data, **{name: getattr(self, name) for name in derived}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EngineFigures:
        """The inverse of `as_json`."""
        return cls(**{name: data[name] for name in _FIELDS if name in data})


_FIELDS = tuple(field.name for field in fields(EngineFigures))


@runtime_checkable
class Engine(Protocol):
    """A backend whose engine tells what it does."""

    async def figures(self) -> EngineFigures | None:
        """The engine's figures since this backend first asked it something; None where it was asked nothing,
        or tells nothing."""
        ...
