"""The lab's problems: made the same each time, in splits that share nothing, and graded by what is true."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from operator import add, mul, sub
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon import registry
from archon.answers import normal_form
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.lab import arith, listfn
from archon.benchmarks.lab.arith import rewritten
from archon.benchmarks.lab.bench import Lab, LabArith, LabChain, LabListFn
from archon.benchmarks.lab.family import SPLITS, Split, Task, tasks
from archon.errors import DataError
from archon.session import Session

BENCHMARKS: tuple[type[Lab], ...] = (LabArith, LabChain, LabListFn)
SEEDS = st.integers(0, 2**32)
few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def every_level() -> list[tuple[type[Lab], int]]:
    return [(kind, level) for kind in BENCHMARKS for level in kind.family.levels]


def drawn(kind: type[Lab], level: int, split: Split, seed: int, count: int = 4) -> list[Task]:
    return list(islice(tasks(kind.family, level, split, seed), count))


# --- how they are made -----------------------------------------------------------------------------


@few
@given(place=st.sampled_from(every_level()), seeds=st.tuples(SEEDS, SEEDS, SEEDS))
def test_no_question_is_in_two_splits_whatever_the_seeds(
    place: tuple[type[Lab], int], seeds: tuple[int, int, int]
) -> None:
    asked = [
        {task.question for task in drawn(*place, split, seed)}
        for split, seed in zip(SPLITS, seeds, strict=True)
    ]
    assert all(len(questions) == 4 for questions in asked)
    assert not (asked[0] & asked[1] or asked[0] & asked[2] or asked[1] & asked[2])


@few
@given(place=st.sampled_from(every_level()), seed=SEEDS)
def test_what_is_drawn_for_training_is_never_in_a_test(place: tuple[type[Lab], int], seed: int) -> None:
    """By any generator: the split is a property of the question."""
    kind, level = place
    rng = random.Random(seed)
    for _ in range(10):
        task = kind.family.draw(rng, level)
        assert (task.split, task.level, task.family) == (task.split, level, kind.family.name)
        others = [split for split in SPLITS if split != task.split]
        for split in others:
            assert task.question not in {t.question for t in drawn(kind, level, split, seed)}


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_the_same_seed_makes_the_same_problems_and_another_makes_others(kind: type[Lab]) -> None:
    first, again, other = (kind(problems=3, seed=seed).load() for seed in (5, 5, 6))
    assert first.problems == again.problems
    assert not {p.question for p in first.problems} & {p.question for p in other.problems}
    assert not {p.id for p in first.problems} & {p.id for p in other.problems}
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_levels_take_turns_and_stand_in_the_ids(kind: type[Lab]) -> None:
    problems = kind(problems=2, split="dev").load().problems
    assert [p.id for p in problems] == [
        f"{kind.name}/dev/{level}/{number:04}" for number in range(2) for level in kind.family.levels
    ]
    assert [p.info["level"] for p in problems] == [*kind.family.levels] * 2
    assert {p.info["family"] for p in problems} == {kind.name.removeprefix("lab/")}


@pytest.mark.parametrize(
    ("level", "made"), [(3, [3]), ((2, 1), [1, 2]), ("2,1,2", [1, 2]), ("3", [3]), ("all", [1, 2, 3, 4, 5])]
)
def test_a_level_is_one_several_or_all(level: Any, made: list[int]) -> None:
    assert [p.info["level"] for p in LabListFn(level=level, problems=1).load().problems] == made


def test_a_level_s_problems_are_the_same_beside_others_and_alone() -> None:
    alone = LabChain(level=2, problems=3).load().problems
    among = LabChain(problems=5).load().problems
    assert alone == [p for p in among if p.info["level"] == 2][:3]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"level": 6}, "`level` of lab/listfn goes from 1 to 5"),
        ({"level": "1,6"}, "goes from 1 to 5"),
        ({"level": "hard"}, "a number, several"),
        ({"split": "validation"}, "'train', 'dev' or 'test'"),
        ({"problems": 0}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_rule(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        LabListFn(**fields)


def test_asking_for_more_problems_than_a_level_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Coin:
        name, levels = "coin", (1,)

        def draw(self, rng: random.Random, level: int) -> Task:
            face = rng.choice("abcdefghijklmnopqrst")
            return Task("coin", level, face, face, face)

    monkeypatch.setattr(LabArith, "family", Coin())
    with pytest.raises(
        DataError, match=r"level 1 of lab/arith has \d problems in its split 'dev', and not 20"
    ):
        LabArith(split="dev").load()


def test_the_document_s_table_of_levels_is_what_the_generators_do() -> None:
    document = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
    for level, of in arith._LEVELS.items():
        assert f"| {level} | {of.operations}, {of.largest}, {of.groups or 'none'} |" in document


def test_they_are_registered_under_their_names() -> None:
    for kind in BENCHMARKS:
        assert registry.find("benchmark", kind.name) is kind


# --- what is true of them --------------------------------------------------------------------------


def value(expression: str) -> int:
    """An expression's value by recursive descent, which shares nothing with the generator."""
    tokens = re.findall(r"\d+|[-+*()]", expression)
    assert "".join(tokens) == expression

    def factor() -> int:
        token = tokens.pop(0)
        if token != "(":
            return int(token)
        inner = total()
        assert tokens.pop(0) == ")"
        return inner

    def chained(part: Any, operations: Mapping[str, Any]) -> int:
        left: int = part()
        while tokens and tokens[0] in operations:
            left = operations[tokens.pop(0)](left, part())
        return left

    def product() -> int:
        return chained(factor, {"*": mul})

    def total() -> int:
        return chained(product, {"+": add, "-": sub})

    result = total()
    assert not tokens
    return result


