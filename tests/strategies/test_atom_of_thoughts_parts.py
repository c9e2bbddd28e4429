"""Atom of Thoughts with a solver for the parts, and the problems that it derives."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest

from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Candidate, Outcome
from archon.problem import AnswerKind, Case, Message, Problem
from archon.run import Run
from archon.session import Session
from archon.shelf import ready
from archon.stage import Candidates, Stage, Stream
from archon.strategies.atom_of_thoughts import AtomOfThoughts, asking
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import CODE, NUMBER, PROBLEM
from tests.strategies.thinking import (
    Ask,
    Thinker,
    think,
    used,
)

# --- parts that are solved --------------------------------------------------------------------------


def test_parts_are_solved_each_once_what_it_needs_is_known() -> None:
    def says(ask: Ask) -> Reply | None:
        if ask.step == "part":
            number = int(ask.material["PART"][1])
            return Reply(f"#### {number}00", latency=5.0 if number == 1 else 1.0)
        return None

    thinker = Thinker([[], [], [2], [1, 3]], says=says)
    stage = AtomOfThoughts(answers=("decomposed",), part_solver=Sample())
    outcome = think(stage, thinker)
    assert thinker.steps == Counter(split=1, part=4)
    begun = {a.material["PART"]: a.at for a in thinker.of("part")}
    assert begun == {"q1?": 1, "q2?": 1, "q3?": 2, "q4?": 6}
    last = next(a for a in thinker.of("part") if a.material["PART"] == "q4?")
    assert last.material == {
        "QUESTION": "how many?",
        "PART": "q4?",
        "KNOWN 1": "q1?\n100",
        "KNOWN 2": "q3?\n300",
    }
    assert outcome.answer == "#### 400"
    assert [c.id for c in outcome.final] == ["atom_of_thoughts/part-4/sample#0"]
    assert [c.problem for c in outcome.candidates] == [*(f"number/part-{i}" for i in (1, 2, 3)), ""]
    assert {row for row in outcome.by_stage} == {"atom_of_thoughts", "atom_of_thoughts/part/sample"}


def test_what_is_contracted_takes_the_answers_of_the_parts_that_need_nothing() -> None:
    thinker = Thinker([[], [1]], [[]])
    stage = AtomOfThoughts(part_solver=Sample(n=3) | MajorityVote(), again=0)
    outcome = think(stage, thinker)
    assert thinker.steps == Counter(solve=2, split=1, part=6, contract=1, judge=1)
    assert thinker.of("contract")[0].material["KNOWN 1"].startswith("q1?\n10")
    used(stage, outcome.usage.requests)
    only = Thinker([[], [1]], [[]])
    think(stage.model_copy(update={"answers": ("contracted",)}), only)
    assert only.steps == Counter(split=1, part=3, contract=1, solve=1), "of q2 nobody needs the answer"


def test_a_part_without_an_answer_leaves_those_that_need_it_unasked() -> None:
    thinker = Thinker([[], [1], [2]], says=lambda ask: "" if ask.step == "part" else None)
    stage = AtomOfThoughts(part_solver=Sample())
    outcome = think(stage, thinker)
    assert thinker.steps == Counter(split=1, solve=1, part=1)
    assert outcome.answer == "The answer is 20"


ASSIGNED = Problem.ask("Let x=b+1, b=r*2, r=3+4, z=r-1. Find x.", id="assigned", answer="number")
LAB: dict[str, Any] = {
    "answers": ("decomposed",),
    "read": "assignments",
    "system": "",
    "again": 0,
    "split_prompt": "{question_text}\nSplit.",
    "part_prompt": "Let {terms_text}. Find {name}.",
    "part_solver": Sample(),
}


def lab(split: str) -> tuple[Outcome, list[str]]:
    asked: list[str] = []

    def reply(call: Call) -> str:
        asked.append("\n".join(m.content for m in call.request.messages))
        if call.text.endswith("Split."):
            return split
        terms = dict(term.split("=") for term in call.text[4:].split(". ")[0].split(", "))
        name = call.text.removesuffix(".")[-1]
        left, sign, right = re.split(r"([+*-])", terms[name])
        a, b = (int(terms.get(side, side)) for side in (left, right))
        return str({"+": a + b, "-": a - b, "*": a * b}[sign])

    async def work() -> Outcome:
        async with Session(models=Scripted(reply=reply, identity="lab"), store=InstantStore()) as session:
            return await session.solve(AtomOfThoughts(**LAB), ASSIGNED)

    return patiently(work()), asked


def test_assignments_are_read_and_solved_in_a_form_of_their_own() -> None:
    outcome, asked = lab("r=3+4\nb=r*2\nx=b+1")
    assert asked == [
        "Let x=b+1, b=r*2, r=3+4, z=r-1. Find x.\nSplit.",
        "Let r=3+4. Find r.",
        "Let r=7, b=r*2. Find b.",
        "Let b=14, x=b+1. Find x.",
    ]
    assert outcome.answer == "15"


@pytest.mark.parametrize("split", ["r=3+4\nb=r*3\nx=b+1", "r=3+4", "7", "", "x=b+1\nb=r*2\nr=3+4"])
def test_a_split_that_does_not_keep_to_the_question_is_none(split: str) -> None:
    outcome, asked = lab(split)
    assert (outcome.answer, len(asked)) == (None, 1)


def test_runs_that_split_the_same_question_ask_together() -> None:
    thinker = Thinker([[], [1]])
    stage = AtomOfThoughts(answers=("decomposed",), choose="all", part_solver=Sample(), runs=3)
    think(stage, thinker)
    assert [a.call.index for a in thinker.of("split")] == [0, 1, 2]
    assert thinker.steps == Counter(split=3, part=6)


async def test_the_nano_model_takes_chains_apart_that_it_cannot_do_at_once() -> None:
    from archon.backends.nano.backend import Nano
    from archon.benchmarks.lab.bench import LabChain

    data = LabChain(level=2, problems=6, split="dev").load()
    right: dict[str, int] = {}
    async with Session(models=Nano(weights="lm"), seed=1) as session:
        for name in ("lab_chain_split", "self_consistency"):
            pipeline = ready(name).pipeline
            outcomes = await asyncio.gather(*(session.solve(pipeline, p) for p in data.problems))
            graded = [
                await data.grader.grade(p, [o.answer or ""], session)
                for p, o in zip(data.problems, outcomes, strict=True)
            ]
            right[name] = sum(truths[0].right for truths in graded)
    assert right["lab_chain_split"] >= 5 and right["lab_chain_split"] > right["self_consistency"]


# --- derived problems -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "code", "number", "math", "choice"])
def test_a_contracted_question_wants_the_same_kind_of_answer(kind: AnswerKind) -> None:
    problem = Problem(
        id="p",
        messages=(Message(role="system", content="Be brief."), Message(role="user", content="how?")),
        prompt="how? ",
        stop=("\n",),
        answer=kind,
        choices=("a", "b"),
        documents=("d",),
        tests=(Case(args=(1,), expected=2),),
        entry_point="f",
    )
    derived = asking(problem, "how then?")
    assert [(m.role, m.content) for m in derived.messages] == [("system", "Be brief."), ("user", "how then?")]
    assert (derived.prompt, derived.stop) == (None, ())
    for field in ("answer", "choices", "documents", "tests", "entry_point"):
        assert getattr(derived, field) == getattr(problem, field)
    thinker = Thinker([[], [1]])
    think(AtomOfThoughts(), thinker, problem)
    last = thinker.of("solve")[-1].call.request
    assert last.messages[0].content == "Be brief." and last.messages[1].content.endswith("+")


def test_parts_of_a_choice_or_a_program_are_questions_in_words() -> None:
    kinds: list[str] = []

    class Kind(Stage):
        takes = False

        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            kinds.append(problem.answer)
            yield Candidate(f"{run.stage}#0", "B", run.stage)

    stage = AtomOfThoughts(answers=("decomposed",), part_solver=Kind())
    for problem in (CODE, NUMBER, PROBLEM):
        think(stage, Thinker([[], [1]]), problem)
    assert kinds == ["text", "code", "number", "number", "text", "text"]
