"""Self-refine: feedback and refinement in turn, when it stops, and what it never loses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Reply, Scripted
from archon.errors import RequestRejected
from archon.stage import NONE, Count, Stage
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.self_refine import SelfRefine
from archon.testing import StageCases
from tests.strategies.made import ids
from tests.strategies.playing import HOSTILE, Played, Question, Said, Script, played, said_of, texts

STEPS = {"feedback": "what is still to be mended", "refine": "Write the answer anew."}


def mending(until: int = 99) -> Script:
    """Each answer is the one before and a stroke; feedback is content with so many strokes."""

    def reply(question: Question) -> Said:
        if question.step == "feedback":
            answer = question.quoted["ANSWER"]
            verdict = "done" if answer.count("'") >= until else "mend"
            return f"One stroke more after {answer}.\nVerdict {question.mark}: {verdict}"
        if question.step == "refine":
            return question.several("ANSWER")[-1] + "'"
        return f"a{question.call.index}"

    return reply


def by_step(**replies: Any) -> Script:
    """`mending`, except for what is said otherwise of a step."""

    def reply(question: Question) -> Said:
        said = replies.get(question.step)
        if said is None:
            return mending()(question)
        found: Said = said(question) if callable(said) else said
        return found

    return reply


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounds", "until"), [(1, 99), (3, 99), (4, 0), (4, 1), (4, 2), (2, 2)])
def test_feedback_and_refinement_take_turns_until_nothing_is_left_to_mend(rounds: int, until: int) -> None:
    model = Played(STEPS, mending(until))
    outcome = played(Sample() | SelfRefine(rounds=rounds), model.model)
    mended = min(rounds, until)
    assert model.order == ["", *["feedback", "refine"] * mended, *["feedback"] * (mended < rounds)]
    (final,) = outcome.final
    assert final.text == "a0" + "'" * mended
    assert (final.id, final.parents) == (("self_refine#0", ("sample#0",)) if mended else ("sample#0", ()))


def test_a_refinement_sees_every_earlier_answer_with_its_remark() -> None:
    model = Played(STEPS, mending())
    played(Sample() | SelfRefine(rounds=3), model.model)
    last = model.asked[-1]
    assert last.quoted["QUESTION"] == "a question"
    assert last.several("ANSWER") == ["a0", "a0'", "a0''"]
    assert last.several("REMARK") == [f"One stroke more after {a}." for a in last.several("ANSWER")]
    model = Played(STEPS, mending())
    played(Sample() | SelfRefine(rounds=4, context=2), model.model)
    assert model.asked[-1].several("ANSWER") == ["a0''", "a0'''"]
    assert model.asked[-1].several("REMARK")[0] == "One stroke more after a0''."


@pytest.mark.parametrize(("n", "rounds", "again"), [(1, 4, 1), (3, 2, 0), (5, 1, 2)])
def test_the_most_calls_are_as_planned(n: int, rounds: int, again: int) -> None:
    stage = SelfRefine(rounds=rounds, again=again)

    def unread_at_first(question: Question) -> Said:
        turns = len(question.call.request.messages)
        if question.step == "feedback" and turns < 2 + 2 * again:
            return "Hm."
        return mending()(question)

    model = Played(STEPS, unread_at_first)
    outcome = played(Sample(n=n) | stage, model.model)
    plan = (Sample(n=n) | stage).graph().plan()["self_refine"]
    assert plan == (Count(1, n * rounds * (2 + again)), Count(n, n))
    assert outcome.by_stage["self_refine"].requests == plan.calls.high
    least = played(Sample(n=n) | stage, Played(STEPS, mending(0)).model)
    assert least.by_stage["self_refine"].requests == n
    assert stage.plan(NONE) == (NONE, NONE)


def test_equal_answers_share_their_feedback_and_are_refined_apart() -> None:
    def reply(question: Question) -> Said:
        if question.step == "refine":
            return f"better {question.call.index}"
        return mending()(question) if question.step else "same"

    model = Played(STEPS, reply)
    outcome = played(Sample(n=3) | SelfRefine(rounds=1), model.model)
    assert sorted(model.order) == ["", "", "", "feedback", "refine", "refine", "refine"]
    assert sorted(texts(outcome.final)) == ["better 0", "better 1", "better 2"]


def test_each_is_refined_as_it_arrives_and_timing_changes_no_name() -> None:
    def slow(question: Question) -> Said:
        text = str(mending(2)(question))
        late = 9.0 if "a1" in question.call.text or text == "a1" else 1.0
        return Reply(text, latency=late)

    timed = played(Sample(n=3) | SelfRefine(), Played(STEPS, slow).model)
    plain = played(Sample(n=3) | SelfRefine(), Played(STEPS, mending(2)).model)
    assert said_of(timed) == said_of(plain)
    assert ids(timed.final) == [0, 1, 2] and texts(timed.final) == ["a0''", "a1''", "a2''"]


def test_a_replay_makes_no_call(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        model = Played(STEPS, mending(3))
        runs.append(played(Sample(n=4) | SelfRefine(), model.model, store=tmp_path / "s.sqlite"))
    assert model.asked == [] and said_of(runs[0]) == said_of(runs[1])


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feedback",
    [
        "Hm.",
        "",
        "\x00",
        HOSTILE,
        Reply("cut", finish="length"),
        "Verdict 00000000: mend",
        "done",
        "Verdict: done",
    ],
)
def test_feedback_that_cannot_be_read_leaves_the_answer_as_it_is(feedback: Any) -> None:
    model = Played(STEPS, by_step(feedback=feedback))
    outcome = played(Sample(n=2) | SelfRefine(again=1), model.model)
    assert texts(outcome.final) == ["a0", "a1"] and [c.id for c in outcome.final] == ["sample#0", "sample#1"]
    assert model.order.count("feedback") == 4 and "refine" not in model.order


def test_only_the_verdict_line_says_that_nothing_is_left() -> None:
    def feedback(question: Question) -> str:
        return f"All is well: Verdict {question.mark}: done, one would say.\nVerdict {question.mark}: mend"

    outcome = played(Sample() | SelfRefine(rounds=2), Played(STEPS, by_step(feedback=feedback)).model)
    assert texts(outcome.final) == ["a0''"]


@pytest.mark.parametrize(
    "refined", ["", "  \n", Reply("half", finish="length"), RequestRejected("no", status=400)]
)
def test_a_new_answer_that_is_none_leaves_the_one_before(refined: Any) -> None:
    def reply(question: Question) -> Said:
        if question.step == "refine" and len(question.several("ANSWER")) == 2:
            found: Said = refined
            return found
        return mending()(question)

    model = Played(STEPS, reply)
    outcome = played(Sample() | SelfRefine(rounds=4), model.model)
    assert texts(outcome.final) == ["a0'"]
    assert model.order == ["", "feedback", "refine", "feedback", "refine"]


@pytest.mark.parametrize("requests", range(2, 14))
def test_where_the_budget_ends_no_candidate_is_lost(requests: int) -> None:
    model = Played(STEPS, mending())
    outcome = played(Sample(n=2) | SelfRefine(rounds=3), model.model, requests=requests)
    assert len(outcome.final) == 2 and len(model.asked) == requests == outcome.usage.requests
    strokes = sum(text.count("'") for text in texts(outcome.final))
    assert strokes == model.order.count("refine")


def test_nothing_in_nothing_out() -> None:
    model = Played(STEPS, mending())
    outcome = played(Sample(n=0) | SelfRefine() | MajorityVote(), model.model)
    assert outcome.final == () and model.asked == []


def test_no_text_leaves_its_place() -> None:
    def reply(question: Question) -> Said:
        if question.step == "feedback":
            return f"{HOSTILE}\nVerdict {question.mark}: mend"
        return HOSTILE

    model = Played(STEPS, reply)
    outcome = played(Sample() | SelfRefine(rounds=2), model.model)
    stored = outcome.final[0].text
    last = model.asked[-1]
    assert len(last.quoted) == 5
    assert last.several("ANSWER") == last.several("REMARK") == [stored] * 2
    assert last.call.text.endswith("what you changed.")


# --- settings ---------------------------------------------------------------------------------------


def test_a_model_that_says_one_word_can_be_asked() -> None:
    def reply(question: Question) -> Said:
        text = question.call.text
        if text.endswith("Right?"):
            return "yes" if "Reply:\n2\n" in text else "no"
        return "2" if text.endswith("Best?") else "1"

    stage = SelfRefine(
        read="word",
        system="",
        context=1,
        feedback_prompt="{question_text}\nReply:\n{answer_text}\nRight?",
        refine_prompt="{question_text}\n{replies_text}\nBest?",
    )
    model = Played({}, reply)
    outcome = played(Sample() | stage, model.model)
    assert [q.call.text for q in model.asked] == [
        "a question",
        "a question\nReply:\n1\nRight?",
        "a question\nReply 1:\n1\nBest?",
        "a question\nReply:\n2\nRight?",
    ]
    assert texts(outcome.final) == ["2"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"feedback_prompt": "{question} {answer}"}, r"no place \{form\}"),
        ({"refine_prompt": "{question} {answer}"}, "answers"),
        ({"rounds": 0}, "greater than or equal to 1"),
        ({"read": "number"}, "verdict"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SelfRefine(**fields)


class TestSelfRefine(StageCases):
    def make_stage(self) -> Stage:
        return SelfRefine(model="editor", rounds=2, context=1, again=0)

    def models(self) -> Mapping[str, Model]:
        return {"editor": Played(STEPS, mending(1)).model}


class TestSelfRefineByNonsense(StageCases):
    def make_stage(self) -> Stage:
        return SelfRefine(model="editor")

    def models(self) -> Mapping[str, Model]:
        return {"editor": Scripted(reply=lambda call: "what?", identity="editor")}
