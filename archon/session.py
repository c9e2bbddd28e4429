"""A session: everything a run shares. Models, store, budgets, ledger, executor, seed.

    async with Session(models={"coder": OpenAI(model="gpt-4o-mini")}, store="runs.sqlite") as session:
        outcome = await session.solve(pipeline, problem)

Any number of problems may be solved at once through one session.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from archon import registry
from archon.backends.base import Backend, Model, Sampling
from archon.budget import Budgets, Meter
from archon.calling import Caller, Gate
from archon.candidate import Outcome, StopReason
from archon.engine import Engine, EngineFigures
from archon.errors import AllCandidatesFailed, BudgetExhausted, UnknownName
from archon.flow import Flow
from archon.graph import Graph, Place
from archon.journal import Replay
from archon.ledger import Ledger
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.run import Run, Scope
from archon.store import MemoryStore, SQLiteStore, Store
from archon.suggest import hint
from archon.tasks import together
from archon.trace import Trace
from archon.usage import Usage, total

if TYPE_CHECKING:
    from archon.execution import Executor, Limits, Program, Suite, TestReport
    from archon.stage import Stage

DEFAULT_MODEL = "default"
"""The name ready pipelines give their model."""
_MOST_GRAPHS = 256
"""Compiled pipelines that are kept."""


_MOST_SAMPLINGS = 256


class Session:
    """Opens what a run needs, shares it between problems, and closes it.

    `models` maps the names that stages use to models; a single model serves every name. `store` is a
    store, a path, or None for one in memory. `seed` seeds the stages' random generators and, where a
    server takes seeds, the samples; another seed is another, independent run. `offline` makes no model
    call: what is not stored counts as failed, and no key is needed. `prices` is a price table of the user's.
    """

    def __init__(
        self,
        *,
        models: Mapping[str, Model | Backend] | Model | None = None,
        budget: Budgets | None = None,
        store: Store | str | Path | None = None,
        seed: int | None = None,
        offline: bool = False,
        prices: Path | None = None,
        trace: Trace | None = None,
        executor: Executor | None = None,
    ) -> None:
        self._models = models if models is not None else {}
        self.budget = budget or Budgets()
        self.seed = seed
        self.offline = offline
        self._prices = prices
        self.trace = trace
        self.ledger = Ledger()
        """Everything used so far, over all problems."""
        self.meter = Meter("run", self.budget.run)
        self._owns_store = store is None or isinstance(store, str | Path)
        if store is None:
            store = MemoryStore()
        self.store: Store = SQLiteStore(store) if isinstance(store, str | Path) else store
        self._executor = executor
        self._owns_executor = executor is None
        self._callers: dict[str, Caller] = {}
        self._gates: dict[str, Gate] = {}
        self._graphs: dict[Pipeline | Stage, Graph] = {}
        self._samplings: dict[tuple[str, int], tuple[Sampling | None, Sampling]] = {}
        """What became of sampling parameters, by model and object: a search asks a thousand times with the same."""
        self._solving: set[Scope] = set()
        self._testing: dict[str, asyncio.Future[TestReport | None]] = {}
        self._tested = 0
        """How many tests were run: what was looked up before the last of them may be there by now."""
        self.scoring: dict[str, asyncio.Future[None]] = {}
        """Done when what is being scored under this key has been (archon/scoring.py)."""
        self._deadline: asyncio.TimerHandle | None = None
        self.expired = False
        """Whether the run's deadline has passed."""

    async def __aenter__(self) -> Session:
        seconds = self.budget.run.seconds
        if seconds is not None:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._expire)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        async with AsyncExitStack() as open_things:  # closed from the last to the first, whatever fails
            if self.trace is not None:
                open_things.callback(self.trace.close)
            if self._owns_store:
                open_things.push_async_callback(self.store.close)
            if self._executor is not None and self._owns_executor:
                open_things.push_async_callback(self._executor.close)
            for caller in self._callers.values():
                open_things.push_async_callback(caller.backend.close)

    # --- solving -----------------------------------------------------------------------------------

    async def solve(self, pipeline: Pipeline | Stage | Graph, problem: Problem) -> Outcome:
        """Run one problem through a pipeline.

        Raises ConfigError where the pipeline is not valid, UserErrors where its models cannot do what
        it asks, AllCandidatesFailed where every attempt failed, FatalError where a model cannot be
        used at all, StageFailed where a stage has a fault.
        """
        graph = pipeline if isinstance(pipeline, Graph) else _pipeline(pipeline).graph()
        self.check(graph)
        key = self._settlement_key(graph, problem)
        record = await self._settlement(key)
        scope = Scope(
            problem,
            key,
            Meter("problem", self.budget.problem, self.meter),
            Ledger(self.ledger),
            self._replay(record, graph),
        )
        self._solving.add(scope)
        flow = self.open_flow(graph, problem, scope)
        if (seconds := self.budget.problem.seconds) is not None:
            flow.timers.append(asyncio.get_running_loop().call_later(seconds, scope.expire))
        if scope.replay is not None:
            flow.replay, scope.replay.quiet = scope.replay, flow.quiet
        if self.expired:
            scope.expire()
        try:
            await flow.run()
            outcome = await self._settled(self._outcome(flow, scope), scope, key, record)
        except BaseException:
            scope.ledger.publish()
            raise
        finally:
            self._solving.discard(scope)
        if self.trace is not None:
            self.trace.event("solved", **{k: v for k, v in outcome.as_json().items() if k != "candidates"})
        if outcome.failures and all(c.problem for c in outcome.candidates):
            raise AllCandidatesFailed(problem.id, [f.error for f in outcome.failures], outcome)
        return outcome

    def check(self, graph: Graph) -> None:
        """Raise UserErrors where a stage names a model that this session does not have, or that lacks its key."""
        for name, stages in graph.models.items():
            model = self._models.get(name) if isinstance(self._models, Mapping) else self._models
            if model is None:
                assert isinstance(self._models, Mapping)
                raise UnknownName(
                    f"stage {stages[0]!r} uses model {name!r}, which is not defined. "
                    f"{hint(name, self._models)} Define it under `models:`, or give one with --model"
                )
            if isinstance(model, Model) and not self.offline:
                model.check()

    def graph(self, pipeline: Pipeline | Stage) -> Graph:
        """A pipeline compiled, once however often it is solved with. Raises ConfigError."""
        if pipeline not in self._graphs:
            if len(self._graphs) >= _MOST_GRAPHS:  # a stage makes them anew for every problem
                self._graphs.clear()
            self._graphs[pipeline] = _pipeline(pipeline).graph()
        return self._graphs[pipeline]

    def open_flow(
        self,
        graph: Graph,
        problem: Problem,
        scope: Scope,
        *,
        within: Run | None = None,
        label: str = "",
        number: int | None = None,
    ) -> Flow:
        """A problem's way through a graph, ready to run; or a derived problem's, within a stage."""
        return Flow(
            graph,
            problem,
            scope,
            lambda place, flow: self._open_run(place, flow, scope),
            within=within,
            label=label,
            number=number,
        )

    def _open_run(self, place: Place, flow: Flow, scope: Scope) -> Run:
        path, budget, within = flow.prefix + place.path, place.stage.budget, flow.within
        around = scope.meter if within is None else within.meter
        run = Run(
            self,
            scope,
            path,
            around if budget is None else Meter(f"stage {path}", budget, around),
            flow=flow,
            place=place.path,
            title=flow.graph.titles.get(place.path),
            may_stop_early=flow.graph.may_stop_early(place.path)
            or (within is not None and within.may_stop_early),
        )
        if budget is not None and budget.seconds is not None:
            flow.timers.append(asyncio.get_running_loop().call_later(budget.seconds, run.expire))
        return run

    def _expire(self) -> None:
        self.expired = True
        self.meter_exhausted("seconds")
        for scope in tuple(self._solving):
            scope.expire()

    def meter_exhausted(self, dimension: str) -> None:
        """For the outcome of what runs while the whole run's time ends."""
        for scope in self._solving:
            scope.note_exhausted(BudgetExhausted("run", dimension, f"the run's {dimension} are over"))

    def _outcome(self, flow: Flow, scope: Scope) -> Outcome:
        final = [scope.written[id] for id in flow.final]
        if not flow.graph.ranks:
            final.sort(key=scope.birth)
        stopped: StopReason = "complete"
        if scope.expired:
            stopped = "deadline"
        elif scope.exhausted is not None:
            stopped = "budget"
        elif scope.closed_early:
            stopped = "early"
        exhausted = "" if scope.exhausted is None else f"{scope.exhausted.scope}.{scope.exhausted.dimension}"
        ledger = scope.ledger
        return Outcome(
            problem=scope.problem.id,
            chosen=final[0] if final else None,
            final=tuple(final),
            candidates=tuple(sorted(scope.written.values(), key=scope.birth)),
            failures=tuple(scope.failures),
            usage=ledger.total,
            by_stage=MappingProxyType(dict(ledger.by_stage)),
            by_model=MappingProxyType(dict(ledger.by_model)),
            fresh=ledger.fresh,
            stopped=stopped,
            exhausted=exhausted,
        )

    async def _settlement(self, key: str) -> dict[str, Any] | None:
        """What is remembered of this run, where it has been run before."""
        found = (await self.store.recall("settlement", [key])).get(key)
        record: dict[str, Any] | None = None if found is None else json.loads(found)
        return record

    def _replay(self, record: dict[str, Any] | None, graph: Graph) -> Replay | None:
        """The order to keep to. None where the run was cut off by time, or may spend more than it did then."""
        if record is None or record["stopped"] == "deadline" or "journal" not in record:
            return None
        budgets = [self.budget.run, self.budget.problem]
        budgets += [stage.budget for stage in graph.stages if stage.budget is not None]
        if any(budget.counts == "fresh" for budget in budgets):
            return None
        # Of the run's budget others may have left more than then.
        return Replay(
            record["journal"], ended=bool(record["exhausted"]) and record["exhausted"][:4] != "run."
        )

    async def _settled(
        self, outcome: Outcome, scope: Scope, key: str, record: dict[str, Any] | None
    ) -> Outcome:
        """The outcome with the cost the same run once had, where it is replayed entirely.

        What an early stop cancelled, and what arrived too late to be used, was paid for then; a replay
        uses neither, so its cost is read from the record of the first time.
        """
        anew = outcome.fresh.requests > 0 or self._had_more(outcome, record)
        if anew or record is None:
            record = {
                "stopped": outcome.stopped,
                "exhausted": outcome.exhausted,
                "by_stage": {name: u.exact() for name, u in outcome.by_stage.items()},
                "by_model": {name: u.exact() for name, u in outcome.by_model.items()},
                "journal": scope.journal.as_json(),
            }
            items = {key: json.dumps(record).encode()}
            await self.store.remember("settlement", items, replace=anew)
            scope.ledger.publish()
            return outcome
        by_stage = {name: Usage.from_json(u) for name, u in record["by_stage"].items()}
        by_model = {name: Usage.from_json(u) for name, u in record["by_model"].items()}
        scope.meter.charge(total(by_stage.values()) - outcome.usage)
        scope.ledger.restate(by_stage, by_model)
        return replace(
            outcome,
            stopped=record["stopped"],
            exhausted=record["exhausted"],
            usage=total(by_stage.values()),
            by_stage=MappingProxyType(by_stage),
            by_model=MappingProxyType(by_model),
        )

    def _had_more(self, outcome: Outcome, record: Mapping[str, Any] | None) -> bool:
        """Whether the run's budget cut this off before, and all that it lacked was paid for by others since."""
        if record is None or self.budget.run.counts != "fresh" or self.offline:
            return False
        cut = str(record["exhausted"]).startswith("run.") and record["stopped"] == "budget"
        return cut and outcome.stopped in ("complete", "early") and not outcome.failures

    def _settlement_key(self, graph: Graph, problem: Problem) -> str:
        from archon.execution import Suite

        models = [
            (name, self.caller(name).backend.identity, self.caller(name).price, self.sampling(name, None))
            for name in sorted(graph.models)
        ]
        asked = repr(problem.model_copy(update={"tests": ()})), Suite(cases=problem.tests).digest
        parts = (repr(graph.pipeline), *asked, repr(self.budget), repr(self.seed), repr(models))
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()

    # --- what stages ask for (through their Run) ----------------------------------------------------

    def caller(self, name: str) -> Caller:
        """The model of this name, connected. Raises UnknownName."""
        caller = self._callers.get(name)
        if caller is None:
            model = self._models.get(name) if isinstance(self._models, Mapping) else self._models
            if model is None:
                assert isinstance(self._models, Mapping)
                raise UnknownName(f"there is no model {name!r}. {hint(name, self._models)}")
            if isinstance(model, Model):
                config, backend = model, model.connect()
            else:
                config, backend = Bare(), model
            gate = self._gates.get(backend.endpoint)
            if gate is None:
                gate = self._gates[backend.endpoint] = Gate(config.concurrency, config.max_concurrency)
            caller = self._callers[name] = Caller(name, config, backend, gate, self._prices)
        return caller

    async def engines(self) -> dict[str, EngineFigures]:
        """What the engines that were asked something tell of their work, by endpoint."""
        found: dict[str, EngineFigures] = {}
        for caller in self._callers.values():
            backend = caller.backend
            if isinstance(backend, Engine) and backend.endpoint not in found:
                figures = await backend.figures()
                if figures is not None:
                    found[backend.endpoint] = figures
        return found

    def sampling(self, model: str, own: Sampling | None) -> Sampling:
        """Sampling parameters for a call: the stage's over the model's, with the limit and the seed."""
        known = self._samplings.get((model, id(own)))
        if known is not None and known[0] is own:
            return known[1]
        config = self.caller(model).config
        chosen = config.sampling if own is None else config.sampling.model_copy(update=own.given())
        filled: dict[str, Any] = {}
        if chosen.max_tokens is None and config.max_tokens is not None:
            filled["max_tokens"] = config.max_tokens
        if chosen.seed is None and self.seed is not None:
            filled["seed"] = self.seed
        chosen = chosen.model_copy(update=filled) if filled else chosen
        if len(self._samplings) >= _MOST_SAMPLINGS:
            self._samplings.clear()
        self._samplings[model, id(own)] = own, chosen
        return chosen

    async def executor(self) -> Executor:
        """What runs candidate code; opened on first use."""
        if self._executor is None:
            self._executor = registry.find("executor", "sandbox")()
        assert self._executor is not None
        return self._executor

    async def test(
        self, program: Program, suite: Suite, limits: Limits, *, stop_at_first_failure: bool = False
    ) -> TestReport:
        """Run a program against tests, or remember the result."""
        return (await self.test_many([program], suite, limits, stop_at_first_failure=stop_at_first_failure))[
            0
        ]

    async def test_many(
        self,
        programs: Sequence[Program],
        suite: Suite,
        limits: Limits,
        *,
        stop_at_first_failure: bool = False,
    ) -> list[TestReport]:
        """Run programs against one suite, equal ones once; remembered by (program, tests, limits)."""
        from archon.execution import TestReport

        mode = f"{suite.digest}|{limits.digest}|{stop_at_first_failure}"
        keys = [hashlib.sha256(f"{p.digest}|{mode}".encode()).hexdigest() for p in programs]
        distinct = dict(zip(keys, programs, strict=True))
        seen = self._tested
        remembered = await self.store.recall("test", list(distinct))
        reports = {key: TestReport.from_json(json.loads(value)) for key, value in remembered.items()}

        async def test(key: str) -> None:
            reports[key] = await self._once(
                key, lambda: self._test(key, distinct[key], suite, limits, stop_at_first_failure, seen)
            )

        await together(test(key) for key in distinct if key not in remembered)
        return [reports[key] for key in keys]

    async def _test(
        self,
        key: str,
        program: Program,
        suite: Suite,
        limits: Limits,
        stop_at_first_failure: bool,
        seen: int,
    ) -> TestReport:
        """Run a program, and remember; unless the same was done since so many tests were."""
        from archon.execution import TestReport

        if seen != self._tested and (known := await self.store.recall("test", [key])):
            return TestReport.from_json(json.loads(known[key]))
        executor = await self.executor()
        report = await executor.test(program, suite, limits, stop_at_first_failure=stop_at_first_failure)
        await self.store.remember("test", {key: json.dumps(report.as_json()).encode()})
        self._tested += 1
        return report

    async def _once(self, key: str, work: Callable[[], Awaitable[TestReport]]) -> TestReport:
        """Do the work, or wait for whoever is doing the same at this moment."""
        while (other := self._testing.get(key)) is not None:
            report = await asyncio.shield(other)
            if report is not None:  # None: they were cancelled, and it is for us to do
                return report
        done = self._testing[key] = asyncio.get_running_loop().create_future()
        report = None
        try:
            report = await work()
            return report
        finally:
            del self._testing[key]
            done.set_result(report)


class Bare(Model):
    """The configuration of a backend that was given as it is."""

    name = "bare"

    def connect(self) -> Backend:
        """Never called: the backend is connected already."""
        raise AssertionError("a bare backend is connected already")


def _pipeline(part: Pipeline | Stage) -> Pipeline:
    return part if isinstance(part, Pipeline) else Pipeline([part])
