"""Compute-optimal scaling, learnt and held against uniform compute (strategies/compute_optimal.py).

    python -m archon.benchmarks.compute_optimal learn lab/arith --split dev --level 3,4,5,6 \\
        --candidates self_consistency@4,self_consistency@16,beam_search@16 --budgets 4,16 --out learnt
    archon bench lab/arith --level 3,4,5,6 --pipeline learnt/compute_optimal.yaml --samples 16 --out runs/co
    python -m archon.benchmarks.compute_optimal evaluate lab/arith --split test --level 3,4,5,6 --learnt learnt

`learn` runs every candidate as the stage would run it, after the probes, and by itself; makes bins of the probes'
signal; and takes for each budget the candidates, one per bin, that together were right most often (drawn towards what
each is over all problems, `--shrink`) and cost no more than so many plain samples. A candidate that was not better than
a cheaper one is not taken. `evaluate` runs the result on other problems and holds it against the candidates by
themselves, the same for every problem: at equal tokens, those of the probes and of reward models included. Which of the
candidates by themselves (and one plain sample) are best at some budget is decided by the problems it was learnt from.

Everything is remembered by the store, so a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archon.backends.base import Model
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.cli import find_benchmark
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.results import Record, write_json, write_whole
from archon.benchmarks.statistics.equal_tokens import Against, Point, against, upper_line
from archon.cli.options import configured
from archon.config import dump, load
from archon.errors import AllCandidatesFailed, ArchonError, DataError, UserError
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.search.difficulty import bins_of, choose, quantile_bounds, shrunk
from archon.session import Session
from archon.strategies.compute_optimal import Bin, ComputeOptimal, Policy, Signal
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.tasks import together
from archon.usage import Usage
from archon.verifiers.reward import Reward

PROBES = "the probes"
"""The candidate that asks no more than was asked to tell the difficulty."""


class Candidate(NamedTuple):
    """A way to solve problems: a ready pipeline or a file, at a number of samples."""

    name: str
    pipeline: Pipeline


class Probed(NamedTuple):
    """What the probes said of the problems, in their order."""

    signals: list[float | None]
    sample: float
    """Mean tokens of a plain sample."""


class Learnt(NamedTuple):
    """What was learnt, and from what."""

    pipeline: Pipeline
    data: dict[str, Any]


ONE = Candidate("one sample", Pipeline([Sample()]))
"""Always on the plain line, which would else begin at the cheapest candidate."""


def candidates_of(
    names: Sequence[str], given: Sequence[str], base_url: str | None
) -> tuple[list[Candidate], dict[str, Model]]:
    """The candidates `NAME@N`, and the models that they call. Raises UserErrors."""
    found: list[Candidate] = []
    models: dict[str, Model] = {}
    for text in names:
        name, at, samples = text.rpartition("@")
        if not (at and name and samples.isdigit() and int(samples)):
            raise UserError(f"a candidate looks like NAME@N, such as self_consistency@8, and not {text!r}")
        config = configured(name, tuple(given), base_url, (), int(samples), (), ())
        found.append(Candidate(text, config.pipeline))
        models.update(config.models)
    return found, models


def staged(signal: Signal, policies: Sequence[Policy], n: int) -> Pipeline:
    """The stage, and the vote that chooses among probes."""
    verifier = Reward() if signal == "score" else None
    return ComputeOptimal(n=n, policies=tuple(policies), signal=signal, verifier=verifier) | MajorityVote()


async def run_point(
    name: str,
    pipeline: Pipeline,
    dataset: Dataset,
    problems: Sequence[Problem],
    session: Session,
    folder: Path,
    concurrency: int,
) -> Point:
    """Run a pipeline over the problems into a folder: tokens and whether it was right, by problem."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = replace(dataset, problems=problems)
    harness = Harness(Plan(chosen, pipeline.graph(), name, concurrency=concurrency), session, folder)
    results = await harness.run()
    print(f"{name}: {results.data['outcomes']['solved']} of {len(problems)} right", file=sys.stderr)
    return point(name, results.records)


