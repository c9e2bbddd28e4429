"""The benchmark of steps measures whole searches: every step of every answer is written and scored."""

from __future__ import annotations

import importlib.util

import pytest

from archon.benchmarks.speed import steps


async def test_both_searches_write_as_many_steps_as_they_say() -> None:
    found = await steps.measure(n=8, steps=3, rounds=1)
    for kind in ("beam_search", "particle_filter"):
        assert found[kind]["ours"]["written"] == 8 * 3
        assert found[kind]["ours"]["steps_per_second"] > 0


@pytest.mark.skipif(importlib.util.find_spec("its_hub") is None, reason="its_hub is not installed")
async def test_its_hub_s_searches_run_over_the_same_script() -> None:
    assert await steps.theirs("particle_filter", 8, 3) == 8 * 3
    assert await steps.theirs("beam_search", 16, 3) == 4 + 16 * 2, "it begins with n / beam_width"