@few
@given(level=st.sampled_from(LabArith.family.levels), seed=SEEDS)
def test_every_line_of_a_rewriting_has_the_value_of_the_expression(level: int, seed: int) -> None:
    for task in drawn(LabArith, level, "test", seed):
        expression = task.question.removeprefix("Compute ").removesuffix(" step by step.")
        lines = [expression, *task.solution.split("\n")]
        assert {value(line) for line in lines} == {int(task.answer)}
        assert len(lines) == 1 + len(re.findall(r"[-+*]", expression)), "one operation a line"
        assert lines[-1] == task.answer


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        ("2+3*4", ["2+12", "14"]),
        ("(2+3)*4", ["5*4", "20"]),
        ("9-2-3", ["7-3", "4"]),
        ("10-(8-(1+2))", ["10-(8-3)", "10-5", "5"]),
        ("2-3", None),
        ("999+1", None),
    ],
)
def test_an_expression_is_rewritten_by_precedence(expression: str, lines: list[str] | None) -> None:
    assert rewritten(expression) == lines


@few
@given(level=st.sampled_from(LabChain.family.levels), seed=SEEDS)
def test_a_chain_s_answer_follows_from_what_is_asked(level: int, seed: int) -> None:
    for task in drawn(LabChain, level, "test", seed):
        asked = re.fullmatch(r"Let (.*)\. Find (.)\.", task.question)
        assert asked is not None
        made = dict(part.split("=") for part in asked[1].split(", "))

        def worked_out(name: str, made: Mapping[str, str] = made) -> int:
            return value(re.sub(r"[a-z]", lambda found: str(worked_out(found[0])), made[name]))

        assert str(worked_out(asked[2])) == task.answer


@few
@given(level=st.sampled_from(LabListFn.family.levels), seed=SEEDS)
def test_the_examples_of_a_function_are_all_in_the_question_and_the_others_nowhere(
    level: int, seed: int
) -> None:
    dataset = LabListFn(level=level, seed=seed, problems=2).load()
    for problem, task in zip(dataset.problems, drawn(LabListFn, level, "test", seed, 2), strict=True):
        shown = [(list(case.args[0]), case.expected) for case in problem.tests]
        assert shown == task.given["examples"][:3]
        assert problem.question.count("\n") == 3
        for given_, expected in shown:
            assert f"f({given_})={expected}".replace(" ", "") in problem.question
        assert task.solution not in repr(problem)
        assert len(task.given["examples"]) == 27


@few
@given(level=st.sampled_from(LabListFn.family.levels), seed=SEEDS)
def test_a_solution_notes_what_each_line_makes_of_the_first_example(level: int, seed: int) -> None:
    for task in drawn(LabListFn, level, "test", seed):
        x, expected = task.given["examples"][0]
        chosen = [listfn.WORDS[words] for words in task.given["plan"]]
        lines = task.solution.split("\n")[1:-1]
        assert len(lines) == level
        for primitive, line in zip(chosen, lines, strict=True):
            x = primitive.apply(x)
            assert line.replace(" ", "") == f"x={primitive.code}#{x}".replace(" ", "")
        assert x == expected


# --- grading ---------------------------------------------------------------------------------------


async def graded(dataset: Dataset, replies: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    async with Session() as session:
        return {
            p.id: [t.status for t in await dataset.grader.grade(p, replies[p.id], session)]
            for p in dataset.problems
        }


def solutions(kind: type[Lab], count: int) -> dict[str, Task]:
    made = {level: drawn(kind, level, "test", 0, count) for level in kind.family.levels}
    return {
        f"{kind.name}/test/{level}/{number:04}": task
        for level, level_s in made.items()
        for number, task in enumerate(level_s)
    }


@pytest.mark.parametrize("kind", [LabArith, LabChain])
async def test_the_right_number_is_right_at_every_level_and_another_is_wrong(kind: type[Lab]) -> None:
    right = solutions(kind, 2)
    dataset = kind(problems=2).load()
    replies = {name: [t.solution, f"{t.solution}1", "", f"{t.solution}+1"] for name, t in right.items()}
    found = await graded(dataset, replies)
    assert found == {name: ["right", "wrong", "wrong", "wrong"] for name in right}
    for problem in dataset.problems:
        assert normal_form(problem, right[problem.id].solution) == right[problem.id].answer


async def test_the_reference_program_is_right_at_every_level_and_others_are_not() -> None:
    right = solutions(LabListFn, 1)
    dataset = LabListFn(problems=1).load()

    def table(task: Task) -> str:
        """Right where it can be seen."""
        return f"def f(x):\n return {dict((str(x), y) for x, y in task.given['examples'][:3])}.get(str(x))"

    replies = {
        name: [
            t.solution,
            table(t),
            "def f(x):\n return x+[77]",
            "def f(x) return x",
            "",
            "def f(x):\n return x/0",
        ]
        for name, t in right.items()
    }
    found = await graded(dataset, replies)
    assert found == {name: ["right", "wrong", "wrong", "failed", "wrong", "failed"] for name in right}
