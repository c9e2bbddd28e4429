"""Confidence by hand: of a token, of a group, and the paper's four measures of an answer's."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.candidate import TokenLogprob
from archon.strategies.confidence import (
    MEASURES,
    Measure,
    bar,
    bottom_groups,
    groups,
    lowest_group,
    mean,
    tail,
    token_confidence,
)


def test_a_token_is_as_confident_as_its_alternatives_are_unlikely() -> None:
    known = TokenLogprob("a", -0.2, (("a", -0.2), ("b", -2.0), ("c", -3.8), ("d", -9.0)))
    assert token_confidence(known, 3) == pytest.approx((0.2 + 2.0 + 3.8) / 3)
    assert token_confidence(known, 20) == pytest.approx((0.2 + 2.0 + 3.8 + 9.0) / 4)
    sampled_last = TokenLogprob("d", -9.0, (("d", -9.0), ("a", -0.2), ("b", -2.0)))
    assert token_confidence(sampled_last, 2) == pytest.approx(1.1), "the likeliest, in whatever order"
    assert token_confidence(TokenLogprob("a", -0.2), 3) is None
    impossible = TokenLogprob("a", 0.0, (("a", 0.0), ("b", -math.inf)))
    assert token_confidence(impossible, 2) == 0.0, "what cannot be is no alternative"


def test_a_sure_distribution_is_more_confident_than_a_flat_one() -> None:
    def of(*probabilities: float) -> float | None:
        return token_confidence(
            TokenLogprob("a", 0.0, tuple((str(i), math.log(p)) for i, p in enumerate(probabilities))), 4
        )

    sure, flat = of(0.97, 0.01, 0.01, 0.01), of(0.25, 0.25, 0.25, 0.25)
    assert sure is not None and flat == pytest.approx(math.log(4)) and sure > 2 * math.log(4)


def test_groups_slide_over_the_tokens() -> None:
    tokens = [4.0, 2.0, 6.0, 1.0, 1.0]
    assert groups(tokens, 2) == [3.0, 4.0, 3.5, 1.0]
    assert groups(tokens, 2, start=3) == [3.5, 1.0], "windows that end at token 3 or later"
    assert groups(tokens, 5) == [2.8] == groups(tokens, 9), "fewer tokens than a window are one group"
    assert groups([], 2) == []


@given(st.lists(st.floats(0, 20), min_size=1, max_size=40), st.integers(1, 45), st.integers(0, 39))
def test_groups_are_the_means_of_windows(tokens: list[float], window: int, start: int) -> None:
    naive = [np.mean(tokens[i : i + window]) for i in range(len(tokens) - window + 1)]
    assert groups(tokens, window) == pytest.approx(naive or [np.mean(tokens)], abs=1e-9)
    if naive and start < len(tokens):
        late = [m for i, m in enumerate(naive) if i + window - 1 >= start]
        assert groups(tokens, window, start) == pytest.approx(late, abs=1e-9)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30), st.floats(0.01, 1))
def test_the_bar_is_the_percentile(known: list[float], keep: float) -> None:
    assert bar(known, keep) == pytest.approx(float(np.percentile(known, 100 * (1 - keep))), abs=1e-9)


# --- of an answer -----------------------------------------------------------------------------------

TWELVE = [8.0, 6.0, 4.0, 2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 3.0, 1.0]
"""Groups of two of them: 7 5 3 1 1 3 5 7 9 6.5 2."""


def test_the_mean_is_of_all_tokens() -> None:
    assert mean(TWELVE, 2) == mean(TWELVE, 99) == 54 / 12


def test_the_lowest_group_is_the_weakest_alone() -> None:
    assert lowest_group(TWELVE, 2) == 1.0
    assert lowest_group(TWELVE, 1) == 0.0
    assert lowest_group(TWELVE, 3) == pytest.approx(4 / 3), "2 0 2"


def test_the_bottom_is_the_weakest_tenth_of_groups() -> None:
    assert bottom_groups(TWELVE, 2) == 1.0, "eleven groups: one of them"
    groups_of_one = [float(c) for c in [7, 3, 9, 1, 8, 5, 2, 6, 4, 10] * 3]
    assert bottom_groups(groups_of_one, 1) == 1.0, "thirty groups: the three that have 1"
    assert bottom_groups([*groups_of_one, 0.5], 1) == pytest.approx(2.5 / 3), "31: still three, 0.5 1 1"
    assert bottom_groups([*groups_of_one, *[20.0] * 10], 1) == 5 / 4, "40: four, 1 1 1 2"
    assert bottom_groups([3.0, 1.0], 1) == 1.0, "few groups: the weakest"


def test_the_tail_is_the_last_tokens() -> None:
    assert tail(TWELVE, 2) == 2.0, "3 1"
    assert tail(TWELVE, 4) == 5.5, "8 10 3 1"
    assert tail(TWELVE, 1) == 1.0
    assert tail(TWELVE, 2) == groups(TWELVE, 2)[-1], "it is the last group"


@pytest.mark.parametrize("name", get_args(Measure))
def test_an_answer_with_fewer_tokens_than_a_group_has_one_confidence(name: Any) -> None:
    assert MEASURES[name]([4.0, 2.0, 6.0], 2048) == 4.0
    assert MEASURES[name]([], 2) is None


def test_a_weak_passage_is_seen_by_groups_and_hardly_by_the_mean() -> None:
    steady, lapse = [5.0] * 100, [5.0] * 40 + [0.0] * 10 + [6.0] * 50
    assert mean(lapse, 10) == mean(steady, 10) == 5.0
    assert lowest_group(lapse, 10) == 0.0 and lowest_group(steady, 10) == 5.0
    # 91 groups, the nine weakest: 0, on the one side 0.5 1 1.5 2 (among fives), on the other 0.6 1.2 1.8 2.4.
    assert bottom_groups(lapse, 10) == pytest.approx((0.5 + 1 + 1.5 + 2 + 0.6 + 1.2 + 1.8 + 2.4) / 9)
    assert tail(lapse, 10) == 6.0, "and not by the tail, which came after"
