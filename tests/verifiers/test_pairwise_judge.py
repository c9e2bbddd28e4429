"""Which of two answers is better, asked in both orders."""

from __future__ import annotations

import re
from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Outcome
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import VerifierCases
from archon.verifier import Verifier
from archon.verifiers.pairwise_judge import PairwiseJudge, Preference
from tests.verifiers.test_judge import words

PROBLEM = Problem.ask("What is 6 * 7?", id="p", info={"baseline": "40"})


def shown(call: Call) -> tuple[str, str]:
    """The two answers, in the order in which the judge sees them."""
    a, b = (
        re.search(rf"^ANSWER {x} (\w+)\n(.*)\nEND OF ANSWER {x} \1$", call.text, re.DOTALL | re.MULTILINE)
        for x in "AB"
    )
    assert a and b and a[1] == b[1] and a[1] not in a[2] + b[2]
    return a[2], b[2]


def by_words(call: Call) -> Reply:
    first, second = shown(call)
    return words(0.8 if first == "42" else 0.1 if second == "42" else 0.6, "A", "B")


def by_lines(call: Call) -> str:
    mark = re.search(r"Verdict (\w+): A", call.text)
    assert mark
    return f"So.\nVerdict {mark[1]}: {'B' if shown(call)[1] == '42' else 'A'}"


class TestPairwiseJudge(VerifierCases):
    def make_verifier(self) -> Verifier:
        return PairwiseJudge(model="judge", rubric="42 is better.")

    def problem(self) -> Problem:
        return PROBLEM

    def models(self) -> dict[str, Model]:
        return {"judge": Scripted(reply=by_words, identity="judge")}


class TestPairwiseJudgeByText(TestPairwiseJudge):
    def make_verifier(self) -> Verifier:
        return PairwiseJudge(model="judge", read="text", max_tokens=50)

    def models(self) -> dict[str, Model]:
        return {"judge": Scripted(reply=by_lines, identity="judge")}


async def solve(reply: Any, *answers: str, problem: Problem = PROBLEM, **fields: Any) -> Outcome:
    models = {
        "default": Scripted(replies={"*": answers}),
        "judge": Scripted(reply=reply, identity="judge"),
    }
    verifier = PairwiseJudge(model="judge", **fields)
    async with Session(models=models) as session:
        return await session.solve(Sample(n=len(answers)) | Verify(verifier=verifier), problem)


async def test_each_is_asked_about_in_both_orders_and_the_score_is_their_mean() -> None:
    outcome = await solve(by_words, "42")
    said = outcome.candidates[0].verdicts["pairwise_judge"]
    assert (said.accepted, said.status) == (True, "passed")
    assert said.score == pytest.approx((0.8 + 0.9) / 2)
    assert outcome.by_model["judge"].requests == 2


async def test_a_judge_that_favours_a_place_decides_nothing() -> None:
    for letter in "AB":
        outcome = await solve(lambda call, letter=letter: words(0.99, letter, "AB".strip(letter)), "42")
        said = outcome.candidates[0].verdicts["pairwise_judge"]
        assert (said.accepted, said.status) == (None, "undecided")
        assert said.score == pytest.approx(0.5)
        assert "order" in said.detail


async def test_what_is_worse_in_both_orders_is_rejected() -> None:
    problem = Problem.ask("What is 6 * 7?", id="p", info={"in use": "42"})
    outcome = await solve(by_lines, "41", problem=problem, read="text", against="in use")
    assert outcome.candidates[0].verdicts["pairwise_judge"].accepted is False


async def test_one_order_that_cannot_be_read_leaves_it_undecided() -> None:
    def reply(call: Call) -> str:
        return by_lines(call) if shown(call)[0] == "42" else "Both are fine."

    outcome = await solve(reply, "42", read="text")
    said = outcome.candidates[0].verdicts["pairwise_judge"]
    assert (said.accepted, said.score) == (None, None)
    assert "Both are fine." in said.detail


@pytest.mark.parametrize("info", [{}, {"baseline": 40}, {"other": "40"}])
async def test_without_an_answer_to_compare_with_it_asks_nobody(info: dict[str, Any]) -> None:
    outcome = await solve(by_words, "42", problem=Problem.ask("?", id="p", info=info))
    said = outcome.candidates[0].verdicts["pairwise_judge"]
    assert said.accepted is None and "'baseline'" in said.detail
    assert "judge" not in outcome.by_model


def test_a_preference_is_decided_only_where_both_orders_agree() -> None:
    assert Preference(0.9, 0.6, "probability").decided is True
    assert Preference(0.1, 0.4, "probability").decided is False
    for first, second in ((0.9, 0.1), (0.5, 0.9), (None, 0.9), (0.9, None)):
        assert Preference(first, second, "probability").decided is None
