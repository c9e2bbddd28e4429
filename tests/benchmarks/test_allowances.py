"""One budget over tasks that cannot see each other: never exceeded, whatever the order in which they end."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archon import errors
from archon.benchmarks.cluster.allowances import Allowances
from archon.benchmarks.cluster.faults import packed, unpacked
from archon.benchmarks.cluster.ray_cluster import RayCluster
from archon.budget import Budget
from archon.errors import ArchonError, ConfigError, FatalError, Flaw, MissingExtra, StageFailed, UnknownName
from archon.search.accounts import Account, Allowance

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "everything", "settle", "lose"]),
        st.integers(0, 20),
        st.fractions(0, 1),
        st.integers(1, 9),
    ),
    max_size=60,
)


@given(STEPS, st.integers(0, 5000), st.decimals(0, 3, places=7), st.integers(1, 5))
def test_what_is_spent_and_held_never_exceeds_the_limit(
    steps: list[tuple[str, int, object, int]], tokens: int, usd: Decimal, workers: int
) -> None:
    limit = Budget(tokens=tokens, usd=usd, counts="fresh")
    account, open_ones, truly = Account(limit, workers), list[Allowance](), {"tokens": 0, "usd": Decimal(0)}
    for what, which, share, problems in steps:
        if what in ("give", "everything"):
            found = account.give(problems, everything=what == "everything")
            if not isinstance(found, str):
                open_ones.append(found)
            elif found == "later":
                assert open_ones, "nothing would ever come back"
            elif not open_ones:
                spent = account.spent
                assert spent["tokens"] + workers > tokens or spent["usd"] + workers * Decimal("1e-12") > usd
        elif open_ones:
            one = open_ones.pop(which % len(open_ones))
            part = Decimal(share.numerator) / share.denominator  # type: ignore[attr-defined]
            used = {
                "tokens": int(one.amounts["tokens"] * part),
                "usd": min(one.amounts["usd"], one.amounts["usd"] * part),
            }
            for dimension, amount in used.items():
                truly[dimension] += amount
            if what == "settle":
                account.settle(one, used)
            else:
                account.lose(one)
        for dimension, most in (("tokens", tokens), ("usd", usd)):
            assert account.spent[dimension] + account.held[dimension] <= most
            assert truly[dimension] <= account.spent[dimension]
            assert all(one.amounts[dimension] > 0 for one in open_ones)
    assert account.held["tokens"] == sum(one.amounts["tokens"] for one in open_ones)


def test_workers_get_equal_shares_and_what_is_not_used_comes_back() -> None:
    account = Account(Budget(tokens=900), 3)
    first, second = account.give(1), account.give(1)
    assert isinstance(first, Allowance) and isinstance(second, Allowance)
    assert first.amounts == second.amounts == {"tokens": 300}
    account.settle(first, {"tokens": 50})
    third = account.give(4)
    assert isinstance(third, Allowance)
    assert third.amounts == {"tokens": (900 - 50 - 300) // 2}


def test_once_it_is_known_what_problems_need_a_lost_task_costs_little() -> None:
    account = Account(Budget(tokens=1_000_000), 2)
    first = account.give(10)
    assert isinstance(first, Allowance) and first.amounts["tokens"] == 500_000
    account.settle(first, {"tokens": 1000})
    second = account.give(5)
    assert isinstance(second, Allowance)
    account.lose(second)
    assert account.spent["tokens"] == 1000 + 4 * 5 * 100


def test_an_allowance_is_settled_once() -> None:
    account = Account(Budget(tokens=10), 1)
    one = account.give(1)
    assert isinstance(one, Allowance)
    account.lose(one)
    with pytest.raises(ValueError, match="settled already"):
        account.settle(one, {"tokens": 1})


async def test_everything_that_is_left_waits_for_the_others() -> None:
    allowances = Allowances(Account(Budget(tokens=100), 2))
    first = await allowances.take(1)
    assert first is not None and first.amounts == {"tokens": 50}
    waiting = asyncio.create_task(allowances.take(1, everything=True))
    behind = asyncio.create_task(allowances.take(1))
    await asyncio.sleep(0)
    assert not waiting.done() and not behind.done()
    allowances.settle(first, {"tokens": 30})
    second = await waiting
    assert second is not None and second.amounts == {"tokens": 70}
    allowances.settle(second, {"tokens": 70})
    assert await behind is None, "the budget is spent"


async def test_without_limits_nobody_waits() -> None:
    allowances = Allowances(Account(Budget(), 1))
    found = [await allowances.take(1) for _ in range(5)]
    assert all(one is not None and not one.amounts for one in found)


@pytest.mark.parametrize(
    "error",
    [
        UnknownName("there is no model 'x'"),
        ConfigError([Flaw("pipeline.0", "it is odd", "Mend it"), Flaw("", "so is this")]),
        FatalError("the key is wrong", model="m", status=401, request_id="r"),
        StageFailed("sample", ValueError("two")),
    ],
)
def test_errors_are_raised_as_they_were(error: ArchonError) -> None:
    again = unpacked(packed(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert {k: v for k, v in vars(again).items()} == vars(error)


def test_an_error_of_somebody_elses_is_the_nearest_of_ours() -> None:
    class Theirs(UnknownName):
        pass

    again = unpacked(packed(Theirs("what")))
    assert type(again) is UnknownName
    assert type(unpacked({"class": "os", "message": "x", "facts": {}, "flaws": []})) is errors.ArchonError


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"archon\[ray\]"):
        RayCluster()
