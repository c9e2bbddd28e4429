"""`archon run`: one question or a file of them; answers on standard output, the rest on standard error."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from archon.testing import Answer, Asked, StubServer
from tests.archon.test_cli_terminal import archon, process, served

QUESTION = "What is 6 * 7?"


def file(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def scripted(*replies: str, pipeline: str = "[{sample: {n: 3}}, majority_vote]") -> Path:
    """A pipeline file whose model answers every problem with these."""
    table = json.dumps({"*": replies})
    return file(
        "pipeline.yaml",
        f"models:\n  default: {{backend: scripted, replies: {table}, price: {{input: 1, output: 2}}}}\n"
        f"pipeline: {pipeline}\n",
    )


def live(server: StubServer, *more: str, pipeline: str = "self_consistency") -> list[str]:
    """The options that ask a server."""
    return ["--pipeline", pipeline, "--model", "openai:m", "--base-url", server.url, *more]


def outcome(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    return data


def test_the_answer_is_all_that_stands_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "run", QUESTION, "--pipeline", scripted("41", "42", "42"), "--kind", "number")
    assert (said.code, said.out) == (0, "42\n")
    assert said.err.startswith("cost: 3 requests, ")
    assert "$" in said.err


def test_the_kind_says_how_answers_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = scripted("it is 42", "#### 42", "so 41")
    number = archon(capsys, "run", QUESTION, "--pipeline", pipeline, "--kind", "number")
    assert number.out == "it is 42\n"
    pipeline = scripted("so 41", "it is 42", "it is 42.0")
    number = archon(capsys, "run", QUESTION, "--pipeline", pipeline, "--kind", "number")
    assert number.out == "it is 42\n"


@pytest.mark.parametrize("stdin", [QUESTION, f"\n  {QUESTION}\n\n"])
def test_the_question_may_come_from_standard_input(stdin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with served(lambda asked: "42") as server:
        said = archon(capsys, "run", *live(server, "--samples", "1"), stdin=stdin)
    assert (said.code, said.out) == (0, "42\n")
    assert server.asked[0].text == QUESTION


@pytest.mark.parametrize(("words", "stdin"), [((), ""), ((), " \n\t"), (("",), ""), (("  ",), "")])
def test_without_a_question_an_example_is_shown(
    words: tuple[str, ...], stdin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = archon(capsys, "run", *words, "--pipeline", scripted("42"), stdin=stdin)
    assert (said.code, said.out) == (2, "")
    assert said.errors == [
        'error: there is no question. Give one: archon run "What is 17 * 23?" ..., or --file'
    ]


def test_the_same_command_again_costs_nothing_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with served(lambda asked: f"{40 + asked.number % 3}") as server:
        words: list[str | Path] = ["run", QUESTION, *live(server, "--samples", "5", "--kind", "number")]
        first = archon(capsys, *words)
        assert len(server.asked) == 5
        again = archon(capsys, *words)
    assert (first.code, again.code) == (0, 0)
    assert first.out == again.out
    assert len(server.asked) == 5, "nothing was asked again"
    assert "nothing of it spent now" in again.err
    assert again.err.startswith(first.err.rstrip()), "the recorded cost is the same"


def test_more_samples_add_to_what_is_there_and_another_seed_is_another_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with served(lambda asked: "42") as server:
        for samples, seed, total in (
            ("2", "1", 2),
            ("5", "1", 5),
            ("3", "1", 5),
            ("3", "2", 8),
            ("3", "2", 8),
        ):
            archon(capsys, "run", QUESTION, *live(server, "--samples", samples, "--seed", seed))
            assert len(server.asked) == total
    assert len({asked.body["seed"] for asked in server.asked}) == 8


def test_a_whole_outcome_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(
        capsys, "run", QUESTION, "--pipeline", scripted("41", "42", "42"), "--json", "--kind", "number"
    )
    data = outcome(said.out)
    assert said.code == 0
    assert len(said.out.splitlines()) == 1
    assert (data["answer"], data["chosen"], data["stopped"]) == ("42", "sample#1", "complete")
    assert [c["text"] for c in data["candidates"]] == ["41", "42", "42"]
    assert data["usage"]["requests"] == data["fresh"]["requests"] == 3
    assert data["usage"]["usd"] == pytest.approx(3 * (5 * 1 + 1 * 2) / 1e6)
    assert sum(u["requests"] for u in data["by_stage"].values()) == 3


def test_no_answer_is_exit_code_1_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = [
        "run",
        QUESTION,
        "--pipeline",
        scripted("no", "idea", "at all"),
        "--kind",
        "number",
    ]
    said = archon(capsys, *words)
    assert (said.code, said.out) == (1, "")
    assert "chose none of 3 candidates" in said.err
    said = archon(capsys, *words, "--budget", "requests=0", "--seed", "2")
    assert (said.code, said.out) == (1, "")
    assert "run.requests ran out" in said.err


def test_a_budget_ends_a_run_without_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with served(lambda asked: "42") as server:
        said = archon(
            capsys,
            "run",
            QUESTION,
            *live(server, "--samples", "9", "--problem-budget", "requests=2", "--json"),
        )
    assert (said.code, len(server.asked)) == (0, 2)
    data = outcome(said.out)
    assert (data["stopped"], data["exhausted"], data["usage"]["requests"]) == (
        "budget",
        "problem.requests",
        2,
    )


def test_offline_makes_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    with served(lambda asked: "42") as server:
        words: list[str | Path] = ["run", QUESTION, *live(server, "--samples", "2")]
        said = archon(capsys, *words, "--offline")
        assert (said.code, said.out, server.asked) == (1, "", [])
        assert "offline" in said.err
        archon(capsys, *words)
        said = archon(capsys, *words, "--offline")
        assert (said.code, said.out, len(server.asked)) == (0, "42\n", 2)


# --- a file of questions ---------------------------------------------------------------------------


def questions(*rows: Any) -> Path:
    return file(
        "questions.jsonl", "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    )


def test_a_file_gives_one_line_of_json_per_question(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": f"q{i}", "question": f"What is {i} + 1?", "kind": "number"} for i in range(5)]

    def reply(asked: Asked) -> Answer:
        return Answer(str(int(asked.text.split()[2]) + 1))

    with served(reply) as server:
        words: list[str | Path] = ["run", "--file", questions(*rows), *live(server, "--samples", "2")]
        said = archon(capsys, *words)
        again = archon(capsys, *words)
    assert (said.code, again.code) == (0, 0)
    answers = {line["problem"]: line["answer"] for line in map(json.loads, said.out.splitlines())}
    assert answers == {f"q{i}": str(i + 1) for i in range(5)}
    assert Counter(asked.text for asked in server.asked) == {row["question"]: 2 for row in rows}
    assert "5/5 problems, 5 answered, 0 failed" in said.err
    assert "nothing of it spent now" in again.err


def test_questions_are_numbered_by_their_lines_where_they_have_no_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = questions({"question": "a"}, "\n", {"question": "b"})
    said = archon(capsys, "run", "--file", path, "--pipeline", scripted("42", "42", "42"))
    assert sorted(json.loads(line)["problem"] for line in said.out.splitlines()) == ["1", "3"]


def test_one_question_that_fails_does_not_take_the_others_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    def reply(asked: Asked) -> Answer:
        return Answer("refused", status=400) if asked.text == "b" else Answer("fine")

    with served(reply) as server:
        path = questions(
            {"id": "a", "question": "a"}, {"id": "b", "question": "b"}, {"id": "c", "question": "c"}
        )
        said = archon(capsys, "run", "--file", path, *live(server, "--samples", "1"))
    lines = {line["problem"]: line for line in map(json.loads, said.out.splitlines())}
    assert said.code == 1
    assert (lines["a"]["answer"], lines["c"]["answer"]) == ("fine", "fine")
    assert lines["b"]["answer"] is None and "refused" in lines["b"]["error"]
    assert any("'b'" in line and "refused" in line for line in said.errors)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (({"question": "a"}, "not json\n"), "questions.jsonl:2: not JSON"),
        (({"id": "a"},), "questions.jsonl:1: `question` is missing"),
        (({"question": " "},), "questions.jsonl:1: `question` is missing or empty"),
        (({"question": 3},), "questions.jsonl:1: `question` is missing"),
        (("[1]\n",), "questions.jsonl:1: expected an object"),
        (
            ({"question": "a", "id": "x"}, {"question": "b", "id": "x"}),
            "questions.jsonl:2: the id 'x' is taken",
        ),
        (({"question": "a", "knd": "number"},), "questions.jsonl:1: knd"),
        (("",), "holds no questions"),
        (("\n\n",), "holds no questions"),
        (({"question": "a", "kind": "nmber"},), "questions.jsonl:1: kind: expected one of text, code, "),
        (({"question": "a", "answer": "42"},), "questions.jsonl:1: `answer`"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_spent(
    rows: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served() as server:
        said = archon(capsys, "run", "--file", questions(*rows), *live(server))
    assert (said.code, said.out, server.asked) == (2, "", [])
    assert len(said.err.splitlines()) == 1
    assert says in said.err


def test_a_file_and_a_question_are_one_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "run", "Q", "--file", questions({"question": "a"}), "--pipeline", scripted("x"))
    assert (said.code, said.errors) == (2, ["error: give a question or --file, not both"])


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "run", "--file", name, "--pipeline", scripted("x"))
    assert (said.code, said.out) == (2, "")
    assert f"'{name}'" in said.err


# --- a dry run -------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_do_and_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with served() as server:
        said = archon(capsys, "run", QUESTION, *live(server, "--samples", "5", "--dry-run"))
    assert (said.code, server.asked) == (0, [])
    assert "- sample: {n: 5}" in said.out and "majority_vote" in said.out
    assert server.url in said.out
    assert "unpriced" in said.out


def test_a_dry_run_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = scripted("42")
    before = {path.name for path in Path().iterdir()}
    assert archon(capsys, "run", QUESTION, "--pipeline", pipeline, "--dry-run").code == 0
    assert {path.name for path in Path().iterdir()} == before


@pytest.mark.parametrize("spends_nothing", ["--dry-run", "--offline"])
def test_what_spends_nothing_needs_no_key(spends_nothing: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("run", QUESTION, "--pipeline", "self_consistency", "--model", "openai:gpt-4o-mini")
    said = archon(capsys, *words)
    assert (said.code, len(said.errors)) == (2, 1)
    assert "OPENAI_API_KEY is not set" in said.err
    assert "OPENAI_API_KEY" not in archon(capsys, *words, spends_nothing).err


# --- text that is not plain ------------------------------------------------------------------------


def test_any_language_goes_in_and_out(capsys: pytest.CaptureFixture[str]) -> None:
    text = "né – 日本 😀 \u202e"
    with served(lambda asked: asked.text) as server:
        said = archon(capsys, "run", text, *live(server, "--samples", "1"))
        assert (said.code, said.out) == (0, text.strip() + "\n")
        as_json = archon(capsys, "run", text, *live(server, "--samples", "1", "--json"))
        assert outcome(as_json.out)["answer"] == text.strip()


@pytest.mark.parametrize("through", ["argument", "stdin"])
def test_a_question_that_is_no_text_is_one_clear_error(through: str) -> None:
    pipeline = scripted("42")
    if through == "stdin":
        said = process("run", "--pipeline", pipeline, stdin=b"What is \xff?")
    else:
        said = process("run", b"What is \xff?".decode(errors="surrogateescape"), "--pipeline", pipeline)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert len(said.errors) == 1


def test_a_terminal_that_cannot_show_the_answer_is_no_traceback() -> None:
    said = process("run", QUESTION, "--pipeline", scripted("né"), "--samples", "1", PYTHONIOENCODING="ascii")
    assert "Traceback" not in said.err
    assert said.code == 0


@pytest.mark.parametrize("question", ["--version is what?", "-"])
def test_a_question_that_looks_like_an_option_goes_after_two_dashes(
    question: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(lambda asked: asked.text) as server:
        said = archon(capsys, "run", *live(server, "--samples", "1"), "--", question)
    assert (said.code, said.out) == (0, question + "\n")
