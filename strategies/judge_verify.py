"""A model reasons whether each candidate is right, then decides on those reasons; what is right goes on.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the verifier first writes why a candidate
is right, then, shown the candidate and that, gives its verdict. Where no candidate is right the paper says nothing;
its code lets all of them go on, and so do we, unless `if_none` says otherwise. Its code drops candidates whose verdict
cannot be read; here they go on undecided. Its option `first_k` is `first`.

Cost: 2 calls per candidate, one after the other, each with up to `again` more. Equal candidates are judged once, and
empty ones are wrong without a call. A prompt without `{reasons}` asks for the verdict alone: 1 call per candidate.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archon.candidate import Candidate, Verdict
from archon.problem import Problem
from archon.prompting import (
    Places,
    asked,
    no_form,
    places_of,
    read_verdict,
    read_word,
    verdict_form,
)
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.layers import Layer, Shown, judged, read_words, unread

REASONS_PROMPT = """\
An answer was given to a question.

{question}

{answer}

Go through it step by step. For each step write what speaks for its being right, working it out yourself, and where you
find nothing that does, write that. Compare what the answer arrives at with what is asked. Give no verdict yet."""
PROMPT = """\
Is this answer to this question right?

{question}

{answer}

Somebody went through it, and wrote this:

{reasons}

Check these reasons too: they may be wrong, or believe the answer more than they should. Yes is for an answer that is
right and does what is asked; no is for any other. Decide after a short reason. {form}"""


class JudgeVerify(Layer):
    """Keep the candidates that a model finds right, after it has reasoned about each.

    Candidates flow through as they are judged; those that are undecided go on.
    """

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "verdicts", "scores"})

    if_none: Literal["all", "none"] = "all"
    """What goes on where every candidate is found wrong."""
    first: Annotated[int, Field(ge=1)] | None = None
    """Judge one candidate after the other, the best or earliest first and no more at once than are still wanted, until
    so many are found right; the others do not go on."""
    reasons_prompt: Annotated[str, Places("question|question_text", "answer|answer_text")] = REASONS_PROMPT
    """Asks for reasons."""
    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answer|answer_text",
            optional=("reasons", "reasons_text", "form"),
        ),
    ] = PROMPT
    """Asks for a verdict, on the reasons where it has a place for them. Without `{form}` the reply is one word, yes or
    no."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Judge each as it arrives; with `first`, wait for all."""
        rejected: list[Candidate] = []
        some = False
        judge = partial(self._verdict, problem, run)
        async with aclosing(judged(self, judge, candidates, run, self.first)) as stream:
            async for candidate, verdict in stream:
                if verdict.accepted is False:
                    rejected.append(candidate)
                else:
                    some = True
                    yield candidate
        if not some and self.if_none == "all":
            for candidate in rejected:
                yield candidate

    def plan(self, incoming: Count) -> Plan:
        """Exact for answers that differ and replies that can be read, unless only the `first` are wanted."""
        least = incoming.low if self.first is None else min(self.first, incoming.low)
        calls = Count(least, incoming.high).times(1 + self._reasons)
        passes = Count(min(1, incoming.low) if self.if_none == "all" else 0, incoming.high)
        return Plan(asked(calls, self.again), passes)

    @property
    def _reasons(self) -> bool:
        """Whether reasons are asked for: whether the prompt has a place for them."""
        return not {"reasons", "reasons_text"}.isdisjoint(places_of(self.prompt))

    async def _verdict(self, problem: Problem, run: Run, candidate: Candidate) -> Verdict:
        if not candidate.text.strip():
            return Verdict(self.name, False, 0.0, "fraction", "wrong", "the answer is empty")
        alone = Shown(problem, (candidate,), ())
        reasons: dict[str, str] = {}
        if self._reasons:
            why = await self.ask(
                run, alone.posed_alone(self.reasons_prompt, no_form), read_words, parents=(candidate,)
            )
            if why.value is None:
                return Verdict(self.name, None, scale="fraction", detail=unread(why.why))
            reasons["reasons"] = why.value
        by_word = "form" not in places_of(self.prompt)
        posed = alone.posed_alone(self.prompt, no_form if by_word else verdict_form, **reasons)
        read = read_word if by_word else partial(read_verdict, mark=posed.mark)
        said = await self.ask(run, posed, read, parents=(candidate,))
        if said.value is None:
            return Verdict(self.name, None, scale="fraction", detail=unread(said.why))
        right = said.value == "yes"
        return Verdict(self.name, right, float(right), "fraction", "passed" if right else "wrong")
