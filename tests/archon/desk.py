"""A desk for the tests of calling: a scripted model, and everything that was delivered and billed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archon.backends.base import Completion, Request, Sampling
from archon.backends.scripted import Call, Scripted, ScriptedBackend
from archon.budget import Meter
from archon.calling import Billed, Caller, Gate
from archon.errors import (
    BackendError,
)
from archon.problem import Message
from archon.usage import Usage, total
from tests.archon.virtual import now

REQUEST = Request((Message(role="user", content="two words"),), sampling=Sampling(max_tokens=50))


class Desk:
    """A caller of a script, and everything it delivered and billed."""

    def __init__(self, reply: Callable[[Call], Any], gate: Gate | None = None, **settings: Any) -> None:
        self.model = Scripted(reply=reply, identity="desk", **settings)
        self.backend = ScriptedBackend(self.model)
        self.gate = gate or Gate(32, 512)
        self.caller = Caller("m", self.model, self.backend, self.gate)
        self.meter = Meter("run")
        self.delivered: list[tuple[int, float, Usage]] = []
        self.billed: list[Billed] = []

    async def call(self, *indices: int, meter: Meter | None = None) -> None:
        def deliver(completion: Completion, usage: Usage) -> None:
            self.delivered.append((completion.index, now(), usage))

        await self.caller.call(REQUEST, indices, meter or self.meter, deliver, self.billed.append)

    @property
    def usage(self) -> Usage:
        return total([u for _, _, u in self.delivered] + [b.usage for b in self.billed])


def failing(times: int, error: BackendError) -> Callable[[Call], Any]:
    """Fails so often, then answers."""
    return lambda call: error if call.attempt < times else "fine"
