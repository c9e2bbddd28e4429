"""What adaptive sampling saves: recorded pools, replayed in random orders and stopped by rule. No model is called.

    archon bench lab/arith --level 3,4,5,6 --pipeline self_consistency --samples 64 --out runs/arith
    archon bench humaneval --pipeline best_of_n --replay ../shared/data/codegen16b_humaneval --samples 100 --out runs/he
    python -m archon.benchmarks.adaptive runs/arith runs/he

Of a run whose samples vote: self-consistency over all n samples against stopping by each rule (`beta`, `dirichlet` at
several thresholds, `majority`), and against as many samples at a fixed number. Of a run with a verifier: sampling until
it accepts, against n samples, and PassUntil's estimate of each problem's pass rate, against the pool's own. Accuracies
are means over problems with clustered intervals, differences are paired by problem.

A table for each, and one line of JSON last. A hundred problems take a minute or so of arithmetic,
and votes over programs, which are nearly all different, longer: `--selector none` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from archon.benchmarks.results import Record, Results
from archon.benchmarks.statistics.intervals import Interval, student_interval, wilson
from archon.benchmarks.statistics.paired import compare
from archon.benchmarks.statistics.pass_until import pass_until
from archon.benchmarks.statistics.selection import by_vote, random_orders
from archon.errors import ArchonError, DataError
from archon.strategies.adaptive_self_consistency import AdaptiveSelfConsistency

ORDERS = 64
THRESHOLDS = (0.8, 0.9, 0.95, 0.99)
WAVES = (1, 4, 8)
PASSES = (2, 5)
Decided = Callable[[tuple[int, ...], int], bool]


class Replayed(NamedTuple):
    """One problem's samples in random orders, stopped by a rule; means over the orders."""

    right: float
    """How often the choice is right."""
    looked: float
    """Samples until it stops."""
    paid: tuple[float, ...]
    """Samples that are paid for where a wave of each of `WAVES` is under way: at most these."""


def rules(thresholds: Sequence[float] = THRESHOLDS) -> dict[str, AdaptiveSelfConsistency]:
    """The rules, by the name of their figures."""
    found = {
        f"{rule} {threshold:g}": AdaptiveSelfConsistency.model_validate(
            {"rule": rule, "threshold": threshold}
        )
        for rule in ("beta", "dirichlet")
        for threshold in thresholds
    }
    return {"majority": AdaptiveSelfConsistency(rule="majority"), **found}


# --- self-consistency --------------------------------------------------------------------------------


def stopped(
    labels: Sequence[int | None], stage: AdaptiveSelfConsistency, decided: Decided | None = None
) -> tuple[int | None, int]:
    """Which sample is chosen (the earliest of the winning answer; None: nobody has voted), and after how many."""
    decided = decided or stage.decided
    votes: dict[int, int] = {}
    first: dict[int, int] = {}
    n = len(labels)
    taken = 0
    for taken, label in enumerate(labels, start=1):
        if label is not None:
            votes[label] = votes.get(label, 0) + 1
            first.setdefault(label, taken - 1)
        if taken >= stage.least and decided(tuple(sorted(votes.values(), reverse=True)), n - taken):
            break
    if not votes:
        return None, taken
    most = max(votes.values())
    return first[next(label for label, count in votes.items() if count == most)], taken


def replay(record: Record, selector: str, stage: AdaptiveSelfConsistency, orders: int, seed: int) -> Replayed:
    """One problem under one rule."""
    labels = [None if ballot is None else int(ballot[0]) for ballot in record.ballots[selector]]
    decided = lru_cache(maxsize=None)(stage.decided)
    rows = []
    for order in random_orders(len(labels), orders, seed):
        chosen, taken = stopped([labels[i] for i in order], stage, decided)
        rows.append((chosen is not None and record.truth[order[chosen]], taken))
    return _replayed(rows, len(labels))


