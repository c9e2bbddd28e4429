"""A limit over processes and restarts: never exceeded, whoever is killed, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archon.budget import Budget, Hold
from archon.errors import BudgetExhausted, StoreError, UserError
from archon.search import meter as meters
from archon.search.accounts import Allowance, Entry, Given, Others, SharedAccount
from archon.search.claims import Claims, Item
from archon.search.database import engine_of, sql, url_of
from archon.search.meter import SharedMeter
from archon.search.objectives import Evaluation
from archon.search.spending import StudyPurse, spent_in
from archon.usage import NOTHING, Usage
from tests.search.databases import where
from tests.search.spender import AT_ONCE, WORST

__all__ = ["where"]


class Table:
    """Entries of several processes in memory."""

    def __init__(self, limit: Budget) -> None:
        self.limit = limit
        self.entries: dict[int, Entry] = {}
        self.living: set[int] = set()
        self.turns = 0

    def purse(self, owner: int) -> OnesOwn:
        self.living.add(owner)
        return OnesOwn(self, owner)

    def used(self, dimension: str) -> Any:
        return sum(one.spent.get(dimension, 0) + one.held.get(dimension, 0) for one in self.entries.values())


class OnesOwn:
    def __init__(self, table: Table, owner: int) -> None:
        self.limit = table.limit
        self._table = table
        self._owner = owner

    def turn(self, decide: Callable[[Others], tuple[Given, Entry]]) -> Given:
        table, others = self._table, {k: e for k, e in self._table.entries.items() if k != self._owner}
        table.turns += 1
        taken = {d: table.used(d) for d in self.limit.limits}
        if self._owner in table.entries:
            ours = table.entries[self._owner]
            taken = {d: a - ours.spent.get(d, 0) - ours.held.get(d, 0) for d, a in taken.items()}
        back = {d: sum(e.held.get(d, 0) for k, e in others.items() if k in table.living) for d in taken}
        given, entry = decide(Others(taken, back, len(table.living)))
        table.entries[self._owner] = Entry(dict(entry.spent), dict(entry.held), entry.fresh)
        return given


def call(tokens: int, usd: Decimal = Decimal(0)) -> Usage:
    return Usage(1, completion_tokens=tokens, usd=usd)


def test_what_is_spent_is_read_from_the_database_without_a_change(where: str) -> None:
    """The one process told, and its calls have no price; the other kept evaluations, and was killed before it told."""

    def evaluated(problem: str, tokens: int) -> dict[str, Any]:
        return Evaluation(problem, usage=call(9 * tokens), fresh=call(tokens, Decimal("0.01"))).as_json()

    with Claims(where, "study") as told, Claims(where, "study") as killed, Claims(where, "other") as other:
        assert read(where) == (NOTHING, ["archon_owners", "archon_studies", "archon_work"])
        killed.finish_all(
            {Item("c", p): evaluated(p, 100) for p in "ab"} | {Item("trial", "c"): {"number": 0}}
        )
        other.finish(Item("c", "a"), evaluated("a", 1000))
        StudyPurse(other, Budget()).turn(lambda others: (None, Entry({}, {}, call(5000))))
        assert read(where)[0] == call(100, Decimal("0.01")) + call(100, Decimal("0.01"))
        unpriced = Usage(2, completion_tokens=150, unpriced=1)
        StudyPurse(told, Budget()).turn(lambda others: (None, Entry({}, {}, unpriced)))
        assert read(where)[0].tokens == 200, "the greater of the two"
        StudyPurse(killed, Budget()).turn(lambda others: (None, Entry({}, {}, call(60))))
        assert read(where)[0] == unpriced + call(60), "of all processes; more than what is kept"


def read(where: str) -> tuple[Usage, list[str]]:
    """What is spent, and the tables that there are afterwards."""
    engine = engine_of(url_of(where))
    try:
        with engine.connect() as db:
            found = spent_in(db, "study")
        return found, sorted(sql.inspect(engine).get_table_names())
    finally:
        engine.dispose()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "end", "end", "task", "settle", "lose", "report", "kill"]),
        st.integers(0, 30),
        st.integers(0, 300),
        st.fractions(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 2000), st.decimals(0, 2, places=7))
def test_what_processes_spend_and_hold_never_exceeds_the_limit(
    steps: list[tuple[str, int, int, Any]], tokens: int, usd: Decimal
) -> None:
    """Processes 0 to 2 make calls, 3 and 4 give allowances to tasks; a killed one is followed by another."""

    async def play() -> None:
        table = Table(Budget(tokens=tokens, usd=usd, counts="fresh"))
        truly: dict[str, Any] = {"tokens": 0, "usd": Decimal(0)}
        callers = {k: SharedMeter(table.purse(k), Usage) for k in range(3)}
        givers = {k: SharedAccount(table.purse(k), 2, Usage) for k in (3, 4)}
        calls: list[tuple[int, Hold, Usage]] = []
        tasks: list[tuple[int, Allowance]] = []
        for what, which, size, share in steps:
            if what == "call":
                owner, worst = which % 3, call(size, Decimal(size) / 1000)
                hold = callers[owner].try_reserve(worst)
                if hold is not None:
                    calls.append((owner, hold, worst))
            elif what == "end" and calls:
                owner, hold, worst = calls.pop(which % len(calls))
                part = Decimal(share.numerator) / share.denominator
                used = call(int(worst.tokens * part), min(worst.usd, worst.usd * part))
                truly["tokens"] += used.tokens
                truly["usd"] += used.usd
                hold.charge(used)
                hold.close()
            elif what == "task":
                owner = 3 + which % 2
                found = givers[owner].give(1 + size % 9, everything=which > 25)
                if found == "later":
                    holding = {k for k, entry in table.entries.items() if any(entry.held.values())}
                    assert holding & (table.living | {owner}), "nothing would ever come back"
                elif found != "never":
                    tasks.append((owner, found))
            elif what in ("settle", "lose") and tasks:
                owner, allowance = tasks.pop(which % len(tasks))
                amounts = {d: a // 2 if d == "tokens" else a for d, a in allowance.amounts.items()}
                for dimension, amount in amounts.items():
                    truly[dimension] += amount
                if what == "settle":
                    givers[owner].settle(allowance, amounts)
                else:
                    givers[owner].lose(allowance)
            elif what == "report":
                one: Any = {**callers, **givers}[which % 5]
                one.report()
            elif what == "kill":
                place, new = which % 3, 10 + len(table.entries)
                table.living.discard(place)
                gone = callers[place]
                for owner, _, worst in calls:
                    if owner == place:  # it may all have been spent
                        truly["tokens"] += worst.tokens
                        truly["usd"] += worst.usd
                calls = [one for one in calls if one[0] != place]
                if place in table.entries:
                    table.entries[new] = table.entries.pop(place)
                callers[place] = SharedMeter(table.purse(place), Usage)
                if gone._timer is not None:
                    gone._timer.cancel()
            for dimension, most in (("tokens", tokens), ("usd", usd)):
                assert truly[dimension] <= table.used(dimension) <= most
        for one in (*callers.values(), *givers.values()):
            one.report()
        for owner in callers:
            in_flight = sum(worst.tokens for k, _, worst in calls if k == owner)
            assert table.entries[owner].held["tokens"] == in_flight, "nobody holds what no call needs"

    asyncio.run(play())


def two(limit: int) -> tuple[SharedMeter, SharedMeter, Table]:
    table = Table(Budget(tokens=limit, counts="fresh"))
    return SharedMeter(table.purse(1), Usage), SharedMeter(table.purse(2), Usage), table


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(meters, "_RETURN_SECONDS", 0.01)


async def test_who_waits_is_served_when_another_process_gives_back(quick: None) -> None:
    one, other, _ = two(100)
    first = await one.reserve(call(70))
    waiting = asyncio.create_task(other.reserve(call(60)))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    first.charge(call(30))
    first.close()  # and what it held goes back by itself
    (await waiting).close()


async def test_those_who_wait_hold_nothing_for_one_another(quick: None) -> None:
    one, other, table = two(100)
    for meter in (one, other):
        hold = await meter.reserve(call(20))
        hold.charge(call(20))
        hold.close()
    assert table.used("tokens") > 40, "some calls more are held"
    for meter in (one, other):
        with pytest.raises(BudgetExhausted, match="40 spent, by all processes"):
            await asyncio.wait_for(meter.reserve(call(61)), 60)
    (await one.reserve(call(60))).close()


async def test_what_a_process_that_is_gone_held_is_spent(quick: None) -> None:
    one, other, table = two(100)
    await one.reserve(call(50))
    table.living.discard(1)
    with pytest.raises(BudgetExhausted):
        await other.reserve(call(51))
    assert one._timer is not None
    one._timer.cancel()


async def test_a_database_that_fails_while_somebody_waits_is_an_error(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, _ = two(100)
    hold = await one.reserve(call(70))
    waiting = asyncio.create_task(other.reserve(call(60)))
    await asyncio.sleep(0)

    def broken(*_: object) -> None:
        raise StoreError("the disk is gone")

    monkeypatch.setattr(other._purse, "turn", broken)
    with pytest.raises(StoreError, match="disk"):
        await waiting
    hold.close()


async def test_many_calls_take_few_turns(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_RETURN_SECONDS", 60.0)
    one, _, table = two(1_000_000)
    for _ in range(1000):
        hold = await one.reserve(call(100))
        hold.charge(call(10))
        hold.close()
    assert table.turns < 120
    one.close()
    assert table.used("tokens") == 10_000


def test_a_study_s_purse_counts_all_who_ever_spent(where: str) -> None:
    limit = Budget(tokens=1000, usd=Decimal("0.5"), counts="fresh")
    seen: list[Others] = []

    def look(others: Others) -> tuple[None, Entry]:
        seen.append(others)
        return None, Entry({"tokens": 0, "usd": 0}, {}, NOTHING)

    def keep(spent: int, held: int, usd: str) -> Callable[[Others], tuple[None, Entry]]:
        entry = Entry({"tokens": spent}, {"tokens": held}, call(spent, Decimal(usd)))
        return lambda others: (None, entry)

    with Claims(where, "s") as ours, Claims(where, "another study") as foreign:
        StudyPurse(foreign, limit).turn(keep(7, 7, "0.1"))
        with Claims(where, "s") as theirs:
            StudyPurse(theirs, Budget(tokens=1000, counts="fresh")).turn(keep(100, 50, "0.125"))
            mine = StudyPurse(ours, limit)
            mine.turn(look)
        mine.turn(look)
        assert mine.fresh == call(100, Decimal("0.125"))
    living, gone = seen
    assert living == Others({"tokens": 150, "usd": Decimal("0.125")}, {"tokens": 50, "usd": 0}, 2)
    assert gone == Others({"tokens": 150, "usd": Decimal("0.125")}, {"tokens": 0, "usd": 0}, 1)


def test_processes_that_are_killed_spend_no_more_than_the_limit_together(where: str, tmp_path: Path) -> None:
    limit, kills, log = 15_000, 5, tmp_path / "log"
    script = Path(__file__).with_name("spender.py")
    words = [where, str(log), str(limit), "3", str(kills), "0"]
    command = [sys.executable, "-P", "-W", "error", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout)
    spent = sum(map(int, log.read_text().split()))
    assert killed >= kills and spent <= limit
    lost = killed * WORST * AT_ONCE * 3
    assert spent >= limit - lost - WORST, "and a death costs little"


def test_processes_that_hold_for_calls_and_for_tasks_are_not_mixed(where: str) -> None:
    """The one claims samples and then waits for what tasks hold; the other waits in its task for these samples."""
    limit, none = Budget(tokens=100, counts="fresh"), Budget()
    with Claims(where, "s") as ours, Claims(where, "s") as theirs, Claims(where, "another") as foreign:
        StudyPurse(ours, limit)
        StudyPurse(foreign, limit, "task")
        StudyPurse(theirs, none, "task")
        with pytest.raises(UserError, match="another executor"):
            StudyPurse(theirs, limit, "task")
        StudyPurse(theirs, limit)
    with Claims(where, "s") as later:
        StudyPurse(later, limit, "task")


def test_one_that_went_away_or_was_refused_is_in_nobody_s_way(where: str) -> None:
    limit = Budget(tokens=100, counts="fresh")
    with Claims(where, "s") as ours:
        with Claims(where, "s") as theirs:
            StudyPurse(theirs, limit, "task")
            with pytest.raises(UserError, match="another executor"):
                StudyPurse(ours, limit)
            StudyPurse(theirs, limit, "task")
        StudyPurse(ours, limit)
