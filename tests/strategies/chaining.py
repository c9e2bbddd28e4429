"""The simplest search over steps, scripted models for it, and what they were asked: for tests of the step engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted, ScriptedBackend
from archon.candidate import Outcome
from archon.problem import Problem
from archon.session import Session
from archon.stage import Count, Plan
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.search import Given, Wish
from archon.strategies.stepping.stage import Stepping
from tests.strategies.made import PROBLEM

Said = str | Reply | Exception


@dataclass(frozen=True, slots=True)
class Grown:
    """The state of `Chains`: who goes on, and who has ended."""

    live: tuple[tuple[Partial, int], ...]
    ended: tuple[Partial, ...] = ()
    barren: tuple[Partial, ...] = ()


class Chains(Stepping):
    """The simplest search: n answers, each by itself; a beginning of which nothing comes is let go."""

    n: int = 4
    ahead: int | None = 0
    greedy: bool = True

    def start(self, given: Given) -> Grown:
        return Grown(((EMPTY, self.n),))

    def ask(self, state: Grown) -> Sequence[Wish]:
        return [Wish(partial, count, self.ahead, self.greedy) for partial, count in state.live]

    def tell(self, state: Grown, grown: Sequence[Sequence[Partial]]) -> Grown:
        came = [partial for some in grown for partial in some]
        dead = tuple(p for (p, _), some in zip(state.live, grown, strict=True) if not some)
        ended = (*state.ended, *(p for p in came if p.finished))
        return Grown(tuple((p, 1) for p in came if not p.finished), ended, (*state.barren, *dead))

    def found(self, state: Grown) -> Sequence[Partial]:
        return [*state.ended, *(p for p, _ in state.live if p.steps), *state.barren]

    def plan(self, incoming: Count) -> Plan:
        return self.calls(self.n * self.max_steps * 3, self.n)


def lines(*texts: str) -> Callable[[Call], Reply]:
    """Every answer has these lines."""

    def reply(call: Call) -> Reply:
        done = call.request.prefix.count("\n")
        last = done == len(texts) - 1
        stops = call.request.sampling.stop
        if "\n" not in stops:  # to the end
            return Reply("\n".join(texts[done:]))
        return Reply(texts[done]) if last else Reply(texts[done], "stop_string", "\n")

    return reply


def apart(call: Call) -> Reply:
    """Three lines, each with the number of its sample: no two answers are the same."""
    text = f"{call.request.prefix.count(chr(10))}{call.index}"
    return Reply(text) if call.request.prefix.count("\n") == 2 else Reply(text, "stop_string", "\n")


def length(text: str) -> float:
    return min(len(text), 99) / 100


def models(reply: Callable[[Call], Said], **settings: Any) -> dict[str, Model]:
    rewards = {"score": length, "identity": "reward", **settings.pop("rewards", {})}
    return {
        "default": Scripted(reply=reply, identity="writer", **settings),
        "reward": Scripted(**{"max_n": 64, **rewards}),
    }


class Ran:
    """One search, and what its models were asked."""

    def __init__(self, outcome: Outcome, session: Session, problem: str) -> None:
        self.outcome = outcome
        self.session = session
        writer, self.reward = session.caller("default").backend, session.caller("reward").backend
        assert isinstance(writer, ScriptedBackend)
        self.writer = writer
        self.calls = [call for call in writer.calls if call.problem == problem]

    @property
    def texts(self) -> list[str]:
        return [c.text for c in self.outcome.candidates]

    @property
    def asked(self) -> Counter[str]:
        """How often each beginning was to be continued."""
        return Counter(call.request.prefix for call in self.calls)

    @property
    def scored(self) -> list[tuple[tuple[str, ...], bool]]:
        """The replies that were scored, and whether they were finished."""
        assert isinstance(self.reward, ScriptedBackend)
        return [(steps, request.finished) for request in self.reward.scored for steps in request.replies]

    @property
    def values(self) -> list[float | None]:
        return [c.verdicts[next(iter(c.verdicts))].score for c in self.outcome.candidates]


async def ran(stage: Any, named: Mapping[str, Model], problem: Problem = PROBLEM, **settings: Any) -> Ran:
    async with Session(models=named, **settings) as session:
        return Ran(await session.solve(stage, problem), session, problem.id)
