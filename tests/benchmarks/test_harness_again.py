"""The harness on small scripted benchmarks: resuming, growing, several runs at once, reading back."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from archon.backends.scripted import Call, Reply
from archon.benchmarks.benchmark import Truth
from archon.benchmarks.harness import open_folder
from archon.benchmarks.results import SCHEMA, Results, write_json
from archon.errors import (
    AuthenticationFailed,
    DataError,
    StageFailed,
    UserError,
)
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample
from tests.benchmarks.small import (
    Executing,
    Faulty,
    Grading,
    alternating,
    code,
    coding,
    dataset,
    harness_run,
    strict,
    written,
)

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
