"""What the reward models are trained on: replies with the chance of success at some of their places."""

from __future__ import annotations

from dataclasses import dataclass

from archon.backends.nano.tokens import BOS, EOS, SEP, encode


@dataclass
class Labelled:
    """A reply with, at some places, the chance of success."""

    question: str
    reply: str
    labels: dict[int, float]
    """By place in the reply: after how many characters (one more: after its end)."""
    family: str = ""

    @property
    def tokens(self) -> list[int]:
        """As the models read it."""
        return [BOS, *encode(self.question), SEP, *encode(self.reply), EOS]

    def place(self, characters: int) -> int:
        """The token after which so many characters of the reply are read."""
        return len(self.question) + 1 + characters
