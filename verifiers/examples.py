"""Visible tests out of a prompt: the examples in a docstring, and asserts.

Understood forms, for a function `f`:

    >>> f(1, 2)          f(1, 2) == 3         f(1, 2) -> 3        f(1, 2) ➞ 3         assert f(1, 2) == 3
    3                    f(1, 2) = 3          f(1, 2) => 3        f(1, 2) ==> 3       f(1, 2) returns 3
                         f(1, 2) # => 3       f(1, 2) should return 3
    Input: x = 1, y = 2  (newline)  Output: 3
    For x = 1, y = 2 the output should be 3
    f(1, 2) == 1 + 2 = 3

Only literals are read; nothing is evaluated. An example that cannot be read is left out, so the result is
what a careful reader could check by machine, and no more. Examples can be wrong themselves (several of
HumanEval's are); a verifier that trusts them has that error, and the harness measures it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from archon.assertions import MISSING, parsed, value_of
from archon.problem import Case

_ARROW = re.compile(
    r"\s*(?:\#\s*)?(?:==>|=>|->|➞|→|==|=|returns?:?|should\s+(?:return|be|equal)|equals?|gives?|:)\s*(?:\#\s*)?(?!=)",
    re.IGNORECASE,
)
_WITHOUT_MARKS = re.compile(r"^\s*(?:>>>|[-*•](?=\s))?\s*")
_PART_OF_MORE = re.compile(r"(?:[-+*/%=<>!&|^~]|\bnot)\s*$")
"""What a call is only a part of, if it stands before it."""
_GOES_ON = re.compile(
    r"[\[(]|\.[A-Za-z_]|\s*(?:[+*%&|^]|<<|>>|//?\s*[\d(\[]|-\s*[\d(\[{]|if\b.*\belse\b|(?:or|and)\s+[\d\[({'\"])"
)
"""How an expression goes on behind a literal."""
_LONGEST = 5_000


def visible_cases(text: str, entry_point: str, parameters: tuple[str, ...] = ()) -> tuple[Case, ...]:
    """The examples of `entry_point` in a text, in order, without repetitions."""
    found: list[Case] = []
    for args, kwargs, expected in (*_calls(text, entry_point), *_inputs(text, parameters)):
        case = Case(args=args, kwargs=kwargs, expected=expected)
        if not any(repr((case.args, case.kwargs)) == repr((c.args, c.kwargs)) for c in found):
            found.append(case)  # by their text, as f(1) and f(True) are two examples
    return tuple(found)


def parameters_of(prompt: str, entry_point: str) -> tuple[str, ...]:
    """The parameter names in the function's signature, as far as it can be read."""
    match = re.search(rf"^def\s+{re.escape(entry_point)}\s*\(", prompt, re.MULTILINE)
    if match is None:
        return ()
    end = _closing(prompt, match.end() - 1)
    tree = parsed(f"def f({prompt[match.end() : end]}): pass") if end else None
    if tree is None or not isinstance(tree.body[0], ast.FunctionDef):
        return ()
    return tuple(a.arg for a in tree.body[0].args.args)


