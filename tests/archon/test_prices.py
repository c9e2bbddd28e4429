"""Prices: exact money, the user's table before ours, and unpriced rather than free."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.errors import ArchonError, DataError, UserError
from archon.prices import Price, price_of, read_table


def test_a_price_is_dollars_per_million_tokens() -> None:
    price = Price(input="0.15", output="0.60")
    assert price.cost(1_000_000, 0, 0) == Decimal("0.15")
    assert price.cost(0, 0, 1_000_000) == Decimal("0.60")
    assert price.cost(7, 0, 3) == Decimal("0.00000285")


def test_cached_tokens_have_their_own_price_or_that_of_the_others() -> None:
    assert Price(input=2, output=0, cached_input=1).cost(1_000_000, 400_000, 0) == Decimal("1.6")
    assert Price(input=2, output=0).cost(1_000_000, 400_000, 0) == Decimal(2)
    assert Price(input=2, output=0, cached_input=0).cost(1_000_000, 1_000_000, 0) == Decimal(0)


def test_a_price_per_request_counts_requests() -> None:
    assert Price(input=0, output=0, request="0.01").cost(5, 0, 5, requests=3) == Decimal("0.03")


TOKENS = st.integers(0, 10**7)


@given(st.lists(st.tuples(TOKENS, TOKENS), max_size=5))
def test_the_cost_of_calls_adds_up_to_the_cost_of_their_tokens(calls: list[tuple[int, int]]) -> None:
    price = Price(input="0.15", output="0.6", request="0.001")
    apart = sum((price.cost(p, 0, c, 1) for p, c in calls), Decimal(0))
    assert apart == price.cost(sum(p for p, _ in calls), 0, sum(c for _, c in calls), len(calls))


@pytest.mark.parametrize("bad", ["-1", "NaN", "Infinity", "much"])
def test_a_price_that_makes_no_sense_is_refused(bad: str) -> None:
    with pytest.raises(ValidationError):
        Price(input=bad, output=1)


def test_the_packaged_table_says_how_old_it_is() -> None:
    price, source = price_of("gpt-4o-mini")
    assert price == Price(input="0.15", output="0.60", cached_input="0.075")
    assert source == f"packaged table, as of {read_table().as_of}"
    assert len(read_table().as_of) == len("2025-08")


def test_a_model_in_no_table_is_unpriced_and_never_free() -> None:
    assert price_of("my-own-model") == (None, "unpriced")
    assert price_of("gpt-4o-mini-2024") == (None, "unpriced"), "names are not guessed"


def test_the_user_s_table_wins_and_the_packaged_one_serves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models:\n  gpt-4o-mini: {input: 1, output: 2}\n  mine: {input: 0, output: 0}\n")
    monkeypatch.setenv("ARCHON_PRICES", str(path))
    assert price_of("gpt-4o-mini") == (Price(input=1, output=2), str(path))
    assert price_of("mine") == (Price(input=0, output=0), str(path)), "free because somebody said so"
    assert price_of("gpt-4o")[1].startswith("packaged table")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("models:\n  m: {input: 1, ouput: 2}\n", "output"),
        ("models:\n  m: {input: -1, output: 2}\n", "m"),
        ("models: 7\n", "models"),
        ("- a list\n", "bad.yaml"),
        ("models: {m: [\n", "bad.yaml"),
    ],
)
def test_a_table_with_a_mistake_is_one_clear_error(
    content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    monkeypatch.setenv("ARCHON_PRICES", str(path))
    with pytest.raises(UserError, match=says):
        price_of("m")


def test_a_table_that_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHON_PRICES", "nowhere.yaml")
    with pytest.raises(DataError, match=r"cannot read the price table 'nowhere\.yaml'.*ARCHON_PRICES"):
        price_of("m")
    assert issubclass(DataError, ArchonError)


def test_an_edited_table_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prices.yaml"
    monkeypatch.setenv("ARCHON_PRICES", str(path))
    found = []
    for dollars in (1, 2):
        path.write_text(f"models:\n  m: {{input: {dollars}, output: 0}}\n")
        os.utime(path, (dollars, dollars))
        price, _ = price_of("m")
        found.append(price and price.input)
    assert found == [Decimal(1), Decimal(2)]
