"""How replies go wrong: out of the form that was asked for, as models do it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from archon.candidate import Finish

Malformation = Literal["numbers", "prose", "json", "refusal", "truncated", "empty"]
"""Numbers left out; more said than was asked for; JSON that is none, or not what was asked for; a refusal; cut off
at the limit of tokens; nothing at all."""
ALL: tuple[Malformation, ...] = get_args(Malformation)

_REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer this as asked.",
    "As a model, I have no view.",
)


class Said(NamedTuple):
    """A reply, and why it ended."""

    text: str
    finish: Finish = "stop"


def spoiled(text: str, kind: Malformation, rng: random.Random) -> Said:
    """A reply as it should be, spoiled."""
    if kind == "truncated":
        return Said(text[: rng.randint(0, len(text) - 1)] if text else "", "length")
    return Said(_SPOILERS[kind](text, rng))


def _without_numbers(text: str, rng: random.Random) -> str:
    """Some of the numbers that are no part of a mark, or a list's numbers and bullets, are gone."""
    lines = re.sub(r"^[ \t]*(?:\d+[.)]|[-*])[ \t]+", "", text, flags=re.MULTILINE)
    return re.sub(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])", lambda n: "" if rng.random() < 0.7 else n[0], lines)


def _with_prose(text: str, rng: random.Random) -> str:
    """Talk around it, which may contradict it."""
    before = rng.choice(("Great question! Let me think step by step.", "Sure, here you go:", "Hmm."))
    after = rng.choice(
        (
            "I hope this helps! Let me know if you want more.",
            "On second thought, I am not sure.",
            "The answer is no, 7.",
        )
    )
    return f"{before}\n\n{text}\n\n{after}"


def _wrong_json(text: str, rng: random.Random) -> str:
    """Brackets that do not close, quotes of the wrong kind, a key nobody asked for; of what was no JSON, an object."""
    if "{" not in text and "[" not in text:
        return json.dumps({"reply": text})
    kind = rng.randrange(4)
    if kind == 0:
        return text.rstrip("]}` \n")
    if kind == 1:
        return text.replace('"', "'")
    if kind == 2:
        return re.sub(r'"\w+":', '"thing":', text)
    return text.replace("{", '{"note": "as asked",}, {')


def _refusal(text: str, rng: random.Random) -> str:
    return rng.choice(_REFUSALS)


def _empty(text: str, rng: random.Random) -> str:
    return rng.choice(("", " \n"))


_SPOILERS: dict[Malformation, Callable[[str, random.Random], str]] = {
    "numbers": _without_numbers,
    "prose": _with_prose,
    "json": _wrong_json,
    "refusal": _refusal,
    "empty": _empty,
}


def dressed(text: str, rng: random.Random) -> str:
    """A reply that is in form, as models dress it: reasons before it, Markdown, stray white space."""
    head, newline, last = text.rstrip("\n").rpartition("\n")
    if re.match(r"(?:Verdict|Choice|Ranking|Scores) \w+:", last):
        last = rng.choice((f"**{last}**", f"`{last}`", f"{last}.", f"  {last}  "))
        head = rng.choice((head, f"Let me see.\n\n{head}", head.replace("\n", "\r\n")))
        return f"{head}{newline or chr(10)}{last}" + rng.choice(("", "\n", "\n\n"))
    return text + rng.choice(("", "\n", " "))
