"""`archon tune` over real engines: nano workers, servers that are started and ended, one behind a URL, and vLLM."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archon.backends.nano.backend import Nano
from archon.backends.nano.folder import SHIPPED
from archon.backends.openai import OpenAI
from archon.backends.vllm.config import VLLM
from archon.benchmarks.tuning.command import tune
from archon.benchmarks.tuning.measuring import Round, ends_with_us, percentile, prepared, throughput
from archon.benchmarks.tuning.summary import ratio_of, verdict
from archon.benchmarks.tuning.tuner import Leg, Pair
from archon.config import load
from archon.errors import UserError
from archon.testing import Answer, StubServer
from tests.archon.conftest import PYTHON
from tests.archon.fake_vllm import fake_python, keepers, left

NANO = """
engine: {nano: {batch: {choose: [2, 64]}, workers: 1}}
workload: {requests: 4, prompt_tokens: 40, max_tokens: 4, concurrency: 2}
rounds: {count: 2, margin: 0.99, cap: 1000}
finalists: 1
confirm: 0
proposer: grid
"""


def run(folder: Path, file: str, *options: str, name: str = "tuned") -> dict[str, Any]:
    (folder / "engine.yaml").write_text(file)
    arguments = [str(folder / "engine.yaml"), "--out", str(folder / name), "--no-pictures", *options]
    found = CliRunner().invoke(tune, arguments, standalone_mode=False)
    if found.exception is not None:
        raise found.exception
    told: dict[str, Any] = json.loads((folder / name / "tune.json").read_text())
    return told


# --- nano ----------------------------------------------------------------------------------------------


def test_killed_with_9_it_goes_on_with_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "engine.yaml").write_text(NANO)
    command = [sys.executable, "-m", "archon", "tune", "engine.yaml", "--out", "tuned", "--no-pictures"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("trial 1"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = rounds(tmp_path / "tuned")
    assert len(before) >= 2 * 2, "those of the baseline and of a trial"
    told = run(tmp_path, NANO)
    after = rounds(tmp_path / "tuned")
    assert before.items() <= after.items(), "what was measured stays as it was"
    assert len(told["trials"]) == 2 and len(after) == told["requests"] / 4
    assert told["recommended"] is not None and load(tmp_path / "tuned" / "best.yaml")


def rounds(folder: Path) -> dict[str, Any]:
    """Every round that is kept, by contender and leg."""
    with closing(sqlite3.connect(folder / "study.sqlite")) as db:
        rows = db.execute(
            "select configuration, problem, value from archon_work where done is not null"
        ).fetchall()
    return {f"{a} {b}": c for a, b, c in rows if "/" in b and b.rsplit("/", 1)[1].isdigit()}


def test_problems_of_a_benchmark_go_through_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("pipeline: [{sample: {n: 2, max_tokens: 4}}, majority_vote]\n")
    file = f"""
engine: {{nano: {{batch: {{choose: [64]}}, workers: 1}}}}
workload: {{benchmark: {{lab/arith: {{level: 2, problems: 12}}}}, pipeline: {tmp_path / "short.yaml"},
           requests: 3, concurrency: 2}}
objective: request_throughput
rounds: {{count: 2, margin: 0.99, cap: 1000}}
confirm: 0
proposer: grid
"""
    told = run(tmp_path, file)
    assert [trial["state"] for trial in told["trials"]] == ["complete"] and told["requests"] == 2 * 2 * 3
    assert load(tmp_path / "tuned" / "best.yaml").pipeline == load(tmp_path / "short.yaml").pipeline
    with pytest.raises(UserError, match="more than the 12 problems"):
        run(tmp_path, file.replace("requests: 3", "requests: 6"), name="more")
    (tmp_path / "judged.yaml").write_text("pipeline: [{sample: {}}, {rank: {model: judge}}]\n")
    with pytest.raises(UserError, match="'judge', which is not defined"):
        run(tmp_path, file.replace("short.yaml", "judged.yaml"), name="judged")
    (tmp_path / "other.yaml").write_text("pipeline: [{sample: {model: other}}]\n")
    defined = file + "models: {other: {backend: nano}}\n"
    with pytest.raises(UserError, match="does not ask `default`"):
        run(tmp_path, defined.replace("short.yaml", "other.yaml"), name="other")


# --- servers -------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place for servers of this test's alone, with nothing left there afterwards."""
    monkeypatch.setenv("ARCHON_VLLM_STATE", str(tmp_path_factory.mktemp("v")))
    yield
    until = time.monotonic() + 300
    while left() or keepers():
        assert time.monotonic() < until, "something is left"
        time.sleep(0.05)


