"""Quoting: candidate text in its place in a prompt, which it cannot leave.

What is quoted stands between two lines that carry a mark:

    ANSWER 2 3f9a2c41
    the text, as it is
    END OF ANSWER 2 3f9a2c41

The mark is hashed from everything that is quoted with it, and stands in none of it. So make it anew for every
question, from all of its material (`mark_of`): a mark that a model has seen can stand in what it writes next. The
lines by which a reply is read carry the same mark (archon/prompting/readers.py), so no candidate can write one.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect
from collections.abc import Sequence

from archon.problem import Problem

_NAME = re.compile(r"[A-Z]+(?: [A-Z]+| [0-9]+)*")
_HEADER = re.compile(rf"({_NAME.pattern}) ([0-9a-f]{{8}})")


def mark_of(*texts: str) -> str:
    """A word of eight hexadecimal digits that stands in none of the texts; the same for the same texts."""
    mark = "0"
    for attempt in range(1000):
        content = "\0".join((str(attempt), *texts)).encode("utf-8", "surrogatepass")
        mark = hashlib.sha256(content).hexdigest()[:8]
        if not any(mark in text for text in texts):
            return mark
    raise AssertionError(f"{mark} and a thousand others stand in texts that were hashed to make them")


def safe(text: str) -> str:
    """The text as a request can hold it: lone surrogates become `?`."""
    return text.encode("utf-8", "replace").decode()


def quoted(name: str, text: str, mark: str) -> str:
    """The text between the lines `NAME mark` and `END OF NAME mark`.

    Raises ValueError for a name that is not in capitals (`ANSWER`, `ANSWER 2`), and for a mark that stands in the
    text: it was not made from this text.
    """
    if not _NAME.fullmatch(name) or name.startswith("END OF "):
        raise ValueError(f"`name` is one or more words in capitals, and is {name!r}")
    if not mark or mark in text:
        raise ValueError(
            f"the mark {mark!r} stands in what it is to quote; make it with `mark_of`, from this text"
        )
    return f"{name} {mark}\n{safe(text)}\nEND OF {name} {mark}"


def listed(name: str, texts: Sequence[str], mark: str) -> str:
    """The texts quoted one after the other, numbered from 1: `ANSWER 1`, `ANSWER 2`, ..."""
    return "\n\n".join(quoted(f"{name} {number}", text, mark) for number, text in enumerate(texts, 1))


def unquoted(text: str) -> dict[str, str]:
    """What is quoted in a prompt, by name, in its order: the inverse of `quoted` and `listed`.

    For servers and tests that play the model. What stands inside a quotation is not looked into.
    """
    lines = text.split("\n")
    ends: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        if line.startswith("END OF "):
            ends.setdefault(line, []).append(number)
    found: dict[str, str] = {}
    number = 0
    while number < len(lines):
        header = _HEADER.fullmatch(lines[number])
        closing = ends.get(f"END OF {header[0]}", []) if header else []
        place = bisect(closing, number)  # the mark stands in no text, so the next end is its own
        if header and place < len(closing):
            found.setdefault(header[1], "\n".join(lines[number + 1 : closing[place]]))
            number = closing[place]
        number += 1
    return found


def question_of(problem: Problem) -> str:
    """The question with its documents; the turns of a chat with who said them."""
    documents = [f"Document {i}: {text}" for i, text in enumerate(problem.documents, 1)]
    if len(problem.messages) == 1:
        return "\n\n".join((*documents, problem.messages[0].content))
    return "\n\n".join((*documents, *(f"{m.role}: {m.content}" for m in problem.messages)))
