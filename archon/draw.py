"""A draw: n samples of one request, the stored ones first, the missing ones paid for (D5, D6).

1. Samples the store has are delivered in the order they once arrived, each admitted by the budget as if
   it were paid for now, and entered with its recorded cost (failed attempts on its index included).
   Where a later stage may stop early they are offered one by one, so that only those used are counted.
   A run that is run again delivers what it delivered, in the same order (archon.journal).
2. Before anything new is paid for, the draw waits until those downstream want more.
3. The missing indices are claimed, so that no other process samples them too, and sampled concurrently;
   each sample is handed to the store before it is delivered. Indices that another draw has claimed are
   awaited and read.

A draw ends when all are delivered, when a budget or the deadline runs out, or when it is closed; then
calls in flight are cancelled and billed as far as they came.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from archon.backends.base import Completion, Request
from archon.calling import Billed, Caller
from archon.candidate import Candidate, Failure
from archon.errors import ArchonError, BackendError, BudgetExhausted, FatalError, NotRecorded
from archon.journal import Script
from archon.store.base import Attempt, Recorded
from archon.tasks import settle
from archon.usage import NOTHING, Usage

if TYPE_CHECKING:
    from archon.run import Run

_WORKERS = 512
_UNDELIVERED = 256
"""Samples that may wait to be read; then no further call is made."""
_POLL = 0.25


class Draw:
    """An async iterator of candidates. See `Run.sample`."""

    def __init__(
        self,
        run: Run,
        caller: Caller,
        request: Request,
        count: int,
        born: int,
        per_request: int | None,
        parents: tuple[str, ...],
        place: int = 0,
        wave: int | None = None,
    ) -> None:
        self.run = run
        self._caller = caller
        self._request = request
        self._count = count
        self._born = born
        self._parents = parents
        self._apart = hashlib.sha256("\0".join((str(place), *parents)).encode()).hexdigest()[:8]
        self._per_request = per_request
        self._wave = wave
        self._workers = 0
        """How many are at work."""
        self._key = request.key(caller.backend.identity)
        self._indices = range(0)
        self._pool = 0
        self._store = run.session.store
        self._ready: deque[Recorded | Exception] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._todo: deque[int] = deque()
        self._claimed: set[int] = set()
        """Indices that are ours to sample; given up when they are paid for, or when the draw ends."""
        self._elsewhere: set[int] = set()
        self._undelivered: set[int] = set()
        self._arrived_indices: set[int] = set()
        self._past: dict[int, Usage] = {}
        """Recorded cost of earlier failed attempts, by index."""
        self._cursor = 0
        self._stored: deque[Recorded] = deque()
        self._more_stored = True
        self._script: Script | None = None
        self._entry = 0
        """This draw's number in the journal."""
        self._opened = self._launched = self._stopped = self._closed = False
        self._saving = 0
        """Samples handed to the store and not yet confirmed."""
        self._tasks: list[asyncio.Task[None]] = []
        self._prompt_tokens: int | None = None
        self._context = 0
        """The prompt's size as it is recorded, estimates included."""

    # --- reading -----------------------------------------------------------------------------------

    def __aiter__(self) -> Draw:
        return self

    async def __anext__(self) -> Candidate:
        if not self._opened:
            await self._open()
        while True:
            if self._ready:
                return self._deliver(self._ready.popleft())
            if self._stopped and not self._saving:
                await self.aclose()
                raise StopAsyncIteration
            if self._script is not None:
                await self._follow(self._script)
            elif self._stored:
                await self._offer_stored()
            elif self._more_stored:
                await self._read_stored()
            elif not self._launched:
                await self._launch()
            elif self._over():
                await self.aclose()
                raise StopAsyncIteration
            else:
                self._reader = asyncio.get_running_loop().create_future()
                self._make_room(self._wave or 1)
                await self._reader

    def _deliver(self, item: Recorded | Exception) -> Candidate:
        if isinstance(item, Exception):
            raise item
        if self._writers:
            self._make_room()
        self._undelivered.discard(item.index)
        self.run.scope.journal.delivered(self._entry, item.index)
        number = self._number(item.index)
        return Candidate(
            id=f"{self.run.stage}#{number}",
            text=item.text,
            stage=self.run.stage,
            index=number,
            model=self._caller.name,
            parents=self._parents,
            finish=item.finish,
            stop=item.stop,
            reasoning=item.reasoning,
            logprobs=item.logprobs,
            usage=item.usage,
        )

    def _make_room(self, workers: int = 1) -> None:
        """So many workers that wait for room may go on."""
        for _ in range(min(workers, len(self._writers)) if len(self._ready) < _UNDELIVERED else 0):
            ticket = self._writers.popleft()
            if not ticket.done():
                ticket.set_result(None)

    def _number(self, index: int) -> int:
        """The number among the stage's candidates of the sample with this index in its pool."""
        return self._born + index - self._indices.start

    def _over(self) -> bool:
        return not self._saving and all(task.done() for task in self._tasks)

    def _push(self, item: Recorded | Exception) -> None:
        self._ready.append(item)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- what is stored ----------------------------------------------------------------------------

    async def _open(self) -> None:
        self._opened = True
        run = self.run
        self._caller.check(self._request, run.meter)
        if run.scope.replay is not None and self._count:
            self._script = run.scope.replay.script(run.stage, self._key, self._count, self._apart)
            if self._script is None:
                await run.scope.replay.end(run.stage)
        start = self._script.start if self._script else run.scope.allocate(self._key, self._count)
        if self._script is not None and self._script.born is not None:
            self._born = self._script.born
        self._entry = run.scope.journal.opened(
            run.stage, self._key, start, self._count, self._born, self._apart
        )
        self._indices = range(start, start + self._count)
        self._undelivered = set(self._indices)
        run.scope.draws.add(self)
        if run.scope.expired or run.expired or not self._count:
            self._stopped = True
            return
        replay = run.scope.replay
        if replay is not None:  # it will move, though another draw of its stage waits for its turn
            replay.looking += 1
        try:
            self._pool = await self._store.pool(
                self._key, self._caller.backend.identity, self._request.content
            )
            await self._read_attempts()
        finally:
            if replay is not None:
                replay.looking -= 1

    async def _read_attempts(self) -> None:
        """What was paid for samples before they came: attempts that were tried again. What ended in a failure
        for good, or was cancelled, belongs to the run that saw it."""
        self._past.clear()
        for attempt in await self._store.attempts(self._pool, self._indices):
            if attempt.index not in self._undelivered:
                continue
            if attempt.kind == "retried":
                self._past[attempt.index] = self._past.get(attempt.index, NOTHING) + self._caller.valued(
                    attempt.usage
                )
            elif attempt.kind == "failed":
                self._past.pop(attempt.index, None)

    async def _read_stored(self) -> None:
        page = await self._store.read(self._pool, self._indices, self._cursor)
        self._cursor, self._more_stored = page.cursor, not page.done
        self._context = max((r.usage.prompt_tokens for r in page.samples), default=0) or self._context
        self._stored.extend(self._valued(recorded) for recorded in page.samples)

    def _valued(self, recorded: Recorded) -> Recorded:
        usage = self._caller.valued(recorded.usage, self._context)
        return recorded if usage is recorded.usage else recorded._replace(usage=usage)

    async def _follow(self, script: Script) -> None:
        """Deliver the next of what the same run once delivered; at the end go on, or stop, as it did."""
        replay = self.run.scope.replay
        assert replay is not None
        if not script.turns:
            self._script = None
            self._stopped |= script.ended
            if self._undelivered and not self._stopped:
                await replay.end(self.run.stage)
            return
        place, index = script.turns[0]
        replay.looking += 1
        try:
            recorded = await self._find(index)
        finally:
            replay.looking -= 1
        await replay.turn(self.run.stage, place)
        if recorded is None:  # the store has lost it
            replay.release()
            self._leave_script()
        elif not self._stopped and await self._enter_stored(recorded, recorded.usage):
            script.turns.popleft()
            self._stored.remove(recorded)
            replay.over(place)

    async def _find(self, index: int) -> Recorded | None:
        """The stored sample of this index; what is read on the way waits in `_stored`."""
        seen = 0
        while True:
            for recorded in islice(self._stored, seen, None):
                if recorded.index == index:
                    return recorded
            seen = len(self._stored)
            if not self._more_stored:
                return None
            await self._read_stored()

    def _leave_script(self) -> None:
        if self._script is not None:
            turns, self._script = self._script.turns, None
            assert self.run.scope.replay is not None
            self.run.scope.replay.over(*(place for place, _ in turns))

    async def _offer_stored(self) -> None:
        if self.run.may_stop_early:
            await self.run.until_wanted()
        if not self._stopped:
            await self._admit_stored(self._stored.popleft())

    async def _admit_stored(self, recorded: Recorded) -> bool:
        """Whether the budgets let this stored sample in; enters its cost if so."""
        if recorded.index not in self._undelivered:
            return True
        # The worst case must fit, as it had to when the sample was paid for: with and without a store
        # the same budget admits the same samples.
        worst = self._caller.worst_case(self._request, 1, self._prompt_tokens, recorded.usage.requests > 0)
        return await self._enter_stored(recorded, worst)

    async def _enter_stored(self, recorded: Recorded, most: Usage) -> bool:
        """Deliver a stored sample with its cost, if the budgets have room for `most`; whether they have."""
        past = self._past.pop(recorded.index, NOTHING)
        try:
            hold = await self.run.meter.reserve(most + past, fresh=False)
        except BudgetExhausted as error:
            self._exhaust(error)
            return False
        usage = recorded.usage + past
        hold.charge(usage)
        hold.close()
        self._learn(recorded.usage)
        self._enter(usage, fresh=False)
        self._trace_sample(recorded.index, usage, fresh=False)
        self._elsewhere.discard(recorded.index)
        self._push(recorded)
        return True

    async def _admit_attempts(self, missing: Sequence[int]) -> bool:
        """What attempts cost on samples that have not come yet counts with those to come; whether it fits."""
        for index in missing:
            past = self._past.pop(index, NOTHING)
            if past == NOTHING:
                continue
            try:
                hold = await self.run.meter.reserve(past, fresh=False)
            except BudgetExhausted as error:
                self._exhaust(error)
                self._give_up(missing)
                return False
            hold.charge(past)
            hold.close()
            self._enter(past, fresh=False)
        return True

    def _learn(self, usage: Usage) -> None:
        """The prompt's true size bounds the next call better than its bytes."""
        if usage.prompt_tokens and not usage.estimated and usage.requests == 1:
            self._prompt_tokens = max(usage.prompt_tokens, self._prompt_tokens or 0)

    # --- what is missing ---------------------------------------------------------------------------

    async def _launch(self) -> None:
        missing = [i for i in self._indices if i in self._undelivered]
        if missing and self.run.may_stop_early:
            await self.run.until_wanted()
        if self._stopped:
            return
        self._launched = True
        if not missing:
            return
        if self.run.session.offline:
            self._fail(missing, NotRecorded("the store has no such sample, and the session is offline"))
            return
        granted = await self._claim(missing)
        if not await self._admit_attempts(granted):
            return
        self._todo.extend(granted)
        self._elsewhere = set(missing) - set(granted)
        if self._elsewhere:
            self._tasks.append(self.run.spawn(self._await_others()))
            self._tasks[-1].add_done_callback(self._task_ended)
        self._start_workers(len(granted))

    def _start_workers(self, samples: int) -> None:
        """As many as may be of use for so many samples more."""
        most = min(-(-samples // self._batch_size()), _WORKERS, self._caller.gate.most)
        if self._wave is not None:  # each has at most one request that is not yet dealt with
            most = min(most, max(1, self._wave // self._batch_size()) - self._workers)
        for _ in range(most):
            self._workers += 1
            task = self.run.spawn(self._work())
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)

    async def _claim(self, indices: Sequence[int]) -> Sequence[int]:
        """Those of the indices that are ours to sample now."""
        claiming = asyncio.ensure_future(self._store.claim(self._pool, indices))
        try:
            granted = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The claim is made all the same, and the draw may be closed, or cancelled again, by then.
            claiming.add_done_callback(self._release_claim)
            raise
        self._claimed.update(granted)
        return granted

    def _release_claim(self, claiming: asyncio.Future[Sequence[int]]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            self._store.note(self._pool, (), release=claiming.result())

    def _give_up(self, indices: Iterable[int]) -> None:
        """Others may sample these."""
        mine = self._claimed.intersection(indices)
        self._claimed -= mine
        self._store.note(self._pool, (), release=mine)

    async def _work(self) -> None:
        """Sample what is to be sampled, until nothing is."""
        try:
            await self._sample()
        finally:  # whoever sleeps for room must see that there is nothing left to do
            self._workers -= 1
            while self._writers:
                ticket = self._writers.popleft()
                if not ticket.done():
                    ticket.set_result(None)

    async def _sample(self) -> None:
        # As stored samples are offered: recordings take no time, and would all be used.
        one_by_one = self.run.may_stop_early and self._caller.backend.capabilities.recorded
        paced = one_by_one or self._wave is not None
        while self._todo and not self._stopped:
            while self._todo and (len(self._ready) >= _UNDELIVERED or (paced and self._unread())):
                ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._writers.append(ticket)
                await ticket
            if paced:
                await self.run.until_wanted()
            if self._wave is not None and self._unread():  # something came in the meantime
                continue
            size = self._batch_size()
            batch = [self._todo.popleft() for _ in range(min(size, len(self._todo)))]
            if not batch:
                return
            try:
                rest = await self._caller.call(
                    self._request, batch, self.run.meter, self._arrived, self._billed, self._prompt_tokens
                )
                if rest:
                    self._todo.extendleft(reversed(rest))
                    self._start_workers(len(rest) - 1)
            except BudgetExhausted as error:
                self._exhaust(error)
                self._give_up(batch)
                return
            except FatalError as error:
                self._push(error)
                self._stopped = True
                return
            except BackendError as error:
                self._fail([i for i in batch if i not in self._arrived_indices], error)
            if self._todo:
                await asyncio.sleep(0)  # a turn for others, where the backend answers at once

    def _unread(self) -> bool:
        """Whether something has arrived that the reader has not taken, or does not wait for more."""
        waiting = self._reader is not None and not self._reader.done()
        return bool(self._saving or self._ready or not waiting)

    def _fail(self, indices: Sequence[int], error: ArchonError) -> None:
        """These samples will not come; the outcome says so."""
        self._undelivered.difference_update(indices)
        self.run.scope.failures.extend(Failure(self.run.stage, self._number(i), error) for i in indices)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A worker ended; an error it did not expect is the reader's to see."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._push(error)
            self._stopped = True
        self._wake()

    def _batch_size(self) -> int:
        wanted = self._per_request or self._caller.config.samples_per_request
        if wanted == "auto":
            wanted = 1 if self.run.may_stop_early else self._caller.max_n
        return min(wanted, self._caller.max_n, self._wave or wanted)

    def _arrived(self, completion: Completion, usage: Usage) -> None:
        """A sample has arrived and is charged: store it, then deliver it."""
        self._learn(usage)
        fresh = not completion.recorded
        self._enter(usage, fresh=fresh)
        self._trace_sample(completion.index, usage, fresh=fresh)
        self._arrived_indices.add(completion.index)
        recorded = Recorded(
            completion.index,
            _storable(completion.text),
            completion.finish,
            None if completion.stop is None else _storable(completion.stop),
            _storable(completion.reasoning),
            completion.logprobs,
            usage,
        )
        self._claimed.discard(completion.index)
        self._saving += 1
        saved = self._store.put(self._pool, [recorded])
        if saved.done():
            self._saved(saved)
        else:
            saved.add_done_callback(self._saved)

    def _saved(self, done: asyncio.Future[Sequence[Recorded]]) -> None:
        self._saving -= 1
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            for recorded in done.result():
                self._push(recorded)
        else:
            self._push(error if isinstance(error, Exception) else RuntimeError(str(error)))
            self._stopped = True

    def _billed(self, attempt: Billed) -> None:
        """An attempt gave no sample; its cost is entered, and recorded with the first of its indices."""
        self._enter(attempt.usage, fresh=True)
        if not attempt.indices:  # cut off when its last sample had come already
            return
        if attempt.kind == "cancelled" and attempt.usage == NOTHING:  # never sent
            self._give_up(attempt.indices)
            return
        first, *others = attempt.indices
        error = _storable(attempt.error)
        notes = [Attempt(first, attempt.kind, attempt.usage, error)]
        notes += [Attempt(i, attempt.kind, NOTHING, error) for i in others]
        self.run.trace(
            "attempt",
            kind_of=attempt.kind,
            model=self._caller.name,
            samples=[self._number(i) for i in attempt.indices],
            usage=attempt.usage.as_json(),
            error=error,
        )
        over = self._claimed.intersection(() if attempt.kind == "retried" else attempt.indices)
        self._claimed -= over
        self._store.note(self._pool, notes, release=over)

    async def _await_others(self) -> None:
        """Wait for samples that another draw is paying for; take over what it gives up."""
        while self._elsewhere and not self._stopped:
            await self._store.wait(self._pool, _POLL)
            more = True
            while more and not self._stopped:
                page = await self._store.read(self._pool, self._indices, self._cursor)
                self._cursor, more = page.cursor, not page.done
                if any(recorded.index in self._elsewhere for recorded in page.samples):
                    await self._read_attempts()
                for recorded in page.samples:
                    ours = recorded.index in self._elsewhere
                    if ours and not await self._admit_stored(self._valued(recorded)):
                        return
            if self._elsewhere:
                freed = await self._claim(sorted(self._elsewhere))
                self._elsewhere.difference_update(freed)
                if freed:
                    await self._read_attempts()
                    if not await self._admit_attempts(freed):
                        return
                self._todo.extend(freed)
                self._start_workers(len(freed))

    # --- the end -----------------------------------------------------------------------------------

    def _enter(self, usage: Usage, *, fresh: bool) -> None:
        self.run.scope.ledger.enter(self.run.row, self._caller.name, usage, fresh=fresh)

    def _trace_sample(self, index: int, usage: Usage, *, fresh: bool) -> None:
        if self.run.session.trace is not None:
            self.run.trace(
                "sampled",
                sample=self._number(index),
                model=self._caller.name,
                fresh=fresh,
                usage=usage.as_json(),
            )

    def _exhaust(self, error: BudgetExhausted) -> None:
        """Nothing more can be paid for; what is in flight is still awaited."""
        self.run.scope.note_exhausted(error)
        self._give_up(self._todo)
        self._todo.clear()
        self._elsewhere.clear()
        self._launched = True
        self._more_stored = False
        self._stored.clear()
        self._leave_script()

    def stop(self) -> None:
        """End at once (the deadline has passed): what has arrived is still delivered."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        self._wake()

    async def aclose(self) -> None:
        """Cancel what is outstanding and bill it. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = self._stopped = True
        self._leave_script()
        try:
            await settle(self._tasks)
        finally:
            self.run.scope.draws.discard(self)
            self._give_up(tuple(self._claimed))


def _storable(text: str) -> str:
    """Text as UTF-8 can hold it: lone surrogates, which a reply's JSON may contain, become '�'."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text
