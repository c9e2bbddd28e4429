"""A benchmark of one's own: a JSONL file, or a few lines of Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.backends.scripted import Scripted
from archon.benchmarks.benchmark import AnswerGrader, Benchmark, Dataset
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.jsonl import JSONL
from archon.errors import DataError
from archon.problem import Problem
from archon.session import Session
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample


def write(place: Path, *rows: dict[str, Any] | str) -> JSONL:
    file = place / "mine.jsonl"
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return JSONL(data=file)


async def truths(dataset: Dataset, number: int, *texts: str) -> list[str]:
    async with Session(models=Scripted()) as session:
        graded: Sequence[Any] = await dataset.grader.grade(dataset.problems[number], texts, session)
    return [t.status for t in graded]


async def test_a_benchmark_of_ones_own_takes_a_few_lines(tmp_path: Path) -> None:
    class Capitals(Benchmark):
        """Capitals of countries."""

        def load(self) -> Dataset:
            rows = [line.split(",") for line in ["France,Paris", "Italy,Rome", "Peru,Lima"]]
            problems = [Problem.ask(f"What is the capital of {c}?", id=c) for c, _ in rows]
            return Dataset("capitals", problems, AnswerGrader({c: [capital] for c, capital in rows}))

    model = Scripted(replies={"France": ("Paris", "paris ", "Lyon"), "*": ("Rome", "Rome", "Rome")})
    graph = (Sample(n=3) | MajorityVote()).graph()
    async with Session(models=model) as session:
        results = await Harness(Plan(Capitals().load(), graph, "vote", 3), session, tmp_path).run()
    assert results.data["outcomes"] == {
        "solved": 2, "wrong": 1, "failed": 0, "timed_out": 0, "cancelled": 0, "abstained": 0,
    }  # fmt: skip
    assert [r.truth for r in results.records] == [[True, True, False], [True] * 3, [False] * 3]


async def test_answers_are_graded_by_their_kind(tmp_path: Path) -> None:
    dataset = write(
        tmp_path,
        {"question": "6 x 7?", "answer": "42", "kind": "number"},
        {"question": "Say hi", "answer": ["hi there", "Hello"]},
        {"question": "1/2?", "answer": "\\frac{1}{2}", "kind": "math"},
        {"question": "Pick", "answer": "B", "kind": "choice", "choices": ["x", "y", "z"]},
    ).load()
    assert await truths(dataset, 0, "it is 42.0", "#### 42", "420", "none") == [
        "right",
        "right",
        "wrong",
        "wrong",
    ]
    assert await truths(dataset, 1, "Hi   THERE", "hello", "hi") == ["right", "right", "wrong"]
    assert await truths(dataset, 2, "\\boxed{0.5}", "\\boxed{\\dfrac12}", "\\boxed{2}") == [
        "right",
        "right",
        "wrong",
    ]
    assert await truths(dataset, 3, "The answer is (B).", "The answer is C", "?") == [
        "right",
        "wrong",
        "wrong",
    ]


async def test_code_is_graded_by_hidden_tests_and_shows_only_the_visible_ones(tmp_path: Path) -> None:
    dataset = write(
        tmp_path,
        {"id": "add", "question": "Write add(a, b).", "entry_point": "add",
         "tests": [{"args": [1, 2], "expected": 3}], "hidden_tests": [{"args": [29, 17], "expected": 46}]},
    ).load()  # fmt: skip
    (problem,) = dataset.problems
    assert [c.args for c in problem.tests] == [(1, 2)]
    assert "29" not in problem.model_dump_json()
    said = await truths(dataset, 0, "def add(a, b):\n    return a + b", "def add(a, b):\n    return 3", "")
    assert said == ["right", "wrong", "wrong"]
    assert dataset.selectors == ("first_passing", "best_of", "majority_vote", "weighted_vote")


async def test_visible_tests_grade_where_there_are_no_hidden_ones(tmp_path: Path) -> None:
    row = {"question": "f", "entry_point": "f", "tests": [{"args": [2], "expected": 4}]}
    dataset = write(tmp_path, row).load()
    assert await truths(dataset, 0, "def f(x):\n    return x * x", "def f(x):\n    return x") == [
        "right",
        "wrong",
    ]


def test_lines_without_an_id_are_named_by_their_number_and_empty_lines_do_not_count_as_rows(
    tmp_path: Path,
) -> None:
    row = {"question": "q", "answer": "a"}
    dataset = write(tmp_path, row, "", {**row, "id": "named"}, row).load()
    assert [p.id for p in dataset.problems] == ["1", "named", "4"]
    assert dataset.name == "mine"


GOOD: dict[str, Any] = {"question": "q", "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([GOOD, "{oops"], r"mine\.jsonl:2: not JSON"),
        ([GOOD, GOOD, "[1]"], r"mine\.jsonl:3: expected an object, found list"),
        ([GOOD, "", {"answer": "a"}], r"mine\.jsonl:3: `question` is missing"),
        ([{"question": "  ", "answer": "a"}], r"mine\.jsonl:1: `question` is missing or empty"),
        ([{"question": "q"}], r"mine\.jsonl:1: `answer` is missing"),
        ([{**GOOD, "answr": 1}], r"mine\.jsonl:1: unknown field 'answr'.*answer"),
        ([{**GOOD, "id": "x"}, {**GOOD, "id": "x"}], r"mine\.jsonl:2: the id 'x' is taken"),
        ([GOOD, {**GOOD, "id": "1"}], r"mine\.jsonl:2: the id '1' is taken"),
        ([{**GOOD, "kind": "poem"}], r"mine\.jsonl:1: answer: "),
        ([{"question": "q", "entry_point": "f"}], r"mine\.jsonl:1: .*needs `hidden_tests`"),
        ([{"question": "q", "entry_point": "f", "tests": [{"args": [1]}]}], r"mine\.jsonl:1: a test looks like"),
        ([{"question": "q", "entry_point": "f", "hidden_tests": 5}], r"mine\.jsonl:1: a test looks like"),
        ([{"question": "q", "entry_point": "f", "tests": [5]}], r"mine\.jsonl:1: a test looks like"),
        ([], r"holds no problems"),
        (["", "  "], r"holds no problems"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, rows: list[Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        write(tmp_path, *rows).load()


def test_a_file_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        JSONL(data=tmp_path / "none.jsonl").load()
    with pytest.raises(DataError, match="--data"):
        JSONL().load()


def test_an_empty_list_of_answers_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mine\.jsonl:1: .*answer"):
        write(tmp_path, {"question": "q", "answer": []}).load()


def test_code_without_an_entry_point_is_a_data_error(tmp_path: Path) -> None:
    row = {"question": "q", "kind": "code", "hidden_tests": [{"args": [1], "expected": 1}]}
    with pytest.raises(DataError, match=r"mine\.jsonl:1: .*entry_point"):
        write(tmp_path, row).load()


async def test_every_accepted_formula_is_right(tmp_path: Path) -> None:
    dataset = write(tmp_path, {"question": "root of x^2 = 4?", "answer": ["2", "-2"], "kind": "math"}).load()
    assert await truths(dataset, 0, "\\boxed{2}", "\\boxed{-2}", "\\boxed{3}") == ["right", "right", "wrong"]
