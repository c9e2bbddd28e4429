"""Having replies scored by a reward model, or given text read by a language model: what is known comes first, the
rest is paid for (D5, D6).

1. A reply is scored by itself, so each is remembered by itself, under the backend's identity, the chat and the
   steps. A backend that scores prefixes is given every step's prefix, and replies that begin alike share them.
2. What is remembered is admitted by the budget as if it were paid for now, and entered with its recorded
   cost (failed attempts included). Within one problem nothing is entered twice.
3. The rest goes out in batches, as many replies per request as the backend takes. What another task of this
   session is having scored at this moment is awaited, not paid for again.

The log-probabilities of given text take the same road: they are one per step, as a process reward model's scores.
Scores are missing (None) where a budget or the deadline ran out, and where the call failed; the outcome says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
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
)
from archon.tasks import settle, together
from archon.usage import NOTHING, Usage, total

if TYPE_CHECKING:
    from archon.run import Run

Steps = tuple[str, ...]
_KIND = "score"


class _Unit(NamedTuple):
    """One reply, or the beginning of one, as the backend is given it."""

    place: int
    """Which of the replies it belongs to."""
    steps: Steps
    finished: bool


class Scoring:
    """One call of `Run.score` or `Run.likelihoods`."""

    def __init__(self, run: Run, caller: Caller, asked: ScoreRequest) -> None:
        self.run = run
        self._caller = caller
        self._asked = asked
        self._begun: dict[tuple[str, Steps], hashlib._Hash] = run.kept("begun keys", dict)
        units = self._units()
        heads = {
            finished: self._head(finished) for finished in {unit.finished for some in units for unit in some}
        }
        keyed = [[(self._key(heads[unit.finished], unit.steps), unit) for unit in some] for some in units]
        self._keys = [[key for key, _ in units] for units in keyed]
        self._wanted = {key: unit for units in keyed for key, unit in units}
        self._known: dict[str, Scored | None] = run.kept("scores", dict)
        """What this problem has been told already; None where the call failed."""
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
        found = [[self._known.get(key) for key in keys] for keys in self._keys]
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
        left = {key: unit for key, unit in self._wanted.items() if key not in self._known}
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
            left = {key: unit for key, unit in left.items() if key not in self._known}

    async def _take(self, units: dict[str, _Unit]) -> None:
        """From the store, or from the backend."""
        session, scope = self.run.session, self.run.scope
        stored = await session.store.recall(_KIND, list(units))
        for key, value in stored.items():
            await self._enter_stored(key, units[key], json.loads(value))
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
        batches = []
        for finished in (False, True):
            alike = [(key, unit) for key, unit in units.items() if unit.finished is finished]
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
        self._known[key] = Scored(tuple(stored["steps"]), counts=tuple(stored.get("counts", ())))

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
            self._fail(units, error)
            return
        items = {}
        for (key, unit), (scored, usage) in zip(units.items(), found, strict=True):
            if not all(map(math.isfinite, scored.steps)):
                self._fail({key: unit}, self._no_number(scored))
                continue
            self._caller.odd_in_a_row = 0
            self._known[key] = scored
            value: dict[str, Any] = {"steps": scored.steps}
            if scored.counts:
                value["counts"] = scored.counts
            value["usage"] = (usage if past is NOTHING else usage + past).exact()
            items[key] = to_json(value)
            past = NOTHING
        self._enter([usage for _, usage in found], fresh=True)
        await self.run.session.store.remember(_KIND, items)
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

    def _fail(self, units: dict[str, _Unit], error: ArchonError) -> None:
        """These have no scores; the outcome says so."""
        self._known.update(dict.fromkeys(units))
        failures = [Failure(self.run.stage, unit.place, error) for unit in units.values()]
        self.run.scope.failures.extend(failures)

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
