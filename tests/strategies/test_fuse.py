"""A model as a fuser: what it is shown, what goes on, what it costs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Reply, Scripted
from archon.benchmarks.lab import formats
from archon.errors import ConfigError
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Count, Stage, Stream
from archon.strategies.fuse import Fuse
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.rank import Rank
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import StageCases
from tests.strategies.layering import ids, layered, spent
from tests.strategies.made import PROBLEM, replies, table
from tests.strategies.playing import HOSTILE, Played, Question, played, texts

STEPS = {"fuse": "better than each of these"}


def fuse(**fields: Any) -> Fuse:
    return Fuse(model="m", **fields)


def together(question: Question) -> str:
    """All answers as one."""
    return "+".join(question.several("ANSWER")) + f" ({question.call.index})"


class TestFuse(StageCases):
    def make_stage(self) -> Stage:
        return fuse(most=2, temperature=0.5)

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, together).model}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("shown", [1, 4])
def test_n_answers_are_made_of_all_and_go_on_alone(n: int, shown: int) -> None:
    answers = [f"answer {i}" for i in range(shown)]
    outcome, mind = layered(fuse(n=n), answers, together, STEPS)
    assert texts(outcome.final) == [f"{'+'.join(answers)} ({i})" for i in range(n)]
    assert {c.parents for c in outcome.final} == {tuple(f"sample#{i}" for i in range(shown))}
    assert mind.order == ["fuse"] * n and spent(outcome, "fuse") == n
    plan = fuse(n=n).plan(Count(shown, shown))
    assert plan.calls == Count(n, n) and plan.passes == Count(1, n), "an empty reply is no answer"
    assert mind.asked[0].quoted["QUESTION"] == "a question"


def test_of_nothing_nothing_is_made() -> None:
    outcome, mind = layered(fuse(n=3), [], together, STEPS)
    assert outcome.final == () and not mind.asked
    assert fuse(n=3).plan(Count(0, 0)).calls == Count(0, 0)
    assert fuse(n=3).plan(Count(0, None)).calls == Count(0, 3)


def test_the_best_are_fused_where_only_some_may_be() -> None:
    judge = Verify(verifier=table({"b": (True, 0.9), "c": (None, 0.5), "d": (True, 0.9), "a": (None, None)}))
    outcome, _ = layered(judge | fuse(most=3), ["a", "b", "c", "d"], together, STEPS)
    assert outcome.answer == "b+d+c (0)"
    assert outcome.final[0].parents == ("sample#1", "sample#3", "sample#2")
    outcome, _ = layered(fuse(most=2), ["a", "b", "c"], together, STEPS)
    assert outcome.answer == "a+b (0)", "the earliest, where nobody scored them"


def test_a_ranking_gives_the_order_in_which_they_are_shown() -> None:
    def reply(question: Question) -> str:
        return together(question) if question.step else f"Ranking {question.mark}: 3 > 1 > 2"

    outcome, _ = layered(Rank(model="m", keep=2) | fuse(), ["a", "b", "c"], reply, STEPS)
    assert outcome.answer == "c+a (0)"


@pytest.mark.parametrize("reply", ["", "  \n", Reply("", finish="length")])
def test_the_best_goes_on_where_nothing_is_written(reply: Any) -> None:
    judge = Verify(verifier=table({"b": (True, 0.9)}))
    outcome, mind = layered(judge | fuse(n=2), ["a", "b"], lambda q: reply, STEPS)
    assert texts(outcome.final) == ["b"] and outcome.final[0].stage == "sample"
    assert len(mind.asked) == 2, "what is empty is not asked for again"


def test_some_empty_replies_cost_only_themselves() -> None:
    outcome, _ = layered(fuse(n=3), ["a"], lambda q: "" if q.call.index == 1 else together(q), STEPS)
    assert texts(outcome.final) == ["a (0)", "a (2)"]


@pytest.mark.parametrize("requests", [2, 3, 4])
def test_a_budget_that_runs_out_leaves_what_was_written_or_the_best(requests: int) -> None:
    outcome, _ = layered(fuse(n=2), ["a", "b"], together, STEPS, requests=requests)
    assert texts(outcome.final) == [["a"], ["a+b (0)"], ["a+b (0)", "a+b (1)"]][requests - 2]
    assert outcome.usage.requests <= requests


def test_candidates_can_go_on_too() -> None:
    stack = fuse(n=2, keep_inputs=True) | MajorityVote()
    outcome, _ = layered(stack, ["a", "b"], lambda q: "a", STEPS)
    assert outcome.answer == "a" and outcome.chosen is not None and outcome.chosen.stage == "sample"
    assert fuse(n=2, keep_inputs=True).plan(Count(3, 4)).passes == Count(3, 6)
    outcome, _ = layered(stack, ["a", "b"], lambda q: "b", STEPS)
    assert outcome.answer == "b"


def test_candidates_that_go_on_with_nothing_to_choose_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`keep_inputs`.*nothing after it chooses"):
        (Sample(n=2) | fuse(keep_inputs=True)).graph()


def test_fusers_stand_side_by_side_and_in_layers() -> None:
    def named(name: str) -> Model:
        return Played(STEPS, lambda q: f"{name}({together(q)})", identity=name).model

    models = {"default": replies("x", "y"), **{name: named(name) for name in "pqr"}}
    layer = Fuse(model="p") & Fuse(model="q")
    outcome = played(Sample(n=2) | layer | Fuse(model="r"), models)
    assert outcome.answer == "r(p(x+y (0))+q(x+y (0)) (0))"
    assert outcome.final[0].parents == ("fuse#0", "fuse-2#0")


async def test_answers_flow_on_as_they_are_written() -> None:
    class First(Stage):
        """The first to arrive."""

        stops_early = True

        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield candidate
                return

    fast = Scripted(
        reply=lambda c: Reply(f"fused {c.index}", latency=600.0 if c.index == 0 else 0.0), identity="f"
    )
    async with Session(models={"default": replies("a"), "m": fast}) as session:
        outcome = await asyncio.wait_for(session.solve(Sample() | fuse(n=2) | First(), PROBLEM), 300)
    assert outcome.answer == "fused 1" and outcome.stopped == "early"


def test_critiques_are_shown_and_what_is_fused_cannot_leave_its_place() -> None:
    class Noted(Stage):
        """Notes a hostile critique."""

        async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
            async for candidate in candidates:
                yield candidate.with_note("critique", HOSTILE) if candidate.index else candidate

    outcome, mind = layered(Noted() | fuse(), [HOSTILE, "b"], lambda q: "ok", STEPS)
    question = mind.asked[0]
    answer = outcome.candidates[0].text
    assert question.several("ANSWER") == [answer, "b"] and answer[:90] == HOSTILE[:90]
    assert question.several("CRITIQUE") == ["(none)", HOSTILE.encode("utf-8", "replace").decode()]
    assert [*question.quoted] == ["QUESTION", "ANSWER 1", "ANSWER 2", "CRITIQUE 1", "CRITIQUE 2"]
    assert outcome.final[0].notes == {}, "a critique is not of what was made of it"


def test_a_model_with_a_form_of_its_own_is_asked_in_it() -> None:
    prompt = "{question_text}\n{replies_text}\nBest?"
    outcome, mind = layered(fuse(prompt=prompt, system=""), ["1+1=2", "3"], lambda q: "2", {})
    assert outcome.answer == "2"
    (call,) = [q.call for q in mind.asked]
    assert call.text == formats.fuse("a question", ["1+1=2", "3"]) and len(call.request.messages) == 1


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValidationError, match="again"):
        fuse(again=1)
    with pytest.raises(ValidationError, match=r"the place \{answers\}.* is missing"):
        fuse(prompt="{question}")
    assert ids(layered(fuse(), ["a"], together, STEPS)[0].final) == [0]
