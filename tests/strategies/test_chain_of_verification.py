"""Chain of verification: which questions are asked of whom, who sees the baseline, and what is never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Reply, Scripted
from archon.errors import RequestRejected
from archon.stage import NONE, Count, Stage
from archon.strategies.chain_of_verification import ChainOfVerification
from archon.strategies.sample import Sample
from archon.testing import StageCases
from tests.strategies.made import ids
from tests.strategies.playing import HOSTILE, Played, Question, Said, Script, played, said_of, texts

STEPS = {
    "plan": "Plan how to check it",
    "joint": "Check it: write questions",
    "answer": "Answer the check",
    "check": "Does what the answer says agree",
    "rewrite": "Where the findings show",
}


def careful(q: int = 3, verdict: str = "inconsistent") -> Script:
    """Plans q questions, finds something for each, and rewrites."""

    def reply(question: Question) -> Said:
        answer = question.quoted.get("ANSWER", "")
        match question.step:
            case "plan":
                return "\n".join(f"{i}. What of {answer}, part {i}?" for i in range(1, q + 1))
            case "joint":
                pairs = [{"question": f"part {i}?", "answer": f"found {i}"} for i in range(1, q + 1)]
                return f"Here.\n{json.dumps({'checks': pairs})}"
            case "answer":
                return f"Found: {question.quoted['CHECK'].split('part ')[1][0]}"
            case "check":
                return f"So.\nVerdict {question.mark}: {verdict}"
            case "rewrite":
                return f"verified {answer}"
        return f"a{question.call.index}"

    return reply


def but(step: str, said: Any, q: int = 3) -> Script:
    """`careful`, except at one step."""

    def reply(question: Question) -> Said:
        if question.step != step:
            return careful(q)(question)
        found: Said = said(question) if callable(said) else said
        return found

    return reply


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2, 5])
@pytest.mark.parametrize("check", [True, False])
def test_factored_asks_every_question_by_itself(q: int, check: bool) -> None:
    model = Played(STEPS, careful(q))
    stage = ChainOfVerification(questions=5, check=check)
    outcome = played(Sample() | stage, model.model)
    assert model.order == ["", "plan", *["answer"] * q, *["check"] * q * check, "rewrite"]
    assert outcome.by_stage[stage.name].requests == 1 + q + q * check + 1
    (final,) = outcome.final
    assert (final.text, final.id, final.parents) == ("verified a0", f"{stage.name}#0", ("sample#0",))


@pytest.mark.parametrize("q", [1, 4])
@pytest.mark.parametrize("check", [True, False])
def test_joint_plans_and_answers_in_one_call(q: int, check: bool) -> None:
    model = Played(STEPS, careful(q))
    played(Sample() | ChainOfVerification(answering="joint", check=check), model.model)
    assert model.order == ["", "joint", *["check"] * q * check, "rewrite"]
    assert model.asked[-1].several("FINDING") == [f"found {i}" for i in range(1, q + 1)]


def test_a_question_is_answered_without_sight_of_the_baseline() -> None:
    model = Played(STEPS, but("", "THE BASELINE", 2))
    played(Sample() | ChainOfVerification(), model.model)
    for question in model.asked:
        shown = "THE BASELINE" in question.quoted.values()
        assert shown is (question.step in ("plan", "check", "rewrite"))
    answer = next(q for q in model.asked if q.step == "answer")
    assert answer.quoted == {"QUESTION": "a question", "CHECK": "What of THE BASELINE, part 1?"}
    alone = ChainOfVerification(answer_prompt="{check}\nAnswer the check.")
    model = Played(STEPS, careful(2))
    played(Sample() | alone, model.model)
    assert [set(q.quoted) for q in model.asked if q.step == "answer"] == [{"CHECK"}] * 2


def test_the_rewriting_sees_questions_findings_and_verdicts() -> None:
    model = Played(STEPS, careful(2))
    played(Sample() | ChainOfVerification(), model.model)
    last = model.asked[-1]
    assert last.several("CHECK") == ["What of a0, part 1?", "What of a0, part 2?"]
    assert last.several("FINDING") == ["Found: 1", "Found: 2"]
    assert "\nCheck 1: inconsistent.\nCheck 2: inconsistent.\n" in last.call.text


@pytest.mark.parametrize(
    ("verdict", "calls"), [("consistent", 7), ("inconsistent", 8), ("unclear", 8), ("what?", 11)]
)
def test_what_is_consistent_may_stay_as_it_is(verdict: str, calls: int) -> None:
    model = Played(STEPS, careful(3, verdict))
    outcome = played(Sample() | ChainOfVerification(rewrite="inconsistent"), model.model)
    assert outcome.by_stage["chain_of_verification"].requests == calls
    assert texts(outcome.final) == ["a0" if verdict == "consistent" else "verified a0"]
    always = Played(STEPS, careful(3, "consistent"))
    assert texts(played(Sample() | ChainOfVerification(), always.model).final) == ["verified a0"]


@pytest.mark.parametrize("answering", ["factored", "joint"])
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("again", [0, 2])
def test_the_most_calls_are_as_planned(answering: Any, check: bool, again: int) -> None:
    stage = ChainOfVerification(questions=2, answering=answering, check=check, again=again)

    def late(question: Question) -> Said:
        early = len(question.call.request.messages) < 2 + 2 * again
        return "" if early and question.step not in ("", "rewrite") else careful(9)(question)

    outcome = played(Sample(n=3) | stage, Played(STEPS, late).model)
    plan = (Sample(n=3) | stage).graph().plan()[stage.name]
    apart = 2 if answering == "factored" else 0
    assert plan == (Count(1, 3 * ((1 + apart + 2 * check) * (1 + again) + 1)), Count(3, 3))
    assert outcome.by_stage[stage.name].requests == plan.calls.high
    assert stage.plan(NONE) == (NONE, NONE)


def test_equal_answers_are_checked_once() -> None:
    model = Played(STEPS, but("", "same"))
    outcome = played(Sample(n=3) | ChainOfVerification(), model.model)
    assert [model.order.count(s) for s in ("plan", "answer", "check", "rewrite")] == [1, 3, 3, 3]
    assert texts(outcome.final) == ["verified same"] * 3


def test_a_question_that_is_planned_twice_is_asked_once() -> None:
    plan = "1. What of part 1?\n2. What of part 1?\n3. What of part 2?"
    model = Played(STEPS, but("plan", plan))
    played(Sample() | ChainOfVerification(check=False), model.model)
    assert model.asked[-1].several("FINDING") == ["Found: 1", "Found: 2"]


def test_timing_changes_no_name(tmp_path: Path) -> None:
    def slow(question: Question) -> Said:
        text = str(careful()(question))
        return Reply(text, latency=9.0 if "a1" in question.call.text or text == "a1" else 1.0)

    runs = [played(Sample(n=3) | ChainOfVerification(), Played(STEPS, careful()).model)]
    for _ in range(2):
        model = Played(STEPS, slow)
        runs.append(played(Sample(n=3) | ChainOfVerification(), model.model, store=tmp_path / "s.sqlite"))
    assert model.asked == [] and said_of(runs[0]) == said_of(runs[1]) == said_of(runs[2])
    assert ids(runs[0].final) == [0, 1, 2]


# --- what goes wrong --------------------------------------------------------------------------------

BAD = ["", "Hm.", HOSTILE, Reply("1. cut", finish="length"), RequestRejected("no", status=400)]


@pytest.mark.parametrize("said", BAD)
@pytest.mark.parametrize(("step", "answering"), [("plan", "factored"), ("joint", "joint")])
def test_without_questions_the_answer_stays(step: str, answering: Any, said: Any) -> None:
    model = Played(STEPS, but(step, said))
    outcome = played(Sample(n=2) | ChainOfVerification(answering=answering), model.model)
    assert [c.id for c in outcome.final] == ["sample#0", "sample#1"]
    assert set(model.order) == {"", step}


@pytest.mark.parametrize(
    "joint", ["{}", '{"checks": []}', '{"checks": [{"question": " ", "answer": "x"}]}', "[" * 99]
)
def test_json_without_a_question_and_its_answer_is_unread(joint: str) -> None:
    model = Played(STEPS, but("joint", joint))
    outcome = played(Sample() | ChainOfVerification(answering="joint"), model.model)
    assert texts(outcome.final) == ["a0"] and model.order == ["", "joint", "joint"]


def test_a_question_that_is_not_answered_is_left_out() -> None:
    def answer(question: Question) -> Said:
        return " " if "part 2" in question.quoted["CHECK"] else careful()(question)

    model = Played(STEPS, but("answer", answer))
    outcome = played(Sample() | ChainOfVerification(check=False), model.model)
    assert model.asked[-1].several("FINDING") == ["Found: 1", "Found: 3"]
    assert texts(outcome.final) == ["verified a0"]
    none = Played(STEPS, but("answer", ""))
    assert texts(played(Sample() | ChainOfVerification(), none.model).final) == ["a0"]
    assert set(none.order) == {"", "plan", "answer"}


@pytest.mark.parametrize("said", BAD[:3])
def test_a_check_that_cannot_be_read_is_unclear(said: Any) -> None:
    model = Played(STEPS, but("check", said, 1))
    outcome = played(Sample() | ChainOfVerification(rewrite="inconsistent"), model.model)
    assert "Check 1: unclear." in model.asked[-1].call.text and texts(outcome.final) == ["verified a0"]


@pytest.mark.parametrize(
    "said", ["", " \n", Reply("half", finish="length"), RequestRejected("no", status=400)]
)
def test_a_new_answer_that_is_none_leaves_the_baseline(said: Any) -> None:
    outcome = played(Sample() | ChainOfVerification(), Played(STEPS, but("rewrite", said)).model)
    assert [c.id for c in outcome.final] == ["sample#0"]


@pytest.mark.parametrize("requests", range(2, 18))
def test_where_the_budget_ends_no_candidate_is_lost(requests: int) -> None:
    model = Played(STEPS, careful(2))
    outcome = played(Sample(n=2) | ChainOfVerification(), model.model, requests=requests)
    assert len(outcome.final) == 2
    assert len(model.asked) == outcome.usage.requests == min(requests, 14)
    assert sum(t.startswith("verified") for t in texts(outcome.final)) == model.order.count("rewrite")


def test_nothing_in_nothing_out() -> None:
    model = Played(STEPS, careful())
    assert played(Sample(n=0) | ChainOfVerification(), model.model).final == () and model.asked == []


def test_no_text_leaves_its_place() -> None:
    def reply(question: Question) -> Said:
        if question.step == "plan":
            return "1. " + HOSTILE.replace("\n", "\n   ")
        if question.step == "check":
            return f"{HOSTILE}\nVerdict {question.mark}: inconsistent"
        return HOSTILE

    model = Played(STEPS, reply)
    played(Sample() | ChainOfVerification(), model.model)
    last = model.asked[-1]
    assert last.step == "rewrite" and last.quoted["QUESTION"] == "a question"
    assert set(last.quoted) == {"QUESTION", "ANSWER", "CHECK 1", "FINDING 1"}
    assert (
        last.quoted["ANSWER"].startswith("END OF ANSWER 1") and "\nCheck 1: inconsistent.\n" in last.call.text
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rewrite": "inconsistent", "check": False}, "check: true"),
        ({"questions": 0}, "greater than or equal to 1"),
        ({"answering": "two-step"}, "factored"),
        ({"plan_prompt": "{question} {answer}"}, "form"),
        ({"answer_prompt": "{check} {answer}"}, "answer"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ChainOfVerification(**fields)


class TestChainOfVerification(StageCases):
    def make_stage(self) -> Stage:
        return ChainOfVerification(model="checker", questions=2, again=0)

    def models(self) -> Mapping[str, Model]:
        return {"checker": Played(STEPS, careful(2)).model}


class TestJointlyByNonsense(StageCases):
    def make_stage(self) -> Stage:
        return ChainOfVerification(model="checker", answering="joint", check=False)

    def models(self) -> Mapping[str, Model]:
        return {"checker": Scripted(reply=lambda call: "what?", identity="checker")}
