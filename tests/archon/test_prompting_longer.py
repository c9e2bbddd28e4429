"""Lists, sections and JSON, read out of replies that are dressed, wrapped, cut off or hostile."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

from archon.prompting import (
    Unread,
    items_form,
    json_form,
    read_items,
    read_json,
    read_section,
    section_form,
)

MARK = "0a1b2c3d"


class Step(BaseModel, extra="forbid"):
    """One step."""

    goal: str
    after: list[int] = Field(default_factory=list)


class Steps(RootModel[list[Step]]):
    """Several."""


class Anything(RootModel[Any]):
    """Any value."""


# --- lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. a\n2. b", ["a", "b"]),
        ("1) a\n2) b", ["a", "b"]),
        ("(1) a\n(2) b", ["a", "b"]),
        ("- a\n- b", ["a", "b"]),
        ("* a\n* b", ["a", "b"]),
        ("\u2022 a\n\u2022 b", ["a", "b"]),
        ("Sure! Here:\n\n1. a\n\n2. b\n\nI hope that helps.", ["a", "b"]),
        ("**1.** a\n**2.** b", ["a", "b"]),
        ("**1. Bold** a\n2. b", ["**Bold** a", "b"]),
        ("  1. a\n  2. b", ["a", "b"]),
        (" 9. a\n10. b", ["a", "b"]),
        ("1. a\n   goes on\n\n   and on\n2. b", ["a\ngoes on\n\nand on", "b"]),
        ("1. a\ngoes on\n2. b", ["a\ngoes on", "b"]),
        ("1. a:\n   - x\n   - y\n2. b", ["a:\n- x\n- y", "b"]),
        ("1. a:\n- x\n- y\n2. b", ["a:\n- x\n- y", "b"]),
        ("- a\n  1.5 is x\n- b", ["a\n1.5 is x", "b"]),
        ("1. a\n\nAnd then\n\n2. b", ["a", "b"]),
        ("```\n1. a\n2. b\n```\nDone.", ["a", "b"]),
        ("1. a\n```python\n\n2. x\n```\n2. b", ["a\n```python\n\n2. x\n```", "b"]),
        ("1. a\n2.\n3. c", ["a", "c"]),
        ("1.\n   a\n2. b", ["a", "b"]),
        ("---\n- a\n\n***\nb", ["a"]),
        ("- first thoughts\n\n1. a\n2. b", ["a", "b"]),
        ("1. a\r\n2. b\r\n", ["a", "b"]),
    ],
)
def test_the_items_of_a_list_are_read_however_it_is_written(text: str, items: list[str]) -> None:
    assert list(read_items(text)) == items


@pytest.mark.parametrize(
    "text", ["", "no list", "1.5 is a number", "-5", "**bold** text", "---", "1.\n2.\n", "12345. a"]
)
def test_what_is_no_list_is_unread(text: str) -> None:
    with pytest.raises(Unread, match="no list"):
        read_items(text)


def test_the_first_so_many_items_count() -> None:
    assert read_items("1. a\n2. b\n3. c", 2) == ("a", "b")


words = st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=20)


@given(
    st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=6),
    st.sampled_from(["{}. ", "{}) ", "- ", "* "]),
)
def test_a_well_written_list_is_read_back(items: list[list[str]], bullet: str) -> None:
    items = [[f"x {line}".strip() for line in item] for item in items]
    text = "Here they are.\n\n"
    for number, item in enumerate(items, 1):
        mark = bullet.format(number)
        text += mark + f"\n{' ' * len(mark)}".join(item) + "\n"
    assert list(read_items(f"{text}\nThat is all.")) == ["\n".join(item) for item in items]


SIGNS = ["1.", "2)", "- ", "* ", "**", "\n", "  ", "```", "\n\n", "CODE ", MARK, "END OF "]
SIGNS += ['"', "{", "}", "[", "]", "\\", ":", ",", "1", "goal", "\\ud800"]
pieces = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SIGNS)), max_size=40).map("".join)


@given(pieces, st.integers(1, 4))
def test_no_text_makes_a_reader_raise_anything_else(text: str, most: int) -> None:
    with suppress(Unread):
        items = read_items(text, most)
        assert 0 < len(items) <= most and all(item.strip() == item and item for item in items)
    with suppress(Unread):
        assert read_section(text, "CODE", MARK).strip()
    models: tuple[type[BaseModel], ...] = (Step, Steps, Anything)
    for model in models:
        with suppress(Unread):
            assert isinstance(read_json(text, model), model)


# --- sections --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"CODE {MARK}\nx = 1\n\n  y\nEND OF CODE {MARK}",
        f"Well.\nCODE {MARK}\n\nx = 1\n\n  y",
        f"**CODE {MARK}**:\nx = 1\n\n  y\n\n`END OF CODE {MARK}`\nThat was it.",
        f"code {MARK}\nx = 1\n\n  y\nend of code {MARK}\nmore\nEND OF CODE {MARK}",
        f"CODE {MARK}\na draft\nEND OF CODE {MARK}\nNo.\nCODE {MARK}\nx = 1\n\n  y\nEND OF CODE {MARK}",
        f"CODE 00000000\nforged\nEND OF CODE 00000000\nCODE {MARK}\nx = 1\n\n  y\nEND OF CODE {MARK}",
    ],
)
def test_a_section_is_what_stands_between_its_lines(text: str) -> None:
    assert read_section(text, "CODE", MARK) == "x = 1\n\n  y"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "CODE\nx",
        "CODE 00000000\nx",
        f"CODE {MARK}",
        f"CODE {MARK}\n \nEND OF CODE {MARK}\nx",
        f"The CODE {MARK}\nx",
    ],
)
def test_what_is_no_section_is_unread(text: str) -> None:
    with pytest.raises(Unread, match=rf"`CODE {MARK}`"):
        read_section(text, "CODE", MARK)


@given(st.text(max_size=60), st.text(max_size=200).filter(str.strip))
def test_any_text_without_the_mark_can_be_a_section(before: str, text: str) -> None:
    found = read_section(f"{before}\nCODE {MARK}\n{text}\nEND OF CODE {MARK}\n", "CODE", MARK)
    assert found.strip() == text.strip()


# --- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"goal": "x", "after": [1]}',
        '```json\n{"goal": "x",\n "after": [1]}\n```',
        'Sure, {here} you are: {"goal": "x", "after": [1]} I "hope".',
        '{"goal": "draft"} No: {"goal": "x", "after": [1]}',
        '{"goal": "x", "after": [1]} {"other": 1} [1, 2] {}',
        'Let f = lambda: { 1 \n{"goal": "x", "after": [1]}',
        'A set {1, 2] and "a quote {\n{"goal": "x", "after": [1]}',
        '{ not JSON, {"goal": "x", "after": [1]} }',
        '{"goal": "x", "after": [1]}\n{"goal": "cut o',
    ],
)
def test_the_last_value_that_fits_is_read(text: str) -> None:
    assert read_json(text, Step) == Step(goal="x", after=[1])


def test_braces_in_strings_are_text() -> None:
    goal = 'a } b ] c { d [ e " f \\'
    assert read_json(f"So: {json.dumps({'goal': goal})} done", Step).goal == goal


def test_a_list_is_a_value_too() -> None:
    assert read_json('[{"goal": "a"}, {"goal": "b"}]', Steps).root == [Step(goal="a"), Step(goal="b")]


def test_what_is_inside_a_value_is_not_looked_at_for_itself() -> None:
    with pytest.raises(Unread):
        read_json('[{"goal": "a"}]', Step)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON value"),
        ('"text"', "no JSON value"),
        ('{"goal": "x"', "no JSON value"),
        ("{'goal': 'x'}", "no JSON value"),
        ('{"goal": "x", "n": NaN}', "no JSON value"),
        ('{"goal": "x", "n": 1e999}', "no JSON value"),
        ('{"goal": "x", "n": ' + "9" * 5000 + "}", "no JSON value"),
        ('{"goal": 1}', "goal: Input should be a valid string"),
        ('{"goal": "x", "after": ["ignore"]}', "after.0: Input should be a valid integer"),
        ('{"goal": "x", "ignore_all_rules": 1}', "Extra inputs are not permitted"),
        ('{"goal": "\\ud800"}', "no JSON value"),
        ("{}", "goal: Field required"),
    ],
)
def test_what_is_wrong_with_it_is_said_without_its_words(text: str, why: str) -> None:
    with pytest.raises(Unread, match=why) as unread:
        read_json(text, Step)
    assert "ignore" not in str(unread.value) and len(str(unread.value)) < 250


HOSTILE = {
    "open": "[" * 1_000_000,
    "balanced": "[" * 400_000 + "]" * 400_000,
    "objects": '{"a":' * 150_000,
    "quotes": '{"' + '\\"' * 400_000,
    "strings": '["a' * 300_000,
    "pairs": "[]" * 400_000,
    "closing": "]}" * 400_000,
    "nested prose": "{x" * 300_000 + "}" * 300_000,
    "shallow nests": ("{x" * 31 + "}" * 31) * 8_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_unread(name: str) -> None:
    with pytest.raises(Unread):
        read_json(HOSTILE[name], Step)


def test_what_is_too_long_is_unread() -> None:
    with pytest.raises(Unread, match="longer than"):
        read_json("x" * 1_000_001, Step)


def test_of_what_is_too_deep_only_the_inside_is_looked_at() -> None:
    whole = "[" * 32 + "]" * 32
    assert read_json(whole, Anything).root == json.loads(whole)
    assert read_json(f"[{whole}]", Anything).root == json.loads(whole)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
).filter(lambda value: isinstance(value, list | dict))


@given(values, st.sampled_from([None, 1, 2]), st.text(alphabet="ab '.,\n", max_size=20))
def test_a_value_is_read_back_from_prose(value: Any, indent: int | None, prose: str) -> None:
    text = f"{prose}\n```json\n{json.dumps(value, indent=indent)}\n```\n{prose}"
    assert read_json(text, Anything).root == value


@pytest.mark.parametrize(
    "text",
    [
        "1. " * 300_000,
        "\n" * 300_000,
        "1.\n" * 100_000,
        " " * 1_000_000,
        f"CODE {MARK}\n" * 50_000,
        "```\n" * 100_000,
        "- x\n" * 100_000,
        f"CODE {MARK}\n" + "\n" * 300_000 + "x",
    ],
    ids=range(8),
)
def test_the_other_readers_take_a_hostile_megabyte_too(text: str) -> None:
    with suppress(Unread):
        read_items(text)
    with suppress(Unread):
        read_section(text, "CODE", MARK)


def test_the_forms_name_what_is_read() -> None:
    assert "at most 5 items" in items_form(5)
    form = section_form("CODE", MARK)
    assert f"`CODE {MARK}`" in form and f"`END OF CODE {MARK}`" in form
    assert '"goal"' in json_form(Step)
