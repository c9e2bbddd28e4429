"""Weak verifiers' votes as one probability: what is recovered without labels, and how it is used."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Scale, Verdict
from archon.problem import Problem
from archon.session import Session
from archon.testing import VerifierCases
from archon.testing.stages import verified_samples
from archon.verifier import Verifier
from archon.verifiers.ensemble import Ensemble, Member
from archon.verifiers.exact import Exact
from archon.verifiers.judge import Judge
from archon.verifiers.regex import Regex
from archon.verifiers.votes import Fit, average, fit_latent, fit_logistic, logistic, posterior
from tests.verifiers.test_judge import by_words

PROBLEM = Problem.ask("What is 6 * 7?", id="p", answer="number", info={"expected": "42"})
RIGHT = (0.95, 0.80, 0.75, 0.65, 0.60)
WRONG = (0.05, 0.30, 0.30, 0.45, 0.50)
"""One good verifier among weak ones."""
Array = NDArray[np.float64]


def drawn(n: int, prior: float, seed: int = 0) -> tuple[Array, Array]:
    """Votes and truths of a world that is as the model says."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < prior
    rates = np.where(truth[:, None], RIGHT, WRONG)
    return (rng.random(rates.shape) < rates).astype(np.float64), truth.astype(np.float64)


class TestEnsemble(VerifierCases):
    def make_verifier(self) -> Verifier:
        exact = Member(verifier=Exact(), accepts_right=0.9, accepts_wrong=0.1)
        return Ensemble(members=(exact, Member(verifier=Judge(model="judge"))), prior=0.4, threshold=0.6)

    def problem(self) -> Problem:
        return PROBLEM

    def models(self) -> dict[str, Model]:
        return {"judge": Scripted(reply=by_words, identity="judge")}


# --- the models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [0.2, 0.5, 0.7])
def test_rates_are_recovered_without_labels(prior: float) -> None:
    votes, _ = drawn(20_000, prior)
    fit = fit_latent(votes)
    assert fit.prior == pytest.approx(prior, abs=0.06)
    assert fit.accepts_right == pytest.approx(np.array(RIGHT), abs=0.06)
    assert fit.accepts_wrong == pytest.approx(np.array(WRONG), abs=0.06)


def test_it_beats_the_average_and_comes_near_to_labels() -> None:
    votes, truth = drawn(4000, 0.4, seed=1)
    labelled, labels = drawn(4000, 0.4, seed=2)

    def accuracy(p: Array) -> float:
        return float(((p > 0.5) == (truth > 0.5)).mean())

    latent = accuracy(posterior(votes, fit_latent(votes)))
    plain = accuracy(average(votes))
    supervised = accuracy(logistic(votes, fit_logistic(labelled, labels)))
    assert latent > plain + 0.05
    assert latent > supervised - 0.02


def test_its_probabilities_are_calibrated() -> None:
    votes, truth = drawn(20_000, 0.4)
    p = posterior(votes, fit_latent(votes))
    error = 0.0
    for low in np.arange(0.0, 1.0, 0.1):
        these = (p >= low) & (p < low + 0.1)
        if these.any():
            error += abs(float(truth[these].mean() - p[these].mean())) * float(these.mean())
    assert error < 0.03


def test_what_is_given_is_kept_and_the_rest_estimated() -> None:
    votes, _ = drawn(2000, 0.4)
    fit = fit_latent(votes, prior=0.4, accepts_right=[0.9, None, None, None, None])
    assert fit.prior == 0.4 and fit.accepts_right[0] == 0.9
    assert fit.accepts_right[1] != 0.9 and 0 < fit.accepts_wrong[0] < 1


def test_the_posterior_is_bayes_rule() -> None:
    fit = Fit(0.3, np.array([0.9, 0.6]), np.array([0.2, 0.5]))
    yes_no = 0.3 * 0.9 * 0.4 / (0.3 * 0.9 * 0.4 + 0.7 * 0.2 * 0.5)
    only_yes = 0.3 * 0.9 / (0.3 * 0.9 + 0.7 * 0.2)
    given = posterior(np.array([[1, 0], [1, np.nan], [np.nan, np.nan]]), fit)
    assert given == pytest.approx(np.array([yes_no, only_yes, 0.3]))


