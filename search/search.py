"""The search itself: propose, race, validate, and report on problems that nothing was chosen by.

Configurations are proposed (search/proposers), raced on the search split, problem by problem (search/racing.py), and
those that surely lose get no more. The best of those that are left are finished, and then validated and tested
(search/choosing.py). Nothing is evaluated twice: what came of a configuration on a problem is kept by the study,
whichever process had it, and what a pipeline samples by the store, whichever configuration had it.

Cost: the calls of the evaluations, and no others.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from archon.config import Config
from archon.errors import UserError
from archon.search.axes import Configuration
from archon.search.choosing import Choosing, Found, Parts
from archon.search.claims import Claims, Item, Most
from archon.search.constraints import whole
from archon.search.history import Trial
from archon.search.objectives import Evaluation, Objective
from archon.search.proposers.base import Proposer, Told
from archon.search.racing import Race, Rules
from archon.search.reuse import Paid, needed
from archon.search.settings import Settings
from archon.search.space import SearchSpace
from archon.search.study import Study
from archon.tasks import together

_PRIOR = 8
"""Problems that the mean over all survivors counts as, where some have had few."""
_COUNTED = 100_000
"""Up to so many combinations, the configurations are counted."""
_POLL_SECONDS = 0.5
"""How often to look whether another process is done with what it claimed."""
_KEEP_SECONDS = 0.2
"""What arrives within so long after some was kept waits for the next: that much a `kill -9` may cost."""


Arrived = Callable[[Evaluation], None]
"""Told what came of a problem."""


class Evaluator(Protocol):
    """Runs a pipeline on problems, and grades it."""

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Arrived
    ) -> Sequence[Evaluation | None]:
        """What came of each problem; None where the budget of the whole search ended first.

        `arrived` may be told of each as soon as it is there, in any order: what it was told of survives a `kill -9`.
        Raises UserErrors where the pipeline or its models cannot run.
        """
        ...


class Watcher(Protocol):
    """Told of a search's progress."""

    def tried(self, search: Search) -> None:
        """More is known than before."""
        ...


def most_contestants(space: SearchSpace) -> int | None:
    """How many configurations there can be, so that a race's promise is to the best of them all, whichever are proposed
    because of what came of others. None in a space without end, where there is no such promise."""
    counts = [len(axis.values) if axis.values is not None else None for axis in space.axes]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    most = math.prod(known)  # no fewer than there are, as some axes matter under some choices only
    return max(2, most if most > _COUNTED else sum(1 for _ in space.axes.every()))


def dearest(space: SearchSpace, cost: Objective, configuration: Configuration) -> float:
    """The most that a problem costs with a configuration. Raises UserError where nothing bounds it."""
    name = {"requests": "calls", "latency": "seconds"}.get(cost.name, cost.name)
    budget = space.config(configuration).budget.problem
    most = whole(space.bounds(configuration).values()).within(budget)
    found = [getattr(most, name, None), getattr(space.limits, name, None)]
    if name == "seconds":
        found.append(budget.seconds)
    known = [float(one) for one in found if one is not None]
    if known:
        return min(known)
    key = "requests" if name == "calls" else name
    because = f" ({most.why})" if most.why and name != "seconds" else ""
    raise UserError(
        f"`objectives` names {cost.name}, and nothing bounds what a problem costs with "
        f"{space.stack(configuration)}{because}. Give a limit that holds when it runs: "
        f"budget: {{problem: {{{key}: ...}}}}"
    )


