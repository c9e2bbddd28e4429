"""How much a search has to spend until it has found the best stack: with reuse and racing, and without.

    python -m archon.benchmarks.searching.efficiency prepare --out searches --problems 50
    python -m archon.benchmarks.searching.efficiency run --out searches --seeds 20

`prepare` evaluates every stack of a space on every problem (exhaustive.py), so the best is known. `run` lets searches
with the real proposers and the real race find it, on the table: which evaluations they make is what they would make,
and so is what these cost. Each is told of a stack's problems as `Search` tells it; a test holds the two against each
other. After each step: fresh tokens so far, and the true value, over all problems of the table, of the stack that the
search would return then. A search has arrived, and ends, when that is within a point of the best of all stacks, and
rests on all problems. One that has not arrived after `--trials` stacks counts as never in the medians.

Methods: random, Archon's greedy (from a random start, and begun again when it is through) and Bayesian search (TPE)
with nothing reused, where each stack gets all problems; and each with reuse, racing, or both. Ours is what `archon
search` does: `frugal`, which goes by what a stack costs anew, with reuse and racing; and ablated of either, and of its
knowing prices. Prices are those of a real search (reuse.py): calls per problem, not the tokens that the table knows.
With another proposer reuse changes no decision, only what is paid.

With `--made` each seed has a table of its own, of the same stacks and samples, in which other choices are good: what a
method is worth beyond one table. (No reply is looked at there: what is right is drawn, effect by effect.)

A table, `efficiency.json` and `efficiency.png` (`made.json`, `made.png`); one line of JSON last. Cost: `prepare` 100
problems x 5 temperatures x 24 samples of the nano model, and their rewards, a quarter of an hour on two cores; `run` no
calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from archon import registry
from archon.benchmarks.lab.bench import LabArith
from archon.benchmarks.searching.exhaustive import SPACE, Purse, Table, checked, remade, table_of
from archon.errors import ArchonError
from archon.search.axes import Configuration
from archon.search.proposers.base import Heeding, Proposer, Told
from archon.search.proposers.preferring import Preferring
from archon.search.racing import Race, Rules, shuffled
from archon.search.reuse import Needs, Paid, Prices
from archon.search.search import most_contestants
from archon.search.settings import Racing
from archon.search.space import SearchSpace
from archon.session import Session
from archon.store import MemoryStore, SQLiteStore

POINT = 0.01
_DRAWS = 2000


class Method(NamedTuple):
    """A way to search."""

    proposer: str
    race: Racing | None = None
    """None: each stack gets all problems, one after the other."""
    window: int = 0
    """Of so many proposals the one that is cheapest now comes first."""
    prices: Literal["anew", "whole", "none"] = "anew"
    """What a proposer that goes by prices is told: what a stack costs anew; what it costs where nothing is reused; or
    nothing."""


class Named(NamedTuple):
    """A way to search, and whether it pays for what it has paid for before."""

    method: Method
    reuse: bool


RACE = Racing(tolerance=POINT)
METHODS: dict[str, Named] = {
    "random": Named(Method("random"), False),
    "greedy": Named(Method("greedy"), False),
    "bayesian": Named(Method("tpe"), False),
    "random with both": Named(Method("random", RACE, 8), True),
    "greedy with reuse": Named(Method("greedy"), True),
    "bayesian with reuse": Named(Method("tpe"), True),
    "bayesian with races": Named(Method("tpe", RACE), False),
    "bayesian with both": Named(Method("tpe", RACE), True),
    "ours": Named(Method("frugal", RACE), True),
    "ours without races": Named(Method("frugal"), True),
    "ours without prices": Named(Method("frugal", RACE, prices="none"), True),
    "ours without reuse": Named(Method("frugal", RACE, prices="whole"), False),
}
PLAIN = "bayesian"


class Course(NamedTuple):
    """What a search did: after each step, what it had spent and what it would return."""

    evaluations: list[int]
    tokens: list[int]
    values: list[float]
    """The true value of the stack that it would return."""
    trials: int
    arrived: bool

    @property
    def needed(self) -> tuple[float, float]:
        """Evaluations and fresh tokens until it arrived; infinite where it never did."""
        return (self.evaluations[-1], self.tokens[-1]) if self.arrived else (math.inf, math.inf)


class Driver:
    """A search on a table: the steps of `archon.search.search.Search`, without its study."""

    def __init__(
        self,
        table: Table,
        space: SearchSpace,
        method: Method,
        seed: int,
        trials: int,
        within: float = POINT,
        needs: Needs | None = None,
    ) -> None:
        """`needs`: of the same space, remembered from other searches."""
        self._table = table
        self._purses = {reuse: Purse(table, reuse=reuse) for reuse in (True, False)}
        self._goal = float(table.values.max()) - within - 1e-9
        racing = method.race
        self._width = 1 if racing is None else racing.width
        count = len(table.problems)
        self._racing = racing is not None
        rules = Rules(problems=count, contestants=most_contestants(space))
        if racing is not None:
            changes = {"alpha": racing.alpha, "tolerance": racing.tolerance}
            rules = rules.model_copy(update={**changes, "first": racing.first, "growth": racing.growth})
        self.race = Race(rules)
        settings: dict[str, Any] = {}
        if method.proposer == "greedy":
            start = space.axes.draw(np.random.default_rng(seed)).as_json()
            settings = {"start": start, "restarts": 1000}
        proposes = registry.find("proposer", method.proposer)(**settings)
        self._proposer: Proposer = proposes.over(space, seed=seed)
        self._needs = needs or Needs(space)
        self._paid = Paid()
        prices = Prices(self._needs, Paid() if method.prices == "whole" else self._paid)
        if isinstance(self._proposer, Heeding) and method.prices != "none":
            self._proposer.heed(prices)
        if method.window:
            self._proposer = Preferring(self._proposer, prices, window=method.window)
        order = {problem: place for place, problem in enumerate(table.problems)}
        self._order = np.array([order[problem] for problem in shuffled(table.problems, seed)])
        self._trials = trials
        self._open: dict[str, Configuration] = {}
        self._told: dict[str, int] = {}
        self._best: str | None = None
        self._count = 0
        self._rows: list[tuple[int, float, int, int]] = []
        self.proposed: list[Configuration] = []
        """In order."""
        self.told: list[tuple[str, Told]] = []
        """What the proposer was told, in order."""

    def run(self) -> Driver:
        """Search until it has arrived, as many stacks were tried as may be, or nothing is left."""
        while not self.arrived:
            more = self._fill()
            batch = [pair for pair in self._wanted() if pair[0] in self._open]
            if not batch and not more:
                break
            self._evaluate(batch)
            self._settle()
        return self

    @property
    def arrived(self) -> bool:
        """Whether what it would return is good enough, and rests on all problems."""
        if self._best is None or (self._racing and self.race.missing(self._best)):
            return False
        return self._value(self._best) >= self._goal

    def course(self, reuse: bool) -> Course:
        """What it did, and what it paid with reuse or without."""
        evaluations, values, with_, without = zip(*self._rows, strict=True)
        tokens = with_ if reuse else without
        return Course(list(evaluations), list(tokens), list(values), len(self.proposed), self.arrived)

    def _fill(self) -> bool:
        begun = False
        while self._under_way() < self._width and len(self.proposed) < self._trials:
            configuration = self._proposer.ask()
            if configuration is None:
                break
            self.proposed.append(configuration)
            self._open[configuration.key] = configuration
            self._paid.note(self._needs(configuration))
            if self._racing:
                self.race.enter(configuration.key)
            begun = True
        return begun

    def _under_way(self) -> int:
        if not self._racing:
            return len(self._open)
        wanted = {key for key, _ in self.race.wanted()}
        return sum(key in wanted or not self.race.seen(key) for key in self._open)

    def _wanted(self) -> list[tuple[str, int]]:
        if self._racing:
            return self.race.wanted()
        return [(key, place) for key in self._open for place in range(len(self._order))]

    def _evaluate(self, batch: Sequence[tuple[str, int]]) -> None:
        by_key: dict[str, list[int]] = {}
        for key, place in batch:
            by_key.setdefault(key, []).append(place)
        for key, places in by_key.items():
            stack, problems = self._table.place[key], self._order[places]
            for purse in self._purses.values():
                purse.pay(stack, problems)
            self._count += len(places)
            if self._racing:
                for place, right in zip(places, self._table.right[stack, problems], strict=True):
                    self.race.tell(key, place, float(right))
            elif self._best is None or self._value(key) > self._value(self._best):
                self._best = key
        if self._racing:
            self._best = self.race.leader()
        value = 0.0 if self._best is None else self._value(self._best)
        self._rows.append((self._count, value, self._purses[True].spent, self._purses[False].spent))

    def _value(self, key: str) -> float:
        return float(self._table.values[self._table.place[key]])

    def _settle(self) -> None:
        if not self._racing:
            for key, configuration in self._open.items():
                self._tell(configuration, Told((self._value(key),), len(self._order)))
            self._open.clear()
            return
        out, ended = self.race.eliminated(), []
        for key, configuration in list(self._open.items()):
            seen = self.race.seen(key)
            finished = not self.race.missing(key)
            result = Told((self.race.mean(key),), seen, finished=finished)
            if key in out or finished:
                del self._open[key]
                ended.append((configuration, result))
            elif seen > self._told.get(key, 0):
                self._told[key] = seen
                self._tell(configuration, result)
        for configuration, result in ended:
            self._tell(configuration, result)

    def _tell(self, configuration: Configuration, result: Told) -> None:
        self.told.append((configuration.key, result))
        self._proposer.tell(configuration, result)


# --- figures -----------------------------------------------------------------------------------------


class Middle(NamedTuple):
    """A median over seeds, with its quartiles; infinite where so many did not arrive."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Middle:
        """Of these; between an arrival and none lies none."""
        with np.errstate(invalid="ignore"):
            found = np.quantile(np.asarray(values), (0.5, 0.25, 0.75), method="higher")
        return cls(*map(float, found))

    def as_json(self) -> dict[str, float | None]:
        """A dictionary for JSON: null is infinite."""
        return {name: _finite(value) for name, value in self._asdict().items()}


