"""Races: configurations are compared problem by problem, and those that surely lose get no more problems.

Source: racing as Maron and Moore 1997 ("The Racing Algorithm") and Birattari et al. 2002 (F-Race) have it, with tests
that stay valid however often one looks: betting (search/betting.py) on paired differences (search/duels.py). Cost: no
calls; it says which evaluations are wanted, and others make them.

All contestants take the problems of the search split in one shuffled order (`shuffled`), so that two are compared on
the same problems. A problem's value is in [0, 1], and what is claimed is about the mean over *all* problems of the
split: contestants that have had them all are known exactly.

**The promise.** The true best (on all problems of the split) is dropped with a chance of at most `alpha` over the whole
race, however many looks and contestants there are, and in whatever order results come in; under the goal `front` this
is so for any one that is truly on the front, under `target` for the cheapest that is truly at the target. With
`protects="each"`, *no* contestant at all is dropped falsely, but with a chance of `alpha`. Where all are equal every
drop is false: then "best" lets each of them be dropped with a chance of `alpha`, and "each" any of them. How alpha is
shared out, and what late entrants get of it: search/duels.py.

The promise is to contestants that are not picked by what others did on these very problems. A search picks them so.
There, give the number of all that could be picked (the size of the space) as `contestants`: then it is to the best of
the space or, with "each", to any of it. Of a space without end there is no such promise.

**Goals.** `value`: the most value; who is surely worse than another is dropped. `front`: value and cost; who is surely
no better than another in either, and worse in one, is dropped. `target`: the cheapest whose value is at least `target`;
who is surely below it is dropped, and who is surely dearer than another that is surely at it. A claim of several parts
needs no correction: each of them must hold at its level. A cost is known (`cost=`), or lies between 0 and the
contestant's own `limit`; the tighter the limits, the sooner costs are told apart.

**Tolerance.** A contestant that is surely no more than `tolerance` better than one that is preferred to it (goal
`value`: that has the higher mean; goal `front`: that is surely no dearer) *waits*: it is not dropped, and gets no more
problems as long as that is so. But for a chance of `alpha`, a race for value ends within `tolerance` of the best.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from archon.search.betting import Bounds, Floats, Places, bounds
from archon.search.duels import Duels, Rules

__all__ = ["Bounds", "Elimination", "Race", "Rules", "shuffled"]


class Elimination(NamedTuple):
    """Why a contestant is out."""

    against: str | None
    """The one that surely beats it; None where it is below the target."""
    why: str
    """In words."""
    problems: int
    """After how many problems that was proved."""


@dataclass
class _Contestant:
    key: str
    cost: float | None
    limit: float | None
    out: Elimination | None = None
    met: int = 0
    """How many had entered when it was dropped: it is not compared with later ones."""
    withdrawn: bool = False
    """Whether it cannot go on: it drops nobody any more."""


def shuffled(problems: Iterable[str], seed: int) -> tuple[str, ...]:
    """The ids in the order of a race: by a hash of seed and id, so in the same order in every process."""
    return tuple(sorted(problems, key=lambda p: (hashlib.sha256(f"race|{seed}|{p}".encode()).digest(), p)))


class Race:
    """A race under way. Values may be told in any order; a contestant's count as far as they have no gap."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._all: list[_Contestant] = []
        self._place: dict[str, int] = {}
        self._duels = Duels(rules)
        self._values: Floats = np.empty((0, rules.problems))
        self._costs: Floats = np.empty((0, rules.problems))
        self._known: Places = np.empty(0, dtype=np.int64)
        self._stale = False

    # --- what happens ------------------------------------------------------------------------------

    def enter(self, key: str, *, cost: float | None = None, limit: float | None = None) -> None:
        """A new contestant. Where costs count: its mean cost per problem if that is known, or else the most that a
        problem can cost it. Raises ValueError where it is there already, or there are as many as can be."""
        rules, new = self.rules, len(self._all)
        if key in self._place:
            raise ValueError(f"{key!r} has entered already")
        if rules.contestants is not None and new >= rules.contestants:
            raise ValueError(
                f"{key!r} finds no room: `contestants` is {rules.contestants}, and all have entered"
            )
        if rules.costs and (cost is None) == (limit is None):
            raise ValueError(f"{key!r} needs a known `cost`, or else a `limit` on what a problem costs")
        for name, number in (("cost", cost), ("limit", limit)):
            if number is not None and not (math.isfinite(number) and number >= 0):
                raise ValueError(f"`{name}` of {key!r} is {number!r}; it should be a number of at least 0")
        self._advance()
        others = [place for place in range(new) if self._all[place].out is None]
        self._place[key] = new
        self._all.append(_Contestant(key, cost, limit))
        self._values = _grown(self._values, new, math.nan)
        self._costs = _grown(self._costs, new, math.nan if cost is None else cost)
        self._known = np.append(self._known, 0)
        self._duels.meet(new, others, cost or 0.0, (cost if limit is None else limit) or 0.0)
        self._stale = True

    def tell(self, key: str, position: int, value: float, cost: float | None = None) -> None:
        """A contestant's value on the problem at this position of the order, and what it cost there if costs count
        and this one's is not known; a cost above the contestant's limit counts as the limit. The same may be told
        again. Raises ValueError where a value is not in [0, 1], or another was told before."""
        place = self._at(key)
        limit, row = self._all[place].limit, self._values[place]
        if not 0 <= position < self.rules.problems:
            raise ValueError(f"position {position} is not one of {self.rules.problems} problems")
        if not 0 <= value <= 1:
            raise ValueError(f"{key!r} has the value {value!r} at {position}; it should lie in [0, 1]")
        if not (math.isnan(row[position]) or row[position] == value):
            raise ValueError(f"{key!r} has had another value than {value!r} at {position}")
        if self.rules.costs and limit is not None:
            if cost is None or not cost >= 0:
                raise ValueError(f"{key!r} has the cost {cost!r} at {position}; it should be at least 0")
            self._costs[place, position] = min(cost, limit)
        row[position] = value
        known = int(self._known[place])
        while known < len(row) and not math.isnan(row[known]):
            known += 1
        self._known[place] = known
        self._stale = True

    def withdraw(self, key: str, why: str) -> None:
        """A contestant cannot go on: it is out, has lost to nobody, and drops nobody from now on."""
        self._advance()
        place = self._at(key)
        one = self._all[place]
        one.withdrawn = True
        if one.out is None:
            one.out, one.met = Elimination(None, why, int(self._known[place])), len(self._all)

    # --- what it says ------------------------------------------------------------------------------

    def __contains__(self, key: object) -> bool:
        return key in self._place

    @property
    def keys(self) -> list[str]:
        """All that entered, in order."""
        return list(self._place)

    def eliminated(self) -> dict[str, Elimination]:
        """Who is out, and why; for good."""
        self._advance()
        return {one.key: one.out for one in self._all if one.out is not None}

    def survivors(self) -> list[str]:
        """Who is not out, in the order of entry; under the goal `front` that is the front as far as it is known."""
        return [self._all[place].key for place in self._alive()]

    def waiting(self) -> dict[str, str]:
        """The survivors that wait because another is as good within the tolerance, and which one."""
        return {self._all[one].key: self._all[other].key for one, other in self._waiting().items()}

    def leader(self) -> str | None:
        """Who is ahead: of the survivors that do not wait, and have the most problems, the one with the highest mean,
        then the cheaper, then the earlier. Under the goal `target` the cheapest that is surely at the target; else the
        cheapest that is so far; else as before. None where nobody survives."""
        waiting = self._waiting()
        alive = [place for place in self._alive() if place not in waiting]
        if not alive:
            return None
        most = max(self._known[place] for place in alive)
        long = [place for place in alive if self._known[place] == most]
        if self.rules.target is not None:
            there = [place for place in alive if self._duels.there()[place]]
            there = there or [place for place in long if self._mean(place) >= _number(self.rules.target)]
            if there:
                return self._all[min(there, key=lambda p: (self._cost(p), -self._mean(p), p))].key
        return self._all[min(long, key=lambda p: (-self._mean(p), self._cost(p), p))].key

    def wanted(self) -> list[tuple[str, int]]:
        """The next batch: who is to be evaluated at which position, problem by problem. Those with the fewest problems
        come first, so one that enters late catches up before the others go on. Empty where the race is done."""
        rungs = {place: self._rung(int(self._known[place])) for place in self._running()}
        lowest = min(rungs.values(), default=0)
        batch = [
            (position, place)
            for place, rung in rungs.items()
            if rung == lowest
            for position in np.flatnonzero(np.isnan(self._values[place, :rung])).tolist()
        ]
        return [(self._all[place].key, position) for position, place in sorted(batch)]

    def done(self) -> bool:
        """Whether nothing is left to find out about those that entered. A new one may open the race again."""
        return not self.wanted()

    def missing(self, key: str) -> list[int]:
        """The positions at which a contestant has no value: what to evaluate for its mean on the whole split."""
        return [int(position) for position in np.flatnonzero(np.isnan(self._values[self._at(key)]))]

    def seen(self, key: str) -> int:
        """How many problems a contestant is compared on: the first ones of the order, without a gap."""
        return int(self._known[self._at(key)])

    def mean(self, key: str) -> float:
        """Its mean value over those; NaN where there are none. A winner's is too high (search/optimism.py)."""
        return self._mean(self._at(key))

    def cost(self, key: str) -> float:
        """Its known cost, or its mean cost over those problems; infinite where there are none. 0 where costs do not
        count."""
        return self._cost(self._at(key))

    def bounds(self, key: str, *, alpha: float | None = None) -> Bounds:
        """An interval of its mean value over all problems, which holds at all looks at once, for this contestant by
        itself, with a chance of 1 - alpha (the race's where not given)."""
        place = self._at(key)
        level = self.rules.alpha if alpha is None else alpha
        return bounds(self._values[place, : self._known[place]], self.rules.problems, level)

    def cost_bounds(self, key: str, *, alpha: float | None = None) -> Bounds:
        """The same of its mean cost; a point where it is known. Raises ValueError where costs do not count."""
        place = self._at(key)
        one, level = self._all[place], self.rules.alpha if alpha is None else alpha
        if not self.rules.costs:
            raise ValueError("costs do not count in a race for value")
        if not one.limit:
            return Bounds(self._cost(place) if one.limit is None else 0.0, one.cost or 0.0)
        found = bounds(self._costs[place, : self._known[place]] / one.limit, self.rules.problems, level)
        return Bounds(found.low * one.limit, found.high * one.limit)

    # --- as data -----------------------------------------------------------------------------------

    def dumped(self) -> dict[str, Any]:
        """The race as plain data for JSON."""
        self._advance()
        return {
            "rules": self.rules.given(),
            "contestants": [
                {
                    "key": one.key,
                    "cost": one.cost,
                    "limit": one.limit,
                    "values": _listed(self._values[place]),
                    "costs": _listed(self._costs[place]) if one.limit is not None else [],
                    "out": None if one.out is None else [*one.out],
                    "met": one.met,
                    "withdrawn": one.withdrawn,
                }
                for place, one in enumerate(self._all)
            ],
        }

    @classmethod
    def loaded(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `dumped`: the race goes on from there as it would have."""
        race = cls(Rules(**data["rules"]))
        for place, one in enumerate(data["contestants"]):
            race._recall(data, place)
            race.enter(one["key"], cost=one["cost"], limit=one["limit"])
        race._recall(data, len(race._all))
        for one in data["contestants"]:
            costs = [*one["costs"], *[None] * len(one["values"])]
            for position, value in enumerate(one["values"]):
                if value is not None:
                    race.tell(one["key"], position, value, costs[position])
        return race

    def _recall(self, data: Mapping[str, Any], entered: int) -> None:
        """Who was out when so many had entered."""
        for one, then in zip(self._all, data["contestants"], strict=False):
            if then["out"] is not None and then["met"] <= entered:
                one.out, one.met = Elimination(*then["out"]), then["met"]
                one.withdrawn = then.get("withdrawn", False)

    # --- within ------------------------------------------------------------------------------------

    def _at(self, key: str) -> int:
        if key not in self._place:
            raise ValueError(f"{key!r} has not entered the race")
        return self._place[key]

    def _advance(self) -> None:
        """Look at what was told since the last time, and drop who has surely lost."""
        if not self._stale:
            return
        self._stale = False
        out = np.array([one.out is not None for one in self._all], dtype=np.bool_)
        self._duels.see(self._values, self._costs, self._known, out)
        for loser, problems, winner in self._duels.losses():
            one = self._all[loser]
            last = self.rules.goal != "target" and sum(other.out is None for other in self._all) == 1
            void = winner is not None and self._all[winner].withdrawn
            if one.out is None and not last and not void:
                against = None if winner is None else self._all[winner].key
                one.out, one.met = Elimination(against, self._why(against), problems), len(self._all)

    def _why(self, against: str | None) -> str:
        if against is None:
            return f"surely below the target of {self.rules.target:g}"
        return {
            "value": "surely worse",
            "front": "surely no better in value or in cost, and worse in one",
            "target": "surely dearer than one that is surely at the target",
        }[self.rules.goal]

    def _alive(self) -> list[int]:
        self._advance()
        return [place for place, one in enumerate(self._all) if one.out is None]

    def _waiting(self) -> dict[int, int]:
        """Who waits, and for whom: the first in order of preference that covers it and runs itself."""
        alive = self._alive()
        over: dict[int, set[int]] = {}
        for one, other in self._duels.covered():
            over.setdefault(other, set()).add(one)
        running: list[int] = []
        waiting: dict[int, int] = {}
        for place in sorted(alive, key=self._preference) if over else ():
            by = next((one for one in running if one in over.get(place, ())), None)
            if by is None:
                running.append(place)
            else:
                waiting[place] = by
        return waiting

    def _running(self) -> list[int]:
        """Who is to have more problems: something is open about it, and it is the one with the fewer problems."""
        alive, waiting = self._alive(), self._waiting()
        runs = np.zeros(len(self._all), dtype=np.bool_)
        runs[[place for place in alive if place not in waiting]] = True
        wants = np.zeros(len(runs), dtype=np.bool_)
        if self.rules.goal == "target":
            wants |= runs & ~self._duels.there()
        one, other = self._duels.pairs[::2].T
        open_ = runs[one] & runs[other] & ~self._duels.settled()
        wants[one[open_ & (self._known[one] <= self._known[other])]] = True
        wants[other[open_ & (self._known[other] <= self._known[one])]] = True
        wants &= self._known < self.rules.problems
        return [int(place) for place in np.flatnonzero(wants)]

    def _rung(self, known: int) -> int:
        """How many problems one that has so many is to have next."""
        rung = self.rules.first
        while rung <= known:
            rung = max(rung + 1, math.floor(rung * self.rules.growth))
        return min(rung, self.rules.problems)

    def _mean(self, place: int) -> float:
        known = self._values[place, : self._known[place]]
        return float(known.mean()) if len(known) else math.nan

    def _cost(self, place: int) -> float:
        one = self._all[place]
        if not self.rules.costs or one.cost is not None:
            return one.cost or 0.0
        known = self._costs[place, : self._known[place]]
        return float(known.mean()) if len(known) else math.inf

    def _preference(self, place: int) -> tuple[float, ...]:
        mean = self._mean(place)
        known = int(self._known[place])
        return (self._cost(place) if self.rules.costs else 0.0, -known, -mean if known else math.inf, place)


def _number(value: float | None) -> float:
    assert value is not None
    return value


def _grown(table: Floats, used: int, fill: float) -> Floats:
    """With room for one more row, which holds `fill`."""
    if used == len(table):
        table = np.concatenate([table, np.full((max(8, used), table.shape[1]), math.nan)])
    table[used] = fill
    return table


def _listed(row: Floats) -> list[float | None]:
    known = np.flatnonzero(~np.isnan(row))
    last = int(known[-1]) + 1 if len(known) else 0
    return [None if math.isnan(value) else value for value in row[:last].tolist()]
