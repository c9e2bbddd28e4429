"""Comparing two runs, paired by problem."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from archon.benchmarks.results import Record, RunInfo, summarise, write_json
from archon.benchmarks.statistics.paired import compare, sign_flip_test
from archon.cli import main

values = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


@settings(deadline=None)
@given(values)
def test_counts_and_difference_are_those_of_the_pairs(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    found = compare(a, b)
    assert found.better == sum(y > x for x, y in pairs)
    assert found.worse == sum(y < x for x, y in pairs)
    assert found.equal == sum(y == x for x, y in pairs)
    assert found.better + found.worse + found.equal == found.difference.problems == len(pairs)
    assert found.difference.value == pytest.approx(np.mean(b) - np.mean(a))
    assert 0 < found.p_value <= 1


@settings(deadline=None)
@given(values)
def test_swapping_the_runs_swaps_the_sign_and_nothing_else(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    one, other = compare(a, b), compare(b, a)
    assert other.difference.value == -one.difference.value
    assert (other.difference.low, other.difference.high) == pytest.approx(
        (-one.difference.high, -one.difference.low)
    )
    assert (other.better, other.worse, other.p_value) == (one.worse, one.better, one.p_value)


def test_b_better_than_a_is_positive() -> None:
    found = compare([0.0, 0.0, 0.5], [1.0, 0.0, 0.75])
    assert found.difference.value == pytest.approx(1.25 / 3)
    assert (found.better, found.worse, found.equal) == (2, 0, 1)


def test_the_interval_is_the_paired_t_test_s() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random(40), rng.random(40)
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    found = compare(a, b)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))


def test_pairing_takes_out_what_the_problems_share() -> None:
    rng = np.random.default_rng(6)
    difficulty = rng.random(100)
    a, b = difficulty, np.clip(difficulty + 0.02 + rng.normal(0, 0.01, 100), 0, 1)
    found = compare(a, b)
    unpaired = stats.ttest_ind(b, a)
    assert found.p_value < 0.001 < 0.3 < unpaired.pvalue
    assert found.difference.low > 0


def test_identical_runs_do_not_differ() -> None:
    found = compare([1.0, 0.0, 0.5, 1.0], [1.0, 0.0, 0.5, 1.0])
    assert found.difference == (0.0, 0.0, 0.0, 4)
    assert (found.p_value, found.better, found.worse, found.equal) == (1.0, 0, 0, 4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 1.0]), min_size=1, max_size=9))
def test_up_to_20_differing_problems_the_p_value_is_exact(differences: list[float]) -> None:
    seen = abs(sum(differences))
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = sum(flip >= seen - 1e-12 for flip in flips) / len(flips)
    assert sign_flip_test(differences) == pytest.approx(expected)


def test_right_or_wrong_problems_give_the_binomial_sign_test() -> None:
    for better, worse in ((5, 1), (9, 2), (10, 10), (0, 7)):
        differences = [1.0] * better + [-1.0] * worse + [0.0] * 30
        expected = stats.binomtest(better, better + worse).pvalue
        assert sign_flip_test(differences) == pytest.approx(expected)


def test_with_more_than_20_the_drawn_p_value_is_near_and_repeatable() -> None:
    differences = [1.0] * 25 + [-1.0] * 12
    expected = stats.binomtest(25, 37).pvalue
    assert sign_flip_test(differences) == pytest.approx(expected, abs=0.006)
    assert sign_flip_test(differences) == sign_flip_test(differences)
    assert sign_flip_test([1.0] * 60) == pytest.approx(1 / 20_001), "never 0"


def test_the_sign_flip_test_agrees_with_scipy_s_permutation_test() -> None:
    rng = np.random.default_rng(11)
    a, b = rng.random(12), rng.random(12) + 0.15
    theirs = stats.permutation_test(
        (b, a), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=10_000
    )
    assert compare(a, b).p_value == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 0.0]), ([[1.0]], [[1.0]])])
def test_values_that_cannot_be_paired_are_refused(a: Any, b: Any) -> None:
    with pytest.raises(ValueError, match="one entry per problem"):
        compare(a, b)


# --- archon report --compare -----------------------------------------------------------------------


def run_folder(place: Path, outcomes: dict[str, bool]) -> Path:
    place.mkdir()
    records = [
        Record(
            name, "solved" if right else "wrong", 0, truth=[right], statuses=["right" if right else "wrong"]
        )
        for name, right in outcomes.items()
    ]
    write_json(place / "results.json", summarise(RunInfo("b", "p", 1, None), records))
    (place / "problems.jsonl").write_text("".join(r.line() + "\n" for r in records))
    return place


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def report(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_reports_are_paired_by_id_whatever_the_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run_folder(tmp_path / "a", {"x": True, "y": False, "z": False, "only-a": True})
    b = run_folder(tmp_path / "b", {"z": True, "only-b": False, "y": False, "x": True})
    assert report(str(a), "--compare", str(b), "--json") == 0
    data = strict(capsys.readouterr().out)
    for part in (data["chosen"], data["single_sample"]):
        assert (part["better"], part["worse"], part["equal"], part["problems"]) == (1, 0, 2, 3)
        assert part["difference"]["value"] == pytest.approx(1 / 3)


def test_a_report_says_how_many_problems_were_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = run_folder(tmp_path / "a", {"x": True, "y": False, "only-a": True})
    b = run_folder(tmp_path / "b", {"x": True, "y": True})
    assert report(str(a), "--compare", str(b)) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "+50.0 points" in text
    assert "paired over 2 problems" in text
    assert "1 problems are in one run only" in text


def test_runs_without_a_common_problem_are_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_folder(tmp_path / "a", {"x": True}), run_folder(tmp_path / "b", {"y": True})
    assert report(str(a), "--compare", str(b)) == 2
    assert "no problem in common" in capsys.readouterr().err


def test_a_comparison_over_one_problem_is_strict_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = run_folder(tmp_path / "a", {"x": True}), run_folder(tmp_path / "b", {"x": False})
    assert report(str(a), "--compare", str(b), "--json") == 0
    data = strict(capsys.readouterr().out)
    assert data["chosen"]["difference"]["value"] == -1.0
    assert data["chosen"]["difference"]["low"] is None or math.isfinite(data["chosen"]["difference"]["low"])
