"""IdeaSearch: one idea, one solution, n times; as they come, and within any budget."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.lab import formats
from archon.budget import Budget, Budgets
from archon.candidate import Outcome
from archon.errors import FatalError
from archon.problem import Problem
from archon.prompting import matched, unquoted
from archon.shelf import ready
from archon.stage import NONE, Count, Stage
from archon.strategies.idea_search import IDEA, SOLVE, IdeaSearch
from archon.testing import StageCases
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import CODE, NUMBER, PROBLEM, solved

asks: list[tuple[str, float, Call]] = []
"""Which step was asked, when."""


@pytest.fixture(autouse=True)
def none_asked() -> None:
    asks.clear()


def step_of(call: Call) -> str:
    first = next(m.content for m in call.request.messages if m.role == "user")
    known = {"idea": IDEA, "solve": SOLVE}
    return next((name for name, text in known.items() if matched(text, first) is not None), "the problem")


def reply(call: Call) -> str | Reply:
    asks.append((step_of(call), now(), call))
    step = asks[-1][0]
    return f"idea {call.index}" if step == "idea" else f"solution of {unquoted(call.text).get('IDEA')}"


def search(stage: Any, script: Any = reply, problem: Problem = PROBLEM, **settings: Any) -> Outcome:
    model = Scripted(reply=script, identity="ideas", latency=1.0, concurrency=500, max_concurrency=500)
    return patiently(solved(stage, model, problem, store=InstantStore(), **settings))[0]


# --- counts and order -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 17])
def test_each_solution_follows_an_idea_of_its_own(n: int) -> None:
    outcome = search(IdeaSearch(n=n))
    assert Counter((step, at) for step, at, _ in asks) == +Counter({("idea", 0.0): n, ("solve", 1.0): n})
    assert {c.text for c in outcome.final} == {f"solution of idea {i}" for i in range(n)}
    for solution in outcome.final:
        assert solution.text == f"solution of {solution.notes['plan']}"
        assert len(solution.parents) == 1
    assert IdeaSearch(n=n, again=2).plan(NONE) == (Count(2 * n, 4 * n), Count(n, n))


def test_a_solution_does_not_wait_for_another_s_idea() -> None:
    def slow(call: Call) -> str | Reply:
        said = reply(call)
        return Reply(str(said), latency=50.0 if said == "idea 0" else 1.0)

    outcome = search(IdeaSearch(n=5), slow)
    assert Counter(at for step, at, _ in asks if step == "solve") == {1.0: 4, 50.0: 1}
    assert len(outcome.final) == 5


def test_so_many_are_in_work_at_once() -> None:
    search(IdeaSearch(n=12, ahead=4))
    assert Counter((step, at) for step, at, _ in asks) == {
        ("idea", 0.0): 12,
        ("solve", 1.0): 4,
        ("solve", 2.0): 4,
        ("solve", 3.0): 4,
    }


@pytest.mark.parametrize("max_n", [1, 5, 16])
def test_ideas_are_drawn_together_where_the_server_can(max_n: int) -> None:
    model = Scripted(reply=reply, identity="ideas", max_n=max_n)
    outcome, _ = patiently(solved(IdeaSearch(n=16), model, store=InstantStore()))
    assert outcome.usage.requests == -(-16 // max_n) + 16 and len(outcome.final) == 16


@pytest.mark.parametrize(
    ("problem", "wanted"), [(CODE, "`f`"), (NUMBER, "in the way that the question asks")]
)
def test_the_form_is_the_problem_s(problem: Problem, wanted: str) -> None:
    search(IdeaSearch(n=1), problem=problem)
    (_, _, call) = asks[-1]
    assert wanted in call.text and unquoted(call.text)["QUESTION"] == problem.question


def test_the_writer_writes() -> None:
    models = {"default": Scripted(reply=reply, identity="i"), "coder": Scripted(reply=reply, identity="c")}
    outcome, _ = patiently(solved(IdeaSearch(n=3, writer="coder"), models, PROBLEM, store=InstantStore()))
    assert {model: usage.requests for model, usage in outcome.by_model.items()} == {"default": 3, "coder": 3}
    assert {c.model for c in outcome.final} == {"coder"}


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [0, 2])
def test_an_empty_idea_is_asked_for_again_and_then_left_out(again: int) -> None:
    def empty(call: Call) -> str | Reply:
        said = reply(call)
        return " \n" if asks[-1][0] == "idea" else said

    outcome = search(IdeaSearch(n=3, again=again), empty)
    assert Counter(step for step, _, _ in asks) == {"idea": 3 * (1 + again), "the problem": 3}
    assert len(outcome.final) == 3 and not any(c.notes for c in outcome.final)


def test_an_idea_that_is_cut_off_is_taken_as_it_is_in_the_end() -> None:
    def cut(call: Call) -> str | Reply:
        said = reply(call)
        return Reply("half", finish="length") if asks[-1][0] == "idea" else said

    outcome = search(IdeaSearch(n=2), cut)
    assert [c.text for c in outcome.final] == ["solution of half"] * 2 and len(asks) == 6


def test_of_two_replies_the_last_that_says_something_is_taken() -> None:
    def first_only(call: Call) -> str | Reply:
        said = reply(call)
        if asks[-1][0] != "idea":
            return said
        return Reply("half", finish="length") if len(call.request.messages) == 2 else ""

    assert search(IdeaSearch(n=1), first_only).answer == "solution of half"


@pytest.mark.parametrize(("requests", "solutions"), [(0, 0), (1, 0), (7, 3), (8, 4), (16, 8), (100, 8)])
def test_a_budget_of_calls_is_spent_on_ideas_that_are_carried_out(requests: int, solutions: int) -> None:
    outcome = search(IdeaSearch(n=8), budget=Budgets(problem=Budget(requests=requests)))
    assert len(asks) == outcome.usage.requests == 2 * solutions
    assert len(outcome.final) == solutions
    assert outcome.stopped == ("complete" if solutions == 8 else "budget")


def test_what_exists_flows_on_when_a_budget_runs_out_all_the_same() -> None:
    def empty_first(call: Call) -> str | Reply:
        said = reply(call)
        return "" if asks[-1][0] == "idea" and len(call.request.messages) == 2 else said

    outcome = search(IdeaSearch(n=8, budget=Budget(requests=20)), empty_first)
    assert outcome.stopped == "budget" and len(asks) == 20 and len(outcome.final) == 4


@pytest.mark.parametrize("tokens", [2000, 6000])
def test_where_tokens_are_limited_few_begin_so_that_they_are_finished(tokens: int) -> None:
    outcome = search(IdeaSearch(n=200, max_tokens=10, budget=Budget(tokens=tokens)))
    steps = Counter(step for step, _, _ in asks)
    assert outcome.stopped == "budget" and outcome.usage.tokens <= tokens
    assert len(outcome.final) == steps["solve"] >= steps["idea"] / 2 - 1 > 0
    assert Counter(at for step, at, _ in asks if step == "idea")[0.0] == 2


def test_a_model_that_cannot_be_used_is_an_error_at_once() -> None:
    class Gone(FatalError):
        pass

    def gone(call: Call) -> str | Reply:
        if call.index == 3 and step_of(call) == "idea":
            raise Gone("no such model")
        return Reply(str(reply(call)), latency=100.0)

    with pytest.raises(Gone):
        search(IdeaSearch(n=8), gone)


# --- forms of a model's own -------------------------------------------------------------------------


def test_the_nano_model_is_asked_in_the_forms_that_it_was_trained_on() -> None:
    calls: list[Call] = []

    def nano(call: Call) -> str:
        calls.append(call)
        return "sort, sum" if call.text.endswith("Plan.") else "def f(x):\n return [sum(x)]"

    question = "f([1,2])=[3]\nWrite f(x)."
    problem = Problem.ask(question, id="listfn", answer="code", entry_point="f")
    outcome = search(ready("lab_plan").pipeline, nano, problem)
    assert {len(call.request.messages) for call in calls} == {1}
    assert Counter(call.text for call in calls) == {
        formats.plan(question): 16,
        formats.planned(question, "sort, sum"): 16,
    }
    assert outcome.answer == "def f(x):\n return [sum(x)]"


def test_a_prompt_needs_its_places() -> None:
    with pytest.raises(ValidationError, match=r"\{idea\} or \{idea_text\} is missing"):
        IdeaSearch(solve_prompt="{question}")
    with pytest.raises(ValidationError, match=r"there is no place \{idea\}"):
        IdeaSearch(idea_prompt="{question} {idea}")


class TestIdeaSearch(StageCases):
    def make_stage(self) -> Stage:
        return IdeaSearch(n=1, temperature=0.9, writer="default")


class TestSeveralIdeas(StageCases):
    def make_stage(self) -> Stage:
        return IdeaSearch(n=3, again=0)

    async def test_one_candidate_is_enough(self) -> None:
        """A source draws as many as it says."""
