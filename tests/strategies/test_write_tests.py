"""A model that writes tests: what is read, where it is noted, what it costs; before the answers and after them."""

from __future__ import annotations

from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Reply
from archon.config import load
from archon.errors import ConfigError
from archon.pipeline import Pipeline
from archon.problem import Message, Problem
from archon.prompting import Unread
from archon.stage import Count, Stage
from archon.strategies.fuse import Fuse
from archon.strategies.sample import Sample
from archon.strategies.test_evaluate import TestEvaluate
from archon.strategies.test_first import TestFirst
from archon.strategies.write_tests import WriteTests, read_code_tests, read_statements
from archon.testing import StageCases
from tests.strategies.layering import GARBAGE, ids, in_turn, layered, spent
from tests.strategies.made import CODE, PROBLEM
from tests.strategies.playing import HOSTILE, Played, Question, played, texts

STEPS = {
    "tests": "will be put to tests",
    "code": "Do not write the function",
    "judge": "Go through the tests",
}
LIST = "Here:\n1. It names a city.\n2. It is\n   in France.\n3. it names a CITY.\n\nDone."
STATEMENTS = "It names a city.\nIt is in France."


def write(**fields: Any) -> WriteTests:
    return WriteTests(model="m", strict=False, **fields)


def first(**fields: Any) -> TestFirst:
    return TestFirst(model="m", **fields)


def lists(question: Question) -> str:
    return (
        "```python\nassert f(1) == 2\nassert f(x) == 3\nassert f(2) == 4\n```"
        if question.step == "code"
        else LIST
    )


def notes(candidates: Any, name: str = "tests") -> list[str | None]:
    return [candidate.notes.get(name) for candidate in candidates]


class TestOfWriteTests(StageCases):
    def make_stage(self) -> Stage:
        return write(n=2, called="checks", again=0)

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lists).model}


class TestOfTestFirst(StageCases):
    def make_stage(self) -> Stage:
        return first(n=2, solver=Pipeline([Sample(n=1, temperature=0.5)]))

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lists).model}


# --- after the answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3])
def test_one_call_writes_the_tests_of_all(n: int) -> None:
    outcome, mind = layered(write(), ["a", "b", "c"][:n], lists, STEPS)
    assert texts(outcome.final) == ["a", "b", "c"][:n]
    assert notes(outcome.final) == [STATEMENTS] * n
    assert mind.order == ["tests"] * min(n, 1) and spent(outcome, "write_tests") == min(n, 1)
    assert write().plan(Count(n, n)) == (Count(min(n, 1), 2 * min(n, 1)), Count(n, n))
    for question in mind.asked:
        assert [*question.quoted] == ["QUESTION"], "they are written from the question alone"


def test_of_a_function_assertions_are_written() -> None:
    outcome, mind = layered(write(), ["x"], lists, STEPS, CODE)
    assert mind.order == ["code"] and "`assert f(ARGUMENTS) == VALUE`" in mind.asked[0].call.text
    assert notes(outcome.final) == ["assert f(1) == 2\nassert f(2) == 4"]
    outcome, mind = layered(write(written_as="statements"), ["x"], lists, STEPS, CODE)
    assert mind.order == ["tests"] and notes(outcome.final) == [STATEMENTS]
    outcome, mind = layered(write(written_as="assertions"), ["x"], lists, STEPS)
    assert mind.order == ["tests"], "there is no function to call"


def test_no_more_tests_than_are_wanted() -> None:
    outcome, mind = layered(write(n=1), ["x"], lists, STEPS)
    assert notes(outcome.final) == ["It names a city."] and "at most 1 items" in mind.asked[0].call.text
    outcome, _ = layered(write(n=1, called="t"), ["x"], lists, STEPS, CODE)
    assert notes(outcome.final, "t") == ["assert f(1) == 2"]


UNLISTED = [reply for reply in GARBAGE if reply != "[1] [2]"]


@pytest.mark.parametrize("reply", UNLISTED)
@pytest.mark.parametrize("problem", [PROBLEM, CODE])
def test_unread_replies_leave_candidates_as_they_are(problem: Problem, reply: Any) -> None:
    outcome, mind = layered(write(), ["a", "b"], lambda q: reply, STEPS, problem)
    assert texts(outcome.final) == ["a", "b"] and notes(outcome.final) == [None, None]
    assert len(mind.asked) == 2
    outcome, _ = layered(write(), ["a"], in_turn(reply, lists), STEPS, problem)
    assert notes(outcome.final) != [None]


def test_the_budget_leaves_candidates_as_they_are() -> None:
    outcome, _ = layered(write(), ["a", "b"], lists, STEPS, requests=2)
    assert texts(outcome.final) == ["a", "b"] and notes(outcome.final) == [None, None]


def test_statements_and_tests_are_read_without_repetitions() -> None:
    assert read_statements(LIST, 5) == tuple(STATEMENTS.split("\n"))
    assert read_code_tests("assert f(1)==2\nassert f( 1 ) == 2", "f", 5) == ("assert f(1) == 2",)
    with pytest.raises(Unread, match="no list"):
        read_statements("none", 5)
    with pytest.raises(Unread, match="no line `assert f"):
        read_code_tests("assert g(1) == 2", "f", 5)


# --- before the answers ----------------------------------------------------------------------------


