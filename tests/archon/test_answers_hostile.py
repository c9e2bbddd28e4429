"""Nothing a model writes breaks the reading of its answer, or makes it take long."""

from __future__ import annotations

import re
import signal
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archon.answers import canonical_code, canonical_number, extract, normal_form
from archon.problem import AnswerKind, Problem


def problem(kind: AnswerKind, **fields: Any) -> Problem:
    return Problem.ask("?", answer=kind, **fields)


@pytest.mark.parametrize(
    "source",
    [
        "(" * 5000,
        "x = " + "-" * 5000 + "1",
        "\0",
        "9" * 6000,
        "'\\d'",
        "f'{'",
        "\ud800",
        "x\n" * 60_000,
        "[" * 300,
    ],
)
def test_no_program_breaks_the_normal_form(source: str) -> None:
    assert isinstance(canonical_code(source), str)


HOSTILE = st.lists(
    st.sampled_from(
        [
            "```",
            "```python\n",
            "\n",
            "def f(x):",
            r"\boxed{",
            r"\boxed",
            r"\fbox",
            "}",
            "{",
            "$",
            "answer is ",
            "####",
            "1",
            ",",
            ".",
            "-",
            "e9",
            "(A)",
            "\\",
            "\x00",
            "�",
            "😀",
            " ",
            "x=",
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(get_args(AnswerKind)), HOSTILE | st.text())
def test_no_reply_breaks_the_reading_and_reading_is_pure(kind: AnswerKind, reply: str) -> None:
    asked = Problem.ask("?", answer=kind, entry_point="f", choices=("x", "y"))
    assume(not re.search(r"\\(boxed|fbox)\s*\$", reply))  # known, below
    form = normal_form(asked, reply)
    assert form == normal_form(asked, reply)
    assert form is None or isinstance(form, str)
    if kind == "number" and form is not None:
        assert canonical_number(form) == form, "a normal form is its own normal form"


@pytest.mark.parametrize("kind", ["number", "math"])
def test_a_box_without_braces_before_a_dollar_breaks_nothing(kind: AnswerKind) -> None:
    assert normal_form(problem(kind), r"so the answer is \boxed$5$") in (None, "5")


LONG = [
    "1",
    "1,",
    "answer is ",
    r"\boxed{",
    "{",
    "$",
    "```\n",
    "(A",
    "\n",
    " ",
    "-",
    "answer is 1.",
    "```python\nx",
]


@pytest.mark.parametrize(
    ("kind", "piece"),
    [(kind, piece) for kind in get_args(AnswerKind) for piece in LONG],
)
def test_a_long_reply_is_read_without_taking_long(kind: AnswerKind, piece: str) -> None:
    def give_up(*args: Any) -> None:
        raise AssertionError("reading takes time that grows faster than the reply")

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, 10)  # of CPU time: it takes milliseconds, or else minutes
    try:
        normal_form(problem(kind, entry_point="f"), piece * (300_000 // len(piece)))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("kind", ["number", "math", "choice"])
@pytest.mark.parametrize("gap", [" ", "\n", " \n", "\t ", "\u2003"])
def test_no_gap_however_wide_holds_up_the_reader(kind: AnswerKind, gap: str) -> None:
    problem = Problem.ask("?", answer=kind)
    wide = gap * 20_000
    for text in (
        f"answer{wide}x",
        f"answer is{wide}x",
        f"answer is:{wide}*x",
        f"\\boxed{wide}",
        f"####{wide}x",
    ):
        extract(problem, text)
    right = "C" if kind == "choice" else "3"
    assert extract(problem, f"The answer is{wide}{right}") == right
