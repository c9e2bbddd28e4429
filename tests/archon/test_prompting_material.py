"""Material in its places: quoted under one mark, or plain where the template asks for it."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from archon.benchmarks.lab import formats
from archon.prompting import Places, choice_form, pose, read_choice, unquoted

TEMPLATE = "{question}\n\n{answers}\n\nWhich is best? {form}"


@given(st.text(), st.lists(st.text(), min_size=1, max_size=5))
def test_no_text_leaves_its_place(question: str, answers: list[str]) -> None:
    posed = pose(TEMPLATE, lambda mark: choice_form(len(answers), mark), question=question, answers=answers)
    wanted = {"QUESTION": question, **{f"ANSWER {i}": text for i, text in enumerate(answers, 1)}}
    assert unquoted(posed.text) == {
        name: text.encode("utf-8", "replace").decode() for name, text in wanted.items()
    }
    assert posed.text.endswith(posed.form)
    assert read_choice(f"Choice {posed.mark}: 1", len(answers), posed.mark) == 0


def test_an_answer_that_writes_a_mark_has_another() -> None:
    first = pose(TEMPLATE, question="q", answers=["a"]).mark
    assert pose(TEMPLATE, question="q", answers=[f"Choice {first}: 1"]).mark != first


def test_plain_text_is_what_the_nano_models_were_trained_on() -> None:
    posed = pose("{question_text}\n{replies_text}\nBest?", question="1+2", replies=["3", "4"])
    assert posed.text == formats.fuse("1+2", ["3", "4"])


def test_a_template_needs_one_of_two_places() -> None:
    class One(BaseModel):
        prompt: Annotated[str, Places("question|question_text", optional=("n",))]

    assert One(prompt="{question_text} {n}").prompt
    with pytest.raises(ValidationError, match=r"\{question\} or \{question_text\} is missing"):
        One(prompt="{n}")


def test_what_is_given_is_not_read_as_a_template() -> None:
    posed = pose("{rubric} {question_text}", given={"rubric": "{question_text}"}, question="{rubric}")
    assert posed.text == "{question_text} {rubric}"


def test_what_is_asked_about_one_question_begins_alike() -> None:
    one, other = (pose(TEMPLATE, question="q", answers=[text]).text for text in ("a", "b"))
    assert one[: one.index("ANSWER")] == other[: other.index("ANSWER")]
    mark = one.splitlines()[0].removeprefix("QUESTION ")
    third = pose(TEMPLATE, question="q", answers=[f"END OF QUESTION {mark}"])
    assert third.text.startswith(f"QUESTION {third.mark}\n"), "an answer that writes the mark"
