"""The benchmarks that ship: their problems, what the model is sent, and their graders on known answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from archon import registry
from archon.backends.scripted import Scripted
from archon.benchmarks.benchmark import Benchmark, Dataset
from archon.benchmarks.mbpp import MBPP
from archon.execution import Executor
from archon.problem import Problem
from archon.session import Session
from archon.verifiers.sandbox import Sandbox

pytestmark = pytest.mark.data

COUNTS = {
    "humaneval": 164,
    "humaneval_plus": 164,
    "mbpp": 499,  # the test split but for 367, whose tests need the candidate's own class
    "mbpp_plus": 378,
    "gsm8k": 1319,
    "math500": 500,
}
FILES = {
    "humaneval": "humaneval/HumanEval.jsonl.gz",
    "humaneval_plus": "humanevalplus/HumanEvalPlus.jsonl.gz",
    "mbpp": "mbpp/mbpp.jsonl",
    "mbpp_plus": "mbppplus/MbppPlus.jsonl.gz",
    "gsm8k": "gsm8k/test.jsonl",
    "math500": "math500/MATH500.jsonl",
}
CODE = ("humaneval", "humaneval_plus", "mbpp", "mbpp_plus")


def load(name: str, data: Path) -> Dataset:
    benchmark: Benchmark = registry.find("benchmark", name)(data=data)
    return benchmark.load()


def rows(name: str, data: Path) -> Iterator[Mapping[str, Any]]:
    path = data / FILES[name]
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return (json.loads(line) for line in text.decode().split("\n") if line.strip())


def sent(problem: Problem) -> str:
    """Everything a model may be sent of a problem."""
    return "\n".join([*(m.content for m in problem.messages), problem.prompt or ""])


async def graded(
    dataset: Dataset, answer: Callable[[Problem], Sequence[str]], problems: Sequence[Problem] | None = None
) -> dict[str, list[str]]:
    """The status of each answer to each problem, graded concurrently through one sandbox."""
    sandbox: Executor = Sandbox()
    room = asyncio.Semaphore(16)
    found: dict[str, list[str]] = {}

    async def one(problem: Problem) -> None:
        async with room:
            truths = await dataset.grader.grade(problem, answer(problem), session)
        found[problem.id] = [f"{t.status} ({t.detail})" if t.status != "right" else "right" for t in truths]

    try:
        async with Session(models=Scripted(), executor=sandbox) as session:
            await asyncio.gather(*(one(p) for p in problems or dataset.problems))
    finally:
        await sandbox.close()
    return found


def references(name: str, data: Path) -> dict[str, str]:
    """Each benchmark's own solution, as a model would answer."""
    if name == "mbpp":
        code = {f"MBPP/{r['task_id']}": r["code"].replace("\r\n", "\n") for r in rows(name, data)}
    else:
        code = {r["task_id"]: r["prompt"] + r["canonical_solution"] for r in rows(name, data)}
    return {task: f"Here it is:\n```python\n{source}\n```" for task, source in code.items()}


# --- problems --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COUNTS)
def test_every_benchmark_has_all_its_problems_each_with_an_id_of_its_own(name: str, data: Path) -> None:
    dataset = load(name, data)
    assert dataset.name == name
    assert len(dataset.problems) == COUNTS[name]
    assert len({p.id for p in dataset.problems}) == COUNTS[name]
    assert all(p.question.strip() for p in dataset.problems)


@pytest.mark.parametrize("name", FILES)
def test_the_recorded_file_is_the_one_the_benchmark_would_fetch(name: str, data: Path) -> None:
    import hashlib
    import importlib

    origin = importlib.import_module(f"archon.benchmarks.{name}").ORIGIN
    assert f"{origin.folder}/{origin.file}" == FILES[name]
    assert hashlib.sha256((data / FILES[name]).read_bytes()).hexdigest() == origin.sha256


def test_mbpp_has_its_four_splits(data: Path) -> None:
    sizes = {
        split: len(MBPP(data=data, split=split).load().problems)
        for split in ("prompt", "test", "validation", "train", "all")
    }
    assert sizes == {"prompt": 10, "test": 499, "validation": 90, "train": 373, "all": 972}
    assert MBPP(data=data).load().notes == ("left out, as their tests need the candidate's own classes: 367",)


