"""The tuning itself: propose, measure, end early what is far behind, measure the best again, and confirm the winner.

One engine runs at a time, since it owns the machine, and each configuration has a start of its own. All are asked the
same rounds of requests, so that they are compared request for request. What ends a trial early is a rule of thumb, not
a test: timings have no bounds and drift with the machine, so no sequential test of ours is valid for them
(search/racing.py needs values in [0, 1] that do not depend on when they are taken). The selection is successive halving
with two rungs (Jamieson and Talwalkar 2016, arXiv 1502.07943): all trials, then the best few after a fresh start, with
rounds of their own. A trial that is within the limits comes before one that is not (the feasibility rule of Deb 2000).

The figures that are reported come from neither, because the best of many measurements is too high: winner and baseline
are started anew in pairs, in alternating order (A B, B A, ...), so that a drift which is even over a pair of pairs
counts for neither, and their ratio is taken pair by pair.

Every round is kept as soon as it is measured, in the study (archon.search.study): a process that was killed goes on.
Cost: at most 1 + trials + finalists + 2 x pairs starts, each with warm-up and `rounds.count` rounds of requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from archon.backends.base import Model
from archon.benchmarks.tuning.load import WARM_UP, Load
from archon.benchmarks.tuning.measuring import (
    Round,
    Running,
    clock,
    ends_with_us,
    first_token,
    latencies,
    percentile,
    prepared,
    throughput,
)
from archon.benchmarks.tuning.space import EngineSpace
from archon.errors import ArchonError, AuthenticationFailed, MissingExtra, ModelNotFound, StoreError
from archon.search.axes import Configuration
from archon.search.claims import Item
from archon.search.history import State, Trial
from archon.search.proposers.base import Proposer, Told
from archon.search.study import Study

BASELINE: Final = "baseline"
_HOPELESS: Final = 5
"""So many starts that all failed, and nothing else is tried."""
_TRIAL, _AGAIN = "trial", "again"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """An engine that is measured."""

    key: str
    model: Model
    in_flight: int
    configuration: Configuration | None = None
    """None of the baseline."""

    @property
    def words(self) -> str:
        """It in a line."""
        if self.configuration is None:
            return BASELINE
        return ", ".join(f"{name}={value}" for name, value in self.configuration.items())


@dataclass
class Leg:
    """One start of an engine: its rounds, and how it ended."""

    rounds: list[Round] = field(default_factory=list)
    failed: str = ""
    """Why it did not start, or its requests failed."""
    dropped: str = ""
    """Why it got no more rounds."""


@dataclass
class Pair:
    """Winner and baseline after fresh starts, one after the other."""

    winner: Leg
    baseline: Leg
    winner_first: bool


@dataclass
class Found:
    """What came of it all."""

    winner: Contender | None = None
    """None where no configuration is within the limits."""
    chosen: list[Contender] = field(default_factory=list)
    """The finalists, best first."""
    pairs: list[Pair] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Finalists that were over a limit when they were confirmed, in words."""
    ended: str = ""