def point(name: str, records: Sequence[Record]) -> Point:
    """What a run cost and got right, by problem."""
    tokens = [float(Usage.from_json(r.usage).tokens) for r in records]
    return Point(name, np.array(tokens), np.array([float(r.outcome == "solved") for r in records]))


async def probe(
    signal: Signal, probes: int, problems: Sequence[Problem], session: Session, concurrency: int
) -> Probed:
    """Draw the probes of every problem: their signal, and what a plain sample costs."""
    verifier = Reward() if signal == "score" else None
    stage = ComputeOptimal(
        policies=(Policy(n=1, probes=probes, bins=(Bin(),)),), signal=signal, verifier=verifier
    )
    found: dict[str, tuple[float | None, float]] = {}
    waiting = iter(problems)

    async def work() -> None:
        for problem in waiting:
            try:
                final = (await session.solve(stage, problem)).final
            except AllCandidatesFailed:
                final = ()
            tokens = sum(c.usage.tokens for c in final) / max(1, len(final))
            found[problem.id] = stage.signal_of(problem, final), tokens

    await together(work() for _ in range(min(concurrency, len(problems))))
    pairs = [found[problem.id] for problem in problems]
    return Probed([signal for signal, _ in pairs], float(np.mean([tokens for _, tokens in pairs])))


def policy(
    budget: int,
    probes: int,
    bounds: Sequence[float],
    at: NDArray[np.int64],
    probed: Sequence[Point],
    solvers: Mapping[str, Pipeline | None],
    allowance: float,
    shrink: float,
) -> tuple[Policy, dict[str, Any]]:
    """The policy of one budget: for each bin the candidate that serves the whole best; and why.

    `probed` are the candidates as run after the probes, `at` the bin of each problem, `allowance` the most mean tokens.
    Raises DataError where not even the cheapest candidate keeps to it.
    """
    count = len(bounds) + 1
    sizes = np.bincount(at, minlength=count)
    ranked = sorted(probed, key=lambda one: float(one.tokens.mean()))
    worth = shrunk([one.right for one in ranked], at, count, shrink)
    cost = shrunk([one.tokens for one in ranked], at, count, 0.0)
    found = choose(worth, cost, sizes / sizes.sum(), allowance)
    if found is None:
        least = min(float(one.tokens.mean()) for one in probed)
        raise DataError(
            f"the cheapest candidate costs {least:.0f} tokens with its probes, and the budget {budget} is worth "
            f"{allowance:.0f}. Take fewer probes, a larger budget, or a cheaper candidate"
        )
    names = [ranked[place].name for place in found.strategies]
    belows = [*bounds, None]
    bins = [Bin(below=below, solver=solvers[name]) for below, name in zip(belows, names, strict=True)]
    rows = [
        {
            "below": below,
            "problems": int(sizes[place]),
            "candidate": names[place],
            "accuracy": {one.name: float(one.right[at == place].mean()) for one in probed},
            "tokens": {one.name: float(one.tokens[at == place].mean()) for one in probed},
        }
        for place, below in enumerate(belows)
    ]
    report = {"budget": budget, "allowance": allowance, "tokens": found.cost, "shrunk_accuracy": found.worth}
    return Policy(n=budget, probes=probes, bins=tuple(bins)), {**report, "bins": rows}


