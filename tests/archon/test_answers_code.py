"""Reading answers and programs out of what models write, whatever it is."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.answers import canonical_code, canonical_formula, canonical_number, extract, normal_form
from archon.code import cut, program_of
from archon.problem import AnswerKind, Problem

CODE = Problem.ask("Write f.", answer="code", entry_point="f")
PROMPT = "import math\n\ndef f(x):\n    '''Double x.'''\n"
RAW = CODE.model_copy(update={"prompt": PROMPT, "stop": ("\ndef ", "\nprint(")})
F = "def f(x):\n    return 2 * x\n"


def problem(kind: AnswerKind, **fields: Any) -> Problem:
    return Problem.ask("?", answer=kind, **fields)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("6 * 7 = 42", "42"),
        ("First 10, then 20.\n#### 1,234", "1234"),
        ("The answer is $1,234.50.", "1234.5"),
        ("**Answer:** 7\nI checked it 3 times.", "7"),
        ("The answer is 5. No wait, the answer is 6.", "6"),
        (r"So \boxed{12} apples out of 30", "12"),
        ("It is -3", "-3"),
        ("The answer: -$5", "-5"),
        ("0.50", "0.5"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("2.0", "2"),
        ("007", "7"),
        ("-0", "0"),
        ("It costs 5% of 20, so the answer is 1", "1"),
        ("no number at all", None),
        ("", None),
        ("1e999", None),
        ("1e400 is big", "1" + "0" * 400),
    ],
)
def test_a_number_is_read_from_where_it_is_stated(reply: str, answer: str | None) -> None:
    assert normal_form(problem("number"), reply) == answer


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("$1,234.50", "1234.5"), ("50%", "50"), ("3.", "3"), ("1_000", "1000"), ("x", None), ("", None)],
)
def test_numbers_have_one_form(text: str, canonical: str | None) -> None:
    assert canonical_number(text) == canonical


@pytest.mark.parametrize("text", ["nan", "inf", "-Infinity", "1e99999999999", "sNaN"])
def test_what_is_no_finite_number_of_human_size_is_none(text: str) -> None:
    assert canonical_number(text) is None


@given(st.integers(-(10**18), 10**18))
def test_an_integer_is_read_however_it_is_written(number: int) -> None:
    for written in (f"{number}", f"{number:,}", f"{number}.0", f"{number:,}.00"):
        assert normal_form(problem("number"), f"The answer is {written}.") == str(number)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"first \boxed{1}, finally \boxed{\dfrac12}", r"\frac{1}{2}"),
        (r"\boxed{ \left( 1, 2 \right) }", "(1,2)"),
        (r"\boxed{x = 5}", "5"),
        (r"\boxed{10^\circ}", "10"),
        (r"\boxed{5 \text{ cm}}", "5cm"),
        (r"\fbox{7}", "7"),
        (r"\boxed 9", "9"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("The answer is $\\sqrt2$.", r"\sqrt{2}"),
        ("we get $a+b$ and so $a - b$", "a-b"),
        ("1,234", "1234"),
        ("nothing here", None),
        (r"\boxed{never closed", None),
        (r"\boxed", None),
        (r"\boxed{}", None),
    ],
)
def test_a_formula_is_read_from_the_last_box_and_loses_its_typography(reply: str, answer: str | None) -> None:
    assert normal_form(problem("math"), reply) == answer


def test_formulas_that_differ_keep_different_forms() -> None:
    forms = [canonical_formula(t) for t in (r"\frac{1}{2}", r"\frac{2}{1}", "x^2", "x^{12}", "(1,2)", "12")]
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is B.", "b"),
        ("Answer: (C)", "c"),
        ("**answer is d**", "d"),
        (r"\boxed{A}", "a"),
        (r"\boxed{\text{B}}", "b"),
        ("I choose\nC", "c"),
        ("It could be (A) but it is (D)", "d"),
        ("A good question; Both are wrong", None),
        ("The answer is E.", None),
        ("The answer is Apple", None),
        ("", None),
    ],
)
def test_a_choice_is_a_letter_that_is_offered(reply: str, answer: str | None) -> None:
    assert normal_form(problem("choice", choices=("w", "x", "y", "z")), reply) == answer


def test_free_text_is_compared_without_case_and_spacing() -> None:
    assert normal_form(problem("text"), "  New\n York ") == normal_form(problem("text"), "new york")
    assert extract(problem("text"), " \n ") is None


# --- code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        F,
        f"```python\n{F}```",
        f"Sure!\n```py\n{F}```\nThis doubles.",
        f"```\n{F}```",
        f"```Python\n{F}",
        f"First:\n```python\ndef f(x): return 0\n```\nBetter:\n```python\n{F}```",
        f"```python\n{F}```\nUse it:\n```python\nprint(1)\n```",
        f"```bash\npip install x\n```\n```python\n{F}```",
        f"  ```python\n{F}  ```",
    ],
)
def test_the_program_is_the_last_block_that_defines_the_function(reply: str) -> None:
    assert program_of(CODE, reply) == F


def test_a_function_may_be_a_lambda_or_async_and_a_name_inside_another_is_not_it() -> None:
    assert program_of(CODE, "```python\nf = lambda x: x\n```\n```python\ng = 1\n```") == "f = lambda x: x\n"
    assert program_of(CODE, "```python\nasync def f(x): ...\n```\n```\ng = 1\n```") == "async def f(x): ...\n"
    assert program_of(CODE, f"```python\n{F}```\n```python\ndef ff(x): ...\n```") == F


def test_a_continuation_is_put_behind_the_prompt_and_ends_at_the_stop() -> None:
    assert program_of(RAW, "    return 2 * x\n\ndef other(): ...") == PROMPT + "    return 2 * x\n"


def test_a_whole_function_replaces_the_prompt_s_and_keeps_its_imports() -> None:
    found = program_of(RAW, f"```python\n{F}```")
    assert found is not None
    assert found.count("def f") == 1 and found.startswith("import math\n") and found.endswith(F)


def test_a_block_with_only_the_body_is_a_continuation() -> None:
    assert program_of(RAW, "```python\n    return 2 * x\n```") == PROMPT + "    return 2 * x\n"


@pytest.mark.parametrize("reply", ["", " \n\t"])
def test_an_empty_reply_holds_no_program(reply: str) -> None:
    assert program_of(CODE, reply) is None and normal_form(CODE, reply) is None


@pytest.mark.parametrize(
    ("text", "stop", "kept"),
    [
        ("a#b", ("#",), "a"),
        ("a#b;c", (";", "#"), "a"),
        ("abc", (), "abc"),
        ("abc", ("x",), "abc"),
        ("#", ("#",), ""),
    ],
)
def test_text_is_cut_before_the_first_stop_string(text: str, stop: tuple[str, ...], kept: str) -> None:
    assert cut(text, stop) == kept


def test_programs_are_equal_by_their_syntax_tree() -> None:
    commented = 'def f(x):\n    """Doubles."""\n    # twice\n    return (2*x)\n'
    assert canonical_code(commented) == canonical_code(F)
    assert canonical_code(F) != canonical_code(F.replace("2", "3"))
    assert canonical_code("def f(:\n\n  x  ") == canonical_code("def f(:\n  x")


def test_what_is_read_as_a_program_of_a_chat_parses() -> None:
    source = program_of(CODE, f"Here:\n\n```python\n{F}```\n")
    assert source is not None
    ast.parse(source)
