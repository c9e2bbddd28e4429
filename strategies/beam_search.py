"""Beam search over steps, guided by a process reward model.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (arXiv 2408.03314), section 5.2 and appendix E: of n beams the best n / m are kept after each step, and
each is continued m times. `lookahead` judges a step by a greedy roll-out of so many further steps (section 5.2,
lookahead search). With m = n it is step-level best-of-N; with m = 1 it is n independent chains.
Cost: at most n calls per step, each with as many again as there are steps of lookahead, and a score for each.

What is finished competes with the others by its score and costs nothing more; the search is over when the best n / m
are all finished, and gives the n best answers that it met. The code of search-and-learn takes finished answers out
instead and fills their places with further continuations, so that the n that end first are the result, whatever their
scores: `finished: leave`.
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
    """The state: who goes on, how often each, and who has ended."""

    live: tuple[tuple[Partial, int], ...]
    """Survivors that are continued, each with how often."""
    ended: tuple[Partial, ...] = ()
    """Answers that are finished, in the order in which they came."""


class BeamSearch(Stepping):
    """Keep the best n / m partial answers after each step, and continue each m times."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many beams."""
    m: Annotated[int, Field(ge=1)] = 4
    """How often each survivor is continued; `n` is a multiple of it."""
    lookahead: Annotated[int, Field(ge=0, le=1000)] = 0
    """Steps of the greedy roll-out by which a step is judged."""
    keep_duplicates: bool = True
    """Whether equal partial answers may survive side by side."""
    finished: Literal["compete", "leave"] = "compete"
    """What becomes of a finished answer: it competes on, or it leaves, and its place is filled."""

    @model_validator(mode="after")
    def _whole_groups(self) -> BeamSearch:
        if self.n % self.m:
            raise ValueError(f"`n` {self.n} is not a multiple of `m` {self.m}: n / m beams survive a step")
        return self

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
        if self.finished == "leave":
            ended = (*state.ended, *(p for p in came if p.finished))
            return Beams(self._survivors([p for p in came if not p.finished], self.n), ended)
        pool = [*state.ended, *came]
        live = tuple((p, self.m) for p in self._best(pool) if not p.finished)
        return Beams(live, tuple(p for p in pool if p.finished))

    def found(self, state: Beams) -> Sequence[Partial]:
        """The n best of those that are finished; where the search was cut off, then the beams as far as they came."""
        answers = [*best_first(state.ended), *best_first(partial for partial, _ in state.live)]
        return answers[: self.n]

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step."""
        return self.calls(self.n * self.max_steps * (1 + self.lookahead), self.n)

    def _best(self, partials: Sequence[Partial]) -> list[Partial]:
        pool = partials if self.keep_duplicates else distinct(partials)
        return best_first(pool)[: self.n // self.m]

    def _survivors(self, partials: Sequence[Partial], places: int) -> tuple[tuple[Partial, int], ...]:
        """The best n / m, continued as often as fills the places between them."""
        best = self._best(partials)
        if not best:
            return ()
        each, more = divmod(places, len(best))
        return tuple((p, each + (i < more)) for i, p in enumerate(best))
