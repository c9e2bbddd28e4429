"""What is asked: a problem, and what a pipeline may know about it.

What only the grader may know (hidden tests, the reference answer) lives with the benchmark and never
on a `Problem` (D7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from archon.component import Value

AnswerKind = Literal["text", "code", "number", "math", "choice"]
"""How an answer is read out of a reply (archon/answers.py)."""


class Message(Value):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Case(Value):
    """One test of a function: call it with these arguments, expect this value.

    Arguments and values are plain Python data (None, bool, int, float, complex, str, bytes, list,
    tuple, set, frozenset, dict). From JSON, lists stay lists.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    args: tuple[Any, ...] = ()
    """Positional arguments."""
    kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Keyword arguments."""
    expected: Any
    """The value a right program returns."""
    alternatives: tuple[Any, ...] = ()
    """Further values that are right too."""
    tolerance: float = Field(default=0.0, ge=0)
    """Absolute tolerance for floats; 0 compares exactly, except that floats get 1e-6 (evalplus)."""
    rule: Literal["equal", "same_set", "is_not_none", "anything"] = "equal"
    """How the returned value is compared (verifiers/compare.py)."""


class Problem(Value):
    """A question, as a pipeline sees it."""

    id: str = Field(min_length=1)
    """Unique within its benchmark."""
    messages: tuple[Message, ...] = Field(min_length=1)
    """The question as a chat."""
    prompt: str | None = None
    """The question as raw text to continue, for models that complete text instead of chatting."""
    answer: AnswerKind = "text"
    """What kind of answer is wanted, which says how it is read, compared and voted on."""
    entry_point: str | None = None
    """For code: the name of the function to write."""
    tests: tuple[Case, ...] = ()
    """For code: the *visible* tests, which a pipeline may run."""
    choices: tuple[str, ...] = ()
    """For multiple choice: the options, A first."""
    documents: tuple[str, ...] = ()
    """Context the answer may draw on."""
    stop: tuple[str, ...] = ()
    """Where a raw continuation of `prompt` ends."""
    info: Mapping[str, Any] = Field(default_factory=dict)
    """Anything else a pipeline may know (subject, level, source), as JSON."""

    @classmethod
    def ask(cls, question: str, **fields: Any) -> Problem:
        """A problem of one user message; its id is its text unless given."""
        return cls(
            **{
                "id": question[:80] or "empty",
                "messages": (Message(role="user", content=question),),
                **fields,
            }
        )

    @property
    def question(self) -> str:
        """The last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")
