"""Techniques beside plain sampling that costs as much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from archon.benchmarks.cli import report
from archon.benchmarks.equal_cost import equal_cost
from archon.benchmarks.results import Record, Results, RunInfo, summarise
from archon.errors import DataError
from archon.usage import Usage


def a_run(
    folder: Path,
    pipeline: str,
    solved: list[bool],
    tokens: int,
    truth: list[list[bool]] | None = None,
    *,
    fingerprint: str = "asked",
    early: bool = False,
) -> Results:
    """A run with so many tokens for each problem; the right answer is 0, and each wrong one is another."""
    records = []
    for i, right in enumerate(solved):
        drawn = truth[i] if truth else [right]
        ballots: list[list[float] | None] = [[0.0 if r else 1.0 + at, 1.0] for at, r in enumerate(drawn)]
        records.append(
            Record(
                f"p{i}",
                "solved" if right else "wrong",
                truth=drawn,
                ballots={"majority_vote": ballots},
                usage=Usage(prompt_tokens=tokens - 1, completion_tokens=1).as_json(),
                fingerprint=fingerprint,
            )
        )
    data = summarise(RunInfo("toy", pipeline, None, 0, early_stopping=early), records)
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(data))
    (folder / "problems.jsonl").write_text("".join(record.line() + "\n" for record in records))
    return Results.read(folder)


def test_it_is_held_against_as_many_tokens_of_plain_samples(tmp_path: Path) -> None:
    truth = [[True, True, True, False], [True, False, False, False], [False] * 4]
    plain = a_run(tmp_path / "plain", "self_consistency", [True, False, False], 400, truth)
    fused = a_run(tmp_path / "fused", "fuse", [True, True, False], 190)
    (line,) = equal_cost(plain, [fused], "majority_vote")
    assert (line.tokens, line.samples, line.plain_tokens, line.short) == (190, 2, 200, False)
    # of two samples, one of each answer or not, the earliest wins a tie: the mean of one sample
    assert line.plain.value == pytest.approx((0.75 + 0.25 + 0) / 3)
    assert line.accuracy.value == pytest.approx(2 / 3)
    assert line.difference.difference.value == pytest.approx(2 / 3 - 1 / 3)
    assert (line.difference.better, line.difference.worse, line.difference.equal) == (2, 0, 1)


def test_a_technique_that_costs_more_than_all_plain_samples_is_marked(tmp_path: Path) -> None:
    plain = a_run(tmp_path / "plain", "self_consistency", [True], 100, [[True, True]])
    dear = a_run(tmp_path / "dear", "debate", [True], 900)
    (line,) = equal_cost(plain, [dear], "majority_vote")
    assert line.short and line.samples == 2
    said = CliRunner().invoke(report, [str(dear.folder), "--beat", str(plain.folder)])
    assert said.exit_code == 0 and "2*" in said.output and "no more samples" in said.output


def test_a_technique_that_costs_less_than_a_sample_is_held_against_one(tmp_path: Path) -> None:
    plain = a_run(tmp_path / "plain", "self_consistency", [True], 100, [[True, False]])
    (line,) = equal_cost(plain, [a_run(tmp_path / "a", "cheap", [True], 1)], "majority_vote")
    assert line.samples == 1 and line.plain.value == 0.5


def test_runs_over_other_problems_are_refused(tmp_path: Path) -> None:
    plain = a_run(tmp_path / "plain", "self_consistency", [True, True], 100)
    other = a_run(tmp_path / "other", "fuse", [True, True], 100, fingerprint="another")
    with pytest.raises(DataError, match=r"2 problems .* 0 are in"):
        equal_cost(plain, [other], "majority_vote")
    with pytest.raises(DataError, match=r"majority_vote"):
        equal_cost(plain, [plain], "majority_voe")
    early = a_run(tmp_path / "early", "first_passing", [True, True], 100, early=True)
    with pytest.raises(DataError, match="stops early"):
        equal_cost(early, [plain], "majority_vote")


def test_the_table_as_json_and_for_people(tmp_path: Path) -> None:
    plain = a_run(tmp_path / "plain", "self_consistency", [True, False], 400, [[True] * 4, [False] * 4])
    fused = a_run(tmp_path / "fused", "fuse", [True, True], 200)
    again = a_run(tmp_path / "again", "debate", [False, False], 300)
    names = [str(fused.folder), str(again.folder)]
    said = CliRunner().invoke(report, [*names, "--beat", str(plain.folder), "--json"])
    assert said.exit_code == 0, said.output
    data = json.loads(said.output)
    assert [(one["run"], one["pipeline"], one["samples"]) for one in data["runs"]] == [
        (names[0], "fuse", 2),
        (names[1], "debate", 3),
    ]
    assert data["runs"][0]["difference"]["value"] == pytest.approx(0.5)
    said = CliRunner().invoke(report, [*names, "--beat", str(plain.folder)])
    assert said.exit_code == 0 and "fuse" in said.output and "debate" in said.output
    assert CliRunner().invoke(report, names).exit_code == 2
    assert CliRunner().invoke(report, [names[0], "--beat", names[1], "--verifiers"]).exit_code == 2
