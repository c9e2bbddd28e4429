"""What a stage sees of the run: the only way to have an effect (D3).

A stage asks its `Run` to sample, verify, test or solve. The run reserves budget, looks in the store,
limits concurrency, calls the backend, settles the cost and records the event. Tasks that a stage starts
belong to its run and end with the stage, so stage authors never need more than `async for` and `yield`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from archon.backends.base import LikelihoodRequest, Request, Sampling, ScoreRequest
from archon.candidate import Candidate, Failure, Verdict
from archon.draw import Draw
from archon.errors import ArchonError, BudgetExhausted
from archon.journal import Journal, Replay
from archon.problem import Message, Problem
from archon.scoring import Scoring
from archon.tasks import settle

if TYPE_CHECKING:
    from archon.budget import Meter
    from archon.calling import Caller
    from archon.execution import Call, Limits, Program, Returned, Suite, TestReport
    from archon.flow import Flow
    from archon.ledger import Ledger
    from archon.pipeline import Pipeline
    from archon.session import Session
    from archon.solving import Solving
    from archon.stage import Stage
    from archon.verifier import Verifier

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 16
"""How many results `map` works ahead by default."""
_LABEL = re.compile(r"[^/#]+")

Birth = tuple[tuple[int | str, ...], int]
"""Where a candidate stands in the order of the outcome: its stage's place, its index."""


class Likelihood(NamedTuple):
    """How likely a model finds a given text."""

    logprob: float
    """The sum of its tokens' log-probabilities (natural)."""
    tokens: int
    """How many they are."""


class Scope:
    """The state of one problem's solving, shared by its stages."""

    def __init__(
        self, problem: Problem, key: str, meter: Meter, ledger: Ledger, replay: Replay | None = None
    ) -> None:
        self.problem = problem
        self.key = key
        """What the solving goes by in the store: the same when the same run is run again."""
        self.meter = meter
        self.ledger = ledger
        self.failures: list[Failure] = []
        self.exhausted: BudgetExhausted | None = None
        self.expired = False
        self.closed_early = False
        """Whether some stage closed its input before the end."""
        self.draws: set[Draw | Scoring] = set()
        self.written: dict[str, Candidate] = {}
        """Every candidate by id, with every verdict it got."""
        self.places: dict[str, tuple[int | str, ...]] = {}
        """Where each stage stands in the order of the outcome, by its path."""
        self.solved: set[str] = set()
        """The paths under which stages have solved derived problems."""
        self.journal = Journal()
        self.replay = replay
        """What this run delivered the last time, where it is run again."""
        self._drawn: dict[str, int] = {}

    def allocate(self, pool: str, count: int) -> int:
        """The first of `count` indices that no other draw of this problem has: draws never share
        samples within a problem, so that they stay independent."""
        start = self._drawn.get(pool, 0 if self.replay is None else self.replay.drawn(pool))
        self._drawn[pool] = start + count
        return start

    def birth(self, candidate: Candidate) -> Birth:
        """Where a candidate stands in the order of the outcome."""
        return self.places.get(candidate.stage, ()), candidate.index

    def note_exhausted(self, error: BudgetExhausted) -> None:
        """A budget ran out; the first one is the reason."""
        self.exhausted = self.exhausted or error

    def expire(self) -> None:
        """The deadline has passed: sources stop, calls in flight are cancelled."""
        self.expired = True
        self.note_exhausted(BudgetExhausted("problem", "seconds", "the problem's seconds are over"))
        if self.replay is not None:
            self.replay.release()
        for draw in tuple(self.draws):
            draw.stop()


