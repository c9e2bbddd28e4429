"""Invariant 1: a finished run replayed from its store makes no call, and has the same outcome and cost.

Random pipelines, delays and passing failures, on the virtual clock; each replay in a new session on the same
file. What is known not to hold is in test_invariants_replay.py, one test each.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archon.budget import Budget, Budgets
from archon.pipeline import Pipeline
from archon.usage import NOTHING
from tests.archon.wild import Runs, judges, pipelines, sampled, stopping, summary

TROUBLE = st.sampled_from([0.0, 0.0, 0.3])


@settings(max_examples=40, deadline=None)
@given(pipeline=pipelines(), seed=st.integers(0, 10**6), trouble=TROUBLE)
def test_replayed_it_makes_no_call_and_says_the_same(
    pipeline: Pipeline, seed: int, trouble: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble)
    first, calls = runs.solve(pipeline)
    again, none = runs.solve(pipeline)
    third, nothing = runs.solve(pipeline, offline=True)
    assert (none, nothing) == ([], [])
    assert again.fresh == third.fresh == NOTHING
    assert summary(again) == summary(third) == summary(first)
    assert bool(calls) == (sampled(pipeline) > 0)


@settings(max_examples=40, deadline=None)
@given(pipeline=stopping(), seed=st.integers(0, 10**6), trouble=TROUBLE)
def test_replayed_it_stops_early_at_the_same_one_and_costs_what_it_once_cost(
    pipeline: Pipeline, seed: int, trouble: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, trouble)
    first, _ = runs.solve(pipeline)
    for _ in range(2):
        again, calls = runs.solve(pipeline)
        assert calls == [] and again.fresh == NOTHING
        said, once = summary(again), summary(first)
        for name in ("chosen", "final", "usage", "by_stage", "by_model", "failures"):
            assert said[name] == once[name], name
        # What arrived after the one that was chosen is not used again.
        assert {c[0] for c in said["candidates"]} <= {c[0] for c in once["candidates"]}


@settings(max_examples=30, deadline=None)
@given(pipeline=pipelines(), seed=st.integers(0, 10**6), limit=st.integers(0, 12))
def test_what_a_budget_ended_ends_alike_when_replayed(
    pipeline: Pipeline, seed: int, limit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(judges(pipeline) < 2)  # two compete: see test_invariants_replay.py
    budget = Budgets(problem=Budget(requests=limit))
    runs = Runs(tmp_path_factory.mktemp("stores"), seed, 0.0, max_n=1, budget=budget)
    first, _ = runs.solve(pipeline)
    again, calls = runs.solve(pipeline)
    assert first.usage.requests <= limit
    assert calls == []
    assert summary(again) == summary(first)
