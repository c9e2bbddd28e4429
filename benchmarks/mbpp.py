"""MBPP: short programming tasks from a sentence and three asserts.

Source: Austin et al. 2021, "Program Synthesis with Large Language Models" (arXiv 2108.07732). As in the
paper (section 4.1) the tests are part of the question, so they are visible; graded by the same asserts and the
challenge tests. The test split is task ids 11 to 510. Tasks whose tests build objects of a class that the
candidate itself defines (367, 927) cannot be judged from outside its process and are left out.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from archon.benchmarks.benchmark import Benchmark, Dataset
from archon.benchmarks.data import Origin, locate
from archon.benchmarks.humaneval import CODE_SELECTORS, rows_of
from archon.benchmarks.programs import SuiteGrader
from archon.execution import Program, Suite
from archon.problem import Message, Problem
from archon.verifiers.examples import visible_cases

ORIGIN = Origin(
    "mbpp",
    "mbpp.jsonl",
    "https://raw.githubusercontent.com/google-research/google-research/master/mbpp/mbpp.jsonl",
    "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
)
_SPLITS = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
_FIELDS = ("task_id", "text", "code", "test_list", "test_setup_code", "challenge_test_list")


class MBPP(Benchmark):
    """MBPP by its asserts."""

    name: ClassVar[str] = "mbpp"
    split: Literal["test", "validation", "train", "prompt", "all"] = "test"
    """Which tasks."""

    def load(self) -> Dataset:
        """Read the tasks of the split."""
        problems, suites, references, left_out = [], {}, {}, []
        for row in rows_of(locate(ORIGIN, self.data), _FIELDS):
            if self.split != "all" and row["task_id"] not in _SPLITS[self.split]:
                continue
            if "Node(" in row["test_setup_code"]:
                left_out.append(str(row["task_id"]))
                continue
            problem = _problem(row)
            suites[problem.id] = Suite(
                check="\n".join(t.strip() for t in (*row["test_list"], *row["challenge_test_list"])),
                namespace=f"import math\n{_lines(row['test_setup_code'])}",
                names=(problem.entry_point or "",),
            )
            references[problem.id] = Program(
                source=_lines(row["code"]), entry_point=problem.entry_point or ""
            )
            problems.append(problem)
        notes = (
            (f"left out, as their tests need the candidate's own classes: {', '.join(left_out)}",)
            if left_out
            else ()
        )
        return Dataset("mbpp", problems, SuiteGrader(suites, references), notes, CODE_SELECTORS)


def _problem(row: Mapping[str, Any]) -> Problem:
    tests = "\n".join(_lines(t).strip() for t in row["test_list"])
    entry_point = function_under_test(tests, _lines(row["code"]))
    question = (
        f"{row['text'].strip()}\n\nThe function is called `{entry_point}` and must satisfy\n\n"
        f"```python\n{tests}\n```\n\nAnswer with the complete function in one Python code block."
    )
    return Problem(
        id=f"MBPP/{row['task_id']}",
        messages=(Message(role="user", content=question),),
        prompt=f'"""\n{row["text"].strip()}\n{tests}\n"""\n',
        answer="code",
        entry_point=entry_point,
        tests=visible_cases(tests, entry_point),
        stop=("\nclass", "\nassert", '\n"""', "\nprint", "\nif"),
    )


def function_under_test(tests: str, code: str) -> str:
    """The function that the asserts call: the one of those the reference defines that they name first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        defined = {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
        calls = [
            n for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
    calls.sort(key=lambda n: (n.lineno, n.col_offset))
    return next(c.func.id for c in calls if isinstance(c.func, ast.Name) and c.func.id in defined)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
