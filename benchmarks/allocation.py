"""Marginal-gain allocation of a shared budget over a benchmark (Damani et al. 2024, arXiv 2410.04707).

    python -m archon.benchmarks.allocation run lab/arith --level 4,5,6,7 --pipeline self_consistency \\
        --probes 4 --budget 16 --surrogate vote --out runs/allocated
    python -m archon.benchmarks.allocation replay runs/pool --selector majority_vote --surrogate learned --budgets 8,16

`run` probes every problem with a few samples; shares the budget of the whole run, in tokens, among the problems by what
a further sample should gain (benchmarks/marginal_gain.py); and runs each problem with its own number of samples. The
probes are its first samples: they come from the store and are not paid for again. `--rounds` shares the budget in so
many parts, each by all that was seen before. Beside it stands a run with the same number of samples for every problem.
`replay` does the same with the samples of a run that is there (`archon bench`), without a call. Both print a table and
one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from archon.answers import normal_form
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.compute_optimal import dataset_of, point, table
from archon.benchmarks.harness import Harness, Plan
from archon.benchmarks.marginal_gain import (
    Learned,
    Seen,
    Surrogate,
    learn_curves,
    pool_of,
    replay,
    surrogate_of,
)
from archon.benchmarks.results import Record, Results
from archon.benchmarks.statistics.equal_tokens import Against, Point, against
from archon.benchmarks.statistics.selection import by_score, by_vote
from archon.candidate import Candidate
from archon.cli.options import configured, with_samples, with_setting
from archon.errors import AllCandidatesFailed, ArchonError, DataError, UserError
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.search.allocation import allocate, beta_prior
from archon.session import Session
from archon.strategies.compute_optimal import Signal, agreement, mean_logprob
from archon.tasks import together
from archon.usage import Usage


class Job(NamedTuple):
    """What to allocate to, and how."""

    dataset: Dataset
    problems: Sequence[Problem]
    pipeline: Pipeline
    """A pipeline whose only source has an `n`."""
    probes: int
    most: int
    """No problem gets more samples."""
    concurrency: int = 16


class Probe(NamedTuple):
    """What one problem's probes said and cost."""

    seen: Seen
    cost: float
    """Tokens of a sample, in the mean of the probes."""


def signal_of(signal: Signal, problem: Problem, samples: Sequence[Candidate]) -> float | None:
    """How easy the problem is by these samples: higher is easier."""
    if signal == "agreement":
        return agreement([normal_form(problem, c.text) for c in samples])
    read = mean_logprob if signal == "logprob" else _score
    known = [value for c in samples if (value := read(c)) is not None]
    return sum(known) / len(known) if known else None


async def probe(
    job: Job, session: Session, signal: Signal, counts: Sequence[int] | None = None
) -> list[Probe]:
    """Solve every problem with as many samples as there are probes, or as `counts` says, and look at them."""
    wanted = [job.probes] * len(job.problems) if counts is None else counts
    graphs = {n: with_samples(job.pipeline, n).graph() for n in sorted(set(wanted))}
    found: dict[str, Probe] = {}
    waiting = iter(zip(job.problems, wanted, strict=True))

    async def work() -> None:
        for problem, n in waiting:
            try:
                outcome = await session.solve(graphs[n], problem)
            except AllCandidatesFailed as error:
                assert error.outcome is not None
                outcome = error.outcome
            samples = [c for c in outcome.candidates if not c.problem]
            votes = Counter(a for c in samples if (a := normal_form(problem, c.text)) is not None)
            first, second = (*(count for _, count in votes.most_common(2)), 0, 0)[:2]
            accepted = sum(c.accepted for c in samples)
            seen = Seen((first, second), accepted, len(samples), signal_of(signal, problem, samples))
            found[problem.id] = Probe(seen, max(1.0, outcome.usage.tokens / n))

    await together(work() for _ in range(min(job.concurrency, len(job.problems))))
    return [found[problem.id] for problem in job.problems]


async def solve(job: Job, counts: Sequence[int], session: Session, folder: Path) -> list[Record]:
    """Run every problem with its own number of samples: a run per number, in folders of their own."""
    records: dict[str, Record] = {}
    for n in sorted(set(counts)):
        some = [problem for problem, count in zip(job.problems, counts, strict=True) if count == n]
        place = folder / f"n={n}"
        place.mkdir(parents=True, exist_ok=True)
        graph = with_samples(job.pipeline, n).graph()
        plan = Plan(replace(job.dataset, problems=some), graph, f"n={n}", n, concurrency=job.concurrency)
        results = await Harness(plan, session, place).run()
        records.update((record.id, record) for record in results.records)
    return [records[problem.id] for problem in job.problems]


