"""Bad servers and bad benchmarks: one clear error, the right exit code, and nothing that was recorded is lost."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from archon.testing import Answer, Asked
from tests.archon.test_cli_terminal import Said, archon, process, served

HTML = b"<html><head><title>Welcome</title></head><body>nginx</body></html>"
KEY = "sk-test-0123456789abcdef"


class Trouble(NamedTuple):
    """A server's fault, what must be said, and how the command ends."""

    answer: Answer
    says: tuple[str, ...]
    code: int


TROUBLES = {
    "wrong key": Trouble(
        Answer(f"Incorrect API key provided: {KEY}", status=401), ("401", "key", "`api_key_env`"), 2
    ),
    "key that is not allowed": Trouble(
        Answer("You are not allowed to sample from this model", status=403), ("403",), 2
    ),
    "model that does not exist": Trouble(
        Answer("The model `m` does not exist", status=404), ("404", "does not exist", "`model`"), 2
    ),
    "path that does not exist": Trouble(
        Answer(status=404, raw=HTML, content_type="text/html"), ("404", "/v1"), 2
    ),
    "HTML": Trouble(Answer(raw=HTML, content_type="text/html"), ("text/html", "`base_url`", "/v1"), 2),
    "text": Trouble(Answer(raw=b"It works!", content_type="text/plain"), ("It works!", "`base_url`"), 2),
    "JSON that is no completion": Trouble(Answer(raw=b'{"hello": "world"}'), ("hello", "`base_url`"), 2),
    "nothing at all": Trouble(Answer(raw=b""), ("`base_url`",), 2),
    "quota exhausted": Trouble(
        Answer("You exceeded your current quota", status=429, extra={"code": "insufficient_quota"}),
        ("429", "quota"),
        2,
    ),
}


def questions(count: int = 3) -> None:
    rows = [
        {"id": f"p{i}", "question": f"What is {i}?", "answer": "42", "kind": "number"} for i in range(count)
    ]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def bench(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> Said:
    return archon(
        capsys, "bench", "questions.jsonl", "--pipeline", "self_consistency", "--samples", "2", "--out", "run",
        "--model", "openai:m", "--base-url", url, "--no-pictures", "--quiet", *more,
    )  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], url: str, *more: str) -> Said:
    return archon(
        capsys, "run", "Q", "--pipeline", "repeated_sampling", "--samples", "2",
        "--model", "openai:m", "--base-url", url, *more,
    )  # fmt: skip


def once(said: Said, code: int, says: tuple[str, ...]) -> None:
    """One clear error, and nothing else on standard output."""
    assert (said.code, said.out) == (code, "")
    assert len(said.errors) == 1, said.err
    assert len(said.errors[0]) < 700
    for words in says:
        assert words in said.errors[0]


def stored() -> int:
    with closing(sqlite3.connect("store.sqlite")) as db:
        return int(db.execute("SELECT count(*) FROM samples").fetchone()[0])


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts; how long they are is tested elsewhere."""
    from archon.calling import Caller

    monkeypatch.setattr(Caller, "_pause", lambda self, error, retries: 0.0)


# --- servers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [run, bench])
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_server_that_cannot_be_used_is_one_clear_error(
    trouble: Trouble,
    command: Callable[..., Said],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    questions()
    with served(lambda asked: trouble.answer) as server:
        said = command(capsys, server.url)
        assert len(server.asked) <= 6, "it stops soon"
    once(said, trouble.code, trouble.says)
    assert KEY not in said.err


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_once_it_is_mended_the_same_command_goes_on(
    trouble: Trouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four samples come, then the trouble; later it is over."""
    questions()
    broken = True

    def script(asked: Asked) -> Answer:
        return trouble.answer if broken and asked.number >= 4 else Answer("42")

    with served(script) as server:
        said = bench(capsys, server.url, "--concurrency", "1")
        assert said.code != 0 and "Traceback" not in said.err
        assert stored() == 4
        broken = False
        before = len(server.asked)
        assert bench(capsys, server.url, "--concurrency", "1").code == 0
        assert len(server.asked) - before == 2, "what was recorded is not paid for again"
    assert json.loads(Path("run/results.json").read_text())["outcomes"]["solved"] == 3


