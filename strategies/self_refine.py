"""Self-refine: the model says what is to be mended in its answer, and mends it, until it finds nothing more.

Source: Madaan et al. 2023, "Self-Refine: Iterative Refinement with Self-Feedback" (arXiv 2303.17651), section 2
(algorithm 1): feedback on the answer, then a new answer in sight of the earlier ones and the feedback on them; it
stops when the feedback says so, or after so many rounds. Each candidate that flows in is refined by itself.
Cost, per candidate: 1 to rounds × (2 + again) calls. A round is one call for feedback (asked again where it cannot
be read) and one for the new answer; a last round in which nothing is found to mend is feedback alone. Equal answers
get the same feedback, asked for once.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import (
    Places,
    Said,
    places_of,
    pose,
    question_of,
    read_verdict,
    read_word,
    verdict_form,
    word_form,
)
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.writing import descended, whole

FEEDBACK = """\
{question}

{answer}

Above are a question and an answer to it. Go through the answer and say what is still to be mended: what is wrong, \
what is missing of what the question asks for, what does not follow. For each point name the place, say why it is \
wrong and what would put it right. Do not write the answer anew, and do not ask for changes of taste.
The verdict is `mend` where there is something to mend, and `done` where there is nothing. {form}"""

REFINE = """\
{question}

{answers}

{remarks}

Above are a question, the answers that were given to it one after the other, and remarks: each remark is about the \
answer of the same number. Write the answer anew. Mend what the last remark names, if it is right to name it; keep \
what is good; bring nothing back that an earlier remark had removed. Reply with the whole answer, in the form that \
the question asks for, and say nothing about the remarks or about what you changed."""

_OPTIONS = ("mend", "done")


class Feedback(NamedTuple):
    """What the model says of an answer."""

    done: bool
    """Whether nothing is left to mend."""
    remark: str
    """What is."""


class SelfRefine(Asking):
    """Refine each candidate by the model's own feedback.

    One candidate flows out for each that flows in: the last answer, made from the candidate; the candidate itself
    where nothing was to be mended. Where the feedback cannot be read, or a new answer does not come, is blank or is
    cut off, the answer before stands.
    """

    rounds: Annotated[int, Field(ge=1)] = 4
    """How often an answer is refined at most."""
    context: Annotated[int, Field(ge=1)] | None = None
    """How many of the last answers, with their remarks, a new one is written in sight of; all where not given."""
    read: Literal["verdict", "word"] = "verdict"
    """How feedback is read: remarks and then a verdict, or one word for models that say no more: whether the answer
    is right, `yes` or `no`."""
    feedback_prompt: Annotated[
        str,
        Places("question|question_text", "answer|answer_text", optional=("form", "mark")),
    ] = FEEDBACK
    """What the model is asked for feedback. It has `{form}` unless a word is read."""
    refine_prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answers|answers_text|replies_text",
            optional=("remarks", "remarks_text", "form", "mark"),
        ),
    ] = REFINE
    """What it is asked for a new answer. `{replies_text}` is `{answers_text}` by another name: `Reply 1:`."""

    @model_validator(mode="after")
    def _form_is_told(self) -> SelfRefine:
        if self.read == "verdict" and "form" not in places_of(self.feedback_prompt):
            raise ValueError(
                "`feedback_prompt` has no place {form}, and a verdict is read in that form; "
                "put it in, or set `read: word`"
            )
        return self

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Each as it arrives, several at once in work."""
        taken: set[int] = set()

        async def refine(candidate: Candidate) -> tuple[Candidate, Candidate]:
            return candidate, await self._refined(problem, candidate, run)

        async for origin, refined in run.map(refine, candidates):
            yield refined if refined is origin else descended(refined, origin, taken)

    def plan(self, incoming: Count) -> Plan:
        """A call at least, where something flows in, and every round with every further question at most."""
        most = incoming.times(self.rounds * (2 + self.again))
        return Plan(Count(min(1, incoming.low), most.high), incoming)

    async def _refined(self, problem: Problem, candidate: Candidate, run: Run) -> Candidate:
        question = question_of(problem)
        answer, answers, remarks = candidate, [candidate.text], list[str]()
        for _ in range(self.rounds):
            said = await self._feedback(question, answer, run)
            if said.value is None or said.value.done:
                break
            remarks.append(said.value.remark)
            shown = -(self.context or 0)
            texts = answers[shown:]
            posed = pose(
                self.refine_prompt, question=question, answers=texts, replies=texts, remarks=remarks[shown:]
            )
            refined = await whole(self.write(run, posed, parents=(candidate,)))
            if refined is None:
                break
            answer = refined
            answers.append(refined.text)
        return answer

    async def _feedback(self, question: str, answer: Candidate, run: Run) -> Said[Feedback]:
        if self.read == "word":
            posed = pose(
                self.feedback_prompt, lambda mark: word_form(), question=question, answer=answer.text
            )
            return await self.ask(run, posed, _by_word, parents=(answer,))
        posed = pose(
            self.feedback_prompt,
            lambda mark: verdict_form(mark, _OPTIONS),
            question=question,
            answer=answer.text,
        )
        return await self.ask(run, posed, partial(_by_verdict, mark=posed.mark), parents=(answer,))


def _by_verdict(text: str, mark: str) -> Feedback:
    """Remarks, and then the verdict in the last line."""
    verdict = read_verdict(text, _OPTIONS, mark)
    lines = text.splitlines()
    last = max(i for i, line in enumerate(lines) if mark in line)
    return Feedback(verdict == "done", "\n".join(lines[:last]).strip())


def _by_word(text: str) -> Feedback:
    """Whether the answer is right."""
    return Feedback(read_word(text) == "yes", "It is not right.")
