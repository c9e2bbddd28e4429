"""Honest figures: splits that stay, how much too high a winner's figure is, and whether it beats the baseline at all.

Who wins a search was good and lucky: its figure on the problems that it was chosen by is too high, the more so the
more configurations there were and the fewer problems. Source: bootstrap bias-corrected cross-validation, Tsamardinos,
Greasidou and Borboudakis 2018 (arXiv 1708.07180): draw problems with replacement, choose by those drawn, and look at
the chosen one on those not drawn. On them it has no luck left over, and nothing is evaluated anew. Cost: no calls.

It takes off what is owed to choosing among the configurations that were evaluated, and not what is owed to their having
been proposed because of these very problems. So what is reported in the end comes from the test split, which nothing
was chosen by; this says what to expect there, and what a figure from the search split is worth before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from archon.component import Value
from archon.errors import UserError
from archon.search.front import Floats, drawn, weighted

Part = Literal["search", "validation", "test"]
PARTS: tuple[Part, ...] = ("search", "validation", "test")
_BLOCK = 10


class Splits(Value):
    """Which problems a search learns from, which it chooses its winner by, and which it reports on."""

    search: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share that is searched on."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """The share that the winner is chosen by among the best of the search; may be 0."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """The share that the winner's figure comes from."""
    seed: int = 0
    """Another seed, other splits."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = self.search + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"`search`, `validation` and `test` add up to 1, and these to {total:g}")
        return self

    def part(self, problem: str) -> Part:
        """Where a problem is, by a hash of its id alone: it stays there when the benchmark grows or shrinks."""
        place = int.from_bytes(self._digest(problem)[:8], "big") / 2**64
        if place < self.search:
            return "search"
        return "validation" if place < self.search + self.validation else "test"

    def assign(
        self, problems: Sequence[str], labels: Sequence[str] | None = None
    ) -> dict[Part, tuple[str, ...]]:
        """The problems of each part, in the order given.

        With `labels`, one per problem, each label is shared out evenly (randomised in blocks of ten); then a problem's
        part depends on those before it, and stays when others are appended. Raises UserError where an id is there
        twice, or a part that is to have problems gets none.
        """
        if len(set(problems)) < len(problems):
            raise UserError("a problem's id is there twice, so it could be searched on and tested on")
        if labels is None:
            parts = [self.part(problem) for problem in problems]
        else:
            given: dict[str, list[Part]] = {label: [] for label in labels}
            places = dict.fromkeys(given, 0)
            parts = []
            for _, label in zip(problems, labels, strict=True):
                if places[label] == len(given[label]):
                    given[label] += self._block(label, given[label])
                parts.append(given[label][places[label]])
                places[label] += 1
        found: dict[Part, tuple[str, ...]] = {
            part: tuple(one for one, where in zip(problems, parts, strict=True) if where == part)
            for part in PARTS
        }
        for part in PARTS:
            if getattr(self, part) and not found[part]:
                raise UserError(
                    f"the {part} split has none of the {len(problems)} problems. "
                    f"Take more problems, or a greater share than `{part}: {getattr(self, part):g}`"
                )
        return found

    def _block(self, label: str, before: Sequence[Part]) -> list[Part]:
        """The parts of a label's next ten problems: each goes where most are due, and then they are shuffled."""
        counts = {part: before.count(part) for part in PARTS}
        slots: list[Part] = []
        for number in range(len(before) + 1, len(before) + 1 + _BLOCK):
            slots.append(max(PARTS, key=lambda part: getattr(self, part) * number - counts[part]))
            counts[slots[-1]] += 1
        seed = int.from_bytes(self._digest(f"{label}|{len(before)}")[:8], "big")
        return [slots[at] for at in np.random.default_rng(seed).permutation(_BLOCK)]

    def _digest(self, text: str) -> bytes:
        return hashlib.sha256(f"split|{self.seed}|{text}".encode("utf-8", "surrogatepass")).digest()


class Optimism(NamedTuple):
    """What a winner's figure is worth."""

    winner: int
    """The configuration's row."""
    raw: float
    """Its mean over its problems: too high."""
    corrected: float
    """What to expect of a winner that is chosen so, on problems that it was not chosen by. A little low, since each
    draw chooses by some 63 in 100 of the problems."""
    problems: int
    """How many it was evaluated on."""
    configurations: int
    """How many it was chosen from."""

    @property
    def optimism(self) -> float:
        """By how much the raw figure is too high."""
        return self.raw - self.corrected

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return {**self._asdict(), "optimism": self.optimism}