async def shares(
    job: Job,
    session: Session,
    *,
    surrogate: Surrogate,
    budget: int,
    signal: Signal = "agreement",
    learned: Learned | None = None,
    rounds: int = 1,
) -> list[int]:
    """How many samples each problem gets of a budget of so many samples' worth per problem, shared by all.

    What is left after the probes is allocated in `rounds` equal parts, each by all that was seen before (learned curves
    go by the probes alone). For `coverage`, what the verifier said of all problems' probes is the distribution of each
    one's chance. A sample costs what the probes of its problem did.
    """
    probed = await probe(job, session, signal)
    prior = None
    if surrogate == "coverage":
        prior = beta_prior([p.seen.accepted for p in probed], [p.seen.probes for p in probed])
    curve_of = surrogate_of(surrogate, job.most, prior=prior, learned=learned)
    costs = [one.cost for one in probed]
    left, counts = (budget - job.probes) * sum(costs), [job.probes] * len(probed)
    for turn in range(rounds):
        if turn and surrogate != "learned":
            probed = await probe(job, session, signal, counts)
        curves = [curve_of(one.seen) for one in probed]
        now = allocate(curves, left / (rounds - turn), costs, least=counts)
        left -= sum(cost * (new - old) for cost, new, old in zip(costs, now, counts, strict=True))
        counts = now
    return counts


async def learn(
    job: Job, session: Session, signal: Signal, folder: Path, selector: str, bins: int, strength: float
) -> Learned:
    """Learn gain curves from problems whose answers are known: each is solved with as many samples as one may get."""
    probed = await probe(job, session, signal)
    records = await solve(job, [job.most] * len(job.problems), session, folder)
    kept = [(p, r) for p, r in zip(probed, records, strict=True) if len(r.truth) == job.most]
    if not kept:
        raise DataError(f"no problem to learn from has {job.most} samples")
    ks = range(1, job.most + 1)
    grown = np.stack([np.append(0.0, curve(record, selector, ks)) for _, record in kept])
    return learn_curves([p.seen.signal for p, _ in kept], grown, job.probes, bins, strength)


def curve(record: Record, selector: str, ks: Sequence[int]) -> Any:
    """Selected accuracy at each k, over random draws of its samples. Raises DataError where it has no such selector."""
    if selector in record.merits:
        return by_score(record.merits[selector], record.truth, ks)[0]
    if selector not in record.ballots:
        known = ", ".join(sorted({*record.merits, *record.ballots})) or "none"
        raise DataError(f"the pipeline reports no selector {selector!r} (it has {known})")
    cast = record.ballots[selector]
    answers = [None if b is None else int(b[0]) for b in cast]
    return by_vote(answers, [0.0 if b is None else b[1] for b in cast], record.truth, ks)[0]


async def measure(
    job: Job,
    session: Session,
    folder: Path,
    *,
    budget: int,
    surrogate: Surrogate,
    selector: str,
    signal: Signal = "agreement",
    learned: Learned | None = None,
    rounds: int = 1,
) -> tuple[Against, list[int]]:
    """Probe, allocate and solve; and the same number of samples for every problem, up to `most`, to hold it against.

    Raises UserError where the budget is smaller than the probes, or larger than what each problem may get.
    """
    if not job.probes <= budget <= job.most:
        raise UserError(
            f"a budget is between the {job.probes} probes and {job.most} samples, and not {budget}"
        )
    counts = await shares(
        job, session, surrogate=surrogate, budget=budget, signal=signal, learned=learned, rounds=rounds
    )
    mine = point(f"allocated@{budget}", await solve(job, counts, session, folder / "allocated"))
    every = await solve(job, [job.most] * len(job.problems), session, folder / "uniform")
    ks = range(1, job.most + 1)
    curves = np.stack(
        [np.nan_to_num(curve(r, selector, ks)) if r.truth else np.zeros(job.most) for r in every]
    )
    each = np.array([Usage.from_json(r.usage).tokens / job.most for r in every])
    plain = [Point(f"n={k}", each * k, curves[:, k - 1]) for k in ks]
    return against(mine, plain), counts


def _score(candidate: Candidate) -> float | None:
    return candidate.score(next(iter(candidate.verdicts), None))


