"""Objectives: what each says of a problem, what none of them pretends to know, and evaluations as data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from decimal import Decimal
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon import registry
from archon.benchmarks.results import Record
from archon.benchmarks.statistics.passk import pass_at_k as theirs
from archon.config.build import component
from archon.errors import ConfigError, UnpricedModel, UserError
from archon.search.objectives import (
    Accuracy,
    Coverage,
    Evaluation,
    Flops,
    Latency,
    Objective,
    PassAtK,
    Tokens,
    Usd,
    Utility,
    pass_at_k,
)
from archon.usage import Usage

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
COUNTS = st.integers(0, 10**12)
USAGES = st.builds(
    Usage,
    requests=COUNTS,
    prompt_tokens=COUNTS,
    completion_tokens=COUNTS,
    usd=st.decimals(0, 1000, places=9),
    flops=COUNTS,
    seconds=st.floats(0, 1e6),
    unpriced=COUNTS,
)
EVALUATIONS = st.builds(
    Evaluation,
    problem=st.text(max_size=5),
    right=st.floats(0, 1),
    answered=st.booleans(),
    accepted=st.sampled_from([True, False, None]),
    samples=st.just(7),
    right_samples=st.integers(0, 7),
    outcome=st.sampled_from(["solved", "wrong", "cancelled"]),
    usage=USAGES,
    fresh=USAGES,
    seconds=st.none() | st.floats(0, 1e6),
)
BOUNDED = [
    Accuracy(),
    Coverage(),
    PassAtK(k=3),
    PassAtK(k=9),
    Utility(false_positive=4),
    Utility(accepted_only=True),
]


@QUICK
@given(EVALUATIONS)
def test_an_evaluation_comes_back_from_json_exactly(evaluation: Evaluation) -> None:
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.as_json()))) == evaluation


@QUICK
@given(EVALUATIONS, st.sampled_from(BOUNDED))
def test_values_lie_in_the_range_that_is_stated(evaluation: Evaluation, objective: Objective) -> None:
    value = objective.value(evaluation)
    assert objective.low <= value <= objective.high
    assert 0 <= objective.scaled(value) <= 1
    assert objective.scaled(objective.high) == 1 and objective.scaled(objective.low) == 0
    assert objective.signed(value) == value


def test_accuracy_is_of_the_chosen_answer_and_coverage_of_any() -> None:
    chosen_wrong = Evaluation("p", right=0.0, samples=4, right_samples=3)
    assert Accuracy().value(chosen_wrong) == 0 and Coverage().value(chosen_wrong) == 1
    nothing = Evaluation("p", answered=False)
    assert Accuracy().value(nothing) == Coverage().value(nothing) == PassAtK(k=2).value(nothing) == 0


@QUICK
@given(st.integers(1, 40), st.data())
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)
    assert pass_at_k(n, c, k) == pytest.approx(float(theirs([n], [c], [k])[0, 0]), abs=1e-12)


def test_pass_at_k_of_a_million_samples_is_no_rounding_error() -> None:
    assert pass_at_k(10**6, 1, 1) == pytest.approx(1e-6, rel=1e-9)
    with pytest.raises(ValueError, match="k=3"):
        pass_at_k(2, 1, 3)


def test_of_fewer_than_k_samples_the_others_count_as_wrong() -> None:
    assert PassAtK(k=10).value(Evaluation("p", samples=4, right_samples=1)) == 1
    assert PassAtK(k=10).value(Evaluation("p", samples=4, right_samples=0)) == 0
    assert PassAtK(k=2).value(Evaluation("p", samples=4, right_samples=1)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("evaluation", "worth"),
    [
        (Evaluation("p", right=1.0), 1),
        (Evaluation("p", right=0.0), -4),
        (Evaluation("p", right=0.5), -1.5),
        (Evaluation("p", answered=False), 0),
        (Evaluation("p", right=0.0, accepted=False), -4),
    ],
)
def test_utility_prices_what_is_answered_and_wrong(evaluation: Evaluation, worth: float) -> None:
    assert Utility(false_positive=4).value(evaluation) == worth


def test_what_no_verifier_accepted_may_count_as_no_answer() -> None:
    careful = Utility(false_positive=4, accepted_only=True)
    assert careful.value(Evaluation("p", right=0.0, accepted=False)) == 0
    assert careful.value(Evaluation("p", right=1.0, accepted=None)) == 0
    assert careful.value(Evaluation("p", right=0.0, accepted=True)) == -4


def test_costs_are_minimised_and_scaled_below_a_given_bound() -> None:
    evaluation = Evaluation("p", usage=Usage(requests=2, prompt_tokens=30, completion_tokens=10))
    tokens = Tokens()
    assert tokens.value(evaluation) == 40
    assert tokens.signed(40) == -40
    assert tokens.scaled(40, most=160) == 0.75 and tokens.scaled(500, most=160) == 0
    with pytest.raises(ValueError, match="no bound"):
        tokens.scaled(40)


def test_what_is_not_known_is_an_error_and_never_zero() -> None:
    evaluation = Evaluation("p7", usage=Usage(requests=3, unpriced=1, unsized=3, usd=Decimal("0.5")))
    for objective in (Usd(), Flops(), Latency()):
        with pytest.raises(UserError, match="'p7'"):
            objective.value(evaluation)
    with pytest.raises(UnpricedModel, match="1 of its calls"):
        Usd().mean([evaluation])
    assert Usd().value(Evaluation("p", usage=Usage(requests=1, usd=Decimal("0.25")))) == 0.25


def test_the_mean_is_over_problems() -> None:
    rights = [Evaluation(str(i), right=float(i % 3 == 0)) for i in range(9)]
    assert Accuracy().mean(rights) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="needs a problem"):
        Accuracy().mean([])


def test_objectives_are_found_by_name() -> None:
    assert component("objective", "accuracy") == Accuracy()
    assert component("objective", {"utility": {"false_positive": 2}}) == Utility(false_positive=2.0)
    with pytest.raises(ConfigError, match="accuracy"):
        component("objective", "acuracy")
    with pytest.raises(ConfigError, match="'k' is missing"):
        component("objective", "pass_at_k")
    for name in registry.names("objective"):
        found = registry.find("objective", name)
        assert found.name == name and found.__doc__
        assert found.direction == "maximise" or found.unit


def test_an_evaluation_is_made_from_a_line_of_results() -> None:
    used = Usage(requests=4, prompt_tokens=40, completion_tokens=8)
    record = Record(
        id="p",
        outcome="wrong",
        selected=1,
        truth=[True, False, True],
        verdicts={
            "tests": {"accepted": [False, True, None], "score": [0, 1, None]},
            "rank": {"accepted": [None, None, None], "score": [1, 2, 3]},
        },
        usage=used.exact(),
        fresh=used.exact(),
        seconds=2.5,
    )
    made = Evaluation.of_record(asdict(record))
    assert made == Evaluation("p", 0.0, True, True, 3, 2, "wrong", used, used, 2.5)
    record.fresh = Usage(requests=1).exact()
    assert Evaluation.of_record(json.loads(record.line())).seconds is None, "a replay is no measurement"
    record.selected, record.outcome = None, "abstained"
    abstained = Evaluation.of_record(asdict(record))
    assert (abstained.answered, abstained.accepted, abstained.right) == (False, None, 0.0)
    assert abstained.some_right == 1.0


def test_no_bound_is_infinite() -> None:
    assert Tokens().high == math.inf and Tokens().low == 0
