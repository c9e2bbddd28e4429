"""What a benchmark run leaves behind: `results.json` and `problems.jsonl`, with a versioned schema.

`problems.jsonl` holds one line per problem; everything in `results.json` is computed from it, so a report can be
made again without the run. docs/results.md documents every field; other programs may rely on them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from archon.benchmarks.statistics.intervals import bootstrap, wilson
from archon.benchmarks.statistics.passk import Floats, pass_at_k, pass_hat_k
from archon.benchmarks.statistics.selection import by_score, by_vote
from archon.errors import DataError
from archon.usage import Usage, total

SCHEMA = 1
OUTCOMES = ("solved", "wrong", "failed", "timed_out", "cancelled", "abstained")


@dataclass
class Record:
    """One problem of a run: a line of `problems.jsonl`."""

    id: str
    outcome: str
    """solved, wrong, failed (every candidate, or the problem itself), timed_out (the chosen one, while
    it was graded), cancelled (nothing to choose when a budget or the deadline ended), abstained."""
    selected: int | None = None
    """The chosen candidate's position in the lists below."""
    truth: list[bool] = field(default_factory=list)
    """Whether each candidate is right, in sample order."""
    statuses: list[str] = field(default_factory=list)
    """right, wrong, failed or timed_out, of each candidate."""
    samples: list[str] = field(default_factory=list)
    """The candidates' ids: `stage#index`."""
    verdicts: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By verifier: `accepted`, `score` and `status`, of each candidate."""
    merits: dict[str, list[float | None]] = field(default_factory=dict)
    """By selector that goes by score: each candidate's merit (null: not to be chosen)."""
    ballots: dict[str, list[list[float] | None]] = field(default_factory=dict)
    """By selector that goes by votes: each candidate's [answer label, weight] (null: no vote)."""
    failures: list[str] = field(default_factory=list)
    """Samples that could not be had, and why."""
    usage: dict[str, Any] = field(default_factory=dict)
    """What the problem used, replayed samples with their recorded usage."""
    by_stage: dict[str, Any] = field(default_factory=dict)
    by_model: dict[str, Any] = field(default_factory=dict)
    fresh: dict[str, Any] = field(default_factory=dict)
    """The part spent in this run."""
    stopped: str = "complete"
    exhausted: str = ""
    seconds: float = 0.0
    error: str = ""
    """Why the problem failed, where every candidate did."""
    fingerprint: str = ""
    """What was asked, as a digest: the same id may be another problem in another run."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What the benchmark says of the problem (a level, a subject), to report by."""

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)


@dataclass
class RunInfo:
    """What a run was: `run.json`, and the head of `results.json`."""

    benchmark: str
    pipeline: str
    samples: int | None
    seed: int | None
    notes: list[str] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)
    early_stopping: bool = False
    """Whether the pipeline may stop sampling because of what it saw, which biases pass@k."""
    interrupted: bool = False
    engines: dict[str, Any] = field(default_factory=dict)
    """What the engines told of their work, by endpoint, where they tell."""


def causes(records: Sequence[Record]) -> Counter[str]:
    """Why samples could not be had, and how often."""
    return Counter(_PLACE.sub("", failure, count=1) for r in records for failure in r.failures)


_PLACE = re.compile(r"^.*?#\d+ ")
"""The head of a failure: `stage#index`."""


def summarise(info: RunInfo, records: Sequence[Record]) -> dict[str, Any]:
    """`results.json`, from a run's records."""
    ks = ladder(max((len(r.truth) for r in records), default=0))
    usage = total(Usage.from_json(r.usage) for r in records)
    fresh = total(Usage.from_json(r.fresh) for r in records)
    counts = {name: sum(r.outcome == name for r in records) for name in OUTCOMES}
    by_status: dict[str, int] = {}
    for record in records:
        for status in record.statuses:
            by_status[status] = by_status.get(status, 0) + 1
    notes = list(info.notes)
    coverage: dict[str, Any] = {}
    every: dict[str, Any] = {}
    if info.early_stopping:
        notes.append(
            "the pipeline stops early, so its samples are no fair draw and pass@k is not reported; "
            "run best_of_n or repeated_sampling for coverage"
        )
    else:
        coverage = _curve(records, ks, _coverage)
        every = _curve(records, ks, _all_right)
    without = sum(not r.truth for r in records)
    if without and coverage:
        notes.append(f"{without} problems gave no sample; they are in `outcomes`, and not in coverage")
    notes += _ended(records)
    return {
        "schema": SCHEMA,
        "benchmark": info.benchmark,
        "pipeline": info.pipeline,
        "models": info.models,
        "problems": len(records),
        "samples": info.samples,
        "seed": info.seed,
        "interrupted": info.interrupted,
        "outcomes": counts,
        "candidates": by_status,
        "coverage": coverage,
        "all_right": every,
        "selected": {} if info.early_stopping else _selected(records, ks),
        "pipeline_accuracy": _accuracy(records),
        "cost": _cost(records, ks),
        "usage": usage.as_json(),
        "fresh": fresh.as_json(),
        "engines": info.engines,
        "by_stage": _summed(records, "by_stage"),
        "by_model": _summed(records, "by_model"),
        "notes": notes,
    }


def _ended(records: Sequence[Record]) -> list[str]:
    """What those that are counted as cancelled ran out of, by limit."""
    limits = Counter(r.exhausted for r in records if r.outcome == "cancelled" and r.exhausted)
    return [
        f"{count} of {len(records)} problems had nothing to choose when `{limit}` ran out (counted as cancelled)"
        for limit, count in sorted(limits.items())
    ]


