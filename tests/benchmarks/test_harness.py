"""The harness on small scripted benchmarks: what it leaves behind, budgets and selectors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import ClassVar

import pytest

from archon.backends.scripted import Call, Reply
from archon.benchmarks import report
from archon.benchmarks.results import SCHEMA, Record, Results, RunInfo, summarise
from archon.budget import Budget, Budgets
from archon.errors import (
    DataError,
    Overloaded,
    RequestRejected,
    UserError,
)
from archon.pipeline import AnyPipeline, Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from tests.benchmarks.small import (
    NAMES,
    Odd,
    coding,
    counts,
    dataset,
    harness_run,
    strict,
    votes,
    written,
)

# --- what is written -------------------------------------------------------------------------------


async def test_results_json_has_the_schema_it_promises(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", n=10, selectors=("majority_vote",))
    data, lines = written(tmp_path / "run")
    assert data["schema"] == SCHEMA == 1
    assert (data["benchmark"], data["pipeline"]) == ("small", "mine")
    assert (data["problems"], data["samples"], data["interrupted"]) == (4, 10, False)
    assert list(data["coverage"]) == ["1", "2", "4", "8", "10"]
    for curve in (data["coverage"], data["selected"]["majority_vote"]):
        for point in curve.values():
            assert {"value", "low", "high"} <= set(point)
            assert 0 <= point["low"] <= point["value"] <= point["high"] <= 1
    assert list(data["selected"]) == ["majority_vote"]
    assert {"requests", "prompt_tokens", "completion_tokens", "usd"} <= set(data["usage"])
    assert list(data["outcomes"]) == list(NAMES)
    assert len(lines) == 4


async def test_coverage_is_pass_at_k_of_the_truths_in_problems_jsonl(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", n=10)
    data, lines = written(tmp_path / "run")
    assert [sum(line["truth"]) for line in lines] == [10, 5, 4, 3]
    for k in (1, 2, 4, 8, 10):
        parts = [
            1 - math.comb(len(t) - sum(t), k) / math.comb(len(t), k) for t in (x["truth"] for x in lines)
        ]
        assert data["coverage"][str(k)]["value"] == pytest.approx(sum(parts) / 4)
        every = [math.comb(sum(x["truth"]), k) / math.comb(10, k) for x in lines]
        assert data["all_right"][str(k)]["value"] == pytest.approx(sum(every) / 4)


async def test_every_problem_is_one_line_with_truth_choice_and_usage(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", n=4)
    _, lines = written(tmp_path / "run")
    assert [line["id"] for line in lines] == ["p0", "p1", "p2", "p3"], "in the benchmark's order"
    for line in lines:
        assert len(line["truth"]) == len(line["samples"]) == len(line["statuses"]) == 4
        assert line["samples"] == [f"sample#{i}" for i in range(4)]
        assert line["selected"] == 0
        assert line["truth"][0] is True
        assert line["usage"]["requests"] == 4
        assert line["usage"]["completion_tokens"] == 8


async def test_usage_is_the_sum_over_the_problems(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", n=4)
    data, lines = written(tmp_path / "run")
    for field in ("requests", "prompt_tokens", "completion_tokens"):
        assert data["usage"][field] == sum(line["usage"][field] for line in lines)
    assert data["usage"]["requests"] == 16
    assert data["usage"]["prompt_tokens"] == 16 * 2
    assert data["usage"]["completion_tokens"] == 16 * 2
    assert data["usage"]["usd"] == pytest.approx(16 * (2 * 1 + 2 * 2) / 1e6)
    assert data["by_stage"]["sample"]["requests"] == data["by_model"]["default"]["requests"] == 16


async def test_the_cost_of_k_samples_is_their_share(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", n=8)
    data, _ = written(tmp_path / "run")
    assert {k: c["tokens"] for k, c in data["cost"].items()} == {"1": 4, "2": 8, "4": 16, "8": 32}
    assert data["cost"]["8"]["usd"] == pytest.approx(8 * 6e-6)


async def test_a_model_without_a_price_costs_null_not_0(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", model={"price": None})
    data, _ = written(tmp_path / "run")
    assert data["usage"]["usd"] is None
    assert data["usage"]["unpriced"] == 16
    assert {c["usd"] for c in data["cost"].values()} == {None}


async def test_outcomes_are_kept_apart_and_add_up(tmp_path: Path) -> None:
    def reply(call: Call) -> str | Exception:
        if call.problem == "error":
            return RequestRejected("refused")
        return {"abstains": ""}.get(call.problem, call.problem)

    names = ["right", "wrong", "failed", "timed_out", "error", "abstains"]
    await harness_run(tmp_path / "run", reply=reply, data=dataset(names), n=2)
    data, lines = written(tmp_path / "run")
    assert data["outcomes"] == counts(solved=1, wrong=1, failed=2, timed_out=1, abstained=1)
    assert sum(data["outcomes"].values()) == data["problems"] == 6
    assert {line["id"]: line["outcome"] for line in lines} == {
        "right": "solved", "wrong": "wrong", "failed": "failed", "timed_out": "timed_out",
        "error": "failed", "abstains": "abstained",
    }  # fmt: skip
    assert data["candidates"] == {"right": 2, "wrong": 4, "failed": 2, "timed_out": 2}
    assert data["pipeline_accuracy"]["value"] == pytest.approx(1 / 6)
    assert data["coverage"]["1"]["problems"] == 5
    assert any("1 problems gave no sample" in note for note in data["notes"])


async def test_a_problem_whose_every_sample_fails_says_why_and_what_it_cost(tmp_path: Path) -> None:
    def reply(call: Call) -> str | Exception:
        return Overloaded("too busy") if call.problem == "p1" else "right"

    await harness_run(tmp_path / "run", reply=reply, n=1, model={"retries": 0})
    data, lines = written(tmp_path / "run")
    assert data["outcomes"] == counts(solved=3, failed=1)
    assert lines[1]["truth"] == []
    assert "too busy" in lines[1]["error"]
    assert any("Overloaded" in failure for failure in lines[1]["failures"])
    assert lines[1]["usage"]["requests"] == 1


async def test_one_sample_and_one_problem_are_enough(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", data=dataset(1), n=1)
    data, _ = written(tmp_path / "run")
    assert list(data["coverage"]) == ["1"]
    assert data["coverage"]["1"]["value"] == 1.0
    assert (data["coverage"]["1"]["low"], data["coverage"]["1"]["high"]) == (0.0, 1.0)


async def test_no_problems_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'small' has no problems"):
        await harness_run(tmp_path / "run", data=dataset(0))
    assert list((tmp_path / "run").iterdir()) == []


async def test_nothing_right_is_0_without_a_sign(tmp_path: Path) -> None:
    await harness_run(tmp_path / "run", reply=lambda call: "wrong")
    text = (tmp_path / "run" / "results.json").read_text()
    data, _ = written(tmp_path / "run")
    assert data["coverage"]["4"]["value"] == 0
    assert "-0.0" not in text


async def test_the_csv_holds_every_figure(tmp_path: Path) -> None:
    results = await harness_run(tmp_path / "run", n=10)
    report.write_csv(results, tmp_path / "curves.csv")
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(r["figure"], r["k"]): r for r in rows}
    assert len(found) == len(rows) == 15
    for k, point in results.data["coverage"].items():
        row = found["coverage", k]
        assert [float(row[c]) for c in ("value", "low", "high")] == [
            point[c] for c in ("value", "low", "high")
        ]
        assert float(row["tokens"]) == results.data["cost"][k]["tokens"]
        assert float(row["usd"]) == pytest.approx(results.data["cost"][k]["usd"])
        assert row["flops"] == "", "an unknown size is empty, not 0"
        assert ("selected:majority_vote", k) in found
        assert ("all_right", k) in found


async def test_results_read_back_are_what_was_written(tmp_path: Path) -> None:
    results = await harness_run(tmp_path / "run", n=10)
    again = Results.read(tmp_path / "run")
    assert again.data == strict(json.dumps(results.data))
    assert again.records == [Record(**strict(r.line())) for r in results.records]
    info = RunInfo(**strict((tmp_path / "run" / "info.json").read_text()))
    assert strict(json.dumps(summarise(info, again.records))) == again.data, "results come from records alone"


async def test_a_verifier_s_infinite_and_undefined_scores_are_still_strict_json(tmp_path: Path) -> None:
    replies = ("right:inf", "wrong:-inf", "wrong:nan", "right:0.5")
    pipeline = Sample(n=4) | Verify(verifier=Odd()) | BestOf()
    results = await harness_run(
        tmp_path / "run", reply=lambda c: replies[c.index], pipeline=pipeline, selectors=("best_of",)
    )
    assert results.data["problems"] == 4
    written(tmp_path / "run")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("\u2028", id="line separator"),
        pytest.param("\x85", id="next line"),
        pytest.param("\x0b", id="vertical tab"),
    ],
)
async def test_odd_line_ends_in_an_id_do_not_break_the_lines(tmp_path: Path, odd: str) -> None:
    name = f"a{odd}b"
    await harness_run(tmp_path / "run", reply=lambda c: "right", data=dataset([name, "c"]))
    _, lines = written(tmp_path / "run")
    assert [line["id"] for line in lines] == [name, "c"]
    assert [r.id for r in Results.read(tmp_path / "run").records] == [name, "c"]


async def test_an_error_that_cannot_be_written_as_utf8_does_not_lose_the_run(tmp_path: Path) -> None:
    def reply(call: Call) -> str | Exception:
        return RequestRejected("half an emoji: \ud83d") if call.problem == "p1" else "right"

    await harness_run(tmp_path / "run", reply=reply, n=2)
    data, _ = written(tmp_path / "run")
    assert data["outcomes"] == counts(solved=3, failed=1)


# --- budgets ---------------------------------------------------------------------------------------


async def test_a_run_out_of_budget_says_which_problems_it_cost(tmp_path: Path) -> None:
    budget = Budgets(run=Budget(requests=10))
    await harness_run(tmp_path / "run", reply=lambda c: "right", n=4, budget=budget, concurrency=1)
    data, lines = written(tmp_path / "run")
    assert data["usage"]["requests"] == 10
    assert [len(line["truth"]) for line in lines] == [4, 4, 2, 0]
    assert data["outcomes"] == counts(solved=3, cancelled=1)
    note = "1 of 4 problems had nothing to choose when `run.requests` ran out (counted as cancelled)"
    assert note in data["notes"]
    assert [line["stopped"] for line in lines] == ["complete", "complete", "budget", "budget"]
    assert lines[2]["exhausted"] == lines[3]["exhausted"] == "run.requests"
    assert data["coverage"]["4"]["problems"] == 2
    assert data["interrupted"] is False


async def test_a_deadline_cancels_the_problems_that_did_not_start(tmp_path: Path) -> None:
    budget = Budgets(run=Budget(seconds=0.05))
    await harness_run(
        tmp_path / "run", reply=lambda c: Reply("right", latency=3600), n=1, budget=budget, concurrency=1
    )
    data, lines = written(tmp_path / "run")
    assert data["outcomes"] == counts(cancelled=4)
    assert [line["exhausted"] for line in lines] == ["run.seconds"] * 4
    assert [line["stopped"] for line in lines] == ["deadline"] * 4
    assert data["coverage"] == {}


# --- selectors -------------------------------------------------------------------------------------


async def test_selected_accuracy_is_reported_by_selector(tmp_path: Path) -> None:
    pipeline = Sample(n=4) | Verify(verifier=Odd()) | BestOf()
    replies = ("wrong:9", "right:1", "right:2", "wrong:0")
    await harness_run(
        tmp_path / "run", reply=lambda c: replies[c.index], pipeline=pipeline,
        selectors=("best_of", "first_passing", "majority_vote"),
    )  # fmt: skip
    data, lines = written(tmp_path / "run")
    assert set(data["selected"]) == {"best_of", "first_passing", "majority_vote"}
    best, first = data["selected"]["best_of"], data["selected"]["first_passing"]
    assert [best[k]["value"] for k in ("1", "2", "4")] == pytest.approx([0.5, 0.5, 0.0])
    assert [first[k]["value"] for k in ("1", "2", "4")] == pytest.approx([0.5, 5 / 6, 1.0])
    assert [first[k]["abstained"] for k in ("1", "2", "4")] == pytest.approx([0.5, 1 / 6, 0.0])
    assert [line["selected"] for line in lines] == [0] * 4
    assert data["pipeline_accuracy"]["value"] == 0.0
    assert lines[0]["verdicts"]["odd"]["accepted"] == [False, True, True, False]
    assert lines[0]["merits"]["best_of"] == [9.0, 1.0, 2.0, 0.0]


async def test_a_selector_is_reported_as_the_pipeline_has_it(tmp_path: Path) -> None:
    judged = Sample(n=4) | Verify(verifier=Odd(), called="one") | Verify(verifier=Odd(), called="two")
    pipeline = judged | BestOf(by="two")
    await harness_run(tmp_path / "run", pipeline=pipeline, selectors=("best_of",))
    data, _ = written(tmp_path / "run")
    assert list(data["selected"]) == ["best_of"]
    with pytest.raises(UserError, match=r"'weighted_vote'.*'one', 'two'.*by"):
        await harness_run(tmp_path / "run", pipeline=pipeline, selectors=("weighted_vote",))


async def test_a_selector_that_cannot_use_these_scores_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    pipeline = Sample(n=2) | Verify(verifier=Odd()) | BestOf()
    await harness_run(
        tmp_path / "run",
        reply=lambda c: "right:-3" if c.problem == "p3" else "right:1",
        pipeline=pipeline,
        selectors=("best_of", "weighted_vote"),
    )
    data, lines = written(tmp_path / "run")
    assert list(data["selected"]) == ["best_of"]
    assert not any(line["ballots"] for line in lines)
    assert any("weighted_vote is not reported" in note and "-3" in note for note in data["notes"])


async def test_the_pipeline_s_own_choice_is_its_selector_s_at_all_samples(tmp_path: Path) -> None:
    results = await harness_run(tmp_path / "run", n=7, selectors=("majority_vote",), reply=votes)
    at_all = results.data["selected"]["majority_vote"]["7"]["value"]
    assert at_all == results.data["pipeline_accuracy"]["value"] == 0.5


async def test_scores_that_compare_candidates_are_said_to_do_so(tmp_path: Path) -> None:
    class Comparing(Odd):
        together = True

    for name, verifier, comparing in (("one", Odd(), False), ("two", Comparing(), True)):
        await harness_run(tmp_path / name, pipeline=Sample(n=2) | Verify(verifier=verifier) | BestOf())
        notes = written(tmp_path / name)[0]["notes"]
        assert any("comparing compares all candidates" in note for note in notes) is comparing


async def test_a_pipeline_that_stops_early_reports_no_coverage_and_says_so(tmp_path: Path) -> None:
    pipeline = Sample(n=4) | Verify(verifier=Odd()) | FirstPassing()
    await harness_run(tmp_path / "run", pipeline=pipeline)
    data, _ = written(tmp_path / "run")
    assert (data["coverage"], data["selected"]) == ({}, {})
    assert any("stops early" in note for note in data["notes"])
    assert data["outcomes"] == counts(solved=4)


class Deriving(Stage):
    """Solves another problem too, and passes on only what it solved of this one."""

    takes: ClassVar[bool] = False
    solver: AnyPipeline = Pipeline([Sample(n=3)])

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        other = problem.model_copy(update={"id": f"{problem.id}/other"})
        await run.solve(self.solver, other, "other")
        for candidate in await run.solve(self.solver, problem, "itself"):
            yield candidate


async def test_what_answers_a_derived_problem_is_not_graded_as_an_answer(tmp_path: Path) -> None:
    def reply(call: Call) -> str:
        return "right" if call.problem.endswith("/other") else "wrong"

    results = await harness_run(tmp_path / "run", pipeline=Deriving(), reply=reply)
    _, lines = written(tmp_path / "run")
    for line in lines:
        assert line["samples"] == [f"deriving/itself/sample#{i}" for i in range(3)]
        assert (line["truth"], line["usage"]["requests"]) == ([False] * 3, 6)
    assert results.data["coverage"]["2"]["value"] == 0
    assert set(results.data["by_stage"]) == {"deriving/other/sample", "deriving/itself/sample"}


async def test_a_pipeline_that_stops_early_inside_a_stage_reports_no_coverage_either(tmp_path: Path) -> None:
    solver = Sample(n=4) | Verify(verifier=Odd()) | FirstPassing()
    results = await harness_run(
        tmp_path / "run", pipeline=Deriving(solver=solver), reply=lambda call: "right"
    )
    assert results.data["coverage"] == {}


async def test_a_selector_that_is_none_is_an_error_before_anything_is_spent(tmp_path: Path) -> None:
    asked: list[Call] = []
    with pytest.raises(UserError, match="does not choose one of the candidates"):
        await harness_run(tmp_path / "run", reply=lambda c: asked.append(c) or "x", selectors=("sample",))  # type: ignore[func-returns-value]
    assert asked == []


async def test_a_verifier_that_can_say_nothing_is_an_error_before_anything_is_spent(tmp_path: Path) -> None:
    asked: list[Call] = []
    with pytest.raises(UserError, match="'unit_tests' can say nothing"):
        await harness_run(
            tmp_path / "run",
            reply=lambda c: asked.append(c) or "x",  # type: ignore[func-returns-value]
            pipeline=coding(2),
        )
    assert asked == []


async def test_two_problems_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twin"):
        await harness_run(tmp_path / "run", reply=lambda c: "right", data=dataset(["twin", "twin"]))
