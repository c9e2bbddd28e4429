"""A benchmark of one's own: a JSONL file with a question and its answer per line.

    {"question": "What is 6 × 7?", "answer": "42", "kind": "number"}
    {"id": "add", "question": "Write add(a, b).", "entry_point": "add",
     "tests": [{"args": [1, 2], "expected": 3}], "hidden_tests": [{"args": [2, 2], "expected": 4}]}

`answer` may be a list of accepted answers. `kind` is text (the default), number, math or choice; with an
`entry_point` it is code, `tests` are visible and `hidden_tests` grade. `id`, `choices`, `documents`, `info`
are optional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ValidationError

from archon.backends.recordings import read_jsonl
from archon.benchmarks.benchmark import AnswerGrader, Benchmark, Dataset, Grader, Truth
from archon.benchmarks.humaneval import CODE_SELECTORS
from archon.benchmarks.math500 import FormulaGrader
from archon.benchmarks.programs import SuiteGrader
from archon.errors import DataError
from archon.execution import Suite
from archon.problem import Case, Problem
from archon.session import Session

_KNOWN = {
    "id",
    "question",
    "answer",
    "kind",
    "entry_point",
    "tests",
    "hidden_tests",
    "choices",
    "documents",
    "info",
    "prompt",
}


class JSONL(Benchmark):
    """Problems and answers from a file of one's own."""

    name: ClassVar[str] = "jsonl"

    def load(self) -> Dataset:
        """Read the file. Raises DataError with the line."""
        if self.data is None:
            raise DataError("the benchmark `jsonl` needs a file: archon bench my.jsonl, or --data my.jsonl")
        problems: list[Problem] = []
        answers: dict[str, list[str]] = {}
        suites: dict[str, Suite] = {}
        for number, row in read_jsonl(self.data):
            place = f"{self.data}:{number}"
            unknown = sorted(set(row) - _KNOWN)
            if unknown:
                raise DataError(f"{place}: unknown field {unknown[0]!r}. Valid: {', '.join(sorted(_KNOWN))}")
            problem = _problem(row, number, place)
            if problem.id in answers or problem.id in suites:
                raise DataError(f"{place}: the id {problem.id!r} is taken by an earlier line")
            problems.append(problem)
            if problem.answer == "code":
                hidden = _cases(row.get("hidden_tests") or row.get("tests"), place)
                if not hidden:
                    raise DataError(
                        f"{place}: a problem with an `entry_point` needs `hidden_tests` (or `tests`)"
                    )
                suites[problem.id] = Suite(cases=hidden)
            else:
                answer = row.get("answer")
                given = answer if isinstance(answer, list) else [] if answer is None else [answer]
                if not given:
                    raise DataError(f"{place}: `answer` is missing or empty")
                answers[problem.id] = [str(a) for a in given]
        if not problems:
            raise DataError(f"{self.data} holds no problems")
        selectors = CODE_SELECTORS if suites and not answers else ("majority_vote",)
        return Dataset(self.data.stem, problems, _Mixed(answers, suites), selectors=selectors)


def _problem(row: Mapping[str, Any], number: int, place: str) -> Problem:
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{place}: `question` is missing or empty")
    code = "entry_point" in row
    if not code and row.get("kind") == "code":
        raise DataError(f"{place}: a problem of kind 'code' needs an `entry_point`, the function to write")
    try:
        return Problem.ask(
            question,
            id=str(row.get("id", number)),
            answer="code" if code else row.get("kind", "text"),
            entry_point=row.get("entry_point"),
            tests=_cases(row.get("tests"), place),
            prompt=row.get("prompt"),
            **{name: row[name] for name in ("choices", "documents", "info") if name in row},
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _cases(rows: Any, place: str) -> tuple[Case, ...]:
    try:
        return tuple(Case.model_validate({**row, "args": tuple(row.get("args", ()))}) for row in rows or ())
    except (ValidationError, TypeError, AttributeError) as error:
        raise DataError(
            f'{place}: a test looks like {{"args": [1, 2], "expected": 3}} ({str(error).splitlines()[0]})'
        ) from None


class _Mixed:
    """Each problem by its own kind's grader."""

    def __init__(self, answers: Mapping[str, Sequence[str]], suites: Mapping[str, Suite]) -> None:
        self._answers = AnswerGrader(answers)
        self._formulas = FormulaGrader(answers)
        self._programs = SuiteGrader(suites)

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> Sequence[Truth]:
        """By the kind of answer."""
        grader: Grader = self._answers
        if problem.answer == "code":
            grader = self._programs
        elif problem.answer == "math":
            grader = self._formulas
        return await grader.grade(problem, texts, session)
