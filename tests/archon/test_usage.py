"""Usage adds up exactly, is stored exactly, and never shows what is unknown as zero."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon.usage import FIELDS, NOTHING, Usage, describe, total

COUNTS = st.integers(0, 10**12)
USAGES = st.builds(
    Usage,
    requests=COUNTS,
    prompt_tokens=COUNTS,
    cached_tokens=COUNTS,
    completion_tokens=COUNTS,
    reasoning_tokens=COUNTS,
    usd=st.decimals(0, 10**6, places=9),
    flops=st.integers(0, 10**24),
    seconds=st.integers(0, 2**20).map(lambda n: n / 1024),  # binary fractions: sums are exact
    unpriced=COUNTS,
    unsized=COUNTS,
    estimated=COUNTS,
)


@given(USAGES, USAGES, USAGES)
def test_adding_is_associative_and_commutative(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a


@given(USAGES)
def test_nothing_is_neutral(usage: Usage) -> None:
    assert usage + NOTHING == NOTHING + usage == usage


@given(st.lists(USAGES, max_size=6))
def test_a_total_is_the_sum_of_every_field(usages: list[Usage]) -> None:
    whole = total(usages)
    for name in FIELDS:
        assert getattr(whole, name) == sum(getattr(u, name) for u in usages)
    assert whole.tokens == sum(u.tokens for u in usages)


def test_the_total_of_none_is_nothing() -> None:
    assert total([]) == Usage() == NOTHING


@given(USAGES)
def test_what_is_stored_is_read_back_exactly(usage: Usage) -> None:
    assert Usage.from_json(json.loads(json.dumps(usage.exact()))) == usage


def test_money_is_stored_as_a_decimal_string_and_zeros_are_left_out() -> None:
    usage = Usage(requests=1, usd=Decimal("0.000000000123456789"))
    assert usage.exact() == {"requests": 1, "usd": "1.23456789E-10"}
    assert NOTHING.exact() == {}


def test_ten_times_ten_cents_is_a_dollar() -> None:
    assert total([Usage(usd=Decimal("0.1"))] * 10).usd == Decimal(1)


def test_tokens_are_those_in_and_out_and_parts_are_not_counted_again() -> None:
    assert Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=7, reasoning_tokens=5).tokens == 17


def test_json_has_every_field_and_money_as_a_number() -> None:
    data = Usage(2, 10, usd=Decimal("0.25"), flops=7, seconds=1.23456789).as_json()
    assert set(data) == set(FIELDS)
    assert (data["usd"], data["flops"], data["seconds"]) == (0.25, 7, 1.234568)


def test_unknown_money_and_work_are_null_in_json_and_never_zero() -> None:
    data = Usage(requests=3, unpriced=3, unsized=3).as_json()
    assert data["usd"] is None and data["flops"] is None


def test_partly_priced_money_is_shown_beside_the_count_of_what_is_not() -> None:
    data = Usage(requests=3, unpriced=1, usd=Decimal("0.5"), unsized=2, flops=9).as_json()
    assert (data["usd"], data["unpriced"], data["flops"], data["unsized"]) == (0.5, 1, 9, 2)


def test_no_call_at_all_costs_zero() -> None:
    assert NOTHING.as_json()["usd"] == 0
    assert NOTHING.as_json()["flops"] == 0


@pytest.mark.parametrize("data", [{}, {"usd": None, "flops": None}])
def test_absent_and_null_counts_are_read_as_nothing(data: dict[str, None]) -> None:
    assert Usage.from_json(data) == NOTHING


def test_keys_of_a_later_version_are_ignored() -> None:
    assert Usage.from_json({"requests": 2, "joules": 5}) == Usage(requests=2)


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (Usage(1, 10, 0, 5, usd=Decimal("0.00025")), "1 request, 10 + 5 tokens, $0.00025"),
        (Usage(2, 1000, 0, 5000, unpriced=2), "2 requests, 1,000 + 5,000 tokens, unpriced"),
        (Usage(2, 1, 0, 1, usd=Decimal(1), unpriced=1), "2 requests, 1 + 1 tokens, $1, 1 unpriced"),
        (Usage(2, 1, 0, 1), "2 requests, 1 + 1 tokens, $0"),
        (Usage(2, 1, 0, 1, unpriced=2, estimated=2), "2 requests, 1 + 1 tokens, unpriced, tokens estimated"),
        (Usage(2, 1, 0, 1, unpriced=2, estimated=1), "2 requests, 1 + 1 tokens, unpriced, 1 estimated"),
        (Usage(1, 1, 0, 1, unpriced=1, flops=1500), "1 request, 1 + 1 tokens, unpriced, 1.5e+03 FLOPs"),
        (Usage(2, 1, 0, 1, flops=1500, unsized=1), "2 requests, 1 + 1 tokens, $0, 1.5e+03 FLOPs (1 unsized)"),
    ],
)
def test_the_line_for_people_says_what_is_unknown(usage: Usage, line: str) -> None:
    assert describe(usage) == line


def test_money_too_small_for_the_line_is_not_shown_as_nothing() -> None:
    line = describe(Usage(1, 1, 0, 1, usd=Decimal("0.0000001")))
    assert not line.endswith("$0"), line
