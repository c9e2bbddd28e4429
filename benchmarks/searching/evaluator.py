"""Evaluates stacks on a benchmark's problems: through one store, within one budget, graded as a run is.

Configurations with the same models and problem budget share a session, and all share the store, so what one has sampled
costs another nothing. Within a study's purse the limits hold over all its processes (search/meter.py). Cost: the calls
of the pipelines, as far as they are not stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from archon.backends.base import Model, canonical
from archon.benchmarks.benchmark import Dataset
from archon.benchmarks.recording import recorded
from archon.benchmarks.results import Record
from archon.budget import Budget, Budgets, Dimension, Meter
from archon.config import Config, plain
from archon.errors import EndpointDown, NotRecorded, UserError
from archon.problem import Problem
from archon.search.accounts import Entry, Purse
from archon.search.meter import SharedMeter
from archon.search.objectives import Evaluation
from archon.session import Session
from archon.store import SQLiteStore, Store
from archon.tasks import together
from archon.usage import Usage, total

_NOT_SERVED = ("EndpointDown", "ConnectionDropped", "Overloaded", "RateLimited")
"""Failures that are the server's, after every retry."""
_OFFLINE = "the session is offline"
"""What a failure says that is for want of a stored sample."""


class LocalEvaluator:
    """Evaluates in this process. An asynchronous context manager."""

    def __init__(
        self,
        dataset: Dataset,
        models: Mapping[str, Model],
        *,
        store: Store | Path,
        limits: Budget | None = None,
        seed: int = 0,
        concurrency: int = 16,
        offline: bool = False,
        prices: Path | None = None,
        replays: bool = True,
    ) -> None:
        """`models` serve names that a configuration does not define. `limits` are for everything that is spent anew.
        Without `replays` every configuration is sampled anew, and what is sampled is not kept: for latency, which a
        stored sample does not have."""
        self.dataset = dataset
        """The problems and their grader; a prepared one may take its place."""
        self._models = dict(models)
        self._store = SQLiteStore(store) if isinstance(store, Path) else store
        self._limits = limits or Budget()
        self._replays = replays
        self._given: dict[str, Any] = {"seed": seed, "offline": offline, "prices": prices}
        self._gate = asyncio.Semaphore(concurrency)
        self._meter = Meter("run", self._limits)
        self._sessions: dict[str, Session] = {}
        self._stack = AsyncExitStack()
        self._purse: Purse | None = None
        self._at_work = 0

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._store.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def fresh(self) -> Usage:
        """What was spent by this process."""
        return total(session.ledger.fresh for session in self._sessions.values())

    @property
    def used(self) -> Usage:
        """The same with what was replayed."""
        return total(session.ledger.total for session in self._sessions.values())

    async def session(self, config: Config) -> Session:
        """The session for a configuration's models and problem budget."""
        models = {**self._models, **config.models}
        key = canonical(
            [plain(Config(models=config.models, pipeline=config.pipeline))["models"]] if config.models else []
        ) + repr(config.budget.problem)
        if not self._replays:
            key += repr(config.pipeline)
        found = self._sessions.get(key)
        if found is None:
            budget = Budgets(run=self._limits, problem=config.budget.problem)
            store = self._store if self._replays else None
            found = Session(models=models, budget=budget, store=store, **self._given)
            found.meter = self._meter  # one for all
            self._sessions[key] = await self._stack.enter_async_context(found)
        return found

    def spend(self, allowance: Budget) -> None:
        """Let what comes spend so much and no more, whatever was spent before."""
        self._charge(Meter("run", allowance))

    def _charge(self, meter: Meter) -> None:
        self._meter = meter
        for session in self._sessions.values():
            session.meter = meter

    @contextmanager
    def spending_from(self, purse: Purse) -> Iterator[None]:
        """Let what comes be paid from a purse, which others share; its limits hold in the place of ours. At the end
        what was not needed is given back. Raises what the purse does."""
        self._purse = purse
        if purse.limit.limits:
            self._charge(SharedMeter(purse, lambda: self.fresh))
        try:
            yield
        finally:
            self._report()
            if isinstance(self._meter, SharedMeter):
                self._meter.close()

    def _report(self) -> None:
        """Let those who share the purse know what was spent here."""
        if isinstance(self._meter, SharedMeter):
            self._meter.report()
        elif self._purse is not None:
            self._purse.turn(lambda others: (None, Entry({}, {}, self.fresh)))

    @property
    def spent(self) -> dict[Dimension, Any]:
        """What was spent under the limits, or under the last allowance, of what it limits."""
        return dict(self._meter.spent)

    async def evaluate(
        self, config: Config, problems: Sequence[str], arrived: Callable[[Evaluation], None] | None = None
    ) -> Sequence[Evaluation | None]:
        """What came of each problem; None where the budget of the whole search ended first. `arrived` is told of each
        as soon as it is there. Raises UserErrors where the pipeline or its models cannot run, EndpointDown where nobody
        served, NotRecorded where a session that is offline lacks samples."""
        with self._working():
            records = await self.records(config, problems, lambda record: tell(arrived, asdict(record)))
        return [evaluation_of(asdict(record)) for record in records]

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Who has nothing in work holds nothing of the purse."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            if not self._at_work:
                self._report()

    async def records(
        self, config: Config, problems: Sequence[str], arrived: Callable[[Record], None] | None = None
    ) -> Sequence[Record]:
        """The record of each problem, whatever ended it. Raises UserErrors as `evaluate` does."""
        session = await self.session(config)
        graph = config.pipeline.graph()

        async def one(problem: Problem) -> Record:
            async with self._gate:
                record, _ = await recorded(session, graph, self.dataset.grader, problem)
            if arrived is not None:
                arrived(record)
            return record

        return await together(one(problem) for problem in self.known(problems))

    def known(self, problems: Iterable[str]) -> list[Problem]:
        """Problems by id. Raises UserError for one that the benchmark does not have."""
        known = {problem.id: problem for problem in self.dataset.problems}
        missing = [problem for problem in problems if problem not in known]
        if missing:
            raise UserError(f"the benchmark {self.dataset.name!r} has no problem {missing[0]!r}")
        return [known[problem] for problem in problems]


def tell(arrived: Callable[[Evaluation], None] | None, record: Mapping[str, Any]) -> None:
    """Tell what came of a problem, where something did."""
    with suppress(EndpointDown, NotRecorded):  # said when the others have ended
        evaluation = evaluation_of(record)
        if evaluation is not None and arrived is not None:
            arrived(evaluation)


def evaluation_of(record: Mapping[str, Any]) -> Evaluation | None:
    """From a line of `problems.jsonl`; None where the budget of the whole search ended it.

    Raises EndpointDown where it has no answer because nobody served: that says nothing of a configuration, and must not
    be kept as if it did; NotRecorded where samples are not stored and the session is offline, for the same reason.
    """
    failures = record["failures"]
    if missing := [failure for failure in failures if failure.endswith(_OFFLINE)]:
        raise NotRecorded(
            f"problem {record['id']!r} takes what is not stored, and --offline makes no call ({missing[0]}). "
            "What was found is kept: run it again without --offline"
        )
    causes = [failure.split(" ", 1)[1].split(":", 1)[0] for failure in failures if " " in failure]
    if record["error"] and causes and all(cause in _NOT_SERVED for cause in causes):
        raise EndpointDown(
            f"problem {record['id']!r} has no answer, as its model was not served ({failures[0]}). "
            "What was found is kept: run it again when the server is back"
        )
    return None if record["exhausted"].startswith("run") else Evaluation.of_record(record)
