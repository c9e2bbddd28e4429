"""What a rule has to work with: a question, and the skill and the luck to do each step of it rightly."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, TypeVar

from pydantic import Field

from archon.component import Value
from archon.testing.instruct.reading import GIVEN, Question
from archon.testing.instruct.sums import (
    Sum,
    arrives_at,
    asked_in,
    names_in,
    operations,
    plans_in,
    solution,
    value_of,
)

T = TypeVar("T")
Probability = Annotated[float, Field(ge=0, le=1)]

FLAWLESS = "Every line holds; there is nothing left to mend."
"""What a critic says of an answer that it takes for right."""
FLAW = "is wrong: it does not follow"
"""What stands in what a critic says of any other."""


class Skill(Value):
    """With which probability each step is done rightly."""

    solving: Probability = 0.9
    """One operation of a sum."""
    planning: Probability = 0.9
    """An observation, idea, sketch or plan that leaves no number out."""
    decomposing: Probability = 0.9
    """Taking a question apart, or putting a simpler one in its place."""
    ranking: Probability = 0.9
    """Putting those that are right before those that are not; also where one is to be picked, or each to be scored."""
    judging: Probability = 0.9
    """Telling right from wrong."""
    fusing: Probability = 0.9
    """Making one right answer of several of which one is right."""
    criticising: Probability = 0.9
    """Finding the line that is wrong, where one is, and none where none is."""
    revising: Probability = 0.9
    """Mending an answer that is wrong."""
    testing: Probability = 0.9
    """Writing a test that expects what is right."""
    confidence: Probability = 0.9
    """Being sure, by log-probabilities, of what is right and unsure of what is not."""

    @classmethod
    def of(cls, every: float, **but: float) -> Skill:
        """The same skill at every step but these."""
        return cls(**{**dict.fromkeys(cls.model_fields, every), **but})


class Mind:
    """One reply in the making. Chance depends on the seed, the request, the sample and the step alone, so that
    a higher skill turns wrong steps right and no right one wrong."""

    def __init__(self, question: Question, skill: Skill, key: str) -> None:
        self.question = question
        self.skill = skill
        self._key = key

    def rng(self, of: str) -> random.Random:
        """A generator for one thing."""
        return random.Random(f"{self._key} {of}")

    def succeeds(self, step: str, which: int = 0) -> bool:
        """Whether a step is done rightly."""
        chance: float = getattr(self.skill, step)
        return self.rng(f"{step} {which}").random() < chance

    def pick(self, of: str, things: Sequence[T]) -> T:
        """One of them, by chance."""
        return self.rng(of).choice(things)

    # --- what is asked -----------------------------------------------------------------------------

    @cached_property
    def sum(self) -> Sum | None:
        """The sum that it is about; None where it is about something else."""
        return asked_in(self.question.question, self.question.text)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names that stand in its place for numbers."""
        return names_in(self.question.question)

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Everything that is quoted, but for the question and what goes with it."""
        return self.question.all(*(name for name in self.question.material if name not in GIVEN))

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """The answers that are shown."""
        return self.question.all("OWN ANSWER", *ANSWERS)

    @cached_property
    def plan(self) -> Sum | None:
        """A plan to follow: one of those that are shown."""
        plans = [plan for text in self.shown for plan in plans_in(text)]
        return self.pick("plan", plans) if plans else None

    # --- what is right -----------------------------------------------------------------------------

    def quality(self, text: str) -> float:
        """1 for an answer that is right, 0 for one that is not; of what cannot be known, something in between."""
        if self.sum is None:
            digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
            return int.from_bytes(digest, "big") / 2**32
        return float(value_of(text) == self.sum.value)

    def is_right(self, text: str) -> bool:
        """Whether an answer counts as right."""
        return self.quality(text) > 0.5

    def plans_rightly(self, text: str) -> bool:
        """Whether a text holds a plan that comes to what is asked for; of what cannot be known, by chance."""
        if self.sum is None:
            return self.is_right(text)
        return any(plan.value == self.sum.value for plan in plans_in(text))

    # --- what is written ---------------------------------------------------------------------------

    def worked(self, what: Sum | None = None) -> str:
        """A sum worked out, with the slips that happen; words where there is no sum."""
        what = what or self.sum
        if what is None:
            return arrives_at(self.rng("guess").randint(-99, 199)) if self.names else self.prose(12)
        sign = self.pick("sign", (1, -1))  # slips of one sign cannot make up for each other
        slips = [
            0 if self.succeeds("solving", i) else sign * self.rng(f"slip {i}").randint(1, 50)
            for i in range(operations(what))
        ]
        return solution(what, slips)

    def prose(self, words: int) -> str:
        """So many words that mean little, and are other words for another request."""
        rng = self.rng("prose")
        return " ".join(rng.choices(_WORDS, k=max(1, words))).capitalize() + "."


ANSWERS = ("ANSWER", "REPLY", "SOLUTION", "ATTEMPT")
"""What answers are called where they are quoted."""
_WORDS = (
    "the a river stone light house winter garden road quiet bright slow old new runs turns falls keeps under over"
).split()
