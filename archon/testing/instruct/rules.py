"""What a model that knows its business replies: by the form that a prompt asks for, and by what it shows.

A rule takes a `Mind` and writes the whole reply. Those of prompts that need one for themselves are in techniques.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from archon.testing.instruct.mind import FLAW, FLAWLESS, Mind
from archon.testing.instruct.reading import Form
from archon.testing.instruct.sums import Sum, plans_in, shortened, value_of

Rule: TypeAlias = Callable[[Mind], str]


def obey(mind: Mind) -> str:
    """Whatever is asked, in its form; where no form is asked for, an answer."""
    form = mind.question.form
    return _BY_FORM[form.kind](mind, form) if form is not None else write(mind)


# --- writing ---------------------------------------------------------------------------------------


def solve(mind: Mind) -> str:
    """Work it out, by a plan where one is shown."""
    return mind.worked(mind.plan)


def write(mind: Mind) -> str:
    """Make one answer of those that are shown; work it out where none is."""
    return fuse(mind) if mind.answers else solve(mind)


def fuse(mind: Mind) -> str:
    """One answer of several: the right one where there is one. Where that fails, one of those that critics praise, or
    any."""
    answers = mind.answers
    if not any(value_of(answer) is not None for answer in answers):
        return solve(mind)
    if mind.succeeds("fusing"):
        right = [answer for answer in answers if mind.is_right(answer)]
        return right[0] if right else mind.worked()
    praised = [answer for answer, fine in zip(answers, _praised(mind, len(answers)), strict=True) if fine]
    return mind.pick("fused", praised or answers)


def revise(mind: Mind) -> str:
    """The last answer, mended where it is wrong; where a critic finds fault with what is right, spoiled."""
    if not mind.answers:
        return solve(mind)
    answer = mind.answers[-1]
    said = [text for text in mind.shown if FLAW in text or FLAWLESS in text]
    if said and FLAWLESS in said[-1]:
        return answer
    if mind.is_right(answer):
        return mind.worked(_wrong(mind)) if said else answer
    return mind.worked() if mind.succeeds("revising") else answer


def criticise(mind: Mind, answer: str | None = None, which: int = 0) -> str:
    """What is wrong with an answer, or with a plan."""
    if answer is None:
        answer = ([*mind.shown] or [""])[-1]
    right = mind.plans_rightly(answer) if plans_in(answer) else mind.is_right(answer)
    if right == mind.succeeds("criticising", which):
        return FLAWLESS
    return f"Line {mind.rng(f'line {which}').randint(1, 3)} {FLAW} from the one before."


def plan(mind: Mind, which: int = 0) -> str:
    """How to go about it; a bad plan leaves a number out."""
    if mind.sum is None:
        return mind.prose(8)
    if mind.succeeds("planning", which):
        return mind.sum.plan
    return shortened(mind.sum, mind.rng(f"plan {which}")).plan


def _wrong(mind: Mind) -> Sum | None:
    return None if mind.sum is None else shortened(mind.sum, mind.rng("wrong"))


def _praised(mind: Mind, n: int) -> list[bool]:
    """Of which of n answers a critic that is shown finds nothing wrong."""
    said = mind.question.all("CRITIQUE", "REASONS")
    return [FLAWLESS in text for text in said] if len(said) == n else [False] * n


# --- deciding --------------------------------------------------------------------------------------


def order(mind: Mind, texts: Sequence[str]) -> list[int]:
    """Texts from best to worst: by what is right, or by what critics say of them, or by chance."""
    numbers = [*range(len(texts))]
    mind.rng("order").shuffle(numbers)
    if mind.succeeds("ranking"):
        return sorted(numbers, key=lambda i: -mind.quality(texts[i]))
    praised = _praised(mind, len(texts))
    return sorted(numbers, key=lambda i: not praised[i])


def judged(mind: Mind, options: Sequence[str]) -> str:
    """Yes for answers that are right; where judging fails, what a critic says of them, or the opposite. Of two
    letters, the one of the better answer."""
    first, second = options[0], options[-1]
    answers = mind.answers or ("",)
    if first.lower() != "yes" and len(answers) > 1:
        qualities = [mind.quality(text) for text in answers[:2]]
        better = (
            qualities[0] > qualities[1] if qualities[0] != qualities[1] else mind.pick("tie", (True, False))
        )
    else:
        better = all(map(mind.is_right, answers))
    if mind.succeeds("judging"):
        return first if better else second
    said = any(_praised(mind, 1)) if mind.question.all("CRITIQUE", "REASONS") else not better
    return first if said else second


def _verdict(mind: Mind, form: Form) -> str:
    option = judged(mind, form.options)
    return f"I worked it out for myself and compared.\nVerdict {form.mark}: {option}"


def _word(mind: Mind, form: Form) -> str:
    return judged(mind, form.options)


def _choice(mind: Mind, form: Form) -> str:
    best = order(mind, mind.question.listed(form.n))[0]
    return f"I compared all {form.n}.\nChoice {form.mark}: {best + 1}"


def _ranking(mind: Mind, form: Form) -> str:
    ranked = order(mind, mind.question.listed(form.n))
    return f"I compared all {form.n}.\nRanking {form.mark}: {' > '.join(str(i + 1) for i in ranked)}"


def _scores(mind: Mind, form: Form) -> str:
    span = form.high - form.low
    scores = []
    for i, text in enumerate(mind.question.listed(form.n)):
        share = mind.quality(text) if mind.succeeds("ranking", i) else mind.rng(f"score {i}").random()
        scores.append(f"{form.low + span * (0.1 + 0.8 * share):.3g}")
    return f"Each on its own merits.\nScores {form.mark}: {', '.join(scores)}"


# --- lists, sections, JSON -------------------------------------------------------------------------


def _items(mind: Mind, form: Form) -> str:
    n = max(1, form.n)
    items = [plan(mind, i) for i in range(n)]
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))


def _section(mind: Mind, form: Form) -> str:
    return in_sections(form, {name: write(mind) for name in form.options})


def in_sections(form: Form, texts: Mapping[str, str]) -> str:
    """Texts in the sections that are asked for."""
    return "\n\n".join(
        f"{name} {form.mark}\n{text}\nEND OF {name} {form.mark}" for name, text in texts.items()
    )


def _json(mind: Mind, form: Form) -> str:
    return json.dumps(fitting(form.schema, mind, form.schema))


def fitting(schema: Mapping[str, Any], mind: Mind, root: Mapping[str, Any], depth: int = 0) -> Any:
    """A small value that fits a JSON Schema: plans where text is wanted."""
    if "$ref" in schema:
        return fitting(root["$defs"][schema["$ref"].rpartition("/")[2]], mind, root, depth + 1)
    if "enum" in schema or "const" in schema:
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return fitting(schema[choice][0], mind, root, depth + 1)
    kind = schema.get("type", "object")
    if kind == "object":
        wanted = schema.get("required", ())
        return {name: fitting(schema["properties"][name], mind, root, depth + 1) for name in wanted}
    if kind == "array":
        numbers = schema.get("items", {}).get("type") in ("integer", "number")
        n = max(schema.get("minItems", 0), 0 if numbers or depth > 3 else 1)
        return [fitting(schema.get("items", {"type": "string"}), mind, root, depth + 1) for _ in range(n)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema))
        return int(least) if kind == "integer" else float(least)
    return {"boolean": False, "null": None}.get(kind, plan(mind) if kind == "string" else None)


_BY_FORM: Mapping[str, Callable[[Mind, Form], str]] = {
    "verdict": _verdict,
    "word": _word,
    "choice": _choice,
    "ranking": _ranking,
    "scores": _scores,
    "items": _items,
    "section": _section,
    "json": _json,
}
