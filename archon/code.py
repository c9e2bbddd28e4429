"""From a reply to a program: fenced code of a chat, or the raw continuation of a prompt.

A chat model's code stands in a fenced block; a base model goes on where the prompt ends. Either way the
result is a whole program: the imports and helpers of the prompt, and the function that was asked for.
"""

from __future__ import annotations

import re

from archon.problem import Problem

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)


def program_of(problem: Problem, text: str) -> str | None:
    """The program that a reply proposes; None where it proposes none.

    A fenced block that defines the entry point counts before one that does not; of those the last, as a
    model that corrects itself does so further down.
    """
    if not text.strip():
        return None
    blocks: list[str] = [
        body for language, body in _FENCE.findall(text) if language.lower() in ("", "python", "py", "python3")
    ]
    defining = [block for block in blocks if _defines(block, problem.entry_point)]
    if defining:
        return _with_prelude(problem, defining[-1])
    if blocks:
        body = blocks[-1]
        return problem.prompt + body if problem.prompt is not None else body
    if _defines(text, problem.entry_point):
        return _with_prelude(problem, text)
    if problem.prompt is not None:
        return problem.prompt + cut(text, problem.stop)
    return text


def cut(text: str, stop: tuple[str, ...]) -> str:
    """The text before the first stop string."""
    ends = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _defines(source: str, entry_point: str | None) -> bool:
    if entry_point is None:
        return False
    return (
        re.search(
            rf"^(?:async\s+)?def\s+{re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=",
            source,
            re.MULTILINE,
        )
        is not None
    )


def _with_prelude(problem: Problem, source: str) -> str:
    """The program with what the prompt puts before the function: imports and helpers."""
    if problem.prompt is None or problem.entry_point is None:
        return source
    at = re.search(rf"^(?:async\s+)?def\s+{re.escape(problem.entry_point)}\b", problem.prompt, re.MULTILINE)
    prelude = problem.prompt[: at.start()] if at else ""
    return f"{prelude}\n{source}" if prelude.strip() else source
