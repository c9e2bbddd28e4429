"""CodeT on recorded samples: its pass@k, its recordings, and a few problems from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archon.backends.replay import Replay
from archon.benchmarks.codet import Judged, figures, measure, ranked_pass_at_k, recorded, table, verifiers
from archon.errors import AllCandidatesFailed, DataError
from archon.problem import Problem
from archon.session import Session
from archon.strategies.sample import Sample


def test_one_of_each_group_is_chosen_from_the_best() -> None:
    scores, right = [9, 9, 4, 4, 4, 0], [True, False, True, True, False, True]
    at = ranked_pass_at_k(scores, right, [1, 2])
    assert at == pytest.approx([1 / 2, 1 - 1 / 2 * 1 / 3])


def test_groups_are_gone_through_again_where_there_are_too_few() -> None:
    assert ranked_pass_at_k([3, 3], [True, False], [3]) == pytest.approx([1 - 1 / 8])


def test_groups_of_equal_score_are_one() -> None:
    assert ranked_pass_at_k([3, 3.0, 1], [True, False, False], [1]) == pytest.approx([1 / 2])


def test_where_there_is_no_group_any_sample_is_chosen() -> None:
    assert ranked_pass_at_k([0, None, 0, None], [True, False, False, False], [1, 2]) == pytest.approx(
        [1 / 4, 1 / 2]
    )


def test_best_of_n_chooses_the_highest_fraction_of_tests() -> None:
    found = [
        Judged("a", [True, False, False], {"generated_tests": [0.9, 0.1, 0.1]}),
        Judged("b", [True, False, False], {"generated_tests": [None, None, None]}),
    ]
    result = figures(found, 3)
    assert [result["best_of"][k]["value"] for k in "123"] == pytest.approx([1 / 3, 1 / 2, 2 / 3], abs=1e-3)
    assert result["coverage"]["3"]["value"] == 1.0
    assert result["pass_at_k"]["generated_tests"]["1"]["value"] == pytest.approx(2 / 3, abs=1e-3)
    assert "generated_tests" in table(result)


# --- recordings --------------------------------------------------------------------------------------

TASK = "def f(x):\n    '''One more.'''\n"


def write(folder: Path) -> Path:
    rows: dict[str, list[dict[str, object]]] = {
        "for_code_generation.jsonl": [
            {"task_id": "T/0", "prompt": TASK, "entry_point": "f"},
            {"task_id": "T/1", "prompt": TASK + "    # twice\n", "entry_point": "f"},
        ],
        "temp0.8_topp0.95_num2_max300_code_solution.jsonl": [
            {"prompt": TASK, "samples": ["    return x + 1\n"] * 2}
        ],
        "temp0.8_topp0.95_num2_max300_test_case.jsonl": [
            {
                "prompt": TASK + "    pass\n\n# check f\nassert ",
                "samples": ["f(1) == 2\nassert f(2) == 3", "\n"],
            },
            {"prompt": TASK + "    # twice\n    pass\n\nassert ", "samples": ["f(1) == 9"]},
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "temp0.8_topp0.95_num2_max300_test_case.jsonl"


async def test_recorded_tests_replay_as_a_model_that_writes_tests(tmp_path: Path) -> None:
    model = Replay(path=write(tmp_path))
    async with Session(models=model) as session:
        outcome = await session.solve(Sample(n=2), Problem.ask("Anything that we ask.", id="T/0"))
        assert [c.text for c in outcome.candidates] == ["f(1) == 2\nassert f(2) == 3", "\n"]
        (other,) = (await session.solve(Sample(), Problem.ask("And of this.", id="T/1"))).candidates
        assert other.text == "f(1) == 9"  # the longer of two prompts that it goes on from
        with pytest.raises(AllCandidatesFailed):
            await session.solve(Sample(), Problem.ask("And of that.", id="T/2"))


def test_a_folder_without_recorded_tests_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recording of model-written tests"):
        recorded(tmp_path)


@pytest.mark.data
async def test_two_problems_of_humaneval_from_end_to_end(data: Path, tmp_path: Path) -> None:
    chosen = verifiers(6, 5, clusters=True)
    result = await measure(data, 2, chosen, 6, tmp_path / "store.sqlite")
    assert (result["problems"], result["samples"]) == (2, 6)
    assert set(result["best_of"]) == set("123456")
    for curve in result["pass_at_k"].values():
        assert set(curve) == {"1", "2"} and all(0 <= figure["value"] <= 1 for figure in curve.values())
    assert result["pass_at_k"]["agreement_product"]["1"]["value"] >= result["coverage"]["1"]["value"]
    again = await measure(data, 2, chosen, 6, tmp_path / "store.sqlite")
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
