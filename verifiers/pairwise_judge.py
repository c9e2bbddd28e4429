"""A model judges which of two answers is better, asked in both orders.

Source: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (arXiv 2306.05685), sections
3 and 3.4: judges favour a place, so each pair is asked in both orders, and what depends on the order is a tie.
Cost: two calls per candidate, each with up to `again` more where its reply cannot be read.

As a verifier it compares each candidate with one fixed answer, named by a key of the problem's `info` (what is
in use today, or a weaker model's answer). `compare` compares any two, for stages that rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from archon.backends.base import Sampling
from archon.candidate import Candidate, Scale, Status, Verdict
from archon.problem import Problem
from archon.prompting import Asked, Places, chat, filled, mark_of, question_of, quoted
from archon.run import Run
from archon.verifier import Verifier
from archon.verifiers.judge import Decision, Reading, decide, form_of, reads_words

RUBRIC = (
    "The better answer is the one that is right; of two that are, the one that is more complete and clearer. "
    "Which of them comes first and which is longer mean nothing."
)
PROMPT = """\
Which answer is better: {rubric}

{question}

{answers}

Which answer is better? {form}"""
_OPTIONS = ("A", "B")


class Preference(NamedTuple):
    """How much the first of two answers is preferred when it stands first, and when it stands second."""

    shown_first: float | None
    shown_second: float | None
    scale: Scale
    detail: str = ""

    @property
    def score(self) -> float | None:
        """The mean over both orders: 1 is the first answer, 0 the second. None where an order is unread."""
        if self.shown_first is None or self.shown_second is None:
            return None
        return (self.shown_first + self.shown_second) / 2

    @property
    def decided(self) -> bool | None:
        """Whether the first is better; None where that depends on the order, or is unread."""
        if self.shown_first is None or self.shown_second is None:
            return None
        if self.shown_first > 0.5 and self.shown_second > 0.5:
            return True
        return False if self.shown_first < 0.5 and self.shown_second < 0.5 else None


class PairwiseJudge(Verifier):
    """Accept what a model prefers, in both orders, to an answer that the problem holds."""

    scale: ClassVar[Scale] = "probability"

    model: str = "default"
    """Which of the session's models judges."""
    against: Annotated[str, Field(min_length=1)] = "baseline"
    """The key of the problem's `info` that holds the answer to compare with."""
    rubric: Annotated[str, Field(min_length=1)] = RUBRIC
    """What makes one answer better than another."""
    prompt: Annotated[str, Places("question", "answers", "form", optional=("rubric",))] = PROMPT
    """What the judge is asked, for an A or a B."""
    read: Reading = "auto"
    """By the `probability` of a letter, by the `text` of a verdict after reasoning, or `auto`: by probability
    where the server gives log-probabilities."""
    again: Annotated[int, Field(ge=0)] = 0
    """By text: how often the judge is asked again where its reply cannot be read."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """By text: limit on the tokens of a reply; the model's own where not given."""

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Compare each with the problem's own answer."""
        baseline = problem.info.get(self.against)
        if not isinstance(baseline, str):
            why = f"the problem's info has no text {self.against!r}"
            return [Verdict(self.name, None, detail=why)] * len(candidates)
        return await run.gather(*(self._judge(problem, c, baseline, run) for c in candidates))

    def applies(self, problem: Problem) -> bool:
        """It needs an answer to compare with."""
        return isinstance(problem.info.get(self.against), str)

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    @property
    def calls_per_candidate(self) -> int:
        """Both orders; at most, where it is asked again."""
        return 2 * (1 + self.again)

    async def _judge(self, problem: Problem, candidate: Candidate, baseline: str, run: Run) -> Verdict:
        if not candidate.text.strip():
            return Verdict(self.name, False, 0.0, self.scale, "wrong", "the answer is empty")
        said = await self.compare(problem, candidate.text, baseline, run)
        better = said.decided
        status: Status = "undecided" if better is None else "passed" if better else "wrong"
        return Verdict(self.name, better, said.score, said.scale, status, said.detail)

    async def compare(self, problem: Problem, first: str, second: str, run: Run) -> Preference:
        """Which of two answers is better, asked in both orders. Cost: two calls."""
        by_word = reads_words(self.read, self.model, run)
        orders = ((first, second), (second, first))
        forth, back = await run.gather(
            *(decide(self.question(problem, *order, by_word=by_word), run) for order in orders)
        )
        shown_second = None if back.score is None else 1 - back.score
        detail = forth.detail or back.detail
        preference = Preference(forth.score, shown_second, forth.scale, detail)
        if preference.decided is None and preference.score is not None:
            preference = preference._replace(detail="the judge's preference depends on the order")
        return preference

    def question(self, problem: Problem, first: str, second: str, *, by_word: bool) -> Decision:
        """What the judge is asked about two answers, in this order."""
        asked = question_of(problem)
        mark = mark_of(asked, first, second, self.rubric)
        form = form_of(_OPTIONS, mark, by_word=by_word)
        shown = zip(_OPTIONS, (first, second), strict=True)
        text = filled(
            self.prompt,
            rubric=self.rubric,
            question=quoted("QUESTION", asked, mark_of(asked)),
            answers="\n\n".join(quoted(f"ANSWER {letter}", answer, mark) for letter, answer in shown),
            form=form,
        )
        sampling = Sampling(temperature=0.0, max_tokens=self.max_tokens)
        return Decision(Asked(self.model, chat(text), sampling, self.again, form), _OPTIONS, mark, by_word)
