"""A search over steps whose reward model says nothing: it does not go on paying for what nobody guides."""

from __future__ import annotations

from typing import Any

import pytest

from archon.errors import BadScore, CallTimedOut, RequestRejected
from tests.strategies.chaining import Chains, lines, models, ran

LETTERS = "abcdefghijklmnopqrst"


@pytest.mark.parametrize("error", [RequestRejected("too long"), CallTimedOut("no answer"), float("nan")])
async def test_without_a_guide_a_search_ends_and_does_not_spend_on(error: Any) -> None:
    """Three rounds of which nothing is judged: its answers are what there is, and the failures say why."""

    def score(text: str) -> float:
        if text.count("\n") > 2:
            if isinstance(error, Exception):
                raise error
            return float(error)
        return 0.5

    found = await ran(
        Chains(n=3), models(lines(*LETTERS), rewards={"score": score, "retries": 0, "max_n": 9})
    )
    assert {text.count("\n") for text in found.texts} == {5}, "two steps with a guide, and three without"
    assert found.values == [None] * 3
    kind = BadScore if isinstance(error, float) else type(error)
    assert {type(failure.error) for failure in found.outcome.failures} == {kind}


async def test_a_round_or_two_without_a_guide_are_passed_over() -> None:
    failed: set[str] = set()

    def score(text: str) -> float:
        if text.count("\n") in (2, 3) and text not in failed:
            failed.add(text)
            raise RequestRejected("not now")
        return 0.5

    found = await ran(Chains(n=2), models(lines(*LETTERS), rewards={"score": score}))
    assert found.values == [0.5] * 2 and found.outcome.failures
    assert {text.replace("\n", "") for text in found.texts} == {LETTERS}


async def test_one_score_that_is_no_number_ends_neither_the_others_nor_the_run() -> None:
    def score(text: str) -> float:
        return float("nan") if text.startswith("b") else 0.5

    def write(call: Any) -> Any:
        head = call.request.prefix[:1] or "abc"[call.index]
        return lines(head, "x", "y")(call)

    found = await ran(Chains(n=3), models(write, rewards={"score": score, "max_n": 9}))
    assert dict(zip(found.texts, found.values, strict=True)) == {
        "a\nx\ny": 0.5,
        "b\nx\ny": None,
        "c\nx\ny": 0.5,
    }
    assert [type(failure.error) for failure in found.outcome.failures] == [BadScore] * 3
