"""What a request asks: by which technique, about what, and in which form the reply must be.

A model reads a prompt; rules know it again. Every registered stage's and verifier's templates (`templates_of`) are
laid over the request's questions (`matched`), and what is quoted is taken out (`unquoted`). The form is read from the
sentence that asks for it (archon/prompting/forms.py), so a prompt that nobody knows can be obeyed too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from archon import registry
from archon.component import Component
from archon.pipeline import Pipeline
from archon.prompting import matched, places_of, templates_of, unquoted
from archon.prompting.ask import AGAIN

_AGAIN = AGAIN.partition("{")[0]
_HEADER = re.compile(r"^([A-Z]+(?: [A-Z]+| [0-9]+)*) ([0-9a-f]{8})$", re.MULTILINE)
_PLACE = re.compile(r"\{+\w+\}+")
_NUMBERED = re.compile(r"^([A-Z][a-z ]*) ([0-9]+):$", re.MULTILINE)

GIVEN = ("QUESTION", "DOCUMENT", "EXAMPLE")
"""What quotations are called that a problem brings along."""

Kind = Literal["verdict", "word", "choice", "ranking", "scores", "items", "section", "json"]


class Form(NamedTuple):
    """What a reply must look like."""

    kind: Kind
    mark: str = ""
    n: int = 0
    """How many are shown, or how many items are wanted."""
    options: tuple[str, ...] = ()
    """What a verdict chooses between; what sections are called."""
    low: float = 0.0
    high: float = 0.0
    schema: Mapping[str, Any] = {}


class Prompt(NamedTuple):
    """A template of a registered component."""

    name: str
    """`component.field`."""
    template: str

    @property
    def telling(self) -> str:
        """The longest piece of it that stands in every text made from it."""
        return max(_PLACE.split(self.template), key=len)


class Question(NamedTuple):
    """A request, read."""

    prompt: str
    """Which prompt it is, as `component.field`; empty where it is nobody's."""
    text: str
    """The message that asks."""
    values: Mapping[str, str]
    """What fills the template's places."""
    material: Mapping[str, tuple[str, ...]]
    """What is quoted, by its name without number or letter, in order."""
    labels: Mapping[str, tuple[str, ...]]
    """The numbers or letters it goes by; empty for what has none."""
    outside: str
    """The message without what is quoted."""
    form: Form | None
    """The form asked for."""
    again: bool
    """Whether it is asked again, as the reply before could not be read."""

    def one(self, *names: str) -> str:
        """The first text quoted under one of these names; empty where there is none."""
        return next((self.material[name][0] for name in names if self.material.get(name)), "")

    def all(self, *names: str) -> tuple[str, ...]:
        """The texts quoted under these names."""
        return tuple(text for name in names for text in self.material.get(name, ()))

    @property
    def question(self) -> str:
        """What it is about in the end: the quoted question, or the message itself."""
        return self.one("QUESTION") or self.text

    def number(self, place: str, otherwise: int) -> int:
        """The number that fills a place; the other where none does."""
        value = self.values.get(place, "")
        return int(value) if re.fullmatch(r"\d{1,6}", value) else otherwise

    def listed(self, n: int) -> tuple[str, ...]:
        """The n texts that are shown under one name, answers first: what is to be chosen from or scored."""
        names = sorted(
            (name for name in self.material if name not in GIVEN), key=lambda name: name != "ANSWER"
        )
        return next((self.material[name] for name in names if len(self.material[name]) == n), ("",) * n)


# --- which prompt ----------------------------------------------------------------------------------


class Recogniser:
    """Knows prompts again: the defaults of all that is registered, and those of further components as they are."""

    def __init__(self, components: Iterable[Component | Pipeline] = ()) -> None:
        known = {prompt.template: prompt for prompt in defaults()}
        for component in components:
            known |= {prompt.template: prompt for prompt in prompts_of(component)}
        self.prompts = sorted(known.values(), key=lambda p: (-len(_PLACE.sub("", p.template)), p.name))
        """Those with the most text of their own first."""
        self._telling = [prompt.telling for prompt in self.prompts]
        self._known: dict[str, tuple[str, Mapping[str, str]]] = {}

    def __call__(self, turns: Sequence[Mapping[str, str]]) -> Question:
        """Read the turns of a chat."""
        asked = [turn["content"] for turn in turns if turn["role"] == "user"] or [""]
        fresh = [text for text in asked if not text.startswith(_AGAIN)] or asked
        text, (name, values) = next(
            ((text, found) for text in reversed(fresh) if (found := self._prompt(text))[0]),
            (fresh[-1], ("", {})),
        )
        material, labels = _material(text, values)
        outside = _outside(text)
        again = asked[-1].startswith(_AGAIN)
        return Question(name, text, values, material, labels, outside, form_in(outside), again)

    def _prompt(self, text: str) -> tuple[str, Mapping[str, str]]:
        if text not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            likely = (p for p, telling in zip(self.prompts, self._telling, strict=True) if telling in text)
            found = ((p.name, matched(p.template, text)) for p in likely)
            self._known[text] = next(
                ((name, values) for name, values in found if values is not None), ("", {})
            )
        return self._known[text]


def defaults() -> list[Prompt]:
    """The default prompts of every registered stage and verifier."""
    return [
        Prompt(f"{name}.{field}", template)
        for kind in ("stage", "verifier")
        for name in registry.names(kind)
        for field, template in _defaults_of(registry.find(kind, name)).items()
    ]


