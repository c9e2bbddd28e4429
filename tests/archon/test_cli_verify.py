"""`archon verify`: one verdict, machine-readable, with its exit code; mistakes of the user are said to be that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from archon.cli import main

ADD = "def add(a, b): return a + b"


def verify(folder: Path, source: str, tests: Any, *options: str) -> int:
    (folder / "solution.py").write_text(source)
    text = tests if isinstance(tests, str) else json.dumps(tests)
    (folder / "tests.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(folder / "solution.py"), "--tests", str(folder / "tests.json"), *options])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_the_verdict_is_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = [{"args": [1, 2], "expected": 3}, {"args": [1], "kwargs": {"b": 1.5}, "expected": 2.5}]
    assert verify(tmp_path, ADD, tests, "--entry-point", "add", "--json") == 0
    verdict = json.loads(capsys.readouterr().out)
    assert set(verdict) == {"passed", "status", "tests", "cpu_seconds", "peak_mb"}
    assert verdict["passed"] is True and verdict["status"] == "passed"
    assert [t["status"] for t in verdict["tests"]] == ["passed", "passed"]
    assert verdict["cpu_seconds"] > 0 and verdict["peak_mb"] > 1


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("def add(a, b): return 0", "wrong"),
        ("def add(a, b): raise ValueError", "failed"),
        ("def add(a, b):\n    while True: pass", "timed_out"),
        ("def add(a, b): return bytes(2**40)", "violation"),
        ("import sys\nsys.exit(0)", "failed"),
    ],
)
def test_each_status_ends_with_exit_code_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, status: str
) -> None:
    tests = [{"args": [1, 2], "expected": 3}]
    assert verify(tmp_path, source, tests, "--entry-point", "add", "--json", "--cpu-seconds", "0.5") == 1
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["passed"], verdict["status"]) == (False, status)


def test_what_a_program_prints_can_be_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tests = [{"stdin": "1 3", "stdout": "2.0"}, {"stdin": "1 2", "stdout": "1.4", "tolerance": 0.2}]
    assert verify(tmp_path, "print(sum(map(int, input().split())) / 2)", tests, "--json") == 0
    assert verify(tmp_path, "print(2)", [{"stdin": "", "stdout": "3"}]) == 1
    assert "test 1: wrong: word 1 is '2', expected '3'" in capsys.readouterr().out


def test_a_tuple_is_right_where_json_can_only_say_list(tmp_path: Path) -> None:
    tests = [{"args": [], "expected": [[1, 2], [3, 4]]}, {"args": [], "expected": [[1, 2], [3, 4]]}]
    for value in ("[(1, 2), (3, 4)]", "((1, 2), (3, 4))", "([1, 2], [3, 4])", "[[1, 2], [3, 4]]"):
        assert verify(tmp_path, f"def f(): return {value}", tests, "--entry-point", "f") == 0
    assert verify(tmp_path, "def f(): return [(1, 2), (3, 5)]", tests, "--entry-point", "f") == 1


def test_the_text_for_people_says_which_test_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = [{"args": [2, 2], "expected": 4}, {"args": [1, 2], "expected": 3}]
    assert verify(tmp_path, "def add(a, b): return a * b", tests, "--entry-point", "add") == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "test 2: wrong: returned 2, expected 3"
    assert second.startswith("wrong: 1 of 2 tests passed")


MISTAKES = {
    "not json": ("{", "not JSON"),
    "no list": ('{"args": []}', "list of tests"),
    "no tests": ("[]", "one at least"),
    "no object": ("[1]", "test 1 should be"),
    "nothing expected": ('[{"args": []}]', "test 1 should be"),
    "a misspelt key": ('[{"args": [], "expected": 1, "tolerence": 1}]', "test 1 should be"),
    "arguments that are no list": ('[{"args": {"a": 1}, "expected": 1}]', "args should be a list"),
    "a negative tolerance": ('[{"args": [], "expected": 1, "tolerance": -1}]', "tolerance"),
    "output that is no text": ('[{"stdin": "", "stdout": 3}]', "stdout"),
    "both kinds": ('[{"args": [], "expected": 1}, {"stdin": "", "stdout": ""}]', "mixes"),
    "too deep": ('[{"args": [], "expected": ' + "[" * 5000 + "]" * 5000 + "}]", "tests.json"),
}


@pytest.mark.parametrize(("tests", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_tests_is_said_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tests: str, message: str
) -> None:
    assert verify(tmp_path, ADD, tests, "--entry-point", "add", "--json") == 2
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out and "Traceback" not in shown.err


def test_other_mistakes_are_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, ADD, [{"args": [1, 2], "expected": 3}]) == 2
    assert "--entry-point" in capsys.readouterr().err
    for missing in ("solution.py", "tests.json"):
        (tmp_path / "solution.py").write_text(ADD)
        (tmp_path / "tests.json").write_text('[{"args": [1, 2], "expected": 3}]')
        (tmp_path / missing).unlink()
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    "verify",
                    str(tmp_path / "solution.py"),
                    "--tests",
                    str(tmp_path / "tests.json"),
                    "--entry-point",
                    "add",
                ]
            )
        assert ended.value.code == 2
        assert missing in capsys.readouterr().err
