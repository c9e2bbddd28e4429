"""Templates: which braces are places, what is filled in, what is wrong with one."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from archon import registry
from archon.component import Component, Value
from archon.config.build import component, plain
from archon.errors import ConfigError
from archon.prompting import Places, chat, filled, matched, places_of, templates_of

names = st.sampled_from(["a", "b", "c", "long_name"])
literals = st.text(alphabet='xyz{}"\\ \n:1', max_size=12)
templates = st.lists(st.one_of(literals, names.map(lambda name: f"{{{name}}}")), max_size=8).map("".join)


class Asks(Component):
    """A component with templates."""

    kind = "verifier"
    name = "asks"

    prompt: Annotated[str, Places("question", "answers", optional=("rubric",))] = "{question} {answers}"
    """The template."""
    other: Annotated[str, Places("question")] | None = None
    """Another."""
    system: str = "{anything}"
    """No template."""


def test_filling_in_is_done_once() -> None:
    assert filled("{a} {b} {a}", a="{b}", b="{a}\\1\\g<0>") == "{b} {a}\\1\\g<0> {b}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{"a": [1, {"b": {}}]} {a}', '{"a": [1, {"b": {}}]} A'),
        ("{{a}} is written, {a} is filled in", "{a} is written, A is filled in"),
        (
            "\\frac{1}{2} f'{0}' {} { a } {a b} {a-b} {a:>3}",
            "\\frac{1}{2} f'{0}' {} { a } {a b} {a-b} {a:>3}",
        ),
        ("{ {a} }", "{ A }"),
        ("{" * 5000 + "b", "{" * 5000 + "b"),
    ],
)
def test_only_a_name_between_single_braces_is_a_place(template: str, text: str) -> None:
    assert filled(template, a="A") == text


def test_a_place_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled("{a}")


@given(templates, st.text(max_size=8))
def test_a_template_has_the_places_that_are_filled(template: str, value: str) -> None:
    found = places_of(template)
    filled(template, **dict.fromkeys(found, value))
    for missing in found:
        with pytest.raises(KeyError):
            filled(template, **dict.fromkeys({*found} - {missing}, value))


# --- back ------------------------------------------------------------------------------------------


@given(
    st.lists(names, unique=True, max_size=4),
    st.lists(st.text(alphabet="ab \n{}", max_size=9), min_size=4, max_size=4),
)
def test_values_that_do_not_hold_what_separates_them_are_found_again(
    order: list[str], texts: list[str]
) -> None:
    template = "Begin" + "".join(f"|{{{name}}}" for name in order) + "|end {{a}}"
    template += "".join(f"{{{name}}}" for name in order)  # once more
    values = dict(zip(order, texts, strict=False))
    assert matched(template, filled(template, **values)) == values


@given(templates, st.lists(st.text(alphabet="abxyz{}\n", max_size=6), min_size=4, max_size=4))
def test_what_is_found_becomes_the_text(template: str, texts: list[str]) -> None:
    text = filled(template, **dict(zip(places_of(template), itertools.cycle(texts), strict=False)))
    found = matched(template, text)
    if found is not None:
        assert filled(template, **found) == text
        assert set(found) == set(places_of(template))


def test_the_last_place_may_hold_anything() -> None:
    assert matched("{a}: {b}.", "x: y: z..") == {"a": "x", "b": "y: z."}
    assert matched("{a}", "") == {"a": ""}


@pytest.mark.parametrize("text", ["", "Rate x", "rate: x", "Rate: x and", "xRate: x!"])
def test_another_text_is_no_match(text: str) -> None:
    assert matched("Rate: {a}!", text) is None


def test_a_mark_that_comes_twice_finds_the_end_of_what_is_between() -> None:
    template = "ANSWER {mark}\n{answer}\nEND OF ANSWER {mark}\n{form}"
    answer = "ANSWER\nEND OF ANSWER ffffffff\n"
    values = {"mark": "0a1b2c3d", "answer": answer, "form": "Reply."}
    assert matched(template, filled(template, **values)) == values


def test_a_long_text_that_almost_matches_is_given_up_at_once() -> None:
    assert matched("{a}-{b}-{c}-{d}!", "-" * 300_000) is None
    assert matched("{a}y{b}y{c}z{d}", "y" * 300_000) is None


# --- checking --------------------------------------------------------------------------------------


def test_a_template_is_as_it_is_given() -> None:
    template = 'Like {"n": 1}: {answers} to {question} by {rubric}'
    assert Asks(prompt=template).prompt == template
    assert Asks(other="{question}").other == "{question}"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (
            "{question} {answer}",
            ["no place {answer}", "{answers} is meant?", "{answers} is missing", "write {{word}}"],
        ),
        ("{question}", ["the place {answers} is missing", "places: {question}, {answers}, {rubric}"]),
        ("", ["{question} is missing", "{answers} is missing"]),
        ("{question} {answers} {zzz}", ["there is no place {zzz} (places"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_meant(template: str, told: list[str]) -> None:
    with pytest.raises(ValidationError) as wrong:
        Asks(prompt=template)
    for part in told:
        assert part in str(wrong.value)


def test_a_configuration_s_template_is_checked_with_its_path() -> None:
    judge = component("verifier", {"judge": {"prompt": "{question} {answer} {form}"}})
    assert plain(judge) == {"judge": {"prompt": "{question} {answer} {form}"}}
    with pytest.raises(
        ConfigError, match=r"judge\.prompt: there is no place \{anwser\}, \{answer\} is meant\?"
    ):
        component("verifier", {"judge": {"prompt": "{question} {anwser} {form}"}})


def test_the_places_can_be_read_off_a_component() -> None:
    found = templates_of(Asks)
    assert list(found) == ["prompt", "other"]
    assert found["prompt"].names == ("question", "answers", "rubric")
    assert found["prompt"].required == ("question", "answers") and found["other"].names == ("question",)
    assert templates_of(Value) == {}
    assert json.dumps(Asks.model_json_schema())


@pytest.mark.parametrize("kind", ["stage", "verifier"])
def test_every_default_template_that_ships_has_its_places(kind: str) -> None:
    for name in registry.names(kind):
        found = registry.find(kind, name)
        for field, places in templates_of(found).items():
            default = found.model_fields[field].default
            if isinstance(default, str):
                assert places.check(default) == default, f"{name}.{field}"


def test_a_question_can_be_sent_whatever_is_in_it() -> None:
    system, user = chat("a\ud800b")
    assert (system.role, user.role) == ("system", "user")
    assert user.content == "a?b" and "same mark" in system.content
    assert [m.role for m in chat("a", system="")] == ["user"]
