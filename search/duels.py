"""What a race claims of each two of its contestants, and of each one against the target, with which share of alpha.

Source: tests by betting (search/betting.py), on differences paired by problem. Cost: no calls.

Of two contestants, the challenger is claimed to be better in value, and cheaper, than the challenged. The shares of
alpha are such that those that can drop one contestant have alpha together (a union bound). With n contestants at most,
each of the n - 1 others has alpha / (n - 1); where any number may come, the k-th to enter has alpha * 6 / (pi^2 k^2).
Where every contestant is protected at once, the shares of all pairs add up to alpha: alpha / (n (n - 1)), or the
product of both contestants' 6 / (pi^2 k^2). A target counts as one contestant more, and as the first to enter.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archon.component import Value
from archon.search.betting import NOT_YET, Claims, Floats, Places

Bools = NDArray[np.bool_]


class Rules(Value):
    """What a race is about. Frozen: a race keeps its rules."""

    problems: Annotated[int, Field(ge=1)]
    """How many problems the split has; positions are 0 to one less."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The chance of error that the promise is made at."""
    contestants: Annotated[int, Field(ge=2)] | None = None
    """How many can enter at most; any number where not given."""
    protects: Literal["best", "each"] = "best"
    """Whom the promise is for: the best one, or all at once."""
    goal: Literal["value", "front", "target"] = "value"
    """The most value, value against cost, or the least cost at a target."""
    target: Annotated[float, Field(ge=0, le=1)] | None = None
    """The mean value that goal `target` asks for."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Differences in value up to this one do not matter."""
    first: Annotated[int, Field(ge=1)] = 8
    """How many problems everyone gets in the first batch."""
    growth: Annotated[float, Field(gt=1)] = 1.5
    """How many times as many problems the survivors have after each batch."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.goal == "target") != (self.target is not None):
            raise ValueError("`target` is given with the goal 'target', and only with it")
        if self.goal == "target" and self.tolerance:
            raise ValueError("`tolerance` has no meaning under the goal 'target'; lower the target instead")
        return self

    @property
    def costs(self) -> bool:
        """Whether costs are looked at."""
        return self.goal != "value"

    def needed(self, challenger: int | None, challenged: int | None) -> float:
        """The logarithm of the capital that proves a claim: of 1 over its share of alpha. Contestants are named by how
        many entered before; None is the target."""
        extra, each = int(self.goal == "target"), self.protects == "each"
        if self.contestants is not None:
            others = self.contestants - 1 + extra
            return math.log(others * (self.contestants if each else 1) / self.alpha)
        rank = 1 if challenger is None else challenger + 1 + extra
        own = 1 if challenged is None else challenged + 1
        return math.log(_WHOLE * rank**2 * (_WHOLE * own**2 if each else 1) / self.alpha)


class Loss(NamedTuple):
    """A proof that somebody has lost."""

    loser: int
    problems: int
    """After how many problems it was complete."""
    winner: int | None
    """None is the target."""


class Duels:
    """All claims of a race. Contestants are named by how many entered before."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.pairs: Places = np.empty((0, 2), dtype=np.int64)
        """(challenger, challenged): each two both ways, one after the other."""
        self._claims = Claims(rules.problems)
        self._rows: dict[str, Places] = {name: np.empty(0, dtype=np.int64) for name in _KINDS}
        """The claims of a kind: one for each of the pairs, or for each contestant."""
        self._range: Floats = np.empty((0, 2))

    def meet(self, new: int, others: list[int], least: float, most: float) -> None:
        """A new contestant, whom a problem costs between `least` and `most`; it is compared with the others."""
        rules = self.rules
        self._range = np.append(self._range, [(least, most)], axis=0)
        both = [pair for one in others for pair in ((one, new), (new, one))]
        pairs = np.array(both, dtype=np.int64).reshape(-1, 2)
        self.pairs = np.concatenate([self.pairs, pairs])
        needed = np.array([rules.needed(*pair) for pair in both])
        if rules.target is not None:
            self._add("short", 1 - rules.target, rules.needed(None, new))
            self._add("there", rules.target, rules.needed(new, None))
        else:
            self._add("better", np.full(len(pairs), 0.5), needed)
        if rules.tolerance:
            self._add("near", np.full(len(pairs), (1 - rules.tolerance) / 2), needed)
        if rules.costs:
            low, width = self._scale(pairs)
            known = -2.0 * np.sign(
                low
            )  # of two known costs: proved at once, or never; equal ones are "at least"
            self._add("cheaper", np.where(width > 0, -low / np.where(width > 0, width, 1.0), known), needed)

    def see(self, values: Floats, costs: Floats, known: Places, out: Bools) -> None:
        """Show the claims the first `known` values and costs of each contestant: rows are contestants, columns
        positions. Claims against those that are out are left as they are."""
        for kind, rows in self._rows.items():
            if not len(rows):
                continue
            alone = np.repeat(np.arange(len(known))[:, None], 2, axis=1)
            pairs = alone if kind in ("short", "there") else self.pairs
            have, seen = known[pairs].min(axis=1), self._claims.seen[rows]
            due = (have > seen) & (self._claims.above[rows] == NOT_YET)
            if kind != "there":
                due &= ~out[pairs[:, 1]]
            for start, stop in sorted(set(zip(seen[due].tolist(), have[due].tolist(), strict=True))):
                now = np.flatnonzero(due & (seen == start) & (have == stop))
                step = max(1, _AT_ONCE // len(now))
                for first in range(start, stop, step):
                    span = slice(first, min(first + step, stop))
                    shown = self._shown(kind, pairs[now], values[:, span], costs[:, span])
                    self._claims.see(rows[now], shown)

    def losses(self) -> list[Loss]:
        """All that is proved, the earliest first."""
        found = []
        if self.rules.goal == "target":
            short = self._above("short")
            found += [Loss(int(one), int(short[one]), None) for one in np.flatnonzero(short != NOT_YET)]
        if len(self.pairs):
            when = self._lost()
            for pair in np.flatnonzero(when != NOT_YET):
                found.append(Loss(int(self.pairs[pair, 1]), int(when[pair]), int(self.pairs[pair, 0])))
        return sorted(
            found, key=lambda one: (one.problems, one.loser, -1 if one.winner is None else one.winner)
        )

    def there(self) -> Bools:
        """Which contestants are surely at the target."""
        return np.asarray(self._reached("there") != NOT_YET)

    def covered(self) -> list[tuple[int, int]]:
        """The pairs whose challenged is surely no more than the tolerance better, and surely no cheaper."""
        if not self.rules.tolerance:
            return []
        near = self._reached("near") != NOT_YET
        if self.rules.costs:
            near &= self._reached("cheaper") != NOT_YET
        return [(int(one), int(other)) for one, other in self.pairs[near]]

    def settled(self) -> Bools:
        """Of each two (every second pair): whether it is known how they stand, though neither drops the other."""
        if self.rules.goal == "value":
            return np.zeros(len(self.pairs) // 2, dtype=np.bool_)
        cheaper = self._reached("cheaper") != NOT_YET
        if self.rules.goal == "front":
            better = self._above("better") != NOT_YET
            return np.asarray((better[::2] & cheaper[1::2]) | (better[1::2] & cheaper[::2]))
        return np.asarray(cheaper[::2] | cheaper[1::2])

    def _lost(self) -> Places:
        """After how many problems each pair's challenged has lost to its challenger."""
        if self.rules.goal == "value":
            return self._above("better")
        cheaper = self._above("cheaper")
        if self.rules.goal == "target":
            return _both(cheaper, self._reached("there")[self.pairs[:, 0]])
        better = self._above("better")
        first = _both(better, self._reached("cheaper"))
        second = _both(self._reached("better"), cheaper)
        return np.where((first == NOT_YET) | ((second != NOT_YET) & (second < first)), second, first)

    def _add(self, kind: str, null: Floats | float, needed: Floats | float) -> None:
        self._rows[kind] = np.append(self._rows[kind], self._claims.add(null, needed))

    def _above(self, kind: str) -> Places:
        return self._claims.above[self._rows[kind]]

    def _reached(self, kind: str) -> Places:
        return self._claims.reached[self._rows[kind]]

    def _scale(self, pairs: Places) -> tuple[Floats, Floats]:
        """The least by which the challenged can be dearer than the challenger on a problem, and how far from that to
        the most."""
        one, other = self._range[pairs[:, 0]], self._range[pairs[:, 1]]
        low = other[:, 0] - one[:, 1]
        return low, other[:, 1] - one[:, 0] - low

    def _shown(self, kind: str, pairs: Places, values: Floats, costs: Floats) -> Floats:
        """What claims of a kind are about, in [0, 1]."""
        one, other = pairs[:, 0], pairs[:, 1]
        if kind == "cheaper":
            low, width = self._scale(pairs)
            share = (costs[other] - costs[one] - low[:, None]) / np.where(width > 0, width, 1.0)[:, None]
            return np.asarray(np.clip(share, 0.0, 1.0))
        if kind == "short":
            return np.asarray(1 - values[one])
        if kind == "there":
            return np.asarray(values[one])
        return np.asarray((values[one] - values[other] + 1) / 2)


_KINDS = ("better", "near", "cheaper", "short", "there")
_WHOLE = math.pi**2 / 6
_AT_ONCE = 100_000
"""So many values, of all claims together, are looked at in one piece: some 30 MB."""


def _both(one: Places, other: Places) -> Places:
    """When both are proved."""
    return np.where((one == NOT_YET) | (other == NOT_YET), NOT_YET, np.maximum(one, other))
