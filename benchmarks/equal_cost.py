"""Techniques against plain sampling at equal cost: what would as many tokens have bought in samples and a vote?

The line to beat is a run of plain repeated sampling, whose selected accuracy is known at every k from one pool of
samples (`majority_vote`, say). A technique's run is held against it at the k whose tokens are nearest to the
technique's own, never fewer than one sample, problem by problem over the same problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from archon.benchmarks.results import Record, Results
from archon.benchmarks.statistics.intervals import Interval, wilson
from archon.benchmarks.statistics.paired import Comparison, compare
from archon.benchmarks.statistics.selection import by_score, by_vote
from archon.errors import DataError
from archon.suggest import hint
from archon.usage import Usage


class Line(NamedTuple):
    """One technique beside plain sampling that costs as much."""

    pipeline: str
    tokens: float
    """Mean tokens per problem, prompts included."""
    accuracy: Interval
    """How often its own choice is right."""
    samples: int
    """Plain samples that cost as many tokens, as nearly as whole samples can."""
    plain_tokens: float
    """Mean tokens of these."""
    plain: Interval
    """Selected accuracy of these."""
    difference: Comparison
    """The technique's less plain sampling's, paired by problem."""
    short: bool
    """Whether the plain run has fewer samples than would cost as much: then it is held against all of them."""

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {
            "pipeline": self.pipeline,
            "tokens": self.tokens,
            "accuracy": _interval(self.accuracy),
            "samples": self.samples,
            "plain_tokens": self.plain_tokens,
            "plain": _interval(self.plain),
            **self.difference.as_json(),
            "short": self.short,
        }


def equal_cost(plain: Results, others: Sequence[Results], selector: str) -> list[Line]:
    """One line per run, in their order. `selector` chooses among the plain samples.

    Raises DataError where the plain run has no such selector, or stops early, and where a run has not the same
    problems (by what was asked).
    """
    records = {(r.id, r.fingerprint): r for r in plain.records if r.truth}
    names = {name for r in plain.records for name in (*r.merits, *r.ballots)}
    if selector not in names:
        raise DataError(
            f"the run at {str(plain.folder)!r} has no selector {selector!r}. {hint(selector, sorted(names))}"
        )
    if not plain.data["coverage"]:
        raise DataError(
            f"the run at {str(plain.folder)!r} stops early, so its samples are no fair draw; "
            "compare with a run of repeated_sampling or self_consistency"
        )
    return [_line(plain, records, other, selector) for other in others]


def _line(plain: Results, known: dict[tuple[str, str], Record], other: Results, selector: str) -> Line:
    pairs = [
        (known[key], record) for record in other.records if (key := (record.id, record.fingerprint)) in known
    ]
    if len(pairs) < len(other.records) or not pairs:
        raise DataError(
            f"of the {len(other.records)} problems of {str(other.folder)!r}, {len(pairs)} are in "
            f"{str(plain.folder)!r} with samples; compare runs over the same problems"
        )
    tokens = float(np.mean([Usage.from_json(r.usage).tokens for _, r in pairs]))
    one = float(np.mean([Usage.from_json(p.usage).tokens / len(p.truth) for p, _ in pairs]))
    most = min(len(p.truth) for p, _ in pairs)
    wanted = max(1, round(tokens / one)) if one else most
    k = min(wanted, most)
    right = [float(r.outcome == "solved") for _, r in pairs]
    chosen = [_chosen(p, selector, k) for p, _ in pairs]
    return Line(
        other.data["pipeline"],
        tokens,
        wilson(right),
        k,
        one * k,
        wilson(chosen, samples=sum(len(p.truth) for p, _ in pairs)),
        compare(chosen, right),
        wanted > most,
    )


def _chosen(record: Record, selector: str, k: int) -> float:
    """How often what is chosen among k of its samples is right."""
    if selector in record.merits:
        return float(by_score(record.merits[selector], record.truth, [k])[0][0])
    cast = record.ballots.get(selector, [None] * len(record.truth))
    answers = [None if b is None else int(b[0]) for b in cast]
    return float(by_vote(answers, [0.0 if b is None else b[1] for b in cast], record.truth, [k])[0][0])


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "problems": interval.problems,
    }
