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
            right[row["unique_id"]] = [row["answer"]]
        return Dataset("math500", problems, FormulaGrader(right))


class FormulaGrader:
    """Grades formulas as mathematics. `right` holds the accepted answers by problem id."""

    def __init__(self, right: Mapping[str, Sequence[str]]) -> None:
        self._right = right

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        """Equal in normal form is right; the rest is compared by math-verify."""
        accepted = self._right[problem.id]
        equal: dict[str, bool | None] = {c: True for gold in accepted if (c := canonical_formula(gold))}
        answers = [normal_form(problem, text) for text in texts]
        for gold in accepted:
            open_ones = sorted({a for a in answers if a is not None and equal.get(a) is not True})
            for answer, verdict in zip(open_ones, await equal_answers(gold, open_ones, session), strict=True):
                # Undecided for one accepted answer and unequal to another is still undecided.
                equal[answer] = verdict if verdict is not False or answer not in equal else equal[answer]
        return [_truth(answer, equal) for answer in answers]


def _truth(answer: str | None, equal: Mapping[str, bool | None]) -> Truth:
    if answer is None:
        return Truth("wrong", "no answer found")
    if equal[answer] is None:
        return Truth("timed_out", "the comparison did not end in time")
    return Truth("right") if equal[answer] else Truth("wrong", f"answered {answer[:80]}")
