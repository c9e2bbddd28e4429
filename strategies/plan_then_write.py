"""Plan, then write: long texts, section by section, by a plan that says how long each section is.

Source: Bai et al. 2024, "LongWriter: Unleashing 10,000+ Word Generation from Long Context LLMs" (arXiv 2408.07055),
section 3 (AgentWrite). One call plans: what each section says and in how many words. Then the sections are written
one after the other, each with the plan and everything written so far in view. The text is the sections, joined.
Cost: n × (1 + sections) calls; a plan has at most `most` sections and is asked for up to `again` more times.

What is measured is length: words written of words wanted, for each section and the whole, with LongWriter's length
score (`length_score`). It is in the candidate's notes and the trace. Sections whose calls gave nothing
are left out, and a text that lacks one counts as cut off. Without a plan that can be read the text is written at once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, json_form, pose, question_of, read_json
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.chains import AHEAD, Emit, chained
from archon.strategies.writing import numbered
from archon.usage import total

PLAN_PROMPT = """\
{question}

A text is to be written for this request. It will be written section by section, by writers who see your plan \
and what is written before them. Make the plan: for each section, in order, what it says, exactly enough that no \
two sections say the same, and how many words it has. A section has between 200 and 1000 words, unless the whole \
is shorter. The words of all sections together make the length that the request asks for. Plan at most {most} \
sections. {form}"""

PROMPT = """\
{question}

{plan}

{written}

A text is being written for this request by this plan; what is written so far, if anything, is shown too. Write \
the next section, number {number} of {sections}:

{section}

Write about {words} words. Go on where the text ends and repeat nothing of it; do not conclude before the last \
section. Reply with the section itself and nothing else."""


class Section(BaseModel, frozen=True):
    """One section of a plan."""

    point: Annotated[str, Field(min_length=1, description="what the section says")]
    words: Annotated[int, Field(ge=1, le=100_000, description="how many words it has")]


class Outline(BaseModel, frozen=True):
    """The sections of a text, in order."""

    sections: Annotated[tuple[Section, ...], Field(min_length=1)]


class PlanThenWrite(Asking):
    """Plan a text's sections with their lengths, then write one after the other."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    n: Annotated[int, Field(ge=0)] = 1
    """How many texts, each by a plan of its own."""
    ahead: Annotated[int, Field(ge=1)] = AHEAD
    """How many texts are in work at once."""
    most: Annotated[int, Field(ge=1)] = 30
    """How many sections a plan has at most; those beyond become part of the last."""
    plan_prompt: Annotated[str, Places("question|question_text", "form", optional=("most", "mark"))] = (
        PLAN_PROMPT
    )
    """What the model is asked for a plan."""
    prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "section|section_text",
            optional=("plan", "plan_text", "written", "written_text", "number", "sections", "words", "mark"),
        ),
    ] = PROMPT
    """What the model is asked for a section."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Each text flows on when it is finished."""

        async def work(draw: int, emit: Emit) -> None:
            if (text := await self._text(problem, run, draw)) is not None:
                emit(text)

        async with aclosing(chained(run, _numbers(self.n), work, ahead=self.ahead)) as texts:
            async for text in texts:
                yield text

    def plan(self, incoming: Count) -> Plan:
        """From a plan of one section to one of the most; n texts."""
        return Plan(Count(2, self._most_calls).times(self.n), Count(self.n, self.n))

    @property
    def _most_calls(self) -> int:
        """For one text."""
        return 1 + self.again + self.most

    async def _text(self, problem: Problem, run: Run, draw: int) -> Candidate | None:
        """One text, whose replies have numbers of their own."""
        question, numbers = question_of(problem), count(draw * self._most_calls)
        posed = pose(self.plan_prompt, _form, given={"most": str(self.most)}, question=question)
        said = await self.ask(run, posed, partial(read_json, model=Outline), draw=draw)
        planning = [numbered(c, next(numbers)) for c in said.candidates]
        if said.value is None:
            whole = [c async for c in run.sample(self.model, sampling=self.sampling, parents=planning)]
            noted = [c.with_note(run.stage, f"There was no plan: {said.why}.") for c in whole]
            return numbered(noted[0], next(numbers)) if noted else None
        sections = _at_most(said.value.sections, self.most)
        outline = "\n".join(f"{i}. ({s.words} words) {s.point}" for i, s in enumerate(sections, 1))
        replies: list[Candidate | None] = []
        for number, section in enumerate(sections, 1):
            so_far = [reply for reply in replies if reply is not None and reply.text.strip()]
            posed = pose(
                self.prompt,
                given={"number": str(number), "sections": str(len(sections)), "words": str(section.words)},
                question=question,
                plan=outline,
                written="\n\n".join(reply.text.strip() for reply in so_far),
                section=section.point,
            )
            drawn = [c async for c in self.write(run, posed, parents=(*planning, *so_far))]
            replies.append(numbered(drawn[0], next(numbers)) if drawn else None)
        return self._joined(run, planning, sections, replies)

    def _joined(
        self,
        run: Run,
        planning: Sequence[Candidate],
        sections: Sequence[Section],
        replies: Sequence[Candidate | None],
    ) -> Candidate | None:
        """The sections as one candidate, with what is measured of them."""
        written = [reply for reply in replies if reply is not None and reply.text.strip()]
        if not written:
            return None
        counts = [0 if reply is None else words_of(reply.text) for reply in replies]
        wanted = [section.words for section in sections]
        lengths = [
            f"Section {i}: {got} of {want} words"
            for i, (got, want) in enumerate(zip(counts, wanted, strict=True), 1)
        ]
        score = length_score(sum(counts), sum(wanted))
        run.trace("lengths", words=counts, wanted=wanted, score=score)
        texts = [reply.text.strip() for reply in written]
        whole = len(written) == len(sections) and all(reply.finish != "length" for reply in written)
        last = written[-1]
        return replace(
            last,
            text="\n\n".join(texts),
            steps=(*(f"{text}\n\n" for text in texts[:-1]), texts[-1]),
            parents=tuple(c.id for c in (*planning, *written[:-1])),
            finish=last.finish if whole else "length",
            logprobs=None,
            usage=total(c.usage for c in (*planning, *(r for r in replies if r is not None))),
        ).with_note(
            run.stage,
            "\n".join((f"{sum(counts)} of {sum(wanted)} words, length score {score:.0f} of 100", *lengths)),
        )


def length_score(words: int, wanted: int) -> float:
    """LongWriter's score of a length: 100 as wanted, 0 at four times and at a third of it, linear in the ratio."""
    if words <= 0:
        return 0.0
    excess = (words / wanted - 1) / 3 if words > wanted else (wanted / words - 1) / 2
    return 100 * max(0.0, 1 - excess)


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\s\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")


def words_of(text: str) -> int:
    """How many words a text has: what stands between spaces, and each kana or Han character."""
    return sum(1 for _ in _WORD.finditer(text))


def _form(mark: str) -> str:
    return json_form(Outline)


def _at_most(sections: Sequence[Section], most: int) -> tuple[Section, ...]:
    """The sections, those beyond the most put into the last one."""
    if len(sections) <= most:
        return tuple(sections)
    *kept, last = sections[:most]
    beyond = (last, *sections[most:])
    together = Section(
        point="; ".join(s.point for s in beyond), words=min(100_000, sum(s.words for s in beyond))
    )
    return (*kept, together)


async def _numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number
