"""`archon verify`: run one program against tests in the sandbox, and say what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from archon.execution import Limits, Program, Suite, TestReport

_FUNCTION = {"args", "kwargs", "expected", "tolerance"}
_WHOLE = {"stdin", "stdout", "tolerance"}
_DEEPEST = 3
_FILE = click.Path(path_type=Path)
_MORE = click.FloatRange(min=0, min_open=True)


@click.command(short_help="Run a program against tests, in the sandbox.")
@click.argument("solution", type=_FILE)
@click.option("--tests", "tests_file", type=_FILE, required=True, metavar="TESTS.json", help="The tests.")
@click.option("--entry-point", metavar="NAME", help="The function to call; tests of printed text need none.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
@click.option("--cpu-seconds", type=_MORE, help="CPU time for all tests of a function, or each run (2).")
@click.option("--wall-seconds", type=_MORE, help="Time for the same, waiting included (20).")
@click.option("--memory-mb", type=_MORE, help="Address space (1024).")
@click.option("--packages", is_flag=True, help="Let it import this environment's third-party packages.")
@click.option(
    "--isolation", type=click.Choice(["strict", "weak"]), help="Whether to run where little protects."
)
def verify(
    solution: Path,
    tests_file: Path,
    entry_point: str | None,
    as_json: bool,
    packages: bool,
    isolation: str | None,
    **limits: float | None,
) -> None:
    """Run SOLUTION against tests: exit code 0 if it passes all of them, 1 if not, 2 for a mistake of yours.

    Tests are a JSON list: of a function, {"args": [...], "expected": ...} with an optional "kwargs" and
    "tolerance"; of what a program prints, {"stdin": "...", "stdout": "..."}. Where a list is expected a tuple is
    right too, as JSON has no other.

    \b
    archon verify solution.py --entry-point add --tests tests.json --json
    """
    from archon.execution import Limits, Program

    suite = read_suite(_text(tests_file), tests_file)
    if suite.cases and not entry_point:
        raise click.UsageError("these tests call a function: name it with --entry-point")
    program = Program(source=_text(solution), entry_point=entry_point or "", packages=packages)
    chosen = Limits(**{name: value for name, value in limits.items() if value is not None})
    report = asyncio.run(_tested(program, suite, chosen, isolation))
    if as_json:
        print(json.dumps(as_object(report)))
    else:
        _show(report)
    sys.exit(0 if report.status == "passed" else 1)


def read_suite(text: str, file: Path) -> Suite:
    """The tests in a text. Raises UserError that says which is wrong, and how."""
    from pydantic import ValidationError

    from archon.errors import DataError
    from archon.execution import Exchange, Suite
    from archon.problem import Case

    try:
        tests = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    if not isinstance(tests, list) or not tests:
        raise DataError(f"{file} should hold a list of tests, and one at least")
    cases: list[Case] = []
    exchanges: list[Exchange] = []
    for number, test in enumerate(tests, 1):
        where = f"{file}: test {number}"
        keys = set(test) if isinstance(test, dict) else set()
        if not (("expected" in keys and keys <= _FUNCTION) or ("stdout" in keys and keys <= _WHOLE)):
            raise DataError(
                f'{where} should be {{"args": [...], "expected": ...}} or {{"stdin": "...", "stdout": "..."}}, each '
                f"with a tolerance or without, and is {_short(test)}"
            )
        try:
            if "stdout" in keys:
                exchanges.append(Exchange(**test))
                continue
            if not isinstance(test.get("args", []), list):
                raise DataError(f"{where}: args should be a list, and is {_short(test['args'])}")
            cases.append(Case(**test, alternatives=_with_tuples(test["expected"])))
        except (ValidationError, RecursionError) as error:
            reason = (
                error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "too deep"}
            )
            raise DataError(f"{where}: {'.'.join(map(str, reason['loc']))}: {reason['msg']}") from None
    if cases and exchanges:
        raise DataError(f"{file} mixes tests of a function with tests of printed text: use a file for each")
    return Suite(cases=tuple(cases), exchanges=tuple(exchanges))


def as_object(report: TestReport) -> dict[str, Any]:
    """A report as its machine-readable contract says."""
    return {
        "passed": report.status == "passed",
        "status": report.status,
        "tests": [{"status": t.status, "detail": t.detail} for t in report.tests],
        "cpu_seconds": round(report.cpu_seconds, 6),
        "peak_mb": round(report.peak_mb, 3),
    }


async def _tested(program: Program, suite: Suite, limits: Limits, isolation: str | None) -> TestReport:
    from archon import registry

    executor = registry.find("executor", "sandbox")(1, isolation=isolation)
    try:
        report: TestReport = await executor.test(program, suite, limits)
    finally:
        await executor.close()
    return report


def _text(file: Path) -> str:
    from archon.errors import DataError

    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8 text") from None


def _with_tuples(value: Any) -> tuple[Any, ...]:
    """The same with tuples for lists, level by level."""
    depth = min(_depth(value), _DEEPEST)
    return tuple(_with(value, kinds) for kinds in product((list, tuple), repeat=depth) if tuple in kinds)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _with(value: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _with(item, kinds) for key, item in value.items()}
    if not isinstance(value, list) or not kinds:
        return value
    return kinds[0](_with(item, kinds[1:]) for item in value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _show(report: TestReport) -> None:
    for number, test in enumerate(report.tests, 1):
        if test.status != "passed":
            print(f"test {number}: {test.status.replace('_', ' ')}{': ' if test.detail else ''}{test.detail}")
    print(
        f"{report.status.replace('_', ' ')}: {report.passed} of {len(report.tests)} tests passed, "
        f"{report.cpu_seconds:.3f} s of CPU time, {report.peak_mb:.0f} MB"
    )
