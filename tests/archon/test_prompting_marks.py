"""Quoted text stays in its place, whatever it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.problem import Message, Problem
from archon.prompting import listed, mark_of, question_of, quoted, safe, unquoted

SIGNS = ["\n", "END OF ", "ANSWER", " 1", " 2", " ", "0a1b2c3d", "\ud800", "\r", "\u2028", "{a}"]
cunning = st.lists(st.one_of(st.text(max_size=10), st.sampled_from(SIGNS)), max_size=20).map("".join)


@given(st.lists(st.text(max_size=30), max_size=4))
def test_a_mark_stands_in_no_text_it_was_made_for_and_is_the_same_again(texts: list[str]) -> None:
    mark = mark_of(*texts)
    assert not any(mark in text for text in texts) and len(mark) == 8
    assert mark == mark_of(*texts)


def test_a_text_that_holds_its_own_mark_gets_another() -> None:
    class Cunning(str):
        """A text that claims to hold whatever it is asked for, twice."""

        asked = 0

        def __contains__(self, key: object) -> bool:
            Cunning.asked += 1
            return Cunning.asked <= 2

    assert mark_of(Cunning("text")) != mark_of("text")


def test_what_is_quoted_stands_between_two_lines_with_the_mark() -> None:
    assert quoted("ANSWER A", "a\nb", "0a1b2c3d") == "ANSWER A 0a1b2c3d\na\nb\nEND OF ANSWER A 0a1b2c3d"


@given(st.lists(cunning, max_size=5), cunning)
def test_no_candidate_leaves_its_place_or_takes_another_s_number(texts: list[str], question: str) -> None:
    mark = mark_of(question, *texts)
    prompt = f"Rank.\n\n{quoted('QUESTION', question, mark)}\n\n{listed('ANSWER', texts, mark)}\n\nNow."
    found = unquoted(prompt)
    assert list(found) == ["QUESTION", *(f"ANSWER {i}" for i in range(1, len(texts) + 1))]
    assert list(found.values()) == [safe(question), *map(safe, texts)]


@given(cunning)
def test_what_is_quoted_can_be_sent(text: str) -> None:
    quoted("TEXT", text, mark_of(text)).encode()


def test_a_mark_that_was_not_made_from_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="mark_of"):
        quoted("ANSWER", "it says 0a1b2c3d", "0a1b2c3d")
    with pytest.raises(ValueError, match="mark_of"):
        quoted("ANSWER", "text", "")


@pytest.mark.parametrize("name", ["", "answer", "ANSWER\n", "ANSWER  1", "1", "END OF ANSWER", "ANSWER 1x"])
def test_a_name_is_words_in_capitals(name: str) -> None:
    with pytest.raises(ValueError, match="capitals"):
        quoted(name, "text", "0a1b2c3d")


def test_a_block_that_does_not_end_is_none() -> None:
    assert unquoted("ANSWER 0a1b2c3d\ntext") == {}
    assert unquoted("ANSWER 0a1b2c3d\n" * 20_000 + "END OF OTHER 0a1b2c3d\n" * 20_000) == {}


def test_the_question_has_its_documents_and_its_turns() -> None:
    assert question_of(Problem.ask("Why?")) == "Why?"
    asked = Problem.ask("Why?", documents=("A.", "B."))
    assert question_of(asked) == "Document 1: A.\n\nDocument 2: B.\n\nWhy?"
    turns = (Message(role="user", content="Hello"), Message(role="assistant", content="Yes?"))
    assert question_of(Problem(id="p", messages=turns)) == "user: Hello\n\nassistant: Yes?"
