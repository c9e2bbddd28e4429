"""Debate: who speaks when, who sees whose answers, and what an agent that falls silent leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from archon.backends.scripted import Reply
from archon.errors import RequestRejected
from archon.stage import NONE, Count, Stage
from archon.strategies.debate import Debate
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.testing import StageCases
from tests.strategies.made import NUMBER, ids
from tests.strategies.playing import HOSTILE, Played, Question, Said, played, said_of, texts

STEPS = {"reply": "the answers of others"}


def talking(question: Question) -> str:
    """Agents call themselves by their first sample, and count rounds in strokes."""
    return question.quoted["OWN ANSWER"] + "'" if question.step else f"a{question.call.index}"


def but(agent: str, round_: int, said: Said, latency: float = 1.0) -> Any:
    """`talking`, except for one agent in one round."""

    def reply(question: Question) -> Said:
        text = talking(question)
        if text.startswith(agent) and text.count("'") == round_:
            return said
        return Reply(text, latency=latency)

    return reply


# --- calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agents", "rounds"), [(2, 1), (2, 2), (3, 2), (3, 4), (5, 3)])
def test_every_agent_speaks_in_every_round_and_sees_the_others(agents: int, rounds: int) -> None:
    model = Played(STEPS, talking)
    stage = Debate(agents=agents, rounds=rounds)
    outcome = played(stage, model.model)
    assert len(model.asked) == outcome.usage.requests == agents * rounds
    assert stage.plan(NONE) == (Count(agents * rounds, agents * rounds), Count(agents, agents))
    for number in range(rounds):
        asked = model.asked[number * agents : (number + 1) * agents]
        assert [talking(question) for question in asked] == [f"a{i}" + "'" * number for i in range(agents)]
        for agent, question in enumerate(asked if number else ()):
            before = [f"a{i}" + "'" * (number - 1) for i in range(agents)]
            assert question.quoted["OWN ANSWER"] == before[agent]
            assert question.several("ANSWER") == before[:agent] + before[agent + 1 :]
    assert texts(outcome.final) == [f"a{i}" + "'" * (rounds - 1) for i in range(agents)]
    assert ids(outcome.final) == [i * rounds + rounds - 1 for i in range(agents)]
    first = outcome.final[0]
    seen = [f"debate#{i * rounds + rounds - 2}" for i in range(agents)] if rounds > 1 else []
    assert list(first.parents) == seen


def test_agents_may_be_different_models_in_turn() -> None:
    players = {name: Played(STEPS, talking, identity=name) for name in ("a", "b")}
    stage = Debate(agents=5, rounds=2, agent_models=("a", "b"))
    outcome = played(stage, {name: player.model for name, player in players.items()})
    assert [c.model for c in outcome.final] == ["a", "b", "a", "b", "a"]
    assert texts(outcome.final) == ["a0'", "a0'", "a1'", "a1'", "a2'"]
    assert stage.models == ("a", "b") and Debate(model="m").models == ("m",)
    assert [outcome.by_model[name].requests for name in ("a", "b")] == [6, 4]
    assert players["b"].asked[-1].several("ANSWER") == ["a0", "a0", "a1", "a2"]


def test_first_answers_are_the_problems_own_samples(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    played(Sample(n=3), Played(STEPS, talking).model, store=store)
    outcome = played(Debate(agents=3, rounds=2), Played(STEPS, talking).model, store=store)
    assert (outcome.usage.requests, outcome.fresh.requests) == (6, 3)
    more = played(Debate(agents=3, rounds=3), Played(STEPS, talking).model, store=store)
    assert more.fresh.requests == 3


@pytest.mark.parametrize("slow", ["a0", "a1", "a2"])
def test_timing_changes_nothing(slow: str, tmp_path: Path) -> None:
    def late(question: Question) -> Reply:
        text = talking(question)
        return Reply(text, latency=9.0 if text.startswith(slow) else 1.0)

    runs = [played(Debate(rounds=3), Played(STEPS, talking).model)]
    for _ in range(2):
        model = Played(STEPS, late)
        runs.append(played(Debate(rounds=3), model.model, store=tmp_path / "s.sqlite"))
    assert said_of(runs[0]) == said_of(runs[1]) == said_of(runs[2]) and model.asked == []


def test_a_vote_decides_and_the_earlier_agent_wins_a_tie() -> None:
    outcome = played(
        Debate(agents=2, rounds=1) | MajorityVote(),
        Played(STEPS, lambda q: f"#### {q.call.index}").model,
        NUMBER,
    )
    assert outcome.answer == "#### 0"


def test_agents_that_say_the_same_are_still_asked_each() -> None:
    model = Played(STEPS, lambda question: "same")
    outcome = played(Debate(agents=3, rounds=3), model.model)
    assert len(model.asked) == 9 and texts(outcome.final) == ["same"] * 3
    assert len({c.id for c in outcome.final}) == 3


# --- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", ["", " \n", Reply("half", finish="length"), RequestRejected("no", status=400)]
)
def test_an_agent_that_says_nothing_whole_stands_by_its_answer(said: Any) -> None:
    model = Played(STEPS, but("a1", 1, said))
    outcome = played(Debate(agents=3, rounds=3), model.model)
    assert texts(outcome.final) == ["a0''", "a1", "a2''"]
    assert ids(outcome.final) == [2, 3, 8]
    assert model.asked[-1].several("ANSWER") == ["a0'", "a1"]


def test_an_agent_that_never_answered_takes_no_part() -> None:
    model = Played(STEPS, but("a1", 0, RequestRejected("no", status=400)))
    outcome = played(Debate(agents=3, rounds=2), model.model)
    assert texts(outcome.final) == ["a0'", "a2'"] and ids(outcome.final) == [1, 5]
    assert len(model.asked) == 5
    alone = Played(STEPS, but("a1", 0, RequestRejected("no", status=400)))
    outcome = played(Debate(agents=2, rounds=5), alone.model)
    assert texts(outcome.final) == ["a0"] and len(alone.asked) == 2


def test_a_blank_first_answer_is_shown_to_none_and_its_agent_goes_on() -> None:
    model = Played(STEPS, but("a0", 0, " "))
    outcome = played(Debate(agents=3, rounds=2), model.model)
    assert [q.several("ANSWER") for q in model.asked[3:]] == [["a1", "a2"], ["a2"], ["a1"]]
    assert len(outcome.final) == 3
    silent = Played(STEPS, lambda question: "")
    outcome = played(Debate(agents=2, rounds=3), silent.model)
    assert texts(outcome.final) == ["", ""] and len(silent.asked) == 2


@pytest.mark.parametrize("requests", range(0, 9))
def test_where_the_budget_ends_every_agent_keeps_its_last_answer(requests: int) -> None:
    model = Played(STEPS, talking)
    outcome = played(Debate(agents=3, rounds=3), model.model, requests=requests)
    assert len(model.asked) == outcome.usage.requests <= requests
    assert len(outcome.final) == min(requests, 3)
    if requests >= 2:
        assert len(model.asked) == requests
        assert sum(text.count("'") for text in texts(outcome.final)) == requests - len(outcome.final)


def test_no_text_leaves_its_place() -> None:
    model = Played(STEPS, lambda question: HOSTILE)
    outcome = played(Debate(agents=3, rounds=2), model.model)
    stored = outcome.final[0].text
    for question in model.asked[3:]:
        assert question.quoted == {
            "QUESTION": "a question",
            "OWN ANSWER": stored,
            "ANSWER 1": stored,
            "ANSWER 2": stored,
        }


def test_a_template_of_the_nano_models_is_filled_with_plain_replies() -> None:
    model = Played({}, lambda question: f"{len(model.asked)}")
    stage = Debate(agents=3, system="", prompt="{question_text}\n{replies_text}\nBest?")
    played(stage, model.model)
    assert model.asked[3].call.text == "a question\nReply 1:\n2\nReply 2:\n3\nBest?"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"agents": 1}, "greater than or equal to 2"),
        ({"rounds": 0}, "greater than or equal to 1"),
        ({"again": 1}, "less than or equal to 0"),
        ({"prompt": "{question} {own_answer}"}, "answers"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Debate(**fields)


class TestDebate(StageCases):
    def make_stage(self) -> Stage:
        return Debate(agents=2, rounds=3, temperature=0.5)
