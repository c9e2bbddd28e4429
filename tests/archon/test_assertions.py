"""Assertions of a model's: each is a line that reads as the same case, and nothing is evaluated."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.assertions import MISSING, parsed, read_assertions, value_of
from archon.execution import Suite

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
LITERALS = st.recursive(
    SCALARS | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    return Suite(cases=(one,)).digest == Suite(cases=(other,)).digest


@settings(max_examples=200, deadline=None)
@given(st.lists(LITERALS, max_size=3), LITERALS)
def test_a_test_reads_as_itself_and_again_from_its_line(args: list[Any], expected: Any) -> None:
    written = f"assert f({', '.join(map(repr, args))}) == {expected!r}"
    found = read_assertions(written, "f")
    if "inf" in written:  # no literal
        return
    (one,) = found
    assert one.case.args == tuple(args) and one.case.expected == expected
    assert len(one.source.splitlines()) == 1
    (again,) = read_assertions(one.source, "f")
    assert again.source == one.source and same(again.case, one.case)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("assert f( [1,\n  2] )==3, 'message'", "assert f([1, 2]) == 3"),
        ("assert not f(1)  # never", "assert not f(1)"),
        ("assert abs(f(1) - 1.41) < 0.01", "assert abs(f(1) - 1.41) < 0.01"),
        ('assert f("a\\nb") == """c\nd"""', "assert f('a\\nb') == 'c\\nd'"),
    ],
)
def test_a_test_is_one_line(text: str, line: str) -> None:
    (one,) = read_assertions(text, "f")
    assert one.source == line
    (again,) = read_assertions(one.source, "f")
    assert same(again.case, one.case)


@pytest.mark.parametrize("depth", [90, 99, 150, 199, 5000])
def test_what_is_nested_too_deeply_is_no_test(depth: int) -> None:
    found = read_assertions(f"assert f({'[' * depth}{']' * depth}) == 1", "f")
    assert len(found) == (depth < 100)


def test_many_lines_are_read_in_their_order() -> None:
    text = "\n".join(f"assert f({i}) == {i}" for i in range(20))
    assert [one.case.expected for one in read_assertions(text, "f", 4)] == [0, 1, 2, 3]
    assert len(read_assertions(text, "f")) == 20
    assert read_assertions(text, "g") == []


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="asert f(1)=[]{}'\"\n\\,:#`-.\ud800\x00", max_size=120))
def test_no_text_breaks_the_reading(text: str) -> None:
    for one in read_assertions(f"assert f({text}", "f"):
        assert len(read_assertions(one.source, "f")) == 1


def test_only_literals_have_values() -> None:
    tree = parsed("x + 1")
    assert tree is not None and isinstance(tree.body[0], ast.Expr)
    assert value_of(tree.body[0].value) is MISSING
    assert parsed("1 +") is None and parsed("1" * 6000) is None
