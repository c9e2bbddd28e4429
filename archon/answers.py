"""Reading the answer out of a reply, and bringing answers into a normal form to compare and vote on.

What kind of answer is wanted stands on the problem. `extract` finds the answer's text, `normal_form`
brings it into a form in which equal answers are equal strings. Neither is a proof of equality: graders
and the `math_equal` verifier know more mathematics than a normal form does.
"""

from __future__ import annotations

import ast
import re
import warnings
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from archon.code import program_of
from archon.problem import Problem

_LONGEST = 100_000
"""Only so much of a reply's end is searched for an answer."""
_WIDE = re.compile(r"\s{9,}")
"""Gaps mean nothing, and patterns that allow for them take the third power of a gap's width."""


def extract(problem: Problem, text: str) -> str | None:
    """The answer a reply gives, as it stands there; None where it gives none."""
    if problem.answer == "code":
        return program_of(problem, text)
    text = text[-_LONGEST:]
    if problem.answer != "text":
        text = _WIDE.sub(lambda gap: "\n\n" if "\n" in gap[0] else " ", text)
    if problem.answer in ("number", "math"):
        text = text.replace("\N{MINUS SIGN}", "-").replace("{,}", ",")
    if problem.answer == "number":
        return _number(text)
    if problem.answer == "math":
        return _formula(text)
    if problem.answer == "choice":
        return _choice(text, len(problem.choices) or 26)
    return text.strip() or None


def normal_form(problem: Problem, text: str) -> str | None:
    """The answer in its normal form; None where the reply gives no answer."""
    answer = extract(problem, text)
    if answer is None:
        return None
    if problem.answer == "number":
        return canonical_number(answer)
    if problem.answer == "math":
        return canonical_formula(answer)
    if problem.answer == "code":
        return canonical_code(answer)
    return " ".join(answer.split()).casefold()


# --- numbers ---------------------------------------------------------------------------------------

_NUMBER = r"-?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?|-?\$?\.\d+"
_MARKED = re.compile(rf"####\s*\$?({_NUMBER})")
_STATED = re.compile(rf"answer\s*(?:is|:|=)\s*:?\s*\**\s*\$?({_NUMBER})", re.IGNORECASE)
_ANY = re.compile(_NUMBER)


def _number(text: str) -> str | None:
    """The number after the last `####`, in the last box, after the last "answer is", or the last one."""
    for find in (_MARKED.findall, lambda t: [b] if (b := _boxed(t)) else [], _STATED.findall):
        found = find(text)
        if found:
            number = _ANY.findall(found[-1])
            if number:
                return str(number[-1])
    found = _ANY.findall(text)
    return str(found[-1]) if found else None


def canonical_number(text: str) -> str | None:
    """`$1,234.50` as `1234.5`; None where it is no number."""
    cleaned = re.sub(r"[\s$,%]", "", text).rstrip(".")
    try:
        value = Decimal(cleaned)
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value.adjusted()) > 400:
        return None
    if value == value.to_integral_value():
        return str(int(value))
    return format(value.normalize(), "f")


# --- formulas --------------------------------------------------------------------------------------


def _boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` holds, braces balanced."""
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if start < 0:
        return None
    rest = (
        text[text.find("x", start + 4) + 1 :].lstrip()
        if text[start + 1] == "f"
        else text[start + 6 :].lstrip()
    )
    if not rest.startswith("{"):
        words = rest.lstrip("$ ").split("$")[0].split()
        return words[0] if words else None
    depth = 0
    for i, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[1:i].strip() or None
    return None


def _formula(text: str) -> str | None:
    """The last box; else what follows the last "answer is"; else the last formula between dollars."""
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    stated = re.findall(r"answer\s*(?:is|:)\s*:?\s*(.+?)(?:\.\s|\.?\s*$|\n)", text, re.IGNORECASE)
    if stated:
        return str(stated[-1]).strip().strip("$*").strip() or None
    dollars = re.findall(r"\$([^$\n]{1,300})\$", text)
    if dollars:
        return str(dollars[-1]).strip()
    return _number(text)


_TYPOGRAPHY = [
    (re.compile(r"\\(?:left|right|displaystyle|limits|,|!|;|:|quad|qquad)(?![a-zA-Z])"), ""),
    (re.compile(r"\\(?:dfrac|tfrac|cfrac)"), r"\\frac"),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:%|\$)"), ""),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?"), ""),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\sqrt\s*(\d)"), r"\\sqrt{\1}"),
]
_THOUSANDS = re.compile(r"-?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
"""Commas are separators where a number is all there is; in a pair or an interval they are not."""


def canonical_formula(text: str) -> str | None:
    """A formula without its typography: spacing, sizes, dollars, units in text."""
    result = text.strip().strip("$").strip().rstrip(".")
    for pattern, replacement in _TYPOGRAPHY:
        result = pattern.sub(replacement, result)
    if _THOUSANDS.fullmatch(result.strip()):
        result = result.replace(",", "")
    result = re.sub(r"\s+", "", result)
    if re.fullmatch(r"[a-zA-Z]=.+", result):  # `x=5` answers as `5`
        result = result[2:]
    return canonical_number(result) or result or None


# --- choices ---------------------------------------------------------------------------------------


def _choice(text: str, options: int) -> str | None:
    """The letter that is stated as the answer, boxed, or stands alone last."""
    letters = "".join(chr(ord("A") + i) for i in range(min(options, 26)))
    for pattern in (
        rf"answer\s*(?:is|:|=)?\s*:?\s*\**\(?\s*([{letters}])\)?(?![A-Za-z'])(?!(?<=\sa)\s+[a-z])",
        rf"\\boxed\s*\{{\s*(?:\\text\s*\{{)?\s*\(?([{letters}])\)?",
        rf"^[ \t]*\(?([{letters}])\)?[.:)]?[ \t]*$",
        rf"\(([{letters}])\)",
    ):
        found = re.findall(pattern, text, re.IGNORECASE if "answer" in pattern else re.MULTILINE)
        if found:
            return str(found[-1]).upper()
    return None


# --- code ------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def canonical_code(source: str) -> str:
    """A program by its syntax tree: without comments, docstrings, layout; as text where it does not parse."""
    if len(source) > _LONGEST:
        return source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what is odd in a model's string literals is not our user's concern
            tree = ast.parse(source)
        parts: list[str] = []
        _shape(tree, parts)
        return "".join(parts)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "\n".join(line.rstrip() for line in source.splitlines() if line.strip())


_WITHOUT_MEANING = frozenset(("ctx", "type_comment", "kind", "type_ignores"))


def _shape(node: ast.AST, parts: list[str]) -> None:
    """A syntax tree as text, in half the time that `ast.dump` takes, without docstrings."""
    parts.append(type(node).__name__)
    parts.append("(")
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _WITHOUT_MEANING or value is None:
            continue
        parts.append(name)
        if isinstance(value, ast.AST):
            _shape(value, parts)
        elif isinstance(value, list):
            parts.append("[")
            for item in value[1:] if name == "body" and _has_docstring(value) else value:
                if isinstance(item, ast.AST):
                    _shape(item, parts)
                else:
                    parts.append(repr(item))
            parts.append("]")
        else:
            parts.append(repr(value))
    parts.append(")")


def _has_docstring(body: list[ast.stmt]) -> bool:
    first = body[0] if len(body) > 1 else None
    return (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
