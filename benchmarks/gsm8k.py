"""GSM8K: 1,319 grade-school word problems with a number as the answer.

Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv 2110.14168). Graded by the
number's value (never by its digits standing somewhere in the reply).
"""

from __future__ import annotations

from typing import ClassVar

from archon.benchmarks.benchmark import AnswerGrader, Benchmark, Dataset
from archon.benchmarks.data import Origin, locate
from archon.benchmarks.humaneval import rows_of
from archon.problem import Message, Problem

ORIGIN = Origin(
    "gsm8k",
    "test.jsonl",
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c/grade_school_math/data/test.jsonl",
    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
)


class GSM8K(Benchmark):
    """The test set of GSM8K."""

    name: ClassVar[str] = "gsm8k"

    def load(self) -> Dataset:
        """Read the problems."""
        problems, right = [], {}
        for number, row in enumerate(rows_of(locate(ORIGIN, self.data), ("question", "answer"))):
            name = f"gsm8k/{number}"
            question = (
                f"{row['question'].strip()}\n\nThink step by step, and end with a line `#### <number>` "
                "that holds the final answer alone."
            )
            problems.append(
                Problem(
                    id=name,
                    messages=(Message(role="user", content=question),),
                    prompt=f"Question: {row['question'].strip()}\nAnswer:",
                    answer="number",
                    stop=("\nQuestion:",),
                )
            )
            right[name] = [row["answer"].split("####")[-1].strip()]
        return Dataset("gsm8k", problems, AnswerGrader(right))
