"""The account of a run's verifiers: each one's verdicts against the truth, from the run's records alone.

What is counted and how, and every field of the JSON: docs/verifiers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archon.benchmarks.results import Record, Results, ladder
from archon.benchmarks.statistics.intervals import bootstrap, wilson
from archon.benchmarks.statistics.passk import Floats
from archon.benchmarks.statistics.resampling import (
    best_attempts,
    two_type_optimal_k,
    two_types_of,
    utility,
)
from archon.benchmarks.statistics.selection import by_score
from archon.benchmarks.statistics.verification import (
    Ratio,
    Tally,
    accepted_at,
    accepted_within,
    ratio,
    tally,
    total,
)
from archon.errors import DataError

COSTS = ("0", "1", "2", "4", "8")
"""What a false positive costs, in correct answers, where nothing is said (the paper's values)."""
_EVERY = 100
"""Curves have every K up to here, and about as many beyond."""
_UNSCORED = -1e300

Point = dict[str, Any]


def account(
    results: Results, *, costs: Sequence[str] = COSTS, drop_false_negatives: bool = False
) -> dict[str, dict[str, Any]]:
    """Every verifier's account, by its name.

    `drop_false_negatives` leaves out the problems of which more samples are right than the verifier accepts.
    Raises DataError where the run has no verdicts or is damaged.
    """
    records = [r for r in results.records if r.truth]
    names = sorted({name for r in records for name in r.verdicts})
    if not names:
        why = "its pipeline has no verifier" if records else "it has no graded samples"
        raise DataError(
            f"the run at {str(results.folder)!r} has no verdicts to account for: {why}. "
            "Run a pipeline with a `verify` stage, such as best_of_n"
        )
    fair = bool(results.data.get("coverage"))
    return {name: _one(name, records, costs, drop_false_negatives, fair) for name in names}


def _one(
    name: str, records: Sequence[Record], costs: Sequence[str], drop: bool, fair: bool
) -> dict[str, Any]:
    tallies = {r.id: _tally(name, r) for r in records}
    gaps = [id for id, one in tallies.items() if one.shows_false_negatives]
    kept = [r for r in records if not (drop and tallies[r.id].shows_false_negatives)]
    counted = [tallies[r.id] for r in kept]
    sums = total(counted)
    notes = []
    if not kept:
        notes.append("the false-negative filter leaves no problem")
    if sums.undecided_right + sums.undecided_wrong:
        undecided = sum(not (t.samples - t.undecided_right - t.undecided_wrong) for t in counted)
        notes.append(
            f"undecided on {sums.undecided_right + sums.undecided_wrong} samples (all of {undecided} problems): "
            "they are neither accepted nor rejected, and an attempt that ends so has found nothing"
        )
    data = {
        "problems": len(kept),
        "samples": sums.samples,
        "true_positives": sums.true_positives,
        "false_positives": sums.false_positives,
        "true_negatives": sums.true_negatives,
        "false_negatives": sums.false_negatives,
        "undecided": {"right": sums.undecided_right, "wrong": sums.undecided_wrong},
        **_rates(counted),
        "conditional_accuracy": _conditional(counted),
        "false_negative_filter": {"applied": drop, "problems": gaps},
        "ceiling": _ceiling(counted),
        **_curves(name, kept, counted, costs, fair, notes),
        "two_types": _theory(counted, costs) if fair else None,
        "by_problem": {r.id: _problem(one) for r, one in zip(kept, counted, strict=True)},
        "notes": notes,
    }
    return data


def _verdicts(name: str, record: Record, field: str) -> list[Any]:
    """One entry per sample; a problem the verifier never saw is undecided. Raises DataError."""
    found = record.verdicts.get(name, {}).get(field)
    if found is None:
        return [None] * len(record.truth)
    if len(found) != len(record.truth):
        raise DataError(
            f"problem {record.id!r} is damaged: {len(found)} verdicts of {name!r} for {len(record.truth)} samples"
        )
    return list(found)


def _tally(name: str, record: Record) -> Tally:
    return tally(_verdicts(name, record, "accepted"), record.truth)


def _problem(one: Tally) -> Point:
    return {
        "samples": one.samples,
        "accepted": one.accepted,
        "right": one.right,
        "true_positives": one.true_positives,
        "conditional_accuracy": one.conditional_accuracy,
    }


def _rates(tallies: Sequence[Tally]) -> dict[str, Point]:
    """Shares over all samples together, over those that are decided."""
    table = np.array([one[:4] for one in tallies], dtype=np.float64).reshape(-1, 4)
    hit, fluke, rejected, missed = table.T
    shares = {
        "precision": (hit, hit + fluke),
        "recall": (hit, hit + missed),
        "soundness": (rejected, rejected + fluke),
        "completeness": (hit, hit + missed),
    }
    return {
        name: _point(ratio(part, over, samples=int(over.sum()))[0]) for name, (part, over) in shares.items()
    }


def _conditional(tallies: Sequence[Tally]) -> Point:
    """The mean over problems with an accepted sample, and what it would be were the others all wrong or right."""
    known = [q for t in tallies if (q := t.conditional_accuracy) is not None]
    silent = len(tallies) - len(known)
    point = _mean(known, sum(t.accepted for t in tallies))
    point["worst"] = sum(known) / len(tallies) if tallies else None
    point["best"] = (sum(known) + silent) / len(tallies) if tallies else None
    return point


def _ceiling(tallies: Sequence[Tally]) -> dict[str, Any]:
    """What any number of attempts can reach at the rates seen, with this verifier and with a perfect one."""
    samples = sum(t.samples for t in tallies)
    return {
        "accuracy": _mean([t.conditional_accuracy or 0.0 for t in tallies], samples),
        "coverage": _mean([float(t.right > 0) for t in tallies], samples),
        "abstained": _mean([float(not t.accepted) for t in tallies], samples),
    }


def _curves(
    name: str,
    records: Sequence[Record],
    tallies: Sequence[Tally],
    costs: Sequence[str],
    fair: bool,
    notes: list[str],
) -> dict[str, Any]:
    """Everything that grows with K, over the problems that have all the samples."""
    empty: dict[str, Any] = {
        "false_positive_share": {},
        "false_positive_share_at": {},
        "utility": {},
        "best_of": {},
    }
    if not fair:
        notes.append(
            "the pipeline stops early, so its samples are no fair draw and nothing is said of other numbers of them"
        )
        return empty
    most = max((t.samples for t in tallies), default=0)
    short = sum(t.samples < most for t in tallies)
    if short:
        notes.append(f"{short} problems have fewer than {most} samples, and are not in the curves")
    whole = [(r, t) for r, t in zip(records, tallies, strict=True) if t.samples == most]
    if not whole:
        return empty
    full, ks = [t for _, t in whole], places(most)
    wrong = np.array([1 - (t.conditional_accuracy or 0.0) for t in full])[:, None]
    shares = {
        "false_positive_share": accepted_within(full, ks),
        "false_positive_share_at": accepted_at(full, ks),
    }
    accepted = sum(t.accepted for t in full)
    return {
        **{
            key: {
                str(k): _point(r)
                for k, r in zip(ks, ratio(chance * wrong, chance, samples=accepted), strict=True)
                if r.problems
            }
            for key, chance in shares.items()
        },
        "utility": {_plain(cost): _utility(full, ks, cost) for cost in costs},
        "best_of": _best_of(name, [r for r, _ in whole], ks),
    }


def places(most: int) -> list[int]:
    """The K of a curve: every one up to a hundred, then evenly on a logarithmic scale."""
    ks = {*range(1, min(most, _EVERY) + 1), *ladder(most)}
    if most > _EVERY:
        ks |= {round(k) for k in np.geomspace(_EVERY, most, _EVERY).tolist()}
    return sorted(ks)


def _plain(cost: str) -> str:
    return f"{float(cost):g}"


def _utility(tallies: Sequence[Tally], ks: Sequence[int], cost: str) -> dict[str, Any]:
    best = best_attempts(tallies, cost)
    price, samples = float(cost), sum(t.samples for t in tallies)
    curve = _points(utility(tallies, ks, cost), ks, samples, price)
    ends: Point = {"low": 0.0, "high": 0.0, "bootstrap_low": 0.0, "bootstrap_high": 0.0}
    if best.within:
        there = _points(utility(tallies, [best.within], cost), [best.within], samples, price)
        ends = {end: there[str(best.within)][end] for end in ends}
    return {"curve": curve, "best_k": best.attempts, "value": best.value, **ends, "within": best.within}


def _best_of(name: str, records: Sequence[Record], ks: Sequence[int]) -> dict[str, Point]:
    """Selected accuracy of the highest of N scores, from one pool; by acceptance where there are no scores."""
    rows = []
    for record in records:
        accepted = _verdicts(name, record, "accepted")
        scores = _verdicts(name, record, "score")
        merits = [
            float(s) if s is not None else _UNSCORED if a is None else float(a)
            for a, s in zip(accepted, scores, strict=True)
        ]
        rows.append(by_score(merits, record.truth, ks)[0])
    return _points(np.stack(rows), ks, sum(len(r.truth) for r in records))


def _theory(tallies: Sequence[Tally], costs: Sequence[str]) -> dict[str, Any] | None:
    """The two-type model of the paper, fitted to this run; None where there is only one type."""
    model = two_types_of(tallies)
    if model is None:
        return None
    return {
        "easy_share": model.easy_share,
        "easy": model.easy,
        "hard": model.hard,
        "soundness": model.soundness,
        "threshold": _number(model.threshold),
        "best_k": {_plain(cost): two_type_optimal_k(model, cost) for cost in costs},
    }


def _mean(values: Sequence[float], samples: int) -> Point:
    """A mean over problems."""
    return _points(np.asarray(values, dtype=np.float64).reshape(-1, 1), [1], samples)["1"]


def _points(table: Floats, ks: Sequence[int], samples: int, cost: float = 0.0) -> dict[str, Point]:
    """Means over problems of values between -cost and 1, with both intervals."""
    resampled = bootstrap(table)
    points = {}
    for at, k in enumerate(ks):
        interval = wilson((table[:, at] + cost) / (1 + cost), samples=samples)
        value, low, high = ((1 + cost) * end - cost for end in interval[:3])
        points[str(k)] = {
            "value": _number(value),
            "low": _number(low),
            "high": _number(high),
            "problems": interval.problems,
            "bootstrap_low": _number(resampled[at][0]),
            "bootstrap_high": _number(resampled[at][1]),
        }
    return points


def _point(one: Ratio) -> Point:
    return {
        "value": _number(one.value),
        "low": _number(one.low),
        "high": _number(one.high),
        "problems": one.problems,
        "bootstrap_low": _number(one.bootstrap_low),
        "bootstrap_high": _number(one.bootstrap_high),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def cost_list(text: str) -> tuple[str, ...]:
    """`0,1,2.5` as costs. Raises ValueError, naming the one that is none."""
    costs = [part.strip() for part in text.split(",") if part.strip()]
    for cost in costs:
        try:
            known = 0 <= float(cost) < math.inf
        except ValueError:
            known = False
        if not known:
            raise ValueError(f"{cost!r} is no cost: it takes a number, 0 or more")
    if not costs:
        raise ValueError("it takes at least one number, such as 0,1,2,4,8")
    return tuple(costs)


def worth_showing(curve: Mapping[str, Point]) -> list[str]:
    """The K of a curve that a table has room for."""
    ks = sorted(map(int, curve))
    few = set(ladder(ks[-1])) if ks else set()
    return [str(k) for k in ks if k in few]
