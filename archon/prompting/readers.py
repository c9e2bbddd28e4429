"""Reading a model's reply: one strict reader for each form in which models are asked to reply.

A reader returns a value or raises `Unread`, whatever the text, and takes time in proportion to it. Decisions are
the last line of a reply, and all of that line: `Verdict 3f9a2c41: yes`, `Choice 3f9a2c41: 2`. The mark is that of
the call (archon/prompting/marks.py), so text that was written before the call cannot hold it. Words elsewhere
decide nothing, reasons may say what they like, and a reply that contradicts itself is unread, never guessed at.

The forms to ask for are in archon/prompting/forms.py; lists, sections and JSON are read in
archon/prompting/longer.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from archon.candidate import TokenLogprob

T = TypeVar("T")

YES_OR_NO = ("yes", "no")

_LONGEST_LINE = 200
_PER_NUMBER = 20
"""Characters that each number, with what is around it, adds to the longest line."""
_DRESS = " \t*_`\"'#[]()"
"""What models put around a word without meaning anything by it."""
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}"
"""What some servers show for a space or a line's end at the beginning of a token."""
_NUMBER = re.compile(r"[0-9]{1,6}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,15}(?:\.[0-9]{1,15})?")


class Unread(Exception):
    """A reply is not in the form that was asked for. The message says what is wrong with it, in one line that
    holds nothing of the reply, so that it can be told to the model."""


# --- decisions -------------------------------------------------------------------------------------


def read_verdict(text: str, options: Sequence[str] = YES_OR_NO, mark: str = "") -> str:
    """The option that the last line names: `Verdict MARK: yes`. Raises Unread."""

    def verdict(named: str) -> str:
        option = _option(named, options)
        if option is None:
            raise Unread(f"its verdict is neither {' nor '.join(options)}")
        return option

    return _last(text, "Verdict", mark, verdict)


def read_word(text: str, options: Sequence[str] = YES_OR_NO) -> str:
    """The option that is all there is in a reply. Raises Unread."""
    option = _option(text.strip(), options)
    if option is None:
        raise Unread(f"it is not one word, {' or '.join(options)}")
    return option


def read_choice(text: str, n: int, mark: str = "") -> int:
    """The index, from 0, of what the last line names by its number, from 1: `Choice MARK: 3` is 2. Raises Unread."""
    return _last(text, "Choice", mark, lambda named: _index(named, n))


def read_ranking(text: str, n: int, mark: str = "", *, partial: bool = False) -> tuple[int, ...]:
    """The indices, from 0, of all n, best first; the last line ranks their numbers: `Ranking MARK: 3 > 1 > 2`.

    Where the ranking may be `partial`, those that are not named follow in their order: none is lost. Raises
    Unread, also for a number that is named twice.
    """

    def ranking(named: str) -> tuple[int, ...]:
        ranked = [_index(one, n) for one in re.split("[>,]", named)]
        known = {*ranked}
        if len(known) < len(ranked):
            raise Unread("its ranking names a number twice")
        if len(ranked) < n and not partial:
            raise Unread(f"its ranking names {len(ranked)} of {n}")
        return (*ranked, *(i for i in range(n) if i not in known))

    return _last(text, "Ranking", mark, ranking, n)


def read_scores(
    text: str, n: int, mark: str = "", *, low: float = 0.0, high: float = 10.0
) -> tuple[float, ...]:
    """The scores of all n, in their order, which the last line lists: `Scores MARK: 7, 4.5, 9`. Raises Unread."""

    def scores(named: str) -> tuple[float, ...]:
        written = [one.strip(_DRESS) for one in named.strip(_DRESS).removesuffix(".").split(",")]
        if len(written) != n:
            raise Unread(f"it gives {len(written)} scores, not {n}")
        if not all(map(_DECIMAL.fullmatch, written)):
            raise Unread("a score is not a plain number")
        found = tuple(map(float, written))
        if not all(low <= score <= high for score in found):
            raise Unread(f"a score is not between {low:g} and {high:g}")
        return found

    return _last(text, "Scores", mark, scores, n)


def _last(text: str, label: str, mark: str, decision: Callable[[str], T], n: int = 0) -> T:
    """The decision that the last line is, behind `LABEL MARK:`. No other such line is another decision."""
    lines = [line.strip(_DRESS) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise Unread("it is empty")
    wanted = [label.casefold(), *mark.casefold().split()]
    *others, last = (_after(line, wanted, _LONGEST_LINE + _PER_NUMBER * n) for line in lines)
    if last is None:
        raise Unread(f"its last line is not `{' '.join((label, *mark.split()))}: ...`")
    decided = decision(last)
    for other in others:
        with suppress(Unread):
            if other is not None and decision(other) != decided:
                break
    else:
        return decided
    raise Unread("it decides twice, and differently")


def _after(line: str, wanted: Sequence[str], longest: int) -> str | None:
    before, colon, rest = line.partition(":")
    if not colon or len(line) > longest or before.strip(_DRESS).casefold().split() != wanted:
        return None
    return rest


def _option(text: str, options: Sequence[str]) -> str | None:
    word = _undressed(text).casefold()
    return next((option for option in options if option.casefold() == word), None)


def _index(text: str, n: int) -> int:
    number = _undressed(text)
    if not _NUMBER.fullmatch(number):
        raise Unread("what it names is not a number")
    if not 1 <= int(number) <= n:
        raise Unread(f"a number that it names is not between 1 and {n}")
    return int(number) - 1


def _undressed(text: str) -> str:
    return text.strip(_DRESS).removesuffix(".").strip(_DRESS)


# --- log-probabilities -----------------------------------------------------------------------------


def probability(tokens: Sequence[TokenLogprob], options: Sequence[str] = YES_OR_NO) -> float | None:
    """The first of two options against the other, by the log-probabilities of the reply's first word.

    None where the first word is neither, or goes on ("no" in "no doubt", "nope"). Where the word is written in several
    tokens (a letter each, say), the first of them decides, and so the options must begin differently.
    """
    first, second = (option.casefold() for option in options)
    spoken = [(i, word) for i, token in enumerate(tokens) if (word := _word(token.token))]
    if not spoken:
        return None
    start, said = spoken[0]
    place = start
    while said not in (first, second):
        place += 1
        if place == len(tokens) or not any(option.startswith(said) for option in (first, second)):
            return None
        said += tokens[place].token.casefold()
    rest = "".join(token.token for token in tokens[place + 1 :])
    if re.match(rf"[\s{_SPACE}]*\w", rest) and not re.match(r"\s*\n", rest):
        return None
    weights = {first: 0.0, second: 0.0}
    token = tokens[start]
    for written, logprob in {**dict(token.top), token.token: token.logprob}.items():
        named = _names(_word(written), (first, second), whole=place == start)
        if named is not None and not math.isnan(logprob):
            weights[named] += math.exp(min(0.0, logprob))
    mass = sum(weights.values())
    return weights[first] / mass if mass > 0 else None


def _names(word: str, options: tuple[str, str], *, whole: bool) -> str | None:
    """The option that a word is; or the only one that it begins."""
    if whole:
        return word if word in options else None
    begun = [option for option in options if word and option.startswith(word)]
    return begun[0] if len(begun) == 1 else None


def _word(token: str) -> str:
    return token.strip().strip(_SPACE + _DRESS + "\r\n").casefold()
