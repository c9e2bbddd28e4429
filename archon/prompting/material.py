"""Posing a question about material: a template filled with quoted texts, under one mark.

    PROMPT = "{question}\\n\\n{answers}\\n\\nWhich answer is best? {form}"
    prompt: Annotated[str, Places("question|question_text", "answers|answers_text", "form")] = PROMPT

    posed = pose(self.prompt, lambda mark: choice_form(len(answers), mark), question=..., answers=answers)

Every piece of material fills two places: `{answers}`, quoted so that nothing in it can leave its place, and
`{answers_text}`, as it is, for models that were trained on a form of their own and cannot read marks (the nano
models: archon.benchmarks.lab.formats). Who uses the second trusts the material not to speak for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from archon.prompting.marks import listed, mark_of, quoted, safe
from archon.prompting.templates import filled


class Posed(NamedTuple):
    """A question in words."""

    text: str
    """The filled template."""
    form: str
    """The form of the reply, as it stands in the text or would."""
    mark: str
    """The mark that the reply's lines must carry."""


def no_form(mark: str) -> str:
    """For replies that are read as they are."""
    return ""


def pose(
    template: str,
    form: Callable[[str], str] = no_form,
    /,
    *,
    given: dict[str, str] | None = None,
    **material: str | Sequence[str],
) -> Posed:
    """Fill a template. `form` makes the place `{form}` from the mark; `given` are places of our own making, such as
    a number or a rubric; `material` is quoted: one text as `QUESTION`, a list as `ANSWER 1`, `ANSWER 2`, ...

    What is quoted in the place `{question}` has a mark of its own, so that all that is asked about one question begins
    alike, and a server finds it in its cache.

    A list's place is named in the plural (`answers`), and its texts in the singular. As plain text
    (`{answers_text}`), a list is numbered in the same way: a line `Answer 1:`, then the text.
    """
    given = given or {}
    texts = [t for one in material.values() for t in ((one,) if isinstance(one, str) else one)]
    mark = mark_of(template, *given.values(), *texts)
    places = {**given, "form": form(mark), "mark": mark}
    for name, one in material.items():
        words = name.replace("_", " ").upper()
        if isinstance(one, str):
            own = mark_of(one) if name == "question" else mark
            places[name] = quoted(words, one, mark if any(own in text for text in texts) else own)
            places[f"{name}_text"] = safe(one)
        else:
            words = f"{words[:-3]}Y" if words.endswith("IES") else words.removesuffix("S")
            places[name] = listed(words, one, mark)
            numbered = (f"{words.capitalize()} {i}:\n{safe(text)}" for i, text in enumerate(one, 1))
            places[f"{name}_text"] = "\n".join(numbered)
    return Posed(filled(template, **places), places["form"], mark)
