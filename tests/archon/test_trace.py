"""Traces: one JSON object per line, whatever the replies hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archon.backends.scripted import Call, Scripted
from archon.errors import RequestRejected
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing.stages import EveryThird
from archon.trace import FileTrace, MemoryTrace

PIPELINE = Sample(n=3) | Verify(verifier=EveryThird()) | BestOf()


async def events(pipeline: Pipeline, model: Scripted) -> list[str]:
    trace = MemoryTrace()
    async with Session(models=model, trace=trace) as session:
        await session.solve(pipeline, Problem.ask("q"))
    return [event["event"] for event in trace.events]


async def test_a_file_has_one_json_object_per_line_with_its_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    model = Scripted(reply=lambda call: "é\n\u2028 \ud800", identity="odd")
    async with Session(models=model, trace=FileTrace(path)) as session:
        for name in ("one", "two"):
            await session.solve(PIPELINE, Problem.ask("q\nr", id=name))
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    solved = [line for line in lines if line["event"] == "solved"]
    assert [line["problem"] for line in solved] == ["one", "two"]
    assert all(line["chosen"].startswith("sample#") and line["usage"]["requests"] == 3 for line in solved)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


def test_a_trace_is_appended_to_and_closing_twice_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for number in range(2):
        trace = FileTrace(path)
        trace.event("mine", number=number)
        trace.close()
        trace.close()
        trace.event("late", number=9)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]


async def test_a_problem_that_is_solved_is_an_event() -> None:
    assert "solved" in await events(PIPELINE, Scripted(replies={"*": ("a", "b", "c")}))


async def test_samples_attempts_and_verdicts_are_events_too() -> None:
    def reply(call: Call) -> str:
        if call.index == 1:
            raise RequestRejected("no")
        return "x"

    found = await events(PIPELINE, Scripted(reply=reply))
    assert {kind: found.count(kind) for kind in ("sampled", "attempt", "verdict")} == {
        "sampled": 2,
        "attempt": 1,
        "verdict": 2,
    }


async def test_a_problem_on_which_every_candidate_failed_is_traced_as_well() -> None:
    from archon.errors import AllCandidatesFailed

    trace = MemoryTrace()
    async with Session(models=Scripted(replies={"other": ("x",)}), trace=trace) as session:
        with pytest.raises(AllCandidatesFailed):
            await session.solve(Sample(), Problem.ask("q"))
    (event,) = [e for e in trace.events if e["event"] == "solved"]
    assert event["answer"] is None and "NotRecorded" in event["failures"][0]["error"]
