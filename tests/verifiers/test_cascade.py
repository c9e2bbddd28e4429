"""Cheap verifiers first: who decides, who is asked, what it says."""

from __future__ import annotations

from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Outcome, Verdict
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import VerifierCases
from archon.verifier import Verifier
from archon.verifiers.cascade import Cascade, chance_of
from archon.verifiers.exact import Exact
from archon.verifiers.judge import Judge
from archon.verifiers.regex import Regex
from archon.verifiers.token_f1 import TokenF1
from tests.verifiers.test_judge import by_words, words

PROBLEM = Problem.ask("What is 6 * 7?", id="p", answer="number", info={"expected": "42"})
JUDGE = Judge(model="judge")


class TestCascade(VerifierCases):
    def make_verifier(self) -> Verifier:
        return Cascade(verifiers=(Exact(), JUDGE), reject_below=0.2, accept_above=0.7)

    def problem(self) -> Problem:
        return PROBLEM

    def models(self) -> dict[str, Model]:
        return {"judge": Scripted(reply=by_words, identity="judge")}


async def solve(
    verifier: Verifier, *replies: str, problem: Problem = PROBLEM, judge: Any = by_words
) -> Outcome:
    models = {"default": Scripted(replies={"*": replies}), "judge": Scripted(reply=judge, identity="judge")}
    async with Session(models=models) as session:
        return await session.solve(Sample(n=len(replies)) | Verify(verifier=verifier), problem)


def said(outcome: Outcome) -> list[tuple[bool | None, str]]:
    return [(v.accepted, v.detail.split(":")[0]) for c in outcome.candidates for v in c.verdicts.values()]


async def test_the_dear_one_is_asked_only_where_the_cheap_one_cannot_decide() -> None:
    outcome = await solve(Cascade(verifiers=(Exact(), JUDGE)), "42", "41", "The answer is not 42.")
    assert said(outcome) == [(True, "exact"), (False, "exact"), (False, "judge")]
    assert outcome.by_model["judge"].requests == 1


async def test_where_the_cheap_one_knows_nothing_the_dear_one_decides_all() -> None:
    unknown = Problem.ask("What is 6 * 7?", id="p", answer="number")
    outcome = await solve(Cascade(verifiers=(Exact(), JUDGE)), "42", "41", problem=unknown)
    assert said(outcome) == [(True, "judge"), (False, "judge")]


async def test_where_nobody_decides_it_is_undecided_and_says_who_was_last() -> None:
    outcome = await solve(Cascade(verifiers=(Exact(), JUDGE)), "41 or 42", judge=lambda call: "Well.")
    assert said(outcome) == [(None, "judge")]
    assert said(await solve(Cascade(verifiers=()), "42")) == [(None, "no verifier decides")]


async def test_a_score_between_the_bounds_is_no_decision_but_the_last_one_s() -> None:
    def unsure(call: Any) -> Any:
        return words(0.6)

    asked = Problem.ask("Who?", id="p", info={"expected": "one two three four"})
    first = TokenF1(threshold=0.5)
    for accept_above, by in ((None, "token_f1"), (0.6, "token_f1"), (0.9, "judge")):
        cascade = Cascade(verifiers=(first, JUDGE), accept_above=accept_above)
        assert said(await solve(cascade, "one two three", problem=asked, judge=unsure)) == [(True, by)]
    for reject_below, by in ((None, "token_f1"), (0.5, "token_f1"), (0.3, "judge")):
        cascade = Cascade(verifiers=(first, JUDGE), reject_below=reject_below)
        ((accepted, who),) = said(await solve(cascade, "one", problem=asked, judge=unsure))
        assert (accepted, who) == (by == "judge", by)


def test_it_is_all_that_its_verifiers_are() -> None:
    three = Judge(model="other", n=3, read="text")
    cascade = Cascade(verifiers=(Regex(), JUDGE, three, JUDGE))
    assert cascade.models == ("judge", "other")
    assert cascade.calls_per_candidate == 5
    assert not cascade.applies(PROBLEM) or JUDGE.applies(PROBLEM)
    assert not Cascade(verifiers=(Regex(), Exact())).applies(Problem.ask("?"))
    assert Cascade(verifiers=(Regex(), Exact())).applies(PROBLEM)
    assert not cascade.together


def test_one_that_compares_candidates_is_given_all_of_them() -> None:
    class Comparing(Exact):
        together = True

    assert Cascade(verifiers=(Exact(), Comparing())).together


@pytest.mark.parametrize(
    ("scale", "score", "chance"),
    [("probability", 0.3, 0.3), ("fraction", 1.0, 1.0), ("logit", 0.0, 0.5), ("logit", -1e9, 0.0), ("rank", 1.0, None),
     ("score", 0.5, None), ("count", 3.0, None), ("probability", None, None)],
)  # fmt: skip
def test_a_chance_is_a_score_whose_scale_says_so(
    scale: Any, score: float | None, chance: float | None
) -> None:
    found = chance_of(Verdict("v", True, score, scale))
    assert found is chance is None or found == pytest.approx(chance, abs=1e-9)
