"""What searches need until they find the best stack: on a made table, and a small one that is drawn and checked."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from archon import registry
from archon.benchmarks.lab.bench import LabArith
from archon.benchmarks.searching import efficiency
from archon.benchmarks.searching.efficiency import RACE, Course, Driver, Method, Middle, Named
from archon.benchmarks.searching.exhaustive import SPACE, Purse, Table, checked, remade, table_of
from archon.config import Config, dump
from archon.errors import DataError
from archon.search.axes import Configuration
from archon.search.choosing import Parts
from archon.search.objectives import Evaluation
from archon.search.proposers import Proposer, Told, preferring
from archon.search.racing import shuffled
from archon.search.reuse import Needs, Paid, Prices
from archon.search.search import Arrived, Search
from archon.search.settings import Racing, Settings, Spending
from archon.search.space import SearchSpace
from archon.search.study import Study
from archon.session import Session
from archon.store import MemoryStore

SMALL = SPACE.replace("[0.3, 0.6, 0.9, 1.2, 1.5]", "[0.6, 1.2]").replace(
    "[2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24]", "[2, 3, 4]"
)
PROBLEMS = 40
_PRICES: tuple[Literal["anew", "whole", "none"], ...] = ("anew", "whole", "none")


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace.from_data(SMALL)


@pytest.fixture(scope="module")
def table(space: SearchSpace) -> Table:
    """Better the more samples there are; weighted votes and low temperatures are better; 40 problems."""
    rng = np.random.default_rng(5)
    stacks = tuple(space.axes.every())
    pool = np.array([[0.6, 1.2].index(float(str(one["temperature"]))) for one in stacks])
    drawn = np.array([int(str(one["n"])) for one in stacks])
    worth = 0.1 * drawn - 0.4 * pool + np.array([0.3 * ("weighted" in str(one["way"])) for one in stacks])
    ease = rng.uniform(-0.5, 1.0, PROBLEMS)
    noise = rng.normal(0, 0.3, (len(stacks), PROBLEMS))
    return Table(
        stacks=stacks,
        problems=tuple(f"p{i}" for i in range(PROBLEMS)),
        right=worth[:, None] + noise > ease,
        drawn=drawn,
        rewarded=np.array(["aggregate" in one for one in stacks]),
        pool=pool,
        prompt=np.full(PROBLEMS, 100),
        tokens=np.tile(np.array([1, 2, 4, 8]), (PROBLEMS, 2, 1)),
        reply=np.tile(np.array([[0, 0, 1, 2], [0, 3, 3, 3]]), (PROBLEMS, 1, 1)),
        reading=np.tile(np.array([1000, 2000, 4000, 8000, 0, 0, 0, 0]), (PROBLEMS, 1)),
    )


def stack(table: Table, **values: object) -> int:
    return next(i for i, one in enumerate(table.stacks) if one.as_json() == values)


def test_nothing_is_paid_for_twice(table: Table) -> None:
    purse = Purse(table, reuse=True)
    two = stack(table, way="majority", temperature=0.6, n=2)
    four = stack(table, way="majority", temperature=0.6, n=4)
    best = stack(table, way="best_of", temperature=0.6, n=4, aggregate="min")
    other = stack(table, way="best_of", temperature=1.2, n=2, aggregate="last")
    assert list(purse.pay(two, [0, 3])) == [103, 103]
    assert list(purse.pay(four, [0, 1])) == [112, 115], "a pool that grows asks the question again"
    assert list(purse.pay(four, [0, 1])) == [0, 0]
    assert list(purse.pay(best, [0])) == [7000], "equal replies are rewarded once"
    assert purse.price(other) == PROBLEMS * (103 + 1000 + 8000) - 1000
    assert list(purse.pay(other, [0])) == [103 + 8000], "so they are at another temperature"
    assert purse.spent == 2 * 103 + 227 + 7000 + 8103


def test_without_reuse_everything_is_paid_for_each_time(table: Table) -> None:
    purse = Purse(table, reuse=False)
    best = stack(table, way="best_of", temperature=0.6, n=4, aggregate="min")
    assert [int(purse.pay(best, [0])[0]) for _ in range(2)] == [7115, 7115]


def test_a_table_is_kept(table: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prepare"):
        Table.load(tmp_path)
    table.save(tmp_path)
    again = Table.load(tmp_path)
    assert again.stacks == table.stacks and again.problems == table.problems
    assert (again.right == table.right).all() and (again.reply == table.reply).all()


class FromTable:
    """Evaluates stacks of the table; on other problems nothing is right."""

    def __init__(self, table: Table, space: SearchSpace) -> None:
        self._table = table
        self._stacks = {space.dump(one): place for place, one in enumerate(table.stacks)}

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Arrived
    ) -> Sequence[Evaluation | None]:
        at, known = self._stacks[dump(config)], self._table.problems
        return [
            Evaluation(p, float(p in known and self._table.right[at, known.index(p)]), outcome="solved")
            for p in problems
        ]


@pytest.fixture(scope="module")
def evaluator(table: Table, space: SearchSpace) -> FromTable:
    return FromTable(table, space)


class Heard:
    """A proposer, and what it is told."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self.notes: Sequence[str] = ()
        self.told: list[tuple[str, Told]] = []

    def ask(self) -> Configuration | None:
        return self._proposer.ask()

    def tell(self, configuration: Configuration, result: Told) -> None:
        self.told.append((configuration.key, result._replace(cost=None)))
        self._proposer.tell(configuration, result)


