"""Chain of verification: an answer is checked by questions of its own, answered apart from it, and written anew.

Source: Dhuliawala et al. 2023, "Chain-of-Verification Reduces Hallucination in Large Language Models" (arXiv
2309.11495), section 3. For each answer that flows in (the baseline): plan verification questions; answer them;
check the answer against what was found; write the verified answer. `factored` answers each question by itself,
without the baseline, so that its mistakes are not repeated; with `check`, each finding is compared with the baseline
in a call of its own (the paper's factor+revise). `joint` plans and answers in one call.
Cost, per candidate, with q ≤ `questions` questions and not counting what is asked again: factored 1 + q + 1, with
`check` 1 + 2q + 1; joint 1 + 1, with `check` 1 + q + 1. Equal questions are asked once per problem.

The paper asks for the verified answer always; with `rewrite: inconsistent` it is asked for only where a check did not
find the baseline consistent. The paper's verification questions stand for themselves; ours are shown the question
that was asked too (a template without `{question}` leaves it out), since they may be about what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import (
    Places,
    Unread,
    items_form,
    json_form,
    no_form,
    pose,
    question_of,
    read_items,
    read_json,
    read_verdict,
    verdict_form,
)
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.writing import descended, whole

PLAN = """\
{question}

{answer}

Above are a question and an answer to it, some of which may be false. Plan how to check it: write questions whose \
answers would show what in it is false, one for each statement or step on which it stands, the most important first. \
A question must be understood, and answered, by someone who has not seen the answer, so say in it all that it is \
about. Ask for the fact itself and not whether the answer is right about it, for a leading question invites a yes. \
Do not answer them. {form}"""

JOINT = """\
{question}

{answer}

Above are a question and an answer to it, some of which may be false. Check it: write questions whose answers would \
show what in it is false, one for each statement or step on which it stands, the most important first and {most} at \
most; and answer each from what you know and can work out, as if you had not seen the answer. {form}"""

ANSWER = """\
{question}

{check}

Answer the check, briefly and with the reason for what you say. It came up while somebody answered the question, which \
is shown only for what it says of the matter: do not answer that. Where you do not know, say so."""

CHECK = """\
{question}

{answer}

{check}

{finding}

Above are a question and an answer to it; then a question that was asked to check the answer, and what was found, by \
someone who did not see the answer. Does what the answer says agree with the finding? The verdict is `consistent` \
where it does, or says nothing about it; `inconsistent` where it contradicts it; `unclear` where the finding does not \
settle it. {form}"""

REWRITE = """\
{question}

{answer}

{checks}

{findings}

{verdicts}

