"""`archon cost`: a model's FLOPs and bytes, and its idealised runtime by machine and batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archon.compute import Architecture
from archon.roofline import find_hardware, ideal
from tests.archon.test_cli_terminal import archon
from tests.archon.test_compute import LLAMA_8B


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps(LLAMA_8B))


def test_it_says_sizes_times_and_what_they_wait_for(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "cost", ".", "--batch", "1,4096")
    assert (said.code, said.err) == (0, "")
    head, *_, alone, many, note = said.out.splitlines()
    assert head.startswith("8,030,261,248 parameters") and "131 kB of keys and values per token" in head
    assert "h100-sxm" in alone and " 1 " in alone and "4.51 ms (memory)" in alone
    assert " 4096 " in many and "does not fit" in many
    assert "lower bound" in note


def test_as_json_it_is_everything(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--hardware", "l40s,h100-sxm", "--devices", "2", "--batch", "8", "--prompt", "100", "--json")
    said = archon(capsys, "cost", "config.json", *arguments, "--output", "10", "--cached", "50")
    data = json.loads(said.out)
    model = Architecture.read("config.json")
    assert data["parameters"] == model.parameters
    assert data["flops"]["request"] == model.flops.of(100, 50, 10)
    assert Architecture(**data["architecture"]) == model
    assert [one["hardware"] for one in data["ideal"]] == ["l40s", "h100-sxm"]
    machine = find_hardware("l40s").times(2)
    assert (
        data["ideal"][0]["seconds"]
        == ideal(model, machine, prompt=100, cached=50, output=10, batch=8).seconds
    )


def test_the_json_has_the_schema_that_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(archon(capsys, "cost", ".", "--json").out)
    documented = Path(__file__).parents[2].joinpath("docs/costs.md").read_text()
    assert data["schema"] == 1
    for field in (*data, *data["ideal"][0], *data["ideal"][0]["prefill"], *data["flops"]):
        assert f"`{field}`" in documented, field


def test_a_machine_that_cannot_compute_in_its_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(
        "hardware:\n  mine: {peaks: {int8: 1.0e+15}, bandwidth: 1.0e+12, memory: 1.0e+11}\n"
        "  none: {peaks: {}, bandwidth: 1.0e+12, memory: 1.0e+11}\n"
    )
    table = ("--hardware-table", "mine.yaml")
    found = archon(capsys, "cost", ".", "--hardware", "mine", *table)
    assert found.code == 2 and "peaks" in found.err
    Path("mine.yaml").write_text(
        Path("mine.yaml").read_text().replace("{int8: 1.0e+15}", "{bfloat16: 1.0e+15}")
    )
    found = archon(capsys, "cost", ".", "--hardware", "mine", *table)
    assert found.code == 2 and "none" in found.err, "wherever in the table"


def test_a_machine_with_a_price_says_what_a_million_tokens_cost(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(
        "hardware:\n  mine: {peaks: {bfloat16: 1.0e+15}, bandwidth: 1.0e+12, memory: 1.0e+11, usd_per_hour: 3.6}\n"
    )
    said = archon(capsys, "cost", ".", "--hardware", "mine", "--hardware-table", "mine.yaml", "--batch", "1")
    assert "$ per million" in said.out
    said = archon(capsys, "cost", ".", "--hardware", "mine", "--hardware-table", "mine.yaml", "--json")
    one = json.loads(said.out)["ideal"][0]
    assert one["usd_per_million_tokens"] == pytest.approx(1000 / one["tokens_per_second"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hardware", "h100"), "h100-sxm"),
        (("--batch", "none"), "whole numbers"),
        (("--batch", "0"), "whole numbers"),
        (("--cached", "512"), "less than the prompt"),
    ],
)
def test_mistakes_are_one_message(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    found = archon(capsys, "cost", ".", *arguments)
    assert found.code == 2 and said in found.err


def test_a_model_that_cannot_be_counted_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.json").write_text('{"model_type": "mamba"}')
    found = archon(capsys, "cost", ".")
    assert found.code == 2 and "'mamba' is not known" in found.err
