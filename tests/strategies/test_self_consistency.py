"""Self-consistency votes on what an answer means and not on how it is written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.candidate import Candidate
from archon.problem import Problem
from archon.strategies.majority_vote import MajorityVote
from tests.strategies.made import CHOICE, CODE, MATH, NUMBER, PROBLEM, made

WRITINGS: dict[str, tuple[Problem, list[list[str]]]] = {
    "numbers by value": (
        NUMBER,
        [
            ["42", "42.0", "The answer is 42.", "6 * 7\n#### 42", "$42", r"so \boxed{42}", "It is +42.00"],
            ["1234.5", "1,234.50", "$1,234.5", "The answer is: 1,234.5", "#### 1234.50"],
            ["-3", "The answer is -3", r"\boxed{-3}"],
            ["0.5", "the answer is .5", "#### 0.50"],
        ],
    ),
    "formulas without their typography": (
        MATH,
        [
            [
                r"\boxed{\frac{1}{2}}",
                r"\boxed{\dfrac{1}{2}}",
                r"\boxed{\tfrac12}",
                r"The answer is $\frac12$.",
            ],
            [r"\boxed{x^2 + 1}", r"\boxed{x^2+1}", r"\boxed{\left. x^2 + 1 \right.}"][:2],
            [r"\boxed{3\sqrt{2}}", r"\boxed{3 \sqrt2}", r"\boxed{3\,\sqrt{2}}"],
            [r"\boxed{(1,2)}", r"\boxed{(1, 2)}", r"\boxed{\left(1,\, 2\right)}"],
            [r"\boxed{5}", r"\boxed{x=5}", r"\boxed{5.0}", "The answer is 5"],
            [r"\boxed{90^\circ}", r"\boxed{90}", r"\boxed{90^{\circ}}"],
        ],
    ),
    "choices by letter": (
        CHOICE,
        [
            ["A", "(A)", "The answer is A.", "Answer: (A)", r"\boxed{A}", "I think so.\nA"],
            ["B", "the answer is b", "Answer: **B**"],
        ],
    ),
    "code by its syntax tree": (
        CODE,
        [
            [
                "```python\ndef f(x):\n    return x + 1\n```",
                "Here:\n```python\n# adds one\ndef f(x):\n    '''Add one.'''\n    return (x + 1)\n```\nDone.",
                "```\ndef f( x ):\n\n    return x+1  # one more\n```",
                "def f(x):\n    return x + 1",
            ],
            ["```python\ndef f(x):\n    return 1 + x\n```", "def f(x): return 1 + x"],
        ],
    ),
    "texts without case and space": (PROBLEM, [["Paris", " paris\n", "PARIS"], ["New  York", "new york"]]),
}

GROUPS = [
    pytest.param(problem, group, id=f"{name}: {group[0]!r}")
    for name, (problem, groups) in WRITINGS.items()
    for group in groups
]


def vote(problem: Problem, texts: list[str]) -> Candidate | None:
    found = MajorityVote().choose(problem, [made(t, i, judged=False) for i, t in enumerate(texts)])
    return found[0] if found else None


@pytest.mark.parametrize(("problem", "group"), GROUPS)
def test_every_way_to_write_it_is_a_vote_for_the_same(problem: Problem, group: list[str]) -> None:
    rival = {
        "number": "99",
        "math": r"\boxed{99}",
        "choice": "C",
        "code": "def f(x):\n    return 99",
        "text": "Rome",
    }[problem.answer]
    for writing in group:
        # Each writing alone is outvoted by two rivals; together with another writing it ties, and comes first.
        assert vote(problem, [writing, rival, rival]).text == rival  # type: ignore[union-attr]
        for other in group:
            elected = vote(problem, [writing, rival, other, rival, writing])
            assert elected is not None and elected.text == writing, (writing, other)


@pytest.mark.parametrize("name", WRITINGS)
def test_different_answers_are_different_votes(name: str) -> None:
    problem, groups = WRITINGS[name]
    for group in groups:
        for other in groups:
            if group is not other:
                elected = vote(problem, [group[0], other[0], other[-1]])
                assert elected is not None and elected.text == other[0], (group[0], other[0])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(WRITINGS)), st.data())
def test_a_clear_majority_wins_however_each_of_it_is_written(name: str, data: st.DataObject) -> None:
    problem, groups = WRITINGS[name]
    winners = data.draw(st.sampled_from(groups))
    losers = data.draw(st.sampled_from([g for g in groups if g is not winners]))
    votes = data.draw(st.lists(st.sampled_from(losers), max_size=4))
    count = len(votes) + 1
    mine = data.draw(st.lists(st.sampled_from(winners), min_size=count, max_size=count + 2))
    order = data.draw(st.permutations(votes + mine))
    elected = vote(problem, order)
    assert elected is not None
    assert elected.text == next(t for t in order if t in winners), "the first who gave the winning answer"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (NUMBER, "I cannot tell."),
        (NUMBER, ""),
        (MATH, "There is no closed form."),
        (CHOICE, "None of these."),
        (CHOICE, "The answer is E."),
        (CODE, "   "),
        (PROBLEM, ""),
    ],
)
def test_what_gives_no_answer_does_not_vote(problem: Problem, text: str) -> None:
    assert vote(problem, [text] * 3) is None


def test_code_that_differs_in_meaning_is_not_one_vote() -> None:
    plus, minus = "def f(x):\n    return x + 1", "def f(x):\n    return x - 1"
    text = "def f(x):\n    return 'x + 1'"
    nested = "def f(x):\n    if x:\n        x = 1\n    return x"
    flat = "def f(x):\n    if x:\n        x = 1\n        return x"
    for one, other in ((plus, minus), (plus, text), (nested, flat)):
        elected = vote(CODE, [one, other, other])
        assert elected is not None and elected.text == other
    true, number = "def f():\n    return True", "def f():\n    return 1"
    elected = vote(CODE, [true, number, number])
    assert elected is not None and elected.text == number


def test_code_that_does_not_parse_votes_by_its_text() -> None:
    broken = "def f(x:\n    return x"
    elected = vote(CODE, ["def f(x):\n    return 0", broken, f"{broken}   \n\n"])
    assert elected is not None and elected.text == broken


@pytest.mark.parametrize(
    ("problem", "one", "same"),
    [
        pytest.param(
            NUMBER,
            "-3",
            "The answer is \N{MINUS SIGN}3.",
        ),
        pytest.param(
            NUMBER,
            "1000",
            r"\boxed{1{,}000}",
        ),
        pytest.param(
            MATH,
            r"\boxed{1000}",
            r"\boxed{1{,}000}",
        ),
        pytest.param(
            MATH,
            r"\boxed{(1,234)}",
            r"\boxed{(1, 234)}",
        ),
        pytest.param(
            CHOICE,
            "B",
            r"The answer is a bit tricky to see. It is \boxed{B}.",
        ),
    ],
)
def test_what_models_write_too_is_read_as_what_it_means(problem: Problem, one: str, same: str) -> None:
    rival = {"number": "99", "math": r"\boxed{99}", "choice": "C"}[problem.answer]
    elected = vote(problem, [rival, one, same])
    assert elected is not None and elected.text == one
