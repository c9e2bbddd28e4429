"""Marks that are misspelt: found by their form, so that none passes for data.

Where a value is typed, whoever builds it refuses a mapping that is none. Where a field takes any data, a misspelt mark
would be sent as it is; so a mapping that has the form of a mark, under a name that is nearly one, is taken for a slip.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import Any, Final

from archon import registry

SLIP_ENDINGS: Final = "If it is data, write `{verbatim: ...}` around it"
_WORDS: Final = ("choose", "range", "optional", "axis", "verbatim")
_BESIDE: Final = ("name", "step", "log", "integer", "where")
_OTHER_WORDS: Final = {
    "choice": "choose",
    "choices": "choose",
    "one_of": "choose",
    "oneof": "choose",
    "any_of": "choose",
    "between": "range",
    "uniform": "range",
    "interval": "range",
    "maybe": "optional",
    "axes": "axis",
}
"""What other tools call them, or people may."""
_NEAR = 0.85
"""Of the ratio of `difflib`; what is one slip of the finger away counts too."""


def slip(value: Mapping[str, Any], kind: Any) -> tuple[str, str] | None:
    """The key that is nearly a mark, and which; None where there is none. `kind` is as in marks.py: the settings of a
    class are left to that class."""
    if isinstance(kind, type) or kind in ("pipeline", "model"):
        return None
    component = "stage" if kind in ("stage", "stages") else getattr(kind, "kind", None)
    for key, inner in value.items():
        word = _meant(key)
        if word is None or any(k != key and k not in _BESIDE and _meant(k) is None for k in value):
            continue
        if component is not None and key in registry.names(component):
            continue
        if component is not None or _has_form(word, inner):
            return key, word
    return None


def _meant(key: str) -> str | None:
    folded = key.strip().lower().replace("-", "_")
    if folded in _OTHER_WORDS:
        return _OTHER_WORDS[folded]
    near = [(SequenceMatcher(None, folded, word).ratio(), word) for word in _WORDS]
    ratio, word = max(near)
    if ratio >= _NEAR:
        return word
    return next((word for word in _WORDS if _one_slip(folded, word)), None)


def _one_slip(one: str, other: str) -> bool:
    """Whether a letter is wrong, missing or too many, or two stand the wrong way round."""
    start = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    one, other = one[start:], other[start:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    return max(len(one), len(other)) <= 1 or (len(one) == 2 and one == other[::-1])


def _has_form(word: str, inner: Any) -> bool:
    """Whether the value is what that mark takes."""
    if word == "choose":
        return isinstance(inner, list | Mapping)
    if word == "range":
        return (
            isinstance(inner, list) and len(inner) == 2 and all(isinstance(one, int | float) for one in inner)
        )
    return isinstance(inner, str) if word == "axis" else True