@pytest.mark.parametrize("name", CODE)
def test_every_coding_problem_names_its_function_in_what_is_sent(name: str, data: Path) -> None:
    for problem in load(name, data).problems:
        assert problem.answer == "code"
        assert problem.entry_point
        assert problem.entry_point in problem.messages[-1].content
        assert problem.stop


def test_most_humaneval_problems_show_examples(data: Path) -> None:
    shown = [p for p in load("humaneval", data).problems if p.tests]
    assert len(shown) == 152, "the number the module states"


# --- nothing hidden is shown -----------------------------------------------------------------------


def test_humaneval_s_hidden_checks_are_not_sent(data: Path) -> None:
    problems = {p.id: p for p in load("humaneval", data).problems}
    for row in rows("humaneval", data):
        problem = problems[row["task_id"]]
        text = sent(problem)
        assert row["canonical_solution"].strip() not in text.replace(row["prompt"], "")
        assert "def check(" not in problem.model_dump_json()
        own = [
            line.strip() for line in row["test"].splitlines() if line.strip().startswith("assert candidate")
        ]
        for line in own:
            assert line not in text


@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_the_plus_inputs_are_neither_sent_nor_visible(name: str, data: Path) -> None:
    problems = {p.id: p for p in load(name, data).problems}
    for row in rows(name, data):
        problem = problems[row["task_id"]]
        assert "plus_input" not in problem.model_dump_json(include={"info", "documents", "messages"})
        assert sent(problem).count(row["canonical_solution"].strip()) == 0
        for case in problem.tests:
            for value in (*case.args, *case.kwargs.values()):
                if isinstance(value, int | str) and not isinstance(value, bool):
                    assert str(value).split("\n")[0] in row["prompt"], "visible examples are the prompt's"
        long = [json.dumps(args) for args in row["plus_input"] if len(json.dumps(args)) > 30]
        assert not any(args in sent(problem) for args in long)


def test_mbpp_s_challenge_tests_are_not_sent(data: Path) -> None:
    problems = {p.id: p for p in load("mbpp", data).problems}
    challenges = 0
    for row in rows("mbpp", data):
        problem = problems.get(f"MBPP/{row['task_id']}")
        if problem is None:
            continue
        for test in row["challenge_test_list"]:
            if test not in row["test_list"]:
                challenges += 1
                assert test.strip() not in sent(problem)
        for test in row["test_list"]:
            assert test.strip().replace("\r\n", "\n") in sent(problem), "these are part of the question"
    assert challenges > 0


def test_answers_of_word_and_competition_problems_are_not_sent(data: Path) -> None:
    problems = load("gsm8k", data).problems
    for problem, row in zip(problems, rows("gsm8k", data), strict=True):
        assert row["question"].strip() in sent(problem)
        assert row["answer"] not in problem.model_dump_json()
        assert len(row["answer"]) > 20
    by_id = {p.id: p for p in load("math500", data).problems}
    for row in rows("math500", data):
        problem = by_id[row["unique_id"]]
        assert row["solution"] not in sent(problem)
        assert set(problem.info) == {"subject", "level"}


@pytest.mark.parametrize("name", COUNTS)
def test_a_problem_holds_nothing_of_its_grader(name: str, data: Path) -> None:
    for problem in load(name, data).problems[:20]:
        assert set(problem.info) <= {"subject", "level"}
        assert problem.documents == ()


# --- grading ---------------------------------------------------------------------------------------