def _replayed(rows: Sequence[tuple[bool, int]], n: int) -> Replayed:
    right, taken = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    paid = tuple(float(np.minimum(n, taken - 1 + wave).mean()) for wave in WAVES)
    return Replayed(float(right.mean()), float(taken.mean()), paid)


def voting(results: Results, selector: str, orders: int, seed: int) -> dict[str, Any]:
    """Self-consistency at a fixed number of samples, and stopped by each rule."""
    records, n = _pools(results, [r for r in results.records if r.ballots.get(selector)])
    fixed = _fixed(records, selector, [n], orders, seed)[:, 0]
    found: dict[str, Any] = {}
    for name, stage in rules().items():
        replays = [replay(record, selector, stage, orders, seed) for record in records]
        looked = student_interval([r.looked for r in replays])
        right = [r.right for r in replays]
        as_many = max(1, round(looked.value))
        found[name] = {
            "accuracy": _shown(wilson(right, samples=n * len(records))),
            "samples": _shown(looked),
            "paid": {str(w): _mean([r.paid[i] for r in replays]) for i, w in enumerate(WAVES)},
            "ratio": n / looked.value,
            "against_all": compare(fixed, right).as_json(),
            "as_many": as_many,
            "against_as_many": compare(
                _fixed(records, selector, [as_many], orders, seed)[:, 0], right
            ).as_json(),
        }
    accuracy = _shown(wilson(fixed, samples=n * len(records)))
    return {"selector": selector, "problems": len(records), "n": n, "fixed": accuracy, "adaptive": found}


def _fixed(records: Sequence[Record], selector: str, ks: Sequence[int], orders: int, seed: int) -> Any:
    rows = []
    for record in records:
        cast = record.ballots[selector]
        answers = [None if b is None else int(b[0]) for b in cast]
        weights = [0.0 if b is None else 1.0 for b in cast]
        rows.append(by_vote(answers, weights, record.truth, ks, orders=orders, seed=seed)[0])
    return np.stack(rows)


# --- until it passes ---------------------------------------------------------------------------------


def verified(results: Results, verifier: str, orders: int, seed: int) -> dict[str, Any]:
    """Sampling until the verifier accepts, at most n samples, against all n and the first that is accepted.

    Both choose the same sample, so the accuracy is the same: what differs is what is paid for.
    """
    records, n = _pools(results, [r for r in results.records if verifier in r.verdicts and r.truth])
    replays = []
    for record in records:
        accepted = [said is True for said in record.verdicts[verifier]["accepted"]]
        rows = []
        for order in random_orders(n, orders, seed):
            at = next((place for place, i in enumerate(order) if accepted[i]), None)
            rows.append((at is not None and record.truth[order[at]], n if at is None else at + 1))
        replays.append(_replayed(rows, n))
    looked = student_interval([r.looked for r in replays])
    return {
        "verifier": verifier,
        "problems": len(records),
        "n": n,
        "accuracy": _shown(wilson([r.right for r in replays], samples=n * len(records))),
        "samples": _shown(looked),
        "paid": {str(w): _mean([r.paid[i] for r in replays]) for i, w in enumerate(WAVES)},
        "ratio": n / looked.value,
        "pass_until": {str(passes): _estimated(records, n, passes, orders, seed) for passes in PASSES},
    }


def _estimated(records: Sequence[Record], n: int, passes: int, orders: int, seed: int) -> dict[str, Any]:
    """PassUntil's estimate of each problem's pass rate, less the pool's own; and what it takes."""
    ours, naive, drawn = [], [], []
    for record in records:
        rate = sum(record.truth) / n
        found = [
            pass_until([record.truth[i] for i in order], passes) for order in random_orders(n, orders, seed)
        ]
        ours.append(_mean([one.value for one in found]) - rate)
        naive.append(_mean([one.passes / one.samples for one in found]) - rate)
        drawn.append(_mean([one.samples for one in found]))
    return {
        "bias": _shown(student_interval(ours)),
        "naive_bias": _shown(student_interval(naive)),
        "samples": _shown(student_interval(drawn)),
    }


# --- the whole ---------------------------------------------------------------------------------------


