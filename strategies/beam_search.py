"""Beam search over steps, guided by a process reward model.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (arXiv 2408.03314), section 5.2 and appendix E: of n beams the best n / m are kept after each step, and
each is continued m times. `lookahead` judges a step by a greedy roll-out of so many further steps (section 5.2,
lookahead search). With `m: all` it is step-level best-of-N: one survives. With m = 1 it is n independent chains.
Cost: at most n calls per step, each with as many again as there are steps of lookahead, and a score for each.

What is finished competes with the others by its score and costs nothing more; the search is over when the best n / m
are all finished, and gives the n best answers that it met. What a limit has cut off is no answer: it holds no place,
and comes after those that are. The code of search-and-learn takes finished answers out instead and fills their places
with further continuations, until there are n of them: `finished: leave`. Those that end first are then the result,
short and early ones before long and good ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archon.stage import Count, Plan
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.ranking import best_first, distinct
from archon.strategies.stepping.search import Given, Wish
from archon.strategies.stepping.stage import Stepping


@dataclass(frozen=True, slots=True)
class Beams:
    """The state: who goes on, how often each, and who does not."""

    live: tuple[tuple[Partial, int], ...]
    """Survivors that are continued, each with how often."""
    ended: tuple[Partial, ...] = ()
    """Answers that are whole, in the order in which they came."""
    cut: tuple[Partial, ...] = ()
    """What a limit or a filter cut off."""


class BeamSearch(Stepping):
    """Keep the best n / m partial answers after each step, and continue each m times."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many beams."""
    m: Annotated[int, Field(ge=1)] | Literal["all"] = 4
    """How often each survivor is continued; `n` is a multiple of it. `all`: n times, so that one survives a step."""
    lookahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps of the greedy roll-out by which a step is judged."""
    keep_duplicates: bool = True
    """Whether equal partial answers may survive side by side; else one does, and is continued in their places."""
    finished: Literal["compete", "leave"] = "compete"
    """What becomes of a finished answer: it competes on, or it leaves, and its place is filled."""

    @model_validator(mode="after")
    def _whole_groups(self) -> BeamSearch:
        if self.n % self.width:
            raise ValueError(
                f"`n` {self.n} is not a multiple of `m` {self.m}, and n / m beams survive a step. "
                "Change one of them, or say `m: all`"
            )
        return self

    @property
    def width(self) -> int:
        """How often each survivor is continued."""
        return self.n if self.m == "all" else self.m

    def start(self, given: Given) -> Beams:
        """n first steps."""
        return Beams(((EMPTY, self.n),))

    def ask(self, state: Beams) -> Sequence[Wish]:
        """Every survivor, continued m times."""
        if self.finished == "leave" and len(state.ended) >= self.n:
            return ()
        return [Wish(partial, count, self.lookahead) for partial, count in state.live]

    def tell(self, state: Beams, grown: Sequence[Sequence[Partial]]) -> Beams:
        """The best of them survive."""
        came = [partial for some in grown for partial in some]
        going = [partial for partial in came if not partial.finished]
        ended = (*state.ended, *(p for p in came if p.whole))
        cut = (*state.cut, *(p for p in came if p.finished and not p.whole))
        pool = going if self.finished == "leave" else [*ended, *going]
        return Beams(self._survivors(pool), ended, cut)

    def found(self, state: Beams) -> Sequence[Partial]:
        """The n best that are whole, then what was cut off; the beams as far as they came only where none is whole."""
        answers = [*best_first(state.ended), *best_first(state.cut)]
        if not state.ended:
            begun = (partial for partial, _ in state.live if partial.steps)
            answers = best_first([*state.cut, *begun])
        return answers[: self.n]

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step."""
        return self.calls(self.n * self.max_steps * (1 + self.lookahead), self.n)

    def _survivors(self, pool: Sequence[Partial]) -> tuple[tuple[Partial, int], ...]:
        """The best n / m that go on, each with how often; what is finished among the best keeps its place."""
        ranked = best_first(pool)
        places = min(self.n // self.width, len(ranked))
        best = (ranked if self.keep_duplicates else distinct(ranked))[:places]
        live = [partial for partial in best if not partial.finished]
        if not live:
            return ()
        wanted = self.n if self.finished == "leave" else self.width * (places - len(best) + len(live))
        each, more = divmod(wanted, len(live))
        return tuple((partial, each + (i < more)) for i, partial in enumerate(live))
