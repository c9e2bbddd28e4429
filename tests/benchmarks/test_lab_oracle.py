"""The oracle says of each line of a lab/arith reply whether it is right, and is never wrong."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archon.backends.base import Backend, Progress, Request, Scored, Scorer, ScoreRequest
from archon.backends.nano.backend import Nano
from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.lab.arith import Arith
from archon.benchmarks.lab.family import tasks
from archon.benchmarks.lab.oracle import RIGHT, WRONG, LabOracle, judged
from archon.cli.options import configured, parse_model
from archon.errors import CapabilityError, UserError
from archon.problem import Message, Problem
from archon.session import Session
from archon.steps import cut
from archon.strategies.beam_search import BeamSearch
from archon.strategies.best_of import BestOf
from archon.testing import ScorerCases
from tests.benchmarks.test_lab import value
from tests.strategies.made import solved

QUESTION = "Compute 2+3*4-1 step by step."
TASKS = [task for level in Arith.levels for task in islice(tasks(Arith(), level, "dev"), 4)]


def said(*steps: str, finished: bool = True, expression: str = "2+3*4-1") -> str:
    """+ and - for right and wrong."""
    found = judged(expression, steps, finished=finished)
    assert set(found) <= {RIGHT, WRONG}
    return "".join("+" if score == RIGHT else "-" for score in found)


class TestLabOracle(ScorerCases):
    question = QUESTION
    replies = (
        ("2+12-1\n", "14-1\n", "13"),
        ("2+12-1\n", "15-1\n", "14"),
        ("13",),
        ("2+12", "-1\n14", "-1\n", "13\n", ""),
    )

    async def open_backend(self) -> Backend:
        return LabOracle().connect()

    async def test_it_says_what_is_right(self) -> None:
        backend = await self.open_backend()
        found = [one.steps for one in await self.scored(backend, self.replies)]
        assert found[:3] == [(RIGHT,) * 3, (RIGHT, WRONG, WRONG), (RIGHT,)]
        assert found[3] == (RIGHT,) * 5


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"level {task.level}")
@pytest.mark.parametrize("finished", [True, False])
def test_every_solution_is_right_at_every_step(task: Any, finished: bool) -> None:
    expression = task.question.removeprefix("Compute ").removesuffix(" step by step.")
    steps = cut(task.solution)
    assert set(judged(expression, steps, finished=finished)) == {RIGHT}
    for end in range(1, len(steps)):
        assert set(judged(expression, steps[:end], finished=False)) == {RIGHT}


@settings(max_examples=300, deadline=None)
@given(data=st.data(), task=st.sampled_from(TASKS))
def test_a_digit_that_is_changed_is_found_in_its_line_and_nothing_after_is_right(
    data: st.DataObject, task: Any
) -> None:
    expression = task.question.removeprefix("Compute ").removesuffix(" step by step.")
    lines = task.solution.split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.sampled_from([i for i, c in enumerate(lines[at]) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != lines[at][place]]))
    changed = lines[at][:place] + digit + lines[at][place + 1 :]
    reply = [*lines[:at], changed, *lines[at + 1 :]]
    steps = [line + "\n" for line in reply[:-1]] + [reply[-1]]
    found = said(*steps, expression=expression)
    assume(value(changed) != value(lines[at]))  # what is multiplied by nothing may be anything
    assert found == "+" * at + "-" * (len(lines) - at)


def test_the_first_line_is_held_against_the_question_and_each_against_the_one_before() -> None:
    assert said("2+12-1\n", "14-1\n", "13") == "+++"
    assert said("3+12-1\n", "14-1\n", "13") == "---"
    assert said("2+12-1\n", "13-1\n", "13") == "+--"
    assert said("2+12-1\n", "14-1\n", "14") == "++-"


def test_any_order_and_several_operations_at_once_are_right_where_the_value_is() -> None:
    assert said("14-1\n", "13") == said("13") + "+" == "++"
    assert said("4+9*1\n", "13", finished=True, expression="1+3+9*1") == "++"


@pytest.mark.parametrize(
    "line",
    [
        "2+3*4-1", "1+1+1+10", "", " ", "2+12-", "+13", "(13)", "((12+1))", "(12+1", "12+1)", "12++1", "1 3",
        "013", "13.0", "-1+14", "1013-1000", "Line: 14-1", "14-1=13", "１３", "13²", "14-1\r", "7*2-1!", "26/2",
        "()", "12(1)", "__import__", "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_rewriting_is_wrong(line: str) -> None:
    """The same again, as many operations, no expression, nothing of the family's, or more than its numbers may be."""
    assert said(f"{line}\n", "13") == "--"
    assert said("2+12-1\n", line + "\n", "13")[0] == "+"


