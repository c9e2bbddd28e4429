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
from types import MappingProxyType
from typing import Any

from archon.candidate import Candidate
from archon.errors import ArchonError, BudgetExhausted, StageFailed
from archon.graph import Graph, Place
from archon.journal import Replay
from archon.problem import Problem
from archon.run import Run, Scope
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
    """One problem's way through a graph; or that of a derived problem, `within` the stage that solves it."""

    def __init__(
        self,
        graph: Graph,
        problem: Problem,
        scope: Scope,
        open_run: Callable[[Place, Flow], Run],
        *,
        within: Run | None = None,
        label: str = "",
        number: int | None = None,
    ) -> None:
        self.graph = graph
        self.problem = problem
        self.scope = scope
        self.within = within
        self.prefix = self.row = ""
        """What the paths of its stages begin with; and their rows in the ledger."""
        born: tuple[int | str, ...] = ()
        self.asked = ""
        """The id of the derived problem that its candidates answer."""
        if within is not None:
            self.prefix = (
                f"{within.stage}/{label}/" if number is None else f"{within.stage}/{label}-{number}/"
            )
            self.row = f"{within.row}/{label}/"
            born = (*scope.places[within.stage][:-1], 0, label, -1 if number is None else number)
            self.asked = "" if problem == scope.problem else problem.id
        # What a stage writes itself comes after what it had others write.
        scope.places.update({self.prefix + p.path: (*born, p.number, 1) for p in graph.places.values()})
        self.kept: dict[str, Any] = {}
        """What `Run.kept` keeps."""
        self.timers: list[asyncio.TimerHandle] = []
        """The deadlines of its stages."""
        self._top: Flow = self if within is None else within.flow._top
        self._waiting: list[asyncio.Future[None]] = []
        self._parked: Counter[str] = Counter()
        """Stages that wait until others want more or have room."""
        self.replay: Replay | None = None
        """The turns to keep, where this run is run again."""
        sinks = tuple(place.path for place in graph.sinks)
        self.outlet = None if within is None else Inbox(sinks, graph.share_ancestor(sinks), self.pulse)
        """What leaves it, for the stage that it is within."""
        self._outlets = () if self.outlet is None else (self.outlet,)
        self.inboxes = {
            place.path: Inbox(place.before, graph.share_ancestor(place.before), self.pulse)
            for place in graph.places.values()
        }
        self.runs = {place.path: open_run(place, self) for place in graph.places.values()}
        self.ended: set[str] = set()
        self._passed: dict[str, set[str]] = {path: set() for path in graph.places}
        self.final: dict[str, None] = {}
        """The ids of what left the pipeline, in order of leaving."""

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
        finally:
            for timer in self.timers:
                timer.cancel()
            for sink in self.graph.sinks:  # also of a stage that never began
                self._end(sink)

    def _stop_when_unread(self, place: Place, task: asyncio.Task[None]) -> None:
        """Cancel a stage once every reader of it has closed."""
        readers = [self.inboxes[after] for after in place.after]

        def closed() -> None:
            if all(reader.closed for reader in readers) and place.path not in self.ended:
                self.scope.closed_early = True
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
            raise StageFailed(run.stage, error) from error
        finally:
            self.ended.add(place.path)
            try:
                await run.finish()
            finally:
                inbox.close()
                self._end(place)
                self.pulse()

    def _end(self, place: Place) -> None:
        """Those who read a stage need not wait for more from it."""
        for after in self._readers(place):
            after.end(place.path)

    def _readers(self, place: Place) -> list[Inbox]:
        return [self.inboxes[after] for after in place.after] if place.after else [*self._outlets]

    async def _pass_on(self, place: Place, candidate: Candidate) -> None:
        stage = self.runs[place.path].stage
        if not candidate.stage:
            candidate = replace(candidate, stage=stage)
        if candidate.id in self._passed[place.path]:
            raise ArchonError(f"stage {stage!r} passed candidate {candidate.id!r} on twice")
        self._passed[place.path].add(candidate.id)
        candidate = self._adopted(place, candidate)
        self._write_down(candidate)
        if not place.after:
            self.final[candidate.id] = None
        for after in self._readers(place):
            if after.full:
                with self._parking(place.path):
                    await after.put(place.path, candidate)
            else:
                await after.put(place.path, candidate)

    def _adopted(self, place: Place, candidate: Candidate) -> Candidate:
        """A candidate as an answer to this problem, without what was said of it where it was solved with: that
        speaks of another problem, or by a name that another verifier may have here."""
        if candidate.problem != self.asked:
            candidate = replace(candidate, problem=self.asked)
        if candidate.verdicts and candidate.stage.startswith(f"{self.runs[place.path].stage}/"):
            own = self.graph.titles.get(place.path)
            left = {name: verdict for name, verdict in candidate.verdicts.items() if name == own}
            candidate = replace(candidate, verdicts=MappingProxyType(left))
        return candidate

    def _write_down(self, candidate: Candidate) -> None:
        """Enter it in the outcome; verdicts that are given inside a stage go by its path."""
        if self.row and candidate.verdicts:
            verdicts = {
                f"{self.row}{name}": replace(verdict, verifier=f"{self.row}{verdict.verifier}")
                for name, verdict in candidate.verdicts.items()
            }
            candidate = replace(candidate, verdicts=MappingProxyType(verdicts))
        known = self.scope.written.get(candidate.id)
        self.scope.written[candidate.id] = candidate if known is None else candidate.merged(known)

    # --- whether more is wanted --------------------------------------------------------------------

    def pulse(self) -> None:
        """Something changed: those who wait for hunger look again."""
        top = self._top
        waiting, top._waiting = top._waiting, []
        for ticket in waiting:
            if not ticket.done():
                ticket.set_result(None)
        if top.replay is not None:
            top.replay.look()

    async def until_wanted(self, path: str) -> None:
        """Until every stage after `path` has digested what it has and waits for more, here and around."""
        if self._more(path):
            return
        with self._parking(path):
            while not self._more(path):
                ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._top._waiting.append(ticket)
                await ticket

    def _more(self, path: str) -> bool:
        """Whether more from `path` is wanted now."""
        around = self.within
        here = self._read(path) and self._wanted(path)
        return here and (around is None or around.flow._more(around.place))

    def _wanted(self, path: str) -> bool:
        later = self.graph.downstream[path]
        if all(self._wants(stage) for stage in later) and (self.outlet is None or self.outlet.hungry):
            inboxes = [self.inboxes[stage] for stage in later]
            if not any(inbox.holds for inbox in (*inboxes, *self._outlets)):
                return True
            # What is held may come through once the other branches have delivered it, if they ever do.
            asking = self.runs[path].stage
            return self.quiet({asking}) and not any(self._parked[stage] for stage in later)
        return False

    def quiet(self, asking: Collection[str]) -> bool:
        """Whether every stage waits: for a candidate, for room, or, as those `asking`, for its turn; or for
        stages that it solves with, which all wait."""
        return all(self._waits(path, asking) for path in self.graph.places)

    def _waits(self, path: str, asking: Collection[str]) -> bool:
        run = self.runs[path]
        by_itself = run.stage in asking or self._parked[path] > 0 or self._idle(path)
        if not run.inside or path in self.ended:
            return by_itself
        return all(one.waits(asking) for one in run.inside) and (
            by_itself or any(one.hungry for one in run.inside)
        )

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
        return self._idle(path) and (not self.runs[path].inside or path in self.ended)

    def _idle(self, path: str) -> bool:
        return path in self.ended or (self.inboxes[path].hungry and not self.runs[path].busy)