def both(solutions: Mapping[str, str]) -> Callable[[Problem], list[str]]:
    """The reference solution, and one that returns nothing."""
    return lambda problem: [
        solutions[problem.id],
        f"```python\ndef {problem.entry_point}(*args, **kwargs):\n    return None\n```",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", CODE)
async def test_every_reference_solution_is_right_and_returning_none_is_wrong(name: str, data: Path) -> None:
    dataset = load(name, data)
    found = await graded(dataset, both(references(name, data)))
    assert len(found) == len(dataset.problems)
    assert {task: said[0] for task, said in found.items() if said[0] != "right"} == {}
    assert {task for task, said in found.items() if said[1] == "right"} == set()


@pytest.mark.parametrize("name", CODE)
async def test_a_few_reference_solutions_are_right_and_what_is_none_is_not(name: str, data: Path) -> None:
    dataset = load(name, data)
    solutions = references(name, data)
    few = dataset.problems[:4]

    def answers(problem: Problem) -> list[str]:
        crash = f"```python\ndef {problem.entry_point}(*args):\n    raise ValueError('no')\n```"
        liar = (
            "```python\nclass Yes:\n    def __eq__(self, other):\n        return True\n"
            f"def {problem.entry_point}(*args):\n    return Yes()\n```"
        )
        leave = f"```python\nimport os\ndef {problem.entry_point}(*args):\n    os._exit(0)\n```"
        return [solutions[problem.id], crash, liar, leave, "I cannot do that.", ""]

    found = await graded(dataset, answers, few)
    for said in found.values():
        assert said[0] == "right"
        assert said[1].startswith("failed")
        assert not any(s == "right" for s in said[2:]), (
            "neither an overridden == nor exit code 0 proves anything"
        )


async def test_a_raw_continuation_is_graded_as_the_chat_answer_is(data: Path) -> None:
    dataset = load("humaneval", data)
    bodies = {row["task_id"]: row["canonical_solution"] for row in rows("humaneval", data)}
    found = await graded(dataset, lambda p: [bodies[p.id], "    pass\n"], dataset.problems[:10])
    assert all(said[0] == "right" and said[1] != "right" for said in found.values())


async def test_gsm8k_s_own_answers_are_right_and_other_numbers_wrong(data: Path) -> None:
    dataset = load("gsm8k", data)
    gold = {f"gsm8k/{i}": r["answer"] for i, r in enumerate(rows("gsm8k", data))}

    def answers(problem: Problem) -> list[str]:
        solution = gold[problem.id]
        number = solution.split("####")[1].strip().replace(",", "")
        return [
            solution,
            f"So it is {number}.\n#### ${int(number):,}.00",
            f"The answer is \\boxed{{{number}}}",
            f"#### {int(number) + 1}",
            f"#### {number}1",
            f"First {number}, and then\n#### {int(number) - 1}",
            "I do not know.",
            "",
        ]

    found = await graded(dataset, answers)
    assert len(found) == 1319
    for task, said in found.items():
        assert said[:3] == ["right"] * 3, (task, gold[task], said)
        assert not any(s == "right" for s in said[3:]), (task, gold[task], said)


@pytest.mark.slow
async def test_math500_s_own_answers_are_right_and_others_wrong(data: Path) -> None:
    dataset = load("math500", data)
    gold = {r["unique_id"]: r for r in rows("math500", data)}

    checked = set(list(gold)[::8])
    """Wrong answers are compared as mathematics, which takes time: an eighth of them."""

    def answers(problem: Problem) -> list[str]:
        row = gold[problem.id]
        right = [row["solution"], f"We get $\\boxed{{{row['answer']}}}$.", ""]
        wrong = ["\\boxed{987654321}", "\\boxed{-10007}", "\\boxed{\\text{unknown}}"]
        return right + (wrong if problem.id in checked else [])

    found = await graded(dataset, answers)
    assert len(found) == 500
    assert {t: (gold[t]["answer"], s[:2]) for t, s in found.items() if s[:2] != ["right"] * 2} == {}
    assert {t: gold[t]["answer"] for t, s in found.items() if "right" in s[2:]} == {}


@pytest.mark.parametrize(
    ("gold", "equal", "other"),
    [
        ("\\frac{1}{2}", "0.5", "0.51"),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", "(\\pi/2, 3)"),
        ("p - q", "-q + p", "q - p"),
        ("\\text{Evelyn}", "Evelyn", "Carla"),
    ],
)
async def test_formulas_are_compared_as_mathematics(gold: str, equal: str, other: str, data: Path) -> None:
    dataset = load("math500", data)
    answers = {r["unique_id"]: r["answer"] for r in rows("math500", data)}
    problem = next(p for p in dataset.problems if answers[p.id] == gold)
    found = await graded(dataset, lambda p: [f"\\boxed{{{x}}}" for x in (gold, equal, other)], [problem])
    said = found[problem.id]
    assert said[:2] == ["right", "right"]
    assert said[2].startswith("wrong")