@pytest.mark.usefixtures("state")
def test_servers_are_started_one_by_one_and_one_that_refuses_its_options_is_a_failed_trial(
    tmp_path: Path,
) -> None:
    file = f"""
engine:
  vllm:
    model: m
    python: {fake_python(tmp_path / "fake")}
    keep: 600
    options: {{max_num_seqs: {{optional: 4}}}}
    environment: {{FAKE_DELAY: {{choose: ["0.01", "0.02"]}}}}
workload: {{requests: 4, prompt_tokens: 40, max_tokens: 4, concurrency: 4}}
rounds: {{count: 1, margin: 0.99, cap: 1000}}
finalists: 1
confirm: 1
proposer: grid
"""
    told = run(tmp_path, file)
    failed = [trial for trial in told["trials"] if trial["state"] == "failed"]
    assert len(failed) == 2 and all(trial["configuration"]["max_num_seqs"] for trial in failed)
    assert "vLLM refuses its `options`" in failed[0]["reason"] and "--max-num-seqs" in failed[0]["reason"]
    assert told["best"]["command"] == "vllm serve m"
    best = load(tmp_path / "tuned" / "best.yaml").models["default"]
    assert isinstance(best, VLLM) and {*best.environment} == {"FAKE_DELAY"}, (
        "nothing of the tuning's own is in it"
    )
    assert told["starts"]["count"] == 1 + 4 + 2
    assert not left(), "they are not kept for the next run, whatever the file says"


async def test_a_server_that_runs_already_is_asked_everything_anew(tmp_path: Path) -> None:
    import asyncio

    async with StubServer(lambda asked: Answer("word " * 5)) as server:
        file = f"""
engine: {{openai: {{model: m, base_url: "{server.url}", max_concurrency: {{choose: [1, 8]}}}}}}
workload: {{requests: 4, prompt_tokens: 40, max_tokens: 4, concurrency: 4}}
rounds: {{count: 1, margin: 0.99, cap: 1000}}
finalists: 1
confirm: 1
proposer: grid
"""
        told = await asyncio.to_thread(run, tmp_path, file)
        texts = [asked.text for asked in server.asked]
    assert told["states"]["complete"] == 2
    assert len(set(texts)) == len(texts) == 2 + 2 * told["requests"] == 42, "no prompt comes twice"


