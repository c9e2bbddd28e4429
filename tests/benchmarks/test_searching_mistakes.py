"""What a user of `archon search` may get wrong: named before anything is spent, and never kept as a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archon.benchmarks.searching.command import search
from archon.benchmarks.searching.evaluator import LocalEvaluator
from archon.benchmarks.searching.setting_up import Setup
from archon.config import load
from archon.errors import NotRecorded, UserError

PROBLEMS = 12
REPLIES = json.dumps({f"q{i}": ["1", "0", "1"] for i in range(PROBLEMS)})
HEAD = f"""
benchmark: questions.jsonl
models: {{m: {{backend: scripted, replies: {REPLIES}, cycle: true}}}}
"""
STACKS = HEAD + "pipeline: [{sample: {model: m, n: {choose: [1, 2, 3]}}}, majority_vote]\n"
TIMED = "objectives: [accuracy, latency]\nbudget: {problem: {seconds: 20}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [{"id": f"q{i}", "question": f"{i}?", "answer": str(i % 2)} for i in range(PROBLEMS)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    monkeypatch.chdir(tmp_path)


def options(text: str, *more: str) -> dict[str, Any]:
    Path("s.yaml").write_text(text)
    return search.make_context("search", ["s.yaml", "--out", "found", *more]).params


async def facts(text: str, *more: str) -> dict[str, Any]:
    setup = Setup(options(text, *more))
    async with LocalEvaluator(setup.dataset, setup.models, store=Path("s.sqlite")) as evaluator:
        await setup.prepare(evaluator)
        return setup.facts


async def test_offline_what_is_not_stored_is_no_figure() -> None:
    """Kept in the study it would be one for good, also when the search goes on with its models."""
    setup, told = Setup(options(STACKS)), list[Any]()
    config = setup.space.config({"sample.n": 2})
    some = [problem.id for problem in setup.dataset.problems][:2]
    async with LocalEvaluator(setup.dataset, {}, store=Path("s.sqlite"), offline=True) as evaluator:
        with pytest.raises(NotRecorded, match="run it again without --offline"):
            await evaluator.evaluate(config, some, told.append)
    assert not told
    async with LocalEvaluator(setup.dataset, {}, store=Path("s.sqlite")) as evaluator:
        await evaluator.evaluate(setup.space.config({"sample.n": 1}), some)
    async with LocalEvaluator(setup.dataset, {}, store=Path("s.sqlite"), offline=True) as evaluator:
        assert all(await evaluator.evaluate(setup.space.config({"sample.n": 1}), some))
        with pytest.raises(NotRecorded):  # one of two samples is there, and a vote of one is another stack's
            await evaluator.evaluate(config, some)


async def test_other_models_on_the_command_line_are_another_search() -> None:
    text = "benchmark: questions.jsonl\npipeline: [{sample: {n: {choose: [1, 2]}}}, majority_vote]\n"
    at, elsewhere = ("--base-url", "http://127.0.0.1:1/v1"), ("--base-url", "http://127.0.0.1:2/v1")
    first = await facts(text, "--model", "openai:one", *at)
    assert await facts(text, "--model", "openai:two", *at) != first
    assert await facts(text, "--model", "openai:one", *at) == first
    assert await facts(text, "--model", "openai:one", *elsewhere) != first, "of another server"
    assert "models" not in await facts(STACKS), "those of the file are of the space"


async def test_another_setting_of_an_objective_is_another_search() -> None:
    found = [
        await facts(STACKS + f"objectives: [{{utility: {{false_positive: {price}}}}}]\n") for price in (2, 3)
    ]
    assert found[0] != found[1]
    assert "objectives" not in await facts(STACKS + "objectives: accuracy\n"), "as studies had it before"


async def test_latency_is_measured_anew_for_every_stack() -> None:
    setup = Setup(options(STACKS + TIMED))
    one, two = (setup.space.config({"sample.n": n}) for n in (1, 2))
    some = [problem.id for problem in setup.dataset.problems][:2]
    seconds: dict[bool, list[float | None]] = {}
    for replays in (True, False):
        store = Path(f"{replays}.sqlite")
        async with LocalEvaluator(setup.dataset, {}, store=store, replays=replays) as evaluator:
            await evaluator.evaluate(one, some)
            found = await evaluator.evaluate(two, some)
            seconds[replays] = [None if each is None else each.seconds for each in found]
    assert seconds[True] == [None, None], "a part of it was replayed"
    assert all(each is not None for each in seconds[False])


def test_a_search_for_latency_has_a_winner_and_a_front() -> None:
    Path("s.yaml").write_text(STACKS + TIMED + "effort: {trials: 2}\nproposers: grid\n")
    found = CliRunner().invoke(
        search, ["s.yaml", "--out", "found", "-q", "--no-pictures"], catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    told = json.loads(Path("found/search.json").read_text())
    assert told["states"]["failed"] == 0 and told["front"]
    assert told["tokens"]["fresh"] == told["tokens"]["total"], "nothing was replayed"
    assert load("found/best.yaml").pipeline
    said = CliRunner().invoke(search, ["s.yaml", "--out", "far", "--executor", "ray"])
    assert isinstance(said.exception, UserError) and "one process" in str(said.exception)


async def test_a_cost_that_nothing_bounds_is_named_before_anything_is_spent() -> None:
    with pytest.raises(UserError, match=r"latency.*budget: \{problem: \{seconds: \.\.\.\}\}"):
        await facts(STACKS + "objectives: [accuracy, latency]\n")


def test_a_search_without_an_end_is_refused() -> None:
    endless = STACKS.replace("{choose: [1, 2, 3]}", "2, temperature: {range: [0.1, 1.0]}") + "effort: {}\n"
    with pytest.raises(UserError, match="the search would have none"):
        Setup(options(endless))
    Setup(options(endless.replace("effort: {}", "effort: {tokens: 100}")))
    Setup(options(STACKS + "effort: {}\n"))


def test_names_of_a_file_do_not_move_the_terminal() -> None:
    Path("s.yaml").write_text(STACKS.replace("[1, 2, 3]", '[1, 2, 3], name: "n\\e]0;owned\\a"'))
    found = CliRunner().invoke(search, ["s.yaml", "--out", "found", "--dry-run"], catch_exceptions=False)
    assert found.exit_code == 0 and "owned" in found.output
    assert not {"\x1b", "\a"} & {*found.output}
