"""MATH-500: 500 competition problems with a formula as the answer.

Source: Hendrycks et al. 2021 (arXiv 2103.03874); the 500 held-out problems of Lightman et al. 2023, "Let's
Verify Step by Step" (arXiv 2305.20050), prm800k/math_splits/test.jsonl. Answers are compared as mathematics
(math-verify), in the sandbox, as parsing a reply can hang or worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from archon.answers import canonical_formula, normal_form
from archon.benchmarks.benchmark import Benchmark, Dataset, Truth
from archon.benchmarks.data import Origin, locate
from archon.benchmarks.humaneval import rows_of
from archon.problem import Message, Problem
from archon.session import Session
from archon.verifiers.mathematics import equal_answers

ORIGIN = Origin(
    "math500",
    "MATH500.jsonl",
    "https://media.githubusercontent.com/media/openai/prm800k/7ecc794703b2877f63226f2477a49b34f9b25163/prm800k/math_splits/test.jsonl",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
)


class Math500(Benchmark):
    """The MATH-500 test set."""

    def load(self) -> Dataset:
        """Read the problems."""
        problems, right = [], {}
        for row in rows_of(locate(ORIGIN, self.data), ("problem", "answer", "unique_id", "subject", "level")):
            question = (
                f"{row['problem'].strip()}\n\nThink step by step, and put the final answer into \\boxed{{}}."
            )
            problems.append(
                Problem(
                    id=row["unique_id"],
                    messages=(Message(role="user", content=question),),
                    prompt=f"Problem: {row['problem'].strip()}\nSolution:",
                    answer="math",
                    stop=("\nProblem:",),
                    info={"subject": row["subject"], "level": row["level"]},
                )
            )
            right[row["unique_id"]] = row["answer"]
        return Dataset("math500", problems, FormulaGrader(right))


class FormulaGrader:
    """Grades formulas as mathematics."""

    def __init__(self, right: Mapping[str, str]) -> None:
        self._right = right

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        """Equal in normal form is right; the rest is compared by math-verify."""
        gold = self._right[problem.id]
        wanted = canonical_formula(gold)
        answers = [normal_form(problem, text) for text in texts]
        open_ones = sorted({a for a in answers if a is not None and a != wanted})
        verdicts = dict(zip(open_ones, await equal_answers(gold, open_ones, session), strict=True))
        truths = []
        for answer in answers:
            if answer is None:
                truths.append(Truth("wrong", "no answer found"))
            elif answer == wanted or verdicts[answer] is True:
                truths.append(Truth("right"))
            elif verdicts[answer] is None:
                truths.append(Truth("timed_out", "the comparison did not end in time"))
            else:
                truths.append(Truth("wrong", f"answered {answer[:80]}"))
        return truths