# --- vLLM ----------------------------------------------------------------------------------------------


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not PYTHON.exists(), reason=f"NO VLLM: {PYTHON} is not there. `make vllm`")
@pytest.mark.usefixtures("state")
def test_vllm_is_tuned(tmp_path: Path) -> None:
    """Two configurations, of which one cannot be started: a batch of more sequences than tokens."""
    file = f"""
engine:
  vllm:
    model: {SHIPPED / "lm"}
    python: {PYTHON}
    options: {{max_model_len: 512, enforce_eager: true, dtype: float32, max_num_batched_tokens: 64,
               max_num_seqs: {{choose: [8, 128]}}}}
    environment: {{VLLM_CPU_KVCACHE_SPACE: "1", OMP_NUM_THREADS: "1", VLLM_CPU_OMP_THREADS_BIND: nobind}}
workload: {{requests: 8, prompt_tokens: [40, 80], max_tokens: 8, concurrency: 8, samples: 2}}
baseline: {{max_num_seqs: 4}}
rounds: {{count: 2, margin: 0.99, cap: 1000}}
confirm: 0
proposer: grid
"""
    with (Path(tempfile.gettempdir()) / f"archon-tests-{os.getuid()}.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        told = run(tmp_path, file)
    works, refused = sorted(told["trials"], key=lambda trial: trial["configuration"]["max_num_seqs"])
    assert works["state"] == "complete" and works["throughput"] > 0 and works["first_token"] > 0
    assert refused["state"] == "failed" and "max_num_seqs" in refused["reason"]
    assert told["best"]["completion_tokens"] == 2 * 8, "replies go on to their full length"
    assert 40 <= told["best"]["prompt_tokens"] <= 80


# --- arithmetic ----------------------------------------------------------------------------------------


def leg(rate: float, **fields: Any) -> Leg:
    return Leg([Round(10.0, 5, round(10 * rate), 0, (1.0, 2.0), **fields)])


def test_a_percentile_is_one_of_the_values_and_no_more_than_that_share_is_above() -> None:
    values = [float(n) for n in range(1, 21)]
    assert percentile(values, 95) == 19 and percentile(values, 50) == 10 and percentile(values, 100) == 20
    assert percentile(values[:19], 95) == 19, "of fewer than 20 it is the largest"
    assert percentile([3.0], 50) == 3 and percentile([], 95) != percentile([], 95)


def test_throughput_over_rounds_is_all_that_was_done_by_all_the_seconds() -> None:
    short, long = Round(1.0, 10, 100, 0, ()), Round(9.0, 10, 100, 0, ())
    assert throughput([short, long], "throughput") == 20
    assert throughput([short, long], "request_throughput") == 2
    assert throughput([], "throughput") == 0


def test_the_ratio_is_taken_pair_by_pair_so_a_drift_of_the_machine_does_not_count() -> None:
    pairs = [Pair(leg(2 * speed), leg(speed), True) for speed in (10, 100, 1000)]
    ratio = ratio_of(pairs, "throughput")
    assert ratio is not None and ratio["pairs"] == 3
    assert (
        ratio["value"] == pytest.approx(2) and ratio["low"] == pytest.approx(2) and verdict(ratio) == "better"
    )


def test_a_ratio_whose_interval_has_1_in_it_is_no_difference() -> None:
    noisy = ratio_of([Pair(leg(12), leg(10), True), Pair(leg(10), leg(11), False)], "throughput")
    assert verdict(noisy) == "no difference" and noisy is not None and noisy["low"] < 1 < noisy["high"]
    worse = ratio_of([Pair(leg(5), leg(10), True), Pair(leg(50), leg(101), False)], "throughput")
    assert verdict(worse) == "worse"
    assert verdict(ratio_of([Pair(leg(2), leg(1), True)], "throughput")) == "unknown", (
        "one pair has no interval"
    )
    failed = Leg(failed="out of memory")
    assert ratio_of([Pair(leg(2), failed, True)], "throughput") is None and verdict(None) == "unknown"


def test_a_round_comes_back_from_json_as_it_was() -> None:
    one = Round(1.5, 2, 30, 40, (0.5, 1.0), ("why",), 1, True, 0.25, 3, 4, 5)
    assert Round.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_what_is_measured_is_nobody_else_s_and_is_not_kept() -> None:
    given = VLLM(model="m", keep=600, environment={"A": "b"})
    made = prepared(given, 32, "mark")
    assert (
        isinstance(made, VLLM) and made.keep == 0 and made.environment == {"A": "b", "ARCHON_TUNING": "mark"}
    )
    assert made.concurrency == 32 and made.identity == given.identity
    assert prepared(VLLM(model="m", concurrency=4), 32, "mark").concurrency == 4, "the file says so"
    assert prepared(VLLM(model="m", max_concurrency=8), 32, "mark").concurrency == 8


def test_what_outlives_a_trial_is_known() -> None:
    assert ends_with_us(Nano()) and ends_with_us(VLLM(model="m"))
    assert not ends_with_us(VLLM(model="m", url="http://127.0.0.1:1/v1"))
    assert not ends_with_us(OpenAI(model="m", base_url="http://127.0.0.1:1/v1"))