@pytest.mark.parametrize("command", [run, bench])
@pytest.mark.parametrize(
    "answer",
    [
        Answer("overloaded", status=500),
        Answer("bad gateway", status=502),
        Answer("maintenance", status=503, headers={"Retry-After": "0"}),
        Answer(drop=True),
    ],
    ids=["500", "502", "503", "drop"],
)
def test_a_server_that_fails_for_ever_is_given_up(
    answer: Answer, command: Callable[..., Said], capsys: pytest.CaptureFixture[str]
) -> None:
    questions()
    with served(lambda asked: answer) as server:
        said = command(capsys, server.url)
        assert 2 <= len(server.asked) <= 60
    once(said, 1, ("does not answer", "attempts in a row", "run the same command again", server.url))


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens, and nobody else can meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.mark.parametrize("command", [run, bench])
def test_a_dead_endpoint_is_one_clear_error(
    command: Callable[..., Said], closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    questions()
    url = f"http://127.0.0.1:{closed_port}/v1"
    once(command(capsys, url), 1, (url, "does not answer", "`base_url`", "run the same command again"))


def test_a_dead_endpoint_costs_nothing(closed_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, f"http://127.0.0.1:{closed_port}/v1")
    assert "timed out" not in said.err.lower() and "in time" not in said.err
    pools = [json.loads(line) for line in archon(capsys, "store", "list", "--json").out.splitlines()]
    assert [pool["usage"]["completion_tokens"] for pool in pools] == [0]


def test_a_host_that_does_not_exist_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://no-such-host.invalid/v1"
    once(run(capsys, url), 1, (url, "does not answer", "`base_url`"))


def test_one_request_that_is_refused_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    questions()

    def script(asked: Asked) -> Answer:
        return Answer("too long", status=400) if asked.text == "What is 1?" else Answer("42")

    with served(script) as server:
        said = bench(capsys, server.url)
    assert said.code == 0
    outcomes = json.loads(Path("run/results.json").read_text())["outcomes"]
    assert (outcomes["solved"], outcomes["failed"]) == (2, 1)


def test_a_missing_key_is_said_before_anything_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "run", "Q", "-p", "repeated_sampling", "-m", "openai:gpt-4o-mini")
    once(said, 2, ("OPENAI_API_KEY", "export OPENAI_API_KEY=", "base_url"))


# --- benchmarks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no problems"),
        ("\n\n", "holds no problems"),
        ("not json\n", "bad.jsonl:1: not JSON"),
        ("[1]\n", "bad.jsonl:1: expected an object"),
        ('{"question": "a"}\n', "bad.jsonl:1: `answer` is missing"),
        ('{"answer": "a"}\n', "bad.jsonl:1: `question` is missing"),
        ('{"question": "a", "answer": "1", "anser": 2}\n', "bad.jsonl:1: unknown field 'anser'"),
        ('{"question": "a", "answer": "1", "kind": "nmber"}\n', "bad.jsonl:1: "),
        ('{"question": "a", "answer": "1", "id": "x"}\n' * 2, "bad.jsonl:2: the id 'x'"),
        ('{"question": "a", "entry_point": "f"}\n', "bad.jsonl:1: "),
        ('{"question": "a", "entry_point": "f", "tests": [3]}\n', "bad.jsonl:1: "),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_malformed_benchmark_is_named_with_its_line_before_anything_is_spent(
    text: str | bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    with served() as server:
        said = archon(
            capsys, "bench", "bad.jsonl", "-p", "repeated_sampling", "-m", "openai:m", "--base-url", server.url,
            "--out", "run",
        )  # fmt: skip
        assert server.asked == []
    once(said, 2, (says, "bad.jsonl"))
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.jsonl", ("'absent.jsonl'", "No such file")),
        ("absent.jsonl.gz", ("'absent.jsonl.gz'", "No such file")),
        ("humanevel", ("'humanevel'", "Did you mean 'humaneval'?")),
        ("levitation", ("'levitation'", "gsm8k")),
        ("jsonl", ("file",)),
    ],
)
def test_a_benchmark_that_does_not_exist_is_named(
    name: str, says: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(
        capsys, "bench", name, "-p", "repeated_sampling", "-m", "openai:m", "--base-url", "http://localhost:1/v1",
        "--out", "run",
    )  # fmt: skip
    once(said, 2, says)
    assert not Path("run").exists()


def test_a_pipeline_whose_verifier_has_nothing_to_say_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    questions()
    with served() as server:
        said = archon(
            capsys, "bench", "questions.jsonl", "-p", "best_of_n", "-m", "openai:m", "--base-url", server.url,
            "--out", "run",
        )  # fmt: skip
        assert server.asked == []
    once(said, 2, ("'unit_tests'", "visible tests"))


def test_as_a_process_it_ends_alike() -> None:
    with served(lambda asked: TROUBLES["HTML"].answer) as server:
        said = process(
            "run",
            "Q",
            "-p",
            "repeated_sampling",
            "--samples",
            "1",
            "-m",
            "openai:m",
            "--base-url",
            server.url,
        )
    once(said, 2, TROUBLES["HTML"].says)
    assert "Traceback" not in said.err
