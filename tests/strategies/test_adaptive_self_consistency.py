"""Adaptive self-consistency: the probabilities are what they say, and what is stopped is not paid for."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from archon.backends.replay import Replay
from archon.backends.scripted import Call, Reply, Scripted
from archon.errors import ConfigError, NotRecorded
from archon.stage import Count, Stage
from archon.strategies.adaptive_self_consistency import AdaptiveSelfConsistency, is_mode, leads
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.testing import StageCases
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import NUMBER, PROBLEM, ids, made, replies, solved

TABLE = [(0, 0), (1, 0), (3, 0), (4, 0), (5, 1), (6, 1), (7, 3), (20, 9), (200, 150)]


class TestAdaptiveSelfConsistency(StageCases):
    def make_stage(self) -> Stage:
        return AdaptiveSelfConsistency(rule="dirichlet", threshold=0.9, least=2, n=30)


# --- probabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("lead", "second"), TABLE)
def test_beta_is_the_integral_of_the_posterior(lead: int, second: int) -> None:
    log = math.lgamma(lead + second + 2) - math.lgamma(lead + 1) - math.lgamma(second + 1)

    def density(p: float) -> float:
        return math.exp(log + lead * math.log(p) + second * math.log1p(-p)) if 0 < p < 1 else 0.0

    integral, _ = quad(density, 0.5, 1, points=[(lead + 0.5) / (lead + second + 1)])
    assert leads(lead, second) == pytest.approx(integral, abs=1e-9)


def test_beta_by_hand() -> None:
    assert leads(0, 0) == pytest.approx(1 / 2)
    assert leads(3, 0) == pytest.approx(1 - Fraction(1, 16).__float__()), "below 0.95"
    assert leads(4, 0) == pytest.approx(1 - 1 / 32), "above it: four that agree are enough"
    assert leads(2, 1) == pytest.approx(11 / 16), "at most 2 heads of 4 flips"


@pytest.mark.parametrize("votes", [(1, 0), (4, 0), (5, 2), (12, 12), (900, 850)])
def test_of_two_answers_dirichlet_and_beta_are_the_same(votes: tuple[int, int]) -> None:
    assert is_mode(votes) == pytest.approx(leads(*votes), abs=1e-9)
    if not votes[1]:
        assert is_mode(votes[:1]) == pytest.approx(leads(*votes), abs=1e-9), "one that is yet to be seen"


def exact(votes: Sequence[int]) -> Fraction:
    """P(the first of independent Gamma(votes + 1) is the largest), by expanding every product of powers.

    P(Gamma(k + 1) < x) = 1 - exp(-x) * sum of x^i / i! for i <= k.
    """
    lead, *others = votes
    whole = Fraction(0)
    for chosen in product((False, True), repeat=len(others)):
        polynomial = {lead: Fraction(1, math.factorial(lead))}
        for count, taken in zip(others, chosen, strict=True):
            if taken:
                longer: dict[int, Fraction] = {}
                for power, factor in polynomial.items():
                    for i in range(count + 1):
                        longer[power + i] = longer.get(power + i, Fraction(0)) - factor / math.factorial(i)
                polynomial = longer
        rate = 1 + sum(chosen)
        whole += sum(f * math.factorial(p) / Fraction(rate) ** (p + 1) for p, f in polynomial.items())
    return whole


@pytest.mark.parametrize(
    "votes", [(0, 0), (3, 0), (1, 1, 1), (3, 2, 2), (6, 1, 1, 1), (5, 5, 0, 2), (9, 4, 3, 1, 1)]
)
def test_dirichlet_is_exact(votes: tuple[int, ...]) -> None:
    assert is_mode(votes) == pytest.approx(float(exact(votes)), abs=1e-10)


@pytest.mark.parametrize("votes", [(3, 2, 2), (10, 3, 3, 1, 1), (500, 450, 440), (1,) * 40])
def test_dirichlet_is_what_brute_force_counts(votes: tuple[int, ...]) -> None:
    draws = 100_000
    shares = np.random.default_rng(1).dirichlet(np.array(votes) + 1.0, size=draws)
    counted = float((shares.argmax(axis=1) == 0).mean())
    p = is_mode(votes)
    assert abs(counted - p) < 4 * math.sqrt(p * (1 - p) / draws)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_dirichlet_is_a_probability_that_no_further_answer_raises(votes: list[int]) -> None:
    p = is_mode(votes)
    assert 0 <= p <= 1
    assert is_mode([*votes, 0]) <= p + 1e-9


# --- decisions --------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["1", "2", "3", "no answer"]), min_size=1, max_size=24), st.data())
def test_majority_never_changes_the_answer_of_all(texts: list[str], data: Any) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    stage = AdaptiveSelfConsistency(rule="majority")
    votes: Counter[str] = Counter()
    seen: list[int] = []
    for place in order:
        seen.append(place)
        if texts[place] != "no answer":
            votes[texts[place]] += 1
        if stage.decided(list(votes.values()), len(texts) - len(seen)):
            break
    some = MajorityVote().choose(NUMBER, [made(texts[i], i) for i in sorted(seen)])
    every = MajorityVote().choose(NUMBER, [made(text, i) for i, text in enumerate(texts)])
    assert [c.text for c in some] == [c.text for c in every]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 12))
def test_majority_stops_as_soon_as_nothing_can_change(votes: list[int], left: int) -> None:
    stage = AdaptiveSelfConsistency(rule="majority")
    lead, *others = sorted(votes, reverse=True)
    overtaken = max(others, default=0) + left >= lead
    assert stage.decided(votes, left) is not overtaken


@pytest.mark.parametrize("rule", ["beta", "dirichlet"])
def test_the_threshold_decides(rule: Any) -> None:
    at = AdaptiveSelfConsistency(rule=rule, threshold=0.95)
    assert not at.decided([3], 99) and at.decided([4], 99)
    assert not at.decided([6, 2], 99) and at.decided([8, 2], 99)
    assert not AdaptiveSelfConsistency(rule=rule, threshold=0.99).decided([5], 99)
    assert not at.decided([], 99), "nobody has voted"


def test_dirichlet_is_the_stricter_one() -> None:
    votes = [6, 1, 1, 1, 1]
    assert AdaptiveSelfConsistency(rule="beta").decided(votes, 9)
    assert not AdaptiveSelfConsistency(rule="dirichlet").decided(votes, 9)


# --- what is paid -----------------------------------------------------------------------------------


def unanimous(latency: float = 1.0, **settings: Any) -> Scripted:
    """Everybody answers 7, sample after sample a little later."""
    return Scripted(
        reply=lambda call: Reply("#### 7", latency=latency * (1 + 0.01 * call.index)),
        identity="unanimous",
        **settings,
    )


def pipeline(n: int = 64, wave: int | None = None, **fields: Any) -> Any:
    return Sample(n=n, wave=wave) | AdaptiveSelfConsistency(**fields) | MajorityVote()


def paid(pipeline: Any, model: Any, **settings: Any) -> tuple[int, int]:
    """Samples that were paid for, and those that were looked at."""
    outcome, backend = patiently(solved(pipeline, model, NUMBER, store=InstantStore(), **settings))
    assert outcome.answer == "#### 7" and outcome.stopped == "early"
    assert len(backend.calls) == outcome.usage.requests
    assert backend.in_flight == 0
    return outcome.usage.requests, len(outcome.candidates)


def test_one_after_the_other_pays_for_what_it_looks_at() -> None:
    assert paid(pipeline(wave=1), unanimous()) == (4, 4)
    assert paid(pipeline(wave=1, threshold=0.99), unanimous()) == (6, 6)
    assert paid(pipeline(wave=1, least=10), unanimous()) == (10, 10)
    assert paid(pipeline(wave=1, n=9, rule="majority"), unanimous()) == (5, 5)


@pytest.mark.parametrize("wave", [1, 2, 3, 8])
def test_at_most_a_wave_is_under_way_beyond_what_was_decided_on(wave: int) -> None:
    """When the fourth decides, three were decided on, and a wave is under way, the fourth in it."""
    assert paid(pipeline(wave=wave), unanimous())[0] == 3 + wave


def test_of_a_wave_that_comes_at_once_nothing_more_is_asked_for() -> None:
    model = Scripted(reply=lambda call: Reply("#### 7", latency=1.0), identity="at once")
    assert paid(pipeline(wave=8), model)[0] == 8
    assert paid(pipeline(wave=8, least=9), model)[0] == 16


def test_without_a_wave_all_are_asked_for() -> None:
    assert paid(pipeline(n=20), unanimous()) == (20, 4)


@pytest.mark.parametrize("wave", [1, 3, 8])
def test_recorded_samples_are_taken_a_wave_at_a_time(wave: int) -> None:
    Path("recorded.jsonl").write_text(json.dumps({"id": NUMBER.id, "samples": ["#### 7"] * 64}))
    model = Replay(path=Path("recorded.jsonl"))
    outcome, _ = patiently(solved(pipeline(wave=wave), model, NUMBER, store=InstantStore()))
    assert outcome.usage.requests <= 3 + wave
    if wave == 1:
        assert outcome.usage.requests == 4


def test_a_failed_sample_makes_room_for_another() -> None:
    def reply(call: Call) -> Reply:
        if call.index % 2:
            raise NotRecorded("lost")
        return Reply("#### 7", latency=1.0)

    model = Scripted(reply=reply, identity="every other is lost")
    outcome, backend = patiently(solved(pipeline(wave=2), model, NUMBER, store=InstantStore()))
    assert ids(outcome.candidates) == [0, 2, 4, 6] and len(outcome.failures) >= 3
    assert backend.most_in_flight <= 2


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=20),
    latencies=st.lists(st.integers(0, 5), min_size=20, max_size=20),
    wave=st.integers(1, 9),
    rule=st.sampled_from(["beta", "dirichlet", "majority"]),
)
def test_never_more_than_a_wave_is_open(texts: list[str], latencies: list[int], wave: int, rule: Any) -> None:
    model = replies(*texts, latencies=[float(s) for s in latencies])
    whole = pipeline(n=len(texts), wave=wave, rule=rule, threshold=0.8)
    outcome, backend = patiently(solved(whole, model, NUMBER, store=InstantStore()))
    looked_at = len(outcome.candidates)
    assert backend.most_in_flight <= wave
    assert looked_at <= len(backend.calls) <= min(len(texts), looked_at - 1 + wave)
    if rule == "majority":
        every, _ = patiently(
            solved(Sample(n=len(texts)) | MajorityVote(), model, NUMBER, store=InstantStore())
        )
        assert outcome.answer == every.answer


@pytest.mark.parametrize("wave", [None, 1, 4])
def test_again_it_makes_no_call_and_stops_at_the_same_sample(wave: int | None) -> None:
    texts = ["1", "2", "1", "1", "2", "1", "1", "1", "1", "3"] + ["1"] * 30
    runs = []
    for _ in range(2):
        model = replies(*texts, latencies=[1 + (7 * i % 5) for i in range(40)])
        whole = pipeline(n=40, wave=wave)
        runs.append(patiently(solved(whole, model, NUMBER, store=InstantStore("again.sqlite"))))
    (first, _), (again, backend) = runs
    assert backend.calls == []
    assert (again.chosen, ids(again.candidates), again.usage) == (
        first.chosen,
        ids(first.candidates),
        first.usage,
    )


def test_its_samples_are_those_of_plain_self_consistency() -> None:
    """So a vote over all of them, later, pays for the rest only."""

    async def work() -> None:
        for whole, calls in ((pipeline(n=20, wave=1), 4), (Sample(n=20) | MajorityVote(), 16)):
            outcome, backend = await solved(whole, unanimous(0.0), NUMBER, store="shared.sqlite")
            assert len(backend.calls) == calls
        assert outcome.usage.requests == 20

    asyncio.run(work())


def test_any_selector_may_follow_and_gets_what_was_looked_at() -> None:
    outcome, _ = patiently(
        solved(Sample(n=30, wave=1) | AdaptiveSelfConsistency(), unanimous(), NUMBER, store=InstantStore())
    )
    assert ids(outcome.final) == [0, 1, 2, 3]


def test_n_bounds_what_is_looked_at() -> None:
    texts = [str(i) for i in range(9)]
    whole = Sample(n=9, wave=1) | AdaptiveSelfConsistency(n=5)
    outcome, backend = patiently(solved(whole, replies(*texts), PROBLEM, store=InstantStore()))
    assert ids(outcome.final) == [0, 1, 2, 3, 4] and len(backend.calls) == 5


# --- its place --------------------------------------------------------------------------------------


class Endless(Stage):
    """Nobody knows how many."""

    takes: ClassVar[bool] = False

    async def run(self, problem: Any, candidates: Any, run: Any) -> Any:
        async for candidate in run.sample("default", n=3):
            yield candidate

    def plan(self, incoming: Count) -> Any:
        return super().plan(incoming)._replace(passes=Count(0, None))


def test_the_majority_must_know_how_many_there_will_be() -> None:
    with pytest.raises(ConfigError, match="Give `n`"):
        (Endless() | AdaptiveSelfConsistency(rule="majority")).graph()
    (Endless() | AdaptiveSelfConsistency(rule="majority", n=5)).graph()
    (Endless() | AdaptiveSelfConsistency(rule="beta")).graph()


def test_of_several_sources_it_counts_them_all() -> None:
    both = (Sample(n=2) & Sample(n=3)) | AdaptiveSelfConsistency(rule="majority")
    outcome, _ = patiently(solved(both, unanimous(), NUMBER, store=InstantStore()))
    assert len(outcome.candidates) == 3, "of five"


@pytest.mark.parametrize(
    "fields", [{"threshold": 1}, {"threshold": 0}, {"least": 0}, {"n": 0}, {"rule": "x"}]
)
def test_what_makes_no_sense_is_refused(fields: Any) -> None:
    with pytest.raises(ValueError):
        AdaptiveSelfConsistency(**fields)
    with pytest.raises(ValueError):
        Sample(wave=0)