def optimism(
    values: ArrayLike,
    *,
    costs: ArrayLike | None = None,
    target: float | None = None,
    least: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> Optimism:
    """How much too high the winner's mean is.

    `values` has the shape (configurations, problems), more is better, NaN where a configuration was not evaluated. The
    winner has the highest mean, the earlier of equals, among those evaluated on at least `least` of the problems that
    the most evaluated one has: what lost its race early cannot win by a few lucky problems. With a `target` the winner
    is the cheapest, by `costs` of the same shape, of those whose mean is at it; where none is, as before. Raises
    ValueError where there is nothing to choose by: fewer than two problems.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"values should be rows of at least two problems, and have the shape {table.shape}")
    known = ~np.isnan(table)
    counts = known.sum(axis=1)
    if counts.max(initial=0) < 2:
        raise ValueError("no configuration was evaluated on two problems")
    rows = np.flatnonzero(counts >= max(1.0, least * counts.max()))
    filled, seen = np.where(known, table, 0.0)[rows], known[rows]
    means = filled.sum(axis=1) / counts[rows]
    weights = drawn(table.shape[1], resamples, seed)
    inside = weighted(filled, seen, weights)
    merits, merit = inside, means
    if target is not None:
        paid = np.where(known, np.asarray(costs, dtype=np.float64), 0.0)[rows]
        merit = _at(target, means, paid.sum(axis=1) / counts[rows])
        merits = _at(target, inside, weighted(paid, seen, weights))
    best = int(merit.argmax())
    chosen = np.where(np.isnan(merits), -np.inf, merits).argmax(axis=1)
    outside = (weights == 0) & seen[chosen]
    outside &= np.isfinite(inside).any(axis=1, keepdims=True)
    sizes = outside.sum(axis=1)
    held = (filled[chosen] * outside).sum(axis=1)[sizes > 0] / sizes[sizes > 0]
    corrected = float(held.mean()) if len(held) else float("nan")
    return Optimism(int(rows[best]), float(means[best]), corrected, int(counts[rows[best]]), len(rows))


def _at(target: float, values: Floats, costs: Floats) -> Floats:
    """A merit such that the cheapest at the target is the best, and below it the best in value."""
    return np.asarray(np.where(values < target, values - target, 1.0 / (1.0 + costs)))


# --- against the baseline --------------------------------------------------------------------------


class _Interval(Protocol):
    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class _Compared(Protocol):
    @property
    def difference(self) -> _Interval: ...
    @property
    def p_value(self) -> float: ...


Compare: TypeAlias = Callable[[Sequence[float], Sequence[float]], _Compared]
"""A paired comparison of two sequences of values, problem by problem: the second less the first, with its interval and
a two-sided p-value."""


class Verdict(NamedTuple):
    """A winner against a baseline, on the problems of the test split."""

    says: Literal["better", "worse", "no significant difference"]
    difference: float
    """The winner's mean less the baseline's."""
    low: float
    high: float
    p_value: float
    p_adjusted: float
    """Among all the baselines that the winner is held against: what it goes by."""
    problems: int

    def as_json(self) -> dict[str, Any]:
        """A dictionary for JSON; an infinite bound (of a single problem) is null."""
        ends = {
            name: end if np.isfinite(end) else None for name, end in (("low", self.low), ("high", self.high))
        }
        return {**self._asdict(), **ends}

    def sentence(self, winner: str, baseline: str) -> str:
        """It in words; the interval shows how great a difference may have been missed."""
        figures = (
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}] "
            f"over {self.problems} test problem{'s' * (self.problems != 1)}, p = {self.p_value:.3g}"
        )
        if self.p_adjusted != self.p_value:
            figures += f" ({self.p_adjusted:.3g} among all baselines)"
        if self.says == "no significant difference":
            return f"{winner} shows no significant difference from {baseline}: {figures}"
        return f"{winner} is {self.says} than {baseline}: {figures}"


def verdict(
    winner: Mapping[str, float], baseline: Mapping[str, float], compare: Compare, *, alpha: float = 0.05
) -> Verdict:
    """Whether a winner beats its only baseline; see `verdicts`."""
    return verdicts(winner, {"": baseline}, compare, alpha=alpha)[""]


def verdicts(
    winner: Mapping[str, float],
    baselines: Mapping[str, Mapping[str, float]],
    compare: Compare,
    *,
    alpha: float = 0.05,
) -> dict[str, Verdict]:
    """Whether a winner beats each of its baselines, by problem id, on problems that none was chosen by.

    It is better, or worse, where the adjusted p-value is below `alpha` *and* the interval of `compare` leaves zero out.
    P-values are adjusted for their number by Holm's method (1979), so that the chance that it is called better or worse
    than any of those that it equals is at most `alpha`; intervals are each one's own. Raises ValueError where two were
    not evaluated on the same problems, or on none.
    """
    found = {}
    for name, baseline in baselines.items():
        if winner.keys() != baseline.keys() or not winner:
            raise ValueError(
                f"winner and baseline have {len(winner)} and {len(baseline)} problems, of which "
                f"{len(winner.keys() & baseline.keys())} are the same; they should be the same test problems"
            )
        ids = sorted(winner)
        found[name] = compare([baseline[one] for one in ids], [winner[one] for one in ids])
    adjusted, least = {}, 0.0
    for place, (name, one) in enumerate(sorted(found.items(), key=lambda pair: pair[1].p_value)):
        adjusted[name] = least = max(least, min(1.0, (len(found) - place) * one.p_value))
    told = {}
    for name, one in found.items():
        gap, p = one.difference, adjusted[name]
        says: Literal["better", "worse", "no significant difference"] = "no significant difference"
        if p < alpha and (gap.low > 0 or gap.high < 0):
            says = "better" if gap.low > 0 else "worse"
        told[name] = Verdict(says, gap.value, gap.low, gap.high, one.p_value, p, len(winner))
    return told
