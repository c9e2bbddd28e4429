"""Invariant 1, when more is asked: a grown or interrupted run pays for what it has not, and for nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archon.pipeline import Node, Pipeline
from archon.session import Session
from archon.strategies.sample import Sample
from tests.archon.instant import InstantStore, patiently
from tests.archon.wild import DELAY, PROBLEM, Runs, models, pipelines, sampled, stopping, summary, timeless

TROUBLE = st.sampled_from([0.0, 0.0, 0.3])


def grown(pipeline: Pipeline, more: int) -> Pipeline:
    """The same with so many samples more from each source."""

    def wider(node: Node) -> Node:
        stage = node.stage
        if isinstance(stage, Sample):
            return node._replace(stage=stage.model_copy(update={"n": stage.n + more}))
        return node

    return Pipeline(map(wider, pipeline.nodes))


def own_pools(pipeline: Pipeline) -> bool:
    """Whether no two sources draw from one pool."""
    named = [node.stage.model for node in pipeline.nodes if isinstance(node.stage, Sample)]
    return len(set(named)) == len(named)


@settings(max_examples=30, deadline=None)
@given(pipeline=pipelines(), seed=st.integers(0, 10**6), trouble=TROUBLE, more=st.integers(1, 4))
def test_grown_it_pays_for_the_new_samples_only_and_says_what_a_new_run_says(
    pipeline: Pipeline, seed: int, trouble: float, more: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(own_pools(pipeline))
    larger = grown(pipeline, more)
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble, max_n=1, seed=3)
    _, before = runs.solve(pipeline)
    outcome, calls = runs.solve(larger)
    assert not set(calls) & set(before), "nothing is asked twice"
    drawn = {(model, text, index) for model, text, index in calls if model != "judge"}
    assert len(drawn) == sampled(larger) - sampled(pipeline)
    whole, all_at_once = Runs(tmp_path_factory.mktemp("stores"), seed, trouble, max_n=1, seed=3).solve(larger)
    assert sorted(before + calls) == sorted(all_at_once)
    said, alone = summary(outcome), summary(whole)
    for name in ("chosen", "final", "candidates", "failures", "stopped"):
        assert said[name] == alone[name], name
    again, none = runs.solve(larger)
    assert none == [] and summary(again) == said


@settings(max_examples=30, deadline=None)
@given(pipeline=stopping(), seed=st.integers(0, 10**6), more=st.integers(1, 4))
def test_where_it_stopped_early_growing_costs_nothing_and_where_none_passed_only_the_new(
    pipeline: Pipeline, seed: int, more: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, 0.0)
    first, before = runs.solve(pipeline)
    outcome, calls = runs.solve(grown(pipeline, more))
    if first.chosen is not None:
        assert calls == [] and outcome.chosen == first.chosen
    else:
        assert not set(calls) & set(before)
    shrunk, none = runs.solve(pipeline)
    assert none == [] and summary(shrunk)["final"] == summary(first)["final"]
    assert timeless(shrunk.usage) == timeless(first.usage)


@settings(max_examples=30, deadline=None)
@given(pipeline=pipelines(), seed=st.integers(0, 10**6), trouble=TROUBLE, cut=st.floats(0.0, 4.0))
def test_what_was_interrupted_goes_on_and_pays_for_nothing_it_has(
    pipeline: Pipeline, seed: int, trouble: float, cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble)
    had: set[Any] = set()

    async def interrupted() -> None:
        store = InstantStore(runs.file, delay=DELAY)
        async with Session(models=models(seed, trouble, max_n=2), store=store) as session:
            solving = asyncio.ensure_future(session.solve(pipeline, PROBLEM))
            await asyncio.sleep(cut)
            solving.cancel()
            await asyncio.wait([solving])
            for summary_ in await store.summaries():
                page = await store.read(summary_.id, range(100))
                text = summary_.request["prompt"] or PROBLEM.question
                had.update((summary_.model, text, sample.index) for sample in page.samples)
        await store.close()

    patiently(interrupted())
    _, calls = runs.solve(pipeline)
    assert not set(calls) & had
    _, none = runs.solve(pipeline)
    assert none == []