def solve(stage: Stage | Pipeline, solver: Any, problem: Problem = PROBLEM, **settings: Any) -> Any:
    """The outcome, what the writer was asked, what the solver was asked."""
    mind, other = Played(STEPS, lists), Played({}, solver, identity="solver")
    outcome = played(stage, {"m": mind.model, "default": other.model}, problem, **settings)
    return outcome, mind, other


def test_answers_are_written_with_the_tests_in_view_and_carry_them() -> None:
    stage = first(solver=Pipeline([Sample(n=3)]))
    outcome, mind, solver = solve(stage, lambda q: f"answer {q.call.index}")
    assert texts(outcome.final) == ["answer 0", "answer 1", "answer 2"]
    assert notes(outcome.final) == [STATEMENTS] * 3
    assert mind.order == ["tests"] and len(solver.asked) == 3
    (message,) = solver.asked[0].call.request.messages
    assert message.content.startswith("a question\n")
    assert solver.asked[0].several("TEST") == STATEMENTS.split("\n")
    assert stage.plan(Count(0, 0)) == (Count(4, 5), Count(3, 3))
    assert outcome.by_stage["test_first"].requests == 1
    assert sum(u.requests for u in outcome.by_stage.values()) == outcome.usage.requests == 4


def test_only_the_last_question_of_a_chat_is_added_to() -> None:
    turns = [("user", "hello"), ("assistant", "hi"), ("user", "which?"), ("assistant", "The")]
    chat = Problem(id="c", messages=tuple(Message(role=r, content=t) for r, t in turns))
    _, _, solver = solve(first(), lambda q: "x", chat)
    messages = solver.asked[0].call.request.messages
    assert [m.content for m in messages[:2] + messages[3:]] == ["hello", "hi", "The"]
    assert messages[2].content.startswith("which?\n") and "TEST 1" in messages[2].content


def test_without_tests_the_problem_is_solved_as_it_is() -> None:
    other = Played({}, lambda q: "answer", identity="solver")
    outcome = played(first(), {"m": Played(STEPS, lambda q: "no").model, "default": other.model})
    assert texts(outcome.final) == ["answer"] and notes(outcome.final) == [None]
    assert other.asked[0].call.text == "a question"


def test_the_solver_may_be_any_pipeline() -> None:
    inside = (Sample(n=2) & Sample(model="other")) | Fuse(model="fuser")

    def named(name: str) -> Model:
        return Played({}, lambda q: f"{name} {q.call.index}", identity=name).model

    models = {name: named(name) for name in ("default", "other", "fuser")}
    mind = Played(STEPS, lists)
    outcome = played(first(solver=inside), {**models, "m": mind.model})
    assert outcome.answer == "fuser 0" and notes(outcome.final) == [STATEMENTS]
    assert outcome.usage.requests == 5
    assert {c.text for c in outcome.candidates} == {"default 0", "default 1", "other 0", "fuser 0"}


def test_a_budget_that_runs_out_ends_it() -> None:
    stage = first(solver=Pipeline([Sample(n=3)]))
    for requests in range(1, 5):
        outcome, _, _ = solve(stage, lambda q: "x", requests=requests)
        assert len(outcome.final) == requests - 1 and outcome.usage.requests <= requests


def test_a_test_cannot_leave_its_place() -> None:
    mind = Played(STEPS, lambda q: f"1. {HOSTILE.splitlines()[0]}\n2. x")
    other = Played({}, lambda q: "answer", identity="solver")
    played(first(), {"m": mind.model, "default": other.model})
    assert other.asked[0].several("TEST") == ["END OF ANSWER 1 00000000", "x"]


# --- both orders -----------------------------------------------------------------------------------


def judging(question: Question) -> str:
    if question.step != "judge":
        return lists(question)
    return f"Scores {question.mark}: {'1, 1' if question.quoted['ANSWER'] == 'Paris' else '1, 0'}"


@pytest.mark.parametrize("order", ["after", "before"])
def test_tests_are_evaluated_in_either_order(order: str) -> None:
    stack = (Sample(n=2) | write()) if order == "after" else first(solver=Pipeline([Sample(n=2)]))
    mind, other = Played(STEPS, judging), Played({}, lambda q: ["Rome", "Paris"][q.call.index], identity="s")
    outcome = played(stack | TestEvaluate(model="m"), {"m": mind.model, "default": other.model})
    assert texts(outcome.final) == ["Paris"] and mind.order == ["tests", "judge", "judge"]
    assert ids(outcome.final) == [1]


def test_an_evaluator_without_tests_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'test_evaluate' needs tests.*Put `write_tests` before it"):
        (Sample(n=2) | TestEvaluate()).graph()


def test_both_orders_can_be_written_in_a_file() -> None:
    head = "pipeline:\n"
    after = f"{head}  - sample: {{n: 2}}\n  - write_tests: {{n: 4}}\n  - test_evaluate: {{keep: 1}}\n"
    before = f"{head}  - test_first: {{n: 4, solver: [sample: {{n: 2}}]}}\n  - test_evaluate: {{keep: 1}}\n"
    assert load(after, "yaml").pipeline == Sample(n=2) | WriteTests(n=4) | TestEvaluate(keep=1)
    assert load(before, "yaml").pipeline == TestFirst(n=4, solver=Sample(n=2)) | TestEvaluate(keep=1)


def test_a_cut_off_list_is_asked_for_again() -> None:
    outcome, mind = layered(write(), ["a"], in_turn(Reply(LIST, finish="length"), "1. One."), STEPS)
    assert notes(outcome.final) == ["One."] and len(mind.asked) == 2
