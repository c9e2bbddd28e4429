"""Scaling curves at equal compute: accuracy against tokens of sampling and of search, over the same problems.

    python -m archon.benchmarks.scaling --out runs/scaling --problems 150 --budgets 1,2,4,8,16,32,64,128

For each method and budget (samples, beams, particles or simulations: the `n` of its ready pipeline) one run of the
harness, each resumable, all from the same seed. Methods that choose among independent samples are read off one run.
The x axis is the tokens of a problem that a model computed, those that the reward model reads included; what a prefix
cache held already is not computed again (`--count all` counts it, as a server without a cache would). A vote without
weights needs no reward model and is not charged for one. Beside the table it prints, and writes as `scaling.json`, one
line of JSON:

    {"arith": {"best_of_n": {"budget": [1, ...], "tokens": [...], "accuracy": [...], "low": [...], "high": [...]}, ...}}

`rates`, in the file, says of every two methods how many times as many tokens the one takes for the other's accuracy,
with a bootstrap interval over problems (`curves.py`). `--oracle` judges by a reward model that is always right.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np

from archon.benchmarks.curves import Curve, draw, rate
from archon.benchmarks.lab.bench import LabArith, LabListFn
from archon.benchmarks.results import Record, Results, write_json
from archon.benchmarks.statistics.selection import by_score, by_vote
from archon.errors import ArchonError, UserError
from archon.usage import Usage

if TYPE_CHECKING:
    from archon.backends.base import Model
    from archon.pipeline import Pipeline

FAMILIES = {"arith": LabArith, "listfn": LabListFn}
SAMPLED = {"best_of_n": "best_of", "weighted_vote": "weighted_vote", "self_consistency": "majority_vote"}
"""Methods that choose among independent samples, by the selector they choose with."""
SEARCHED = ("beam_search", "dvts", "particle_filter", "particle_gibbs", "parallel_tempering", "mcts")
"""Ready pipelines that search. `NAME+certainty` goes by the writer's own certainty, without a reward model; `+vote`,
after either, chooses by a vote weighted by the scores."""
CERTAINTY, VOTE = "+certainty", "+vote"
POOL = "reward_best_of_n"
"""The ready pipeline whose samples serve all of `SAMPLED`."""

_AT_ONCE = 512
"""Answers being written at the same time: so many beginnings stay in a worker's memory until the next step."""


@dataclass(frozen=True)
class Study:
    """What is compared."""

    family: str
    levels: tuple[int, ...]
    problems: int
    """How many of each level."""
    split: str
    budgets: tuple[int, ...]
    methods: tuple[str, ...]
    count: Literal["computed", "all"] = "computed"
    """Which tokens: those that were computed, or those from a prefix cache as well."""


async def study(what: Study, models: Mapping[str, Model], folder: Path, seed: int = 0) -> dict[str, Curve]:
    """Run everything that is not there yet, and read the curves. Raises UserError for a method that cannot be had."""
    some = dict(within(what, name) for name in what.methods)
    sampled = [its for name, its in some.items() if name in SAMPLED]
    if sampled:
        pool = await _run(what, POOL, max(max(its.budgets) for its in sampled), models, folder, seed)
    curves: dict[str, Curve] = {}
    for name, its in some.items():
        if name in SAMPLED:
            curves[name] = _of_samples(pool, SAMPLED[name], its)
            continue
        runs = [await _run(what, name.removesuffix(VOTE), n, models, folder, seed) for n in its.budgets]
        curves[name] = _of_runs(runs, its, _voted if name.endswith(VOTE) else _own)
    return curves


def within(what: Study, method: str) -> tuple[str, Study]:
    """`NAME@N` as the name, and the study with its budgets up to N alone. Raises UserError where there are none."""
    name, at, most = method.partition("@")
    if not at:
        return name, what
    budgets = tuple(n for n in what.budgets if most.isdecimal() and n <= int(most))
    if not budgets:
        raise UserError(
            f"{method!r}: after @ stands the largest budget of this method, at least {min(what.budgets)}"
        )
    return name, replace(what, budgets=budgets)


