"""Cost on other axes than tokens and dollars: FLOPs by the architecture, idealised seconds of a machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply
from archon.benchmarks.idealised import with_seconds
from archon.benchmarks.plots import draw
from archon.benchmarks.results import Results
from archon.budget import Budget, Budgets
from archon.compute import Architecture
from archon.errors import DataError, UnknownName
from archon.roofline import find_hardware, ideal
from tests.archon.test_cli_terminal import archon
from tests.benchmarks.small import harness_run

TINY = Architecture(layers=2, hidden=64, heads=2, ffn=128, vocab=100)


def reply(call: Call) -> Reply:
    return Reply("right" if call.index % 2 else "wrong", tokens=Tokens(10, completion=20))


async def run(folder: Path, **model: object) -> Results:
    return await harness_run(folder, reply=reply, n=4, model=model)


async def test_a_run_says_its_model_s_architecture_and_its_exact_flops(tmp_path: Path) -> None:
    results = await run(tmp_path / "run", architecture=TINY)
    assert Architecture(**results.data["models"]["default"]["architecture"]) == TINY
    assert results.data["usage"]["flops"] == 16 * TINY.flops.of(10, 0, 20)
    assert results.data["cost"]["2"]["flops"] == 2 * TINY.flops.of(10, 0, 20)


async def test_idealised_seconds_are_those_of_as_many_calls_on_that_machine(tmp_path: Path) -> None:
    results = await run(tmp_path / "run", architecture=TINY)
    for batch in (1, 8):
        found = with_seconds(Results.read(tmp_path / "run"), "h100-sxm", batch)
        one = ideal(TINY, find_hardware("h100-sxm"), prompt=10, output=20, batch=batch).seconds / batch
        assert {k: c["seconds"] for k, c in found.data["cost"].items()} == pytest.approx(
            {"1": one, "2": 2 * one, "4": 4 * one}
        )
    assert "seconds" not in results.data["cost"]["1"], "the run itself is as it was"


def test_what_a_model_costs_may_become_known_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the error says: the same command again, and nothing is asked for again."""
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text('{"id": "a", "question": "2 + 2?", "answer": "4", "kind": "number"}\n')

    def bench(costs: str) -> None:
        Path("p.yaml").write_text(
            f"models: {{default: {{backend: scripted, replies: {{a: ['4', '5']}}{costs}}}}}\n"
            "pipeline: [{sample: {n: 2}}]\n"
        )
        said = archon(capsys, "bench", "q.jsonl", "-p", "p.yaml", "--out", "run", "-q", "--no-pictures")
        assert said.code == 0, said.err

    bench("")
    for axis in ("usd", "flops"):
        assert "again" in archon(capsys, "report", "run", "--cost", axis).err
    bench(
        ", price: {input: 1, output: 1}, architecture: {layers: 2, hidden: 64, heads: 2, ffn: 128, vocab: 100}"
    )
    assert Results.read("run").data["fresh"]["requests"] == 0
    for cost in (("usd",), ("flops",), ("seconds", "--hardware", "l40s")):
        assert archon(capsys, "report", "run", "--cost", *cost).code == 0


async def test_several_devices_share_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await run(tmp_path, architecture=TINY)
    seconds = ("report", str(tmp_path), "--cost", "seconds", "--hardware", "l40s")
    one, four = (json.loads(archon(capsys, *seconds, *d, "--json").out) for d in ((), ("--devices", "4")))
    assert one["cost"]["4"]["seconds"] == pytest.approx(4 * four["cost"]["4"]["seconds"])
    assert "on 4 x l40s, batch 1" in archon(capsys, *seconds, "--devices", "4").out


async def test_a_batch_that_does_not_fit_is_said_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(tmp_path, architecture=TINY)
    batch = str(10**9)
    said = archon(
        capsys, "report", str(tmp_path), "--cost", "seconds", "--hardware", "l40s", "--batch", batch
    )
    assert said.code == 0 and "memory is too small" in said.out


async def test_a_run_that_is_replayed_costs_the_same(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    fresh, replayed = [
        await harness_run(
            tmp_path / name, reply=reply, n=4, model={"architecture": TINY}, store=store, seed=1
        )
        for name in ("fresh", "replayed")
    ]
    assert replayed.data["fresh"]["requests"] == 0
    assert with_seconds(fresh, "l40s").data["cost"] == with_seconds(replayed, "l40s").data["cost"]


async def test_of_a_run_without_samples_there_is_no_cost_and_no_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Budgets(problem=Budget(requests=0))
    await harness_run(tmp_path, reply=reply, n=4, model={"architecture": TINY}, budget=nothing)
    for cost in (("flops",), ("seconds", "--hardware", "l40s")):
        assert archon(capsys, "report", str(tmp_path), "--cost", *cost).code == 0


async def test_without_an_architecture_or_a_machine_there_are_no_seconds(tmp_path: Path) -> None:
    results = await run(tmp_path / "run", parameters=1000)
    with pytest.raises(DataError, match=r"'default'.*architecture"):
        with_seconds(results, "h100-sxm")
    with pytest.raises(UnknownName, match="l40s"):
        with_seconds(results, "l40")


async def test_the_report_and_its_picture_show_the_cost_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    await run(folder, architecture=TINY)
    usual = archon(capsys, "report", str(folder))
    assert "tokens per problem" in usual.out and "FLOPs per problem" not in usual.out
    flops = archon(capsys, "report", str(folder), "--cost", "flops")
    assert "FLOPs per problem" in flops.out and "tokens per problem" not in flops.out
    assert f"{4 * TINY.flops.of(10, 0, 20):.3g}" in flops.out
    ideal_ones = ("--cost", "seconds", "--hardware", "l40s", "--batch", "4")
    seconds = archon(capsys, "report", str(folder), *ideal_ones, "--pictures")
    assert (seconds.code, "idealised seconds on l40s, batch 4" in seconds.out) == (0, True)
    assert seconds.err.split() == [str(folder / "accuracy_by_seconds.png")]
    data = json.loads(archon(capsys, "report", str(folder), *ideal_ones, "--json").out)
    assert data["idealised"] == {"hardware": "l40s", "devices": 1, "batch": 4, "fits": True}
    assert data["cost"]["4"]["seconds"] > 0
    assert not draw(Results.read(folder), tmp_path, "seconds"), "nothing to draw where no machine is named"


async def test_a_cost_that_the_run_does_not_know_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    await run(folder, price=None)
    for axis, said in (("usd", "`price:`"), ("flops", "`architecture:`")):
        found = archon(capsys, "report", str(folder), "--cost", axis)
        assert found.code == 2 and said in found.err
    for wrong in (
        ("--cost", "seconds"),
        ("--hardware", "l40s"),
        ("--cost", "usd", "--verifiers"),
        ("--batch", "2"),
    ):
        assert archon(capsys, "report", str(folder), *wrong).code == 2
