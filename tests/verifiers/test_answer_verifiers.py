"""Verifiers that compare an answer with an expected one: exact, choice, token_f1, math_equal, regex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.candidate import Verdict
from archon.config import load
from archon.errors import ConfigError, UserError
from archon.problem import AnswerKind, Problem
from archon.session import Session
from archon.testing import VerifierCases
from archon.testing.stages import verified_samples
from archon.verifier import Verifier
from archon.verifiers.choice import Choice
from archon.verifiers.exact import Exact
from archon.verifiers.expected import texts_of, why_unclear
from archon.verifiers.math_equal import MathEqual
from archon.verifiers.regex import Regex
from archon.verifiers.token_f1 import TokenF1, f1, words


def problem(kind: AnswerKind = "number", expected: Any = "42", **fields: Any) -> Problem:
    return Problem.ask("What is 6 * 7?", id="p", answer=kind, info={"expected": expected}, **fields)


async def verdicts(verifier: Verifier, problem: Problem, *replies: str) -> list[Verdict]:
    async with Session(models=Scripted(replies={"*": replies})) as session:
        outcome = await session.solve(verified_samples(len(replies), verifier), problem)
    return [c.verdicts[verifier.name] for c in outcome.candidates]


async def accepted(verifier: Verifier, problem: Problem, *replies: str) -> list[bool | None]:
    return [v.accepted for v in await verdicts(verifier, problem, *replies)]


class TestExact(VerifierCases):
    def make_verifier(self) -> Verifier:
        return Exact(key="gold", literal=True)

    def problem(self) -> Problem:
        return Problem.ask("What is 6 * 7?", id="p", answer="number", info={"gold": 42})


class TestChoice(VerifierCases):
    good = "The answer is (B)."
    bad = "The answer is (A)."

    def make_verifier(self) -> Verifier:
        return Choice(wary=False)

    def problem(self) -> Problem:
        return problem("choice", "forty-two", choices=("forty-one", "forty-two"))


class TestTokenF1(VerifierCases):
    good = "The Sultan of Brunei"
    bad = "a king of Norway"

    def make_verifier(self) -> Verifier:
        return TokenF1(threshold=0.5)

    def problem(self) -> Problem:
        return problem("text", ["sultan of Brunei"])


class TestMathEqual(VerifierCases):
    good = "So it is \\boxed{\\frac{2}{4}}."
    bad = "So it is \\boxed{\\frac{2}{3}}."

    def make_verifier(self) -> Verifier:
        return MathEqual(expected=("1/2",))

    def problem(self) -> Problem:
        return problem("math")


class TestRegex(VerifierCases):
    def make_verifier(self) -> Verifier:
        return Regex(pattern=r"\b42\b", of="answer", match="whole")

    def problem(self) -> Problem:
        return problem()


# --- where the expected answer comes from -----------------------------------------------------------


async def test_a_setting_comes_before_the_problem_s_info_and_both_before_nothing() -> None:
    assert await accepted(Exact(), problem(expected=42), "#### 42") == [True]
    assert await accepted(Exact(expected=("41",)), problem(expected=42), "#### 42", "#### 41") == [
        False,
        True,
    ]
    unusable: list[Any] = [None, [], True, {"a": 1}]
    for nothing in unusable:
        (verdict,) = await verdicts(Exact(), problem(expected=nothing), "#### 42")
        assert verdict.accepted is None and "'expected'" in verdict.detail
        assert not Exact().applies(problem(expected=nothing))


def test_one_text_or_several_and_numbers_as_texts() -> None:
    assert texts_of({"a": ["x", 2, 0.5, True, None, {}]}, "a") == ("x", "2", "0.5")
    assert texts_of({"a": "x"}, "a") == ("x",)


# --- exact -----------------------------------------------------------------------------------------


async def test_numbers_are_equal_by_value_and_literally_by_digits() -> None:
    forms = ("#### 1,234.50", "The answer is $1234.5.", "1234.500", "#### 1234.6")
    assert await accepted(Exact(), problem(expected="1234.5"), *forms) == [True, True, True, False]
    assert await accepted(Exact(literal=True), problem(expected="1234.5"), *forms) == [
        False,
        True,
        False,
        False,
    ]


async def test_text_is_compared_whole_without_case_and_spacing() -> None:
    said = await accepted(Exact(), problem("text", "New York"), "new  york\n", "It is New York", "York", "")
    assert said == [True, False, False, False]


async def test_the_right_number_in_the_wrong_place_is_no_answer() -> None:
    replies = (
        "In 42 minutes I found that the answer is 41.",
        "42 was my first guess.\n#### 41",
        "I have 42 reasons, and 41",
    )
    assert await accepted(Exact(), problem(), *replies) == [False, False, False]


async def test_a_verdict_says_what_was_read() -> None:
    wrong, none = await verdicts(Exact(), problem(), "The answer is 41.", "No idea.")
    assert (wrong.detail, none.detail) == ("answered 41", "no answer found")


# --- when a reply is no clear answer ----------------------------------------------------------------

UNCLEAR = [
    "The answer is not 42.",
    "It is certainly not 42.",
    "It isn't 42",
    "x ≠ 42",
    "42 is wrong.",
    "I get 42, which is not right.",
    "41 or 42",
    "The answer is 42 or 41.",
    "40, 41, 42",
    "40\n41\n42",
    "40 / 41 / 42",
    "either 41 or maybe 42",
    "#### 41\n#### 42",
    "#### 42\nNo: the answer is 41.",
    "The answer is 41. The answer is 42.",
    "\\boxed{41} \\boxed{42}",
    "\\boxed{42}, so the answer is 41",
]  # fmt: skip
CLEAR = [
    "42",
    "#### 42",
    "The answer is 42.",
    "The answer is 42, not 41.",
    "6 * 7 = 42",
    "40 + 2 is 42",
    "It is not 41. The answer is 42.",
    "First I thought the answer is 41. But six sevens are more than that, as 5 * 7 is 35 and 7 more make it\n#### 42",
    "That makes \\boxed{42}, so the answer is 42.",
    "There is no doubt: 42",
    "He has 3 apples, 5 pears and 42",
    "**42**",
    "Not 3 but 4 of them, so the answer is 42.",
]  # fmt: skip


@pytest.mark.parametrize("text", UNCLEAR)
def test_negated_several_and_contradicted_answers_are_unclear(text: str) -> None:
    assert why_unclear(problem(), text)


@pytest.mark.parametrize("text", CLEAR)
def test_what_is_said_clearly_is_clear(text: str) -> None:
    assert why_unclear(problem(), text) == ""


def test_formulas_and_choices_are_looked_at_too() -> None:
    for text in ("\\boxed{41} or \\boxed{42}", "The answer is not \\boxed{42}.", "\\boxed{42} is wrong"):
        assert why_unclear(problem("math"), text)
    assert why_unclear(problem("math"), "\\boxed{\\frac{1}{3}}\n\\boxed{\\frac{1}{2}}")
    assert why_unclear(problem("math"), "So the answer is $13-16=\\boxed{-3}$.") == ""
    assert why_unclear(problem("math"), "Hence \\boxed{x = 42}.") == ""
    for text in ("The answer is B or C", "A\nB\nC", "The answer is not (B).", "(A) or (B)", "(B) is wrong"):
        assert why_unclear(problem("choice"), text)
    assert why_unclear(problem("choice"), "A is too small, so the answer is B.") == ""


async def test_an_unclear_answer_is_undecided_and_a_wrong_one_stays_wrong() -> None:
    replies = ("The answer is not 42.", "The answer is not 41.", "#### 42")
    assert await accepted(Exact(), problem(), *replies) == [None, False, True]
    assert await accepted(Exact(wary=False), problem(), *replies) == [True, False, True]


def test_long_replies_do_not_hold_it_up() -> None:
    for part in ("not ", "42 or ", "answer is ", "\\boxed{", "42, ", " ", "####", "is not not "):
        why_unclear(problem(), part * 20_000 + " 42")
        why_unclear(problem(), "42" + part * 20_000)


# --- choice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", ["B", "b", "(B)", "forty-two", "Forty-Two."])
async def test_a_choice_is_its_letter_or_its_text(expected: str) -> None:
    options = problem("choice", expected, choices=("forty-one", "forty-two"))
    replies = (
        "B",
        "The answer is B",
        "forty-two",
        "I would say\nThe answer is forty-two.",
        "A",
        "forty",
        "C",
    )
    assert await accepted(Choice(), options, *replies) == [True] * 4 + [False] * 3


async def test_an_expected_answer_that_is_no_option_decides_nothing() -> None:
    for expected in ("C", "forty", ""):
        options = problem("choice", expected, choices=("forty-one", "forty-two"))
        assert await accepted(Choice(), options, "B") == [None]


# --- token_f1 --------------------------------------------------------------------------------------


def test_f1_is_over_words_without_case_punctuation_and_articles() -> None:
    assert f1(words("The cat, sat."), words("a cat sat")) == 1.0
    assert f1(words("cat sat on mat"), words("cat sat")) == pytest.approx(2 * 0.5 / 1.5)
    assert f1(words("cat cat"), words("cat")) == pytest.approx(2 / 3)
    assert (
        f1(words("dog"), words("cat")) == f1(words(""), words("cat")) == f1(words("..."), words("the")) == 0.0
    )


async def test_the_best_of_the_accepted_answers_counts() -> None:
    asked = problem("text", ["Barack Obama", "Obama"])
    one, other = await verdicts(TokenF1(), asked, "obama", "Michelle Obama")
    assert (one.score, one.accepted) == (1.0, True)
    assert other.score == pytest.approx(2 / 3) and other.accepted is False


# --- math_equal ------------------------------------------------------------------------------------


async def test_equal_formulas_are_accepted_and_those_of_any_expected_one() -> None:
    replies = ("\\boxed{0.5}", "\\boxed{\\frac12}", "\\boxed{2/3}", "\\boxed{\\sqrt{12}}", "Nothing.")
    asked = problem("math", ["\\frac{1}{2}", "2\\sqrt{3}"])
    assert await accepted(MathEqual(), asked, *replies) == [True, True, False, True, False]


async def test_a_comparison_that_did_not_end_in_time_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(gold: str, answers: Sequence[str], session: Session) -> list[bool | None]:
        return [None for _ in answers]

    monkeypatch.setattr("archon.verifiers.math_equal.equal_answers", late)
    right, other = await verdicts(MathEqual(), problem("math"), "\\boxed{42}", "\\boxed{43}")
    assert right.accepted is True, "equal in normal form"
    assert (other.accepted, other.status) == (None, "timed_out")


async def test_what_is_no_formula_is_not_for_it() -> None:
    kinds: tuple[AnswerKind, ...] = ("text", "choice")
    for kind in kinds:
        assert not MathEqual().applies(problem(kind))
        assert await accepted(MathEqual(), problem(kind), "42") == [None]


# --- regex -----------------------------------------------------------------------------------------


async def test_a_pattern_is_found_or_covers_all_of_the_reply_or_of_the_answer() -> None:
    replies = ("It is 42.", "42", "43")
    for fields, said in (
        ({}, [True, True, False]),
        ({"match": "whole"}, [False, True, False]),
        ({"match": "whole", "of": "answer"}, [True, True, False]),
    ):
        assert await accepted(Regex(pattern="42", **fields), problem(), *replies) == said


async def test_one_of_the_problem_s_patterns_must_match() -> None:
    asked = Problem.ask("?", id="p", info={"pattern": ["^x", "(?i)YES"]})
    assert await accepted(Regex(), asked, "yes", "no", "xno") == [True, False, True]


async def test_a_pattern_that_takes_forever_is_undecided_and_ends() -> None:
    (verdict,) = await verdicts(Regex(pattern="(a|aa)+$"), problem(), "a" * 100 + "b")
    assert (verdict.accepted, verdict.status) == (None, "timed_out")


async def test_what_is_no_pattern_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        load("- sample\n- verify: {verifier: {regex: {pattern: '('}}}", "yaml")
    with pytest.raises(UserError, match="problem 'p'"):
        await accepted(Regex(), Problem.ask("?", id="p", info={"pattern": "("}), "x")
