"""Tests of a function as a model writes them: assertions about a call with literal arguments.

    assert f(1, 2) == 3      assert 3 == f(1, 2)     assert f(1) is None     assert abs(f(2) - 1.41) < 0.01
    assert f(1)              assert not f(1)         (as `is True`, and as any empty or false value)

Nothing is evaluated: what is not literal is no test.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from archon.problem import Case

MISSING = object()
"""Where there is no literal."""

_LONGEST = 5_000
_DEEPEST = 100
"""Levels of lists, tuples, sets and dictionaries in a test's values."""
_MOST_LINES = 30
_ASSERT = re.compile(r"\bassert\s")
_FALSY: tuple[Any, ...] = (None, "", [], (), {}, set(), b"")


class Assertion(NamedTuple):
    """One test, as text and as data."""

    source: str
    """The assertion in one line; it reads as this very case."""
    case: Case


def read_assertions(
    text: str, entry_point: str, most: int | None = None, *, cut_off: bool = False
) -> list[Assertion]:
    """The first tests in a reply, repetitions included; what cannot be read is left out.

    A model that continues text goes on behind the first `assert`. Where the reply was `cut_off`, what
    reaches to its end is no whole test.
    """
    text = f"assert {text}"
    found: list[Assertion] = []
    for match in _ASSERT.finditer(text):
        if len(found) == most:
            break
        assertion = _assertion(text, match.start(), entry_point, cut_off)
        if assertion is not None:
            found.append(assertion)
    return found


def value_of(expression: ast.expr) -> Any:
    """The value of a literal, else MISSING. Three dots stand for what was left out."""
    try:
        if any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(expression)):
            return MISSING
        return ast.literal_eval(expression)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return MISSING


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a short text; None where it is no Python."""
    if len(source) > _LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


# --- one assertion ---------------------------------------------------------------------------------


def _assertion(text: str, start: int, entry_point: str, cut_off: bool) -> Assertion | None:
    lines = text[start:].split("\n", _MOST_LINES)[:_MOST_LINES]
    for count in range(1, len(lines) + 1):
        if count > 1 and lines[count - 1].lstrip().startswith(("assert ", "def ", "```")):
            return None
        source = "\n".join(lines[:count])
        tree = parsed(source)
        if tree is None:
            continue
        statement = tree.body[0]
        if not isinstance(statement, ast.Assert) or (cut_off and start + len(source) >= len(text)):
            return None
        case = _case(statement.test, entry_point)
        line = None if case is None else _line(statement.test)
        return None if case is None or line is None else Assertion(line, case)
    return None


def _line(test: ast.expr) -> str | None:
    try:
        line = ast.unparse(ast.Assert(test=test, msg=None))
    except RecursionError:
        return None
    return line if len(line) <= _LONGEST and len(line.splitlines()) == 1 else None


def _case(test: ast.expr, entry_point: str) -> Case | None:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _made(test.operand, entry_point, False, alternatives=_FALSY)
    if not isinstance(test, ast.Compare):
        return _made(test, entry_point, True)
    if len(test.ops) != 1:
        return None
    left, op, right = test.left, test.ops[0], test.comparators[0]
    if isinstance(op, ast.Lt | ast.LtE):
        return _within(left, right, entry_point)
    if not isinstance(op, ast.Eq | ast.Is):
        return None
    call, value = (left, right) if _is_call(left, entry_point) else (right, left)
    expected = value_of(value)
    if isinstance(op, ast.Is) and not (expected is None or isinstance(expected, bool)):
        return None
    return _made(call, entry_point, expected)


def _within(distance: ast.expr, bound: ast.expr, entry_point: str) -> Case | None:
    """`abs(f(x) - value) < bound`."""
    tolerance = value_of(bound)
    if not (_is_call(distance, "abs") and isinstance(distance, ast.Call) and len(distance.args) == 1):
        return None
    inner = distance.args[0]
    if not (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub)):
        return None
    call, value = (
        (inner.left, inner.right) if _is_call(inner.left, entry_point) else (inner.right, inner.left)
    )
    expected = value_of(value)
    if not isinstance(expected, int | float) or not isinstance(tolerance, int | float) or not tolerance > 0:
        return None
    try:
        return _made(call, entry_point, float(expected), tolerance=float(tolerance))
    except OverflowError:
        return None


def _is_call(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _made(
    call: ast.expr,
    entry_point: str,
    expected: Any,
    *,
    alternatives: tuple[Any, ...] = (),
    tolerance: float = 0.0,
) -> Case | None:
    """The test, where all of it is literal and can cross into the sandbox."""
    if not (isinstance(call, ast.Call) and _is_call(call, entry_point)):
        return None
    args = tuple(map(value_of, call.args))
    kwargs = {k.arg: value_of(k.value) for k in call.keywords if k.arg is not None}
    if len(kwargs) < len(call.keywords) or any(v is MISSING for v in (*args, *kwargs.values(), expected)):
        return None
    if _too_deep((args, kwargs, expected)):
        return None
    return Case(args=args, kwargs=kwargs, expected=expected, alternatives=alternatives, tolerance=tolerance)


def _too_deep(value: Any) -> bool:
    """Whether what is inside is nested more than so deep: level by level, so that no depth is a problem."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST + 2):  # the arguments' own levels are not counted
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    return value if isinstance(value, list | tuple | set | frozenset) else ()
