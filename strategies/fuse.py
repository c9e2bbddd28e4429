"""A model writes one answer out of several.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the fuser sees all candidates, and their
critiques, and its own answers alone go on; several fuser models are several stages side by side, and layers of
fusers follow one another, as in Wang et al. 2024, "Mixture-of-Agents" (arXiv 2406.04692). Cost: n calls.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from archon.problem import Problem
from archon.prompting import Places, no_form
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.strategies.archon_rules import ArchonComponent
from archon.strategies.layers import CRITIQUE, Shown, at_most, best_first
from archon.strategies.writing import Writing

PROMPT = """\
Several answers were given to one question. Some may be wrong, in part or in all.

{question}

{answers}
{critiques}

Write one answer to the question that is better than each of these. Find out where they differ, and settle what is
right there yourself, however many of them say otherwise. Take over what is right and useful in any of them, and none
of their mistakes. Where an answer has a critique, check it before you trust it. Write only the answer, in the form that
the question asks for: say nothing of these answers or of how yours came about."""


class Fuse(ArchonComponent, Writing):
    """Make n new answers out of all candidates; what was fused is behind.

    Where nothing is written, as the budget ran out or every call failed, the best candidate goes on. A reply is an
    answer as it is, unless it is empty.
    """

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    n: Annotated[int, Field(ge=1)] = 1
    """How many answers to write."""
    most: Annotated[int, Field(ge=1)] | None = None
    """How many candidates are fused at most: the best by their last verifier's score, the earliest where they have
    none; all where not given."""
    keep_inputs: bool = False
    """Pass on the candidates too, after what was made of them, for a stage that chooses among all."""
    notes: tuple[str, ...] = (CRITIQUE,)
    """Which notes on a candidate are shown as its critique."""
    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answers|answers_text|replies_text",
            optional=("critiques", "critiques_text"),
        ),
    ] = PROMPT
    """Asks for an answer. `{replies_text}` are the answers for models that know them as replies (lab/formats)."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all; answers flow on as they are written."""
        arrived = [candidate async for candidate in candidates]
        if not arrived:
            return
        best = best_first(arrived, run)
        shown = Shown(problem, tuple(best[: self.most]), self.notes)
        written = False
        posed = shown.posed(self.prompt, no_form)
        async for answer in self.write(run, posed, self.n, parents=shown.candidates):
            if answer.text.strip():
                written = True
                yield answer
        if self.keep_inputs:
            for candidate in arrived:
                yield candidate
        elif not written:
            yield best[0]

    def plan(self, incoming: Count) -> Plan:
        """n calls and n answers where anything comes in; fewer where a budget ends it, or a reply is empty."""
        some = at_most(incoming, 1)
        calls = some.times(self.n)
        if self.keep_inputs:
            return Plan(calls, incoming.plus(Count(0, calls.high)))
        return Plan(calls, Count(some.low, calls.high))

    def rules(self, before: tuple[Stage, ...], after: tuple[Stage, ...]) -> tuple[str, ...]:
        """What is fused and what was made of it go on together only where something chooses."""
        if self.keep_inputs and not after:
            return (
                f"{self.name!r} with `keep_inputs` passes on what it fused beside what it made of it, and "
                "nothing after it chooses; put a stage such as `rank` after it",
            )
        return ()
