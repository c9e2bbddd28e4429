"""MBPP+: 378 of MBPP's tasks, cleaned, with about thirty-five times as many tests.

Source: Liu et al. 2023 (arXiv 2305.01210), release v0.2.0. JSON has no tuples, sets or complex numbers, so
the inputs of some tasks are brought back into the types their reference programs expect; and some tasks
have more than one right answer (evalplus's special oracles): both are the tables below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

from archon.benchmarks.benchmark import Benchmark, Dataset
from archon.benchmarks.data import Origin, locate
from archon.benchmarks.humaneval import CODE_SELECTORS, reference, rows_of
from archon.benchmarks.programs import ReferenceGrader
from archon.execution import Call
from archon.problem import Case, Message, Problem
from archon.verifiers.examples import visible_cases

ORIGIN = Origin(
    "mbppplus",
    "MbppPlus.jsonl.gz",
    "https://github.com/evalplus/mbppplus_release/releases/download/v0.2.0/MbppPlus.jsonl.gz",
    "af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
)
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")

_SAME_SET = {2, 7, 111, 140, 232, 249, 579, 769}
"""Their order does not matter."""
_NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}
"""Only whether something is returned counts (matches of regular expressions)."""
_ANYTHING = {"are_equivalent"}

_EACH_ARGUMENT = {
    2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809,
}  # fmt: skip
"""Every argument is a tuple."""
_INSIDE_EACH = {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}
"""Every argument is a list of tuples."""
_INSIDE_FIRST = {75, 413, 444, 753}
"""The first argument is a list of tuples."""
_SECOND = {106, 750}
"""The second argument is a tuple."""
_FIRST = {250, 307, 405, 446, 617, 720, 763, 808}
"""The first argument is a tuple."""
_TUPLES_OF_TUPLES = {259, 401, 445}
_MIXED = {278}
"""A tuple whose lists are tuples too."""
_ALL_LISTS = {580, 615, 791}
"""Every list, however deep, is a tuple; the argument list itself too."""
_TOO_LARGE = {255: ["Dog", "Cat", "CatBird", "Bird", "Fish"]}
"""Left out: 1.7 million tuples of 77, over a gigabyte, is the right answer for these five and n = 77."""


class MBPPPlus(Benchmark):
    """MBPP with the base and the plus tests of evalplus."""

    name: ClassVar[str] = "mbpp_plus"

    def load(self) -> Dataset:
        """Read the 378 tasks."""
        rows = {row["task_id"]: row for row in rows_of(locate(ORIGIN, self.data), _FIELDS)}
        references = {name: reference(row) for name, row in rows.items()}
        inputs = {name: partial(_calls, row) for name, row in rows.items()}

        def case(name: str, call: Call, value: object) -> Case:
            return _case(rows[name], call, value)

        grader = ReferenceGrader(inputs, references, case)
        notes = ("left out of Mbpp/255: one input whose right answer takes over a gigabyte",)
        problems = [_problem(row) for row in rows.values()]
        return Dataset("mbpp_plus", problems, grader, notes, CODE_SELECTORS)


def _problem(row: Any) -> Problem:
    task = row["prompt"].strip().strip('"').strip()
    question = (
        f"{task}\n\nThe function is called `{row['entry_point']}`. "
        "Answer with the complete function in one Python code block."
    )
    return Problem(
        id=row["task_id"],
        messages=(Message(role="user", content=question),),
        prompt=row["prompt"],
        answer="code",
        entry_point=row["entry_point"],
        tests=visible_cases(row["prompt"], row["entry_point"]),
        stop=("\nclass", "\nassert", '\n"""', "\nprint", "\nif"),
    )


def _calls(row: Any) -> list[Call]:
    number = int(row["task_id"].split("/")[-1])
    left_out = [_TOO_LARGE[number], 77] if number in _TOO_LARGE else None
    inputs = [args for args in (*row["base_input"], *row["plus_input"]) if args != left_out]
    return [Call(args=tuple(restored(number, args))) for args in inputs]


def restored(number: int, args: list[Any]) -> Any:
    """A task's arguments in their own types."""
    if number in _EACH_ARGUMENT:
        return [tuple(a) for a in args]
    if number in _INSIDE_EACH:
        return [[tuple(b) for b in a] for a in args]
    if number in _INSIDE_FIRST:
        return [[tuple(b) for b in args[0]], args[1]]
    if number in _SECOND:
        return [args[0], tuple(args[1])]
    if number in _FIRST:
        return [tuple(args[0]), *args[1:]]
    if number in _TUPLES_OF_TUPLES:
        return [tuple(tuple(b) for b in a) for a in args]
    if number in _MIXED:
        return [tuple(tuple(b) if isinstance(b, list) else b for b in args[0])]
    if number in _ALL_LISTS:
        return _deep(args)
    special: dict[int, Callable[[list[Any]], list[Any]]] = {
        115: lambda a: [[set(b) if isinstance(b, list) and b else {} for b in a[0]]],
        124: lambda a: [float(a[0]), complex(a[1])],
        252: lambda a: [complex(a[0])],
        722: lambda a: [{key: tuple(value) for key, value in a[0].items()}, *a[1:]],
    }
    return special[number](args) if number in special else args


def _deep(value: Any) -> Any:
    return tuple(map(_deep, value)) if isinstance(value, list) else value


def _case(row: Any, call: Call, value: Any) -> Case:
    number, entry_point = int(row["task_id"].split("/")[-1]), row["entry_point"]
    rule: Literal["equal", "same_set", "is_not_none", "anything"] = "equal"
    alternatives: tuple[Any, ...] = ()
    if entry_point in _ANYTHING:
        rule = "anything"
    elif number in _SAME_SET:
        rule = "same_set"
    elif entry_point in _NOT_NONE:
        rule, value = "is_not_none", value is not None
    elif entry_point == "sum_div":
        alternatives = (0,)
    elif entry_point == "surface_Area":
        alternatives = (_pyramid(*call.args),)
    elif entry_point == "digit_distance_nums":
        alternatives = (_digit_distance(*call.args),)
    return Case(args=call.args, expected=value, alternatives=alternatives, tolerance=row["atol"], rule=rule)


def _pyramid(base: float, height: float) -> int:
    """The surface of a square pyramid whose `height` is that of its apex, not the slant height."""
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))


def _digit_distance(a: int, b: int) -> int:
    """The digits' distance with the shorter number padded by zeros."""
    one, other = str(a), str(b)
    width = max(len(one), len(other))
    return sum(abs(int(x) - int(y)) for x, y in zip(one.zfill(width), other.zfill(width), strict=True))