Above are a question and an answer to it; then questions that were asked to check the answer, and what was found for \
each, by someone who did not see the answer. Where the findings show that something in the answer is false, put it \
right, with all that follows from it; what they do not speak of, and what they bear out, stays. A finding may be wrong \
itself: weigh it. Reply with the whole answer, in the form that the question asks for. It stands for itself, so do \
not speak of checks or findings."""

_VERDICTS = ("consistent", "inconsistent", "unclear")


class Checked(NamedTuple):
    """A verification question and what became of it."""

    question: str
    finding: str
    verdict: str = ""
    """How the baseline stands to the finding, where that was asked."""


class Pair(BaseModel):
    """A verification question with its answer, as a model writes it."""

    question: str
    answer: str


class Pairs(BaseModel):
    """What a model writes that plans and answers at once."""

    checks: list[Pair]


class ChainOfVerification(Asking):
    """Check each candidate by verification questions, and rewrite it.

    One candidate flows out for each that flows in: the rewritten one, made from it; the candidate itself where no
    questions could be read or answered, where nothing inconsistent was found (`rewrite`), and where the new answer
    does not come, is blank or is cut off.
    """

    questions: Annotated[int, Field(ge=1)] = 5
    """How many verification questions at most."""
    answering: Literal["factored", "joint"] = "factored"
    """Whether each question is answered by itself, without the baseline, or all in the call that plans them."""
    check: bool = True
    """Whether each finding is compared with the baseline in a call of its own."""
    rewrite: Literal["always", "inconsistent"] = "always"
    """Whether the answer is always written anew, or not where every check found it consistent."""
    plan_prompt: Annotated[
        str, Places("question|question_text", "answer|answer_text", "form", optional=("most", "mark"))
    ] = PLAN
    """What the model is asked for verification questions, to be answered apart."""
    joint_prompt: Annotated[
        str, Places("question|question_text", "answer|answer_text", "form", optional=("most", "mark"))
    ] = JOINT
    """What it is asked for verification questions with their answers."""
    answer_prompt: Annotated[
        str, Places("check|check_text", optional=("question", "question_text", "form", "mark"))
    ] = ANSWER
    """How it is asked a verification question. It is not shown the baseline."""
    check_prompt: Annotated[
        str,
        Places(
            "answer|answer_text",
            "finding|finding_text",
            "form",
            optional=("check", "check_text", "question", "question_text", "mark"),
        ),
    ] = CHECK
    """What it is asked of a finding and the baseline."""
    rewrite_prompt: Annotated[
        str,
        Places(
            "question|question_text",
            "answer|answer_text",
            "findings|findings_text",
            optional=("checks", "checks_text", "verdicts", "form", "mark"),
        ),
    ] = REWRITE
    """What it is asked for the verified answer. `{verdicts}` is a line for each check, or empty."""

    @model_validator(mode="after")
    def _checks_for_what_is_inconsistent(self) -> ChainOfVerification:
        if self.rewrite == "inconsistent" and not self.check:
            raise ValueError(
                "`rewrite: inconsistent` goes by checks, and `check` is false; set `check: true`"
            )
        return self

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Each as it arrives, several at once in work."""
        taken: set[int] = set()

        async def verify(candidate: Candidate) -> tuple[Candidate, Candidate]:
            return candidate, await self._verified(question_of(problem), candidate, run)

        async for origin, verified in run.map(verify, candidates):
            yield verified if verified is origin else descended(verified, origin, taken)

    def plan(self, incoming: Count) -> Plan:
        """At least a plan, where something flows in; at most all questions, checks and the rewriting of each."""
        each = (self.questions if self.answering == "factored" else 0) + self.questions * self.check
        most = incoming.times((1 + each) * (1 + self.again) + 1)
        return Plan(Count(min(1, incoming.low), most.high), incoming)

    async def _verified(self, question: str, candidate: Candidate, run: Run) -> Candidate:
        checks = await self._found(question, candidate, run)
        if self.check:
            checks = await run.gather(*(self._judged(question, candidate, one, run) for one in checks))
        if not checks:
            return candidate
        if self.rewrite == "inconsistent" and all(one.verdict == "consistent" for one in checks):
            return candidate
        verdicts = [f"Check {number}: {one.verdict}." for number, one in enumerate(checks, 1) if one.verdict]
        posed = pose(
            self.rewrite_prompt,
            given={"verdicts": "\n".join(verdicts)},
            question=question,
            answer=candidate.text,
            checks=[one.question for one in checks],
            findings=[one.finding for one in checks],
        )
        return await whole(self.write(run, posed, parents=(candidate,))) or candidate

    async def _found(self, question: str, candidate: Candidate, run: Run) -> list[Checked]:
        """The verification questions with what was found; those without a finding are left out."""
        if self.answering == "joint":
            return await self._jointly(question, candidate, run)
        posed = pose(
            self.plan_prompt,
            lambda mark: items_form(self.questions),
            given={"most": str(self.questions)},
            question=question,
            answer=candidate.text,
        )
        planned = await self.ask(run, posed, partial(read_items, most=self.questions), parents=(candidate,))
        distinct = list(dict.fromkeys(planned.value or ()))
        found = await run.gather(*(self._answered(question, one, run) for one in distinct))
        return [one for one in found if one is not None]

    async def _jointly(self, question: str, candidate: Candidate, run: Run) -> list[Checked]:
        posed = pose(
            self.joint_prompt,
            lambda mark: json_form(Pairs),
            given={"most": str(self.questions)},
            question=question,
            answer=candidate.text,
        )
        said = await self.ask(run, posed, partial(_pairs, most=self.questions), parents=(candidate,))
        return list(said.value or ())

    async def _answered(self, question: str, check: str, run: Run) -> Checked | None:
        posed = pose(self.answer_prompt, no_form, question=question, check=check)
        said = await self.ask(run, posed, _words)
        return None if said.value is None else Checked(check, said.value)

    async def _judged(self, question: str, candidate: Candidate, one: Checked, run: Run) -> Checked:
        """The finding with how the baseline stands to it; unclear where that cannot be read."""
        posed = pose(
            self.check_prompt,
            lambda mark: verdict_form(mark, _VERDICTS),
            question=question,
            answer=candidate.text,
            check=one.question,
            finding=one.finding,
        )
        read = partial(read_verdict, options=_VERDICTS, mark=posed.mark)
        said = await self.ask(run, posed, read, parents=(candidate,))
        return one._replace(verdict=said.value or "unclear")


def _words(text: str) -> str:
    """A reply that is words and no more."""
    if not text.strip():
        raise Unread("it is empty")
    return text.strip()


def _pairs(text: str, most: int) -> Sequence[Checked]:
    """Questions with their answers, the first so many that have both."""
    pairs = read_json(text, Pairs).checks
    found = [Checked(p.question.strip(), p.answer.strip()) for p in pairs]
    found = [one for one in found if one.question and one.finding][:most]
    if not found:
        raise Unread("it holds no question with an answer")
    return found