def test_long_lines_take_no_time() -> None:
    for line in ("1+" * 50_000 + "1", "(" * 100_000, "(1+1" * 30_000, "9" * 100_000):
        assert said(f"{line}\n", "13") == "--"


def test_a_reply_that_ends_before_one_number_is_left_is_wrong_at_its_end() -> None:
    assert said("2+12-1\n", "14-1\n") == said("2+12-1\n", "14-1") == "+-"
    assert said("2+12-1\n", "14-1\n", finished=False) == "++"
    assert said("") == said("\n") == "-"
    assert said("", finished=False) == "+"
    assert said("2+12-1\n", "14-1\n", "13\n") == said("2+12-1\n", "14-1\n", "13\n", "")[1:] == "+++"
    assert said("13\n", "13\n") == said("13\n", "\n") == "+-", "it says no more than once"


def test_a_step_that_ends_within_a_line_is_judged_by_the_lines_before() -> None:
    assert said("2+", "99", "\n14-1", "\n13") == "++--"
    assert said("2+12", "-1\n14", "-1\n1", "3") == "++++"
    assert said("2+12-1\n14-1\n13") == "+"


# --- in its place ----------------------------------------------------------------------------------


def asked(*messages: Message) -> ScoreRequest:
    return ScoreRequest(tuple(messages), (("13",),))


async def score(*messages: Message) -> Scored:
    backend = LabOracle().connect()
    assert isinstance(backend, Scorer)
    (found,) = await backend.score(asked(*messages), Progress())
    return found


async def test_the_question_is_the_last_one_of_the_user() -> None:
    system, other = Message(role="system", content="Be brief."), Message(role="user", content="Hello")
    question = Message(role="user", content=QUESTION)
    assert (await score(system, other, question)).steps == (RIGHT,)
    assert (await score(question)).tokens.prompt == 2 + len(QUESTION) + 2
    for wrong in ((), (other,), (question, other), (system,)):
        with pytest.raises(CapabilityError, match="questions of lab/arith only"):
            await score(*wrong)
    with pytest.raises(CapabilityError):
        await score(Message(role="user", content="Compute 2+(3 step by step."))


async def test_asked_of_anything_else_the_run_stops_and_says_why() -> None:
    models = {"default": Scripted(replies={"*": ("42",)}), "reward": LabOracle()}
    with pytest.raises(CapabilityError, match="lab_oracle"):
        await solved(BeamSearch(n=1, m=1), models, Problem.ask("What is 17 * 23?"))


def test_it_writes_nothing() -> None:
    with pytest.raises(CapabilityError, match="writes none"):
        LabOracle().connect().complete(Request(), [0], Progress())


@pytest.mark.parametrize("text", ["reward=lab_oracle:", "lab_oracle:"])
def test_it_is_named_without_a_path(text: str) -> None:
    assert parse_model(text, None)[1] == LabOracle()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lab_oracle:x", "nothing stands after"),
        ("lab_oracle", "BACKEND:MODEL"),
        ("nano:", "BACKEND:MODEL"),
    ],
)
def test_what_is_missing_or_too_much_is_said(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_model(text, None)


def test_beside_it_the_model_that_ships_still_stands_in_for_the_writer() -> None:
    config = configured("beam_search", ("reward=lab_oracle:",), None, (), None, (), ())
    assert config.models == {"reward": LabOracle(), "default": Nano(weights="lm")}


async def test_guided_by_it_a_search_finds_what_a_writer_gets_right_one_time_in_four() -> None:
    right = ("2+12-1", "14-1", "13")

    def reply(call: Call) -> Reply:
        depth = call.request.prefix.count("\n")
        line = right[depth] if call.index % 4 == 3 else f"{90 + call.index}"
        return Reply(line) if depth == 2 else Reply(line, "stop_string", "\n")

    models = {"default": Scripted(reply=reply, identity="one in four"), "reward": LabOracle()}
    problem = Problem.ask(QUESTION, id="p", answer="number")
    outcome, _ = await solved(BeamSearch(n=4, m="all") | BestOf(), models, problem)
    assert outcome.answer == "2+12-1\n14-1\n13"
    assert outcome.by_model["reward"].usd == 0 and not outcome.by_model["reward"].unpriced
    async with Session(models=models) as session:
        blind = await session.solve(BeamSearch(n=4, m=1) | BestOf(), problem)
    assert blind.answer != outcome.answer, "four chains need luck three times"
