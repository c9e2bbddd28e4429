"""The harness on small scripted benchmarks: resuming, growing, failing, stopping, and what it leaves behind."""

from __future__ import annotations

import asyncio
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks import report
from archon.benchmarks.benchmark import Dataset, Truth
from archon.benchmarks.harness import Harness, Plan, open_folder
from archon.benchmarks.programs import SuiteGrader
from archon.benchmarks.results import SCHEMA, Record, Results, RunInfo, summarise, write_json
from archon.budget import Budget, Budgets
from archon.candidate import Verdict
from archon.errors import (
    AuthenticationFailed,
    DataError,
    Overloaded,
    RequestRejected,
    StageFailed,
    UserError,
)
from archon.execution import Limits, Program, Suite, TestReport
from archon.execution import TestResult as Tested
from archon.pipeline import Pipeline
from archon.problem import Case, Problem
from archon.session import Session
from archon.stage import Stage
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifier import Verifier
from archon.verifiers.unit_tests import UnitTests

NAMES = ("solved", "wrong", "failed", "timed_out", "cancelled", "abstained")


class Grading:
    """Counts what it grades: a reply is right if it says so, and may say how it is wrong instead."""

    def __init__(self) -> None:
        self.graded: Counter[str] = Counter()

    async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
        self.graded[problem.id] += 1
        return [_truth(text) for text in texts]


def _truth(text: str) -> Truth:
    if text in ("failed", "timed_out"):
        return Truth("failed" if text == "failed" else "timed_out")
    return Truth("right" if text.startswith("right") else "wrong")