class Search:
    """One process of a search. `run` does everything, and goes on where it, or another, was cut off."""

    def __init__(
        self,
        space: SearchSpace,
        settings: Settings,
        study: Study,
        proposer: Proposer,
        evaluator: Evaluator,
        parts: Parts,
        baselines: Mapping[str, Config],
        *,
        watcher: Watcher | None = None,
        paid: Paid | None = None,
    ) -> None:
        self.space = space
        self.settings = settings
        self.study = study
        self.proposer = proposer
        self.parts = parts
        self.race = Race(self._rules())
        self.known: dict[str, dict[str, Evaluation]] = {}
        """What came of a configuration's or a baseline's problems, by its key."""
        self.evaluations = 0
        """How many this process has made."""
        self._evaluator = evaluator
        self.baselines = dict(baselines)
        self._watcher = watcher
        self._paid = paid or Paid()
        self._open: dict[str, Trial] = {}
        self._closed: set[str] = set()
        self._told: dict[str, int] = {}
        self._places = {problem: place for place, problem in enumerate(parts.search)}
        self._over = ""
        """Why nothing more may be evaluated."""
        self._ended = ""
        """Why nothing more is tried."""

    @property
    def ended_trials(self) -> int:
        """How many configurations are done, in all processes."""
        return len(self._closed)

    @property
    def begun_trials(self) -> int:
        """These and those that this process has under way."""
        return len(self._closed) + len(self._open)

    async def run(self) -> Found:
        """Search until the effort is spent or nothing is left to try; then validate, and test. Processes that share the
        study come to the same end, and share the work; what one of them leaves behind the others do."""
        over = ""
        while True:
            self._over = over
            await self._try()
            over, ended, self._over = self._over, self._over or self._ended, ""
            await self._end_trials()
            while (left := self.study.unfinished()) and not self._take_up():
                await asyncio.sleep(_POLL_SECONDS)
            if not left:
                self._sync()
                given = (self.space, self.settings, self.study, self.parts, self.baselines, self.known)
                return await Choosing(*given, self._have, lambda: self._over).choose(ended)

    # --- trying ------------------------------------------------------------------------------------

    async def _try(self) -> None:
        """Propose and race, until nothing is left to do or nothing more may be done."""
        while not self._over:
            self._sync()
            more = self._take_up() or self._fill()
            batch = [(key, place) for key, place in self.race.wanted() if key in self._open]
            if not batch and not more:
                return
            await self._evaluate(batch)
            self._settle()

    def _rules(self) -> Rules:
        settings, race, value = self.settings, self.settings.race, self.settings.value
        goal = "value" if settings.cost is None else "front" if settings.target is None else "target"
        return Rules(
            problems=len(self.parts.search),
            alpha=race.alpha,
            contestants=most_contestants(self.space),
            goal=goal,
            target=None if settings.target is None else value.scaled(settings.target),
            tolerance=race.tolerance / (value.high - value.low) if goal != "target" else 0.0,
            first=race.first,
            growth=race.growth,
        )

    def _fill(self) -> bool:
        """Begin trials until enough are under way; whether any was begun."""
        begun = False
        limit = self.settings.spending.trials
        while self._under_way() < self.settings.race.width:
            if limit is not None and self.study.begun() >= limit:
                self._ended = f"{limit} configurations were tried"
                return begun
            configuration = self.proposer.ask()
            if configuration is None:
                self._ended = "nothing is left to propose" + self._why_nothing()
                return begun
            trial = self.study.begin(
                configuration,
                type(self.proposer).__name__,
                {"stack": self.space.stack(configuration)},
                limit,
            )
            if trial is not None:
                self._enter(trial)
                begun = True
        return begun

    def _why_nothing(self) -> str:
        """Of a space in which nothing was ever tried, what speaks against one of its configurations."""
        if self.study.begun():
            return ""
        why = self.space.refusal(self.space.axes.draw(np.random.default_rng(0)))
        return f": no configuration is allowed; of one, {why}" if why else ""

    def _take_up(self) -> bool:
        """Go on with trials whose process is gone; whether there was one."""
        taken = [self.study.take_up(trial) for trial in self.study.lost()]
        for trial in taken:
            if trial is not None and trial.key not in self._open:
                self._enter(trial)
        return any(trial is not None for trial in taken)

    def _under_way(self) -> int:
        """How many configurations of ours are to get more problems, or were begun just now."""
        wanted = {key for key, _ in self.race.wanted()}
        return sum(key in wanted or not self.race.seen(key) for key in self._open)

    def _enter(self, trial: Trial) -> None:
        """A trial of ours takes part; what is known of it already counts."""
        self._open[trial.key] = trial
        try:
            self._into_race(trial)
        except UserError as error:
            self._fail(trial.key, error)

    def _into_race(self, trial: Trial) -> None:
        known = trial.configuration
        self._paid.note(needed(self.space.graph(known), self.space.bounds(known)))
        limit = None if self.settings.cost is None else dearest(self.space, self.settings.cost, known)
        self.race.enter(trial.key, limit=limit)
        for problem, value in self.study.claims.values(trial.key).items():
            self._learn(trial.key, Evaluation.from_json(value), problem)

    def _sync(self) -> None:
        """Take in the trials that ended, in whichever process, and tell the proposer."""
        for trial in self.study.history():
            if trial.key in self._closed:
                continue
            self._closed.add(trial.key)
            if trial.key not in self.race and trial.state != "failed":
                self._into_race(trial)
            self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        values = None if trial.values is None else self.settings.signed(trial.values)
        self.proposer.tell(
            trial.configuration,
            Told(values, trial.problems, trial.state == "complete", float(trial.fresh_tokens)),
        )

    async def _evaluate(self, batch: Sequence[tuple[str, int]]) -> None:
        """Evaluate some configurations on some problems of the search split."""
        wanted: dict[str, list[str]] = {}
        for key, place in batch:
            wanted.setdefault(key, []).append(self.parts.search[place])
        limit = self.settings.spending.evaluations
        most = None if limit is None else Most(limit, problems=frozenset(self.parts.search))

        async def one(key: str, problems: list[str]) -> None:
            try:
                await self._have(key, self.space.config(self._open[key].configuration), problems, most)
            except UserError as error:
                self._fail(key, error)

        await together(one(key, problems) for key, problems in wanted.items())

    async def _have(
        self, key: str, config: Config, problems: Sequence[str], most: Most | None = None
    ) -> None:
        """Evaluate what nobody has, as far as `most` allows; wait for what another process has in hand."""
        claims, waited = self.study.claims, False
        while missing := [p for p in problems if p not in self.known.get(key, {})]:
            if waited:
                await asyncio.sleep(_POLL_SECONDS)
            ours = [item.problem for item in claims.claim((Item(key, p) for p in missing), most)]
            if ours:
                await self._make(key, config, ours)
            if len(ours) < len(missing):
                for problem, value in claims.values(key).items():
                    if problem in missing and problem not in self.known.get(key, {}):
                        self._learn(key, Evaluation.from_json(value), problem)
                if most is not None and claims.count(most) >= most.limit:
                    self._over = f"{most.limit} evaluations were made"
            if self._over:
                return
            waited = True

    async def _make(self, key: str, config: Config, problems: Sequence[str]) -> None:
        """Evaluate problems that are claimed, and keep what comes of them; the others are given up."""
        arriving = _Arriving(self.study.claims, key)
        try:
            for one in await self._evaluator.evaluate(config, problems, arriving):
                if one is not None:
                    arriving(one)
        finally:
            arriving.keep()
            lost = [Item(key, problem) for problem in problems if problem not in arriving.kept]
            if lost:
                self.study.claims.release(lost)
        if lost:
            self._over = "the budget is spent"
        self.evaluations += len(arriving.kept)
        for problem in problems:  # in their order, and not as they came: the race and the proposer go by it
            if problem in arriving.kept:
                self._learn(key, arriving.kept[problem], problem)
        if self._watcher is not None:
            self._watcher.tried(self)

    def _learn(self, key: str, evaluation: Evaluation, problem: str) -> None:
        self.known.setdefault(key, {})[problem] = evaluation
        if key not in self.race or problem not in self._places:
            return
        cost = None if self.settings.cost is None else self.settings.cost.value(evaluation)
        value = self.settings.value
        self.race.tell(key, self._places[problem], value.scaled(value.value(evaluation)), cost)

    def _fail(self, key: str, error: UserError) -> None:
        """A configuration that cannot run holds nobody up, and beats nobody."""
        trial = self._open.pop(key)
        if key in self.race:
            self.race.withdraw(key, "it cannot run")
        self._finish(trial, "failed", str(error))

    def _settle(self) -> None:
        """End the trials that have had every problem, or are out; tell how the others stand."""
        out = self.race.eliminated()
        for key, trial in list(self._open.items()):
            if not self.race.missing(key):
                self._finish(trial, "complete", "")
            elif key in out:
                against = "" if out[key].against is None else f" than {out[key].against}"
                self._finish(trial, "pruned", f"{out[key].why}{against}")
            elif (seen := self.race.seen(key)) > self._told.get(key, 0):
                self._told[key] = seen
                values = self._means(key)
                self.study.report(trial, seen, values[0])
                self.proposer.tell(
                    trial.configuration, Told(self.settings.signed(values), seen, finished=False)
                )
        self._sync()

    def _finish(self, trial: Trial, state: str, reason: str) -> None:
        have = self.known.get(trial.key, {})
        on_search = [have[p] for p in self.parts.search if p in have]
        self._open.pop(trial.key, None)
        self.study.finish(
            trial,
            self._means(trial.key) if on_search and state != "failed" else None,
            state=state,  # type: ignore[arg-type]
            problems=len(on_search),
            fresh_tokens=sum(one.fresh.tokens for one in on_search),
            reason=reason,
        )

    def _means(self, key: str) -> tuple[float, ...]:
        return self.settings.means(self.known.get(key, {}), self.parts.search)

    # --- the end -----------------------------------------------------------------------------------

    async def _end_trials(self) -> None:
        """Finish the best of ours, and end the others as they are."""
        for key in self._best(self._open) or [*self._open][: self.settings.finalists]:
            try:
                await self._have(key, self.space.config(self._open[key].configuration), self.parts.search)
            except UserError as error:
                self._fail(key, error)
        for key, trial in list(self._open.items()):
            over = bool(self.race.missing(key))
            self._finish(trial, "pruned" if over else "complete", "the search ended" if over else "")

    def _best(self, among: Iterable[str]) -> list[str]:
        """Of these, the survivors of most promise by their figures so far."""
        alive = [key for key in self.race.survivors() if key in set(among) and self.race.seen(key)]
        merits = {key: self.settings.signed(self._means(key))[0] for key in alive}
        middle = math.fsum(merits.values()) / max(1, len(merits))

        def promise(key: str) -> float:
            """Its merit, drawn towards the others' by what its few problems may have had of luck."""
            seen = self.race.seen(key)
            return (seen * merits[key] + _PRIOR * middle) / (seen + _PRIOR)

        alive.sort(key=lambda key: (-promise(key), self.race.cost(key), key))  # the same in every process
        return alive[: self.settings.finalists]


class _Arriving:
    """Keeps the evaluations of a configuration in the study as they come: each within a moment, several at once."""

    def __init__(self, claims: Claims, key: str) -> None:
        self.kept: dict[str, Evaluation] = {}
        """By problem; the last of them may not be kept yet."""
        self._claims = claims
        self._key = key
        self._new: list[Evaluation] = []
        self._last = -math.inf

    def __call__(self, evaluation: Evaluation) -> None:
        """Take one; twice does no harm."""
        if evaluation.problem in self.kept:
            return
        self.kept[evaluation.problem] = evaluation
        self._new.append(evaluation)
        if time.monotonic() - self._last >= _KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Keep all that was taken."""
        new, self._new = self._new, []
        self._claims.finish_all({Item(self._key, one.problem): one.as_json() for one in new})
        self._last = time.monotonic()
