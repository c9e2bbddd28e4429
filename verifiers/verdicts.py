"""Reading a verdict out of a model's reply: one parser for everyone who asks a model to decide.

A verdict is the last line of a reply, and all of that line: `Verdict 3f9a2c41: yes`. The mark in it is made
for one call (`mark_of`), so text that was written before the call cannot hold it. Words elsewhere decide
nothing, reasons may say what they like, and a reply that contradicts itself is no verdict: None, never a
guess. Where the server gives log-probabilities, `probability` reads the first word's instead.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from archon.candidate import TokenLogprob

YES_OR_NO = ("yes", "no")

_LONGEST_LINE = 200
_DRESS = " \t*_`\"'#[]()"
"""What models put around a word without meaning anything by it."""
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}"
"""What some servers show for a space or a line's end at the beginning of a token."""


def mark_of(*texts: str) -> str:
    """A word of eight hexadecimal digits that stands in none of the texts; the same for the same texts."""
    mark = "0"
    for attempt in range(1000):
        content = "\0".join((str(attempt), *texts)).encode("utf-8", "surrogatepass")
        mark = hashlib.sha256(content).hexdigest()[:8]
        if not any(mark in text for text in texts):
            return mark
    raise AssertionError(f"{mark} and a thousand others stand in texts that were hashed to make them")


def read_verdict(text: str, options: Sequence[str] = YES_OR_NO, mark: str = "") -> str | None:
    """The option that the last line names, where it is a verdict with this mark and nothing else.

    None where it is not, and where another line that is such a verdict names another option.
    """
    lines = [line.strip(_DRESS) for line in text.splitlines()]
    lines = [line for line in lines if line]
    named = [_named(line, options, mark) for line in lines]
    if not named or named[-1] is None or {*named} - {None, named[-1]}:
        return None
    return named[-1]


def read_word(text: str, options: Sequence[str] = YES_OR_NO) -> str | None:
    """The option that is all there is in a reply."""
    word = text.strip().strip(_DRESS).removesuffix(".").strip(_DRESS).casefold()
    return next((option for option in options if option.casefold() == word), None)


def probability(tokens: Sequence[TokenLogprob], options: Sequence[str] = YES_OR_NO) -> float | None:
    """The first of two options against the other, by the log-probabilities of the reply's first word.

    None where the first word is neither, or goes on ("no" in "no doubt", "nope").
    """
    first, second = options
    spoken = [(i, word) for i, token in enumerate(tokens) if (word := _word(token.token))]
    if not spoken or spoken[0][1] not in (first.casefold(), second.casefold()):
        return None
    place = spoken[0][0]
    rest = "".join(token.token for token in tokens[place + 1 :])
    if re.match(rf"[\s{_SPACE}]*\w", rest) and not re.match(r"\s*\n", rest):
        return None
    token = tokens[place]
    weights = {first.casefold(): 0.0, second.casefold(): 0.0}
    for written, logprob in {**dict(token.top), token.token: token.logprob}.items():
        if _word(written) in weights and not math.isnan(logprob):
            weights[_word(written)] += math.exp(min(0.0, logprob))
    mass = sum(weights.values())
    return weights[first.casefold()] / mass if mass > 0 else None


def _word(token: str) -> str:
    return token.strip().strip(_SPACE + _DRESS + "\r\n").casefold()


def _named(line: str, options: Sequence[str], mark: str) -> str | None:
    if len(line) > _LONGEST_LINE:
        return None
    label, colon, rest = line.partition(":")
    if not colon or label.strip(_DRESS).casefold().split() != ["verdict", *mark.casefold().split()]:
        return None
    return read_word(rest, options)
