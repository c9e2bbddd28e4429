"""Ctrl-C and SIGTERM in the midst of things: nothing that was recorded is lost or paid for again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from archon.testing import Answer, Asked, StubServer
from tests.archon.test_cli_terminal import Said, archon, command, served

PROBLEMS, SAMPLES, ANSWERED = 4, 6, 9
"""Of twenty-four samples nine come, six of the first problem and three of the second; then the server is silent."""
WAITED_FOR = SAMPLES - ANSWERED % SAMPLES
"""Calls in flight then: the others of the second problem."""
_PATIENCE = 300.0
_TIMING = {"seconds", "fresh", "interrupted"}


class Silent:
    """Answers by prompt and seed alone; after so many answers it says nothing more until it is told to."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.talks_again = threading.Event()

    def __call__(self, asked: Asked) -> Answer:
        text = str((int(asked.body["seed"]) + len(asked.text)) % 3)
        if self.talks_again.is_set():
            return Answer(text)
        self.left -= 1
        return Answer(text, delay=0 if self.left >= 0 else 600)


def bench(server: StubServer, name: str = "run", *more: str) -> tuple[str, ...]:
    """The command: one problem after the other."""
    return (
        "bench", "questions.jsonl", "--pipeline", "self_consistency", "--samples", str(SAMPLES), "--seed", "1",
        "--model", "openai:m", "--base-url", f"{server.url}/{name}", "--concurrency", "1", "--no-pictures", "--quiet",
        "--store", f"{name}.sqlite", "--out", name, *more,
    )  # fmt: skip


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, as a terminal would start it; never left behind."""
    running = subprocess.Popen(
        command(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()


def ended(running: subprocess.Popen[bytes]) -> Said:
    out, err = running.communicate(timeout=_PATIENCE)
    return Said(running.returncode, (out or b"").decode(), err.decode())


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def rows(store: str, query: str) -> list[Any]:
    """Rows of a store that somebody else may be writing."""
    if not Path(store).exists():
        return []
    with closing(sqlite3.connect(store, timeout=30)) as db:
        try:
            return db.execute(query).fetchall()
        except sqlite3.OperationalError:  # its tables are being made
            return []


def stored(store: str = "run.sqlite") -> int:
    return len(rows(store, "SELECT 1 FROM samples"))


def asked(server: StubServer, name: str = "run") -> Counter[tuple[str, int]]:
    return Counter((a.text, int(a.body["seed"])) for a in server.asked if a.path.startswith(f"/{name}/"))


def without_timing(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: without_timing(v) for k, v in data.items() if k not in _TIMING}
    return [without_timing(item) for item in data] if isinstance(data, list) else data


def found(name: str) -> Any:
    text = Path(f"{name}/results.json").read_text().replace(f"/{name}", "")
    return without_timing(json.loads(text))


def questions() -> None:
    Path("questions.jsonl").write_text(
        "".join(
            json.dumps(
                {"id": f"p{i}", "question": "What is " + "1 + " * i + "1?", "answer": "1", "kind": "number"}
            )
            + "\n"
            for i in range(PROBLEMS)
        )
    )


def interrupt(server: StubServer, *signals: signal.Signals) -> Said:
    """Start, wait until what comes has come and is recorded, and send the signals."""
    questions()
    with started(*bench(server)) as running:
        wait_for(lambda: stored() == ANSWERED and len(server.asked) == ANSWERED + WAITED_FOR)
        for number in signals:
            running.send_signal(number)
        return ended(running)


@pytest.mark.parametrize(
    ("signals", "codes"),
    [
        ([signal.SIGINT], {130}),
        ([signal.SIGTERM], {143}),
        pytest.param([signal.SIGINT, signal.SIGINT], {130}, marks=pytest.mark.slow),
        pytest.param([signal.SIGHUP], {129}, marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice", "SIGHUP"],
)
def test_nothing_is_lost_and_nothing_is_paid_for_twice(
    signals: list[signal.Signals], codes: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    script = Silent(ANSWERED)
    with served(script) as server:
        said = interrupt(server, *signals)
        assert said.code in codes
        assert "Traceback" not in said.out + said.err
        assert stored() == ANSWERED
        before = asked(server)
        assert set(before.values()) == {1}

        script.talks_again.set()
        assert archon(capsys, *bench(server)).code == 0
        assert stored() == PROBLEMS * SAMPLES
        assert sum((asked(server) - before).values()) == PROBLEMS * SAMPLES - ANSWERED
        assert rows("run.sqlite", "SELECT 1 FROM claims") == []

        assert archon(capsys, *bench(server, "whole")).code == 0
    assert found("run") == found("whole"), "as if it had never been interrupted"


class Interrupted(NamedTuple):
    """A run that Ctrl-C or SIGTERM ended."""

    folder: Path
    said: Said
    cut_off: int
    """Calls that were in flight."""


@pytest.fixture(scope="module", params=[signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def interrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    with contextlib.chdir(folder), served(Silent(ANSWERED)) as server:
        said = interrupt(server, request.param)
        return Interrupted(folder, said, len(server.asked) - ANSWERED)


def test_an_interrupted_run_leaves_the_results_of_what_was_done(
    interrupted: Interrupted, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted.folder / "run"
    data = json.loads((run / "results.json").read_text())
    assert (data["interrupted"], data["problems"]) == (True, 1)
    (line,) = (run / "problems.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "p0"
    said = archon(capsys, "report", run)
    assert said.code == 0
    assert "interrupted" in said.out


def test_the_calls_that_are_cut_off_are_billed(interrupted: Interrupted) -> None:
    store = str(interrupted.folder / "run.sqlite")
    kinds = Counter(kind for (kind,) in rows(store, "SELECT kind FROM attempts"))
    assert kinds == {"cancelled": interrupted.cut_off}
    assert rows(store, "SELECT 1 FROM claims") == []


def test_an_interrupted_run_says_that_the_same_command_goes_on(interrupted: Interrupted) -> None:
    assert "interrupted" in interrupted.said.err
    assert "run the same command again" in interrupted.said.err


def test_a_finished_run_is_not_replaced_by_an_interrupted_one(capsys: pytest.CaptureFixture[str]) -> None:
    script = Silent(10**6)
    with served(script) as server:
        questions()
        assert archon(capsys, *bench(server)).code == 0
        before = Path("run/results.json").read_bytes()
        script.left = 3
        with started(*bench(server, "run", "--samples", str(SAMPLES + 2))) as running:
            wait_for(lambda: stored() == PROBLEMS * SAMPLES + 3)
            running.send_signal(signal.SIGINT)
            assert ended(running).code == 130
    assert Path("run/results.json").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_question_is_interrupted_alike(number: signal.Signals) -> None:
    with served(Silent(2)) as server:
        words = (
            "run", "Q", "-p", "repeated_sampling", "--samples", "5", "--seed", "1", "-m", "openai:m",
            "--base-url", f"{server.url}/run", "--store", "run.sqlite",
        )  # fmt: skip
        with started(*words) as running:
            wait_for(lambda: stored() == 2)
            running.send_signal(number)
            said = ended(running)
    assert (said.code, said.out) == (128 + number, "")
    assert "Traceback" not in said.err
    assert stored() == 2


def test_sigterm_ends_what_ctrl_c_cannot_reach() -> None:
    """A shell starts what runs in the background (`archon ... &`) with SIGINT ignored."""
    with served(Silent(2)) as server:
        words = command(
            "run", "Q", "-p", "repeated_sampling", "--samples", "5", "--seed", "1", "-m", "openai:m",
            "--base-url", server.url, "--store", "run.sqlite",
        )  # fmt: skip
        script = 'trap "" INT; exec "$@"'
        with subprocess.Popen(["sh", "-c", script, "sh", *words], stderr=subprocess.PIPE) as running:
            wait_for(lambda: stored() == 2)
            running.send_signal(signal.SIGINT)
            running.send_signal(signal.SIGTERM)
            said = ended(running)
    assert said.code == 143
    assert "Traceback" not in said.err
    assert stored() == 2


# --- while programs run ----------------------------------------------------------------------------


def members(session: int) -> list[str]:
    """Processes of a session that are alive."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            alive.append(stat.parent.name)
    return alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_programs_in_the_sandbox_end_quietly_with_the_run(number: signal.Signals) -> None:
    """A terminal signals the whole group, the sandbox's processes as well."""
    row = {"id": "f", "question": "Write f().", "entry_point": "f", "tests": [{"args": [], "expected": 1}]}
    Path("code.jsonl").write_text(json.dumps(row) + "\n")
    program = "def f():\n    import time\n    time.sleep(15)\n    return 1"
    Path("code.yaml").write_text(
        f"models: {{default: {{backend: scripted, replies: {{f: [{json.dumps(program)}]}}}}}}\n"
        "pipeline: [{sample: {n: 1}}, {verify: {verifier: unit_tests}}, best_of]\n"
    )
    words = ("bench", "code.jsonl", "-p", "code.yaml", "--out", "run", "--no-pictures", "--quiet")
    with started(*words) as running:
        wait_for(lambda: _sleeps(running.pid))
        os.killpg(running.pid, number)
        said = ended(running)
        assert said.code in {130, -number, 128 + number}
        wait_for(lambda: not members(running.pid))
    assert "Traceback" not in said.out + said.err


def _sleeps(parent: int) -> bool:
    """Whether the sandbox has a program in work: a descendant that is no direct child."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    return any(children.get(child) for child in children.get(parent, []))