class Executing:
    """An executor that counts: a program passes if it holds the word right."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        self.ran[f"{program.source}|{suite.digest[:6]}"] += 1
        await asyncio.sleep(0)
        status: Any = "passed" if "right" in program.source else "wrong"
        return TestReport(status, (Tested(status),))

    async def evaluate(self, program: Program, calls: Sequence[Any], limits: Limits) -> Sequence[Any]:
        raise AssertionError("not asked for")

    async def close(self) -> None:
        pass


class Odd(Verifier):
    """Accepts what is right; its score is whatever the reply names after a colon."""

    async def verify(self, problem: Problem, candidates: Sequence[Any], run: Any) -> Sequence[Verdict]:
        return [
            Verdict(self.name, c.text.startswith("right"), float(c.text.partition(":")[2] or 0))
            for c in candidates
        ]


class Faulty(Stage):
    """Raises for the problem named `bad`."""

    async def run(self, problem: Problem, candidates: Any, run: Any) -> Any:
        async for candidate in candidates:
            if problem.id == "bad":
                raise ZeroDivisionError("a fault of the stage")
            yield candidate


def dataset(count: int | Iterable[str] = 4, grader: Any = None, name: str = "small") -> Dataset:
    names = [f"p{i}" for i in range(count)] if isinstance(count, int) else list(count)
    return Dataset(name, [Problem.ask(f"question {n}", id=n) for n in names], grader or Grading())


def alternating(call: Call) -> str:
    """Problem pI has every (I+1)-th sample right."""
    return f"right {call.index}" if call.index % (int(call.problem[1:]) + 1) == 0 else f"wrong {call.index}"


def voting(n: int) -> Pipeline:
    return Sample(n=n) | MajorityVote()


async def harness_run(
    folder: Path,
    *,
    reply: Callable[[Call], str | Reply | Exception] = alternating,
    data: Dataset | None = None,
    n: int = 4,
    pipeline: Pipeline | Stage | None = None,
    budget: Budgets | None = None,
    store: Path | None = None,
    concurrency: int = 16,
    selectors: tuple[str, ...] = (),
    executor: Any = None,
    seen: list[Session] | None = None,
    model: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Results:
    folder.mkdir(exist_ok=True)
    built = pipeline if pipeline is not None else voting(n)
    graph = (built if isinstance(built, Pipeline) else Pipeline([built])).graph()
    scripted = Scripted(
        reply=reply, identity="script", **{"price": {"input": 1, "output": 2}, **(model or {})}
    )
    plan = Plan(data or dataset(), graph, "mine", samples=n, concurrency=concurrency, selectors=selectors)
    async with Session(models=scripted, budget=budget, store=store, executor=executor, seed=seed) as session:
        if seen is not None:
            seen.append(session)
        return await Harness(plan, session, folder).run()


def strict(text: str) -> Any:
    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def written(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """results.json and problems.jsonl as other programs read them: strictly, lines ended by newlines only."""
    data = strict((folder / "results.json").read_text(encoding="utf-8"))
    text = (folder / "problems.jsonl").read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return data, [strict(line) for line in text.split("\n")[:-1]]


def counts(**given: int) -> dict[str, int]:
    return {name: given.get(name, 0) for name in NAMES}


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


# --- resuming and growing --------------------------------------------------------------------------


async def test_a_second_run_pays_and_grades_nothing_and_says_the_same(tmp_path: Path) -> None:
    asked: list[str] = []

    def reply(call: Call) -> str:
        asked.append(call.problem)
        return f"```python\n{alternating(call)}\n```"

    ran: list[Executing] = []

    async def once() -> dict[str, Any]:
        ran.append(Executing())
        await harness_run(
            tmp_path / "run", reply=reply, data=code(), pipeline=coding(6), n=6, store=tmp_path / "s.sqlite",
            executor=ran[-1],
        )  # fmt: skip
        return written(tmp_path / "run")[0]

    first = await once()
    assert (len(asked), first["fresh"]["requests"]) == (24, 24)
    assert set(ran[0].ran.values()) == {1}
    assert len(ran[0].ran) == 2 * 24, "visible and hidden tests of 24 different programs"
    second = await once()
    assert len(asked) == 24
    assert ran[1].ran == Counter()
    assert second["fresh"] == {**second["fresh"], "requests": 0, "usd": 0.0, "completion_tokens": 0}
    assert {k: v for k, v in second.items() if k != "fresh"} == {
        k: v for k, v in first.items() if k != "fresh"
    }


def code(count: int = 4) -> Dataset:
    names = [f"p{i}" for i in range(count)]
    problems = [
        Problem.ask(
            f"write {n}", id=n, answer="code", entry_point="f", tests=(Case(args=(1,), expected=number),)
        )
        for number, n in enumerate(names)
    ]
    suites = {n: Suite(cases=(Case(args=(2,), expected=number),)) for number, n in enumerate(names)}
    return Dataset("coding", problems, SuiteGrader(suites), selectors=("best_of", "first_passing"))


def coding(n: int) -> Pipeline:
    return Sample(n=n) | Verify(verifier=UnitTests()) | BestOf()


async def test_growing_n_on_a_finished_run_samples_and_grades_only_what_is_new(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def reply(call: Call) -> str:
        asked.append((call.problem, call.index))
        return f"```python\n{alternating(call)}\n```"

    runs: list[Executing] = []
    for n in (3, 8):
        runs.append(Executing())
        await harness_run(
            tmp_path / "run", reply=reply, data=code(), pipeline=coding(n), n=n, store=tmp_path / "s.sqlite",
            executor=runs[-1],
        )  # fmt: skip
    assert max(Counter(asked).values()) == 1
    assert len(asked) == 4 * 8
    assert not runs[0].ran.keys() & runs[1].ran.keys()
    assert sum(runs[1].ran.values()) == 2 * 4 * 5
    data, lines = written(tmp_path / "run")
    assert data["usage"]["requests"] == 32
    assert data["fresh"]["requests"] == 20
    assert list(data["coverage"]) == ["1", "2", "4", "8"]
    assert [len(line["truth"]) for line in lines] == [8] * 4


async def test_a_run_cancelled_midway_goes_on_where_it_stopped(tmp_path: Path) -> None:
    done = asyncio.Event()
    asked: Counter[tuple[str, int]] = Counter()

    def reply(call: Call) -> str | Reply:
        asked[call.problem, call.index] += 1
        slow = call.problem in ("p2", "p3") and not done.is_set()
        return Reply(alternating(call), latency=3600 if slow else 0)

    async def once() -> Results:
        return await harness_run(
            tmp_path / "run", reply=reply, n=4, store=tmp_path / "s.sqlite", concurrency=2, seen=sessions
        )

    sessions: list[Session] = []
    task = asyncio.create_task(once())
    while sum(asked.values()) < 16:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    data, lines = written(tmp_path / "run")
    assert data["interrupted"] is True
    assert [line["id"] for line in lines] == ["p0", "p1"]
    assert data["problems"] == sum(data["outcomes"].values()) == 2
    assert Results.read(tmp_path / "run").data == data
    done.set()
    await once()
    data, lines = written(tmp_path / "run")
    assert data["interrupted"] is False
    assert data["problems"] == len(lines) == 4
    assert {key for key, times in asked.items() if times > 1} == {
        (p, i) for p in ("p2", "p3") for i in range(4)
    }
    assert data["fresh"]["requests"] == 8, "what was cancelled is asked again, what was finished is not"


async def test_a_run_cancelled_before_anything_is_done_leaves_no_broken_files(tmp_path: Path) -> None:
    started = asyncio.Event()

    def reply(call: Call) -> Reply:
        started.set()
        return Reply("right", latency=3600)

    task = asyncio.create_task(harness_run(tmp_path / "run", reply=reply))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(DataError, match="there is no finished run"):
        Results.read(tmp_path / "run")


async def test_no_more_problems_are_in_work_than_asked_for(tmp_path: Path) -> None:
    working: set[str] = set()
    most = 0

    class Watching(Grading):
        async def grade(self, problem: Problem, texts: Sequence[str], session: Session) -> list[Truth]:
            await asyncio.sleep(0.002)
            working.discard(problem.id)
            return await super().grade(problem, texts, session)

    def reply(call: Call) -> Reply:
        nonlocal most
        working.add(call.problem)
        most = max(most, len(working))
        return Reply("right", latency=0.001)

    grader = Watching()
    await harness_run(tmp_path / "run", reply=reply, data=dataset(20, grader), concurrency=3)
    assert most == 3
    assert grader.graded == Counter({f"p{i}": 1 for i in range(20)})


async def test_a_fault_of_a_stage_ends_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    pipeline = Sample(n=1) | Faulty()
    data = dataset(["a", "b", "bad", "c"])
    with pytest.raises(StageFailed, match="a fault of the stage"):
        await harness_run(
            tmp_path / "run", reply=lambda c: "right", data=data, pipeline=pipeline, concurrency=1
        )
    kept, lines = written(tmp_path / "run")
    assert kept["interrupted"] is True
    assert [line["id"] for line in lines] == ["a", "b"]


async def test_a_fatal_error_ends_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    def reply(call: Call) -> str | Exception:
        return AuthenticationFailed("the key was revoked") if call.problem == "p2" else "right"

    with pytest.raises(AuthenticationFailed):
        await harness_run(tmp_path / "run", reply=reply, concurrency=1)
    data, lines = written(tmp_path / "run")
    assert data["interrupted"] is True
    assert [line["id"] for line in lines] == ["p0", "p1"]


# --- budgets ---------------------------------------------------------------------------------------


async def test_a_run_out_of_budget_says_which_problems_it_cost(tmp_path: Path) -> None:
    budget = Budgets(run=Budget(requests=10))
    await harness_run(tmp_path / "run", reply=lambda c: "right", n=4, budget=budget, concurrency=1)
    data, lines = written(tmp_path / "run")
    assert data["usage"]["requests"] == 10
    assert [len(line["truth"]) for line in lines] == [4, 4, 2, 0]
    assert data["outcomes"] == counts(solved=3, cancelled=1)
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


def votes(call: Call) -> str:
    """p0 and p1 have a right majority, p2 and p3 a wrong one; no ties."""
    good = call.index % 3 != 0 if call.problem in ("p0", "p1") else call.index % 3 == 0
    return "right" if good else "wrong"


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


# --- several runs ----------------------------------------------------------------------------------


async def test_two_runs_at_once_into_one_folder_and_store_pay_once_and_agree(tmp_path: Path) -> None:
    asked: Counter[tuple[str, int]] = Counter()

    def reply(call: Call) -> Reply:
        asked[call.problem, call.index] += 1
        return Reply(alternating(call), latency=0.001)

    async def once() -> Results:
        return await harness_run(tmp_path / "run", reply=reply, n=6, store=tmp_path / "s.sqlite")

    one, other = await asyncio.gather(once(), once())
    assert max(asked.values()) == 1
    assert len(asked) == 24
    assert one.data["coverage"] == other.data["coverage"]
    data, lines = written(tmp_path / "run")
    assert data["problems"] == len(lines) == 4
    assert [len(line["truth"]) for line in lines] == [6] * 4
    assert one.data["fresh"]["requests"] + other.data["fresh"]["requests"] == 24


def test_two_processes_that_write_the_same_file_at_once_do_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text
    others: list[str] = []

    def interleaved(self: Path, *arguments: Any, **named: Any) -> int:
        length = write_text(self, *arguments, **named)
        if not others:
            others.append("the other process writes and replaces in between")
            write_json(tmp_path / "results.json", {"by": "the other"})
        return length

    monkeypatch.setattr(Path, "write_text", interleaved)
    write_json(tmp_path / "results.json", {"by": "us"})
    assert strict((tmp_path / "results.json").read_text()) in ({"by": "us"}, {"by": "the other"})


# --- reading back ----------------------------------------------------------------------------------


def folder_with(place: Path, data: Any, lines: str = "") -> Path:
    place.mkdir()
    (place / "results.json").write_text(json.dumps(data))
    (place / "problems.jsonl").write_text(lines)
    return place


def test_a_newer_schema_is_refused_and_says_to_update(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"newer schema.*Update archon"):
        Results.read(folder_with(tmp_path / "run", {"schema": SCHEMA + 1}))


def test_a_newer_schema_is_refused_as_such_even_with_fields_we_do_not_know(tmp_path: Path) -> None:
    line = json.dumps({"id": "a", "outcome": "solved", "a_field_of_the_future": 1}) + "\n"
    with pytest.raises(DataError, match="newer schema"):
        Results.read(folder_with(tmp_path / "run", {"schema": SCHEMA + 1}, line))


@pytest.mark.parametrize("data", [[], "text", {"schema": "two"}, {"schema": None}, {}])
def test_what_is_no_run_of_ours_is_a_data_error_and_not_newer(tmp_path: Path, data: Any) -> None:
    with pytest.raises(DataError) as caught:
        Results.read(folder_with(tmp_path / "run", data))
    assert "newer" not in str(caught.value)


@pytest.mark.parametrize("line", ["{oops", "[1]", '{"id": "a"}', '{"id": "a", "outcome": "solved", "x": 1}'])
def test_a_damaged_run_is_a_data_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match="damaged"):
        Results.read(folder_with(tmp_path / "run", {"schema": 1}, line + "\n"))


def test_a_folder_without_a_run_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="archon bench --out"):
        Results.read(tmp_path)


# --- the run's folder ------------------------------------------------------------------------------


def test_a_folder_takes_the_same_run_again_and_more_samples(tmp_path: Path) -> None:
    settings = {"benchmark": "b", "samples": 4, "limit": 5, "config": {"pipeline": [1]}}
    open_folder(tmp_path / "run", settings)
    open_folder(tmp_path / "run", settings)
    open_folder(tmp_path / "run", {**settings, "samples": 9, "limit": None})
    assert strict((tmp_path / "run" / "run.json").read_text())["samples"] == 9


@pytest.mark.parametrize("less", [{"samples": 3}, {"limit": 3}])
async def test_results_give_way_to_larger_ones_only(tmp_path: Path, less: dict[str, int]) -> None:
    settings = {"samples": 4, "limit": 4}
    open_folder(tmp_path / "run", settings)
    await harness_run(tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(UserError, match=r"results of 4 .*, and 3 would replace them.*--out.*--overwrite"):
        open_folder(tmp_path / "run", {**settings, **less})
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before
    open_folder(tmp_path / "run", {**settings, **less}, overwrite=True)
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_folder_refuses_another_run_and_says_what_differs(tmp_path: Path) -> None:
    settings = {"benchmark": "b", "config": {"pipeline": [{"sample": {"temperature": 0.5}}]}}
    open_folder(tmp_path / "run", settings)
    other = {"benchmark": "b", "config": {"pipeline": [{"sample": {"temperature": 0.9}}]}}
    with pytest.raises(UserError, match=r"config\.pipeline.*0\.5.*0\.9.*--overwrite"):
        open_folder(tmp_path / "run", other)
    assert strict((tmp_path / "run" / "run.json").read_text()) == settings
    open_folder(tmp_path / "run", other, overwrite=True)
    assert strict((tmp_path / "run" / "run.json").read_text()) == other


def test_a_damaged_run_json_is_a_user_error_and_overwrite_mends_it(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        open_folder(tmp_path, {"benchmark": "b"})
    open_folder(tmp_path, {"benchmark": "b"}, overwrite=True)
    assert strict((tmp_path / "run.json").read_text()) == {"benchmark": "b"}


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        open_folder(tmp_path / "file" / "run", {"benchmark": "b"})
