"""Reward models as verifiers: how a reply is cut, how scores become one, what is accepted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome, Verdict
from archon.config import load
from archon.errors import CapabilityError, ConfigError
from archon.problem import Problem
from archon.session import Session
from archon.steps import Delimiter, aggregated, convert, cut
from archon.strategies.best_of import BestOf
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import VerifierCases
from archon.verifier import Verifier
from archon.verifiers.reward import Reward

PROBLEM = Problem.ask("What is 6 * 7?", id="p", answer="number")


def doubtful(text: str) -> float:
    """Surer with every step, except of the answer 41."""
    return 0.1 if "41" in text else min(0.9, 0.5 + 0.1 * text.count("\n"))


class TestReward(VerifierCases):
    def make_verifier(self) -> Verifier:
        return Reward(model="prm", threshold=0.5, aggregate="min")

    def problem(self) -> Problem:
        return PROBLEM

    def models(self) -> dict[str, Model]:
        def surely(text: str) -> float:
            return 0.9 if text == "42" else 0.1

        return {"prm": Scripted(score=surely)}


def prm(**settings: Any) -> Scripted:
    return Scripted(**{"score": doubtful, **settings})


async def solve(
    verifier: Reward, model: Scripted, *replies: str, requests: int | None = None, **settings: Any
) -> Outcome:
    models = {"default": Scripted(replies={"*": replies}), "reward": model}
    budget = Budgets(problem=Budget(requests=requests))
    async with Session(models=models, budget=budget, **settings) as session:
        return await session.solve(Sample(n=len(replies)) | Verify(verifier=verifier), PROBLEM)


async def verdict(verifier: Reward, model: Scripted, reply: str) -> Verdict:
    outcome = await solve(verifier, model, reply)
    return outcome.candidates[0].verdicts["reward"]


# --- verdicts --------------------------------------------------------------------------------------


async def test_without_a_threshold_it_scores_and_does_not_decide() -> None:
    said = await verdict(Reward(), prm(), "a\nb\n42")
    assert (said.accepted, said.score, said.scale, said.status) == (None, 0.7, "probability", "undecided")
    assert said.detail == "3 steps, the lowest 0.6 at step 1"


@pytest.mark.parametrize(("threshold", "accepted"), [(0.7, True), (0.71, False), (None, None)])
async def test_it_accepts_from_the_threshold_on(threshold: float | None, accepted: bool | None) -> None:
    assert (await verdict(Reward(threshold=threshold), prm(), "a\nb\n42")).accepted is accepted


@pytest.mark.parametrize(
    ("aggregate", "score"), [("last", 0.7), ("min", 0.6), ("mean", 2 / 3), ("product", 0.6 * 0.7 * 0.7)]
)
async def test_the_scores_of_steps_become_one(aggregate: Any, score: float) -> None:
    said = await verdict(Reward(aggregate=aggregate), prm(), "a\nb\n42")
    assert said.score == pytest.approx(score, rel=1e-12)


async def test_an_empty_answer_is_wrong_and_costs_nothing() -> None:
    outcome = await solve(Reward(), prm(), " \n", "42")
    empty, other = (c.verdicts["reward"] for c in outcome.candidates)
    assert (empty.accepted, empty.score, empty.status) == (False, None, "wrong")
    assert other.score == 0.5
    assert outcome.by_model["reward"].requests == 1


async def test_probabilities_as_logits_and_logits_as_probabilities() -> None:
    as_logit = await verdict(Reward(score_as="logit"), prm(), "a\nb\n42")
    assert as_logit.scale == "logit" and as_logit.score == pytest.approx(math.log(0.7 / 0.3))
    back = await verdict(
        Reward(score_as="probability"), Scripted(score=lambda text: -1.5, score_scale="logit"), "42"
    )
    assert back.scale == "probability" and back.score == pytest.approx(1 / (1 + math.exp(1.5)))


@pytest.mark.parametrize(
    "verifier", [Reward(aggregate="product"), Reward(score_as="probability"), Reward(score_as="logit")]
)
async def test_uncalibrated_scores_are_not_taken_for_probabilities(verifier: Reward) -> None:
    with pytest.raises(CapabilityError, match="uncalibrated"):
        await solve(verifier, prm(score_scale="score"), "42")
    said = await verdict(Reward(threshold=0.2), prm(score_scale="score"), "42")
    assert (said.scale, said.accepted) == ("score", True)


async def test_an_outcome_model_gives_one_score_however_it_is_aggregated() -> None:
    for aggregate in ("last", "min", "product", "mean"):
        said = await verdict(Reward(aggregate=aggregate), prm(scores="outcome"), "a\nb\n42")
        assert said.score == pytest.approx(0.7) and said.detail == ""


async def test_a_prefix_scorer_says_the_same_as_one_that_scores_in_one_pass() -> None:
    replies = ("a\nb\n42", "a\nc\n41", "a\n")
    one, many = [await solve(Reward(), prm(scores=scores), *replies) for scores in ("steps", "prefix")]
    assert [c.verdicts for c in one.candidates] == [c.verdicts for c in many.candidates]
    assert (one.by_model["reward"].requests, many.by_model["reward"].requests) == (3, 6)


async def test_best_of_takes_the_highest_score() -> None:
    models = {"default": Scripted(replies={"*": ("41", "a\nb\n42", "a\n42")}), "reward": prm()}
    async with Session(models=models) as session:
        outcome = await session.solve(Sample(n=3) | Verify(verifier=Reward()) | BestOf(), PROBLEM)
    assert outcome.answer == "a\nb\n42"


async def test_where_the_budget_ends_the_rest_has_no_score() -> None:
    outcome = await solve(Reward(threshold=0.5), prm(), "42", "43", "44", requests=4)
    said = [c.verdicts["reward"] for c in outcome.candidates]
    assert sorted(str(v.accepted) for v in said) == ["None", "None", "True"]
    assert outcome.stopped == "budget"


async def test_a_replay_asks_nobody_and_says_the_same() -> None:
    first = await solve(Reward(), prm(max_n=4), "42", "41", "a\n43", store="s.sqlite")
    again = await solve(Reward(), prm(max_n=4), "42", "41", "a\n43", store="s.sqlite")
    assert again.fresh.requests == 0 and again.usage == first.usage
    assert [dict(c.verdicts) for c in again.candidates] == [dict(c.verdicts) for c in first.candidates]


async def test_another_aggregation_costs_no_call() -> None:
    await solve(Reward(aggregate="min"), prm(), "a\nb\n42", store="s.sqlite")
    again = await solve(Reward(aggregate="product"), prm(), "a\nb\n42", store="s.sqlite")
    assert again.fresh.requests == 0


def test_it_is_named_in_a_file_with_its_mistakes() -> None:
    text = (
        "models: {default: {backend: scripted}, prm: {backend: scripted}}\n"
        "pipeline:\n  - sample: {}\n  - verify: {verifier: {reward: %s}}\n"
    )
    loaded = load(text % "{model: prm, aggregate: min, steps: {delimiter: ' ### '}}", "yaml")
    assert Reward(model="prm", aggregate="min", steps=Delimiter(delimiter=" ### ")) in [
        getattr(node.stage, "verifier", None) for node in loaded.pipeline.nodes
    ]
    for wrong in ("{aggregate: max}", "{score_as: probability, threshold: 2}", "{steps: word}"):
        with pytest.raises(ConfigError):
            load(text % wrong, "yaml")


# --- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "by", "steps"),
    [
        ("", "newline", ("",)),
        ("a", "newline", ("a",)),
        ("a\nb", "newline", ("a\n", "b")),
        ("a\nb\n", "newline", ("a\n", "b\n")),
        ("a\n\n  b\n \n", "newline", ("a\n\n", "  b\n \n")),
        ("\n\na\nb", "newline", ("\n\na\n", "b")),
        ("a\nb\n\nc\n \n\nd", "blank_line", ("a\nb\n\n", "c\n \n\n", "d")),
        ("a## b##", Delimiter(delimiter="##"), ("a##", " b##")),
        (".*", Delimiter(delimiter="."), (".", "*")),
    ],
)
def test_a_reply_is_cut_where_its_steps_end(text: str, by: Any, steps: tuple[str, ...]) -> None:
    assert cut(text, by) == steps


@given(st.text(alphabet="ab \n\r\t#"), st.sampled_from(["newline", "blank_line", Delimiter(delimiter="#")]))
def test_no_cut_loses_or_adds_a_character_or_leaves_an_empty_step(text: str, by: Any) -> None:
    steps = cut(text, by)
    assert "".join(steps) == text
    assert len(steps) == 1 or all(step.strip() for step in steps)


def test_a_candidate_that_was_written_in_steps_keeps_them() -> None:
    written = Candidate("s#0", "a\nb\nc", steps=("a\nb\n", "c"))
    assert Reward().cut(written) == ("a\nb\n", "c")
    assert Reward().cut(Candidate("s#0", "a\nb\nc", steps=("other",))) == ("a\n", "b\n", "c")


# --- arithmetic ------------------------------------------------------------------------------------


def test_a_product_of_ten_thousand_is_exact() -> None:
    assert aggregated([1 - 1e-9] * 10_000, "product") == pytest.approx(math.exp(10_000 * math.log1p(-1e-9)))
    assert aggregated([0.5] * 1000, "product") == pytest.approx(0.5**1000, rel=1e-12)
    assert aggregated([0.1] * 10_000, "product") == 0.0, "no underflow on the way, only at its end"
    log = -10_000 * math.log1p(math.exp(-20))
    logit = aggregated([20.0] * 10_000, "product", "logit")
    assert logit == pytest.approx(log - math.log(-math.expm1(log)))


def test_a_product_of_logits_is_a_logit_as_far_as_numbers_reach() -> None:
    assert aggregated([-800.0] * 3, "product", "logit") == pytest.approx(-2400.0)
    assert aggregated([700.0], "product", "logit") == pytest.approx(700.0)
    assert math.isfinite(aggregated([1e6] * 3, "product", "logit"))


def test_zero_and_one_stay_what_they_are() -> None:
    assert aggregated([0.0, 1.0], "product") == 0.0
    assert aggregated([1.0, 1.0], "product") == 1.0
    for probability in (0.0, 1.0):
        assert convert(convert(probability, "probability", "logit"), "logit", "probability") == pytest.approx(
            probability
        )
    assert math.isfinite(convert(1.0, "probability", "logit"))


def test_a_mean_adds_without_rounding() -> None:
    assert aggregated([0.1] * 10_000, "mean") == 0.1
    assert aggregated([1e16, 1.0, -1e16, 1.0], "mean", "logit") == 0.5


def test_of_no_scores_nothing_can_be_made() -> None:
    with pytest.raises(ValueError, match="no scores"):
        aggregated([], "mean")


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=50))
def test_a_product_is_the_same_on_both_scales_and_below_the_lowest(scores: list[float]) -> None:
    product = aggregated(scores, "product")
    logits = [convert(score, "probability", "logit") for score in scores]
    assert convert(aggregated(logits, "product", "logit"), "logit", "probability") == pytest.approx(product)
    assert product <= aggregated(scores, "min") * (1 + 1e-12) <= aggregated(scores, "mean") * (1 + 1e-9)
    assert aggregated(scores[:1], "product") == pytest.approx(scores[0])


@given(st.floats(1e-300, 1 - 1e-12))
def test_a_probability_comes_back_from_its_logit(probability: float) -> None:
    there = convert(probability, "probability", "logit")
    assert convert(there, "logit", "probability") == pytest.approx(probability, rel=1e-9)
