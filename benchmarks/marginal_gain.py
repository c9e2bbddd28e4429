"""Marginal-gain allocation on recorded samples: what a shared budget would have bought, against the same n for all.

Source: Damani et al. 2024 (arXiv 2410.04707), section 3. Every problem is probed with a few of its samples; by them a
surrogate says what further ones should gain; the rest of the budget, which all problems share, goes where that is most
per token (`search/allocation.py`); and the pipeline's selector chooses among what each problem got.

Surrogates:

- `coverage`: until a verifier accepts a sample, each further one is accepted with a chance that is the same for all of
  a problem's samples and Beta-distributed over problems; what has an accepted sample needs no more.
- `vote`: the leading answer is found by a vote as surely as the two most frequent answers so far allow.
- `learned`: problems whose answers are known say how accuracy grew with samples among those of like signal (quantiles
  of the probes' agreement, or of their mean score).

What is fitted (the Beta distribution, the learned curves) is fitted on other problems than it is used on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from archon.benchmarks.results import Record
from archon.benchmarks.statistics.equal_tokens import Against, Point, against
from archon.benchmarks.statistics.selection import random_orders
from archon.errors import DataError
from archon.search.allocation import Curve, allocate, beta_prior, concave, coverage_curve, vote_curve
from archon.search.difficulty import bins_of, quantile_bounds
from archon.usage import Usage

Floats = NDArray[np.float64]

Surrogate: TypeAlias = Literal["coverage", "vote", "learned"]
"""What says how much a further sample gains."""


class Pool(NamedTuple):
    """One problem's recorded samples, and how the selector would choose among them."""

    right: Sequence[bool]
    merits: Sequence[float | None] | None
    """Of a selector that goes by score."""
    ballots: Sequence[Sequence[float] | None] | None
    """Of a selector that goes by votes: answer label and weight."""
    labels: Sequence[int | None]
    """Which answers are equal."""
    accepted: Sequence[bool]
    """Whether the verifier accepts each."""
    scores: Sequence[float | None]
    """The verifier's scores."""
    cost: float
    """Mean tokens of a sample (1 where they are not known)."""


class Seen(NamedTuple):
    """What the probes of one problem say."""

    counts: tuple[int, int]
    """How many gave the most frequent answer, and the next one."""
    accepted: int
    probes: int
    signal: float | None


def pool_of(record: Record, selector: str, verifier: str | None) -> Pool:
    """A problem's pool. Raises DataError where the run has no such selector, or no samples of the problem."""
    if not record.truth:
        raise DataError(f"problem {record.id!r} has no samples to allocate")
    merits, ballots = record.merits.get(selector), record.ballots.get(selector)
    if merits is None and ballots is None:
        known = ", ".join(sorted({*record.merits, *record.ballots})) or "none"
        raise DataError(f"the run has no selector {selector!r} (it has {known}); name one with --selector")
    said = record.verdicts.get(verifier or next(iter(sorted(record.verdicts)), ""), {})
    votes = record.ballots.get("majority_vote", ballots)
    none: list[Any] = [None] * len(record.truth)
    return Pool(
        record.truth,
        merits,
        ballots,
        none if votes is None else [None if vote is None else int(vote[0]) for vote in votes],
        [one is True for one in said.get("accepted", none)],
        said.get("score", none),
        Usage.from_json(record.usage).tokens / len(record.truth) or 1.0,
    )


def prefix_right(pool: Pool, order: Sequence[int]) -> Floats:
    """Whether what the selector chooses among the first 0, 1, 2, ... samples in this order is right."""
    found = np.zeros(len(order) + 1)
    totals: dict[float, float] = {}
    first: dict[float, int] = {}
    best: int | None = None
    for place, sample in enumerate(order):
        if pool.merits is not None:
            merit = pool.merits[sample]
            if merit is not None and (best is None or merit > (pool.merits[best] or 0.0)):
                best = sample
        elif pool.ballots is not None and (vote := pool.ballots[sample]) is not None:
            totals[vote[0]] = totals.get(vote[0], 0.0) + vote[1]
            first.setdefault(vote[0], sample)
            most = max(totals.values())
            best = next(first[label] for label, sum_ in totals.items() if sum_ >= most - 1e-9 * abs(most))
        found[place + 1] = best is not None and pool.right[best]
    return found


def look(pool: Pool, order: Sequence[int], signal: Literal["agreement", "score"]) -> Seen:
    """What these samples of it say, as probes."""
    votes = Counter(label for sample in order if (label := pool.labels[sample]) is not None)
    leading = [count for _, count in votes.most_common(2)]
    first, second = (*leading, 0, 0)[:2]
    known = [score for sample in order if (score := pool.scores[sample]) is not None]
    told: float | None = first / len(order)
    if signal == "score":
        told = sum(known) / len(known) if known else None
    return Seen((first, second), sum(pool.accepted[sample] for sample in order), len(order), told)


def surrogate_of(
    kind: Surrogate,
    most: int,
    *,
    prior: tuple[float, float] | None = None,
    learned: Learned | None = None,
) -> Callable[[Seen], Curve]:
    """The gain curve of a problem by its probes, over 0 to `most` samples, the probes included."""
    if kind == "learned":
        assert learned is not None
        return lambda seen: learned.curve(seen.signal)
    if kind == "vote":
        return lambda seen: vote_curve(1.0 + seen.counts[0], 1.0 + seen.counts[1], most)
    assert prior is not None
    right, wrong = prior

    def coverage(seen: Seen) -> Curve:
        if seen.accepted:
            return [1.0] * (most + 1)
        return coverage_curve(right, wrong + seen.probes, most, known=seen.probes)

    return coverage