def _calls(text: str, entry_point: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    for match in re.finditer(rf"(?<![\w.]){re.escape(entry_point)}\s*\(", text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        before = text[line_start : match.start()]
        if re.search(r"\bdef\s+$", before) or re.search(r"[\w\])]\s*\($|\w\($", before):
            continue  # the signature, or a call inside another call: round(f(x), 2)
        if _PART_OF_MORE.search(_WITHOUT_MARKS.sub("", before)):
            continue
        end = _closing(text, match.end() - 1)
        if end is None:
            continue
        arguments = _arguments(text[match.end() : end])
        if arguments is None:
            continue
        assertion = re.search(r"\bassert\b[^;]*$", before)
        if assertion:
            expected = _asserted(text, line_start + assertion.start(), text[match.start() : end + 1])
        else:
            expected = _expected(text, end + 1, doctest=">>>" in before)
        if expected is not MISSING:
            yield (*arguments, expected)


def _asserted(text: str, start: int, call: str) -> Any:
    """What the assertion that begins here says this very call is equal to; its message is no part of it."""
    lines = text[start : start + _LONGEST].split("\n")
    for count in range(1, len(lines) + 1):
        source = "\n".join(lines[:count])
        tree = parsed(source)
        if tree is None:
            continue
        statement = tree.body[0]
        if not isinstance(statement, ast.Assert):
            return MISSING
        test = statement.test
        for part in test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]:
            if (
                isinstance(part, ast.Compare)
                and [type(op) for op in part.ops] == [ast.Eq]
                and ast.get_source_segment(source, part.left) == call
            ):
                return value_of(part.comparators[0])
        return MISSING
    return MISSING


def _expected(text: str, at: int, *, doctest: bool) -> Any:
    line_end = text.find("\n", at)
    line_end = len(text) if line_end < 0 else line_end
    rest = text[at:line_end]
    arrow = _ARROW.match(rest)
    if arrow:
        start = at + arrow.end()
        if not text[start:line_end].strip():
            return MISSING
        return _literal_at(text, start)
    if doctest and (not rest.strip() or rest.strip().startswith("#")):
        following = text[line_end + 1 :].split("\n", 1)[0]
        if not following.strip():  # a doctest that prints nothing returns None
            return None
        if following.strip().startswith(('"""', "'''", ">>>")):
            return MISSING
        return _literal_at(text, line_end + 1)
    return MISSING


def _inputs(text: str, parameters: tuple[str, ...]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    """`Input: x = 1, y = 2` and below it `Output: 3`; `For x = 1, y = 2 the output should be 3`."""
    if not parameters:
        return
    for match in re.finditer(
        r"^[ \t]*Input:[ \t]*(?P<a>.+)\n\s*Output:[ \t]*(?P<b>.+)"
        r"|\bFor (?P<c>\w+ *=.+?),? the (?:output|result) should be:? *(?P<d>.+)",
        text,
        re.MULTILINE,
    ):
        output = _literal_at(match["b"] or match["d"], 0)
        arguments = _arguments((match["a"] or match["c"]).strip())
        if arguments is None or output is MISSING:
            continue
        args, kwargs = arguments
        if len(args) + len(kwargs) == len(parameters) and set(kwargs) <= set(parameters):
            yield args, kwargs, output


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    tree = parsed(f"f({text.strip()})")
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    call = tree.body[0].value
    if not isinstance(call, ast.Call):
        return None
    args = tuple(value_of(a) for a in call.args)
    kwargs = {k.arg: value_of(k.value) for k in call.keywords if k.arg is not None}
    if len(kwargs) < len(call.keywords) or any(a is MISSING for a in (*args, *kwargs.values())):
        return None
    return args, kwargs


def _literal_at(text: str, start: int) -> Any:
    """The literal that begins here: a bracket to its close, else the longest readable part of the line."""
    while start < len(text) and text[start] in " \t":
        start += 1
    if start < len(text) and text[start] in "([{":
        end = _closing(text, start)
        if end is None or _goes_on(text[end + 1 :].split("\n", 1)[0]):
            return MISSING
        return _literal(text[start : end + 1])
    line = text[start:].split("\n", 1)[0].strip()
    quoted = re.match(r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")""", line)
    if quoted:
        rest = line[quoted.end() :].strip()
        if rest and not re.match(r"[#(,;]|\.(?![A-Za-z_])|\band\b|if\b|because\b|since\b|//", rest):
            return MISSING
        return _literal(quoted[1])
    sum_up = re.fullmatch(r"[\d\s.+*/()-]+=\s*([^=]+)", line)  # the working out, and its result
    if sum_up:
        return _literal(sum_up[1].strip())
    if re.match(r"[\w.]+\s*[+*/%-]\s*[\w(]", line) and not re.match(r"\S*[a-zA-Z]", line):
        return MISSING
    if _goes_on(line[len(re.split(r"[\s,;]", line, maxsplit=1)[0]) :]):
        return MISSING
    for candidate in (
        line,
        line.split("#")[0].strip(),
        re.split(r"[\s,;]", line, maxsplit=1)[0],
        line.rstrip("."),
    ):
        value = _literal(candidate.rstrip(",;"))
        if value is not MISSING:
            return value
    first = re.split(r"[\s,;]", line, maxsplit=1)[0].rstrip(".")
    return _literal(first)


def _goes_on(rest: str) -> bool:
    return _GOES_ON.match(rest) is not None


def _literal(text: str) -> Any:
    text = {"true": "True", "false": "False", "null": "None"}.get(text, text)
    if not text or len(text) > _LONGEST:
        return MISSING
    tree = parsed(text.lstrip(" \t"))
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return MISSING
    return value_of(tree.body[0].value)


def _closing(text: str, opening: int) -> int | None:
    """The position of the bracket that closes the one at `opening`, strings respected."""
    depth, quote, i = 0, "", opening
    while i < min(len(text), opening + _LONGEST):
        char = text[i]
        if quote:
            if char == "\\":
                i += 1
            elif char == quote or char == "\n":
                quote = ""
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None
