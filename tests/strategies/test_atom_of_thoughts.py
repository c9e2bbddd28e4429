"""Atom of Thoughts: its calls are the formula's, in the paper's order; as a plug-in, and as a configuration."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from archon.backends.scripted import Reply
from archon.budget import Budget
from archon.candidate import Candidate
from archon.config import load
from archon.errors import ConfigError
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.shelf import ready
from archon.stage import Candidates, Count, Stage, Stream
from archon.strategies.atom_of_thoughts import AtomOfThoughts
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.testing import StageCases
from tests.archon.instant import InstantStore, patiently
from tests.archon.virtual import now
from tests.strategies.made import NUMBER
from tests.strategies.thinking import (
    Ask,
    Thinker,
    chain,
    falling,
    think,
    used,
)

# --- counts and order -------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [2, 3, 4, 5])
def test_a_chain_is_contracted_as_often_as_it_has_steps(parts: int) -> None:
    thinker, stage = Thinker(*falling(parts)), AtomOfThoughts(again=0)
    outcome = think(stage, thinker)
    depth = parts - 1
    assert thinker.steps == Counter(solve=2, work=depth, graph=depth, contract=depth, judge=1)
    assert outcome.usage.requests == len(thinker.asks) == 2 + 3 * depth + 1
    used(stage, len(thinker.asks))
    assert [a.call.text for a in thinker.of("solve")] == ["how many?", f"how many?{'+' * depth}"]


def test_steps_follow_one_another_beside_the_direct_answer() -> None:
    thinker = Thinker(*falling(3))
    think(AtomOfThoughts(), thinker)
    assert [thinker.at(second) for second in range(9)] == [
        ["solve", "work"],
        ["graph"],
        ["contract"],
        ["work"],
        ["graph"],
        ["contract"],
        ["solve"],
        ["judge"],
        [],
    ]
    assert [a.question for a in thinker.of("work")] == ["how many?", "how many?+"]
    first, second = thinker.of("graph")
    assert first.material["SOLUTION"] == "Worked out. The answer is 10"
    assert second.material == {"QUESTION": "how many?+", "SOLUTION": "Worked out. The answer is 11"}
    known = thinker.of("contract")[0].material
    assert known == {"QUESTION": "how many?", "KNOWN 1": "q1?\na1", "OPEN 1": "q2?", "OPEN 2": "q3?"}
    (judge,) = thinker.of("judge")
    assert [judge.material[f"ANSWER {i}"] for i in (1, 2, 3)] == [
        "The answer is 20",
        "Worked out. The answer is 10",
        "The answer is 22",
    ]
    assert judge.question == "how many?"


@pytest.mark.parametrize(("pick", "chosen"), [(1, "direct"), (2, "decomposed"), (3, "contracted")])
def test_what_the_judge_picks_is_passed_on(pick: int, chosen: str) -> None:
    outcome = think(AtomOfThoughts(), Thinker([[], [1]], pick=pick))
    ids = {
        "direct": "atom_of_thoughts/direct/sample#0",
        "decomposed": "atom_of_thoughts#0",
        "contracted": "atom_of_thoughts/contracted/sample#0",
    }
    assert [c.id for c in outcome.final] == [ids[chosen]]
    assert outcome.chosen is not None and not outcome.chosen.problem
    others = {c.id: c.problem for c in outcome.candidates if c.id != ids[chosen]}
    inside = {ids["direct"]: "", ids["contracted"]: "number/contracted"}
    assert others == {name: of for name, of in inside.items() if name != ids[chosen]}


def test_the_longest_way_counts_and_not_the_shortest() -> None:
    thinker = Thinker([[], [1], [1, 2], [1, 3]], [[], [1], [1]])
    think(AtomOfThoughts(), thinker)
    assert thinker.steps["contract"] == 3


@pytest.mark.parametrize(("depth", "contractions"), [("longest", 2), (0, 0), (1, 1), (3, 3)])
def test_a_depth_may_be_given(depth: Any, contractions: int) -> None:
    thinker, stage = Thinker([[], [1], [2]]), AtomOfThoughts(depth=depth, again=0)
    think(stage, thinker)
    assert thinker.steps["contract"] == contractions
    used(stage, len(thinker.asks))


def test_the_longest_way_has_a_limit() -> None:
    thinker, stage = Thinker(chain(8)), AtomOfThoughts(most_depth=2, again=0)
    think(stage, thinker)
    assert thinker.steps == Counter(solve=2, work=2, graph=2, contract=2, judge=1)
    used(stage, len(thinker.asks))


def test_a_question_without_needs_is_not_contracted() -> None:
    thinker, stage = Thinker([[], []]), AtomOfThoughts(again=0)
    outcome = think(stage, thinker)
    assert thinker.steps == Counter(solve=1, work=1, graph=1, judge=1)
    assert outcome.usage.requests == 1 + 2 + 1


def test_the_steps_end_where_a_later_graph_has_no_needs() -> None:
    thinker = Thinker([[], [1], [2], [3]], [[], [1]], [[]])
    think(AtomOfThoughts(), thinker)
    assert thinker.steps == Counter(solve=2, work=3, graph=3, contract=2, judge=1)
    assert thinker.of("solve")[1].call.text == "how many?++"


def test_three_runs_and_one_choice_among_them() -> None:
    def says(ask: Ask) -> str | None:
        if ask.step == "solve" and not ask.call.text.endswith("+"):
            return f"The answer is {30 + ask.call.index}"
        return None

    thinker, stage = Thinker([[], [1]], says=says), AtomOfThoughts(runs=3, again=0)
    outcome = think(stage, thinker)
    assert thinker.steps == Counter(solve=6, work=3, graph=3, contract=3, judge=4)
    assert outcome.usage.requests == 3 * (2 + 3 + 1) + 1
    used(stage, outcome.usage.requests)
    last = thinker.of("judge")[-1].material
    assert [last[f"ANSWER {i}"] for i in (1, 2, 3)] == [f"The answer is {i}" for i in (30, 31, 32)]
    assert outcome.answer == "The answer is 30"
    rows = {row for row in outcome.by_stage}
    assert rows == {
        "atom_of_thoughts",
        "atom_of_thoughts/direct/sample",
        "atom_of_thoughts/contracted/sample",
    }


@pytest.mark.parametrize("needs", [[[], [1], [2]], [[], []]])
def test_the_public_code_makes_six_calls_whatever_the_graph(needs: list[list[int]]) -> None:
    thinker = Thinker(needs)
    outcome = think(ready("atom_of_thoughts_code").pipeline, thinker)
    assert [thinker.at(second) for second in range(5)] == [
        ["solve", "work"],
        ["graph"],
        ["contract"],
        ["solve"],
        ["synthesis"],
    ]
    assert outcome.usage.requests == 6
    assert outcome.answer == "The answer is 20", "the first that agrees with the fourth"


def test_any_pipeline_solves() -> None:
    thinker, stage = Thinker([[], [1]]), AtomOfThoughts(solver=Sample(n=5) | MajorityVote(), again=0)
    outcome = think(stage, thinker)
    assert outcome.usage.requests == 2 * 5 + 3 + 1
    assert stage.plan(Count(0, 0)).calls == Count(5 + 1, 2 * 5 + 4 * 3 + 1)
    assert len({c.id for c in outcome.candidates}) == 10


def test_without_a_solver_the_stage_s_own_model_answers() -> None:
    stage = AtomOfThoughts(model="big", temperature=0.3)
    assert Pipeline([stage]).graph().models == {"big": ["atom_of_thoughts"]}
    thinker = Thinker([[], [1]])

    async def work() -> None:
        async with Session(models={"big": thinker.model()}, store=InstantStore()) as session:
            await session.solve(stage, NUMBER)

    patiently(work())
    assert {a.call.request.sampling.temperature for a in thinker.asks} == {0.3}


# --- a plug-in --------------------------------------------------------------------------------------


def test_as_a_plug_in_what_the_solver_gives_flows_on_as_it_arrives() -> None:
    class When(Stage):
        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield Candidate(f"{run.stage}#{candidate.index}", f"{now():.0f}", run.stage, candidate.index)

    def says(ask: Ask) -> Reply | None:
        return Reply("x", latency=1.0 + 5 * ask.call.index) if ask.step == "solve" else None

    plug_in = AtomOfThoughts(answers=("contracted",), choose="all", depth=1, solver=Sample(n=3))
    thinker = Thinker(chain(4), says=says)
    outcome = think(plug_in | When(), thinker)
    assert [c.text for c in outcome.final] == ["4", "9", "14"]
    assert thinker.steps == Counter(work=1, graph=1, contract=1, solve=3)
    assert {a.call.text for a in thinker.of("solve")} == {"how many?+"}


def test_a_plug_in_that_cannot_contract_leaves_the_question_as_it_is() -> None:
    plug_in = AtomOfThoughts(answers=("contracted",), choose="all", depth=1, again=0, solver=Sample(n=3))
    thinker = Thinker(says=lambda ask: "hm" if ask.step == "contract" else None)
    outcome = think(plug_in | MajorityVote(), thinker)
    assert {a.call.text for a in thinker.of("solve")} == {"how many?"}
    assert outcome.answer == "The answer is 20" and len(outcome.candidates) == 3


def test_all_answers_of_all_runs_may_flow_on() -> None:
    stage = AtomOfThoughts(choose="all", runs=2, solver=Sample(n=2))
    thinker = Thinker([[], [1]])
    outcome = think(stage, thinker)
    assert [c.id for c in outcome.final] == [
        *(f"atom_of_thoughts/contracted-{run}/sample#{i}" for run in (1, 2) for i in (0, 1)),
        *(f"atom_of_thoughts/direct-{run}/sample#{i}" for run in (1, 2) for i in (0, 1)),
        "atom_of_thoughts#0",
        "atom_of_thoughts#1",
    ]
    assert thinker.steps["judge"] == 0
    passes = stage.plan(Count(0, 0)).passes
    assert passes == Count(0, 10)


# --- configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("answers: [direct, direct]", "`answers` names one twice"),
        ("answers: []", "at least 1 item"),
        ("answers: [best]", "'direct', 'decomposed' or 'contracted'"),
        ("graph_prompt: '{question} {solution}'", r"`graph_prompt` lacks the place {form}"),
        ("{part_solver: [sample], split_prompt: '{question}'}", r"`split_prompt` lacks the place {form}"),
        ("judge_prompt: '{question} {answers}'", r"the place {form} is missing"),
        ("depth: deep", "depth"),
        ("solver: [majority_vote]", "'majority_vote' needs candidates"),
    ],
)
def test_what_cannot_work_is_said(text: str, said: str) -> None:
    settings = text if text.startswith("{") else f"{{{text}}}"
    with pytest.raises(ConfigError, match=said):
        load(f"- atom_of_thoughts: {settings}", "yaml")


class TestDefaults(StageCases):
    def make_stage(self) -> Stage:
        return AtomOfThoughts(again=0)


class TestSolver(StageCases):
    def make_stage(self) -> Stage:
        return AtomOfThoughts(solver=Sample(n=2) | MajorityVote(), choose="synthesis", depth=1)


class TestStar(StageCases):
    def make_stage(self) -> Stage:
        return AtomOfThoughts(runs=3, choose="all", part_solver=Sample(), budget=Budget(requests=9))
