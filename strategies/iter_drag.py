"""Iterative demonstration-based RAG: the model asks follow-up questions, and documents are retrieved for each.

Source: Yue et al. 2024, "Inference Scaling for Long-Context Retrieval Augmented Generation" (arXiv 2410.04343),
section 3. In each iteration the model asks for what is missing; documents are retrieved for that and put beside those
before; then it answers its own question from them. When nothing is missing, or after `iterations`, it answers the
question. Examples show such steps. Cost: for each of n answers, 1 call where nothing is asked, and at most
2 × iterations + 1; each follow-up is asked for up to `again` more times where it cannot be read.

A follow-up that is empty of news (asked before) and one that cannot be read end the iterations: the answer is asked
for. Where even that gives nothing (a budget, a failure), the last thing the model said is the answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, Posed, Unread, no_form, pose, read_section
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.chains import AHEAD, Emit, chained
from archon.strategies.drag import Example, Retrieving, Step
from archon.strategies.writing import numbered

STEP_PROMPT = """\
{examples}

{documents}

{question}

{steps}

The question is to be answered with what the documents say. Follow-up questions that were asked on the way, if \
any, are shown with their answers, which may be wrong. Examples, if any, show how such questions are taken \
apart. Is anything missing that must be looked up first? Then ask one short question for it, which can be \
understood by itself and was not asked before. If not, answer as the examples do. {form}"""

FOLLOW_UP_PROMPT = """\
{examples}

{documents}

{question}

{steps}

{follow_up}

To answer the question, this follow-up question was asked. Answer the follow-up question alone, briefly, with \
what the documents say; the last ones were looked up for it. If they do not say, say so."""

PROMPT = """\
{examples}

{documents}

{question}

{steps}

Answer the question with what the documents say and with what was found out on the way, if anything, which may \
be wrong. Answer as the examples do, if there are any, and write nothing else."""

_MATERIAL = ("examples", "examples_text", "steps", "steps_text", "mark")
_LONGEST = 500
"""Characters of a follow-up question."""


class Next(NamedTuple):
    """What comes next: a follow-up question, or the answer."""

    follow_up: str = ""
    answer: str = ""


class IterDrag(Retrieving):
    """Answer in iterations of asking and retrieving."""

    ahead: Annotated[int, Field(ge=1)] = AHEAD
    """How many answers are in work at once."""
    iterations: Annotated[int, Field(ge=0)] = 5
    """How many follow-up questions may be asked."""
    step_prompt: Annotated[
        str, Places("question|question_text", "documents|documents_text", "form", optional=_MATERIAL)
    ] = STEP_PROMPT
    """What the model is asked for the next step."""
    follow_up_prompt: Annotated[
        str,
        Places(
            "follow_up|follow_up_text",
            "documents|documents_text",
            optional=("question", "question_text", *_MATERIAL),
        ),
    ] = FOLLOW_UP_PROMPT
    """What the model is asked for the answer to its follow-up question."""
    prompt: Annotated[
        str, Places("question|question_text", "documents|documents_text", optional=_MATERIAL)
    ] = PROMPT
    """What the model is asked for the answer when no more may be looked up."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Each answer flows on when it is there."""
        examples = await self.demonstrations(problem, run)
        documents = await self.documents(problem, problem.question, run)

        async def work(draw: int, emit: Emit) -> None:
            if (answer := await self._answer(problem, run, examples, documents, draw)) is not None:
                emit(answer)

        async with aclosing(chained(run, _numbers(self.n), work, ahead=self.ahead)) as answers:
            async for answer in answers:
                yield answer

    def shown(self, example: Example) -> str:
        """Its question, what was asked on the way, and its answer."""
        return "\n\n".join(
            (f"Question: {example.question}", *map(_told, example.steps), f"Answer: {example.answer}")
        )

    def plan(self, incoming: Count) -> Plan:
        """From an answer at once to one after all iterations; n of them."""
        return Plan(Count(1, self._most_calls).times(self.n), Count(self.n, self.n))

    @property
    def _most_calls(self) -> int:
        """For one answer."""
        return self.iterations * (2 + self.again) + 1

    async def _answer(
        self, problem: Problem, run: Run, examples: Sequence[str], found: Sequence[str], draw: int
    ) -> Candidate | None:
        """One answer, whose replies have numbers of their own."""
        question, numbers = self.question(problem), count(draw * self._most_calls)
        documents, steps = [*found], list[Step]()
        said: list[Candidate] = []

        def posed(template: str, form: Callable[[str], str] = no_form, **more: Any) -> Posed:
            told = [_told(step) for step in steps]
            return pose(
                template,
                form,
                examples=examples,
                documents=documents,
                question=question,
                steps=told,
                **more,
            )

        async def written(posed: Posed) -> list[Candidate]:
            return [numbered(c, next(numbers)) async for c in self.write(run, posed, parents=said)]

        def finished(candidate: Candidate) -> Candidate:
            return candidate.with_note(run.stage, "\n\n".join(map(_told, steps))) if steps else candidate

        while len(steps) < self.iterations:
            step = posed(self.step_prompt, step_form)
            then = await self.ask(run, step, partial(read_step, mark=step.mark), parents=said, draw=draw)
            said += [numbered(c, next(numbers)) for c in then.candidates]
            if then.value is None:
                break
            if then.value.answer:
                return finished(replace(said[-1], text=then.value.answer, logprobs=None))
            follow_up = then.value.follow_up
            if any(_same(follow_up, before.question) for before in steps):
                break
            more = await self.documents(problem, follow_up, run)
            documents += [text for text in more if text not in documents]
            replies = await written(posed(self.follow_up_prompt, follow_up=follow_up))
            if not replies:
                break
            said += replies
            steps.append(Step(question=follow_up, answer=replies[0].text))
        last = await written(posed(self.prompt)) or said[-1:]
        return finished(last[0]) if last else None


def step_form(mark: str) -> str:
    """For `read_step`."""
    return (
        f"To ask, end with one line and nothing after it: `Follow up {mark}: QUESTION`. To answer, write a line "
        f"`ANSWER {mark}`, then the answer and nothing else, then a line `END OF ANSWER {mark}`."
    )


def read_step(text: str, mark: str) -> Next:
    """The follow-up question that the last line asks, or the answer that is marked. Raises Unread."""
    lines = [line.strip(" \t*_`\"'#") for line in text.splitlines() if line.strip()]
    label, colon, rest = lines[-1].partition(":") if lines else ("", "", "")
    asks = bool(colon) and label.strip(" *_`").casefold().split() == ["follow", "up", mark.casefold()]
    try:
        answer = read_section(text, "ANSWER", mark)
    except Unread:
        answer = ""
    if asks and answer:
        raise Unread("it both asks and answers")
    if answer:
        return Next(answer=answer)
    if not asks:
        raise Unread(f"it has neither a last line `Follow up {mark}: ...` nor a line `ANSWER {mark}`")
    follow_up = " ".join(rest.strip(" *_`").split())
    if not follow_up or len(follow_up) > _LONGEST:
        raise Unread(f"its follow-up question is empty, or longer than {_LONGEST} characters")
    return Next(follow_up=follow_up)


def _told(step: Step) -> str:
    return f"Follow up: {step.question}\nIntermediate answer: {step.answer}"


def _same(one: str, other: str) -> bool:
    return one.casefold().split() == other.casefold().split()


async def _numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number
