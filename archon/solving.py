"""Solving inside a stage: a pipeline on a problem of the stage's own making (`Run.solve`; design/solving.md).

The pipeline runs as a flow of its own, on the run's one scope: its calls are held by the stage's budget and stand in
the one ledger, its draws share the pools and the journal, its candidates and failures are the outcome's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING

from archon.candidate import Candidate
from archon.problem import Problem
from archon.tasks import settle

if TYPE_CHECKING:
    from archon.flow import Flow, Inbox
    from archon.pipeline import Pipeline
    from archon.run import Run
    from archon.stage import Stage


class Solving:
    """An async iterator of what leaves a pipeline that a stage solves with. See `Run.stream`."""

    def __init__(
        self, run: Run, pipeline: Pipeline | Stage, problem: Problem, label: str, number: int | None
    ) -> None:
        self._run = run
        self._graph = run.session.graph(pipeline)
        self._problem = problem
        self._label = label
        self._number = number
        self._going: tuple[Flow, Inbox, asyncio.Task[None]] | None = None
        self._closed = False

    @property
    def ranks(self) -> bool:
        """Whether what leaves the pipeline comes best first."""
        return self._graph.ranks

    def waits(self, asking: Collection[str]) -> bool:
        """Whether every stage of it waits; those `asking` for their turn."""
        return self._going is None or self._going[0].quiet(asking)

    @property
    def hungry(self) -> bool:
        """Whether whoever solves waits for what leaves it."""
        return self._going is not None and self._going[1].hungry

    def __aiter__(self) -> Solving:
        return self

    async def __anext__(self) -> Candidate:
        if self._closed:
            raise StopAsyncIteration
        _, outlet, task = self._going = self._going or self._begin()
        try:
            return await anext(outlet)
        except StopAsyncIteration:
            await task
            self._leave()
            raise

    async def aclose(self) -> None:
        """Cancel what is outstanding and bill it. Closing twice is harmless."""
        if self._closed:
            return
        if self._going is not None:
            task = self._going[2]
            self._run.scope.closed_early |= not task.done()
            await settle([task])
        self._leave()

    def _begin(self) -> tuple[Flow, Inbox, asyncio.Task[None]]:
        run = self._run
        flow = run.session.open_flow(
            self._graph, self._problem, run.scope, within=run, label=self._label, number=self._number
        )
        assert flow.outlet is not None
        run.inside.append(self)
        return flow, flow.outlet, run.spawn(flow.run())

    def _leave(self) -> None:
        self._closed = True
        if self in self._run.inside:
            self._run.inside.remove(self)
        self._run.flow.pulse()