class Run:
    """One stage's view of the run, for one problem."""

    def __init__(
        self,
        session: Session,
        scope: Scope,
        stage: str,
        meter: Meter,
        *,
        flow: Flow,
        place: str,
        title: str | None = None,
        may_stop_early: bool = False,
    ) -> None:
        self.session = session
        self.scope = scope
        self.stage = stage
        """The stage's path, in the graph or inside the stage that solves with it."""
        self.row = f"{flow.row}{place}"
        """What its calls go by in the ledger: the path without the numbers of solvings."""
        self.meter = meter
        self.flow = flow
        self.place = place
        """The stage's path in its own graph."""
        self._title = title
        self.may_stop_early = may_stop_early
        """Whether a later stage may close its input before the end."""
        self.released = False
        self.inside: list[Solving] = []
        """What the stage is solving at this moment."""
        self._expired = False
        self.busy = 0
        """Items taken in by `map` and not yet digested."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._born = 0 if scope.replay is None else scope.replay.born(stage)
        seed = f"{session.seed}|{scope.problem.id}|{stage}"
        self._seed = int.from_bytes(
            hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
        )
        self._rng: random.Random | None = None

    @property
    def problem(self) -> Problem:
        """The problem being solved."""
        return self.flow.problem

    @property
    def expired(self) -> bool:
        """Whether the stage's own deadline has passed, or that of a stage that solves with it."""
        return self._expired or (self.flow.within is not None and self.flow.within.expired)

    @property
    def rng(self) -> random.Random:
        """This stage's own random generator, seeded by the run's seed, the problem and the stage."""
        if self._rng is None:
            self._rng = random.Random(self._seed)
        return self._rng

    # --- models ------------------------------------------------------------------------------------

    def sample(
        self,
        model: str,
        *,
        n: int = 1,
        system: str | None = None,
        messages: Sequence[Message] | None = None,
        prompt: str | None = None,
        prefix: str = "",
        sampling: Sampling | None = None,
        per_request: int | None = None,
        parents: Sequence[Candidate] = (),
        place: int = 0,
        wave: int | None = None,
    ) -> Draw:
        """Draw n samples; an async iterator of candidates, in order of arrival.

        Without `messages` or `prompt`, the problem itself is asked, after `system` where that is given
        (a model that continues text gets it as a paragraph before the problem's). Samples that are stored come first
        and are not paid for again. The iterator ends early, without an error, where a budget or the
        deadline runs out; single failures are recorded on the outcome. Close it (or end the stage) to
        cancel what is outstanding.

        Where a stage has several draws under way at once that may ask the same, it gives each a `place` of its own (or
        other `parents`), by which a replay tells them apart.

        With `wave`, at most so many are under way that those after this stage have not dealt with: in flight, or come
        and not digested. Without it, as many as the endpoint takes.

        Raises, on first use, UnknownName (no such model), CapabilityError, UnpricedModel; and
        FatalError where the model cannot be used at all.
        """
        caller = self.session.caller(model)
        problem = self.problem
        chosen = self.session.sampling(model, sampling)
        chat, raw = self._posed(caller, system, messages, prompt)
        if messages is None and prompt is None and raw is not None and not chosen.stop and problem.stop:
            chosen = chosen.model_copy(update={"stop": problem.stop})
        request = Request(chat, raw, prefix, chosen, problem.id)
        start, self._born = self._born, self._born + n
        return Draw(self, caller, request, n, start, per_request, tuple(p.id for p in parents), place, wave)

    async def score(
        self,
        model: str,
        replies: Sequence[Sequence[str]],
        *,
        messages: Sequence[Message] | None = None,
        finished: bool = True,
        round: int = 0,
    ) -> list[tuple[float, ...] | None]:
        """Have a reward model score replies to the problem (or to `messages`), each cut into steps.

        A step holds what ends it, so that the steps joined are the reply. A process reward model gives a
        score per step, of the reply up to that step's end; an outcome reward model a single one. `finished`
        is False for replies that may go on. None where a budget or the deadline ran out, or the call failed.
        The scores are on the scale that the backend's capabilities name. Scored before, they cost nothing.

        A problem asks once, and what failed stays without a score. A search numbers its rounds from 1: what failed in
        an earlier one, because the server could not serve or the score was no number, is asked for again, within a
        problem three times at most.

        Raises UnknownName (no such model), CapabilityError, UnpricedModel; and FatalError where the model
        cannot be used at all.
        """
        caller = self.session.caller(model)
        caller.check_scoring(self.meter, finished=finished)
        cut = [tuple(steps) or ("",) for steps in replies]
        chat = self.problem.messages if messages is None else tuple(messages)
        asked = ScoreRequest(chat, tuple(cut), finished, self.problem.id)
        found = await Scoring(self, caller, asked, round).result()
        return [
            None if parts is None else tuple(chain.from_iterable(part.steps for part in parts))
            for parts in found
        ]

    async def likelihoods(
        self,
        model: str,
        replies: Sequence[Sequence[str]],
        *,
        system: str | None = None,
        messages: Sequence[Message] | None = None,
        prompt: str | None = None,
        sampling: Sampling | None = None,
        finished: bool = True,
    ) -> list[tuple[Likelihood, ...] | None]:
        """How likely a model finds given replies, each cut into steps: of each step, after those before it.

        What is replied to is given as for `sample`. The first step may be a beginning whose own probability does not
        matter. The probabilities are the model's own, at temperature 1; of `sampling` only `extra` counts. Where
        `finished`, the end of a reply counts to its last step. None where a budget or the deadline ran out, or the
        call failed. Told before, they cost nothing.

        Raises UnknownName (no such model), CapabilityError, UnpricedModel; and FatalError where the model cannot be
        used at all.
        """
        caller = self.session.caller(model)
        caller.check_likelihoods(self.meter)
        chat, raw = self._posed(caller, system, messages, prompt)
        cut = tuple(tuple(steps) or ("",) for steps in replies)
        extra = self.session.sampling(model, sampling).extra
        asked = LikelihoodRequest(chat, cut, finished, self.problem.id, raw, extra)
        found = await Scoring(self, caller, asked).result()
        return [
            None
            if parts is None
            else tuple(
                Likelihood(*one) for part in parts for one in zip(part.steps, part.counts, strict=True)
            )
            for parts in found
        ]

    def _posed(
        self, caller: Caller, system: str | None, messages: Sequence[Message] | None, prompt: str | None
    ) -> tuple[tuple[Message, ...], str | None]:
        """The chat, or the raw text, that a model is given: the problem itself where neither is."""
        if messages is not None or prompt is not None:
            return tuple(messages or ()), prompt
        problem = self.problem
        if caller.config.continues_text and problem.prompt is not None:
            return (), problem.prompt if system is None else f"{system}\n\n{problem.prompt}"
        before = () if system is None else (Message(role="system", content=system),)
        return (*before, *problem.messages), None

    # --- solving -----------------------------------------------------------------------------------

    async def solve(
        self, pipeline: Pipeline | Stage, problem: Problem, label: str, number: int | None = None
    ) -> Sequence[Candidate]:
        """Solve a problem, this one or one derived from it, with a pipeline, inside this stage.

        What leaves the pipeline, best first where its last stage ranks, else in sample order; fewer or none
        where a budget or the deadline ran out. Verdicts are the pipeline's own: when this stage passes such a
        candidate on, they stay behind, on the outcome's candidates only.

        Whatever it spends is this stage's, within its budget, and stands in the ledger under
        `STAGE/LABEL/...`. `label` says what the solving is for; where a stage solves several of a kind, `number`
        tells them apart. Candidates, seeds and the replay go by both, so no two solvings of a stage may have the
        same. A derived problem that keeps the id of this one gets one of its own.

        Raises ValueError for a label that is taken or holds `/` or `#`, ConfigError where the pipeline is not
        valid, and what its stages raise.
        """
        async with aclosing(self.stream(pipeline, problem, label, number)) as stream:
            found = [candidate async for candidate in stream]
        return found if stream.ranks else sorted(found, key=self.birth)

    def stream(
        self, pipeline: Pipeline | Stage, problem: Problem, label: str, number: int | None = None
    ) -> Solving:
        """As `solve`; an async iterator of what leaves the pipeline, as it does. Close it (or end the stage) to
        cancel what is outstanding."""
        from archon.solving import Solving

        if not _LABEL.fullmatch(label):
            raise ValueError(f"`label` names what is solved, without '/' or '#', and is {label!r}")
        name = label if number is None else f"{label}-{number}"
        path = f"{self.stage}/{name}"
        if path in self.scope.solved:
            raise ValueError(f"stage {self.stage!r} has solved under {name!r} before; number its solvings")
        self.scope.solved.add(path)
        if problem.id == self.problem.id and problem != self.problem:
            problem = problem.model_copy(update={"id": f"{problem.id}/{name}"})
        return Solving(self, pipeline, problem, label, number)

    # --- verdicts ----------------------------------------------------------------------------------

    async def verify(self, verifier: Verifier, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with this verifier's verdicts, which go by the stage's title."""
        verdicts: Sequence[Verdict] = await verifier.verify(self.problem, candidates, self)
        if len(verdicts) != len(candidates):
            raise ArchonError(
                f"verifier {verifier.name!r} gave {len(verdicts)} verdicts for {len(candidates)} candidates"
            )
        return self.judged(candidates, verdicts, verifier.name)

    def judged(
        self, candidates: Sequence[Candidate], verdicts: Sequence[Verdict], by: str
    ) -> list[Candidate]:
        """The candidates with one verdict each; verdicts by `by` go by the stage's title."""
        if self._title is not None:
            verdicts = [replace(v, verifier=self._title) if v.verifier == by else v for v in verdicts]
        if self.session.trace is not None:
            for candidate, verdict in zip(candidates, verdicts, strict=True):
                self.trace(
                    "verdict",
                    candidate=candidate.id,
                    verifier=verdict.verifier,
                    accepted=verdict.accepted,
                    score=verdict.score,
                    status=verdict.status,
                )
        return [c.with_verdict(v) for c, v in zip(candidates, verdicts, strict=True)]

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        """Run a program against tests, in isolation; remembered by (program, tests, limits)."""
        return await self.session.test(program, suite, limits, stop_at_first_failure=stop_at_first_failure)

    async def evaluate(self, program: Program, calls: Sequence[Call], limits: Limits) -> Sequence[Returned]:
        """Call a program's function, in isolation."""
        return await (await self.session.executor()).evaluate(program, calls, limits)

    def birth(self, candidate: Candidate) -> Birth:
        """Where a candidate stands in the order of the outcome: its stage's place in the graph, its index."""
        return self.scope.birth(candidate)

    def kept(self, key: str, make: Callable[[], T]) -> T:
        """A value that is made once per solving of a problem, for what is dear to make and the same for all who
        ask."""
        kept = self.flow.kept
        if key not in kept:
            kept[key] = make()
        value: T = kept[key]
        return value

    def trace(self, event: str, **data: Any) -> None:
        """Note what happened, where this run is traced."""
        if self.session.trace is not None:
            self.session.trace.event(event, problem=self.scope.problem.id, stage=self.stage, **data)

    # --- concurrency -------------------------------------------------------------------------------

    def map(
        self, work: Callable[[T], Awaitable[R]], items: AsyncIterator[T], *, ahead: int = _AHEAD
    ) -> Mapped[T, R]:
        """Apply `work` to items as they arrive, `ahead` at once; results come in the items' order."""
        return Mapped(self, work, items, ahead)

    async def batches(self, items: AsyncIterator[T], most: int) -> AsyncIterator[Sequence[T]]:
        """Items in batches: what waits at the moment, at most so many; never waiting to fill one."""
        take = getattr(items, "take_ready", None)
        async for item in items:
            yield [item] if take is None or most < 2 else [item, *take(most - 1)]

    async def gather(self, *work: Coroutine[Any, Any, R]) -> list[R]:
        """Do several things at once; the first error cancels the others and is raised."""
        tasks = [self.spawn(one) for one in work]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            await settle(tasks)

    def spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Start a task that ends, at the latest, with the stage."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def until_wanted(self) -> None:
        """Until those downstream have digested what they were given and want more."""
        await self.flow.until_wanted(self.place)

    def digested(self, items: int) -> None:
        """`map` has handed on this many results."""
        self.busy -= items
        self.flow.pulse()

    def expire(self) -> None:
        """This stage's own deadline has passed: its draws stop, and no other begins."""
        self._expired = True
        self.scope.note_exhausted(
            BudgetExhausted(f"stage {self.stage}", "seconds", f"the seconds of stage {self.stage!r} are over")
        )
        if self.scope.replay is not None:
            self.scope.replay.release()
        for draw in [d for d in self.scope.draws if d.run.is_in(self)]:
            draw.stop()

    def is_in(self, other: Run) -> bool:
        """Whether this is that stage, or one that it solves with."""
        return self is other or (self.flow.within is not None and self.flow.within.is_in(other))

    async def finish(self) -> None:
        """End every task and draw of this stage."""
        for draw in [d for d in self.scope.draws if d.run is self]:
            await draw.aclose()
        await settle(tuple(self._tasks))


class Mapped(Generic[T, R]):
    """`run.map`: an async iterator of results in order, working ahead of its reader."""

    def __init__(
        self, run: Run, work: Callable[[T], Awaitable[R]], items: AsyncIterator[T], ahead: int
    ) -> None:
        self._run = run
        self._work = work
        self._items = items
        self._room = asyncio.Semaphore(max(1, ahead))
        self._results: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
        self._feeder: asyncio.Task[None] | None = None
        self._handed_on = 0

    def __aiter__(self) -> Mapped[T, R]:
        return self

    async def __anext__(self) -> R:
        if self._feeder is None:
            self._feeder = self._run.spawn(self._feed())
        if self._handed_on:  # the reader is back for more, so it has dealt with the last one
            self._run.digested(self._handed_on)
            self._handed_on = 0
        task = await self._results.get()
        if task is None:
            await self._feeder
            raise StopAsyncIteration
        result = await task
        self._handed_on = 1
        self._room.release()
        return result

    async def _feed(self) -> None:
        async def one(item: T) -> R:
            return await self._work(item)

        try:
            await self._room.acquire()
            async for item in self._items:
                self._run.busy += 1
                self._results.put_nowait(self._run.spawn(one(item)))
                await self._room.acquire()
        finally:
            self._results.put_nowait(None)
