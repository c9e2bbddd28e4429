"""`archon audit`: what a verifier falls for, on the command line."""

from __future__ import annotations

import json
import re

import pytest

from archon.testing import Answer, StubServer
from archon.verifiers.tricks import TRICKS
from tests.archon.test_cli_terminal import archon, process


def test_the_table_has_every_trick_and_the_mistakes_below(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "audit", "exact: {wary: false}")
    assert (said.code, said.err) == (0, "")
    for name in TRICKS:
        assert re.search(rf"│ {name} +│", said.out)
    assert re.search(r"wrongly accepted: [1-9]\d* of \d+", said.out)
    assert "negated: 'The answer is not 42.'" in said.out


def test_kinds_of_questions_that_are_left_out_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "questions of kind number, math, text" in archon(capsys, "audit", "choice").out
    assert "left out" not in archon(capsys, "audit", "exact").out


def test_the_whole_of_it_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    said = archon(capsys, "audit", "regex", "--json")
    data = json.loads(said.out)
    assert data["verifier"] == "regex" and data["usage"]["requests"] == 0
    assert data["tricks"]["shotgun"]["accepted"] == data["tricks"]["shotgun"]["replies"]
    assert len(data["mistakes"]) == data["wrongly_accepted"] + data["wrongly_rejected"] > 50


def test_strict_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert archon(capsys, "audit", "choice", "--strict").code == 0
    assert archon(capsys, "audit", "exact", "--strict").code == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["exat"], "exact"),
        (["exact: {wery: true}"], "wary"),
        (["exact: {key: ["], "not valid YAML"),
        ([""], "expected|no verifier"),
        (["unit_tests"], "speaks about none"),
        (["judge"], "--model openai:NAME"),
        (["judge: {model: m}", "--model", "openai:x"], "--model m=openai:NAME"),
        (["judge", "--model", "openai:x"], "OPENAI_API_KEY"),
    ],
)
def test_a_mistake_is_one_line_that_helps(
    capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    said = archon(capsys, "audit", *words)
    assert (said.code, said.out) == (2, "")
    assert re.search(error, said.err) and len(said.errors) == 1


async def test_a_judge_is_audited_with_its_model_and_its_cost_is_told() -> None:
    async with StubServer(lambda asked: Answer("yes")) as server:
        import asyncio

        said = await asyncio.to_thread(
            process, "audit", "judge", "--model", "openai:m", "--base-url", server.url, OPENAI_API_KEY="none"
        )
    assert said.code == 0, said.err
    wrong = re.search(r"wrongly accepted: (\d+) of (\d+)", said.out)
    assert wrong and int(wrong[1]) > 150, "it says yes to everything but nothing at all"
    assert "wrongly rejected: 0 of 44" in said.out
    assert re.search(r"Cost: \d+ requests", said.out)