def ratio(plain: Sequence[float], other: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The median of plain over that of the other, with a 95% interval: seeds drawn again with replacement, the same
    for both, and left out where neither arrived. Not a number where neither did at all."""

    def one(first: Any, second: Any) -> float:
        above, below = Middle.of(first).median, Middle.of(second).median
        return math.nan if math.isinf(above) and math.isinf(below) else above / max(below, 1e-9)

    rng = np.random.default_rng(seed)
    a, b = np.asarray(plain), np.asarray(other)
    drawn = rng.integers(len(a), size=(_DRAWS, len(a)))
    draws = [one(a[seeds], b[seeds]) for seeds in drawn]
    known = [draw for draw in draws if not math.isnan(draw)]
    if not known:
        return one(a, b), math.nan, math.nan
    low, high = np.quantile(known, (0.025, 0.975), method="higher")
    return one(a, b), float(low), float(high)


def summary(
    tables: Sequence[Table], courses: Mapping[str, Sequence[Course]], within: float = POINT
) -> dict[str, Any]:
    """What the searches needed; a table for each seed. Of several tables the medians."""
    table = tables[0]
    bests = [float(one.values.max()) for one in tables]
    enough = [
        int((one.values >= best - within - 1e-9).sum()) for one, best in zip(tables, bests, strict=True)
    ]
    reached = {name: [one.needed for one in some] for name, some in courses.items()}
    methods: dict[str, Any] = {}
    for name, some in courses.items():
        evaluations, tokens = zip(*reached[name], strict=True)
        plain = [pair[1] for pair in reached.get(PLAIN, reached[name])]
        methods[name] = {
            "arrived": sum(map(math.isfinite, tokens)),
            "evaluations": Middle.of(evaluations).as_json(),
            "tokens": Middle.of(tokens).as_json(),
            "fewer_tokens_than_bayesian": [_finite(part) for part in ratio(plain, tokens)],
            "trials": Middle.of([one.trials for one in some]).as_json(),
            "spent": Middle.of([one.tokens[-1] for one in some]).as_json(),
            "returned": Middle.of([one.values[-1] for one in some]).as_json(),
        }
    whole = Purse(table, reuse=True)
    for stack in range(len(table.stacks)):
        whole.pay(stack, range(len(table.problems)))
    return {
        "stacks": len(table.stacks),
        "distinct": table.distinct,
        "problems": len(table.problems),
        "best": float(np.median(bests)),
        "within": within,
        "good_enough": float(np.median(enough)),
        "tokens_of_all_samples": whole.spent,
        "seeds": len(next(iter(courses.values()))),
        "methods": methods,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown(found: Mapping[str, Any]) -> str:
    """The summary as a table."""
    lines = [
        f"{found['stacks']:,} stacks ({found['distinct']:,} differ) on {found['problems']} problems; the best has "
        f"{found['best']:.1%}, and {found['good_enough']:g} are within {100 * found['within']:g} points of it.",
        f"All samples and rewards: {found['tokens_of_all_samples']:,} tokens. Medians [quartiles] of {found['seeds']} "
        "seeds.",
        f"{'':22}{'arrived':>8} {'evaluations':>26} {'fresh tokens, thousands':>30} {'fewer tokens than bayesian':>28}",
    ]
    for name, one in found["methods"].items():
        times = [f"{part:.1f}" if part is not None else "-" for part in one["fewer_tokens_than_bayesian"]]
        lines.append(
            f"{name:22}{one['arrived']:>8} {_range(one['evaluations'], 1):>26} {_range(one['tokens'], 1000):>30} "
            f"{f'{times[0]} [{times[1]}, {times[2]}]':>28}"
        )
    return "\n".join(lines)


def _range(one: Mapping[str, float | None], unit: float) -> str:
    median, low, high = ("never" if one[k] is None else f"{one[k] / unit:,.0f}" for k in _NAMES)  # type: ignore[operator]
    return f"{median} [{low}, {high}]"


_NAMES = ("median", "low", "high")


def draw(tables: Sequence[Table], courses: Mapping[str, Sequence[Course]], path: Path) -> None:
    """The anytime curves: how far what it returns is from the best, against fresh tokens; median and quartiles."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    least = min(one.tokens[0] for some in courses.values() for one in some)
    most = max(one.tokens[-1] for some in courses.values() for one in some)
    grid = np.geomspace(least, most, 200)
    figure, plot = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for number, (name, some) in enumerate(courses.items()):
        rows = []
        for one, table in zip(some, tables, strict=True):
            best = float(table.values.max())
            at = np.searchsorted(one.tokens, grid, side="right") - 1
            rows.append(np.where(at < 0, np.nan, 100 * (best - np.asarray(one.values)[np.maximum(at, 0)])))
        known = ~np.isnan(rows).any(axis=0)
        low, middle, high = np.quantile(np.array(rows)[:, known], (0.25, 0.5, 0.75), axis=0)
        plot.plot(grid[known], middle, label=name, color=f"C{number}", lw=1.6)
        plot.fill_between(grid[known], low, high, color=f"C{number}", alpha=0.12, lw=0)
    plot.axhline(100 * POINT, color="black", lw=0.8, ls=":")
    plot.set_xscale("log")
    plot.set_ylim(bottom=0)
    plot.set_xlabel("fresh tokens")
    plot.set_ylabel("points below the best stack")
    plot.grid(alpha=0.25)
    plot.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


# --- the command -------------------------------------------------------------------------------------


async def prepare(out: Path, problems: int, pairs: int, anew: int) -> dict[str, Any]:
    """Make the table, and check it against whole pipelines: so many pairs from the store, so many without one."""
    out.mkdir(parents=True, exist_ok=True)
    space = SearchSpace.from_data(SPACE)
    dataset = LabArith(level=(5, 6), split="test", problems=problems).load()
    find = registry.find
    models = {"default": find("backend", "nano")(), "reward": find("backend", "nano")(weights="prm")}
    store = SQLiteStore(out / "store.sqlite")
    try:
        async with Session(models=models, store=store, seed=0) as session:
            table = await table_of(space, session, dataset, log=lambda text: print(text, file=sys.stderr))
            table.save(out)
            stored = await checked(table, space, session, dataset, pairs, seed=1)
            fresh = [0, 0, 0]
            for number in range(anew):
                session.store = MemoryStore()
                one = await checked(table, space, session, dataset, 1, seed=1000 + number)
                fresh = [a + b for a, b in zip(fresh, one, strict=True)]
    finally:
        await store.close()
    found = {"stored": stored._asdict(), "anew": dict(zip(stored._fields, fresh, strict=True))}
    (out / "checked.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    return {"stacks": len(table.stacks), "problems": len(table.problems), **found}


def compare(
    table: Table,
    space: SearchSpace,
    seeds: Sequence[int],
    trials: int,
    methods: Mapping[str, Named],
    *,
    within: float = POINT,
    jobs: int = 1,
    made: bool = False,
) -> dict[str, list[Course]]:
    """Run every method with every seed, once for those that differ in reuse alone: on the table, or on one that is made
    from it for each seed (exhaustive.py)."""
    work = [(named, seed) for named in dict.fromkeys(m.method for m in methods.values()) for seed in seeds]
    if jobs == 1:
        needs = Needs(space)
        done = [_searched(table, space, method, seed, trials, within, needs, made) for method, seed in work]
    else:
        with ProcessPoolExecutor(jobs, initializer=_begin, initargs=(table, trials, within, made)) as pool:
            done = list(pool.map(_elsewhere, work))
    by_method: dict[Method, list[Both]] = {}
    for (method, _), both in zip(work, done, strict=True):
        by_method.setdefault(method, []).append(both)
    return {
        name: [both.reused if named.reuse else both.anew for both in by_method[named.method]]
        for name, named in methods.items()
    }


class Both(NamedTuple):
    """One search, as it pays with reuse and without."""

    reused: Course
    anew: Course


def _searched(
    table: Table,
    space: SearchSpace,
    method: Method,
    seed: int,
    trials: int,
    within: float,
    needs: Needs,
    made: bool,
) -> Both:
    known = remade(table, seed) if made else table
    driver = Driver(known, space, method, seed, trials, within, needs).run()
    print(f"{method}, seed {seed}: {len(driver.proposed)} stacks, arrived: {driver.arrived}", file=sys.stderr)
    return Both(driver.course(True), driver.course(False))


_HERE: dict[str, Any] = {}
"""What a process of the pool searches."""


def _begin(table: Table, trials: int, within: float, made: bool) -> None:
    space = SearchSpace.from_data(SPACE)
    _HERE.update(table=table, space=space, trials=trials, within=within, needs=Needs(space), made=made)


def _elsewhere(work: tuple[Method, int]) -> Both:
    method, seed = work
    return _searched(method=method, seed=seed, **_HERE)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="efficiency", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "run"):
        commands.add_parser(name).add_argument("--out", type=Path, required=True)
    first, second = commands.choices["prepare"], commands.choices["run"]
    first.add_argument("--problems", type=int, default=50, help="of each of two levels")
    first.add_argument("--pairs", type=int, default=250, help="checked from the store")
    first.add_argument("--anew", type=int, default=20, help="checked without a store")
    second.add_argument("--seeds", type=int, default=20)
    second.add_argument("--trials", type=int, default=300, help="stacks that a search may try")
    second.add_argument("--within", type=float, default=POINT, help="how far from the best is near enough")
    second.add_argument(
        "--made", action="store_true", help="each seed on a table of its own, with other effects"
    )
    second.add_argument("--methods", help=f"some of: {', '.join(METHODS)} (with commas between)")
    second.add_argument("--jobs", type=int, default=1, help="processes")
    given = parser.parse_args(arguments)
    try:
        if given.command == "prepare":
            found = asyncio.run(prepare(given.out, given.problems, given.pairs, given.anew))
        else:
            table = Table.load(given.out)
            space = SearchSpace.from_data(SPACE)
            seeds = range(given.seeds)
            only = given.methods.split(",") if given.methods else [*METHODS]
            courses = compare(
                table,
                space,
                seeds,
                given.trials,
                {name: METHODS[name] for name in METHODS if name in only},
                within=given.within,
                jobs=given.jobs,
                made=given.made,
            )
            tables = [remade(table, seed) if given.made else table for seed in seeds]
            found = {**summary(tables, courses, given.within), "trials": given.trials, "made": given.made}
            name = "made" if given.made else "efficiency"
            draw(tables, courses, given.out / f"{name}.png")
            data = {method: [one._asdict() for one in some] for method, some in courses.items()}
            (given.out / f"{name}_courses.json").write_text(json.dumps(data) + "\n", encoding="utf-8")
            (given.out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(shown(found))
    except ArchonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
