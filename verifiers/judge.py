"""A model judges each answer: right or not, by a rubric.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (arXiv 2306.05685),
section 3 (single-answer grading); by the probability of one word as in Kadavath et al. 2022, "Language Models
(Mostly) Know What They Know" (arXiv 2207.05221), section 3. Cost: one call per candidate, or `n`, each with up
to `again` more; equal candidates are judged once.

Where the server gives log-probabilities, the score is that of "yes" against "no" as the reply's first word;
elsewhere the judge reasons and ends with a verdict line. What is judged stands between marks that it cannot hold,
as it is hashed to make them, and so does the verdict (archon/prompting): a candidate can neither leave its place
nor write its own verdict. It can still persuade: `archon audit judge` tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from archon.backends.base import Sampling
from archon.candidate import Candidate, Scale, Status, Verdict
from archon.problem import Problem
from archon.prompting import (
    SYSTEM,
    YES_OR_NO,
    Asked,
    Places,
    Said,
    Unread,
    ask_several,
    chat,
    places_of,
    pose,
    probability,
    question_of,
    read_verdict,
    read_word,
    verdict_form,
    word_form,
)
from archon.run import Run
from archon.verifier import Verifier

Reading = Literal["auto", "probability", "text"]
"""How a judge's reply is read: by its first word's log-probabilities, by its last line, or as the server can."""

RUBRIC = "The answer is right: it answers what is asked, completely, and what it arrives at is correct."
PROMPT = """\
What an answer must fulfil: {rubric}

{question}

{answer}

Does the answer fulfil it? {form}"""
_REASONED = "Check each step and work the result out yourself before you decide."
_ALTERNATIVES = 10
_FIRST_WORDS = 4
"""Tokens that a reply of one word may have: the word and what is written around it."""


class Judge(Verifier):
    """Accept what a model judges to fulfil a rubric; undecided where its reply cannot be read."""

    scale: ClassVar[Scale] = "probability"

    model: str = "default"
    """Which of the session's models judges."""
    rubric: Annotated[str, Field(min_length=1)] = RUBRIC
    """What an answer must fulfil."""
    system: str = SYSTEM
    """The system message of its questions; none where it is empty."""
    prompt: Annotated[
        str, Places("question|question_text", "answer|answer_text", optional=("form", "rubric"))
    ] = PROMPT
    """What the judge is asked, for a yes or a no. Without `{form}` it must ask for one word itself (`read:
    probability`)."""
    read: Reading = "auto"
    """By the `probability` of yes, by the `text` of a verdict after reasoning, or `auto`: by probability
    where the server gives log-probabilities."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The score above which it accepts, and below which it rejects."""
    n: Annotated[int, Field(ge=1)] = 1
    """By text: how many replies are drawn for each candidate; the score is the share of yes."""
    again: Annotated[int, Field(ge=0)] = 0
    """By text: how often the judge is asked again for each reply that cannot be read."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Greedy where one reply is drawn, the model's default where several are, unless given."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """By text: limit on the tokens of a reply; the model's own where not given."""

    @model_validator(mode="after")
    def _asks_for_what_is_read(self) -> Self:
        if "form" not in places_of(self.prompt) and self.read != "probability":
            raise ValueError(
                "the place {form} is missing: only with `read: probability` may a prompt ask for one word itself"
            )
        return self

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Ask about each; an empty answer is wrong without asking."""
        return await run.gather(*(self._judge(problem, candidate, run) for candidate in candidates))

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    @property
    def calls_per_candidate(self) -> int:
        """At most: by probability one is enough."""
        return self.n * (1 + self.again)

    async def _judge(self, problem: Problem, candidate: Candidate, run: Run) -> Verdict:
        if not candidate.text.strip():
            return Verdict(self.name, False, 0.0, self.scale, "wrong", "the answer is empty")
        question = self.question(problem, candidate.text, by_word=reads_words(self.read, self.model, run))
        said = await decide(question, run)
        if said.score is None:
            return Verdict(self.name, None, None, said.scale, "undecided", said.detail)
        accepted = None if said.score == self.threshold else said.score > self.threshold
        status: Status = "undecided" if accepted is None else "passed" if accepted else "wrong"
        return Verdict(self.name, accepted, said.score, said.scale, status, said.detail)

    def question(self, problem: Problem, answer: str, *, by_word: bool) -> Decision:
        """What the judge is asked about an answer."""
        posed = pose(
            self.prompt,
            lambda mark: form_of(YES_OR_NO, mark, by_word=by_word),
            given={"rubric": self.rubric},
            question=question_of(problem),
            answer=answer,
        )
        n = 1 if by_word else self.n
        temperature = 0.0 if self.temperature is None and n == 1 else self.temperature
        sampling = Sampling(temperature=temperature, max_tokens=self.max_tokens)
        question = Asked(self.model, chat(posed.text, self.system), sampling, self.again, posed.form)
        return Decision(question, YES_OR_NO, posed.mark, by_word, n)


# --- asking ----------------------------------------------------------------------------------------


class Decision(NamedTuple):
    """A judge is to decide between two options."""

    asked: Asked
    options: tuple[str, str]
    mark: str
    """What the line of its verdict carries."""
    by_word: bool
    """Whether it is asked for one word, which is read by its log-probabilities, or for a verdict."""
    n: int = 1
    """By verdict: how many replies are drawn."""


class Decided(NamedTuple):
    """What the judge said: the first option's probability, or its share of the replies; None if unread."""

    score: float | None
    scale: Scale
    detail: str


async def decide(question: Decision, run: Run) -> Decided:
    """Ask the judge; the same question of the same stage is asked once per problem."""
    if question.by_word:
        return await _by_word(question, run)
    read = partial(read_verdict, options=question.options, mark=question.mark)
    replies = [said for said in await ask_several(run, question.asked, read, question.n) if said.candidates]
    votes = [said.value for said in replies if said.read]
    if not votes:
        return Decided(None, "fraction", _unread(replies))
    first = question.options[0]
    told = f"{votes.count(first)} of {len(votes)} replies said {first}"
    return Decided(votes.count(first) / len(votes), "fraction", told if question.n > 1 else "")


async def _by_word(question: Decision, run: Run) -> Decided:
    short = {"max_tokens": _FIRST_WORDS, "logprobs": _ALTERNATIVES}
    sampling = question.asked.sampling.model_copy(update=short)
    asked = question.asked._replace(sampling=sampling, again=0, cut_off=True)
    (said,) = await ask_several(run, asked, str, 1)
    if not said.candidates:
        return Decided(None, "fraction", _unread(()))
    if tokens := said.candidates[0].logprobs:
        score = probability(tokens, question.options)
        return Decided(score, "probability", "" if score is not None else _unread([said]))
    try:
        word = read_word(said.text, question.options)
    except Unread:
        return Decided(None, "fraction", _unread([said]))
    return Decided(float(word == question.options[0]), "fraction", "")


def _unread(replies: Sequence[Said[str]]) -> str:
    if not replies:
        return "the judge gave no reply"
    last = " ".join(replies[0].text.split())[-80:]
    return f"the judge's reply is no verdict: {last!r}" if last else "the judge's reply is empty"


def form_of(options: tuple[str, str], mark: str, *, by_word: bool) -> str:
    """What the judge's reply must look like."""
    return word_form(options) if by_word else f"{_REASONED} {verdict_form(mark, options)}"


def reads_words(read: Reading, model: str, run: Run) -> bool:
    """Whether replies are read by the first word's log-probabilities."""
    return read == "probability" or (
        read == "auto" and run.session.caller(model).backend.capabilities.logprobs
    )
