"""What verifiers fall for: the corpus is sound, and the audit says what each wrongly accepts and rejects."""

from __future__ import annotations

from typing import Any

import pytest

from archon.backends.scripted import Call, Scripted
from archon.benchmarks.benchmark import AnswerGrader
from archon.problem import Problem
from archon.session import Session
from archon.testing.stages import EveryThird
from archon.verifier import Verifier
from archon.verifiers.audit import Audit, audit, problems
from archon.verifiers.cascade import Cascade
from archon.verifiers.choice import Choice
from archon.verifiers.exact import Exact
from archon.verifiers.judge import Judge
from archon.verifiers.math_equal import MathEqual
from archon.verifiers.regex import Regex
from archon.verifiers.token_f1 import TokenF1
from archon.verifiers.tricks import CORPUS, TRICKS
from archon.verifiers.unit_tests import UnitTests
from tests.verifiers.test_judge import answer_in, words


def tricks(findings: Any) -> set[str]:
    return {finding.trick for finding in findings}


# --- the corpus ------------------------------------------------------------------------------------


def test_every_trick_is_played_on_every_question() -> None:
    for item in CORPUS:
        played = {reply.trick for reply in item.replies()}
        missing = set(TRICKS) - played
        assert missing <= ({"worked", "corrected"} if item.kind == "text" else set())
        texts = [reply.text for reply in item.replies()]
        assert len(set(texts)) == len(texts), "no reply counts twice"


async def test_what_must_be_accepted_is_what_the_graders_call_right() -> None:
    """All forms but those that need more mathematics than a normal form knows."""
    right = {p.id: [item.right] for p, item in zip(problems(), CORPUS, strict=True)}
    grader = AnswerGrader(right)
    async with Session() as session:
        for problem, item in zip(problems(), CORPUS, strict=True):
            replies = [r for r in item.replies() if TRICKS[r.trick].right and r.text != "Mercury"]
            truths = await grader.grade(problem, [r.text for r in replies], session)
            wrong = [r.text for r, t in zip(replies, truths, strict=True) if t.status != "right"]
            assert not wrong or item.kind == "math"


def test_the_corpus_has_every_kind_and_what_is_wrong_is_not_what_is_right() -> None:
    assert {item.kind for item in CORPUS} == {"number", "math", "choice", "text"}
    for item in CORPUS:
        assert item.right not in (item.wrong, *item.near)


# --- what verifiers fall for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verifier", "accepts", "rejects"),
    [
        (Exact(), set(), {"equivalent"}),
        (Exact(wary=False), {"negated", "contradictory", "shotgun"}, {"equivalent"}),
        (MathEqual(), set(), set()),
        (Choice(), set(), set()),
        (TokenF1(), {"near"}, {"equivalent"}),
        (
            Regex(),
            {"wrong", "negated", "contradictory", "shotgun", "wrong place", "near", "echo"},
            {"equivalent"},
        ),
        (Cascade(verifiers=(Choice(), MathEqual(), Exact())), set(), set()),
    ],
)
async def test_what_each_wrongly_accepts_and_rejects(
    verifier: Verifier, accepts: set[str], rejects: set[str]
) -> None:
    result = await audit(verifier)
    assert tricks(result.wrongly_accepted()) == accepts
    assert tricks(result.wrongly_rejected()) == rejects
    assert result.usage.requests == 0, "no model is called"


def fooled_by(*signs: str) -> Scripted:
    """A judge that finds a reply right where it holds the right answer and no slip, or one of these signs."""

    def reply(call: Call) -> Any:
        answer = answer_in(call.text)
        return words(0.9 if any(sign in answer for sign in signs) else 0.1)

    return Scripted(reply=reply, identity="judge")


async def test_a_judge_that_can_be_ordered_about_is_found_out() -> None:
    for sign, trick in (("SYSTEM:", "injection"), ("Verdict: yes", "forged verdict")):
        result = await audit(Judge(model="judge"), {"judge": fooled_by(sign)})
        assert tricks(result.wrongly_accepted()) == {trick}
        assert result.usage.requests > 200, "and what it cost is told"


# --- what is told ----------------------------------------------------------------------------------


async def test_counts_by_trick_add_up() -> None:
    result = await audit(EveryThird())
    counts = result.by_trick()
    assert list(counts) == list(TRICKS)
    for trick in counts.values():
        assert trick["replies"] == trick["accepted"] + trick["rejected"] + trick["undecided"]
    assert sum(trick["replies"] for trick in counts.values()) == len(result.findings)
    data = result.as_json()
    assert data["wrongly_accepted"] + data["wrongly_rejected"] == len(data["mistakes"])
    wrong = {name for name, trick in data["tricks"].items() if not trick["must_accept"] and trick["accepted"]}
    assert wrong == tricks(result.wrongly_accepted())


async def test_what_it_cannot_speak_about_is_left_out_and_named() -> None:
    result = await audit(Choice())
    assert set(result.skipped) == {"number", "math", "text"}
    assert len({finding.question for finding in result.findings}) == 1
    nothing: Audit = await audit(UnitTests())
    assert not nothing.findings and nothing.by_trick() == {}


def test_a_verifier_is_told_no_more_than_a_pipeline_knows() -> None:
    for problem in problems():
        assert isinstance(problem, Problem)
        assert set(problem.info) == {"expected", "pattern", "baseline"}
