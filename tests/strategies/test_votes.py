"""Majority and weighted votes: against references, with ties, abstentions, odd scores, and 10,000 voters."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.candidate import Candidate, Scale, Verdict
from archon.pipeline import Node, Pipeline
from archon.problem import Problem
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.selection import Selector
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import NUMBER, PROBLEM, ids, made, replies, solved, table

UNREADABLE = "no idea"

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", UNREADABLE]), max_size=14)
EIGHTHS = st.integers(0, 64).map(lambda n: n / 8)
"""Weights whose sums are exact in any order."""


def chosen(selector: Selector, candidates: list[Candidate], problem: Problem = NUMBER) -> list[int]:
    return ids(selector.choose(problem, candidates))


def voters(answers: list[str], weights: list[float] | None = None, scale: Scale = "score") -> list[Candidate]:
    if weights is None:
        return [made(a, i, judged=False) for i, a in enumerate(answers)]
    return [made(a, i, w, scale=scale) for i, (a, w) in enumerate(zip(answers, weights, strict=True))]


def reference(answers: list[str], weights: list[Fraction]) -> list[int]:
    """Of the answers with the largest sum, the one given first; the candidate that gave it first."""
    sums: dict[str, Fraction] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer != UNREADABLE:
            sums[answer] = sums.get(answer, Fraction(0)) + weight
    if not sums:
        return []
    winners = [a for a, s in sums.items() if s == max(sums.values())]
    return [min(answers.index(a) for a in winners)]


# --- majority ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(ANSWERS)
def test_the_most_frequent_readable_answer_wins_and_the_earliest_of_equals(answers: list[str]) -> None:
    assert chosen(MajorityVote(), voters(answers)) == reference(answers, [Fraction(1)] * len(answers))


@settings(max_examples=100, deadline=None)
@given(ANSWERS, st.data())
def test_the_winning_answer_does_not_depend_on_the_order_of_the_voters(
    answers: list[str], data: st.DataObject
) -> None:
    counts = Counter(a for a in answers if a != UNREADABLE).most_common()
    if len(counts) > 1 and counts[0][1] == counts[1][1]:
        return  # a tie goes to the earliest
    candidates = voters(answers)
    shuffled = data.draw(st.permutations(candidates))
    said = [[c.text for c in MajorityVote().choose(NUMBER, cs)] for cs in (candidates, shuffled)]
    assert said[0] == said[1]


@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_one_more_vote_for_the_winner_changes_nothing(answers: list[str]) -> None:
    before = chosen(MajorityVote(), voters(answers))
    if before:
        assert chosen(MajorityVote(), voters([*answers, answers[before[0]]])) == before


def test_who_cannot_be_read_does_not_vote_and_if_nobody_can_it_abstains() -> None:
    assert chosen(MajorityVote(), voters([UNREADABLE, UNREADABLE, "7"])) == [2]
    assert chosen(MajorityVote(), voters([UNREADABLE] * 5)) == []
    assert chosen(MajorityVote(), voters(["", "  ", "\n"]), PROBLEM) == []


async def test_an_abstention_chooses_nothing_and_keeps_the_candidates() -> None:
    outcome, _ = await solved(Sample(n=3) | MajorityVote(), replies(*[UNREADABLE] * 3), NUMBER)
    assert (outcome.chosen, outcome.answer, outcome.final) == (None, None, ())
    assert len(outcome.candidates) == 3 and outcome.stopped == "complete"


@pytest.mark.parametrize("selector", [MajorityVote(), WeightedVote()])
def test_none_of_none_and_one_of_one(selector: Selector) -> None:
    assert chosen(selector, []) == []
    assert chosen(selector, voters(["4"])) == [0]
    assert chosen(selector, voters([UNREADABLE])) == []


def test_ten_thousand_voters_and_one_vote_decides() -> None:
    answers = [str(i % 2) for i in range(10_000)]
    assert chosen(MajorityVote(), voters(answers)) == [0], "5,000 each: the earliest"
    assert chosen(MajorityVote(), voters([*answers, "1"])) == [1]
    nearly = [1.0 if a == "0" else 1.0001 for a in answers]
    assert chosen(WeightedVote(), voters(answers, nearly)) == [1]


# --- weighted ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "2", "3", UNREADABLE]), EIGHTHS), max_size=14))
def test_the_answer_with_the_largest_sum_of_scores_wins(ballots: list[tuple[str, float]]) -> None:
    answers, weights = [a for a, _ in ballots], [w for _, w in ballots]
    expected = reference(answers, [Fraction(w) for w in weights])
    assert chosen(WeightedVote(), voters(answers, weights)) == expected


@settings(max_examples=100, deadline=None)
@given(ANSWERS, st.sampled_from([0.125, 1.0, 3.0]))
def test_with_equal_scores_it_is_the_majority_vote(answers: list[str], score: float) -> None:
    weighted = chosen(WeightedVote(), voters(answers, [score] * len(answers)))
    assert weighted == chosen(MajorityVote(), voters(answers))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=8, unique_by=lambda s: round(s, 3)))
def test_if_all_answers_differ_it_is_the_best_of_n(scores: list[float]) -> None:
    answers = [str(i) for i in range(len(scores))]
    assert chosen(WeightedVote(), voters(answers, scores)) == [scores.index(max(scores))]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "2"]), st.integers(-6, 6)), min_size=1, max_size=8))
def test_logits_count_as_their_probabilities(ballots: list[tuple[str, int]]) -> None:
    sums = {"1": 0.0, "2": 0.0}
    for answer, logit in ballots:
        sums[answer] += sigmoid(logit)
    if abs(sums["1"] - sums["2"]) < 1e-6:
        return
    (winner,) = WeightedVote().choose(
        NUMBER, voters([a for a, _ in ballots], [float(x) for _, x in ballots], "logit")
    )
    assert winner.text == max(sums, key=lambda a: sums[a])


def test_an_extreme_logit_is_a_certainty_and_no_overflow() -> None:
    votes = voters(["1", "1", "2"], [-1e308, -math.inf, 800.0], "logit")
    assert chosen(WeightedVote(), votes) == [2]
    assert chosen(WeightedVote(), voters(["1", "2", "2"], [math.inf, 0.0, 0.5], "logit")) == [1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "2"]), st.integers(1, 9)), min_size=1, max_size=8))
def test_ranks_count_as_their_reciprocals(ballots: list[tuple[str, int]]) -> None:
    answers, ranks = [a for a, _ in ballots], [r for _, r in ballots]
    expected = reference(answers, [Fraction(1, r) for r in ranks])
    assert chosen(WeightedVote(), voters(answers, [float(r) for r in ranks], "rank")) == expected


@pytest.mark.parametrize("scale", ["probability", "fraction", "count", "score"])
def test_other_scales_count_as_they_are(scale: Scale) -> None:
    weights = [0.25, 0.25, 0.5, 0.125]
    assert chosen(WeightedVote(), voters(["1", "1", "2", "2"], weights, scale)) == [2]


def test_the_unscored_count_nothing_but_their_answer_stands_where_no_other_does() -> None:
    votes = [made("1", i, None) for i in range(5)] + [made("2", 5, 0.1)]
    assert chosen(WeightedVote(), votes) == [5]
    assert chosen(WeightedVote(), votes[:5]) == [0]
    assert chosen(WeightedVote(), [made("1", 0, judged=False), made("2", 1, math.nan)]) == [0]


def test_an_infinite_score_outweighs_any_number_of_others() -> None:
    assert chosen(WeightedVote(), voters(["1"] * 1000 + ["2"], [1e6] * 1000 + [math.inf])) == [1000]


def test_sums_of_the_same_votes_in_another_order_are_a_tie() -> None:
    weights = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1]  # 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1
    assert chosen(WeightedVote(), voters(["1", "1", "1", "2", "2", "2"], weights)) == [0]
    assert chosen(WeightedVote(), voters(["2", "2", "2", "1", "1", "1"], weights)) == [0]


def test_it_is_the_named_verifiers_score_that_counts() -> None:
    def twice(text: str, index: int, one: float, two: float) -> Candidate:
        return made(text, index, one, verifier="one").with_verdict(Verdict("two", None, two, "logit"))

    votes = [twice("1", 0, 5.0, -9.0), twice("2", 1, 1.0, 9.0)]
    assert chosen(WeightedVote(by="one"), votes) == [0]
    assert chosen(WeightedVote(by="two"), votes) == [1]
    with pytest.raises(LookupError, match="one, two"):
        WeightedVote().choose(NUMBER, votes)


def test_small_probabilities_are_not_all_equal() -> None:
    assert chosen(WeightedVote(), voters(["1", "2"], [1e-12, 5e-10], "probability")) == [1]


def test_a_vote_cannot_weigh_less_than_nothing_and_logits_should_say_that_they_are_some() -> None:
    with pytest.raises(ValueError, match=r"'v' scored .* -100.*logits.*best_of"):
        WeightedVote().choose(NUMBER, voters(["1", "2"], [-100.0, -1.0]))
    assert chosen(WeightedVote(), voters(["1", "2"], [-100.0, -1.0], "logit")) == [1]


# --- live -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["1", "2", "3", UNREADABLE]), min_size=1, max_size=6),
    latencies=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=6, max_size=6),
)
def test_live_the_choice_is_the_pure_one_whatever_arrives_first(
    answers: list[str], latencies: list[float]
) -> None:
    judge = table({"1": (None, 1.0), "2": (None, 1.5), "3": (None, 2.5)})
    selectors: list[Selector] = [MajorityVote(), WeightedVote(by="judge")]
    for selector in selectors:
        pipeline = Sample(n=len(answers)) | Verify(verifier=judge, called="judge") | selector
        outcome, _ = patiently(
            solved(pipeline, replies(*answers, latencies=latencies), NUMBER, store=InstantStore())
        )
        assert ids(outcome.final) == chosen(selector, list(outcome.candidates))


async def test_with_several_branches_the_choice_is_the_pure_one_of_the_outcome() -> None:
    pipeline = Pipeline(
        [Node("zero", Sample()), Node("one", Sample()), Node("vote", MajorityVote(), ("zero", "one"))]
    )
    outcome, _ = await solved(pipeline, replies("first", "second"))
    (pure,) = MajorityVote().choose(PROBLEM, outcome.candidates)
    assert outcome.chosen is not None
    assert outcome.chosen.id == pure.id == "zero#0"
