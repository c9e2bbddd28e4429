"""A model that is asked by Atom of Thoughts and says what a test wants it to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings

from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Outcome
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.prompting import matched, templates_of, unquoted
from archon.session import Session
from archon.stage import Count, Stage
from archon.strategies.atom_of_thoughts import AtomOfThoughts
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import NUMBER

STEPS = {
    name.removesuffix("_prompt"): str(AtomOfThoughts.model_fields[name].default)
    for name in templates_of(AtomOfThoughts)
}
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Ask(NamedTuple):
    """One call: which step asked it, with what material, when, and how often it had been asked before."""

    step: str
    material: Mapping[str, str]
    again: int
    at: float
    call: Call

    @property
    def question(self) -> str:
        return self.material.get("QUESTION", "")


class Thinker:
    """Plays every step by rules. The question at level i has a graph with `needs[i]`, the last of them from there on;
    a level is told by the number of `+` at the question's end. Every way gives another answer."""

    def __init__(
        self,
        *needs: Sequence[Sequence[int]],
        says: Callable[[Ask], str | Reply | None] | None = None,
        pick: int = 1,
    ) -> None:
        self.needs = needs or ([[], [1]],)
        self.says = says
        self.pick = pick
        self.asks: list[Ask] = []

    def model(self, **settings: Any) -> Scripted:
        return Scripted(reply=self.reply, identity="thinker", latency=1.0, **{"concurrency": 400, **settings})

    def reply(self, call: Call) -> str | Reply:
        users = [m.content for m in call.request.messages if m.role == "user"]
        step = next((s for s, text in STEPS.items() if matched(text, users[0]) is not None), "solve")
        again = len(users) - 1 if step != "solve" else 0
        ask = Ask(step, unquoted(users[0]), again, now(), call)
        self.asks.append(ask)
        said = None if self.says is None else self.says(ask)
        return self.rightly(ask) if said is None else said

    def rightly(self, ask: Ask) -> str:
        level = len(ask.question) - len(ask.question.rstrip("+"))
        if ask.step == "work":
            return f"Worked out. The answer is {10 + level}"
        if ask.step in ("graph", "split"):
            needs = self.needs[min(level, len(self.needs) - 1)]
            return written(needs, answers=ask.step == "graph")
        if ask.step == "contract":
            return section(ask, f"{ask.question}+")
        if ask.step == "judge":
            (mark,) = set(re.findall(r"`Choice (\w+): NUMBER`", ask.call.text))
            return f"Let me see.\nChoice {mark}: {self.pick}"
        if ask.step == "synthesis":
            return "Together: the answer is 20"
        if ask.step == "part":
            return f"#### {100 + len(ask.material)}"
        return f"The answer is {20 + len(ask.call.text) - len(ask.call.text.rstrip('+'))}"

    @property
    def steps(self) -> Counter[str]:
        """How often each step was asked for the first time."""
        return Counter(ask.step for ask in self.asks if not ask.again)

    def of(self, step: str) -> list[Ask]:
        return [ask for ask in self.asks if ask.step == step]

    def at(self, second: float) -> list[str]:
        return sorted(ask.step for ask in self.asks if ask.at == second)


def written(needs: Sequence[Sequence[int]], *, answers: bool = True) -> str:
    parts = [
        {"question": f"q{i}?", "needs": list(one), **({"answer": f"a{i}"} if answers else {})}
        for i, one in enumerate(needs, 1)
    ]
    return f"So:\n{json.dumps({'parts': parts})}"


def section(ask: Ask, question: str) -> str:
    (mark,) = set(re.findall(r"`CONTRACTED QUESTION (\w+)`", ask.call.text))
    return f"CONTRACTED QUESTION {mark}\n{question}\nEND OF CONTRACTED QUESTION {mark}"


def chain(length: int) -> list[list[int]]:
    return [[]] + [[i] for i in range(1, length)]


def falling(length: int) -> list[list[list[int]]]:
    """Each contraction answers the first of a chain."""
    return [chain(n) for n in range(length, 0, -1)]


def think(stage: Stage | Pipeline, thinker: Thinker, problem: Problem = NUMBER, **options: Any) -> Outcome:
    async def work() -> Outcome:
        store = options.pop("store", None) or InstantStore()
        async with Session(models=thinker.model(), store=store, **options) as session:
            return await session.solve(stage, problem)

    outcome = patiently(work())
    assert outcome.usage.requests == sum(u.requests for u in outcome.by_stage.values())
    return outcome


def used(stage: AtomOfThoughts, calls: int) -> None:
    """What was used is within what was planned."""
    planned = stage.plan(Count(0, 0)).calls
    assert planned.low <= calls and (planned.high is None or calls <= planned.high)
