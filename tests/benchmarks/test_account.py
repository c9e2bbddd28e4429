"""The account of a run's verifiers, from its records: what is counted, what is left out, and the corners."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.benchmarks import plots, report
from archon.benchmarks.account import account, cost_list, places
from archon.benchmarks.results import Record, Results
from archon.errors import DataError

Accepted = Sequence[bool | None]


def record(
    name: str, accepted: Accepted, right: Sequence[bool], scores: Sequence[float | None] | None = None
) -> Record:
    return Record(
        name,
        "solved",
        truth=list(right),
        verdicts={"tests": {"accepted": list(accepted), "score": list(scores or [None] * len(accepted))}},
    )


def results(*records: Record, fair: bool = True) -> Results:
    data = {"coverage": {"1": {}} if fair else {}, "benchmark": "b", "pipeline": "p"}
    return Results(Path("run"), data, records)


def counted(*records: Record, **options: Any) -> dict[str, Any]:
    data = account(results(*records), **options)["tests"]
    json.dumps(data, allow_nan=False)
    return data


TWO = (
    record("a", [True, True, False, False], [True, False, False, True]),
    record("b", [True, False, False, False], [True, False, False, False]),
)


def test_samples_are_counted_by_verdict_and_truth() -> None:
    data = counted(*TWO)
    names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert [data[name] for name in names] == [2, 1, 4, 1]
    assert (data["problems"], data["samples"]) == (2, 8)
    assert data["precision"]["value"] == pytest.approx(2 / 3)
    assert data["recall"]["value"] == data["completeness"]["value"] == pytest.approx(2 / 3)
    assert data["soundness"]["value"] == pytest.approx(4 / 5)


def test_conditional_accuracy_is_the_mean_over_problems_with_an_accepted_sample() -> None:
    data = counted(*TWO, record("c", [False] * 4, [True] * 4))
    given = data["conditional_accuracy"]
    assert (given["value"], given["problems"]) == (pytest.approx(3 / 4), 2)
    assert (given["worst"], given["best"]) == (pytest.approx(1.5 / 3), pytest.approx(2.5 / 3))
    assert [data["by_problem"][name]["conditional_accuracy"] for name in "abc"] == [0.5, 1.0, None]


def test_utility_at_one_attempt_is_what_one_sample_is_worth() -> None:
    data = counted(*TWO)
    for cost in (0, 1, 2, 4, 8):
        assert data["utility"][str(cost)]["curve"]["1"]["value"] == pytest.approx(
            ((1 - cost) / 4 + 1 / 4) / 2
        )
    assert data["utility"]["0"]["best_k"] == "unbounded"
    assert data["utility"]["0"]["value"] == pytest.approx(0.75) == data["ceiling"]["accuracy"]["value"]
    assert data["utility"]["8"]["best_k"] == 0
    assert data["utility"]["8"]["value"] == 0


def test_the_share_of_false_positives_follows_the_mix_of_problems() -> None:
    """An easy problem is answered at once and rightly, a hard one late and wrongly."""
    data = counted(record("easy", [True] * 4, [True] * 4), record("hard", [True, *[False] * 3], [False] * 4))
    share = {k: point["value"] for k, point in data["false_positive_share"].items()}
    assert share == pytest.approx({"1": 1 / 5, "2": 2 / 6, "3": 3 / 7, "4": 4 / 8})
    at = {k: point["value"] for k, point in data["false_positive_share_at"].items()}
    assert at == pytest.approx({"1": 1 / 5, "2": 1.0, "3": 1.0, "4": 1.0})


def test_best_of_n_goes_by_the_score_and_may_bend_down() -> None:
    """The highest score is the wrong one: the more samples, the surer it is chosen."""
    data = counted(record("a", [True] * 4, [True, True, True, False], [0.5, 0.5, 0.5, 0.9]))
    assert [data["best_of"][str(n)]["value"] for n in (1, 2, 4)] == pytest.approx([0.75, 0.5, 0.0])
    assert data["ceiling"]["coverage"]["value"] == 1


def test_without_scores_acceptance_is_the_score_and_the_undecided_come_last() -> None:
    data = counted(record("a", [None, False, True], [True, True, False]))
    assert data["best_of"]["3"]["value"] == 0
    data = counted(record("a", [None, None, False], [True, True, False]))
    assert data["best_of"]["3"]["value"] == 0


def test_undecided_samples_are_neither_accepted_nor_rejected() -> None:
    data = counted(*TWO, record("none", [None] * 4, [True, False, False, False]))
    assert data["undecided"] == {"right": 1, "wrong": 3}
    assert (
        data["true_negatives"] + data["false_negatives"] + data["true_positives"] + data["false_positives"]
        == 8
    )
    assert data["recall"]["value"] == pytest.approx(2 / 3)
    assert data["ceiling"]["abstained"]["value"] == pytest.approx(1 / 3)
    assert any("undecided on 4 samples (all of 1 problems)" in note for note in data["notes"])


def test_a_problem_the_verifier_never_saw_is_undecided() -> None:
    unseen = Record("c", "wrong", truth=[False, True])
    assert counted(*TWO, unseen)["undecided"] == {"right": 1, "wrong": 1}


def test_the_false_negative_filter_names_what_it_drops_and_drops_it_when_asked() -> None:
    gap = record("gap", [True, False, False, False], [True, True, False, False])
    data = counted(*TWO, gap)
    assert data["false_negative_filter"] == {"applied": False, "problems": ["gap"]}
    assert data["problems"] == 3
    data = counted(*TWO, gap, drop_false_negatives=True)
    assert data["false_negative_filter"] == {"applied": True, "problems": ["gap"]}
    assert set(data["by_problem"]) == {"a", "b"}


def test_a_filter_that_leaves_nothing_leaves_an_account_that_says_so() -> None:
    data = counted(record("a", [False], [True]), drop_false_negatives=True)
    assert (data["problems"], data["samples"]) == (0, 0)
    assert data["conditional_accuracy"]["value"] is None
    assert data["conditional_accuracy"]["worst"] is None
    assert data["utility"] == data["best_of"] == data["false_positive_share"] == {}
    assert data["notes"] == ["the false-negative filter leaves no problem"]


@pytest.mark.parametrize(
    ("accepted", "right", "best_k", "value"),
    [
        ([True] * 3, [True] * 3, 1, 1.0),  # all accepted, all right
        ([True] * 3, [False] * 3, 0, 0.0),
        ([False] * 3, [True] * 3, 0, 0.0),  # none accepted
        ([True], [True], 1, 1.0),  # one sample
        ([False], [False], 0, 0.0),
        ([None], [True], 0, 0.0),
    ],
)
def test_the_corners(accepted: Accepted, right: Sequence[bool], best_k: int, value: float) -> None:
    one = counted(record("a", accepted, right))["utility"]["1"]
    assert (one["best_k"], one["value"]) == (best_k, value)


def test_where_nothing_is_accepted_no_share_is_wrong() -> None:
    data = counted(record("a", [False] * 3, [True, False, False]))
    assert data["false_positive_share"] == {}
    assert data["precision"]["value"] is None
    assert data["recall"]["value"] == 0


def test_problems_short_of_samples_are_counted_but_not_in_the_curves() -> None:
    data = counted(*TWO, record("short", [True], [False]))
    assert data["false_positives"] == 2
    assert data["utility"]["0"]["curve"]["1"]["problems"] == 2
    assert "1 problems have fewer than 4 samples, and are not in the curves" in data["notes"]


def test_problems_without_samples_are_not_counted() -> None:
    assert counted(*TWO, Record("failed", "failed"))["problems"] == 2


def test_a_pipeline_that_stops_early_has_counts_and_no_curves() -> None:
    data = account(results(*TWO, fair=False))["tests"]
    assert data["true_positives"] == 2
    assert data["utility"] == data["best_of"] == data["false_positive_share"] == {}
    assert data["two_types"] is None
    assert any("stops early" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([Record("a", "wrong", truth=[False])], "its pipeline has no verifier"),
        ([Record("a", "failed")], "it has no graded samples"),
        ([], "it has no graded samples"),
    ],
)
def test_a_run_without_verdicts_cannot_be_accounted_for(records: list[Record], why: str) -> None:
    with pytest.raises(DataError, match=why):
        account(results(*records))


def test_a_record_with_too_few_verdicts_is_damaged() -> None:
    broken = Record("a", "wrong", truth=[False, True], verdicts={"tests": {"accepted": [True]}})
    with pytest.raises(DataError, match="1 verdicts of 'tests' for 2 samples"):
        account(results(broken))


def test_every_verifier_has_its_own_account() -> None:
    one = record("a", [True, False], [True, False])
    one.verdicts["judge"] = {"accepted": [False, True], "score": [0.1, 0.8]}
    found = account(results(one))
    assert list(found) == ["judge", "tests"]
    assert (found["judge"]["true_positives"], found["tests"]["true_positives"]) == (0, 1)


def test_every_point_lies_within_its_interval_and_its_bounds() -> None:
    data = counted(*TWO, record("c", [True] * 4, [False] * 4))
    for cost, one in data["utility"].items():
        for point in one["curve"].values():
            assert -float(cost) <= point["low"] <= point["value"] <= point["high"] <= 1
    for name in ("false_positive_share", "false_positive_share_at", "best_of"):
        for point in data[name].values():
            assert 0 <= point["low"] <= point["value"] <= point["high"] <= 1


def test_curves_have_every_k_to_a_hundred_and_some_beyond() -> None:
    assert places(100) == list(range(1, 101))
    assert places(1) == [1]
    assert places(0) == []
    far = places(10_000)
    assert far[:100] == list(range(1, 101))
    assert {1000, 1024, 8192, 10_000} <= set(far)
    assert len(far) < 220


def test_costs_are_read_from_a_list() -> None:
    assert cost_list("0, 1,2.5") == ("0", "1", "2.5")
    for text in ("", "x", "-1", "nan", "inf", "1,,y"):
        with pytest.raises(ValueError, match=r"number"):
            cost_list(text)


def test_it_can_be_shown_and_drawn(tmp_path: Path) -> None:
    from rich.console import Console

    gap = record("g[b]ap", [True, False, None, False], [True, True, False, False])
    found = account(results(*TWO, gap))
    console = Console(width=160, record=True)
    report.show_account(found, console)
    text = console.export_text()
    for words in (
        "tests against the truth: 3 problems, 12 samples",
        "unbounded",
        "none (abstain)",
        "g[b]ap",
        "undecided",
    ):
        assert words in text
    found["te/s ts"] = found["tests"]
    assert [p.name for p in plots.draw_accounts(found, "b, p", tmp_path)] == [
        "verifier_tests.png",
        "verifier_te_s_ts.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "records", [[record("a", [False], [True])], [record("a", [None], [True])], [record("a", [True], [True])]]
)
def test_an_account_of_next_to_nothing_can_be_shown_and_drawn(records: list[Record], tmp_path: Path) -> None:
    from rich.console import Console

    for drop in (False, True):
        found = account(results(*records), drop_false_negatives=drop)
        report.show_account(found, Console(width=160, record=True))
        plots.draw_accounts(found, "b, p", tmp_path)
