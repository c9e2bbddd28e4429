"""Back-translation: an answer is described in words, and written anew from the description alone.

Source: Wang et al. 2024, "Planning In Natural Language Improves LLM Search For Code Generation" (arXiv 2409.03733),
where it shows how much of a solution its description carries, and is a baseline of PlanSearch. Cost: for each
candidate 1 + n calls, the first with up to `again` more where nothing is written or it is cut off.

Who writes anew sees the question and the description, never the answer that was described. An answer of which nothing
is written anew passes as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from archon.candidate import Candidate
from archon.code import program_of
from archon.problem import Problem
from archon.prompting import Places, asked, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.idea_search import FromIdeas

DESCRIBE = """\
{question}

{solution}

Above are a question and a solution. Describe in words how the solution goes about it: the approach, its \
steps in their order, and what it does in the cases that are easily forgotten. Somebody who has the question \
and your description, and has not seen the solution, should arrive at the same. Describe what it does, also \
where that is wrong. Write no code and no final result. {length}"""


class BackTranslate(FromIdeas):
    """Describe each candidate and write it anew n times; the description is the note `plan` of what is written."""

    n: Annotated[int, Field(ge=1)] = 1
    """How often each is written anew."""
    words: Annotated[int, Field(ge=1)] | None = None
    """How many words a description may have; as many as it takes where not given."""
    keep_inputs: bool = False
    """Whether the candidates pass too, each before what is written from it."""
    describe_prompt: Annotated[
        str, Places("question|question_text", "solution|solution_text", optional=("length",))
    ] = DESCRIBE
    """What asks for a description."""
    ahead: Annotated[int, Field(ge=1)] = 16
    """How many candidates are in work at once."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """What is written flows on in the order of the candidates."""

        async def rewritten(candidate: Candidate) -> Sequence[Candidate]:
            return await self._rewritten(problem, candidate, run)

        async for several in run.map(rewritten, candidates, ahead=self.ahead):
            for candidate in several:
                yield candidate

    def plan(self, incoming: Count) -> Plan:
        """Nothing is written anew from a description that stays empty."""
        described = asked(incoming, self.again)
        written = incoming.times(self.n)
        calls = described.plus(Count(0, written.high))
        passes = incoming.times(self.n + self.keep_inputs)
        return Plan(calls, Count(incoming.low, passes.high))

    async def _rewritten(self, problem: Problem, candidate: Candidate, run: Run) -> Sequence[Candidate]:
        length = "" if self.words is None else f"Use at most {self.words} words."
        solution = program_of(problem, candidate.text) if problem.answer == "code" else None
        posed = pose(
            self.describe_prompt,
            given={"length": length},
            question=question_of(problem),
            solution=solution or candidate.text,
        )
        told = await self.tell(run, posed, parents=(candidate,), draw=candidate.index)
        kept = (candidate,) if self.keep_inputs else ()
        if not told.text:
            return (candidate,)
        draw = self.solve(run, problem, told.text, self.n, parents=(candidate, *told.replies))
        written = [solution.with_note("plan", told.text) async for solution in draw]
        written.sort(key=lambda solution: solution.index)
        return (*kept, *written) if written else (candidate,)
