"""Parallel tempering: exchanges leave the product of the tempered posteriors as it is, and free a chain from a mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from archon.backends.base import Model
from archon.budget import Budget
from archon.errors import CallTimedOut
from archon.stage import Stage
from archon.strategies.parallel_tempering import ParallelTempering, Replicas, exchange_probability
from archon.strategies.stepping.conditional import Chain, Kernel, Trajectory
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import Given
from archon.testing import StageCases
from archon.trace import MemoryTrace
from tests.strategies.growing import World, searched, texts
from tests.strategies.hmm import HMM, Path, played, within
from tests.strategies.sweeping import POTENTIALS, RAGGED, SHORT, drawn, target, trajectory
from tests.strategies.test_particle_gibbs import chance, line, models, run, write


def tempering(**settings: Any) -> ParallelTempering:
    return ParallelTempering(**{"weigh": "probability", "n": 4, "replicas": 2, **settings})


# --- exchanges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["prefix", "incremental"])
def test_an_exchange_is_in_detailed_balance_with_the_product_of_the_targets(weights: Any) -> None:
    for cold, hot in ((1.0, 2.0), (0.5, 8.0)):
        kernels = (
            POTENTIALS._replace(temperature=cold, weights=weights),
            POTENTIALS._replace(temperature=hot, weights=weights),
        )
        one, other = (target(RAGGED, kernel) for kernel in kernels)
        moved = 0
        for x, y in product(RAGGED.paths, repeat=2):
            there = exchange_probability((trajectory(RAGGED, x), trajectory(RAGGED, y)), kernels)
            back = exchange_probability((trajectory(RAGGED, y), trajectory(RAGGED, x)), kernels)
            assert one[x] * other[y] * there == pytest.approx(one[y] * other[x] * back)
            assert max(there, back) == 1
            moved += there < 0.9
        assert moved > 10


def test_it_is_the_metropolis_probability_of_the_potentials() -> None:
    low, high = trajectory(SHORT, (1, 0)), trajectory(SHORT, (0, 1))
    gain = math.log(0.9 * 0.05) - math.log(0.3 * 0.02)
    kernels = (POTENTIALS, POTENTIALS._replace(temperature=4.0))
    assert exchange_probability((low, high), kernels) == 1
    assert exchange_probability((high, low), kernels) == pytest.approx(math.exp(-0.75 * gain))


def tempered(stage: ParallelTempering, kept: list[Trajectory], seed: int) -> Replicas:
    """The state before the first sweep beside these."""
    state = stage.start(Given(seed))
    chains = [Chain(chain.n, None, one).again() for chain, one in zip(state.chains, kept, strict=True)]
    return replace(state, chains=tuple(chains))


def one_sweep(world: HMM, stage: ParallelTempering, seed: int) -> tuple[list[Any], Replicas]:
    """What each replica keeps after a sweep and an exchange, from what its posterior gave it before."""
    rng = np.random.default_rng([seed, 3])
    kernels = [POTENTIALS._replace(temperature=t) for t in stage.temperatures]
    kept = [trajectory(world, drawn(target(world, kernel), rng)) for kernel in kernels]
    state = tempered(stage, kept, seed)
    while not state.chains[0].done or state.chains[0].sweep is None:
        state = stage.tell(state, world.grow(stage.ask(state), rng))
    return [world.path(chain.reference.partial) for chain in state.chains if chain.reference], state


def check_product(stage: ParallelTempering, runs: int) -> None:
    """Both replicas keep what their posteriors say, independently of each other."""
    after = [one_sweep(SHORT, stage, seed)[0] for seed in range(runs)]
    marks: list[Callable[[Path], bool]] = [
        lambda path: path[0] == 0,
        lambda path: path[-1] == 0,
        lambda path: path[0] == path[1],
    ]
    posteriors = [target(SHORT, POTENTIALS._replace(temperature=t)) for t in stage.temperatures]
    hoped = [[math.fsum(p for x, p in one.items() if mark(x)) for mark in marks] for one in posteriors]
    for k, i in product(range(2), range(3)):
        within([float(marks[i](kept[k])) for kept in after], hoped[k][i], 4)
    for i, j in product(range(3), repeat=2):
        both = [float(marks[i](kept[0]) and marks[j](kept[1])) for kept in after]
        within(both, hoped[0][i] * hoped[1][j], 4)


def test_sweeps_and_exchanges_leave_the_product_of_the_posteriors_as_it_is() -> None:
    check_product(tempering(sweeps=2, ratio=6.0, weight_temperature=0.5), 500)


def test_exchanges_that_are_always_made_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(kept: tuple[Trajectory, Trajectory], kernels: tuple[Kernel, Kernel]) -> float:
        return 1.0

    monkeypatch.setattr("archon.strategies.parallel_tempering.exchange_probability", always)
    with pytest.raises(AssertionError, match="standard errors"):
        check_product(tempering(sweeps=2, ratio=6.0, weight_temperature=0.5), 500)


def test_even_and_odd_pairs_take_turns_and_the_state_says_how_often_they_exchanged() -> None:
    stage = tempering(n=8, replicas=4, sweeps=6)
    state = played(stage, SHORT, 1)
    assert state.proposed == (3, 2, 3)
    assert all(a <= p for a, p in zip(state.accepted, state.proposed, strict=True))
    assert sum(state.accepted) > 0
    assert state.acceptance == tuple(a / p for a, p in zip(state.accepted, state.proposed, strict=True))
    assert played(tempering(n=8, replicas=4, sweeps=1), SHORT, 1).acceptance == (None,) * 3


def test_what_is_exchanged_is_what_the_next_sweep_keeps() -> None:
    exchanged = 0
    for seed in range(20):
        state = played(tempering(sweeps=2), SHORT, seed)
        before = [chain.done[0].answers[chain.done[0].chosen or 0] for chain in state.chains]
        after = [chain.done[1].answers[0] for chain in state.chains]
        assert after == (before[::-1] if state.accepted[0] else before)
        exchanged += state.accepted[0]
    assert 0 < exchanged <= 20


# --- the algorithm ---------------------------------------------------------------------------------

MODES = {"a": (0.99, 0.5, 0.5), "b": (0.01, 0.5, 0.99999)}
"""Scores after each step: `a` begins well and stays middling, `b` begins badly and ends best."""


def two_modes() -> World:
    def step(text: str, number: int) -> Any:
        letter = text[0] if text else "ab"[number % 2]
        return f"{letter}{number}\n", "stop" if text.count("\n") == 2 else None

    return World(step, lambda text: MODES[text[0]][text.count("\n") - 1])


def stuck() -> Trajectory:
    kept = Trajectory()
    for length in (1, 2, 3):
        steps = tuple(f"a-{t}\n" for t in range(length))
        ending: Any = "stop" if length == 3 else None
        kept = kept.grown(Partial(steps, value=MODES["a"][length - 1], ending=ending, samples=steps))
    return kept


def share_that_leaves(stage: ParallelTempering) -> float:
    """Of runs whose replicas all begin with the wrong mode, how many end with the right one in the coldest."""
    left = 0
    for seed in range(12):
        world, state = two_modes(), tempered(stage, [stuck()] * stage.replicas, seed)
        while wishes := stage.ask(state):
            state = stage.tell(state, world.grow(wishes))
        last = state.chains[0].reference
        assert last is not None
        left += last.partial.text.startswith("b")
    return left / 12


def test_a_cold_chain_leaves_a_wrong_mode_with_tempering_and_stays_without() -> None:
    settings: dict[str, Any] = {"n": 12, "sweeps": 16, "weight_temperature": 0.5}
    assert share_that_leaves(ParallelTempering(replicas=3, ratio=4.0, **settings)) > 0.9
    assert share_that_leaves(ParallelTempering(replicas=1, **settings)) == 0


def test_the_ladder_is_geometric_or_as_given() -> None:
    assert ParallelTempering(n=8, weight_temperature=0.5, ratio=3.0).temperatures == (0.5, 1.5, 4.5, 13.5)
    assert ParallelTempering(n=8, replicas=2, ladder=(1.0, 5.0)).temperatures == (1.0, 5.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n": 6, "replicas": 4}, "multiple of `replicas`"),
        ({"n": 6, "replicas": 3, "ladder": (1, 2)}, "2 temperatures for 3"),
        ({"n": 6, "replicas": 3, "ladder": (1, 2, 2)}, "does not increase"),
        ({"sweeps": 2, "burn_in": 2}, "nothing is left"),
        ({"ratio": 1.0}, "greater than 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ParallelTempering(**settings)


def test_all_replicas_ask_in_the_same_rounds() -> None:
    world = World(line, lambda text: 0.5)
    stage = ParallelTempering(n=12, replicas=3, sweeps=3)
    state = searched(stage, world)
    asked = [sum(n for _, n in some) for some in world.asked]
    assert asked == [12] * 3 + [9] * 6
    assert [len(chain.done) for chain in state.chains] == [3, 3, 3]
    assert len(stage.found(state)) == 12
    everyone = ParallelTempering(n=12, replicas=3, sweeps=3, from_replicas="all").found(state)
    assert len(everyone) == 36 and texts(everyone[:12]) == texts(stage.found(state))


def test_a_replica_that_is_done_waits_for_the_others() -> None:
    def uneven(text: str, number: int) -> Any:
        return f"{number}\n", "stop" if number % 2 or text.count("\n") == 3 else None

    state = searched(ParallelTempering(n=8, sweeps=4), World(uneven, lambda text: 0.3 + 0.05 * len(text)))
    assert [len(chain.done) for chain in state.chains] == [4] * 4


def test_one_particle_per_replica_makes_one_sweep() -> None:
    stage = ParallelTempering(n=4, replicas=4, sweeps=3)
    world = World(line, lambda text: 0.5)
    assert len(stage.found(searched(stage, world))) == 1 and len(world.asked) == 3


def test_the_same_seed_is_the_same_search() -> None:
    stage = tempering(n=6, replicas=3, sweeps=3)
    assert played(stage, SHORT, 4) == played(stage, SHORT, 4)
    assert len({played(stage, SHORT, seed).chains for seed in range(8)}) > 1


def test_beginnings_that_fail_are_not_asked_for_for_ever() -> None:
    nothing = World(lambda text, number: None, lambda text: 0.5)
    stage = ParallelTempering(n=8, sweeps=3)
    assert stage.found(searched(stage, nothing)) == [] and len(nothing.asked) == 3
    some = World(lambda text, number: None if number % 3 == 0 else line(text, number), lambda text: 0.5)
    assert stage.found(searched(stage, some))


# --- the stage -------------------------------------------------------------------------------------


async def test_calls_are_as_many_as_it_says_and_each_is_new() -> None:
    trace = MemoryTrace()
    stage = ParallelTempering(n=8, replicas=2, sweeps=3)
    outcome, calls, scored = await run(stage, trace=trace)
    assert len(calls) == 3 * 8 + 2 * 3 * 6
    assert len({(call.request.prefix, call.index) for call in calls}) == len(calls)
    replies = [reply for request in scored for reply in request.replies]
    assert len(replies) == len(set(replies))
    rounds = [event for event in trace.events if event["event"] == "round"]
    assert len(rounds) == 9 and len(outcome.candidates) == 12


async def test_failing_calls_and_a_budget_leave_what_there_is() -> None:
    def failing(call: Any) -> Any:
        if chance("fails", call.request.prefix, call.index) < 0.3:
            raise CallTimedOut("no reply")
        return write(call)

    stage = ParallelTempering(n=12, replicas=3, sweeps=3, from_replicas="all")
    outcome, _, _ = await run(stage, failing)
    assert len(outcome.candidates) > 12 and all(c.finish == "stop" for c in outcome.candidates)
    for requests in (4, 20, 45):
        stage = ParallelTempering(n=8, replicas=2, sweeps=4, budget=Budget(requests=requests))
        outcome, _, _ = await run(stage)
        assert outcome.usage.requests <= requests and outcome.candidates and outcome.stopped == "budget"


class TestParallelTempering(StageCases):
    def make_stage(self) -> Stage:
        return ParallelTempering(
            n=6, replicas=3, sweeps=2, ladder=(0.5, 1.0, 4.0), resampling="stratified", from_replicas="all"
        )

    def models(self) -> dict[str, Model]:
        return {"reward": models()["reward"]}
