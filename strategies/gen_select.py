"""Generative selection: a model compares candidates side by side and picks the best.

Source: Toshniwal et al. 2025, "GenSelect: A Generative Approach to Best-of-N" (arXiv 2507.17797): the model reasons
over several candidates at once instead of scoring each or comparing pairs; where there are more than fit, winners
meet again, in a knockout. Cost: votes × comparisons(candidates, window) calls, each with up to `again` more where a
reply cannot be read; no call for one candidate.

A comparison is decided by the most of its votes; of equal ones the earlier candidate wins, and where no vote can be
read, the earliest. Each vote sees the candidates in another order, as models favour places (Zheng et al. 2023, arXiv
2306.05685, section 3.3).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, ClassVar, TypeAlias

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, asked, choice_form, pose, question_of, read_choice
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.asking import Asking

PROMPT = """\
{question}

{answers}

Above are a question and several answers to it. Exactly one of them is to be picked: the best, which means right \
first, then complete. Compare them with each other: where do they differ, and who is right there? Check the \
steps that decide it yourself. How sure, how long or how frequent an answer is says nothing. {form}"""

Entrant: TypeAlias = "Candidate | asyncio.Task[Candidate]"
"""A candidate, or the winner of a comparison to come."""


class GenSelect(Asking):
    """Pick one candidate by comparing up to `window` at once; nothing new is written."""

    ranks: ClassVar[bool] = True

    window: Annotated[int, Field(ge=2)] = 8
    """How many candidates are compared at once, at most."""
    votes: Annotated[int, Field(ge=1)] = 1
    """How often each comparison is made."""
    rotate: bool = True
    """Whether each vote sees the candidates in another order."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text", "form", optional=("mark",))
    ] = PROMPT
    """What the model is asked for one comparison."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all; a comparison begins when its own candidates are known."""
        entrants: list[Entrant] = [*sorted([c async for c in candidates], key=run.birth)]
        question, number = question_of(problem), 0
        for sizes in rounds(len(entrants), self.window):
            winners: list[Entrant] = []
            for size in sizes:
                group, entrants = entrants[:size], entrants[size:]
                if size == 1:
                    winners += group
                    continue
                winners.append(run.spawn(self._compare(run, question, group, number)))
                number += 1
            entrants = winners
        for winner in entrants:
            yield await _settled(winner)

    def plan(self, incoming: Count) -> Plan:
        """One candidate passes."""
        least = self.votes * comparisons(incoming.low, self.window)
        most = None if incoming.high is None else self.votes * comparisons(incoming.high, self.window)
        passes = 1 if incoming.high is None else min(1, incoming.high)
        return Plan(asked(Count(least, most), self.again), Count(min(1, incoming.low), passes))

    async def _compare(self, run: Run, question: str, group: Sequence[Entrant], number: int) -> Candidate:
        """The winner of a comparison."""
        shown = [await _settled(entrant) for entrant in group]
        ballots = await run.gather(
            *(
                self._vote(run, question, shown, vote, number * self.votes + vote)
                for vote in range(self.votes)
            )
        )
        texts = [c.text for c in shown]
        first = Counter(texts.index(texts[one]) for one in ballots if one is not None)  # equal ones are one
        return shown[max(first, key=lambda one: (first[one], -one), default=0)]

    async def _vote(
        self, run: Run, question: str, shown: Sequence[Candidate], vote: int, draw: int
    ) -> int | None:
        """Who gets this vote; None where it cannot be read."""
        n = len(shown)
        shift = vote * max(1, n // self.votes) if self.rotate else 0
        order = [(i + shift) % n for i in range(n)]
        posed = pose(
            self.prompt,
            partial(choice_form, n),
            question=question,
            answers=[shown[i].text for i in order],
        )
        said = await self.ask(
            run, posed, partial(read_choice, n=n, mark=posed.mark), parents=shown, draw=draw
        )
        return None if said.value is None else order[said.value]


def rounds(candidates: int, window: int) -> Iterator[list[int]]:
    """The sizes of each round's groups, as even as can be: the fewest groups that hold at most `window` each."""
    while candidates > 1:
        groups = -(-candidates // window)
        least, larger = divmod(candidates, groups)
        yield [least + 1] * larger + [least] * (groups - larger)
        candidates = groups


def comparisons(candidates: int, window: int) -> int:
    """How many comparisons it takes until one candidate is left; who is alone in a group goes on without one."""
    total = 0
    while candidates > 1:
        groups = -(-candidates // window)
        total += min(groups, candidates - groups)  # as many groups as hold two and more
        candidates = groups
    return total


async def _settled(entrant: Entrant) -> Candidate:
    return entrant if isinstance(entrant, Candidate) else await entrant
