"""Graphs of smaller questions: the longest way counts, what is wrong is said, what can be used is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.prompting import Unread
from archon.strategies.thought_graph import (
    OpenParts,
    Part,
    ThoughtGraph,
    ToldParts,
    mend_parts,
    read_assignments,
    read_parts,
)


def graph(*needs: tuple[int, ...]) -> ThoughtGraph:
    """Parts that need these, by place."""
    return ThoughtGraph(tuple(Part(f"q{i}", one, f"a{i}") for i, one in enumerate(needs)))


def said(*needs: Any, **more: Any) -> str:
    """Parts as a model writes them, numbers from 1."""
    parts = [{"question": f"q{i}", "answer": f"a{i}", "needs": one} for i, one in enumerate(needs, 1)]
    return f"I think.\n```json\n{json.dumps({'parts': parts, **more})}\n```"


@pytest.mark.parametrize(
    ("one", "depth"),
    [
        (graph(()), 0),
        (graph((), (), ()), 0),
        (graph((), (0,)), 1),
        (graph((), (0,), (1,)), 2),
        (graph((), (0,), (0, 1)), 2),  # the shortest way has one step
        (graph((), (), (0, 1), (2,), (0, 3)), 3),
        (graph((1,), (2,), ()), 2),  # forward
    ],
)
def test_the_depth_is_that_of_the_longest_way(one: ThoughtGraph, depth: int) -> None:
    assert one.check().depth == depth


def test_parts_stand_behind_what_they_need() -> None:
    assert graph((1, 2), (2,), ()).order == [2, 1, 0]
    assert graph((), (0,), (0,), (1, 2)).order == [0, 1, 2, 3]
    one = graph((), (0,), ())
    assert ([p.question for p in one.independent], [p.question for p in one.dependent]) == (
        ["q0", "q2"],
        ["q1"],
    )
    assert [p.answer for p in one.answered(["x", "", "z"]).parts] == ["x", "", "z"]


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (graph((3,), ()), "part 1 needs part 4, and there are 2 parts"),
        (graph((-1,), ()), "part 1 needs part 0, and there are 2 parts"),
        (graph((), (1,)), "part 2 needs itself"),
        (graph((2,), (0,), (1,), ()), "the parts 1, 2, 3 need each other in a circle"),
    ],
)
def test_what_is_wrong_is_said(one: ThoughtGraph, why: str) -> None:
    with pytest.raises(Unread, match=why):
        one.check()


def test_mending_keeps_needs_of_earlier_parts_and_drops_what_leads_nowhere() -> None:
    assert [p.needs for p in graph((1, 7), (0, 1), (-2, 1)).mended().parts] == [(), (0,), (1,)]
    assert [p.needs for p in graph((2,), (0,), (1,)).mended().parts] == [(), (0,), (1,)]
    assert [p.needs for p in graph((1,), ()).mended().parts] == [(1,), ()], "forward is no fault"


NEEDS = st.lists(st.lists(st.integers(-2, 7), max_size=4).map(tuple), min_size=1, max_size=6)


@given(NEEDS)
def test_what_is_mended_is_in_order_and_the_most_that_can_be_kept(needs: list[tuple[int, ...]]) -> None:
    whole = graph(*needs)
    mended = whole.mended().check()
    assert [p.question for p in mended.parts] == [p.question for p in whole.parts]
    for place, part in enumerate(mended.parts):
        assert set(part.needs) <= set(needs[place])
        for need in set(needs[place]) - set(part.needs):  # it would close a circle, or leads nowhere
            within = 0 <= need < len(needs)
            assert not within or need == place or nx.has_path(mended._graph, place, need)
    assert mended.mended() == mended
    try:
        whole.check()
    except Unread:
        return
    assert [set(p.needs) for p in mended.parts] == [set(one) for one in needs]


# --- JSON -------------------------------------------------------------------------------------------


def test_what_a_model_writes_is_read_with_numbers_from_one() -> None:
    found = read_parts(said([], [1], [1, 2, 2]), ToldParts, 10)
    assert [(p.question, p.answer, p.needs) for p in found.parts] == [
        ("q1", "a1", ()),
        ("q2", "a2", (0,)),
        ("q3", "a3", (0, 1)),
    ]
    assert read_parts('{"parts": [{"question": "x", "needs": []}]}', OpenParts, 1).parts == (Part("x"),)
    numbers = '{"parts": [{"question": "x", "needs": ["1"], "answer": 7}, {"question": 3, "needs": [], "answer": "y"}]}'
    with pytest.raises(Unread, match="part 1 needs itself"):
        read_parts(numbers, ToldParts, 10)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no graph", "no JSON"),
        ('{"parts": []}', "parts"),
        ('{"parts": [{"question": "x", "needs": []}]}', r"parts\.0\.answer: Field required"),
        ('{"parts": [{"answer": "x", "needs": []}]}', r"parts\.0\.question: Field required"),
        ('{"parts": [{"question": "x", "answer": "y"}]}', r"parts\.0\.needs: Field required"),
        ('{"parts": [{"question": "x", "answer": "y", "needs": ["one"]}]}', r"parts\.0\.needs\.0"),
        (said([2], [1]), "circle"),
        (said([5]), "part 1 needs part 5, and there are 1 parts"),
        (said([0]), "part 1 needs part 0"),
        (said(*[[]] * 11), "it has 11 parts, more than 10"),
    ],
)
def test_what_is_not_in_order_is_unread(text: str, why: str) -> None:
    with pytest.raises(Unread, match=why):
        read_parts(text, ToldParts, 10)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        (said([2], [1]), [(), (0,)]),
        (said([5, 1], [1]), [(), (0,)]),
        (said(None, "1", [" 1 ", "two", 1.5, 10**30, True]), [(), (), (0,)]),
        (said(*[[]] * 12), [()] * 10),
        ('{"parts": [{"question": "x", "answer": "y"}]}', [()]),
        ('{"parts": [{"question": "x", "answer": "y"}, {"question": "z", "needs": [1]}]}', [()]),
    ],
)
def test_of_what_is_not_in_order_the_rest_is_used(text: str, needs: list[tuple[int, ...]]) -> None:
    assert [p.needs for p in mend_parts(text, 10, told=True).parts] == needs


@pytest.mark.parametrize(
    "text", ["", "prose", "[1, 2]", '{"parts": [{"needs": []}]}', '{"parts": [{"question": "x"}]}']
)
def test_where_nothing_can_be_used_it_is_unread(text: str) -> None:
    with pytest.raises(Unread):
        mend_parts(text, 10, told=True)


def test_a_question_that_is_not_answered_needs_no_answers_to_be_mended() -> None:
    assert mend_parts('{"parts": [{"question": "x"}]}', 10, told=False).parts == (Part("x"),)


@given(
    st.text(max_size=60)
    | st.recursive(
        st.integers() | st.text(max_size=3) | st.none(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["parts", "question", "needs", "answer"]), inner)
        ),
    ).map(json.dumps)
)
def test_any_reply_is_read_or_unread(text: str) -> None:
    readers: list[Callable[[], ThoughtGraph]] = [
        lambda: read_parts(text, ToldParts, 5),
        lambda: mend_parts(text, 5, told=True),
        lambda: mend_parts(text, 5, told=False),
        lambda: read_assignments(text, text, 5),
    ]
    for read in readers:
        try:
            assert read().depth < 5
        except Unread as unread:
            assert str(unread)


# --- assignments ------------------------------------------------------------------------------------

QUESTION = "Let x=12-b, r=16-12, b=r+6, z=9*2. Find x."


def test_assignments_need_those_whose_names_they_hold() -> None:
    found = read_assignments("r=16-12\nb=r+6\nx=12-b", QUESTION, 10)
    assert [(p.name, p.question, p.needs) for p in found.parts] == [
        ("r", "r=16-12", ()),
        ("b", "b=r+6", (0,)),
        ("x", "x=12-b", (1,)),
    ]
    assert found.depth == 2
    assert read_assignments(" x=12-b ", QUESTION, 10).parts == (Part("x=12-b", (), "", "x"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it has 0 lines"),
        ("r=16-12\n" * 11, "it has 11 lines, not 1 to 10"),
        ("r=16-12\nand so on\nx=12-b", "its line 2 is not `name=what`"),
        ("r=16-12\nr=16-12", "two lines have one name"),
        ("r=16-1\nx=12-b", "the question does not hold its line 1"),
        ("=12-b", "not `name=what`"),
        ("r=16-12\nb=r+6", "its last line is not what the question asks for"),
        ("r=16-12", "its last line is not what the question asks for"),
        ("x=12-b\nb=r+6", "its last line is not what the question asks for"),
        ("z=9*2\nx=12-b\nr=16-12", "its last line is not what the question asks for"),
    ],
)
def test_lines_that_do_not_keep_to_the_question_are_unread(text: str, why: str) -> None:
    with pytest.raises(Unread, match=why):
        read_assignments(text, QUESTION, 10)


def test_assignments_in_a_circle_are_unread() -> None:
    with pytest.raises(Unread, match="circle"):
        read_assignments("a=b+1\nb=a+1", "Let a=b+1, b=a+1. Find b.", 10)