@pytest.mark.parametrize(
    ("proposer", "race"), [("random", RACE), ("tpe", RACE), ("tpe", Racing(alpha=0.5)), ("frugal", RACE)]
)
def test_it_decides_as_a_search_does(
    proposer: str, race: Racing, table: Table, space: SearchSpace, evaluator: FromTable, tmp_path: Path
) -> None:
    trials, seed = 16, 2
    driver = Driver(table, space, Method(proposer, race), seed, trials).run()
    paid = Paid()
    prices = Prices(Needs(space), paid)
    heard = Heard(preferring(registry.find("proposer", proposer)(), space, prices, seed=seed, window=1))
    settings = Settings(
        benchmark="none", effort=Spending(trials=trials), race=race.model_copy(update={"width": 8})
    )
    parts = Parts(shuffled(table.problems, seed), ("v",), ("t",))
    with Study.open(
        tmp_path / "study.sqlite",
        "it",
        axes=space.axes,
        objectives={"accuracy": "maximize"},
        facts={"made": True},
        seed=seed,
    ) as study:
        search = Search(space, settings, study, heard, evaluator, parts, {}, paid=paid)
        asyncio.run(search.run())
    assert len(driver.told) >= 8
    assert driver.told == heard.told[: len(driver.told)]
    assert driver.arrived or len(driver.proposed) == trials


def test_the_race_drops_who_surely_loses(table: Table, space: SearchSpace) -> None:
    raced = Driver(table, space, Method("random", RACE), 0, 60).run()
    whole = Driver(table, space, Method("random"), 0, 60).run()
    assert raced.race.eliminated()
    assert raced.course(True).evaluations[-1] < len(raced.proposed) * PROBLEMS
    assert whole.course(True).evaluations[-1] == len(whole.proposed) * PROBLEMS


def test_searches_arrive_at_the_best(table: Table, space: SearchSpace) -> None:
    methods = {"bayesian": Named(Method("random"), False), "reused": Named(Method("random"), True)}
    courses = efficiency.compare(table, space, range(3), len(table.stacks), methods)
    assert all(one.arrived for some in courses.values() for one in some)
    found = efficiency.summary([table] * 3, courses)
    plain, reused = found["methods"]["bayesian"], found["methods"]["reused"]
    assert plain["evaluations"] == reused["evaluations"]
    assert reused["fewer_tokens_than_bayesian"][0] > 1 == plain["fewer_tokens_than_bayesian"][0]
    assert reused["tokens"]["high"] <= found["tokens_of_all_samples"] + 2 * 100 * 2 * PROBLEMS
    assert "bayesian" in efficiency.shown(found)