class Tuner:
    """One process of a tuning. `run` does everything, and goes on where an earlier one was cut off."""

    def __init__(
        self, space: EngineSpace, load: Load, study: Study, proposer: Proposer, *, mark: str, say: Say
    ) -> None:
        """`mark` tells its servers from those of others on this machine."""
        self.space = space
        self.settings = space.settings
        self.load = load
        self.study = study
        self.proposer = proposer
        self.legs: dict[tuple[str, str], Leg] = {}
        """What was measured, by contender and leg."""
        self.starts: list[float] = []
        """Seconds of every start, in all processes."""
        self.contenders: dict[str, Contender] = {}
        self._mark = mark
        self._say = say
        self._began = 0.0
        self._took: list[float] = []
        """Seconds of the legs of this process."""

    async def run(self) -> Found:
        """Tune. Raises what no option mends: MissingExtra, or the baseline's ModelNotFound or AuthenticationFailed."""
        found, self._began = Found(), clock()
        await self._leg(self.baseline(self.space.default_load), _TRIAL, 0)
        self._say(f"{BASELINE}: {self._line(self._of(self.baseline(self.space.default_load), _TRIAL))}")
        for trial in self.study.history():
            self._restore(trial)
        found.ended = await self._try()
        found.chosen = await self._choose()
        for contender in found.chosen:
            found.winner, found.pairs = contender, await self._confirm(contender)
            broken = self._broken([pair.winner for pair in found.pairs])
            if not broken:
                break
            self._say(f"{contender.words}: {broken} when it was confirmed")
            found.refused.append(f"{contender.words}: {broken}")
            found.winner = None
        if found.winner is None:
            found.pairs = []
        return found

    # --- contenders ----------------------------------------------------------------------------------

    def baseline(self, in_flight: int) -> Contender:
        """The engine's own defaults, under a load."""
        key = f"{BASELINE}@{in_flight}"
        return self.contenders.setdefault(key, Contender(key, self.space.default, in_flight))

    def contender(self, configuration: Configuration) -> Contender:
        """A configuration's engine."""
        model, in_flight = self.space.model(configuration), self.space.load(configuration)
        return self.contenders.setdefault(
            configuration.key, Contender(configuration.key, model, in_flight, configuration)
        )

    def over(self, legs: Sequence[Leg], slack: float = 0.0) -> str:
        """The limit that these break by more than the slack, in words; empty where they keep to it."""
        limits = self.settings.limits
        if limits.latency is None:
            return ""
        seen = percentile(latencies(one for leg in legs for one in leg.rounds), limits.percentile)
        if not seen > limits.latency * (1 + slack):  # NaN where nothing was measured
            return ""
        return f"its p{limits.percentile:g} latency is {seen:.3g} s, and no more than {limits.latency:g} s is allowed"

    def _broken(self, legs: Sequence[Leg]) -> str:
        return next((leg.failed for leg in legs if leg.failed), "") or self.over(legs)

    def rate(self, legs: Sequence[Leg], rounds: int | None = None) -> float:
        """Throughput over these, or over their first rounds."""
        known = [one for leg in legs for one in leg.rounds]
        return throughput(known[:rounds], self.settings.objective)

    def leader(self) -> Contender | None:
        """The fastest that had all its rounds and is within the limits, the baseline among them."""
        best, most = None, 0.0
        for contender in self.contenders.values():
            leg = self.legs.get((contender.key, _TRIAL))
            if leg is None or leg.failed or leg.dropped or len(leg.rounds) < self.settings.rounds.count:
                continue
            rate = self.rate([leg])
            if rate > most and not self.over([leg]):
                best, most = contender, rate
        return best

    # --- trying ---------------------------------------------------------------------------------------

    async def _try(self) -> str:
        """Measure what is proposed; why it ends."""
        spending = self.settings.spending
        while True:
            done = len(self.study.history())
            if spending.trials is not None and done >= spending.trials:
                return f"{spending.trials} configurations were tried"
            if spending.minutes is not None and clock() - self._began > 60 * spending.minutes:
                return f"{spending.minutes:g} minutes were over"
            if (reason := self._hopeless()) is not None:
                return reason
            lost = self.study.lost()
            trial = self.study.take_up(lost[0]) if lost else self._proposed()
            if trial is not None:
                await self._tried(trial, done + 1)
            elif not lost:
                return "nothing is left to propose"

    def _proposed(self) -> Trial | None:
        while (configuration := self.proposer.ask()) is not None:
            trial = self.study.begin(configuration, type(self.proposer).__name__)
            if trial is not None:
                return trial
        return None

    def _hopeless(self) -> str | None:
        legs = [leg for (_, name), leg in self.legs.items() if name == _TRIAL]
        if len(legs) < _HOPELESS or not all(leg.failed for leg in legs):
            return None
        return f"none of the first {len(legs)} could be measured; the last: {legs[-1].failed}"

    async def _tried(self, trial: Trial, number: int) -> None:
        contender = self.contender(trial.configuration)
        leg = await self._leg(contender, _TRIAL, 0, race=True)
        over = "" if leg.failed else self.over([leg])
        rate = self.rate([leg])
        state: State = "failed" if leg.failed else "pruned" if leg.dropped or over else "complete"
        tokens = sum(one.tokens + one.prompt_tokens for one in leg.rounds)
        ended = self.study.finish(
            trial,
            None if leg.failed else [rate],
            state=state,
            problems=len(leg.rounds),
            fresh_tokens=tokens,
            reason=leg.failed or leg.dropped or over,
            details=self._details(leg, over),
        )
        if ended is not None:
            self._restore(ended)
        limit = self.settings.spending.trials
        of = "" if limit is None else f" of {limit}"
        self._say(f"trial {number}{of}: {contender.words}: {self._line(leg)}{self._left(number)}")

    def _details(self, leg: Leg, over: str) -> dict[str, Any]:
        """What is recorded with a trial. `score` is what the proposer is told: what is over the limit comes behind
        all that is not, the further the worse."""
        limits = self.settings.limits
        seen = latencies(leg.rounds)
        score: float | None = None if leg.failed else self.rate([leg])
        if over:
            assert limits.latency is not None
            score = -min(1e6, percentile(seen, limits.percentile) / limits.latency - 1)
        return {
            "score": score,
            "within": not over and not leg.failed,
            "latency": {f"p{limits.percentile:g}": percentile(seen, limits.percentile)} if seen else {},
            "first_token": first_token(leg.rounds),
        }

    def _restore(self, trial: Trial) -> None:
        """Take in a trial that ended, here or in an earlier process, and tell the proposer."""
        contender = self.contender(trial.configuration)
        leg = self._known(contender, _TRIAL)
        leg.failed = trial.reason if trial.state == "failed" else ""
        leg.dropped = trial.reason if trial.state == "pruned" else ""
        score = trial.details.get("score")
        finished = trial.state != "pruned" or not trial.details.get("within", True)
        self.proposer.tell(
            trial.configuration, Told(None if score is None else (float(score),), trial.problems, finished)
        )

    # --- choosing and confirming ----------------------------------------------------------------------

    async def _choose(self) -> list[Contender]:
        """The finalists that are within the limits, best first, after they were measured again."""
        ends = [
            self.contender(trial.configuration) for trial in self.study.history() if trial.state == "complete"
        ]
        ranked = sorted(ends, key=lambda one: -self.rate([self._of(one, _TRIAL)]))
        few = ranked[: self.settings.finalists]
        if len(few) < 2:
            return few
        for number, contender in enumerate(few):
            leg = await self._leg(contender, _AGAIN, self.settings.rounds.count)
            self._say(f"finalist {number + 1} of {len(few)}: {contender.words}: {self._line(leg)}")
        both = {one.key: [self._of(one, _TRIAL), self._of(one, _AGAIN)] for one in few}
        return sorted(
            (one for one in few if not self._broken(both[one.key])), key=lambda one: -self.rate(both[one.key])
        )

    async def _confirm(self, winner: Contender) -> list[Pair]:
        baseline = self.baseline(winner.in_flight)
        pairs: list[Pair] = []
        count = self.settings.rounds.count
        for number in range(self.settings.confirm):
            first = (2 + number) * count
            winner_first = number % 2 == 0
            legs: dict[str, Leg] = {}
            for contender in (winner, baseline) if winner_first else (baseline, winner):
                down = contender is baseline and pairs and pairs[0].baseline.failed
                leg = pairs[0].baseline if down else await self._leg(contender, f"confirm-{number}", first)
                legs[contender.key] = leg
                self._say(
                    f"confirming, pair {number + 1} of {self.settings.confirm}: {contender.words}: {self._line(leg)}"
                )
            pairs.append(Pair(legs[winner.key], legs[baseline.key], winner_first))
            if legs[winner.key].failed:
                break
        return pairs

    # --- measuring ------------------------------------------------------------------------------------

    async def _leg(self, contender: Contender, name: str, first: int, *, race: bool = False) -> Leg:
        """A start and its rounds, as far as they are not known. In a race it ends early where it is far behind."""
        leg = self._known(contender, name)
        count = self.settings.rounds.count
        if leg.failed or leg.dropped or len(leg.rounds) >= count:
            return leg
        began = clock()
        model = prepared(contender.model, contender.in_flight * self._samples, self._mark)
        start: dict[str, Any] = {}
        try:
            async with Running(model, self.load.models) as running:
                self._keep(contender, f"{name}/start", {"seconds": running.start_seconds})
                start = {"seconds": running.start_seconds}
                await self._make_ready(running)
                await self._warm_up(running, contender, name, leg, race=race)
                while len(leg.rounds) < count and not leg.failed and not leg.dropped:
                    await self._one_round(running, contender, name, first, leg, race=race)
        except (MissingExtra, StoreError):
            raise
        except ArchonError as error:
            if contender.configuration is None and isinstance(error, ModelNotFound | AuthenticationFailed):
                raise
            leg.failed = " ".join(str(error).split())
            if not start:
                self._keep(contender, f"{name}/start", {"seconds": clock() - began})
        if leg.failed:
            self.study.claims.finish(Item(contender.key, f"{name}/failed"), leg.failed)
        self._took.append(clock() - began)
        return leg

    async def _one_round(
        self, running: Running, contender: Contender, name: str, first: int, leg: Leg, *, race: bool
    ) -> None:
        number = first + len(leg.rounds)
        leader = self.leader() if race else None
        asked = self.load.round(number, self._tag(contender, name, number))
        measured = await running.round(asked, contender.in_flight, self._cap(leader))
        if measured.failures:
            leg.failed = f"{measured.failures} of {len(asked)} requests failed: {'; '.join(measured.failed)}"
            return
        self.study.claims.finish(Item(contender.key, f"{name}/{number - first}"), measured.as_json())
        leg.rounds.append(measured)
        leg.dropped = self._behind(leg, leader) if race else ""

    def _cap(self, leader: Contender | None) -> float | None:
        """Seconds after which a round is cut off."""
        if leader is None:
            return None
        return self.settings.rounds.cap * max(one.seconds for one in self._of(leader, _TRIAL).rounds)

    def _behind(self, leg: Leg, leader: Contender | None) -> str:
        """Why a trial gets no more rounds; empty where it does."""
        rules, rounds = self.settings.rounds, len(leg.rounds)
        if leg.rounds[-1].cut and leader is not None:
            return self._cut(leader)
        margin = min(1.0, rules.margin * (rules.count / rounds) ** 0.5)
        if rounds < rules.count and (over := self.over([leg], margin)):
            return over
        if leader is None or rounds >= rules.count:
            return ""
        mine, theirs = self.rate([leg]), self.rate([self._of(leader, _TRIAL)], rounds)
        if mine >= (1 - margin) * theirs:
            return ""
        return (
            f"{mine:,.4g} {self.settings.unit} after {rounds} of {rules.count} rounds, where {leader.words} had "
            f"{theirs:,.4g}"
        )

    def _cut(self, leader: Contender) -> str:
        return f"a round took more than {self.settings.rounds.cap:g} times those of {leader.words}, and was cut off"

    async def _make_ready(self, running: Running) -> None:
        """Count out prompts, by the first engine that runs; every later one is asked the same."""
        if self.load.ready:
            return
        known = self.study.claims.values("load").get("measured")
        if known is None:
            known = list(await self.load.measure(running.session))
            self.study.claims.finish(Item("load", "measured"), known)
        self.load.counted(known)

    async def _warm_up(
        self, running: Running, contender: Contender, name: str, leg: Leg, *, race: bool
    ) -> None:
        given = self.settings.workload.warm_up
        count = contender.in_flight if given is None else given
        if count:
            tag = self._tag(contender, name, WARM_UP)
            leader = self.leader() if race else None
            asked = self.load.round(WARM_UP, tag, count)
            measured = await running.round(asked, contender.in_flight, self._cap(leader))
            if measured.cut and leader is not None:
                leg.dropped = self._cut(leader)

    def _tag(self, contender: Contender, name: str, number: int) -> str:
        """What begins the requests of a measurement, where the engine remembers those of others."""
        if ends_with_us(contender.model):
            return ""
        again = len(self.study.claims.values(contender.key))  # a round that was cut off is asked anew
        said = f"{self._mark}|{contender.key}|{name}|{number}|{again}"
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    @property
    def _samples(self) -> int:
        load = self.settings.workload
        return load.samples if load.benchmark is None else 16

    # --- what is known --------------------------------------------------------------------------------

    def _of(self, contender: Contender, name: str) -> Leg:
        return self.legs.get((contender.key, name), Leg())

    def _known(self, contender: Contender, name: str) -> Leg:
        """A leg as far as it was measured, here or in an earlier process."""
        found = self.legs.get((contender.key, name))
        if found is None:
            values = self.study.claims.values(contender.key)
            rounds = [
                values[f"{name}/{i}"] for i in range(self.settings.rounds.count) if f"{name}/{i}" in values
            ]
            found = self.legs[contender.key, name] = Leg([Round.from_json(one) for one in rounds])
            found.failed = values.get(f"{name}/failed", "")
            self.starts += [one["seconds"] for key, one in values.items() if key.startswith(f"{name}/start")]
        return found

    def _keep(self, contender: Contender, name: str, value: Mapping[str, Any]) -> None:
        number = sum(key.startswith(name) for key in self.study.claims.values(contender.key))
        self.study.claims.finish(Item(contender.key, f"{name}-{number}"), dict(value))
        self.starts.append(float(value["seconds"]))

    # --- in words -------------------------------------------------------------------------------------

    def _line(self, leg: Leg) -> str:
        if leg.failed:
            return f"failed: {leg.failed[:300]}"
        if not leg.rounds:
            return leg.dropped
        limits = self.settings.limits
        seen = percentile(latencies(leg.rounds), limits.percentile)
        text = f"{self.rate([leg]):,.4g} {self.settings.unit}, p{limits.percentile:g} latency {seen:.3g} s"
        why = leg.dropped or self.over([leg])
        return f"{text}; {why}" if why else text

    def _left(self, trials: int) -> str:
        """How long it may take, by the legs so far."""
        limit = self.settings.spending.trials
        if limit is None or not self._took:
            return ""
        legs = limit - trials + self.settings.finalists + 2 * self.settings.confirm
        left = int(legs * sum(self._took) / len(self._took))
        return f" (about {left // 60}:{left % 60:02d} left)"