@cache
def _defaults_of(cls: type[Component]) -> dict[str, str]:
    defaults = {field: cls.model_fields[field].default for field in templates_of(cls)}
    return {field: text for field, text in defaults.items() if isinstance(text, str) and places_of(text)}


def prompts_of(whole: Component | Pipeline) -> list[Prompt]:
    """The prompts of a component, or of a pipeline's stages, and of the components and pipelines that they hold."""
    if isinstance(whole, Pipeline):
        return [prompt for node in whole.nodes for prompt in prompts_of(node.stage)]
    found = []
    for field in type(whole).model_fields:
        value = getattr(whole, field)
        templates = field in templates_of(type(whole))
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Component | Pipeline):
                found += prompts_of(inner)
            elif templates and isinstance(inner, str) and places_of(inner):
                found.append(Prompt(f"{whole.name}.{field}", inner))
    return found


# --- what is quoted --------------------------------------------------------------------------------


def _material(
    text: str, values: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """What is quoted between marks, and what stands unquoted in places made for that."""
    material: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}

    def note(name: str, content: str) -> None:
        base, _, last = name.rpartition(" ")
        counted = bool(base) and (last.isdigit() or len(last) == 1)
        material.setdefault(base if counted else name, []).append(content)
        labels.setdefault(base if counted else name, []).append(last if counted else "")

    for name, content in unquoted(text).items():
        note(name, content)
    for place, content in values.items():
        words = place.removesuffix("_text").replace("_", " ").upper()
        if not place.endswith("_text"):
            continue
        heads = [*_NUMBERED.finditer(content)]
        if not heads:
            note(words, content)
        ends = [*(head.start() for head in heads[1:]), len(content)]
        for head, end in zip(heads, ends, strict=False):
            note(f"{head[1].upper()} {head[2]}", content[head.end() : end].strip("\n"))
    return {name: tuple(texts) for name, texts in material.items()}, {n: tuple(t) for n, t in labels.items()}


def _outside(text: str) -> str:
    """The text without its quotations: what is said to the model."""
    kept, at = [], 0
    while head := _HEADER.search(text, at):
        end = text.find(f"\nEND OF {head[0]}", head.end())
        if end < 0:
            kept.append(text[at : head.end()])
            at = head.end()
            continue
        kept.append(text[at : head.start()])
        at = end + len(f"\nEND OF {head[0]}")
    return "".join([*kept, text[at:]])


# --- which form ------------------------------------------------------------------------------------

_VERDICT = re.compile(r"`Verdict (\w+): ([^`]+)`")
_WORD = re.compile(r"Reply with one word: ([^.\n]+)\.")
_CHOICE = re.compile(r"`Choice (\w+): NUMBER`, where NUMBER is a number from 1 to (\d+)")
_RANKING = re.compile(r"`Ranking (\w+): NUMBER > NUMBER > \.\.\.`.*?from 1 to (\d+)", re.DOTALL)
_SCORES = re.compile(r"`Scores (\w+): SCORE, SCORE, \.\.\.`, with (\d+) numbers between (\S+) and (\S+),")
_ITEMS = re.compile(r"numbered list \(1\., 2\., \.\.\.\) of at most (\d+) items?")
_SECTION = re.compile(r"line `(?!END OF)([A-Z][A-Z0-9 ]*) ([0-9a-f]{8})`")
_JSON = re.compile(r"fits this JSON Schema, and nothing after it: ")


def form_in(text: str) -> Form | None:
    """The form that a text asks for; None where it asks for none. Of several the last, as it is for the reply's end."""
    found = [
        (match.start(), form)
        for read in _READERS
        if (match := read.find(text)) and (form := read.form(match))
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


class _Reader(NamedTuple):
    pattern: re.Pattern[str]
    kind: Kind

    def find(self, text: str) -> re.Match[str] | None:
        matches = [*self.pattern.finditer(text)]
        return matches[-1] if matches else None

    def form(self, match: re.Match[str]) -> Form | None:
        text = match.string
        if self.kind == "verdict":
            options = tuple(option for mark, option in _VERDICT.findall(text) if mark == match[1])
            return Form("verdict", match[1], options=options)
        if self.kind == "word":
            return Form("word", options=tuple(match[1].split(" or ")))
        if self.kind == "items":
            return Form("items", n=int(match[1]))
        if self.kind == "section":
            return Form(
                "section", match[2], options=tuple(dict.fromkeys(n for n, _ in _SECTION.findall(text)))
            )
        if self.kind == "json":
            return _schema(text[match.end() :])
        if self.kind == "scores":
            return Form("scores", match[1], int(match[2]), low=float(match[3]), high=float(match[4]))
        return Form(self.kind, match[1], int(match[2]))


_READERS = (
    _Reader(_VERDICT, "verdict"),
    _Reader(_WORD, "word"),
    _Reader(_CHOICE, "choice"),
    _Reader(_RANKING, "ranking"),
    _Reader(_SCORES, "scores"),
    _Reader(_ITEMS, "items"),
    _Reader(_SECTION, "section"),
    _Reader(_JSON, "json"),
)


def _schema(text: str) -> Form | None:
    try:
        schema, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    return Form("json", schema=schema) if isinstance(schema, dict) else None
