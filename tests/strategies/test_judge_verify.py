"""A model as a verifier: reasons first, then a verdict on them; what goes on and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.benchmarks.lab import formats
from archon.stage import Count, Stage
from archon.strategies.first_passing import FirstPassing
from archon.strategies.judge_verify import JudgeVerify
from archon.strategies.rank import Rank
from archon.testing import StageCases
from tests.strategies.layering import GARBAGE, ids, in_turn, layered, spent
from tests.strategies.made import replies
from tests.strategies.playing import HOSTILE, Played, Question, texts

STEPS = {"reasons": "Give no verdict yet", "verdict": "Check these reasons too"}


def verify(**fields: Any) -> JudgeVerify:
    return JudgeVerify(model="m", **fields)


def strict(question: Question) -> str:
    """Right is what begins with r."""
    if question.step == "reasons":
        return f"because {question.quoted['ANSWER']}"
    right = question.quoted["ANSWER"].startswith("r")
    return f"So.\nVerdict {question.mark}: {'yes' if right else 'no'}"


def verdicts(outcome: Any) -> list[bool | None]:
    return [c.verdicts["judge_verify"].accepted for c in outcome.final]


class TestJudgeVerify(StageCases):
    def make_stage(self) -> Stage:
        return verify(called="right", again=0)

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lambda q: strict(q).replace("no", "yes")).model}


class TestFirst(TestJudgeVerify):
    def make_stage(self) -> Stage:
        return verify(first=2, if_none="none")


def test_reasons_come_first_and_the_verdict_is_on_them() -> None:
    outcome, mind = layered(verify(), ["right"], strict, STEPS)
    assert mind.order == ["reasons", "verdict"] and outcome.answer == "right"
    assert mind.asked[1].quoted["REASONS"] == "because right"
    assert {q.quoted["ANSWER"] for q in mind.asked} == {"right"}


def test_what_is_right_goes_on_with_its_verdict() -> None:
    outcome, mind = layered(verify(), ["wrong 0", "r1", "wrong 2", "r3"], strict, STEPS)
    assert texts(outcome.final) == ["r1", "r3"]
    (verdict,) = outcome.final[0].verdicts.values()
    assert (verdict.accepted, verdict.score, verdict.status) == (True, 1.0, "passed")
    assert sorted(mind.order) == ["reasons"] * 4 + ["verdict"] * 4 and spent(outcome, "judge_verify") == 8
    assert verify().plan(Count(4, 4)) == (Count(8, 16), Count(1, 4))


def test_where_nothing_is_right_all_go_on_or_none() -> None:
    outcome, _ = layered(verify(), ["w0", "w1"], strict, STEPS)
    assert texts(outcome.final) == ["w0", "w1"] and verdicts(outcome) == [False, False]
    outcome, _ = layered(verify(if_none="none"), ["w0", "w1"], strict, STEPS)
    assert outcome.final == () and outcome.chosen is None
    assert verify(if_none="none").plan(Count(2, 2)).passes == Count(0, 2)


@pytest.mark.parametrize("reply", GARBAGE)
def test_what_cannot_be_read_decides_nothing_and_loses_nobody(reply: Any) -> None:
    def reasoned(question: Question) -> Any:
        return strict(question) if question.step == "reasons" else reply

    words = isinstance(reply, str) and reply  # what is not empty or cut off is a reason
    for script, calls in ((reasoned, 3), (lambda q: reply, 3 if words else 2)):
        outcome, mind = layered(verify(), ["a", "b"], script, STEPS)
        assert texts(outcome.final) == ["a", "b"] and verdicts(outcome) == [None, None]
        assert len(mind.asked) == 2 * calls


def test_without_reasons_there_is_no_verdict() -> None:
    outcome, mind = layered(verify(), ["right"], lambda q: "", STEPS)
    assert verdicts(outcome) == [None] and len(mind.asked) == 2
    assert "it is empty" in outcome.final[0].verdicts["judge_verify"].detail


def test_undecided_ones_go_on_beside_what_is_right() -> None:
    def reply(question: Question) -> str:
        return "?" if question.step == "verdict" and "odd" in question.quoted["ANSWER"] else strict(question)

    outcome, _ = layered(verify(), ["wrong", "odd", "right"], reply, STEPS)
    assert texts(outcome.final) == ["odd", "right"] and verdicts(outcome) == [None, True]
    outcome, _ = layered(verify() | FirstPassing(), ["wrong", "odd", "right"], reply, STEPS)
    assert outcome.answer == "right"


def test_equal_answers_are_judged_once_and_empty_ones_without_a_call() -> None:
    outcome, mind = layered(verify(), ["r", "r", " "], strict, STEPS)
    assert texts(outcome.final) == ["r", "r"] and mind.order == ["reasons", "verdict"]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one(n: int) -> None:
    outcome, mind = layered(verify(), ["wrong"][:n], strict, STEPS)
    assert texts(outcome.final) == ["wrong"][:n] and len(mind.asked) == 2 * n
    assert verify().plan(Count(n, n)) == (Count(2 * n, 4 * n), Count(n, n))


@pytest.mark.parametrize("requests", range(3, 10))
def test_a_budget_that_runs_out_decides_nothing_more(requests: int) -> None:
    outcome, _ = layered(verify(), ["r0", "wrong", "r2"], strict, STEPS, requests=requests)
    assert outcome.usage.requests <= requests and {"r0", "r2"} <= {*texts(outcome.final)}
    if requests == 9:
        assert texts(outcome.final) == ["r0", "r2"]
    if requests == 3:
        assert verdicts(outcome) == [None] * 3


# --- the first so many -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "passed", "asked"),
    [
        (1, ["r1"], 2),
        (2, ["r1", "r3"], 4),
        (3, ["r1", "r3", "r4"], 5),
        (9, ["r1", "r3", "r4"], 6),
    ],
)
def test_no_more_are_judged_than_are_wanted(first: int, passed: list[str], asked: int) -> None:
    answers = ["w0", "r1", "w2", "r3", "r4", "w5"]
    outcome, mind = layered(verify(first=first), answers, strict, STEPS)
    assert texts(outcome.final) == passed
    assert len(mind.asked) == 2 * asked
    assert verify(first=2).plan(Count(6, 6)).calls == Count(4, 24)


def test_the_best_are_judged_first() -> None:
    def reply(question: Question) -> str:
        return strict(question) if question.step else f"Ranking {question.mark}: 3 > 2 > 1"

    stack = Rank(model="m") | verify(first=1)
    outcome, mind = layered(stack, ["r0", "r1", "w2"], reply, STEPS)
    assert [q.quoted["ANSWER"] for q in mind.asked[1:]] == ["w2", "w2", "r1", "r1"]
    assert outcome.answer == "r1"


def test_the_order_of_arrival_changes_nothing_where_the_first_are_wanted() -> None:
    slow = {"default": replies("r0", "r1", "r2", latencies=(3.0, 2.0, 1.0))}
    outcome, _ = layered(verify(first=1), ["r0", "r1", "r2"], strict, STEPS, models=slow)
    assert outcome.answer == "r0" and ids(outcome.final) == [0]


# --- prompts ---------------------------------------------------------------------------------------


def test_a_prompt_without_a_place_for_reasons_asks_once() -> None:
    stage = verify(prompt="{question}\n{answer}\nCheck these reasons too {form}")
    outcome, mind = layered(stage, ["right", "wrong"], strict, STEPS)
    assert texts(outcome.final) == ["right"] and mind.order == ["verdict"] * 2
    assert stage.plan(Count(2, 2)).calls == Count(2, 4)


def test_a_model_with_a_form_of_its_own_says_a_word() -> None:
    stage = verify(prompt="{question_text}\nReply:\n{answer_text}\nRight?", system="")
    outcome, mind = layered(stage, ["1+1=2", "1+1=3"], in_turn("yes", "no"), {})
    assert texts(outcome.final) == ["1+1=2"]
    assert mind.asked[0].call.text == formats.verify("a question", "1+1=2")
    outcome, _ = layered(stage, ["a"], lambda q: "yes, it is", {})
    assert verdicts(outcome) == [None]


def test_neither_answers_nor_reasons_leave_their_place() -> None:
    def reply(question: Question) -> str:
        assert {*question.quoted} <= {"QUESTION", "ANSWER", "REASONS"}
        if question.step == "reasons":
            return HOSTILE
        return f"Verdict {question.mark}: no"

    outcome, _ = layered(verify(if_none="none"), [HOSTILE, "b"], reply, STEPS)
    assert outcome.final == ()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValidationError, match="first"):
        verify(first=0)
    with pytest.raises(ValidationError, match=r"there is no place \{reason\}, \{reasons\} is meant"):
        verify(prompt="{question}{answer}{reason}{form}")
