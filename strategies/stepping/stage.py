"""What stages that search over steps have in common: how a step is written and judged, and the loop.

Cost: what the search asks for, round by round (`engine.py`).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from archon.backends.base import Sampling
from archon.candidate import Candidate, Finish, Verdict
from archon.component import Value
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.steps import Aggregation, Steps
from archon.strategies.stepping.engine import Engine, Manner
from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.stepping.search import Given, Weigh, Wish

_FINISH: dict[Ending | None, Finish] = {
    "stop": "stop",
    "until": "stop",
    "length": "length",
    "steps": "length",
    "filtered": "content_filter",
    None: "length",
}
_BARREN = 8
"""Rounds in a row of which every call fails, until a search gives up."""
_BLIND = 3
"""Rounds in a row of which nothing is judged, until it does: who is not guided need not pay for a search."""


class Tokens(Value):
    """Steps are so many tokens."""

    tokens: Annotated[int, Field(ge=1)]
    """How many."""

    @property
    def reply_tokens(self) -> int:
        """The most that a call writes, whatever its model's own limit."""
        return self.tokens


class Stepping(Stage):
    """A search over partial answers. Subclasses are the algorithms: `start`, `ask`, `tell`, `found` (`search.py`)."""

    takes: ClassVar[bool] = False
    related: ClassVar[bool] = True
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "scores"})

    model: str = "default"
    """Which of the session's models writes. It has to continue a given beginning."""
    system: str | None = None
    """A system message to put before the problem's messages."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    stop: tuple[str, ...] = ()
    """Stop strings that end a whole answer."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per step; the model's own where not given. An answer whose step reaches it is cut off."""
    steps: Steps | Tokens = "newline"
    """Where a step ends: `newline`, `blank_line`, `{delimiter: TEXT}`, or after `{tokens: N}`."""
    until: str | None = None
    """A regular expression (Python's); an answer that matches anywhere is finished. Beside the end of sequence."""
    max_steps: Annotated[int, Field(ge=1, le=100_000)] = 40
    """An answer has at most so many steps; one that has them and goes on is cut off."""
    reward: str | None = "reward"
    """Which reward model judges partial answers; null: the writer's own certainty (the mean probability of a step's
    tokens, geometrically)."""
    aggregate: Aggregation = "last"
    """How the scores of an answer's steps become one."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The score from which an answer is accepted, on the scale of the verdict; what is cut off is not. `first_passing`,
    after further verifiers, takes what they accept too. Without a threshold it is only scored, and `first_passing`
    takes no answer of a search."""

    @field_validator("until")
    @classmethod
    def _an_expression(cls, until: str | None) -> str | None:
        if until is not None:
            try:
                re.compile(until)
            except re.error as error:
                raise ValueError(f"`until` {until!r} is not a regular expression: {error}") from None
        return until

    # --- the algorithm -----------------------------------------------------------------------------

    @abstractmethod
    def start(self, given: Given) -> Any:
        """The state before anything is written."""
        raise NotImplementedError

    @abstractmethod
    def ask(self, state: Any) -> Sequence[Wish | Weigh]:
        """What is wanted next; nothing where the search is over."""
        raise NotImplementedError

    @abstractmethod
    def tell(self, state: Any, grown: Sequence[Sequence[Partial]]) -> Any:
        """The state after what was asked for has come."""
        raise NotImplementedError

    @abstractmethod
    def found(self, state: Any) -> Sequence[Partial]:
        """The answers so far: finished ones first."""
        raise NotImplementedError

    # --- the loop ----------------------------------------------------------------------------------

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Ask, extend, tell, until the search is over, a budget or the time is, or nothing comes any more."""
        engine = Engine(self.manner, run)
        state = self.start(Given(run.rng.getrandbits(63), engine.calibrated))
        barren = blind = 0
        while wishes := self.ask(state):
            grown = await engine.grow(wishes)
            came = sum(map(len, grown))
            judged = _judged(grown)
            run.trace("round", wanted=sum(wish.n for wish in wishes), came=came, judged=judged)
            told = self.tell(state, grown)
            barren = 0 if came else barren + 1
            if not came and (run.scope.exhausted is not None or barren == _BARREN or not self.ask(told)):
                break  # what leaves are the answers as far as they came
            state = told
            blind = blind + 1 if came and not judged else 0
            if blind == _BLIND:
                break
        for candidate in self._candidates(self.found(state), engine, run):
            yield candidate

    @property
    def manner(self) -> Manner:
        """How partial answers are extended and scored."""
        sampling = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            stop=self.stop,
            max_tokens=self.max_tokens,
            logprobs=0 if self.reward is None else None,
        )
        steps: Steps | int = self.steps.tokens if isinstance(self.steps, Tokens) else self.steps
        return Manner(
            self.model, sampling, self.system, steps, self.until, self.max_steps, self.reward, self.aggregate
        )

    def _candidates(self, found: Sequence[Partial], engine: Engine, run: Run) -> list[Candidate]:
        """The answers as candidates, numbered in this order, with their scores as verdicts."""
        candidates = [
            Candidate(
                id=f"{run.stage}#{number}",
                text=partial.text,
                stage=run.stage,
                index=number,
                model=self.model,
                steps=partial.steps,
                finish=_FINISH[partial.ending],
                usage=engine.used(partial),
            )
            for number, partial in enumerate(found)
        ]
        answered = any(partial.whole for partial in found)
        verdicts = [self._verdict(partial, engine, answered) for partial in found]
        return run.judged(candidates, verdicts, self.judge)

    def _verdict(self, partial: Partial, engine: Engine, answered: bool) -> Verdict:
        """What is no answer is not accepted, and has no score where something else is one: what was thought of a
        beginning says nothing of an end, and nobody shall choose it for that."""
        value, detail = partial.value, f"{len(partial.steps)} steps"
        if answered and not partial.whole:
            return Verdict(self.judge, None, None, engine.scale, detail=f"no whole answer, {detail}")
        if self.threshold is None or value is None or not partial.whole:
            return Verdict(self.judge, None, value, engine.scale, detail=detail)
        accepted = value >= self.threshold
        return Verdict(self.judge, accepted, value, engine.scale, "passed" if accepted else "wrong", detail)

    # --- what is known before ----------------------------------------------------------------------

    @property
    def judge(self) -> str:
        """What its scores go by."""
        return "reward" if self.reward is not None else "certainty"

    @property
    def title(self) -> str:
        """The same, unless another verifier before it goes by that."""
        return self.judge

    @property
    def models(self) -> tuple[str, ...]:
        """The writer and the reward model."""
        return (self.model,) if self.reward is None else (self.model, self.reward)

    def calls(self, continuations: int, answers: int, weighed: int = 0) -> Plan:
        """The plan of a search that wants at most so many continuations, and so many given ones weighed, and ends with
        at most so many answers. A given one may end the answer without a step more: then it is judged twice. What is
        asked for again because it failed comes on top, as in every plan."""
        wanted = continuations + weighed
        judged = 0 if self.reward is None else wanted + weighed
        return Plan(Count(1, wanted + judged), Count(0, answers))


def _judged(grown: Sequence[Sequence[Partial]]) -> int:
    """How many of those that came are judged; who says nothing counts as judged, as there is nothing to judge."""
    came = [partial for some in grown for partial in some]
    return sum(partial.value is not None or not partial.steps for partial in came)
