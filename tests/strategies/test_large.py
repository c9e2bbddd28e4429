"""What a stage says of itself before it runs takes no time, however large its numbers are."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from pydantic import ValidationError

from archon.registry import find, names
from archon.stage import Count, Stage
from archon.strategies.compute_optimal import Bin, Policy
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.verifiers.regex import Regex

HUGE = 2**62
NEEDED: dict[str, dict[str, Any]] = {
    "compute_optimal": {"policies": (Policy(n=1, probes=HUGE, bins=(Bin(),)),)},
    "ab_mcts": {"verifier": Regex(pattern="a")},
    "debate": {"agent_models": ("a", "b")},
    "per_chain": {"selector": TopK(k=1)},
    "top_k": {"k": 1},
    "verify": {"verifier": Regex(pattern="a")},
}


def enlarged(cls: type[Stage]) -> list[Stage]:
    """The stage once for each field that may be a large number, and is; then all of them at once."""
    needed = NEEDED.get(cls.name, {})
    found: dict[str, Any] = {}
    stages = [cls(**needed)]  # what it needs is all here, or this raises
    for name in cls.model_fields:
        for n in (HUGE, 1_000_000):
            try:
                stages.append(cls(**{**needed, name: n}))
            except ValidationError:  # not a number, or one with a bound
                continue
            found[name] = n
            break
    with suppress(ValidationError):  # some of them exclude each other
        stages.append(cls(**{**needed, **found}))
    return stages


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", names("stage"))
def test_a_plan_and_the_models_are_known_at_once(name: str) -> None:
    for stage in enlarged(find("stage", name)):
        assert len(stage.models) < 100
        for incoming in (Count(0, 0), Count(1, HUGE), Count(HUGE, None)):
            plan = stage.plan(incoming)
            assert min(plan.calls.low, plan.passes.low) >= 0


def test_every_number_is_enlarged() -> None:
    stages = [stage for stage in enlarged(Sample) if isinstance(stage, Sample)]
    assert HUGE in {stage.n for stage in stages} and HUGE in {stage.max_tokens for stage in stages}
