"""What a nano model can be asked, and how: the prompt formats it is trained on.

Each format is a question as text; the reply is text. Strategies that want a nano model to verify, fuse, criticise,
plan or take apart put these in place of their own prompts (a configuration's templates).
"""

from __future__ import annotations

from collections.abc import Sequence


def plan(question: str) -> str:
    """Asks for a plan of a list function: what to do, in words, one thing after the other."""
    return f"{question}\nPlan."


def planned(question: str, steps: str) -> str:
    """A list function, with a plan to follow."""
    return f"{question}\nPlan: {steps}"


def split(question: str) -> str:
    """Asks which assignments of a chain are needed, in an order in which they can be worked out."""
    return f"{question}\nSplit."


def reduce(question: str, known: str) -> str:
    """Asks for a chain's question with values filled in: `known` is such as `a=7, b=3`."""
    return f"{question}\nGiven {known}."


def verify(question: str, reply: str) -> str:
    """Asks whether a reply is right: yes or no."""
    return f"{question}\nReply:\n{reply}\nRight?"


def critique(question: str, reply: str) -> str:
    """Asks for the first wrong line of a reply: its number, or 0 where there is none."""
    return f"{question}\nReply:\n{reply}\nWrong line?"


def counterexample(question: str, reply: str) -> str:
    """Asks for the first visible example that a list function gets wrong: its number, or 0 where there is none."""
    return f"{question}\nReply:\n{reply}\nWrong example?"


def fuse(question: str, replies: Sequence[str]) -> str:
    """Asks for a right reply, given several that may be wrong."""
    return "\n".join([question, *(f"Reply {i}:\n{reply}" for i, reply in enumerate(replies, 1)), "Best?"])
