"""Asking a model in words and reading its reply: what judges and techniques stand on (docs/prompting.md).

`marks` quotes candidate text so that it cannot leave its place; `templates` are prompts as data; `forms` say what a
reply must look like, `readers` and `longer` read it; `ask` asks, and asks again where it could not be read.
"""

from archon.prompting.ask import Asked, Said, ask, ask_several, asked, followed
from archon.prompting.forms import (
    choice_form,
    items_form,
    json_form,
    ranking_form,
    scores_form,
    section_form,
    verdict_form,
    word_form,
)
from archon.prompting.longer import read_items, read_json, read_section
from archon.prompting.marks import listed, mark_of, question_of, quoted, safe, unquoted
from archon.prompting.material import Posed, no_form, pose
from archon.prompting.readers import (
    YES_OR_NO,
    Unread,
    probability,
    read_choice,
    read_ranking,
    read_scores,
    read_verdict,
    read_word,
)
from archon.prompting.templates import SYSTEM, Places, chat, filled, matched, places_of, templates_of

__all__ = [
    "SYSTEM",
    "YES_OR_NO",
    "Asked",
    "Places",
    "Posed",
    "Said",
    "Unread",
    "ask",
    "ask_several",
    "asked",
    "chat",
    "choice_form",
    "filled",
    "followed",
    "items_form",
    "json_form",
    "listed",
    "mark_of",
    "matched",
    "no_form",
    "places_of",
    "pose",
    "probability",
    "question_of",
    "quoted",
    "ranking_form",
    "read_choice",
    "read_items",
    "read_json",
    "read_ranking",
    "read_scores",
    "read_section",
    "read_verdict",
    "read_word",
    "safe",
    "scores_form",
    "section_form",
    "templates_of",
    "unquoted",
    "verdict_form",
    "word_form",
]
