"""HumanEval: 164 functions to complete from a signature and a docstring.

Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374). Graded by
the benchmark's own `check` programs, which run in a process of their own and call the candidate through a
stand-in. Visible to pipelines: the examples in the docstring (152 of 164 problems have readable ones).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from archon.backends.recordings import read_jsonl
from archon.benchmarks.benchmark import Benchmark, Dataset
from archon.benchmarks.data import Origin, locate
from archon.benchmarks.programs import SuiteGrader
from archon.errors import DataError
from archon.execution import Program, Suite
from archon.problem import Message, Problem
from archon.verifiers.examples import parameters_of, visible_cases

ORIGIN = Origin(
    "humaneval",
    "HumanEval.jsonl.gz",
    "https://raw.githubusercontent.com/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
    "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
)
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Where a raw continuation of a function ends (Chen et al. 2021, 2.1)."""
CODE_SELECTORS = ("first_passing", "best_of", "majority_vote", "weighted_vote")


class HumanEval(Benchmark):
    """HumanEval with its own tests."""

    name: ClassVar[str] = "humaneval"

    def load(self) -> Dataset:
        """Read the 164 problems."""
        rows = list(
            rows_of(
                locate(ORIGIN, self.data), ("task_id", "prompt", "entry_point", "canonical_solution", "test")
            )
        )
        suites = {
            row["task_id"]: Suite(
                check=row["test"],
                namespace=row["prompt"] + row["canonical_solution"],
                names=(row["entry_point"],),
            )
            for row in rows
        }
        problems = [function_problem(row) for row in rows]
        references = {row["task_id"]: reference(row) for row in rows}
        return Dataset("humaneval", problems, SuiteGrader(suites, references), selectors=CODE_SELECTORS)


def rows_of(path: Any, fields: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
    """Rows of a data file with these fields. Raises DataError with the line."""
    for number, row in read_jsonl(path):
        missing = [name for name in fields if name not in row]
        if missing:
            raise DataError(f"{path}:{number}: the field {missing[0]!r} is missing; is this the right file?")
        yield row


def reference(row: Mapping[str, Any]) -> Program:
    """The benchmark's own solution."""
    return Program(source=row["prompt"] + row["canonical_solution"], entry_point=row["entry_point"])


def function_problem(row: Mapping[str, Any]) -> Problem:
    """A function to complete, as a chat and as a raw prompt."""
    prompt, entry_point = row["prompt"], row["entry_point"]
    question = (
        "Write the body of this Python function so that it does what its docstring says. "
        f"Answer with the complete function in one Python code block.\n\n```python\n{prompt.rstrip()}\n```"
    )
    return Problem(
        id=row["task_id"],
        messages=(Message(role="user", content=question),),
        prompt=prompt,
        answer="code",
        entry_point=entry_point,
        tests=visible_cases(prompt, entry_point, parameters_of(prompt, entry_point)),
        stop=STOP,
    )