# --- the command -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Marginal-gain allocation of a shared budget.")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--probes", type=int, default=4, help="samples by which a problem is judged (4)")
    common.add_argument("--surrogate", choices=("vote", "coverage", "learned"), default="vote")
    common.add_argument("--selector", default="majority_vote", help="what chooses (majority_vote)")
    common.add_argument("--rounds", type=int, default=1, help="allocate the budget in so many parts (1)")
    common.add_argument("--bins", type=int, default=5, help="bins of learned curves (5)")
    common.add_argument(
        "--shrink", type=float, default=4.0, help="problems that the mean over all counts as (4)"
    )
    one = commands.add_parser("run", parents=[common], help="allocate over a benchmark")
    one.add_argument("benchmark", help="a benchmark's name, or a JSONL file")
    one.add_argument(
        "--pipeline", default="self_consistency", help="a ready pipeline or a file (self_consistency)"
    )
    one.add_argument("--budget", type=int, default=16, help="samples' worth per problem, shared by all (16)")
    one.add_argument("--most", type=int, help="samples that a problem may get (four times the budget)")
    one.add_argument("--signal", choices=("agreement", "score", "logprob"), default="agreement")
    one.add_argument("--train-split", default="dev", help="with learned: the problems to learn from (dev)")
    one.add_argument("--train-limit", type=int, help="with learned: only the first so many of them")
    one.add_argument("--data", type=Path)
    one.add_argument("--level")
    one.add_argument("--split")
    one.add_argument("--benchmark-set", action="append", default=[], metavar="FIELD=VALUE")
    one.add_argument("--limit", type=int, help="only the first so many problems")
    one.add_argument("--model", action="append", default=[], metavar="[NAME=]BACKEND:MODEL")
    one.add_argument("--base-url")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--concurrency", type=int, default=16)
    one.add_argument("--store", type=Path, help="where samples are kept (default: in the folder)")
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("replay", parents=[common], help="allocate the samples of a run that is there")
    two.add_argument("run", type=Path, help="the folder of `archon bench --out`")
    two.add_argument("--budgets", default="8,16", help="samples' worth per problem (8,16)")
    two.add_argument("--verifier", help="with coverage: whose verdicts (the first one's)")
    two.add_argument("--signal", choices=("agreement", "score"), default="agreement")
    two.add_argument(
        "--folds", type=int, default=2, help="problems are held out by turns in so many parts (2)"
    )
    two.add_argument("--orders", type=int, default=20, help="random orders of the samples (20)")
    two.add_argument("--seed", type=int, default=0)
    return parser


def _replay(given: argparse.Namespace) -> tuple[list[Against], dict[str, Any]]:
    results = Results.read(given.run)
    pools = [pool_of(record, given.selector, given.verifier) for record in results.records]
    found = replay(
        pools, surrogate=given.surrogate, signal=given.signal, probes=given.probes, folds=given.folds,
        budgets=[int(b) for b in given.budgets.split(",")], bins=given.bins, strength=given.shrink,
        rounds=given.rounds, orders=given.orders, seed=given.seed,
    )  # fmt: skip
    return found, {"on": results.data["benchmark"], "problems": len(pools), "replayed": True}


async def _run(given: argparse.Namespace) -> tuple[list[Against], dict[str, Any]]:
    config = configured(given.pipeline, tuple(given.model), given.base_url, (), given.probes, (), ())
    pipeline = config.pipeline
    if given.signal == "logprob":
        sources = [node.name for node in pipeline.sources]
        pipeline = with_setting(pipeline, f"{sources[0]}.logprobs=0")
    dataset = dataset_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    async with Session(
        models=config.models, store=given.store or given.out / "store.sqlite", seed=given.seed
    ) as session:
        dataset = await dataset.prepared(session)
        most = given.most or 4 * given.budget
        job = Job(dataset, dataset.problems[: given.limit], pipeline, given.probes, most, given.concurrency)
        learned = None
        if given.surrogate == "learned":
            others = dataset_of(argparse.Namespace(**{**vars(given), "split": given.train_split}))
            others = await others.prepared(session)
            train = job._replace(dataset=others, problems=others.problems[: given.train_limit])
            if {p.id for p in train.problems} & {p.id for p in job.problems}:
                raise UserError(
                    "the problems to learn from are those to allocate to; name others with --train-split"
                )
            learned = await learn(
                train, session, given.signal, given.out / "learn", given.selector, given.bins, given.shrink
            )
        found, counts = await measure(
            job, session, given.out, budget=given.budget, surrogate=given.surrogate,
            selector=given.selector, signal=given.signal, learned=learned, rounds=given.rounds,
        )  # fmt: skip
    extra = {
        "samples": dict(sorted(Counter(counts).items())),
        "learned": None if learned is None else learned.bounds,
    }
    return [found], {"on": dataset.name, "problems": len(job.problems), "replayed": False, **extra}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or replay, and print a table and one line of JSON."""
    given = _parser().parse_args(arguments)
    try:
        found, data = _replay(given) if given.command == "replay" else asyncio.run(_run(given))
    except ArchonError as error:
        sys.exit(str(error))
    print(table(found))
    head = {
        "benchmark": "allocation",
        "surrogate": given.surrogate,
        "probes": given.probes,
        "rounds": given.rounds,
        **data,
    }
    print(json.dumps({**head, "budgets": [one.as_json() for one in found]}))


if __name__ == "__main__":
    main()
