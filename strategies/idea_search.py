"""IdeaSearch: an idea in words first, then a solution that follows it; n times.

Source: Wang et al. 2024, "Planning In Natural Language Improves LLM Search For Code Generation" (arXiv 2409.03733),
the baseline between repeated sampling and PlanSearch. Cost: 2n calls (fewer requests where the server takes n > 1: the
ideas are drawn together); each idea's with up to `again` more where nothing is written or it is cut off.

An idea that stays empty is left out: its solution is an answer to the question itself, as repeated sampling gives it.
Where there is no reply at all, as a budget ran out or the call failed, there is no solution either.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from archon.candidate import Candidate
from archon.draw import Draw
from archon.problem import Problem
from archon.prompting import Asked, Places, Posed, Said, Unread, asked, chat, followed, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.chains import AHEAD, Emit, begins_with_few, chained, cut_short, requests_left

IDEA = """\
{question}

Do not answer this yet. Describe in words how it can be solved: the approach, its steps in their order, why \
they arrive at what is asked for, and what is done about the cases that are easily forgotten. Somebody who \
has only your description should be able to carry it out without another idea. Write no program and no final \
result."""
SOLVE = """\
{question}

{idea}

Answer the question by carrying this idea out. Where it leaves something open, decide; where it cannot be \
right, do what is right. {form}"""


class Told(NamedTuple):
    """What a model wrote at one step."""

    text: str
    """Empty where it wrote nothing."""
    replies: tuple[Candidate, ...] = ()
    """Its reply, for the lineage of what is made of it; none where a budget ran out or the call failed."""


class FromIdeas(Asking):
    """What techniques that write a solution from an idea have in common."""

    writer: str | None = None
    """Which model writes the solutions; the one that has the ideas where not given."""
    solve_prompt: Annotated[str, Places("question|question_text", "idea|idea_text", optional=("form",))] = (
        SOLVE
    )
    """What asks for a solution, given an idea."""

    @property
    def models(self) -> tuple[str, ...]:
        """Who has the ideas, and who writes."""
        return tuple(dict.fromkeys((self.model, self.writer or self.model)))

    async def tell(self, run: Run, posed: Posed, *, parents: Sequence[Candidate] = (), draw: int = 0) -> Told:
        """Have something written in words. What is cut off to the end is taken as it is."""
        return _told(await self.ask(run, posed, read_words, parents=parents, draw=draw))

    async def follow(self, run: Run, posed: Posed, reply: Candidate) -> Told:
        """The same, given the first reply."""
        question = Asked(self.model, chat(posed.text, self.system), self.sampling, self.again, posed.form)
        return _told(await followed(run, question, read_words, reply))

    def solve(
        self, run: Run, problem: Problem, idea: str, n: int = 1, *, parents: Sequence[Candidate] = ()
    ) -> Draw:
        """Draw n solutions that follow an idea; without an idea, n answers to the problem."""
        model = self.writer or self.model
        if not idea:
            return run.sample(model, n=n, sampling=self.sampling, parents=parents)
        posed = pose(
            self.solve_prompt, lambda _: solution_form(problem), question=question_of(problem), idea=idea
        )
        return self.write(run, posed, n, parents=parents, model=model)


class IdeaSearch(FromIdeas):
    """Have n ideas, and write a solution from each; solutions flow on as they arrive, the idea as their note `plan`."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    n: Annotated[int, Field(ge=0)] = 1
    """How many ideas, and so solutions."""
    idea_prompt: Annotated[str, Places("question|question_text")] = IDEA
    """What asks for an idea."""
    ahead: Annotated[int, Field(ge=1)] = AHEAD
    """How many ideas are in work at once."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Ideas are drawn together, and each solution is asked for as soon as its idea is there."""
        posed = pose(self.idea_prompt, question=question_of(problem))
        left = requests_left(run)
        n = self.n if left is None else min(self.n, left // 2)
        if n < self.n:
            cut_short(run)

        async def from_idea(reply: Candidate, emit: Emit) -> None:
            idea = await self.follow(run, posed, reply)
            async for solution in self.solve(run, problem, idea.text, parents=idea.replies):
                emit(solution.with_note("plan", idea.text) if idea.text else solution)

        async def from_none(number: int, emit: Emit) -> None:
            async for reply in self.write(run, posed):
                await from_idea(reply, emit)

        if begins_with_few(run):  # each idea when its turn has come
            chains = chained(run, _numbers(n), from_none, ahead=self.ahead)
        else:
            chains = chained(run, self.write(run, posed, n), from_idea, ahead=self.ahead)
        async with aclosing(chains) as solutions:
            async for solution in solutions:
                yield solution

    def plan(self, incoming: Count) -> Plan:
        """n ideas, n solutions."""
        n = Count(self.n, self.n)
        return Plan(asked(n, self.again).plus(n), n)


def read_words(text: str) -> str:
    """A reply that says something. Raises Unread."""
    if not text.strip():
        raise Unread("it is empty")
    return text.strip()


def solution_form(problem: Problem) -> str:
    """What a solution must look like: a program in a block, an answer as the question wants it."""
    if problem.answer != "code":
        return "Write the answer out in full, and end it in the way that the question asks for."
    name = problem.entry_point
    what = f"The program defines `{name}`. " if name and name.isidentifier() else ""
    return f"{what}Put the whole program, with all that it imports, into one Python code block (```python)."


def _told(said: Said[str]) -> Told:
    text = next((c.text.strip() for c in reversed(said.candidates) if c.text.strip()), "")
    return Told(text, said.candidates[-1:])


async def _numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number