async def learn(
    dataset: Dataset,
    problems: Sequence[Problem],
    candidates: Sequence[Candidate],
    session: Session,
    folder: Path,
    *,
    signal: Signal = "agreement",
    probes: int = 4,
    bins: int = 5,
    budgets: Sequence[int] = (4, 16, 64),
    shrink: float = 4.0,
    concurrency: int = 16,
) -> Learnt:
    """Learn a policy for each budget from these problems. Budgets of no more than the probes are the probes alone.

    Raises DataError where there is nothing to make bins of, or a budget is too small for the probes and every
    candidate.
    """
    told = await probe(signal, probes, problems, session, concurrency)
    bounds = quantile_bounds(told.signals, bins)
    at = bins_of(told.signals, bounds)
    solvers: dict[str, Pipeline | None] = {PROBES: None, **{c.name: c.pipeline for c in candidates}}
    probed: list[Point] = []
    for name, solver in solvers.items():
        alone = Policy(n=1, probes=probes, bins=(Bin(solver=solver),))
        place = folder / "learn" / f"after_{probes}_probes" / _file(name)
        pipeline = staged(signal, [alone], 1)
        probed.append(await run_point(name, pipeline, dataset, problems, session, place, concurrency))
    plain = [
        await run_point(c.name, c.pipeline, dataset, problems, session, folder / "learn" / _file(c.name), concurrency)
        for c in (ONE, *candidates)
    ]  # fmt: skip
    policies, reports = [], []
    for budget in sorted(set(budgets)):
        if budget <= probes:
            policies.append(Policy(n=budget, probes=budget, bins=(Bin(),)))
            continue
        made, why = policy(budget, probes, bounds, at, probed, solvers, told.sample * budget, shrink)
        policies.append(made)
        reports.append(why)
    data = {
        "benchmark": dataset.name,
        "problems": len(problems),
        "signal": signal,
        "probes": probes,
        "shrink": shrink,
        "sample_tokens": told.sample,
        "plain": [one.name for one in upper_line(plain)],
        "candidates": {
            one.name: {"tokens": float(one.tokens.mean()), "accuracy": float(one.right.mean())}
            for one in plain
        },
        "policies": reports,
    }
    return Learnt(staged(signal, policies, max(budgets)), data)


async def evaluate(
    dataset: Dataset,
    problems: Sequence[Problem],
    learnt: Pipeline,
    plain: Sequence[Candidate],
    session: Session,
    folder: Path,
    *,
    concurrency: int = 16,
) -> list[Against]:
    """Each budget of a learnt pipeline beside the same candidate for every problem, at equal tokens."""
    stage = next(n.stage for n in learnt.nodes if isinstance(n.stage, ComputeOptimal))
    line = [
        await run_point(c.name, c.pipeline, dataset, problems, session, folder / "plain" / _file(c.name), concurrency)
        for c in plain
    ]  # fmt: skip
    found = []
    for one in stage.policies:
        name = f"compute_optimal@{one.n}"
        pipeline = staged(stage.signal, stage.policies, one.n)
        mine = await run_point(name, pipeline, dataset, problems, session, folder / _file(name), concurrency)
        found.append(against(mine, line))
    return found


def table(found: Sequence[Against]) -> str:
    """The comparison for people."""
    rows = [
        "                     tokens  accuracy  uniform   difference (95%)          times fewer tokens (95%)"
    ]
    for one in found:
        gain = one.difference.difference
        least = "" if one.reached else "at least "
        rows.append(
            f"{one.method.name:<20}{one.method.tokens.mean():>7.0f}{one.method.right.mean():>10.3f}"
            f"{one.plain.mean():>9.3f}   {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
            f"   {least}{one.fewer:.2f} [{one.low:.2f}, {one.high:.2f}]"
            f"   against {one.names}{' (outside)' if one.outside else ''}"
        )
    return "\n".join(rows)


def _file(name: str) -> str:
    """A folder's name for a candidate's, which may be a path."""
    return "".join(c if c.isalnum() or c in "@_-." else "_" for c in name)


