"""`archon report --verifiers`: a real run's verdicts against its truth, and settings of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.archon.test_cli_bench import arrange, bench, everything
from tests.archon.test_cli_terminal import archon

RIGHT, LUCKY, WRONG = (
    f"```python\ndef double(x):\n    return {body}\n```" for body in ("2 * x", "2", "x - 1")
)
PROBLEM = {
    "id": "double", "question": "Write double(x).", "entry_point": "double",
    "tests": [{"args": [1], "expected": 2}], "hidden_tests": [{"args": [5], "expected": 10}],
}  # fmt: skip


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> None:
    """A run of four samples: right, two that pass the visible test only, and wrong."""
    Path("mine.jsonl").write_text(json.dumps(PROBLEM) + "\n")
    replies = json.dumps({"double": [RIGHT, LUCKY, LUCKY, WRONG]})
    Path("verify.yaml").write_text(
        f"models: {{default: {{backend: scripted, replies: {replies}}}}}\n"
        "pipeline: [{sample: {n: 4}}, {verify: {verifier: unit_tests}}, best_of]\n"
    )
    said = archon(
        capsys, "bench", "mine.jsonl", "-p", "verify.yaml", "--out", "run", "--no-pictures", "--quiet"
    )
    assert said.code == 0


@pytest.mark.usefixtures("ran")
def test_the_account_as_json_keeps_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    before = everything()
    said = archon(capsys, "report", "run", "--verifiers", "--json")
    assert (said.code, said.err) == (0, "")
    assert everything() == before
    data = json.loads(said.out)["unit_tests"]
    names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    assert [data[name] for name in names] == [1, 2, 1, 0]
    assert data["conditional_accuracy"]["value"] == pytest.approx(1 / 3)
    assert data["false_positive_share"]["1"]["value"] == pytest.approx(2 / 3)
    assert set(data["utility"]) == {"0", "1", "2", "4", "8"}
    assert set(data["utility"]["0"]["curve"]) == set(data["best_of"]) == {"1", "2", "3", "4"}
    assert data["utility"]["0"]["best_k"] == "unbounded"
    assert data["utility"]["1"]["best_k"] == 0
    assert data["utility"]["0"]["value"] == pytest.approx(1 / 3)


@pytest.mark.usefixtures("ran")
def test_the_account_is_a_table_for_people_and_pictures_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = archon(capsys, "report", "run", "--verifiers", "--costs", "0,0.5", "--pictures")
    assert said.code == 0
    for words in ("unit_tests against the truth: 1 problems, 4 samples", "unbounded", "0.5", "soundness"):
        assert words in said.out
    assert said.err.split() == ["run/verifier_unit_tests.png"]
    assert Path(said.err.strip()).exists()


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--verifiers", "--compare", "run"), "ask for one of them"),
        (("--costs", "1"), "go with --verifiers"),
        (("--drop-false-negatives",), "go with --verifiers"),
        (("--verifiers", "--costs", "1,dear"), "'dear' is no cost"),
        (("--verifiers", "--costs", ","), "at least one number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, "report", "run", *words)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


def test_a_run_without_a_verifier_is_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    arrange()
    bench(capsys)
    said = archon(capsys, "report", "run", "--verifiers", "--json")
    assert (said.code, said.out) == (2, "")
    assert len(said.errors) == 1
    assert "'run' has no verdicts" in said.err and "`verify` stage" in said.err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("visibl=base", "Did you mean 'visible'?"),
        ("visible=all", "'examples' or 'base'"),
        ("visible", "should look like FIELD=VALUE"),
        ("visible=[", "is no value"),
    ],
)
def test_a_wrong_setting_of_a_benchmark_is_named(
    setting: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arrange()
    said = archon(
        capsys, "bench", "humaneval_plus", "--benchmark-set", setting, "-p", "vote.yaml", "--out", "run"
    )
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert not Path("run").exists()


@pytest.mark.data
def test_recorded_samples_are_accounted_for_with_the_base_tests_as_verifier(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(
        capsys, "bench", "humaneval_plus", "--benchmark-set", "visible=base", "-p", "best_of_n",
        "--replay", str(data / "codegen16b_humaneval"), "--data", str(data), "--samples", "10", "--limit", "1",
        "--out", "run", "--no-pictures", "--quiet",
    )  # fmt: skip
    assert (said.code, said.err) == (0, "")
    assert "visible: base" in said.out
    found = json.loads(archon(capsys, "report", "run", "--verifiers", "--json").out)["unit_tests"]
    assert found["samples"] == 10
    assert found["undecided"] == {"right": 0, "wrong": 0}
    assert found["true_positives"] > 0
    assert found["false_negatives"] == 0, "what is right passes the base tests, which are part of the truth"
