"""HumanEval+ with HumanEval's own tests visible: a verifier that can be wrong, and the truth."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from archon import registry
from archon.backends.scripted import Scripted
from archon.benchmarks.humaneval_plus import HumanEvalPlus
from archon.execution import Limits, Program, Suite
from archon.session import Session
from archon.verifiers.sandbox import Sandbox

pytestmark = pytest.mark.data


def test_unless_asked_for_the_examples_are_visible(data: Path) -> None:
    dataset = registry.find("benchmark", "humaneval_plus")(data=data).load()
    assert dataset.prepare is None
    assert len(dataset.problems[0].tests) == 2


async def test_the_base_tests_are_visible_and_the_benchmark_s_own_solutions_pass_them(data: Path) -> None:
    file = data / "humanevalplus" / "HumanEvalPlus.jsonl.gz"
    rows = {r["task_id"]: r for r in map(json.loads, gzip.decompress(file.read_bytes()).splitlines())}
    sandbox = Sandbox()
    try:
        async with Session(models=Scripted(), executor=sandbox) as session:
            dataset = await HumanEvalPlus(data=data, visible="base").load().prepared(session)
            assert {p.id: len(p.tests) for p in dataset.problems} == {
                name: len(row["base_input"]) for name, row in rows.items()
            }
            assert [c.expected for c in dataset.problems[2].tests][:1] == [0.5]
            for problem in dataset.problems[::10]:
                row = rows[problem.id]
                program = Program(
                    source=row["prompt"] + row["canonical_solution"], entry_point=row["entry_point"]
                )
                report = await session.test(program, Suite(cases=problem.tests), Limits())
                assert report.status == "passed", problem.id
            assert await dataset.prepared(session) is dataset
    finally:
        await sandbox.close()
    assert any("visible: base" in note for note in dataset.notes)


async def test_what_passes_the_base_tests_may_fail_the_plus_tests(data: Path) -> None:
    """Codes that handle HumanEval's inputs of `truncate_number` by heart."""
    text = "```python\ndef truncate_number(number):\n    return {3.5: 0.5, 1.33: 0.33, 123.456: 0.456}[number]\n```"
    sandbox = Sandbox()
    try:
        async with Session(models=Scripted(), executor=sandbox) as session:
            dataset = await HumanEvalPlus(data=data, visible="base").load().prepared(session)
            problem = next(p for p in dataset.problems if p.entry_point == "truncate_number")
            source = text.removeprefix("```python\n").removesuffix("\n```")
            program = Program(source=source, entry_point="truncate_number")
            report = await session.test(program, Suite(cases=problem.tests), Limits())
            (truth,) = await dataset.grader.grade(problem, [text], session)
    finally:
        await sandbox.close()
    assert (report.status, truth.right) == ("passed", False)
