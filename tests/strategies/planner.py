"""A model that plays every part of PlanSearch by rules, and says what it was asked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from archon.backends.scripted import Call, Reply, Scripted
from archon.prompting import matched, templates_of, unquoted
from archon.strategies.plan_search import PlanSearch
from tests.archon.virtual import now

STEPS = {
    name.removesuffix("_prompt"): str(PlanSearch.model_fields[name].default)
    for name in templates_of(PlanSearch)
}
"""The default template of each step."""


class Ask(NamedTuple):
    """One call: which step asked it, with what material, when, and how often it had been asked before."""

    step: str
    material: Mapping[str, str]
    again: int
    at: float
    call: Call

    @property
    def observations(self) -> tuple[str, ...]:
        return tuple(text for name, text in self.material.items() if name.startswith("OBSERVATION"))


Says = Callable[[Ask], "str | Reply | None"]


class Planner:
    """Finds `n` observations at every node, other ones at each, and writes a word of its own at every other step."""

    def __init__(self, n: int = 3, says: Says | None = None, latency: float = 1.0) -> None:
        self.n = n
        self.says = says
        self.latency = latency
        self.asks: list[Ask] = []

    def model(self, **settings: Any) -> Scripted:
        many = {"concurrency": 2000, "max_concurrency": 2000, **settings}
        return Scripted(reply=self.reply, identity="planner", latency=self.latency, **many)

    def reply(self, call: Call) -> str | Reply:
        messages = call.request.messages
        first = next(m.content for m in messages if m.role == "user")
        step = next((step for step, text in STEPS.items() if matched(text, first) is not None), "the problem")
        again = (len([m for m in messages if m.role == "user"]) - 1) if step != "the problem" else 0
        ask = Ask(step, unquoted(first), again, now(), call)
        self.asks.append(ask)
        said = None if self.says is None else self.says(ask)
        return self.rightly(ask) if said is None else said

    def rightly(self, ask: Ask) -> str:
        mark = hashlib.sha256(f"{ask.call.text} {ask.call.index}".encode()).hexdigest()[:6]
        if ask.step in ("observe", "derive"):
            return "Let me think.\n\n" + "\n".join(f"{i}. fact {mark}{i}" for i in range(1, self.n + 1))
        if ask.step == "filter":
            return "\n".join(f"{i}) {text}" for i, text in enumerate(ask.observations, 1))
        return f"{ask.step} {mark}"

    @property
    def steps(self) -> Counter[str]:
        """How often each step was asked for the first time."""
        return Counter(ask.step for ask in self.asks if not ask.again)

    def at(self, second: float) -> Counter[str]:
        """What was asked at a moment."""
        return Counter(ask.step for ask in self.asks if ask.at == second)

    def of(self, step: str) -> list[Ask]:
        return [ask for ask in self.asks if ask.step == step]