async def _run(
    what: Study, pipeline: str, n: int, models: Mapping[str, Model], folder: Path, seed: int
) -> Results:
    """With a store and servers of its own: what another run has drawn or read makes nothing cheaper here."""
    from archon.benchmarks.harness import Harness, Plan
    from archon.progress import Live
    from archon.session import Session

    dataset = FAMILIES[what.family](level=what.levels, problems=what.problems, split=what.split).load()
    place = folder / what.family / pipeline / str(n)
    place.mkdir(parents=True, exist_ok=True)
    if (place / "results.json").exists():
        found = Results.read(place)
        if not found.data["interrupted"] and len(found.records) == len(dataset.problems):
            return found
    print(f"{what.family}, {pipeline}, n = {n}", file=sys.stderr)
    graph = sized(pipeline, n).graph()
    async with Session(models=models, store=place / "store.sqlite", seed=seed) as session:
        with Live() as live:
            at_once = max(2, min(64, _AT_ONCE // n))
            plan = Plan(dataset, graph, pipeline, samples=n, concurrency=at_once)
            return await Harness(plan, session, place, live).run()


_GROUPS = ("m", "replicas")
"""Fields of a stage that divide its `n`."""


def sized(method: str, n: int) -> Pipeline:
    """The ready pipeline of a searched method with this `n` on its only source; a field that has to divide it is
    lowered until it does.

    Raises UserError where there is no such pipeline, and where it has no single source to size.
    """
    name = method.removesuffix(VOTE).removesuffix(CERTAINTY)
    certainty = method.removesuffix(VOTE).endswith(CERTAINTY)
    from archon.pipeline import Node, Pipeline
    from archon.shelf import ready
    from archon.stage import Stage

    nodes = list(ready(name).pipeline.nodes)
    sources = [
        i
        for i, node in enumerate(nodes)
        if isinstance(node.stage, Stage) and not node.stage.takes and hasattr(node.stage, "n")
    ]
    if len(sources) != 1:
        raise UserError(f"pipeline {name!r} has {len(sources)} sources with an `n`, and one is to be sized")
    at = sources[0]
    stage: Any = nodes[at].stage
    judged = {"reward": None} if certainty else {}
    if certainty and "reward" not in type(stage).model_fields:
        raise UserError(f"pipeline {name!r} has no reward model to go without")
    groups = {
        field: max(d for d in range(1, min(size, n) + 1) if n % d == 0)
        for field in _GROUPS
        if isinstance(size := getattr(stage, field, None), int)
    }
    nodes[at] = Node(
        nodes[at].name, type(stage)(**{**stage.given(), **judged, **groups, "n": n}), nodes[at].after
    )
    return Pipeline(nodes)


# --- reading ---------------------------------------------------------------------------------------


def _of_samples(run: Results, selector: str, what: Study) -> Curve:
    """What a selector makes of the first so many of independent samples: at k, the mean over all subsets of k."""
    right = np.stack([_chosen(record, selector, what.budgets) for record in run.records])
    tokens = np.stack([_of_some(record, selector, what) for record in run.records])
    return Curve(what.budgets, tokens, right)


def _of_some(record: Record, selector: str, what: Study) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The tokens of the first so many samples. What is written grows with them, and so does what a reward model reads
    of it; the question is computed once by each, however many there are, unless everything is counted."""
    writer, reward = (Usage.from_json(record.by_model.get(name, {})) for name in ("default", "reward"))
    models = [writer] if selector == "majority_vote" else [writer, reward]  # a vote needs nobody who judges
    shares = np.array(what.budgets) / max(1, len(record.truth))
    if what.count == "all":
        return shares * sum(usage.tokens for usage in models)
    question = writer.prompt_tokens - writer.cached_tokens
    computed = [usage.tokens - usage.cached_tokens for usage in models]
    fixed = sum(min(question, tokens) for tokens in computed)
    return fixed + shares * (sum(computed) - fixed)


def _tokens(told: Mapping[str, Any], what: Study) -> int:
    usage = Usage.from_json(told)
    return usage.tokens - (usage.cached_tokens if what.count == "computed" else 0)


def _of_runs(runs: Sequence[Results], what: Study, choice: Any) -> Curve:
    """One run for each budget, over the same problems in the same order."""
    by_id = [{record.id: record for record in run.records} for run in runs]
    ids = [record.id for record in runs[0].records]
    right = np.array([[choice(records[i]) for records in by_id] for i in ids])
    tokens = np.array([[float(_tokens(records[i].usage, what)) for records in by_id] for i in ids])
    return Curve(what.budgets, tokens, right)


def _own(record: Record) -> float:
    """Whether the pipeline's own choice is right."""
    return float(record.outcome == "solved")


def _voted(record: Record) -> float:
    """Whether what a vote by reward among all its answers chooses is right."""
    return float(_chosen(record, "weighted_vote", [len(record.truth)])[0]) if record.truth else 0.0


def _chosen(record: Record, selector: str, ks: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not record.truth:
        return np.zeros(len(ks))
    most = len(record.truth)
    some = [min(k, most) for k in ks]
    if selector in record.merits:
        return np.nan_to_num(by_score(record.merits[selector], record.truth, some)[0])
    cast = record.ballots.get(selector, [None] * most)
    answers = [None if b is None else int(b[0]) for b in cast]
    weights = [0.0 if b is None else b[1] for b in cast]
    return np.nan_to_num(by_vote(answers, weights, record.truth, some)[0])


def rates(curves: Mapping[str, Curve]) -> dict[str, dict[str, Any]]:
    """For each pair of methods, how many times as many tokens the second takes for the accuracy of the first."""
    return {
        one: {
            other: found for other in curves if other != one and (found := rate(curves[one], curves[other]))
        }
        for one in curves
    }


# --- showing ---------------------------------------------------------------------------------------


def show(family: str, curves: Mapping[str, Curve]) -> None:
    """A table: accuracy, and tokens, by budget."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"lab/{family}: right, % [95%] (tokens per problem)", show_edge=False, pad_edge=False)
    table.add_column("method")
    budgets = sorted({budget for curve in curves.values() for budget in curve.budgets})
    for budget in budgets:
        table.add_column(str(budget))
    for name, curve in curves.items():
        cells = {
            budget: f"{100 * i.value:.1f} \\[{100 * i.low:.0f}, {100 * i.high:.0f}] ({tokens:,.0f})"
            for budget, i, tokens in zip(curve.budgets, curve.accuracy, curve.mean_tokens, strict=True)
        }
        table.add_row(name, *(cells.get(budget, "") for budget in budgets))
    Console(width=None if sys.stdout.isatty() else 220, stderr=True).print(table)


def _numbers(_: Any, __: Any, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} should be whole numbers with commas, such as 1,2,4") from None
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{text!r} should be numbers from 1 on")
    return tuple(sorted(set(numbers)))


@click.command()
@click.option("--family", type=click.Choice(list(FAMILIES)), default="arith", show_default=True)
@click.option("--level", "levels", callback=_numbers, default="5,6", show_default=True)
@click.option("--problems", type=click.IntRange(min=2), default=150, show_default=True, help="Of each level.")
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True)
@click.option("--budgets", callback=_numbers, default="1,2,4,8,16,32,64,128", show_default=True)
@click.option(
    "--methods",
    default=",".join([*SAMPLED, *SEARCHED]),
    show_default=True,
    help="NAME@N: of the budgets, only those up to N.",
)
@click.option(
    "--count",
    type=click.Choice(["computed", "all"]),
    default="computed",
    show_default=True,
    help="Tokens: without or with those that a prefix cache held.",
)
@click.option("--oracle", is_flag=True, help="Judge steps by a reward model that is always right.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="A folder; run again, it goes on."
)
def main(
    family: str,
    levels: tuple[int, ...],
    problems: int,
    split: str,
    budgets: tuple[int, ...],
    methods: str,
    count: Literal["computed", "all"],
    oracle: bool,
    seed: int,
    out: Path,
) -> None:
    """Scaling curves at equal compute, over lab problems and the nano models."""
    from archon.backends.nano.backend import Nano

    names = tuple(name.strip() for name in methods.split(",") if name.strip())
    try:
        models: dict[str, Model] = {"default": Nano(), "reward": _oracle() if oracle else Nano(weights="prm")}
        what = Study(family, levels, problems, split, budgets, names, count)
        for name, _ in (within(what, name) for name in names):
            if name not in SAMPLED:
                sized(name, 1)
        curves = asyncio.run(study(what, models, out, seed))
    except KeyboardInterrupt:
        print("interrupted; what was recorded is kept: run it again to go on", file=sys.stderr)
        sys.exit(130)
    except ArchonError as error:
        sys.exit(f"error: {error}")
    show(family, curves)
    found: dict[str, Any] = {family: {name: curve.as_json() for name, curve in curves.items()}}
    picture = out / f"scaling_{family}.png"
    draw(curves, f"lab/{family}, levels {','.join(map(str, levels))}, {split}", picture)
    write_json(out / "scaling.json", {**found, "rates": {family: rates(curves)}})
    print(json.dumps(found))


def _oracle() -> Model:
    from archon import registry

    if "lab_oracle" not in registry.names("backend"):
        raise UserError("there is no backend `lab_oracle`; reinstall archon")
    model: Model = registry.find("backend", "lab_oracle")()
    return model


if __name__ == "__main__":
    main()