def measure(
    results: Results, selector: str = "majority_vote", orders: int = ORDERS, seed: int = 0
) -> dict[str, Any]:
    """What one run's pools say. Raises DataError where they say nothing."""
    if not results.data["coverage"]:
        raise DataError(
            f"the run at {str(results.folder)!r} stopped early, so its samples are no fair draw; "
            "give a run of self_consistency or best_of_n"
        )
    names = sorted(
        {
            name
            for r in results.records
            for name, said in r.verdicts.items()
            if any(accepted is not None for accepted in said["accepted"])
        }
    )
    found: dict[str, Any] = {
        "run": results.folder.name,
        "benchmark": results.data["benchmark"],
        "orders": orders,
        "verified": [verified(results, name, orders, seed) for name in names],
    }
    if any(r.ballots.get(selector) for r in results.records):
        found["voting"] = voting(results, selector, orders, seed)
    if not names and "voting" not in found:
        raise DataError(
            f"the run at {str(results.folder)!r} has no votes by {selector!r} and no verifier that accepts"
        )
    return found


def _pools(results: Results, records: Sequence[Record]) -> tuple[Sequence[Record], int]:
    """The records, and how many samples each has."""
    sizes = {len(record.truth) for record in records}
    if len(sizes) != 1:
        raise DataError(
            f"the problems of {str(results.folder)!r} have {sorted(sizes)} samples, and must have as many each. "
            "Run the same command again, to draw those that are missing"
        )
    return records, sizes.pop()


def _shown(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def table(found: Mapping[str, Any]) -> str:
    """The figures for people."""
    lines = [f"{found['benchmark']} ({found['run']}), means over {found['orders']} orders"]
    if vote := found.get("voting"):
        n = vote["n"]
        lines += [
            f"  {vote['selector']} of all {n} samples, {vote['problems']} problems: {_percent(vote['fixed'])} right",
            f"  {'rule':<16}{'right %':>22}{'samples':>9}{'fewer':>8}{'less all %':>24}{'less as many %':>24}",
        ]
        for name, at in vote["adaptive"].items():
            lines.append(
                f"  {name:<16}{_percent(at['accuracy']):>22}{at['samples']['value']:>9.1f}{at['ratio']:>7.1f}×"
                f"{_percent(at['against_all']['difference']):>24}"
                f"{_percent(at['against_as_many']['difference']):>24}"
            )
    for one in found["verified"]:
        paid = ", ".join(f"{count:.1f} with {wave} under way" for wave, count in one["paid"].items())
        lines.append(
            f"  until {one['verifier']} accepts, at most {one['n']}, {one['problems']} problems: "
            f"{_percent(one['accuracy'])} right after {one['samples']['value']:.1f} samples "
            f"({one['ratio']:.1f}× fewer); paid for: {paid}"
        )
        for passes, at in one["pass_until"].items():
            lines.append(
                f"    pass rate by PassUntil {passes}: {at['samples']['value']:.1f} samples, bias "
                f"{_percent(at['bias'], 2)} points; by passes / samples {_percent(at['naive_bias'], 2)}"
            )
    return "\n".join(lines)


def _percent(interval: Mapping[str, float | None], digits: int = 1) -> str:
    value, low, high = (100 * (interval[key] or 0.0) for key in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What adaptive sampling saves on recorded pools.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders that `archon bench --out` wrote")
    parser.add_argument("--selector", default="majority_vote", help="whose votes (majority_vote)")
    parser.add_argument("--orders", type=int, default=ORDERS, help=f"random orders per problem ({ORDERS})")
    parser.add_argument("--seed", type=int, default=0, help="of the orders")
    given = parser.parse_args()
    try:
        found = [measure(Results.read(run), given.selector, given.orders, given.seed) for run in given.runs]
    except ArchonError as error:
        sys.exit(str(error))
    print("\n".join(map(table, found)))
    print(json.dumps({"benchmark": "adaptive", "runs": found}))


if __name__ == "__main__":
    main()
