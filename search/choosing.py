"""The end of a search: who is validated, who wins, and what is tested.

The best of those that had the whole search split are validated on problems of their own; the best there is the winner,
and its figure comes from a third set, which no choice has seen (D11). Where a front is wanted, what may be on it is
tested too, after the winner is chosen. Every process of a study comes to the same end.

Cost: the calls of the evaluations, and no others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from archon.config import Config, dump
from archon.errors import UserError
from archon.search.axes import Configuration
from archon.search.front import on_front
from archon.search.objectives import Evaluation
from archon.search.settings import Settings
from archon.search.space import SearchSpace
from archon.search.study import Study

Have = Callable[[str, Config, Sequence[str]], Awaitable[None]]
"""Has what is kept by a key evaluated on problems, as far as the budget goes. Raises UserError where it cannot run."""


@dataclass(frozen=True)
class Parts:
    """Problems by id: three sets, of which no two share one."""

    search: tuple[str, ...]
    """In the order of the race."""
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def as_json(self) -> dict[str, list[str]]:
        """A dictionary for JSON."""
        return {name: list(getattr(self, name)) for name in ("search", "validation", "test")}


@dataclass(frozen=True)
class Candidate:
    """A stack that is reported: a finalist or a baseline."""

    name: str
    config: Config
    configuration: Configuration | None = None
    """None of a baseline."""


@dataclass
class Found:
    """What a search found."""

    winner: Candidate | None
    """None where nothing could be evaluated."""
    finalists: list[Candidate] = field(default_factory=list)
    validation: dict[str, list[Evaluation]] = field(default_factory=dict)
    """Of the finalists and the rest of the front, by name, in the order of the split."""
    test: dict[str, list[Evaluation]] = field(default_factory=dict)
    """Of the winner and the baselines; where a front is wanted also of the other finalists, and of the rest of the
    front as far as nothing beats it in validation."""
    to_test: int = 0
    """How many of these, baselines aside, were to be tested; those count that the budget left out, so that their number
    does not depend on what came of the test."""
    front: list[Candidate] = field(default_factory=list)
    """Where a front is wanted, all that are on that of the search split, the cheapest first, tested or not."""
    ended: str = ""
    """Why it tried no more."""
    notes: list[str] = field(default_factory=list)
    """What could not be validated or tested, and why."""


class Choosing:
    """Chooses by what is known of the trials that ended, and has evaluated what is lacking."""

    def __init__(
        self,
        space: SearchSpace,
        settings: Settings,
        study: Study,
        parts: Parts,
        baselines: Mapping[str, Config],
        known: Mapping[str, Mapping[str, Evaluation]],
        have: Have,
        over: Callable[[], str],
    ) -> None:
        """`known` is what came of a configuration's or a baseline's problems, by its key; `have` adds to it, and `over`
        says why nothing more may be evaluated."""
        self.space = space
        self.settings = settings
        self.study = study
        self.parts = parts
        self.baselines = baselines
        self.known = known
        self._have = have
        self._over = over

    async def choose(self, ended: str) -> Found:
        """Validate the best of all, and test the winner and the baselines; then the front. `ended` says why nothing
        more was tried."""
        complete = {trial.key: trial for trial in self.study.history() if trial.state == "complete"}

        def candidate(key: str) -> Candidate:
            chosen = complete[key].configuration
            return Candidate(key, self.space.config(chosen), chosen)

        finalists = [candidate(key) for key in self._finalists([*complete])]
        notes = []
        for one in finalists:
            notes += await self._had(one.name, one, self.parts.validation)
        validated = [one for one in finalists if self._has(one.name, self.parts.validation)]
        found = Found(self._winner(validated or finalists), finalists, ended=ended)
        if self.settings.target is not None and found.winner is None and self.study.begun():
            found.ended += f", and none that was evaluated is at the target of {self.settings.target:g}"
        tested = [one for one in validated if found.winner is one or self.settings.cost is not None]
        found.to_test = len(tested)
        if found.winner is not None:  # else there is nothing to hold against them
            tested += [Candidate(name, config) for name, config in self.baselines.items()]
        for one in tested:
            key = one.name if one.configuration is not None else _key(one.config)
            notes += await self._had(key, one, self.parts.test)
            if self._has(key, self.parts.test):
                found.test[one.name] = [self.known[key][p] for p in self.parts.test]
        found.validation = {
            one.name: [self.known[one.name][p] for p in self.parts.validation] for one in validated
        }
        found.ended = ", then ".join(dict.fromkeys(why for why in (found.ended, self._over()) if why))
        if self.settings.cost is not None and self.settings.target is None:
            costs = {key: self._means(key, self.parts.search)[-1] for key in complete}
            keys = self._unbeaten(complete, self.parts.search)
            found.front = [candidate(key) for key in sorted(keys, key=lambda key: (costs[key], key))]
            notes += await self._test_front(found)
        found.notes = notes
        return found

    async def _test_front(self, found: Found) -> list[str]:
        """Validate those of the front that are no finalists, and test those that nothing beats there, the cheapest
        first, as far as the budget goes. The winner is chosen by then. What there is to say of it."""
        had = {one.name for one in found.finalists}
        rest, notes = [one for one in found.front if one.name not in had], []
        for problems, kept in ((self.parts.validation, found.validation), (self.parts.test, found.test)):
            for one in rest:
                if not self._over():
                    notes += await self._had(one.name, one, problems)
                if self._has(one.name, problems):
                    kept[one.name] = [self.known[one.name][problem] for problem in problems]
            if kept is found.validation:
                best = self._unbeaten(kept, self.parts.validation or self.parts.search)
                found.to_test += sum(one.name in best or one.name not in kept for one in rest)
                rest = [one for one in rest if one.name in best]
        if self._over() and any(one.name not in found.test for one in found.front):
            notes.append(f"not all of the front could be validated and tested: {self._over()}")
        return notes

    async def _had(self, key: str, one: Candidate, problems: Sequence[str]) -> list[str]:
        """Have one that is reported evaluated; what there is to say where it cannot run on these problems."""
        try:
            await self._have(key, one.config, problems)
        except UserError as error:
            what = (
                f"baseline {one.name!r}" if one.configuration is None else self.space.stack(one.configuration)
            )
            return [f"{what} could not be run, and is left out: {error}"]
        return []

    def _finalists(self, complete: Sequence[str]) -> list[str]:
        """Of those that had every problem of the search split, the best: with a target of those that are at it, if any
        is; of two objectives without a target, of their front. Who is second there by a problem is not surely worse on
        others: that is for validation to say."""
        target, means = self.settings.target, {key: self._means(key, self.parts.search) for key in complete}
        if target is not None:
            complete = [key for key in complete if means[key][0] >= target] or complete
        elif self.settings.cost is not None and complete:
            complete = self._unbeaten(complete, self.parts.search)

        def rank(key: str) -> tuple[float | str, ...]:
            return (-self._merit(key, self.parts.search), self._tokens(key), key)  # the same in every process

        return sorted(complete, key=rank)[: self.settings.finalists]

    def _unbeaten(self, keys: Iterable[str], problems: Sequence[str]) -> list[str]:
        """Of these, the front of value and cost on these problems."""
        means = {key: self._means(key, problems) for key in keys}
        there = on_front(*zip(*means.values(), strict=True)).tolist() if means else []
        return [key for key, on in zip(means, there, strict=True) if on]

    def _tokens(self, key: str) -> float:
        """What it used on the search split."""
        return math.fsum(self.known[key][problem].usage.tokens for problem in self.parts.search)

    def _merit(self, key: str, problems: Sequence[str]) -> float:
        """One figure to sort by; of two objectives without a target the value."""
        return self.settings.signed(self._means(key, problems))[0]

    def _means(self, key: str, problems: Iterable[str]) -> tuple[float, ...]:
        return self.settings.means(self.known.get(key, {}), problems)

    def _winner(self, finalists: Sequence[Candidate]) -> Candidate | None:
        """The best on the validation split (of equals, on the search split; then the cheaper; then by key)."""

        def rank(one: Candidate) -> tuple[float | str, ...]:
            merits = [self._merit(one.name, self.parts.search)]
            if self.parts.validation and self._has(one.name, self.parts.validation):
                merits.insert(0, self._merit(one.name, self.parts.validation))
            return (*(-merit for merit in merits), self._tokens(one.name), one.name)

        ready = [one for one in finalists if self._has(one.name, self.parts.search)]
        return min(ready, key=rank, default=None)

    def _has(self, key: str, problems: Iterable[str]) -> bool:
        have = self.known.get(key, {})
        return all(problem in have for problem in problems)


def _key(config: Config) -> str:
    """What a baseline's evaluations are kept by: what it is, and not what it is called."""
    return f"baseline {hashlib.sha256(dump(config).encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