# --- the command -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compute-optimal scaling: learn a policy, and hold it against uniform."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("benchmark", help="a benchmark's name, or a JSONL file")
    common.add_argument("--data", type=Path)
    common.add_argument("--level", help="problems of these levels only")
    common.add_argument("--benchmark-set", action="append", default=[], metavar="FIELD=VALUE")
    common.add_argument("--limit", type=int, help="only the first so many problems")
    common.add_argument("--model", action="append", default=[], metavar="[NAME=]BACKEND:MODEL")
    common.add_argument("--base-url")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--concurrency", type=int, default=16)
    common.add_argument("--store", type=Path, help="where samples are kept (default: in the folder)")
    one = commands.add_parser("learn", parents=[common], help="learn a policy for each budget")
    one.add_argument("--split", help="problems of this split (the lab's: dev)")
    one.add_argument("--candidates", required=True, metavar="NAME@N,...")
    one.add_argument("--bins", type=int, default=5, help="bins of difficulty (5)")
    one.add_argument("--probes", type=int, default=4, help="samples that tell the difficulty (4)")
    one.add_argument("--signal", choices=("agreement", "score", "logprob"), default="agreement")
    one.add_argument("--budgets", default="4,16,64", help="samples' worth per problem (4,16,64)")
    one.add_argument(
        "--shrink", type=float, default=4.0, help="problems that the mean over all counts as (4)"
    )
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser(
        "evaluate", parents=[common], help="hold a learnt policy against uniform compute"
    )
    two.add_argument("--split", help="problems of this split (the lab's: test)")
    two.add_argument("--learnt", type=Path, required=True, metavar="FOLDER", help="where `learn` wrote")
    two.add_argument("--out", type=Path, help="the runs' folder (default: evaluate/ in that folder)")
    return parser


def dataset_of(given: argparse.Namespace) -> Dataset:
    """The benchmark that the options name."""
    choices = {"level": given.level, "split": given.split, "seed": None}
    found: Dataset = find_benchmark(given.benchmark, given.data, tuple(given.benchmark_set), choices).load()
    return found


async def _learn(given: argparse.Namespace) -> dict[str, Any]:
    candidates, models = candidates_of(given.candidates.split(","), given.model, given.base_url)
    dataset = dataset_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    store = given.store or given.out / "store.sqlite"
    async with Session(models=models, store=store, seed=given.seed) as session:
        dataset = await dataset.prepared(session)
        problems = dataset.problems[: given.limit]
        learnt = await learn(
            dataset, problems, candidates, session, given.out,
            signal=given.signal, probes=given.probes, bins=given.bins, shrink=given.shrink,
            budgets=[int(b) for b in given.budgets.split(",")], concurrency=given.concurrency,
        )  # fmt: skip
    head = (
        f"# Compute-optimal scaling (Snell et al. 2024), learnt from {len(problems)} problems of {dataset.name} "
        f"({given.split or 'all'}).\n# `n` (--samples) chooses the budget, in samples' worth of tokens per problem.\n"
    )
    write_whole(given.out / "compute_optimal.yaml", head + dump(learnt.pipeline))
    write_json(given.out / "learnt.json", learnt.data)
    return {"learnt": str(given.out / "compute_optimal.yaml"), **learnt.data}


async def _evaluate(given: argparse.Namespace) -> tuple[list[Against], dict[str, Any]]:
    try:
        known = json.loads((given.learnt / "learnt.json").read_text(encoding="utf-8"))
        names = [str(name) for name in known["plain"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"nothing was learnt in {str(given.learnt)!r} ({error}). Run `learn` first"
        ) from error
    learnt = load(given.learnt / "compute_optimal.yaml").pipeline
    plain, models = candidates_of([n for n in names if n != ONE.name], given.model, given.base_url)
    plain = [ONE, *plain]
    models |= configured(
        str(given.learnt / "compute_optimal.yaml"), tuple(given.model), given.base_url, (), None, (), ()
    ).models
    dataset = dataset_of(given)
    store = given.store or given.learnt / "store.sqlite"
    folder = given.out or given.learnt / "evaluate"
    async with Session(models=models, store=store, seed=given.seed) as session:
        dataset = await dataset.prepared(session)
        problems = dataset.problems[: given.limit]
        found = await evaluate(
            dataset, problems, learnt, plain, session, folder, concurrency=given.concurrency
        )
    data = {
        "benchmark": "compute_optimal",
        "on": dataset.name,
        "problems": len(problems),
        "learnt_from": known["problems"],
        "budgets": [one.as_json() for one in found],
    }
    return found, data


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn or evaluate, and print one line of JSON."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "learn":
            print(json.dumps(asyncio.run(_learn(given))))
            return
        found, data = asyncio.run(_evaluate(given))
    except ArchonError as error:
        sys.exit(str(error))
    print(table(found))
    print(json.dumps(data))


if __name__ == "__main__":
    main()