def test_few_votes_give_no_certainty_and_no_votes_break_nothing() -> None:
    few: list[Any] = [[[1.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[np.nan, np.nan]], [[1.0]] * 3]
    for votes in map(np.array, few):
        p = posterior(votes, fit_latent(votes))
        assert ((p > 0.01) & (p < 0.99)).all()
    assert len(posterior(np.empty((0, 3)), fit_latent(np.empty((0, 3))))) == 0


def test_an_average_is_over_those_who_voted() -> None:
    assert average([[1, 0, np.nan], [np.nan, np.nan, np.nan]]) == pytest.approx(np.array([0.5, 0.5]))
    assert average([[1, 0, np.nan]], [3, 1, 5]) == pytest.approx(np.array([0.75]))


def test_labels_of_one_kind_do_not_break_the_fit() -> None:
    votes, _ = drawn(50, 0.5)
    fit = fit_logistic(votes, np.ones(50))
    assert np.isfinite(fit.weights).all() and np.isfinite(fit.bias)
    assert (logistic(votes, fit) > 0.5).all()


# --- the verifier ----------------------------------------------------------------------------------


class Says(Verifier):
    """Accepts by a table, with a score."""

    scale: ClassVar[Scale] = "fraction"
    table: dict[str, float]

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        scores = [self.table.get(c.text) for c in candidates]
        return [Verdict(self.name, None if s is None else s > 0.5, s, self.scale) for s in scores]


async def verdicts(verifier: Verifier, *replies: str) -> list[Verdict]:
    models = {"default": Scripted(replies={"*": replies}), "judge": Scripted(reply=by_words, identity="j")}
    async with Session(models=models) as session:
        outcome = await session.solve(verified_samples(len(replies), verifier), PROBLEM)
    return [c.verdicts[verifier.name] for c in outcome.candidates]


def says(**table: float) -> Member:
    return Member(verifier=Says(table=table))


async def test_those_that_agree_outvote_the_one_that_does_not() -> None:
    good, same, odd = says(a=1, b=0, c=1, d=0), says(a=1, b=0, c=1, d=0), says(a=1, b=1, c=0, d=0)
    a, b, c, d = await verdicts(Ensemble(members=(good, same, odd)), "a", "b", "c", "d")
    assert [v.accepted for v in (a, b, c, d)] == [True, False, True, False]
    assert None not in (a.score, c.score) and (a.score or 0) > (c.score or 0)
    assert c.detail == "2 of 3 votes for it"


async def test_methods_that_fit_nothing_use_scores_and_weights() -> None:
    members = (says(a=0.9, b=0.2), Member(verifier=Says(table={"a": 0.4}), weight=3.0))
    a, b, c = await verdicts(Ensemble(members=members, method="average"), "a", "b", "c")
    assert a.score == pytest.approx((0.9 + 3 * 0.4) / 4) and b.score == pytest.approx(0.2)
    assert (c.accepted, c.detail) == (None, "no member votes")
    (a,) = await verdicts(Ensemble(members=members, method="logistic", bias=1.0), "a")
    assert a.score == pytest.approx(1 / (1 + np.exp(-(0.4 - 3 * 0.1 + 1.0))))


async def test_what_is_known_of_a_member_counts_from_the_first_candidate_on() -> None:
    sure = Member(verifier=Exact(), accepts_right=0.99, accepts_wrong=0.01)
    right, wrong = await verdicts(Ensemble(members=(sure,), prior=0.5), "42", "41")
    assert right.score == pytest.approx(0.99) and wrong.score == pytest.approx(0.01)


def test_it_is_all_that_its_members_are() -> None:
    three = Member(verifier=Judge(model="judge", n=3, read="text"))
    one = Ensemble(members=(Member(verifier=Regex()), three, three))
    assert (one.models, one.calls_per_candidate, one.together) == (("judge",), 6, True)
    assert one.applies(PROBLEM) and not Ensemble(members=(Member(verifier=Regex()),)).applies(PROBLEM)


async def test_without_members_it_is_undecided() -> None:
    empty: Any = Ensemble(members=())
    assert [v.accepted for v in await verdicts(empty, "42")] == [None]
