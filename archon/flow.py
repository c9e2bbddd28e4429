"""The streaming runtime: one problem through one graph (D4; design/streaming.md).

Every stage runs as one task that reads its inbox and writes to the inboxes after it, all inside one
task group per problem. Nothing waits for everything unless the stage itself does. When every reader of
a stage has closed its inbox, the stage is cancelled where it stands, which closes its calls, and their
connections, all the way to the engine.

A stage that has delivered what was *stored* may ask, before it pays for more, whether those downstream
still want more: `until_wanted` waits until every later stage has digested what it was given and waits
for its next candidate. So replaying a run that stopped early pays for nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace

from archon.candidate import Candidate
from archon.errors import ArchonError, BudgetExhausted, StageFailed
from archon.graph import Graph, Place
from archon.journal import Replay
from archon.problem import Problem
from archon.run import Run
from archon.tasks import first_error

_CAPACITY = 64
"""Candidates that may wait before a stage; then the one before it waits."""


class Inbox:
    """What flows into one stage: an async iterator that ends when every feeder has ended.

    Where branches with a common ancestor meet, the same candidate arrives by each of them; it is passed
    on once, with the verdicts of all, when every branch has delivered it or ended.
    """

    def __init__(self, feeders: Iterable[str], merging: bool, changed: Callable[[], None]) -> None:
        self._open = set(feeders)
        self._merging = merging
        self._changed = changed
        self._ready: deque[Candidate] = deque()
        self._held: dict[str, tuple[Candidate, set[str]]] = {}
        self._passed: set[str] = set()
        self._readers: deque[asyncio.Future[None]] = deque()
        self._writers: deque[asyncio.Future[None]] = deque()
        self.closed = False
        self.on_close: list[Callable[[], None]] = []

    @property
    def hungry(self) -> bool:
        """Whether the reader has nothing left and waits for more."""
        return bool(self._readers) and not self._ready

    @property
    def holds(self) -> bool:
        """Whether a candidate waits for the branches that have not delivered it."""
        return bool(self._held)

    @property
    def full(self) -> bool:
        """Whether those who write must wait."""
        return len(self._ready) >= _CAPACITY and not self.closed

    async def put(self, feeder: str, candidate: Candidate) -> None:
        """Pass a candidate on, waiting while the inbox is full."""
        while self.full:
            ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(ticket)
            await ticket
        if self.closed:
            return
        if not self._merging:
            self._ready.append(candidate)
        elif candidate.id in self._passed:
            return
        else:
            known, seen = self._held.get(candidate.id, (candidate, set()))
            self._held[candidate.id] = (known.merged(candidate), seen | {feeder})
            self._release()
        self._wake(self._readers)

    def end(self, feeder: str) -> None:
        """One feeder has nothing more."""
        self._open.discard(feeder)
        if self._merging:
            self._release()
        if self._ready or not self._open:
            self._wake(self._readers)
        while self._readers and not self._open:  # nothing more will come for any of them
            self._wake(self._readers)

    def close(self) -> None:
        """The reader wants nothing more."""
        if self.closed:
            return
        self.closed = True
        self._ready.clear()
        self._held.clear()
        while self._writers:
            self._wake(self._writers)
        for tell in self.on_close:
            tell()
        self._changed()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Candidate:
        while not self._ready:
            if self.closed or not self._open:
                raise StopAsyncIteration
            ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(ticket)
            self._changed()
            try:
                await ticket
            except asyncio.CancelledError:
                if ticket in self._readers:
                    self._readers.remove(ticket)
                raise
        candidate = self._ready.popleft()
        self._wake(self._writers)
        return candidate

    def take_ready(self, most: int) -> list[Candidate]:
        """What waits at this moment, at most so many."""
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        for _ in taken:
            self._wake(self._writers)
        return taken

    def _release(self) -> None:
        for key, (candidate, seen) in list(self._held.items()):
            if self._open <= seen:
                del self._held[key]
                self._passed.add(key)
                self._ready.append(candidate)

    @staticmethod
    def _wake(tickets: deque[asyncio.Future[None]]) -> None:
        while tickets:
            ticket = tickets.popleft()
            if not ticket.done():
                ticket.set_result(None)
                return


class Flow:
    """One problem's way through a graph."""

    def __init__(self, graph: Graph, problem: Problem, open_run: Callable[[Place, Flow], Run]) -> None:
        self.graph = graph
        self.problem = problem
        self._waiting: list[asyncio.Future[None]] = []
        self._parked: Counter[str] = Counter()
        """Stages that wait until others want more or have room."""
        self.replay: Replay | None = None
        """The turns to keep, where this run is run again."""
        self.inboxes = {
            place.path: Inbox(
                place.before, len(place.before) > 1 and graph.shares_ancestor(place), self.pulse
            )
            for place in graph.places.values()
        }
        self.runs = {place.path: open_run(place, self) for place in graph.places.values()}
        self.ended: set[str] = set()
        self._passed: dict[str, set[str]] = {path: set() for path in graph.places}
        self.written: dict[str, Candidate] = {}
        """Every candidate by id, with every verdict it got."""
        self.final: list[Candidate] = []
        """What left the pipeline, in order of leaving."""
        self.closed_early = False
        """Whether some stage closed its input before the end."""

    async def run(self) -> None:
        """Run every stage to its end. Raises the first error of any of them."""
        try:
            async with asyncio.TaskGroup() as group:
                for place in self.graph.places.values():
                    task = group.create_task(self._pump(place), name=f"{self.problem.id}:{place.path}")
                    self._stop_when_unread(place, task)
        except BaseExceptionGroup as several:
            error = first_error(several)
            raise error from error.__cause__

    def _stop_when_unread(self, place: Place, task: asyncio.Task[None]) -> None:
        """Cancel a stage once every reader of it has closed."""
        readers = [self.inboxes[after] for after in place.after]

        def closed() -> None:
            if all(reader.closed for reader in readers) and place.path not in self.ended:
                self.closed_early = True
                self.runs[place.path].released = True
                task.cancel()

        for reader in readers:
            reader.on_close.append(closed)

    async def _pump(self, place: Place) -> None:
        run, inbox = self.runs[place.path], self.inboxes[place.path]
        try:
            async with aclosing(place.stage.run(self.problem, inbox, run)) as stream:
                async for candidate in stream:
                    await self._pass_on(place, candidate)
        except asyncio.CancelledError:
            if not run.released:
                raise
        except BudgetExhausted as error:
            run.scope.note_exhausted(error)
        except ArchonError:
            raise
        except Exception as error:
            raise StageFailed(place.path, error) from error
        finally:
            self.ended.add(place.path)
            try:
                await run.finish()
            finally:
                inbox.close()
                for after in place.after:
                    self.inboxes[after].end(place.path)
                self.pulse()

    async def _pass_on(self, place: Place, candidate: Candidate) -> None:
        if not candidate.stage:
            candidate = replace(candidate, stage=place.path)
        if candidate.id in self._passed[place.path]:
            raise ArchonError(f"stage {place.path!r} passed candidate {candidate.id!r} on twice")
        self._passed[place.path].add(candidate.id)
        known = self.written.get(candidate.id)
        self.written[candidate.id] = candidate if known is None else candidate.merged(known)
        if not place.after:
            self.final.append(candidate)
        for after in place.after:
            if self.inboxes[after].full:
                with self._parking(place.path):
                    await self.inboxes[after].put(place.path, candidate)
            else:
                await self.inboxes[after].put(place.path, candidate)

    # --- whether more is wanted --------------------------------------------------------------------

    def pulse(self) -> None:
        """Something changed: those who wait for hunger look again."""
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            if not ticket.done():
                ticket.set_result(None)
        if self.replay is not None:
            self.replay.look()

    async def until_wanted(self, path: str) -> None:
        """Until every stage after `path` has digested what it has and waits for more."""
        if self._read(path) and self._wanted(path):
            return
        with self._parking(path):
            while not self._read(path) or not self._wanted(path):
                ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(ticket)
                await ticket

    def _wanted(self, path: str) -> bool:
        later = self.graph.downstream[path]
        if all(self._wants(stage) for stage in later):
            if not any(self.inboxes[stage].holds for stage in later):
                return True
            # What is held may come through once the other branches have delivered it, if they ever do.
            return self.quiet({path}) and not any(self._parked[stage] for stage in later)
        return False

    def quiet(self, asking: Collection[str]) -> bool:
        """Whether every stage waits: for a candidate, for room, or, as those `asking`, for its turn."""
        return all(path in asking or self._parked[path] or self._wants(path) for path in self.graph.places)

    @contextmanager
    def _parking(self, path: str) -> Iterator[None]:
        self._parked[path] += 1
        self.pulse()
        try:
            yield
        finally:
            self._parked[path] -= 1

    def _read(self, path: str) -> bool:
        """Whether some way from here to the end is still open; closing travels upstream stage by stage."""
        after = self.graph.places[path].after
        return not after or any(later not in self.ended and self._read(later) for later in after)

    def _wants(self, path: str) -> bool:
        return path in self.ended or (self.inboxes[path].hungry and not self.runs[path].busy)
