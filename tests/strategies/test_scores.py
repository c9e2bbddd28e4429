"""Best-of-N and top-k against references written in three lines: ties, missing and infinite scores, scales."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.candidate import Candidate, Scale, Verdict
from archon.errors import ConfigError, StageFailed
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.sample import Sample
from archon.strategies.selection import ScoreSelector, Selector
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.usage import NOTHING
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import PROBLEM, ids, made, replies, scored, solved, table

HIGHER_IS_BETTER: list[Scale] = ["probability", "logit", "fraction", "count", "score"]

SCORES = st.lists(
    st.none() | st.sampled_from([-2.0, 0.0, -0.0, 0.5, 1.0, math.inf, math.nan]) | st.floats(-1e6, 1e6),
    max_size=12,
)
"""Without minus infinity, which has tests of its own."""


def reference(scores: list[float | None]) -> list[int]:
    """Best first by selection: the highest that is left, the earliest of equals, the unscored at the end."""
    left = [i for i, s in enumerate(scores) if s is not None and not math.isnan(s)]
    unscored = [i for i in range(len(scores)) if i not in left]
    ranked = []
    while left:
        best = left[0]
        for i in left:
            if scores[i] > scores[best]:  # type: ignore[operator]
                best = i
        left.remove(best)
        ranked.append(best)
    return ranked + unscored


def chosen(selector: Selector, candidates: list[Candidate]) -> list[int]:
    return ids(selector.choose(PROBLEM, candidates))


@settings(max_examples=300, deadline=None)
@given(scores=SCORES, k=st.integers(1, 14), scale=st.sampled_from(HIGHER_IS_BETTER))
def test_the_k_best_are_the_references_and_best_of_is_the_first_of_them(
    scores: list[float | None], k: int, scale: Scale
) -> None:
    candidates = scored(*scores, scale=scale)
    expected = reference(scores)
    assert chosen(TopK(k=k), candidates) == expected[:k]
    assert chosen(BestOf(), candidates) == expected[:1]


@settings(max_examples=100, deadline=None)
@given(ranks=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_of_ranks_the_lowest_is_best(ranks: list[int]) -> None:
    candidates = scored(*map(float, ranks), scale="rank")
    assert chosen(BestOf(), candidates) == [ranks.index(min(ranks))]
    assert chosen(TopK(k=9), candidates) == sorted(range(len(ranks)), key=lambda i: (ranks[i], i))


@settings(max_examples=100, deadline=None)
@given(scores=SCORES, data=st.data())
def test_which_texts_are_kept_does_not_depend_on_the_order_unless_scores_are_equal(
    scores: list[float | None], data: st.DataObject
) -> None:
    distinct = [s for s in dict.fromkeys(scores) if s is not None and not math.isnan(s)]
    candidates = scored(*distinct)
    shuffled = data.draw(st.permutations(candidates))
    for selector in (BestOf(), TopK(k=3)):
        assert chosen(selector, shuffled) == chosen(selector, candidates)


def test_none_of_none_and_one_of_one() -> None:
    selectors: list[Selector] = [BestOf(), TopK(k=3)]
    for selector in selectors:
        assert chosen(selector, []) == []
        assert chosen(selector, scored(None)) == [0]
        assert chosen(selector, scored(-3.0)) == [0]


def test_ten_thousand_candidates_and_the_best_is_the_last() -> None:
    candidates = scored(*(float(i // 2) for i in range(10_000)))
    assert chosen(BestOf(), candidates) == [9_998], "the earlier of the two best"
    assert chosen(TopK(k=3), candidates) == [9_998, 9_999, 9_996]


def test_a_candidate_without_any_verdict_counts_as_unscored() -> None:
    bare = made("bare", 0, judged=False)
    assert chosen(BestOf(), [bare, made("scored", 1, -9.0)]) == [1]
    assert chosen(TopK(k=2), [bare, made("scored", 1, -9.0)]) == [1, 0]


@pytest.mark.parametrize("selector", [BestOf(), TopK(k=2)])
def test_unscored_ones_come_after_the_worst_score_there_is(selector: Selector) -> None:
    assert chosen(selector, scored(None, -math.inf))[0] == 1


# --- whose score ------------------------------------------------------------------------------------


def by_two(first: float | None, second: float | None, index: int = 0) -> Candidate:
    candidate = made(f"text {index}", index, first, verifier="one")
    return candidate.with_verdict(Verdict("two", None, second))


def test_with_several_verifiers_the_named_ones_score_decides() -> None:
    candidates = [by_two(1.0, 2.0, 0), by_two(2.0, 1.0, 1)]
    assert chosen(BestOf(by="one"), candidates) == [1]
    assert chosen(BestOf(by="two"), candidates) == [0]
    assert chosen(TopK(k=2, by="one"), candidates) == [1, 0]


def test_of_several_verifiers_only_one_of_whom_scores_his_is_meant() -> None:
    candidates = [by_two(None, 2.0, 0), by_two(None, 3.0, 1)]
    assert chosen(BestOf(), candidates) == [1]


def test_with_several_scores_and_no_name_it_is_an_error_that_names_them() -> None:
    selectors: list[Selector] = [BestOf(), TopK(k=1)]
    for selector in selectors:
        with pytest.raises(LookupError, match="one, two"):
            selector.choose(PROBLEM, [by_two(1.0, 2.0)])


def test_a_named_verifier_that_said_nothing_of_a_candidate_leaves_it_unscored() -> None:
    candidates = [made("a", 0, 9.0, verifier="one"), by_two(1.0, 0.5, 1)]
    assert chosen(BestOf(by="two"), candidates) == [1]


async def test_in_a_run_two_scores_and_no_name_are_an_error_and_not_a_choice() -> None:
    two = Verify(verifier=table({"x": (True, 1.0)}), called="one") | Verify(
        verifier=table({"x": (True, 2.0)}), called="two"
    )
    with pytest.raises((StageFailed, ConfigError)):
        await solved(Sample(n=1) | two | BestOf(), replies("x"))


@pytest.mark.parametrize("selector", [BestOf(by="tabel"), TopK(k=1, by="tabel")])
async def test_a_misspelt_verifier_is_an_error_and_not_the_first_candidate(selector: Any) -> None:
    judged = Sample(n=2) | Verify(verifier=table({"good": (True, 1.0), "bad": (False, 0.0)}))
    with pytest.raises((ConfigError, StageFailed), match="table"):
        await solved(judged | selector, replies("bad", "good"))


async def test_whose_score_is_meant_is_asked_before_anything_is_spent() -> None:
    other = table({"x": (True, 2.0)})
    pipeline = Sample(n=1) | Verify(verifier=table({"x": (True, 1.0)})) | Verify(verifier=other) | BestOf()
    async with Session(models=replies("x")) as session:
        with pytest.raises(ConfigError):
            await session.solve(pipeline, PROBLEM)
        assert session.ledger.total == NOTHING


# --- in a run ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=6),
    latencies=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=6, max_size=6),
)
def test_live_the_choice_is_the_pure_one_whatever_arrives_first(
    scores: list[float], latencies: list[float]
) -> None:
    texts = [f"text {i}" for i in range(len(scores))]
    judge = table({text: (None, score) for text, score in zip(texts, scores, strict=True)})
    selectors: list[Selector] = [BestOf(), TopK(k=2)]
    for selector in selectors:
        pipeline = Sample(n=len(texts)) | Verify(verifier=judge) | selector
        outcome, _ = patiently(solved(pipeline, replies(*texts, latencies=latencies), store=InstantStore()))
        assert ids(outcome.final) == chosen(selector, list(outcome.candidates))
        assert ids(outcome.final) == reference(list(scores))[: len(outcome.final)]
        assert outcome.chosen == outcome.final[0]


def test_a_selector_by_score_is_the_highest_merit_and_none_must_not_be_chosen() -> None:
    class Even(ScoreSelector):
        """Only even ones; the later the better."""

        def merit(self, candidate: Candidate) -> float | None:
            return None if candidate.index % 2 else float(candidate.index)

    assert chosen(Even(), scored(*[0.0] * 6)) == [4]
    assert chosen(Even(), scored(*[0.0] * 6)[1::2]) == []
