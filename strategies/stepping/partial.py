"""Partial answers: what has been written so far, step by step, and what is thought of it.

Cost: none; they are values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ending = Literal["stop", "until", "length", "steps", "filtered"]
"""Why nothing is added to an answer any more: the model ended it (end of sequence, or a stop string of the problem's),
it says what the stage waits for (`until`), a token limit cut it off, it has as many steps as it may have, a filter."""


@dataclass(frozen=True, slots=True)
class Partial:
    """An answer as far as it is written. The steps joined are its text: each holds what ends it."""

    steps: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    """What the reward model says of the answer up to each step's end (all of them as it sees them now); probabilities
    where the model gives such or logits, else uncalibrated. Empty where they are not known."""
    value: float | None = None
    """The score by which it is judged: its scores as one, or those of what it was looked ahead to. None where it is
    not known."""
    ending: Ending | None = None
    """None while it can go on."""
    tokens: int = 0
    """Completion tokens of its steps."""
    logprob: float = 0.0
    """Sum of the log-probabilities (natural) of the tokens of its last step, where asked for."""
    logprobs: int = 0
    """How many tokens that is the sum of."""
    samples: tuple[str, ...] = ()
    """The ids of the samples that wrote its steps: its lineage. Two with equal text are told apart by it."""
    ahead: Partial | None = None
    """What it was rolled out to, where the algorithm asked for that."""

    @property
    def text(self) -> str:
        """What is written."""
        return "".join(self.steps)

    @property
    def finished(self) -> bool:
        """Whether nothing is added any more."""
        return self.ending is not None

    @property
    def whole(self) -> bool:
        """Whether it was ended, and not cut off, and says something: only then is it an answer."""
        return self.ending in ("stop", "until") and any(step.strip() for step in self.steps)

    @property
    def certainty(self) -> float | None:
        """The mean log-probability of the tokens of its last step; None where it is not known."""
        return self.logprob / self.logprobs if self.logprobs else None

    def judged(self, scores: tuple[float, ...], value: float | None) -> Partial:
        """With scores, and the one score of them."""
        return Partial(
            self.steps,
            scores,
            value,
            self.ending,
            self.tokens,
            self.logprob,
            self.logprobs,
            self.samples,
            self.ahead,
        )


EMPTY = Partial()
"""An answer that is yet to be begun."""
