"""`archon store`: what is in a store, and samples out of it that replay elsewhere."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archon.testing import Answer, Asked, StubServer
from tests.archon.test_cli_terminal import Said, archon, served

PRICES = "models:\n  m: {input: 1000, output: 1000}\n"


def ask(
    capsys: pytest.CaptureFixture[str], server: StubServer, question: str, *more: str, samples: int = 3
) -> dict[str, Any]:
    """An outcome of repeated sampling, as JSON."""
    said = archon(
        capsys, "run", question, "-p", "repeated_sampling", "-m", "openai:m", "--base-url", server.url,
        "--samples", str(samples), "--json", *more,
    )  # fmt: skip
    assert said.code == 0, said.err
    data: dict[str, Any] = json.loads(said.out)
    return data


def replay(capsys: pytest.CaptureFixture[str], question: str, *more: str, samples: int = 3) -> Said:
    return archon(
        capsys, "run", question, "-p", "repeated_sampling", "-m", "replay:samples.jsonl",
        "--samples", str(samples), "--json", "--store", "elsewhere.sqlite", *more,
    )  # fmt: skip


def export(capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    """Export the store to samples.jsonl."""
    said = archon(capsys, "store", "export", *more)
    assert (said.code, said.err) == (0, "")
    Path("samples.jsonl").write_text(said.out, encoding="utf-8")
    return [json.loads(line) for line in said.out.split("\n")[:-1]]


def texts(outcome: dict[str, Any]) -> list[str]:
    return [candidate["text"] for candidate in outcome["candidates"]]


def counting(asked: Asked) -> str:
    return f"{asked.text} {asked.number}"


# --- list ------------------------------------------------------------------------------------------


def test_the_list_says_model_samples_cost_and_prompt_largest_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(counting) as server:
        ask(capsys, server, "few", samples=2)
        ask(capsys, server, "many", samples=5)
    said = archon(capsys, "store", "list")
    assert (said.code, said.err) == (0, "")
    first, second, last = said.out.splitlines()
    assert first.split()[:3] == ["5", "samples", "m"] and first.endswith("many")
    assert second.split()[:3] == ["2", "samples", "m"] and second.endswith("few")
    assert last.startswith("2 pools, 7 samples, 7 requests")


def test_the_list_is_cut_where_it_is_long_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with served(counting) as server:
        for number in range(4):
            ask(capsys, server, f"question {number}", samples=1)
    lines = archon(capsys, "store", "list", "--limit", "3").out.splitlines()
    assert len(lines) == 5
    assert "1 pools more" in lines[3]
    assert lines[4].startswith("4 pools, 4 samples"), "the sum is over all of them"
    assert len(archon(capsys, "store", "list", "--json", "--limit", "1").out.splitlines()) == 4


def test_the_list_as_json_has_every_pool_with_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q", "--set", "sample.temperature=0.5", "--seed", "3")
    (line,) = archon(capsys, "store", "list", "--json").out.splitlines()
    pool = json.loads(line)
    assert (pool["model"], pool["samples"], pool["attempts"]) == ("m", 3, 0)
    assert pool["backend"]["base_url"] == server.url
    assert pool["request"]["messages"] == [["user", "Q"]]
    assert pool["request"]["sampling"] == {"temperature": 0.5, "max_tokens": 4096, "seed": 3}
    assert pool["usage"]["requests"] == 3


def test_what_failed_is_in_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    def flaky(asked: Asked) -> Answer:
        return Answer("ok") if asked.number else Answer("try again", status=503, headers={"Retry-After": "0"})

    with served(flaky) as server:
        ask(capsys, server, "Q", samples=1)
    assert archon(capsys, "store", "list").out.splitlines()[-1].startswith("1 pools, 1 samples, 2 requests")


def test_a_store_can_be_named_or_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q", "--store", "mine.sqlite")
    named = archon(capsys, "store", "list", "mine.sqlite")
    assert "1 pools, 3 samples" in named.out
    monkeypatch.setenv("ARCHON_STORE", "mine.sqlite")
    assert archon(capsys, "store", "list") == named


@pytest.mark.parametrize("command", ["list", "export"])
def test_a_store_that_is_not_there_is_not_made(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "store", command, "absent.sqlite")
    assert (said.code, said.out) == (2, "")
    assert "'absent.sqlite'" in said.err and "ARCHON_STORE" in said.err
    assert not Path("absent.sqlite").exists()


@pytest.mark.parametrize("command", ["list", "export"])
def test_reading_a_store_leaves_its_tables_as_they_were(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q")
    before = tables()
    assert archon(capsys, "store", command).code == 0
    assert tables() == before


def tables() -> dict[str, list[Any]]:
    with closing(sqlite3.connect("store.sqlite")) as db:
        names = ("meta", "pools", "samples", "attempts", "claims", "owners", "memory")
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}


# --- export, and replaying it ----------------------------------------------------------------------


def test_what_is_exported_replays_with_the_same_answers_and_no_call(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(counting) as server:
        first = ask(capsys, server, "one\nquestion – 日本")
        other = ask(capsys, server, "another")
        asked = len(server.asked)
        assert [row["prompt"] for row in export(capsys)] == ["one\nquestion – 日本", "another"]
        said = replay(capsys, "one\nquestion – 日本")
        assert said.code == 0
        assert texts(json.loads(said.out)) == texts(first)
        assert texts(json.loads(replay(capsys, "another").out)) == texts(other)
        assert len(server.asked) == asked
    assert "nothing of it spent now" in said.err


def test_a_bench_replays_from_an_export(capsys: pytest.CaptureFixture[str]) -> None:
    Path("six.jsonl").write_text(
        "".join(json.dumps({"question": f"What is 6 * {i}?", "answer": str(6 * i)}) + "\n" for i in range(3))
    )
    words = ("bench", "six.jsonl", "-p", "self_consistency", "--samples", "3", "--no-pictures", "--quiet")
    with served(lambda asked: str(asked.number % 13)) as server:
        said = archon(capsys, *words, "-m", "openai:m", "--base-url", server.url, "--out", "live")
        assert said.code == 0
        export(capsys)
        said = archon(
            capsys, *words, "--replay", "samples.jsonl", "--store", "other.sqlite", "--out", "replayed"
        )
    assert said.code == 0
    live, replayed = (json.loads(Path(f"{run}/results.json").read_text()) for run in ("live", "replayed"))
    for figure in ("coverage", "selected", "outcomes", "candidates"):
        assert live[figure] == replayed[figure]
    assert replayed["fresh"]["requests"] == 0
    assert replayed["usage"]["prompt_tokens"] == live["usage"]["prompt_tokens"]
    assert replayed["usage"]["completion_tokens"] == live["usage"]["completion_tokens"]
    assert replayed["usage"]["estimated"] == 0


def test_only_one_model_s_pools_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q")
        ask(capsys, server, "Q", "--model", "default=openai:other")
    assert [row["model"] for row in export(capsys)] == ["m", "other"]
    (row,) = export(capsys, "--model", "other")
    assert [s["text"] for s in row["samples"]] == ["Q 3", "Q 4", "Q 5"]
    assert export(capsys, "--model", "absent") == []


def test_an_export_that_is_replayed_beyond_its_end_says_how_many_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q", samples=1)
    export(capsys)
    said = replay(capsys, "Something nobody asked", samples=2)
    assert (said.code, json.loads(said.out)["answer"]) == (1, None)
    assert "0 recorded samples in samples.jsonl" in said.err


@pytest.mark.parametrize(
    "other",
    [
        ("--model", "default=openai:other"),
        ("--set", "sample.temperature=1.5"),
        ("--set", "sample.system=Be brief."),
        ("--seed", "7"),
    ],
)
def test_pools_of_one_prompt_are_not_mixed(
    other: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with served(counting) as server:
        pools = [texts(ask(capsys, server, "Q", *other, samples=4)), texts(ask(capsys, server, "Q"))]
    export(capsys)
    said = replay(capsys, "Q", samples=7)
    assert said.code == 2 or any(set(texts(json.loads(said.out))) <= set(pool) for pool in pools)


def test_an_export_is_not_replayed_with_other_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    with served(counting) as server:
        ask(capsys, server, "Q", "--set", "sample.temperature=0.5")
    export(capsys)
    said = replay(capsys, "Q", "--set", "sample.temperature=1.5")
    assert said.code == 2
    assert "temperature" in said.err


def test_a_sample_that_failed_does_not_shift_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def second_fails(asked: Asked) -> Answer:
        return Answer("refused", status=400) if asked.number == 1 else Answer(counting(asked))

    with served(second_fails) as server:
        first = ask(capsys, server, "Q", "--set", "sample.per_request=1")
    export(capsys)
    again = json.loads(replay(capsys, "Q").out)
    assert len(texts(first)) == 2
    assert [(c["id"], c["text"]) for c in again["candidates"]] == [
        (c["id"], c["text"]) for c in first["candidates"]
    ]


def test_the_recorded_cost_survives_the_export(capsys: pytest.CaptureFixture[str]) -> None:
    Path("prices.yaml").write_text(PRICES)
    with served(counting) as server:
        first = ask(capsys, server, "Q", "--prices", "prices.yaml")
    export(capsys)
    again = json.loads(replay(capsys, "Q").out)
    assert first["usage"]["usd"] > 0
    assert again["usage"]["usd"] == pytest.approx(first["usage"]["usd"])


def test_a_system_message_is_not_taken_for_the_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    with served(counting) as server:
        wanted = ask(capsys, server, "Q", "--set", "sample.system=Be brief.")
    (row,) = export(capsys)
    assert row["prompt"] == "Q"
    again = replay(capsys, "Q", "--set", "sample.system=Be brief.")
    assert texts(json.loads(again.out)) == texts(wanted)
    assert "0 recorded samples" in replay(capsys, "Q").err, "without it, another question is asked"


def test_odd_text_survives_the_export(capsys: pytest.CaptureFixture[str]) -> None:
    odd = 'line\r\nbreaks \x85 \u2028 \u2029 "quotes" \\ and \x07 \U0001f600'
    with served(lambda asked: odd) as server:
        ask(capsys, server, "Q", samples=1)
    export(capsys)
    assert texts(json.loads(replay(capsys, "Q", samples=1).out)) == [odd]
