"""Recursive self-aggregation: a population of answers, each replaced by an aggregate of a few of them, again and again.

Source: Venkatraman et al. 2025, "Recursive Self-Aggregation Unlocks Deep Thinking in Large Language Models" (arXiv
2509.26626), section 3. In every step each of N places draws k answers of the step before at random, without
replacement, and the model writes one better answer from them. The N answers of the last step flow out: vote on
them, or take one. Cost: steps × N calls, exactly, beside those for the answers that flow in.

Who is drawn in all steps is settled first, by the run's generator. So a place waits for its own k answers alone,
and steps overlap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.writing import Writing, numbered

PROMPT = """\
{question}

{answers}

Above are a question and what was tried so far to answer it: one attempt or several. They may be wrong, \
unfinished, or right in some steps only. Work out which steps hold: where attempts differ, find out who is right \
and why; where all go wrong, take another way. Use what is good in them and leave the rest. Then write one whole \
answer with the reasoning that leads to it, in the form that the question asks for, as if you had been shown no \
attempts."""


class SelfAggregate(Writing):
    """Replace a population of answers by aggregates of random subsets of it, step by step.

    A place whose call gives nothing that is whole (a budget, a failure, a reply that is blank or cut off) keeps the
    answer that it had. Place p of step s (both from 0) is candidate number s × N + p, and its parents are those it
    was made from.
    """

    related: ClassVar[bool] = True

    k: Annotated[int, Field(ge=1)] = 4
    """How many answers an aggregate is made from; with 1 each step refines a single one."""
    steps: Annotated[int, Field(ge=0)] = 4
    """How often the population is replaced."""
    n: Annotated[int, Field(ge=1)] | None = None
    """The size of the population; as many as flow in where not given."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text|replies_text", optional=("mark",))
    ] = PROMPT
    """What the model is asked for an aggregate. `{replies_text}` are the answers for models that know them as
    replies."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all that flow in; then every place as soon as it can."""
        population = sorted([c async for c in candidates], key=run.birth)
        if not population:
            return
        if not self.steps:
            for candidate in population:
                yield candidate
            return
        question = question_of(problem)
        places = [run.spawn(_itself(candidate)) for candidate in population]
        for step, drawn in enumerate(self.subsets(len(population), run)):
            places = [
                run.spawn(
                    self._aggregate(
                        run, question, step * len(drawn) + at, [places[i] for i in few], places[at : at + 1]
                    )
                )
                for at, few in enumerate(drawn)
            ]
        for finished in asyncio.as_completed(places):
            if (aggregate := await finished) is not None:
                yield aggregate

    def subsets(self, incoming: int, run: Run) -> list[list[list[int]]]:
        """By step and place, who of the step before is drawn, in the order in which they are shown."""
        n = self.n or incoming
        before = [incoming, *[n] * (self.steps - 1)] if self.steps else []
        return [[run.rng.sample(range(size), min(self.k, size)) for _ in range(n)] for size in before]

    def plan(self, incoming: Count) -> Plan:
        """Exactly one call per step and place."""
        if not self.steps or incoming.high == 0:
            return Plan(Count(0, 0), incoming)
        size = incoming if self.n is None else Count(self.n if incoming.low else 0, self.n)
        return Plan(size.times(self.steps), size)

    async def _aggregate(
        self,
        run: Run,
        question: str,
        number: int,
        few: Sequence[asyncio.Task[Candidate | None]],
        own: Sequence[asyncio.Task[Candidate | None]],
    ) -> Candidate | None:
        """An aggregate of these; what the place had before where there is none."""
        shown = [candidate for task in few if (candidate := await task) is not None]
        aggregate = None
        if shown:
            texts = [c.text for c in shown]
            posed = pose(self.prompt, question=question, answers=texts, replies=texts)
            async for written in self.write(run, posed, parents=shown, place=number):
                aggregate = numbered(written, number)
        if aggregate is None or not aggregate.text.strip() or aggregate.finish == "length":
            return (await own[0] if own else None) or aggregate
        return aggregate


async def _itself(candidate: Candidate) -> Candidate | None:
    return candidate
