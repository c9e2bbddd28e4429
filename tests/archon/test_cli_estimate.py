"""What a run will cost at most, and how its progress is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.compute import Architecture
from archon.estimate import Line, estimate, table
from archon.ledger import Ledger
from archon.pipeline import Pipeline
from archon.prices import Price
from archon.problem import Problem
from archon.progress import Live, clock, spend
from archon.session import Session
from archon.stage import Count, Plan, Stage
from archon.strategies.beam_search import BeamSearch
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.stepping.stage import Tokens
from archon.strategies.verify import Verify
from archon.usage import Usage
from archon.verifiers.unit_tests import UnitTests

PRICE = Price(input=Decimal(1000), output=Decimal(2000))
"""A thousandth and two thousandths of a dollar a token, so that figures can be read."""


ROOM = 64
"""Tokens that are held for a chat's template, beside a message's bytes."""


def problems(*texts: str) -> list[Problem]:
    return [Problem.ask(text, id=str(i)) for i, text in enumerate(texts)]


def model(**more: Any) -> Scripted:
    return Scripted(replies={"*": ("word",)}, cycle=True, **{"price": PRICE, "max_tokens": 10, **more})


async def lines(
    pipeline: Pipeline | Stage, asked: Sequence[Problem], models: dict[str, Model] | Model | None = None
) -> list[Line]:
    graph = (pipeline if isinstance(pipeline, Pipeline) else Pipeline([pipeline])).graph()
    async with Session(models=models or model()) as session:
        return estimate(graph, asked, session)


# --- the estimate ----------------------------------------------------------------------------------


async def test_calls_tokens_and_money_are_counted_over_all_problems() -> None:
    (line,) = await lines(Sample(n=3) | MajorityVote(), problems("x" * 40, "y" * 40))
    prompt = 2 * 3 * (40 + ROOM)
    assert line == Line(
        "sample",
        "default",
        Count(3, 3),
        prompt,
        60,
        prompt * Decimal("0.001") + Decimal("0.120"),
        "its configuration",
    )


async def test_a_stage_s_own_limit_on_new_tokens_wins() -> None:
    (line,) = await lines(Sample(n=1, max_tokens=7), problems("q"))
    assert line.completion_tokens == 7


async def test_a_model_without_a_limit_has_no_bound_and_no_cost() -> None:
    (line,) = await lines(Sample(n=1), problems("q"), model(max_tokens=None))
    assert (line.completion_tokens, line.usd) == (None, None)
    assert "unbounded" in table([line], 1) and "unknown" in table([line], 1)


async def test_a_model_without_a_price_is_unpriced_and_never_free() -> None:
    (line,) = await lines(Sample(n=1), problems("q"), model(price=None))
    assert (line.usd, line.price) == (None, "unpriced")
    text = table([line], 1)
    assert "unpriced" in text and "unknown" in text
    assert "$0" not in text


async def test_one_unknown_makes_the_sum_unknown() -> None:
    models: dict[str, Model] = {"a": model(), "b": model(price=None, identity="b")}
    two = (Sample(model="a", n=2) & Sample(model="b", n=2)) | MajorityVote()
    found = await lines(two, problems("q"), models)
    assert [line.model for line in found] == ["a", "b"]
    assert "in all: unknown" in table(found, 1)


async def test_a_pipeline_that_stops_early_says_the_bounds() -> None:
    (line,) = await lines(Sample(n=8) | Verify(verifier=UnitTests()) | FirstPassing(), problems("q"))
    assert line.calls == Count(1, 8)
    assert "1 to 8" in table([line], 1)
    assert line.usd == 8 * (Decimal("0.001") * (1 + ROOM) + Decimal("0.002") * 10), "the upper bound's money"


async def test_what_a_search_asks_grows_and_its_steps_have_their_own_limit() -> None:
    search = BeamSearch(n=2, m=2, max_steps=3, steps=Tokens(tokens=25), reward=None)
    (line,) = await lines(search, problems("q"))
    assert line.calls.high is not None and line.prompt_tokens is None and line.usd is None
    assert line.completion_tokens == line.calls.high * 25, "and not the model's ten"
    (line,) = await lines(BeamSearch(n=2, m=2, max_tokens=7, reward=None), problems("q"))
    assert line.calls.high is not None and line.completion_tokens == line.calls.high * 7


class Endless(Stage):
    """Calls its model nobody knows how often."""

    takes = False

    async def run(self, problem: Any, candidates: Any, run: Any) -> Any:
        async for candidate in candidates:
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        return Plan(Count(2, None), Count(1, 1))

    @property
    def models(self) -> tuple[str, ...]:
        return ("default",)


class Judge(Endless):
    """Asks its model about every candidate."""

    takes = True

    def plan(self, incoming: Count) -> Plan:
        return Plan(incoming, incoming)


class Continues(Scripted):
    """Continues raw text."""

    @property
    def continues_text(self) -> bool:
        return True


async def test_calls_without_a_bound_are_unbounded() -> None:
    (line,) = await lines(Endless(), problems("q"))
    assert (line.calls, line.prompt_tokens, line.completion_tokens, line.usd) == (
        Count(2, None),
        None,
        None,
        None,
    )
    assert "2 or more" in table([line], 1)


async def test_a_pipeline_without_calls_says_so() -> None:
    assert table([], 5) == "No stage calls a model."
    assert await lines(Sample(n=0), problems("q")) != []


async def test_nothing_is_asked() -> None:
    graph = Pipeline([Sample(n=3)]).graph()
    async with Session(models=model()) as session:
        estimate(graph, problems("q"), session)
        backend: Any = session.caller("default").backend
        assert backend.calls == []
        assert session.ledger.total == Usage()


async def cost(pipeline: Pipeline | Stage, asked: Sequence[Problem], models: Model) -> Decimal:
    async with Session(models=models) as session:
        for problem in asked:
            await session.solve(pipeline, problem)
        return session.ledger.total.usd


@settings(deadline=None, max_examples=30, derandomize=True)
@given(n=st.integers(0, 4), words=st.integers(20, 60), count=st.integers(1, 3))
async def test_a_run_costs_no_more_than_was_said(n: int, words: int, count: int) -> None:
    asked = problems(*(["word " * words] * count))
    pipeline = Sample(n=n) | MajorityVote()
    most = sum((line.usd or Decimal(0) for line in await lines(pipeline, asked)), Decimal(0))
    assert await cost(pipeline, asked, model()) <= most


async def test_a_system_message_is_part_of_the_cost() -> None:
    pipeline = Pipeline([Sample(n=1, system="word " * 1000)])
    (line,) = await lines(pipeline, problems("q"))
    assert line.usd is not None
    assert await cost(pipeline, problems("q"), model()) <= line.usd


async def test_a_raw_prompt_is_counted_as_it_is_sent() -> None:
    (line,) = await lines(
        Sample(n=1), [Problem.ask("Write f.", id="p", prompt="def f():" * 100)], Continues()
    )
    assert line.prompt_tokens == len("def f():" * 100) + 16


async def test_what_is_asked_about_candidates_has_no_bound() -> None:
    (line, judge) = await lines(Sample(n=1) | Judge(), problems("q"))
    assert line.prompt_tokens is not None
    assert (judge.stage, judge.prompt_tokens, judge.usd) == ("judge", None, None)


async def test_at_most_is_a_bound_for_dense_text_too() -> None:
    dense = "1 2 3 4 5 6 7 8 9 " * 20
    (line,) = await lines(Sample(n=1), problems(dense))
    assert line.usd is not None
    assert await cost(Sample(n=1), problems(dense), model()) <= line.usd


def test_an_amount_that_is_something_is_not_shown_as_nothing() -> None:
    line = Line("sample", "default", Count(1, 1), 10, 10, Decimal("0.00004"), "x")
    assert table([line], 1).count("$0.00004") == 2


async def test_flops_are_bounded_where_the_size_is_known() -> None:
    shape = Architecture(layers=2, hidden=8, heads=2, ffn=16, vocab=50)
    asked = problems("x" * 40, "y" * 80)
    (line,) = await lines(Sample(n=3) | MajorityVote(), asked, model(architecture=shape))
    assert line.flops == 3 * (shape.flops.of(40 + ROOM, 0, 10) + shape.flops.of(80 + ROOM, 0, 10))
    assert f"at most {line.flops:.3g}" in table([line], 2)
    async with Session(models=model(architecture=shape)) as session:
        for problem in asked:
            await session.solve(Sample(n=3) | MajorityVote(), problem)
        assert 0 < session.ledger.total.flops <= line.flops
    (unknown,) = await lines(Sample(n=3) | MajorityVote(), asked)
    assert unknown.flops is None and "FLOPs" not in table([unknown], 2)


def test_the_table_has_a_line_per_stage_and_a_sum() -> None:
    stages = [Line(f"s{i}", "m", Count(1, 1), 1000, 2000, Decimal("0.5"), "table") for i in range(3)]
    text = table(stages, 1234)
    rows = text.splitlines()
    assert len(rows) == 5
    assert rows[0].split()[:2] == ["stage", "model"]
    assert [row.split()[0] for row in rows[1:4]] == ["s0", "s1", "s2"]
    assert "at most 1,000" in rows[1] and "at most 2,000" in rows[1] and "at most $0.5 " in rows[1]
    assert rows[4].startswith("1,234 problems, in all: $1.5 at most.")
    assert all(row == row.rstrip() for row in rows)


# --- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (0.6, "0:01"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3661, "1:01:01"),
        (360_000, "100:00:00"),
    ],
)
def test_a_clock_has_minutes_and_hours_where_there_are_some(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        (Usage(), "nothing"),
        (Usage(requests=2, usd=Decimal("1.5")), "$1.5"),
        (Usage(requests=2), "$0"),
        (Usage(requests=2, prompt_tokens=1000, completion_tokens=234, unpriced=2), "1,234 tokens (unpriced)"),
    ],
)
def test_spend_is_money_where_there_is_a_price(usage: Usage, shown: str) -> None:
    assert spend(usage) == shown


def test_spend_says_where_some_of_it_is_unpriced() -> None:
    assert "unpriced" in spend(Usage(requests=2, usd=Decimal("1.5"), unpriced=1, prompt_tokens=10))


def test_a_little_money_is_not_shown_as_none() -> None:
    assert spend(Usage(requests=1, usd=Decimal("0.00002"))) != spend(Usage(requests=1))


def test_elsewhere_than_on_a_terminal_progress_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger()
    with Live() as live:
        live.started(3)
        live.finished(ledger, well=True, badly=False)
        live.finished(ledger, well=False, badly=True)
        assert capsys.readouterr().err == "", "not more often than every ten seconds"
        live.finished(ledger, well=False, badly=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("3/3 problems, 1 solved, 1 failed, nothing spent, took 0:0")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(quiet=True) as live:
        live.started(1)
        live.finished(Ledger(), well=True, badly=False)
    assert capsys.readouterr() == ("", "")


def test_what_went_well_and_badly_is_called_as_wanted() -> None:
    live = Live(quiet=True, good="answered", bad="given up")
    live.started(2)
    live.finished(Ledger(), well=True, badly=False)
    assert live.line(Ledger()).startswith("1 answered, 0 given up, nothing spent, about ")
    live.finished(Ledger(), well=False, badly=True)
    assert live.line(Ledger()).startswith("1 answered, 1 given up, nothing spent, took ")


@pytest.mark.parametrize("fails", [False, True])
def test_a_live_line_on_a_terminal_is_put_away_at_the_end(fails: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    try:
        with Live(console) as live:
            live.started(2)
            live.finished(Ledger(), well=True, badly=False)
            if fails:
                raise RuntimeError("a fault elsewhere")
            live.finished(Ledger(), well=True, badly=False)
    except RuntimeError:
        assert fails
    text = screen.getvalue()
    assert "problems" in text and f"{1 if fails else 2} solved" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h"), "the cursor is shown again"