def ladder(most: int) -> list[int]:
    """The k that are reported: powers of two, 10, 100, 1000, ..., and the number of samples."""
    ks = {2**i for i in range(64) if 2**i <= most}
    ks |= {10**i for i in range(1, 20) if 10**i <= most}
    return sorted(ks | {most} if most else ks)


def _coverage(record: Record, ks: Sequence[int]) -> Floats:
    return np.asarray(pass_at_k([len(record.truth)], [sum(record.truth)], ks)[0])


def _all_right(record: Record, ks: Sequence[int]) -> Floats:
    return np.asarray(pass_hat_k([len(record.truth)], [sum(record.truth)], ks)[0])


def _curve(records: Sequence[Record], ks: Sequence[int], figure: Any) -> dict[str, Any]:
    """A figure per k as mean over problems that have k samples, with both intervals."""
    having = [r for r in records if r.truth]
    if not having or not ks:
        return {}
    table = np.stack([figure(r, ks) for r in having])
    return _points(table, ks, sum(len(r.truth) for r in having))


def _points(table: Floats, ks: Sequence[int], samples: int) -> dict[str, Any]:
    resampled = bootstrap(table)
    points = {}
    for at, k in enumerate(ks):
        interval = wilson(table[:, at], samples=samples)
        if interval.problems:
            points[str(k)] = {
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "problems": interval.problems,
                "bootstrap_low": resampled[at][0],
                "bootstrap_high": resampled[at][1],
            }
    return points


def _selected(records: Sequence[Record], ks: Sequence[int]) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    names = sorted({name for r in records for name in (*r.merits, *r.ballots)})
    for name in names:
        chosen, abstained = [], []
        for record in records:
            if name in record.merits:
                selected, none = by_score(record.merits[name], record.truth, ks)
            elif name in record.ballots:
                cast = record.ballots[name]
                selected, none = by_vote(
                    [None if b is None else int(b[0]) for b in cast],
                    [0.0 if b is None else b[1] for b in cast],
                    record.truth,
                    ks,
                )
            else:
                continue
            chosen.append(selected)
            abstained.append(none)
        if not chosen:
            continue
        points = _points(np.stack(chosen), ks, sum(len(r.truth) for r in records))
        silence = np.stack(abstained)
        for at, k in enumerate(ks):
            if str(k) in points:
                points[str(k)]["abstained"] = float(np.nanmean(silence[:, at]))
        curves[name] = points
    return curves


def _accuracy(records: Sequence[Record]) -> dict[str, Any]:
    """How often the pipeline's own choice was right; what failed or was cancelled counts as not right."""
    solved = [float(r.outcome == "solved") for r in records]
    interval = wilson(solved)
    low, high = bootstrap(solved)[0]
    return {
        "value": _number(interval.value),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "problems": len(records),
        "bootstrap_low": _number(low),
        "bootstrap_high": _number(high),
    }


def _cost(records: Sequence[Record], ks: Sequence[int]) -> dict[str, Any]:
    """Mean cost of k samples per problem: a problem's whole cost shared equally by its samples."""
    having = [(Usage.from_json(r.usage), len(r.truth)) for r in records if r.truth]
    if not having:
        return {}
    unpriced = any(u.unpriced for u, _ in having)
    unsized = any(u.unsized for u, _ in having)
    costs = {}
    for k in ks:
        shares = [(u, k / n) for u, n in having]
        costs[str(k)] = {
            "tokens": sum(u.tokens * s for u, s in shares) / len(shares),
            "completion_tokens": sum(u.completion_tokens * s for u, s in shares) / len(shares),
            "usd": None if unpriced else sum(float(u.usd) * s for u, s in shares) / len(shares),
            "flops": None if unsized else sum(u.flops * s for u, s in shares) / len(shares),
            "estimated": any(u.estimated for u, _ in having),
        }
    return costs


def _summed(records: Sequence[Record], name: str) -> dict[str, Any]:
    sums: dict[str, Usage] = {}
    for record in records:
        for key, usage in getattr(record, name).items():
            sums[key] = sums.get(key, Usage()) + Usage.from_json(usage)
    return {key: usage.as_json() for key, usage in sums.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


# --- reading and writing ---------------------------------------------------------------------------


class Results:
    """A finished (or interrupted) run, read back: `Results.read("runs/first")`."""

    def __init__(self, folder: Path, data: Mapping[str, Any], records: Sequence[Record]) -> None:
        self.folder = folder
        self.data = data
        """`results.json`, as it is."""
        self.records = records
        """`problems.jsonl`, line by line."""

    @classmethod
    def read(cls, folder: str | Path) -> Results:
        """Read a run. Raises DataError where there is none, or it is of a newer schema."""
        place = Path(folder)
        try:
            data = json.loads((place / "results.json").read_text(encoding="utf-8"))
            schema = data.get("schema") if isinstance(data, dict) else None
            if not isinstance(schema, int):
                raise ValueError("results.json has no schema")
            if schema > SCHEMA:
                raise DataError(
                    f"the run at {str(folder)!r} has a newer schema than this program's {SCHEMA}. Update archon"
                )
            lines = (place / "problems.jsonl").read_text(encoding="utf-8").split("\n")
            records = [Record(**json.loads(line)) for line in lines if line.strip()]
        except OSError as error:
            raise DataError(
                f"there is no finished run at {str(folder)!r} ({error.strerror}: {error.filename}). "
                "Give the folder that `archon bench --out` wrote"
            ) from error
        except (ValueError, TypeError) as error:
            raise DataError(f"the run at {str(folder)!r} is damaged ({error})") from error
        return cls(place, data, records)


def write_json(path: Path, data: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    write_whole(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file that others may read or write at the same moment: it is the old one or the whole new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{next(_partials)}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    except OSError as error:  # a full disk does not say which file it had no room for
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


_partials = itertools.count()
