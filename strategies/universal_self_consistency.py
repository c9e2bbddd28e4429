"""Universal self-consistency: the model reads all answers and picks the one that most of them agree with.

Source: Chen et al. 2023, "Universal Self-Consistency for Large Language Model Generation" (arXiv 2311.17311), section
3. It asks for agreement, not for correctness, so it works for free text, where answers have no normal form to be
counted by. Cost: 1 call, and up to `again` more where its reply cannot be read; none for one candidate.

Where the reply cannot be read, answers are counted in their normal form, as `majority_vote` does.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from archon.problem import Problem
from archon.prompting import Places, asked, choice_form, pose, question_of, read_choice
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.majority_vote import MajorityVote

PROMPT = """\
{question}

{answers}

Above are a question and answers to it that were given independently. Do not judge which of them is right. Find \
out what most of them say: which conclusion, or which points, do they have in common, in whatever words? Pick \
the answer that agrees best with the others. {form}"""


class UniversalSelfConsistency(Asking):
    """Pick the answer that a model finds most consistent with all; of equal ones the earliest."""

    ranks: ClassVar[bool] = True

    most: Annotated[int, Field(ge=2)] | None = None
    """How many answers are shown at most, the earliest; all where not given."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text", "form", optional=("mark",))
    ] = PROMPT
    """What the model is asked."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, ask once."""
        gathered = sorted([c async for c in candidates], key=run.birth)
        shown = gathered[: self.most]
        if len(shown) < 2:
            for only in shown:
                yield only
            return
        texts = [c.text for c in shown]
        n = len(shown)
        posed = pose(self.prompt, partial(choice_form, n), question=question_of(problem), answers=texts)
        said = await self.ask(run, posed, partial(read_choice, n=n, mark=posed.mark), parents=shown)
        if said.value is not None:
            yield shown[texts.index(texts[said.value])]
        else:
            yield (MajorityVote().choose(problem, gathered) or gathered)[0]

    def plan(self, incoming: Count) -> Plan:
        """One call where there is something to choose from."""
        calls = Count(int(incoming.low > 1), int(incoming.high is None or incoming.high > 1))
        passes = 1 if incoming.high is None else min(1, incoming.high)
        return Plan(asked(calls, self.again), Count(min(1, incoming.low), passes))
