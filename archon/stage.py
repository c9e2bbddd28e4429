"""The stage contract: a stream of candidates for one problem becomes another (D1, D2).

A stage is its configuration: a frozen value whose fields are its keys in YAML. Nothing is kept on
`self`; what a stage needs to do it asks of its `Run` (D3). Writing one takes a few lines:

    class ShortestPassing(Stage):
        '''Keep the shortest candidate that every verifier accepted.'''

        requires = frozenset({"verdicts"})

        async def run(self, problem, candidates, run):
            accepted = [c async for c in candidates if c.accepted]
            if accepted:
                yield min(accepted, key=lambda c: len(c.text))

`archon.testing.StageCases` is the conformance suite.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, TypeAlias

from archon.budget import Budget
from archon.candidate import Candidate
from archon.component import Component, Nested
from archon.errors import Flaw
from archon.problem import Problem

if TYPE_CHECKING:
    from archon.graph import Graph
    from archon.pipeline import Pipeline
    from archon.run import Run

Fact = Literal["candidates", "verdicts", "scores", "tests"]
"""What a stage may need of those before it."""


class Count(NamedTuple):
    """At least `low`, at most `high`; `high` None is unbounded."""

    low: int
    high: int | None

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"

    def plus(self, other: Count) -> Count:
        """The sum of two counts."""
        high = None if self.high is None or other.high is None else self.high + other.high
        return Count(self.low + other.low, high)

    def times(self, factor: int) -> Count:
        """So many for each."""
        return Count(self.low * factor, None if self.high is None else self.high * factor)


NONE = Count(0, 0)


class Plan(NamedTuple):
    """What a stage will do for one problem: model calls, and candidates it passes on."""

    calls: Count
    passes: Count


class Composable:
    """What `|` and `&` combine: stages and pipelines."""

    __slots__ = ()

    def __or__(self, other: Stage | Pipeline) -> Pipeline:
        """This, then the other: a chain."""
        from archon.pipeline import chain

        return chain(self, other)  # type: ignore[arg-type]

    def __and__(self, other: Stage | Pipeline) -> Pipeline:
        """This beside the other: branches, which the next stage joins."""
        from archon.pipeline import beside

        return beside(self, other)  # type: ignore[arg-type]


Stream: TypeAlias = AsyncIterator[Candidate]
"""What flows into a stage."""
Candidates: TypeAlias = AsyncGenerator[Candidate, None]
"""What a stage's `run` is: an async generator of candidates."""


class Stage(Composable, Component):
    """A technique, or a part of one."""

    kind: ClassVar[str] = "stage"

    takes: ClassVar[bool] = True
    """Whether candidates flow into it. A source draws from the problem alone."""
    requires: ClassVar[frozenset[Fact]] = frozenset()
    """What the candidates that flow in must have."""
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})
    """What the candidates that flow out have, beside what they had."""
    ranks: ClassVar[bool] = False
    """Whether its output comes best first."""
    stops_early: ClassVar[bool] = False
    """Whether it may close its input before the end."""
    related: ClassVar[bool] = False
    """Whether its candidates depend on one another, as those of a search do: some of them are no fair draw of fewer."""

    asks_the_problem: ClassVar[bool] = False
    """Whether each of its calls asks the problem and nothing else, after its system message: then prompts are bounded
    before anything is spent. A stage that makes this more, such as with the beginning of an answer, says False."""

    budget: Budget | None = None
    """Hard limits for this stage, per problem, within those of the problem and the run."""

    @abstractmethod
    def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Take candidates, yield candidates. Write it as an async generator.

        Closing is cooperation: to return is to close the input, which cancels what is outstanding
        upstream all the way to the engine.
        """
        raise NotImplementedError

    def plan(self, incoming: Count) -> Plan:
        """Calls and candidates for so many incoming ones: exact or bounded, for estimates."""
        return Plan(NONE, Count(0, incoming.high))

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models it calls."""
        return ()

    @property
    def title(self) -> str | None:
        """What the verdicts that it attaches go by; None where it attaches none."""
        return None

    def rules(self, before: tuple[Stage, ...], after: tuple[Stage, ...]) -> Iterable[str]:
        """What is wrong with its place in a graph, given every stage before and after it.

        For rules beyond `takes` and `requires`, which are checked for every stage.
        """
        return ()

    def misplaced(self, graph: Graph, path: str) -> Iterable[Flaw]:
        """The same for rules that are about what stands beside it too, or where exactly it stands."""
        return ()


AnyStage = Annotated[Stage, Nested("stage")]
"""The type of a field that holds a stage."""