def test_prices_are_of_what_goes_beyond_what_was_had(table: Table, space: SearchSpace) -> None:
    """`frugal` proposes by them; with none, or with what all would cost where nothing is kept, it does otherwise."""
    found = {
        prices: Driver(table, space, Method("frugal", prices=prices), 0, 12).run().proposed
        for prices in _PRICES
    }
    assert len({tuple(some) for some in found.values()}) == 3
    first = found["anew"][0]
    assert (first["way"], first["n"]) == ("majority", 2), "the cheapest, where nothing is known"


def test_a_table_is_made_with_other_effects(table: Table) -> None:
    one, again, other = remade(table, 1), remade(table, 1), remade(table, 2)
    assert (one.right == again.right).all() and (one.right != other.right).any()
    assert one.stacks == table.stacks and (one.tokens == table.tokens).all()
    worth = [remade(table, seed).values for seed in range(6)]
    assert all(0.1 < values.mean() < 0.9 and values.max() - values.min() > 0.1 for values in worth)
    assert len({int(values.argmax()) for values in worth}) >= 4, "other stacks are the best"


def test_greedy_begins_again_and_does_not_stop_short(table: Table, space: SearchSpace) -> None:
    driver = Driver(table, space, Method("greedy"), 1, len(table.stacks)).run()
    assert driver.arrived or len(driver.proposed) == len(table.stacks)


def test_who_never_arrives_counts_as_never() -> None:
    short = Course([5], [50], [0.1], 1, False)
    assert short.needed == (math.inf, math.inf)
    assert Middle.of([1, 2, math.inf]) == Middle(2, 2, math.inf)
    assert efficiency.ratio([math.inf] * 5, [10.0] * 5)[0] == math.inf
    assert math.isnan(efficiency.ratio([math.inf], [math.inf])[0])
    assert efficiency.ratio([20.0] * 5, [10.0] * 5) == (2, 2, 2)


def test_the_command_writes_figures_and_a_picture(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table.save(tmp_path)
    monkeypatch.setattr(efficiency, "SPACE", SMALL)
    methods = {"bayesian": Named(Method("random"), False), "ours": Named(Method("random", RACE), True)}
    monkeypatch.setattr(efficiency, "METHODS", methods)
    assert efficiency.main(["run", "--out", str(tmp_path), "--seeds", "2", "--trials", "20"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == json.loads((tmp_path / "efficiency.json").read_text())
    assert (tmp_path / "efficiency.png").stat().st_size > 1000
    assert efficiency.main(["run", "--out", str(tmp_path / "none")]) == 2
    options = ["--seeds", "2", "--trials", "10", "--made", "--methods", "ours"]
    assert efficiency.main(["run", "--out", str(tmp_path), *options]) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert list(made["methods"]) == ["ours"] and made["best"] != told["best"]


def test_a_table_says_what_whole_pipelines_do(space: SearchSpace) -> None:
    dataset = LabArith(level=4, split="dev", problems=2).load()
    find = registry.find
    models = {"default": find("backend", "nano")(workers=1), "reward": find("backend", "nano")(weights="prm")}

    async def both() -> None:
        async with Session(models=models, store=MemoryStore(), seed=0) as session:
            table = await table_of(space, session, dataset, log=lambda text: None)
            assert (await checked(table, space, session, dataset, 200, seed=1)).right == 200
            for number in range(4):
                session.store = MemoryStore()
                assert await checked(table, space, session, dataset, 1, seed=number) == (1, 1, 1)

    asyncio.run(both())
