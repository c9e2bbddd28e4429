"""The forms in which models are asked to reply, as sentences for a prompt's place `{form}`.

Each stands beside its reader: what `choice_form` asks for, `read_choice` reads (archon/prompting/readers.py and
archon/prompting/longer.py). Where a reply could not be read, the form is what the model is told again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel

from archon.prompting.readers import YES_OR_NO

_END = "End with one line and nothing after it"


def word_form(options: Sequence[str] = YES_OR_NO) -> str:
    """For `read_word` and `probability`."""
    return f"Reply with one word: {' or '.join(options)}."


def verdict_form(mark: str, options: Sequence[str] = YES_OR_NO) -> str:
    """For `read_verdict`."""
    return f"{_END}: {' or '.join(f'`Verdict {mark}: {option}`' for option in options)}."


def choice_form(n: int, mark: str) -> str:
    """For `read_choice`."""
    return f"{_END}: `Choice {mark}: NUMBER`, where NUMBER is a number from 1 to {n}."


def ranking_form(n: int, mark: str) -> str:
    """For `read_ranking`."""
    return f"{_END}: `Ranking {mark}: NUMBER > NUMBER > ...`, the best first, with each number from 1 to {n} once."


def scores_form(n: int, mark: str, *, low: float = 0.0, high: float = 10.0) -> str:
    """For `read_scores`."""
    return (
        f"{_END}: `Scores {mark}: SCORE, SCORE, ...`, with {n} numbers between {low:g} and {high:g}, "
        "in the order in which you were shown what you score."
    )


def items_form(most: int) -> str:
    """For `read_items`."""
    return f"Write a numbered list (1., 2., ...) of at most {most} items, and nothing else."


def section_form(name: str, mark: str) -> str:
    """For `read_section`."""
    return f"Write a line `{name} {mark}`, then it and nothing else, then a line `END OF {name} {mark}`."


def json_form(model: type[BaseModel]) -> str:
    """For `read_json`."""
    schema = json.dumps(model.model_json_schema(), ensure_ascii=False)
    return f"End with one JSON value that fits this JSON Schema, and nothing after it: {schema}"
