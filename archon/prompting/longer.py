"""Reading what is longer than a line out of a reply: lists, marked sections, JSON.

As in archon/prompting/readers.py: a value or `Unread`, whatever the text, in time proportional to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from archon.prompting.marks import safe
from archon.prompting.readers import Unread

M = TypeVar("M", bound=BaseModel)

_LONGEST_JSON = 1_000_000
"""Characters of a reply in which JSON is looked for."""
_DEEPEST_JSON = 32
"""Levels of objects and lists in a JSON value."""
_MOST_JSON = 10_000
"""Values, and what could be values, that are looked at."""
_LONGEST_REASON = 200
_DRESS = " \t*_`\"'#[]()"

_BULLET = r"[-*+\N{BULLET}]"
_ITEM = re.compile(rf"([ \t]*)(\*\*|__)?(?:(\(?[0-9]{{1,3}}[.)])|{_BULLET})(\*\*|__)?(?:[ \t]+(.*))?")
_FENCE = "```"


# --- lists -----------------------------------------------------------------------------------------


def read_items(text: str, most: int | None = None) -> tuple[str, ...]:
    """The items of the list in a reply, the first so many, without their numbers or bullets. Raises Unread.

    Items are numbered (`1.`, `1)`, `(1)`) or have bullets (`-`, `*`, `+`, `•`); where some are numbered, they alone
    are the list, and bullets belong to them. An item goes on over the lines that follow it, over indented ones
    also after an empty line, and over the whole of a fenced block that begins in it. Prose around the list, and
    items without text, are left out.
    """
    lines = text.splitlines()
    marks = [_ITEM.fullmatch(line) for line in lines]
    numbered = any(mark and mark[3] and _begins(mark) for mark in marks)
    tops = [mark if mark and (mark[3] if numbered else _begins(mark)) else None for mark in marks]
    edge = min((_indent(mark) for mark in tops if mark), default=0)
    items: list[list[str]] = []
    inside = fenced = wrapped = gap = False
    for line, mark in zip(lines, tops, strict=True):
        fence = line.lstrip().startswith(_FENCE)
        if not fenced and mark and _indent(mark) <= edge + 1:
            items.append([_begins(mark)])
            inside, gap = True, False
            fenced = _begins(mark).startswith(_FENCE)
        elif inside and (
            fenced or (not (wrapped and fence) and (not gap or not line.strip() or line[0] in " \t"))
        ):
            items[-1].append(line)
            fenced ^= fence
            gap = not fenced and not line.strip()
        else:  # around the list
            inside = False
            wrapped ^= fence
    found = [item for item in map(_joined, items) if item]
    if not found:
        raise Unread("it holds no list, numbered or with bullets")
    return tuple(found[:most])


def _indent(mark: re.Match[str]) -> int:
    return len(mark[1].expandtabs())


def _begins(mark: re.Match[str]) -> str:
    """An item's first line; what is bold from its number on stays so."""
    text = (mark[5] or "").strip()
    return f"{mark[2]}{text}" if text and mark[2] and not mark[4] else text


def _joined(lines: list[str]) -> str:
    first, *others = lines
    indents = [len(line) - len(line.lstrip()) for line in others if line.strip()]
    edge = min(indents, default=0)
    return "\n".join((first.strip(), *(line[edge:].rstrip() for line in others))).strip()


# --- sections --------------------------------------------------------------------------------------


def read_section(text: str, name: str, mark: str) -> str:
    """What stands after the line `NAME MARK`, up to the line `END OF NAME MARK` or the end. Raises Unread.

    Of several such lines the last begins it. Empty lines around it are left out.
    """
    wanted = f"{name} {mark}".casefold().split()
    end = ["end", "of", *wanted]
    lines = text.splitlines(keepends=True)
    words = [_words(line, len(name) + len(mark)) for line in lines]
    start = max((i for i, said in enumerate(words) if said == wanted), default=None)
    if start is None:
        raise Unread(f"it has no line `{name} {mark}`")
    stop = next((i for i in range(start + 1, len(lines)) if words[i] == end), len(lines))
    kept = lines[start + 1 : stop]
    first = next((i for i, line in enumerate(kept) if line.strip()), 0)
    section = "".join(kept[first:]).rstrip()
    if not section:
        raise Unread(f"nothing stands after its line `{name} {mark}`")
    return section


def _words(line: str, longest: int) -> list[str]:
    """The words of a line that is short enough to begin or end a section."""
    line = line.strip().strip(_DRESS).removesuffix(":").strip(_DRESS)
    return line.casefold().split() if len(line) <= longest + 20 else []


# --- JSON ------------------------------------------------------------------------------------------


def read_json(text: str, model: type[M]) -> M:
    """The last JSON object or list in a reply that is a value of the model; fenced or not, prose around it.

    Raises Unread; also for replies of more than a million characters, and values more than 32 levels deep. What is
    inside a JSON value is not looked at for itself.
    """
    if len(text) > _LONGEST_JSON:
        raise Unread(f"it is longer than {_LONGEST_JSON} characters")
    text = safe(text)
    why = "it holds no JSON value that is whole and valid"
    looked_at = len(text) + 1
    for span in [*_spans(text)][: -_MOST_JSON - 1 : -1]:
        if span.start >= looked_at:  # inside a value that was read
            continue
        try:
            value = _loads(text[span.start : span.end])
        except (ValueError, RecursionError):
            continue
        try:
            return model.model_validate(value)
        except (ValidationError, RecursionError) as error:
            if looked_at > len(text):
                why = _misfit(error)
            looked_at = span.start
    raise Unread(why)


class _Span(NamedTuple):
    start: int
    end: int
    height: int


_TOKEN = re.compile(r'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?|[\[\]{}]')
"""A string, which ends with its line at the latest, or a bracket."""
_OPENING = re.compile(r"[\[{]")


def _spans(text: str) -> Iterator[_Span]:
    """Where brackets are balanced, at most so deep; what is inside comes before what is around it."""
    open_: list[tuple[str, int, int]] = []  # the bracket, where it is, the height of what it holds
    at = 0
    while found := (_TOKEN if open_ else _OPENING).search(text, at):
        at = found.end()
        token = found[0]
        if token in "[{":
            open_.append((token, found.start(), 0))
        elif token in "]}":
            bracket, start, height = open_.pop()
            height += 1
            if bracket + token not in ("[]", "{}"):
                open_.clear()  # not JSON: nothing around it can be
                continue
            if height <= _DEEPEST_JSON:
                yield _Span(start, at, height)
            if open_:
                around, where, least = open_[-1]
                open_[-1] = around, where, max(least, height)


def _loads(text: str) -> Any:
    """Raises ValueError for what is not JSON, or cannot be said in it: infinity, lone surrogates."""
    value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if value - value != 0:
        raise ValueError("a number is too large")
    return value


def _misfit(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "its JSON is too deep"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    loc = (
        first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
    )  # the key is the reply's own
    known = [str(part) if isinstance(part, int) or part.isidentifier() else "?" for part in loc]
    reason = " ".join(f"{'.'.join(known)}: {first['msg']}".split()) if known else first["msg"]
    return f"its JSON is not as asked for: {reason}"[:_LONGEST_REASON]
