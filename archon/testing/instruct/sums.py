"""Problems that a model made of rules can do, or get wrong, step by step: sums of numbers in words.

    What is forty-two plus seven minus three?
    Write a Python function f(x) that returns x plus seven minus three.
    What is Brod plus seven?                          (and a document says: Brod is forty-two.)

The truth stands in the question, so whoever reads a question, a plan, a solution or a program can say what it comes
to, and what has gone wrong in it. A plan is a sentence, "Take forty-two, then add seven, then subtract three."; a
solution works one operation a line and ends with `#### 46`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from archon.answers import canonical_number
from archon.problem import Case, Problem

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "? ? twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {
    **{word: number for number, word in enumerate(_ONES)},
    **{word: 10 * number for number, word in enumerate(_TENS) if number > 1},
}
_SYLLABLES = ("Bro", "Kel", "Mar", "Tov", "Zin", "Pal", "Rud", "Sen", "Gor", "Lim")
_ENDINGS = ("da", "vik", "nor", "sta", "tel", "ra")


class Sum(NamedTuple):
    """A sum, or what a function adds to its argument."""

    terms: tuple[int, ...]
    """What is added; negative numbers are taken away."""
    code: bool = False
    """Whether a function of x is asked for, which begins with x."""

    @property
    def value(self) -> int:
        """What it comes to; of a function, at x = 0."""
        return sum(self.terms)

    @property
    def question(self) -> str:
        """The question in words."""
        return self.asked([in_words(abs(term)) for term in self.terms])

    def asked(self, words: Sequence[str]) -> str:
        """The question, with these words for its numbers, whatever their signs."""
        signs = ["plus" if term >= 0 else "minus" for term in self.terms]
        spoken = [f" {sign} {word}" for sign, word in zip(signs, words, strict=True)]
        if self.code:
            return f"Write a Python function f(x) that returns x{''.join(spoken)}."
        first = f"negative {words[0]}" if self.terms[0] < 0 else words[0]
        return f"What is {''.join([first, *spoken[1:]])}?"

    @property
    def plan(self) -> str:
        """How to work it out, in a sentence."""
        first, rest = ("x", self.terms) if self.code else (in_words(self.terms[0]), self.terms[1:])
        steps = [f"then {'add' if t >= 0 else 'subtract'} {in_words(abs(t))}" for t in rest]
        return ", ".join([f"Take {first}", *steps]) + "."


# --- words -----------------------------------------------------------------------------------------


def in_words(number: int) -> str:
    """A whole number, less than a million either way, in English words."""
    if number < 0:
        return f"negative {in_words(-number)}"
    if number >= 1000:
        rest = f" {in_words(number % 1000)}" if number % 1000 else ""
        return f"{in_words(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" {in_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


def number_of(words: str) -> int | None:
    """The number that words or digits name; None where they name none."""
    found = words.replace("-", " ").split() if not re.fullmatch(r"-?\d{1,9}", words) else []
    if not found:
        return int(words) if words else None
    sign = -1 if found[0] == "negative" else 1
    total = part = 0
    for word in found[1:] if sign < 0 else found:
        if word in _VALUES:
            part += _VALUES[word]
        elif word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = total + part * 1000, 0
        else:
            return None
    return sign * (total + part)


# --- reading ---------------------------------------------------------------------------------------

_ASKED = re.compile(r"\b(What is|returns) ((?:(?!What is|returns)[\w -]){1,400}?)[?.]")
_PLAN = re.compile(r"\btake ([\w -]{1,60})((?:, then (?:add|subtract) [\w -]{1,60}){0,60})\.", re.IGNORECASE)
_STEP = re.compile(r", then (add|subtract) ([\w -]+)")
_KNOWN = re.compile(r"\b([A-Z][a-z]+) is ([a-z -]{1,60})\.")
_TOTAL = re.compile(r"####\s*(-?[\d,]+)")
_RETURN = re.compile(r"return x((?: [+-] \d{1,9})*)\s*$", re.MULTILINE)


def asked_in(text: str, known: str = "") -> Sum | None:
    """The last sum that a text asks for; None where it asks for none, or names what is nowhere said.

    What names stand for is looked for in the text, and in what else is `known`.
    """
    found = _ASKED.findall(text)
    if not found:
        return None
    kind, words = found[-1]
    said: dict[str, str] = dict(_KNOWN.findall(f"{known}\n{text}"))
    parts: list[str] = re.split(r" (plus|minus) ", words)
    code = kind == "returns"
    if code and parts.pop(0) != "x":
        return None
    signs = parts[0::2] if code else ["plus", *parts[1::2]]
    values = [number_of(said.get(word, word)) for word in (parts[1::2] if code else parts[0::2])]
    if None in values:
        return None
    return Sum(
        tuple(v if s == "plus" else -v for s, v in zip(signs, values, strict=True) if v is not None), code
    )


def names_in(text: str) -> tuple[str, ...]:
    """The names in the last sum that a text asks for, whatever they stand for."""
    found = _ASKED.findall(text)
    return tuple(re.findall(r"\b[A-Z][a-z]+\b", found[-1][1])) if found else ()


def plans_in(text: str) -> list[Sum]:
    """Every plan in a text, in order."""
    return list(_plans(text))


def _plans(text: str) -> Iterator[Sum]:
    for first, steps in _PLAN.findall(text):
        code = first == "x"
        start = [] if code else [number_of(first)]
        rest = [(sign, number_of(words)) for sign, words in _STEP.findall(steps)]
        values = [*start, *(None if n is None else n if sign == "add" else -n for sign, n in rest)]
        if values and None not in values:
            yield Sum(tuple(v for v in values if v is not None), code)


def described(text: str) -> Sum | None:
    """The sum that an answer works out; None where it works out none."""
    programs = _RETURN.findall(text)
    if programs:
        return Sum(tuple(map(int, re.findall(r"[+-]\d+", programs[-1].replace(" ", "")))), True)
    lines = re.findall(r"^(-?\d{1,9}) ([+-]) (\d{1,9}) = -?\d{1,9}$", text, re.MULTILINE)
    if lines:
        return Sum((int(lines[0][0]), *(int(sign + number) for _, sign, number in lines)))
    value = value_of(text)
    return None if value is None else Sum((value,))


def value_of(text: str) -> int | None:
    """What a reply arrives at: the number behind its last `####`, or what its program adds to x."""
    programs = _RETURN.findall(text)
    if programs:
        return sum(map(int, re.findall(r"[+-]\d+", programs[-1].replace(" ", ""))))
    totals = _TOTAL.findall(text)
    if not totals:
        return None
    number = canonical_number(totals[-1])
    return None if number is None else int(number)


# --- writing ---------------------------------------------------------------------------------------


def solution(sum_: Sum, slips: Sequence[int] = ()) -> str:
    """The sum worked out, an operation a line; the i-th is off by the i-th slip."""
    off = [*slips, *[0] * len(sum_.terms)]
    if sum_.code:
        adds = [term + slip for term, slip in zip(sum_.terms, off, strict=False)]
        body = "x" + "".join(f" {'+' if a >= 0 else '-'} {abs(a)}" for a in adds)
        return f"```python\ndef f(x):\n    return {body}\n```"
    total, lines = sum_.terms[0], []
    for term, slip in zip(sum_.terms[1:], off, strict=False):
        result = total + term + slip
        lines.append(f"{total} {'+' if term >= 0 else '-'} {abs(term)} = {result}")
        total = result
    return "\n".join([*lines, f"#### {total}"])


def operations(sum_: Sum) -> int:
    """How many operations it takes."""
    return len(sum_.terms) if sum_.code else len(sum_.terms) - 1


def arrives_at(value: int) -> str:
    """A bare answer that comes to a value."""
    return solution(Sum((value,)))


def shortened(sum_: Sum, rng: random.Random) -> Sum:
    """A sum that leaves one of the numbers out, and so comes to something else."""
    at = [i for i, term in enumerate(sum_.terms) if term and (i or sum_.code)]
    if not at:
        return sum_._replace(terms=(*sum_.terms, rng.randint(1, 9)))
    gone = rng.choice(at)
    return sum_._replace(terms=(*sum_.terms[:gone], *sum_.terms[gone + 1 :]))


# --- problems --------------------------------------------------------------------------------------


def sums(n: int, *, terms: int = 4, code: bool = False, named: int = 0, seed: int = 0) -> list[Problem]:
    """So many problems, all different, of so many numbers; the first `named` of them are said in documents, which
    also say what nobody asks for. A problem for code has two visible tests."""
    found: dict[str, Problem] = {}
    number = 0
    while len(found) < n:
        rng = random.Random(f"sums {seed} {number}")
        number += 1
        values = [rng.randint(20, 99), *(rng.choice((1, -1)) * rng.randint(2, 60) for _ in range(terms - 1))]
        problem = _problem(Sum(tuple(values), code), named, rng)
        found.setdefault(problem.id, problem)
    return list(found.values())


def _problem(sum_: Sum, named: int, rng: random.Random) -> Problem:
    if sum_.code:
        question = sum_.question
        tests = tuple(Case(args=(x,), expected=x + sum_.value) for x in (0, rng.randint(1, 99)))
        return Problem.ask(question, id=question, answer="code", entry_point="f", tests=tests)
    names = [f"{a}{b}" for a in _SYLLABLES for b in _ENDINGS]
    rng.shuffle(names)
    words = [in_words(abs(term)) for term in sum_.terms]
    documents = [f"{name} is {word}." for name, word in zip(names, words[:named], strict=False)]
    documents += [f"{name} is {in_words(rng.randint(2, 99))}." for name in names[named : 3 * named]]
    question = sum_.asked([*names[:named], *words[named:]])
    rng.shuffle(documents)
    return Problem.ask(question, id=question, answer="number", documents=tuple(documents))


def truth_of(problem: Problem) -> int:
    """What a problem's answer comes to. Raises ValueError for one that is not of this family."""
    found = asked_in(problem.question, " ".join(problem.documents))
    if found is None:
        raise ValueError(f"{problem.id!r} asks for no sum")
    return found.value


def is_right(problem: Problem, text: str | None) -> bool:
    """Whether an answer comes to what is asked for."""
    return text is not None and value_of(text) == truth_of(problem)