class Learned(NamedTuple):
    """How accuracy grows with samples, by difficulty."""

    bounds: tuple[float, ...]
    curves: tuple[tuple[float, ...], ...]
    """One per bin, over 0 to n samples."""

    def curve(self, signal: float | None) -> Curve:
        """That of a problem with this signal."""
        return self.curves[int(bins_of([signal], self.bounds)[0])]


def learn_curves(
    signals: Sequence[float | None], grown: Floats, probes: int, bins: int, strength: float
) -> Learned:
    """Learn from accuracy by number of samples, a row per problem (or per order of its samples).

    A bin's mean curve is drawn towards the whole one, which counts as `strength` rows, and made concave from `probes`
    samples on: fewer are never chosen, and count as that many.
    """
    bounds = quantile_bounds(signals, bins)
    at = bins_of(signals, bounds)
    whole = grown.mean(axis=0)
    curves = []
    for place in range(len(bounds) + 1):
        rows = grown[at == place]
        mean = (rows.sum(axis=0) + strength * whole) / (len(rows) + strength)
        rest = concave(mean[probes:].tolist())
        curves.append((*[rest[0]] * probes, *rest))
    return Learned(bounds, tuple(curves))


def replay(
    pools: Sequence[Pool],
    *,
    surrogate: Surrogate,
    signal: Literal["agreement", "score"] = "agreement",
    probes: int = 4,
    budgets: Sequence[int] = (8, 16),
    folds: int = 2,
    bins: int = 5,
    strength: float = 4.0,
    rounds: int = 1,
    orders: int = 20,
    seed: int = 0,
) -> list[Against]:
    """Each budget (samples' worth per problem) allocated, beside the same number of samples for every problem.

    The rest after the probes is allocated in `rounds` equal parts, each by all that was seen before (learned curves go
    by the probes alone). Problems are held out by turns: those of one fold share its budget, by what was fitted on the
    others. All figures are means over random orders of the recorded samples, the same ones for both.

    Raises DataError where there are fewer samples than the probes or a budget ask for, or fewer problems than folds.
    """
    most = min(len(pool.right) for pool in pools)
    for budget in budgets:
        if not probes <= budget <= most:
            raise DataError(
                f"a budget is between the {probes} probes and the {most} samples, and not {budget}"
            )
    if not 2 <= folds <= len(pools):
        raise DataError(f"`folds` is between 2 and the {len(pools)} problems, and is {folds}")
    drawn = [random_orders(len(p.right), orders, seed * 100_003 + i)[:orders] for i, p in enumerate(pools)]
    times = min(map(len, drawn))
    pairs = [(pool, some[:times]) for pool, some in zip(pools, drawn, strict=True)]
    grown = np.stack([[prefix_right(pool, order)[: most + 1] for order in some] for pool, some in pairs])
    seen = [[look(pool, order[:probes], signal) for order in some] for pool, some in pairs]
    costs = np.array([pool.cost for pool in pools])
    plain = [Point(f"n={k}", costs * k, grown[:, :, k].mean(axis=1)) for k in range(1, most + 1)]
    counts = np.zeros((len(budgets), len(pools), times), dtype=np.int64)
    part = (
        np.random.default_rng(seed).permutation(len(pools)) % folds
    )  # problems often stand in order of difficulty
    for fold in range(folds):
        held = [i for i in range(len(pools)) if part[i] == fold]
        train = [i for i in range(len(pools)) if part[i] != fold]
        told = [seen[i][r].signal for i in train for r in range(times)]
        curve_of = surrogate_of(
            surrogate,
            most,
            prior=_prior([pools[i] for i in train]) if surrogate == "coverage" else None,
            learned=learn_curves(
                told, np.concatenate([grown[i] for i in train]), probes, bins, strength * times
            )
            if surrogate == "learned"
            else None,
        )
        known: dict[Seen, Curve] = {}

        def curve(i: int, r: int, n: int, curve_of: Any = curve_of, known: Any = known) -> Curve:
            """By its first n samples; learned ones by its probes."""
            pool, order = pairs[i]
            told = seen[i][r] if surrogate == "learned" else look(pool, order[r][:n], signal)
            if told not in known:
                known[told] = curve_of(told)
            return known[told]  # type: ignore[no-any-return]

        each = costs[held].tolist()
        for r in range(times):
            for place, budget in enumerate(budgets):
                left, got = (budget - probes) * sum(each), [probes] * len(held)
                for turn in range(rounds):
                    curves = [curve(i, r, n) for i, n in zip(held, got, strict=True)]
                    now = allocate(curves, left / (rounds - turn), each, least=got)
                    left -= sum(c * (new - old) for c, new, old in zip(each, now, got, strict=True))
                    got = now
                counts[place, held, r] = got
    found = []
    every = np.arange(len(pools))[:, None], np.arange(times)[None, :]
    for place, budget in enumerate(budgets):
        right = grown[(*every, counts[place])].mean(axis=1)
        found.append(against(Point(f"allocated@{budget}", costs * counts[place].mean(axis=1), right), plain))
    return found


def _prior(pools: Sequence[Pool]) -> tuple[float, float]:
    return beta_prior([sum(p.accepted) for p in pools], [len(p.accepted) for p in pools])
