"""Having replies scored by a reward model, or given text read by a language model: what is known comes first, the
rest is paid for (D5, D6).

1. A reply is scored by itself, so each is remembered by itself, under the backend's identity, the chat and the
   steps. A backend that scores prefixes is given every step's prefix, and replies that begin alike share them.
2. What is remembered is admitted by the budget as if it were paid for now, and entered with its recorded
   cost (failed attempts included). Within one problem nothing is entered twice.
3. The rest goes out in batches, as many replies per request as the backend takes. What another task of this
   session is having scored at this moment is awaited, not paid for again.
4. What fails has no score in its problem. Only a search, which says in which of its rounds it asks, asks again in a
   later one for what failed for a passing reason (a server's trouble, a score that is no number): each by itself,
   and three times at most, the first included. Until when a stage did without a score that came then is remembered
   with the run, so that a replay, which has the score from the start, does without it as long.

The log-probabilities of given text take the same road: they are one per step, as a process reward model's scores.
Scores are missing (None) where a budget or the deadline ran out, and where the call failed; the outcome says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from archon.backends.base import LikelihoodRequest, Scored, ScoreRequest, Scores, canonical
from archon.calling import FAILURES_UNTIL_DOWN, Billed, Caller
from archon.candidate import Failure
from archon.errors import (
    ArchonError,
    BackendError,
    BadReply,
    BadScore,
    BudgetExhausted,
    FatalError,
    NotRecorded,
    RequestRejected,
    RetryableError,
)
from archon.tasks import settle, together
from archon.usage import NOTHING, Usage, total

if TYPE_CHECKING:
    from archon.run import Run

Steps = tuple[str, ...]
_KIND = "score"
_LATE = "late scores"
_ASKS = 3
"""So often a score is asked for within a problem, at most, where it fails for a passing reason."""


class _Unit(NamedTuple):
    """One reply, or the beginning of one, as the backend is given it."""

    place: int
    """Which of the replies it belongs to."""
    steps: Steps
    finished: bool


@dataclass(slots=True)
class _Missing:
    """A score that failed for a passing reason, whether or not it came later."""

    asks: int = 0
    """How often it was asked for and failed."""
    rounds: dict[str, int] = field(default_factory=dict)
    """Up to which of its rounds each stage did without it."""

    def without(self, stage: str, round: int) -> bool:
        """A stage does without it in this round; whether that is new."""
        new = self.rounds.get(stage, -1) < round
        if new:
            self.rounds[stage] = round
        return new


@dataclass(slots=True)
class _Told:
    """What one problem, or a part of it that a stage solves, has been told already."""

    known: dict[str, Scored | None] = field(default_factory=dict)
    """None where the call failed."""
    missing: dict[str, _Missing] = field(default_factory=dict)
    late: dict[str, dict[str, int]] | None = None
    """Of what came late when this run was run before: up to which of its rounds each stage did without it. None where
    that is not read yet."""


class Scoring:
    """One call of `Run.score` or `Run.likelihoods`; `round` as for the former."""

    def __init__(self, run: Run, caller: Caller, asked: ScoreRequest, round: int = 0) -> None:
        self.run = run
        self._caller = caller
        self._asked = asked
        self._round = round
        self._begun: dict[tuple[str, Steps], hashlib._Hash] = run.kept("begun keys", dict)
        units = self._units()
        heads = {
            finished: self._head(finished) for finished in {unit.finished for some in units for unit in some}
        }
        keyed = [[(self._key(heads[unit.finished], unit.steps), unit) for unit in some] for some in units]
        self._keys = [[key for key, _ in units] for units in keyed]
        self._wanted = {key: unit for units in keyed for key, unit in units}
        self._told: _Told = run.kept("scores", _Told)
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def result(self) -> list[tuple[Scored, ...] | None]:
        """What was said of each reply, whole or beginning by beginning, as the backend takes it; or None."""
        run = self.run
        if not (run.scope.expired or run.expired):
            self._task = run.spawn(self._get())
            run.scope.draws.add(self)
            try:
                await asyncio.wait({self._task})
            finally:
                run.scope.draws.discard(self)
                await settle([self._task])
            if not self._task.cancelled():
                self._task.result()
            elif not self._stopped:
                raise asyncio.CancelledError
        found = [[self._answer(key) for key in keys] for keys in self._keys]
        told = [tuple(part for part in parts if part is not None) for parts in found]
        return [some if len(some) == len(parts) else None for some, parts in zip(told, found, strict=True)]

    def stop(self) -> None:
        """End at once (the deadline has passed): calls in flight are cancelled and billed."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        """Cancel what is outstanding and bill it."""
        if self._task is not None:
            await settle([self._task])

    def _answer(self, key: str) -> Scored | None:
        """What is known of it; None all through a round that began to do without it."""
        scored, missing = self._told.known.get(key), self._told.missing.get(key)
        if missing is None:
            return scored
        if scored is None:
            missing.without(self.run.stage, self._round)
        return scored if self._round > missing.rounds.get(self.run.stage, -1) else None

    def _open(self, key: str) -> bool:
        """Whether it is to be asked for: it is not known, and has not failed in this round, nor for good."""
        known, missing = self._told.known, self._told.missing.get(key)
        if missing is None:
            return key not in known
        last = missing.rounds.get(self.run.stage, self._round if key in known else -1)
        return known.get(key) is None and missing.asks < _ASKS and self._round > last

    # --- what is asked -----------------------------------------------------------------------------

    def _units(self) -> list[list[_Unit]]:
        """Each reply as the backend takes it: whole, or every prefix by itself."""
        scores, replies, finished = self._scores, self._asked.replies, self._asked.finished
        if scores == "steps":
            return [[_Unit(place, steps, finished)] for place, steps in enumerate(replies)]
        if scores == "outcome":
            return [[_Unit(place, ("".join(steps),), True)] for place, steps in enumerate(replies)]
        return [
            [_Unit(place, steps[:n], finished and n == len(steps)) for n in range(1, len(steps) + 1)]
            for place, steps in enumerate(replies)
        ]

    @property
    def _scores(self) -> Scores | None:
        """What of a reply is told."""
        reading = isinstance(self._asked, LikelihoodRequest)
        return "steps" if reading else self._caller.backend.capabilities.scores

    def _request(self, units: Sequence[_Unit]) -> ScoreRequest:
        steps = tuple(unit.steps for unit in units)
        return replace(self._asked, replies=steps, finished=units[0].finished)

    def _head(self, finished: bool) -> str:
        """What the keys of all replies begin with: everything that affects what is said of one but its steps, whose
        name sorts last."""
        backend = self._caller.backend
        content = replace(self._asked, replies=((),), finished=finished).content(0)
        parts = (backend.identity, self._scores, backend.capabilities.score_scale, content)
        return canonical(parts).removesuffix("]}]")

    def _key(self, head: str, steps: Steps) -> str:
        """The hash of the head and the steps, as JSON. It goes on from that of the steps before the last, where those
        were asked about too."""
        *before, last = steps
        begun = self._begun.get((head, steps[:-1]))
        if begun is None:
            begun = hashlib.sha256(_encoded(head + canonical(before)[1:-1]))
        begun = begun.copy()
        begun.update(_encoded(f", {canonical(last)}" if before else canonical(last)))
        self._begun[head, steps] = begun
        whole = begun.copy()
        whole.update(b"]}]")
        return whole.hexdigest()

    async def _get(self) -> None:
        """Have everything scored that this problem does not know, each by one of this session's tasks."""
        busy = self.run.session.scoring
        for key, unit in self._wanted.items() if self._told.late else ():
            self._comes_later(key, unit)
        left = {key: unit for key, unit in self._wanted.items() if self._open(key)}
        while left:
            ours = {key: left.pop(key) for key in tuple(left) if key not in busy}
            if ours:
                done = asyncio.get_running_loop().create_future()
                busy.update(dict.fromkeys(ours, done))
                try:
                    await self._take(ours)
                finally:
                    for key in ours:
                        del busy[key]
                    done.set_result(None)
            if others := {busy[key] for key in left if key in busy}:
                await asyncio.wait(others)
            left = {key: unit for key, unit in left.items() if self._open(key)}

    async def _take(self, units: dict[str, _Unit]) -> None:
        """From the store, or from the backend."""
        session, scope = self.run.session, self.run.scope
        stored = await session.store.recall(_KIND, list(units))
        if stored:
            await self._late()
        for key, value in stored.items():
            if not self._comes_later(key, units[key]):
                await self._enter_stored(key, units[key], json.loads(value))
        await self._note_late(stored)
        missing = {key: unit for key, unit in units.items() if key not in stored}
        if not missing:
            return
        if session.offline:
            error = NotRecorded("the store has no scores of this reply, and the session is offline")
            self._fail(missing, error)
            return
        if scope.replay is not None:  # what the record does not have comes after all that it has
            if scope.replay.ended:
                return
            await scope.replay.end(self.run.stage)
        await together(self._score(batch) for batch in self._batches(missing))

    def _batches(self, units: dict[str, _Unit]) -> list[dict[str, _Unit]]:
        most = self._caller.backend.capabilities.max_replies
        again = self._told.missing.keys() & units
        batches = [{key: units[key]} for key in units if key in again]  # none of them fails others once more
        for finished in (False, True):
            alike = [(k, unit) for k, unit in units.items() if unit.finished is finished and k not in again]
            batches += [dict(alike[start : start + most]) for start in range(0, len(alike), most)]
        return batches

    # --- what is known and what is paid for --------------------------------------------------------

    async def _enter_stored(self, key: str, unit: _Unit, stored: dict[str, Any]) -> None:
        """Take stored scores with their cost, if the budgets have room as they had to have."""
        usage = self._caller.valued(Usage.from_json(stored["usage"]))
        most = usage
        if self.run.scope.replay is None:
            most = self._caller.worst_case(self._request([unit]), 1)
            most = most._replace(requests=usage.requests)
        try:
            hold = await self.run.meter.reserve(most, fresh=False)
        except BudgetExhausted as error:
            self.run.scope.note_exhausted(error)
            return
        hold.charge(usage)
        hold.close()
        self._enter([usage], fresh=False)
        self._told.known[key] = Scored(tuple(stored["steps"]), counts=tuple(stored.get("counts", ())))

    async def _score(self, units: dict[str, _Unit]) -> None:
        """Have one batch scored, remember the scores and what they cost."""
        past = NOTHING

        def bill(attempt: Billed) -> None:
            nonlocal past
            past += attempt.usage
            self._bill(attempt, len(units))

        try:
            found = await self._caller.score(self._request(list(units.values())), self.run.meter, bill)
        except BudgetExhausted as error:
            self.run.scope.note_exhausted(error)
            return
        except FatalError:
            raise
        except RequestRejected as error:  # one of them is refused, and the others need not be
            if len(units) == 1:
                self._fail(units, error)
                return
            await together(self._score({key: unit}) for key, unit in units.items())
            return
        except BackendError as error:
            self._fail(units, error, passing=isinstance(error, RetryableError))
            return
        items = {}
        for (key, unit), (scored, usage) in zip(units.items(), found, strict=True):
            if not all(map(math.isfinite, scored.steps)):
                self._fail({key: unit}, self._no_number(scored), passing=True)
                continue
            self._caller.odd_in_a_row = 0
            self._told.known[key] = scored
            value: dict[str, Any] = {"steps": scored.steps}
            if scored.counts:
                value["counts"] = scored.counts
            value["usage"] = (usage if past is NOTHING else usage + past).exact()
            items[key] = to_json(value)
            past = NOTHING
        self._enter([usage for _, usage in found], fresh=True)
        await self.run.session.store.remember(_KIND, items)
        await self._note_late(items)
        if self._caller.odd_in_a_row >= FAILURES_UNTIL_DOWN:
            raise BadReply(
                f"none of its last {self._caller.odd_in_a_row} scores is a finite number",
                model=self._caller.name,
            )

    def _no_number(self, scored: Scored) -> BadScore:
        """A reply was scored, and paid for, and what came is not a number; it is not remembered."""
        self._caller.odd_in_a_row += not isinstance(self._asked, LikelihoodRequest)
        odd = next(step for step in scored.steps if not math.isfinite(step))
        what = "log-probability" if isinstance(self._asked, LikelihoodRequest) else "score"
        return BadScore(
            f"its {what} is {odd}, which is no finite number. Where half precision overflows, serve the model with "
            "`dtype: bfloat16` or `float32`",
            model=self._caller.name,
        )

    def _fail(self, units: dict[str, _Unit], error: ArchonError, *, passing: bool = False) -> None:
        """These have no scores; the outcome says so."""
        told = self._told
        told.known.update(dict.fromkeys(units))
        for key in units:
            if passing:
                missing = told.missing.setdefault(key, _Missing())
                missing.asks += 1
                missing.without(self.run.stage, self._round)
            else:
                told.missing.pop(key, None)
        failures = [Failure(self.run.stage, unit.place, error) for unit in units.values()]
        self.run.scope.failures.extend(failures)

    def _comes_later(self, key: str, unit: _Unit) -> bool:
        """Whether its score came to this stage in a later round when this run was run before: then it does now."""
        run = self.run
        last = (self._told.late or {}).get(key, {}).get(run.stage, -1)
        if self._round > last:
            return False
        if self._told.missing.setdefault(key, _Missing()).without(run.stage, self._round):
            error = NotRecorded(f"its score came after round {last} when this run was run before")
            run.scope.failures.append(Failure(run.stage, unit.place, error))
        return True

    async def _late(self) -> dict[str, dict[str, int]]:
        """What came late when this run was run before."""
        told = self._told
        if told.late is None:
            found = await self.run.session.store.recall(_LATE, [self._solving])
            if told.late is None:  # nobody else has read it in the meantime
                told.late = json.loads(found.get(self._solving, b"{}"))
        return told.late

    async def _note_late(self, keys: Collection[str]) -> None:
        """Remember of those that came now, and had failed before, who had to do without them until when."""
        told = self._told
        if not (late := told.missing.keys() & keys):
            return
        before = await self._late()
        told.late = dict(before)
        for key in late:
            if told.known.get(key) is not None:
                then, now = before.get(key, {}), told.missing[key].rounds
                told.late[key] = {s: max(then.get(s, -1), now.get(s, -1)) for s in then | now}
        if told.late != before:
            value = to_json(told.late)
            await self.run.session.store.remember(_LATE, {self._solving: value}, replace=True)

    @property
    def _solving(self) -> str:
        """What this problem, or the part of it that a stage solves, goes by in every run of the same."""
        return f"{self.run.scope.key}/{self.run.flow.prefix}"

    def _bill(self, attempt: Billed, replies: int) -> None:
        """An attempt gave no scores; its cost is entered all the same."""
        self.run.scope.ledger.enter(self.run.row, self._caller.name, attempt.usage, fresh=True)
        self.run.trace(
            "attempt",
            kind_of=attempt.kind,
            model=self._caller.name,
            replies=replies,
            usage=attempt.usage.as_json(),
            error=attempt.error,
        )

    def _enter(self, usages: Sequence[Usage], *, fresh: bool) -> None:
        self.run.scope.ledger.enter(self.run.row, self._caller.name, total(usages), fresh=fresh)
        if self.run.session.trace is not None:
            for usage in usages:
                self.run.trace("scored", model=self._caller.name, fresh=fresh, usage=usage.as_json())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
