"""Particle Gibbs with ancestor sampling: it leaves the posterior as it is, wrong versions do not, and it mixes."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path as File
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from archon.backends.base import Model, Sampling
from archon.backends.nano.backend import Nano
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.candidate import Outcome, TokenLogprob
from archon.errors import CallTimedOut, CapabilityError
from archon.problem import Problem
from archon.run import Likelihood
from archon.session import Session
from archon.stage import Count, Stage
from archon.strategies.particle_gibbs import Gibbs, ParticleGibbs
from archon.strategies.stepping import conditional
from archon.strategies.stepping.conditional import Chain, Kernel, Mark, Trajectory, grafted
from archon.strategies.stepping.continuing import Rules
from archon.strategies.stepping.partial import Ending, Partial
from archon.strategies.stepping.resampling import Scheme
from archon.strategies.stepping.search import Given, Weigh, dumped, loaded
from archon.strategies.stepping.stage import Tokens
from archon.strategies.stepping.weighing import closed, joined, likely, reply
from archon.testing import StageCases, scripted_run
from tests.strategies.growing import World, searched
from tests.strategies.hmm import HMM, Path, played
from tests.strategies.made import PROBLEM
from tests.strategies.sweeping import POTENTIALS, RAGGED, SHORT, WORLD, drift, swept, trajectory

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
RIGHT, WRONG = 4.0, 5.0
"""Standard errors: what a right sweep stays within, and a wrong one goes beyond."""
EXACT = POTENTIALS._replace(ancestors=True)


@dataclass(frozen=True)
class Remembering(HMM):
    """What the reward model says of a step depends on the first state as well: no step forgets how it all began."""

    __hash__ = HMM.__hash__

    def value(self, path: Path) -> float:
        agrees = path[-1] == path[0] or len(path) < 3
        return super().value(path) * (1.0 if agrees else 0.05)


LASTING = Remembering(
    first=(0.5, 0.5), moves=((0.5, 0.5), (0.5, 0.5)), emits=((0.6, 0.4), (0.4, 0.6)), seen=(0, 1, 0)
)

STICKY = HMM(
    first=(0.5, 0.5), moves=((0.95, 0.05), (0.05, 0.95)), emits=((0.5, 0.1), (0.4, 0.5)), seen=(0, 1, 1)
)
"""The first step says little, and those that follow are like it and say much."""

# --- a sweep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sweep_leaves_the_posterior_as_it_is(scheme: Scheme) -> None:
    assert drift(WORLD, EXACT._replace(scheme=scheme), 3, 50) < RIGHT


def test_two_particles_are_enough() -> None:
    assert drift(SHORT, EXACT, 2, 250) < RIGHT


@pytest.mark.parametrize("scheme", ["multinomial", "systematic"])
def test_it_does_so_for_answers_of_different_length_and_where_it_is_not_always_time(scheme: Scheme) -> None:
    assert drift(RAGGED, EXACT._replace(scheme=scheme, threshold=0.6), 3, 30) < RIGHT


def test_it_does_so_for_ratios_at_another_temperature() -> None:
    joint = replace(RAGGED, values="joint")
    assert drift(joint, EXACT._replace(weights="incremental", temperature=2.0), 3, 30) < RIGHT


def test_one_step_is_enough_where_the_next_forgets_the_others() -> None:
    assert drift(WORLD, EXACT._replace(ancestor_steps=1), 3, 50) < RIGHT


def test_where_nothing_is_forgotten_the_whole_rest_counts_and_one_step_is_too_few() -> None:
    assert drift(LASTING, EXACT, 2, 200) < RIGHT
    assert drift(LASTING, EXACT._replace(ancestor_steps=1), 2, 200) > WRONG


def without(*, likelihood: bool = True, potentials: bool = True) -> Any:
    def ratio(graft: Trajectory, told: Sequence[Partial], rounds: range, kernel: Kernel) -> float:
        logs = [partial.logprob for partial in told] if likelihood else []
        gains = [kernel.log_gain(graft, round) for round in rounds] if potentials else []
        return math.fsum((*logs, *gains))

    return ratio


def test_without_the_likelihood_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drift(STICKY, EXACT, 3, 90) < RIGHT
    monkeypatch.setattr(conditional, "_log_ratio", without(likelihood=False))
    assert drift(STICKY, EXACT, 3, 90) > WRONG


def test_without_the_potentials_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "_log_ratio", without(potentials=False))
    assert drift(LASTING, EXACT, 2, 200) > WRONG


def test_with_both_left_as_they_are_the_stand_in_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = trajectory(WORLD, (1, 0, 1))
    real = [swept(Chain(4, None, kept), WORLD, EXACT, seed) for seed in range(5)]
    monkeypatch.setattr(conditional, "_log_ratio", without())
    assert [swept(Chain(4, None, kept), WORLD, EXACT, seed) for seed in range(5)] == real


@pytest.mark.parametrize("steps", [1, 2, None])
@pytest.mark.parametrize("threshold", [None, 0.7])
def test_what_is_kept_is_judged_as_it_was_written_anew(steps: int | None, threshold: float | None) -> None:
    """However few steps were looked at, each potential is that of its own beginning when it counts."""
    kernel = EXACT._replace(ancestor_steps=steps, threshold=threshold)
    changed = False
    for seed in range(40):
        chain = Chain(3, None, trajectory(LASTING, (0, 1, 0)))
        for _ in range(3):
            chain = swept(chain, LASTING, kernel, seed)
            assert chain.reference is not None
            path = LASTING.path(chain.reference.partial)
            fresh = trajectory(LASTING, path)
            assert chain.reference.marks == fresh.marks
            assert chain.reference.partial.scores == fresh.partial.scores
            assert chain.reference.partial.finished and len(chain.reference.partial.samples) == 3
            changed |= path[0] == 1
    assert changed


def first_steps(stage: ParticleGibbs, world: HMM, seed: int) -> list[int]:
    """The first state of what each sweep kept."""
    done = played(stage, world, seed).done
    return [world.path(one.answers[one.chosen])[0] for one in done if one.chosen is not None]


def test_it_mixes_where_few_particles_have_many_steps() -> None:
    long = HMM(seen=(0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1))
    changes = {}
    for drawn in (False, True):
        stage = ParticleGibbs(
            n=3, sweeps=150, weigh="probability", ancestor_sampling=drawn, ancestor_steps=None
        )
        kept = first_steps(stage, long, 4)
        changes[drawn] = sum(one != other for one, other in pairwise(kept))
    assert changes[True] > 2 * changes[False], changes


# --- a trajectory ----------------------------------------------------------------------------------


def test_a_graft_has_the_steps_of_both_and_what_is_told_of_them() -> None:
    base = Trajectory().grown(Partial(("A\n", "B\n"), (0.1, 0.2), 0.2, tokens=7, samples=("a",)))
    kept = (
        Trajectory()
        .grown(Partial(("x\n",), (0.5,), 0.5, tokens=2, samples=("1",)))
        .grown(Partial(("x\n", "y\n"), (0.5, 0.6), 0.6, tokens=5, samples=("1", "2")))
        .grown(Partial(("x\n", "y\n"), (0.5, 0.7), 0.7, "stop", tokens=6, samples=("1", "2", "3")))
    )
    told = [Partial(("A\n", "B\n", "y\n"), (0.3, 0.4, 0.8), 0.8, logprob=-1.0)]
    one = grafted(base, kept, told)
    assert one.marks == (Mark(2, 7, 0.2), Mark(3, 10, 0.8), Mark(3, 11, None))
    assert one.partial == Partial(
        ("A\n", "B\n", "y\n"), (0.3, 0.4, 0.8), None, "stop", 11, samples=("a", "2", "3")
    )


RULES = Rules("newline", until=None, max_steps=3)
UNTIL = RULES._replace(until=re.compile("box"))


@pytest.mark.parametrize(
    ("rounds", "ending", "rules", "hoped"),
    [
        ((("b\n",),), None, RULES, [None]),
        ((("b\n",), ("c",)), "stop", RULES, [None, "stop"]),
        ((("b\n",), ()), "stop", RULES, [None, "stop"]),
        ((("b\n",), ("c\n",)), None, RULES, []),  # it would have as many steps as it may
        ((("b\n",), ("c\n",)), "steps", RULES, [None, "steps"]),
        ((("b\n",),), "steps", RULES, []),  # it would go on
        ((("b\n",), ("c\n",), ("d",)), "stop", RULES, []),
        ((("b",),), "length", RULES, ["length"]),
        ((("b",),), "filtered", RULES, []),
        ((("box\n",), ("c",)), "stop", UNTIL, []),  # it would have ended before
        ((("b\n",), ("box\n",)), "until", UNTIL, [None, "until"]),
        ((("b\n",),), "until", UNTIL, []),  # it said so before
        ((("b",),), "until", UNTIL, ["stop"]),
        ((("box",),), "stop", UNTIL, ["until"]),
    ],
)
def test_a_continuation_ends_where_the_writer_would_have_ended(
    rounds: tuple[tuple[str, ...], ...], ending: Ending | None, rules: Rules, hoped: list[Ending | None]
) -> None:
    wish = Weigh(Partial(("a\n",)), rounds, ending)
    made = joined(wish, rules)
    assert [partial.ending for partial in made] == hoped
    if made:
        assert made[-1].text == "a\n" + "".join(step for added in rounds for step in added)


def test_the_end_counts_where_the_writer_set_it() -> None:
    def ends(ending: Ending | None, *steps: str) -> bool:
        return closed(Weigh(Partial(("a\n",)), (steps,), ending), RULES)

    assert ends("stop", "b") and ends("stop") and ends("until", "b")
    assert not ends("until", "b\n") and not ends("length", "b") and not ends("steps", "b\n")
    assert not ends(None, "b\n")


def test_certainties_are_those_of_each_step_and_the_end_belongs_to_the_last() -> None:
    wish = Weigh(Partial(("a\n", "b\n")), (("c\n",), ()), "stop")
    assert reply(wish) == ("a\nb\n", "c\n", "") and reply(wish, each=True) == ("a\n", "b\n", "c\n", "")
    told = [Likelihood(-1.0, 2), Likelihood(-2.0, 2), Likelihood(-3.0, 2), Likelihood(-1.0, 1)]
    made = joined(wish, RULES._replace(max_steps=9))
    one, other = likely(wish, made, told[1:])
    assert (one.logprob, one.logprobs, other.logprob, other.logprobs) == (-3.0, 2, -1.0, 1)
    one, other = likely(wish, made, told, certain=True)
    assert one.scores == pytest.approx([math.exp(-0.5), math.exp(-1), math.exp(-1.5)])
    assert other.scores == pytest.approx([math.exp(-0.5), math.exp(-1), math.exp(-4 / 3)])
    assert other.logprob == -1.0 and other.ending == "stop"


# --- the algorithm ---------------------------------------------------------------------------------


def line(text: str, number: int) -> tuple[str, Any]:
    done = text.count("\n") == 3
    return f"{number % 3}\n", "stop" if done else None


def gibbs(**settings: Any) -> ParticleGibbs:
    return ParticleGibbs(**{"n": 4, "sweeps": 3, "ancestor_sampling": True, **settings})


@pytest.mark.parametrize("steps", [1, 2, None])
def test_a_state_goes_to_json_and_back_at_every_step(steps: int | None) -> None:
    world = World(line, judge)
    state = searched(gibbs(ancestor_steps=steps, resample=0.95, resampling="residual"), world)
    assert len(state.done) == 3 and world.weighed
    stage = gibbs(ancestor_steps=steps)
    half = stage.start(Given(0))
    while half.chain.sweep is None or not half.chain.sweep.weighing:
        half = stage.tell(half, world.grow(stage.ask(half)))
    assert loaded(Gibbs, dumped(half)) == half and all(isinstance(wish, Weigh) for wish in stage.ask(half))


def test_each_particle_that_goes_on_is_weighed_once_a_step_after_the_first_sweep() -> None:
    world = World(line, lambda text: 0.5)
    searched(gibbs(ancestor_steps=None), world)
    assert [len(some) for some in world.weighed] == [4] * 3 * 2
    assert all(text.count("\n") == 4 for some in world.weighed for text in some), "to the end"
    assert [sum(n for _, n in some) for some in world.asked] == [4] * 4 + [3] * 8


def test_where_the_likelihood_fails_the_kept_answer_stays_as_it_is() -> None:
    world = World(line, lambda text: 0.5, likely=lambda before, text: None)
    state = searched(gibbs(), world)
    assert len(state.done) == 3 and world.weighed
    plain = searched(gibbs(ancestor_sampling=False), World(line, lambda text: 0.5))
    assert [done.answers[0] for done in state.done] == [done.answers[0] for done in plain.done]


def test_settings_that_go_by_other_probabilities_are_refused() -> None:
    for wrong in (
        {"temperature": 0.7},
        {"top_p": 0.9},
        {"stop": ("END",)},
        {"until": "x", "steps": Tokens(tokens=4)},
        {"ancestor_steps": 0},
    ):
        with pytest.raises(ValidationError):
            gibbs(**wrong)
    assert gibbs(temperature=1.0, top_p=1.0, until="x").manner.weighs
    assert not ParticleGibbs(temperature=0.7, stop=("END",)).manner.weighs


# --- the stage -------------------------------------------------------------------------------------


WARM = Sampling(temperature=1.0)


def chance(*what: object) -> float:
    return random.Random("|".join(map(str, what))).random()


def write(call: Call) -> Reply:
    """Four lines, each of them one of three."""
    prefix = call.request.prefix
    last = prefix.count("\n") == 3
    return Reply(f"{call.index % 3}", "stop" if last else "stop_string", None if last else "\n")


def judge(text: str) -> float:
    return 0.2 + 0.6 * chance(text)


def likelihood(before: str, step: str, ends: bool) -> float:
    return -1.0 - chance(before, step, ends)


def models(
    reply: Any = write, likely: Any = likelihood, warm: Sampling = WARM, **settings: Any
) -> dict[str, Model]:
    writer = {
        "identity": "writer",
        "concurrency": 99,
        "max_concurrency": 99,
        "retries": 0,
        "max_n": 99,
        **settings,
    }
    return {
        "default": Scripted(reply=reply, likelihood=likely, sampling=warm, **writer),
        "reward": Scripted(score=judge, identity="judge", max_n=999),
    }


async def run(
    stage: Stage, given: dict[str, Model] | None = None, **settings: Any
) -> tuple[Outcome, Any, Any]:
    async with Session(models=given or models(), **settings) as session:
        outcome = await session.solve(stage, PROBLEM)
        return outcome, session.caller("default").backend, session.caller("reward").backend


@pytest.mark.parametrize("steps", [1, None])
async def test_given_text_is_read_once_and_a_resumed_run_pays_for_nothing(
    steps: int | None, tmp_path: File
) -> None:
    store = tmp_path / "s.sqlite"
    stage = gibbs(ancestor_steps=steps)
    outcome, writer, reward = await run(stage, store=store)
    asked = [(reply, request.finished) for request in writer.read for reply in request.replies]
    assert asked and len(asked) == len(set(asked))
    assert all("".join(reply).count("\n") == 3 for reply, finished in asked) or steps == 1
    scored = [reply for request in reward.scored for reply in request.replies]
    assert len(scored) == len(set(scored))
    assert len(outcome.candidates) == 12 and all(c.text.count("\n") == 3 for c in outcome.candidates)
    assert (
        outcome.by_model["default"].requests == len(writer.calls) + len(writer.read) or outcome.usage.requests
    )
    again, writer, reward = await run(stage, store=store, offline=True)
    assert not writer.read and not writer.calls and not reward.scored
    assert [c.text for c in again.candidates] == [c.text for c in outcome.candidates]
    assert again.usage == outcome.usage and again.fresh.requests == 0


async def test_the_writer_s_own_certainty_judges_what_is_given_as_well() -> None:
    def sure(call: Call) -> Reply:
        reply = write(call)
        return replace(
            reply, logprobs=(TokenLogprob(reply.text, likelihood(call.request.prefix, reply.text, False)),)
        )

    outcome, writer, reward = await run(gibbs(reward=None, ancestor_steps=None), models(sure))
    assert writer.read and not reward.scored
    assert all(len(reply) == 4 for request in writer.read for reply in request.replies), "step by step"
    assert all(c.verdicts["certainty"].score is not None for c in outcome.candidates)


async def test_a_writer_that_cannot_is_refused_before_anything_is_spent() -> None:
    refused = [
        (models(likely=None), "cannot tell how likely"),
        (models(warm=Sampling()), "temperature: 1"),
        (models(warm=Sampling(temperature=0.7)), "temperature: 1"),
        (models(warm=Sampling(temperature=1, top_k=5)), "top_k"),
        (models(warm=Sampling(temperature=1, stop=("END",))), "stop strings"),
    ]
    for given, why in refused:
        with pytest.raises(CapabilityError, match=why):
            await run(gibbs(), given)


async def test_a_failing_likelihood_leaves_the_sweeps_going() -> None:
    def failing(before: str, step: str, ends: bool) -> float:
        if chance("fails", before, step) < 0.3:
            raise CallTimedOut("no reply")
        return likelihood(before, step, ends)

    outcome, _, _ = await run(gibbs(n=5), models(likely=failing, max_n=1))
    assert outcome.failures and len(outcome.candidates) == 15


@pytest.mark.parametrize("requests", [12, 30, 45])
async def test_a_budget_ends_it_with_what_it_has(requests: int) -> None:
    outcome, _, _ = await run(gibbs(sweeps=4, budget=Budget(requests=requests)), models(max_n=1))
    assert outcome.usage.requests <= requests and outcome.candidates and outcome.stopped == "budget"


async def test_its_plan_counts_what_is_weighed() -> None:
    plain, drawn = (gibbs(ancestor_sampling=on, max_steps=4).plan(Count(0, 0)) for on in (False, True))
    assert plain.calls.high is not None
    assert drawn.calls.high == plain.calls.high + 3 * (4 * 2 * 4), "a likelihood, and two scores"
    outcome, _, _ = await run(gibbs(max_steps=4), models(max_n=1))
    assert outcome.usage.requests <= drawn.calls.high


async def test_it_runs_on_the_nano_models_without_a_failed_call() -> None:
    given: dict[str, Model] = {
        "default": Nano(workers=1, sampling=Sampling(temperature=1.0)),
        "reward": Nano(weights="prm", workers=1),
    }
    async with Session(models=given, seed=3) as session:
        stage = ParticleGibbs(n=3, sweeps=4, ancestor_sampling=True, ancestor_steps=None)
        outcome = await session.solve(stage, Problem.ask("3*4+12-5+7=?", id="nano"))
    assert not outcome.failures and len(outcome.candidates) == 12
    assert np.isfinite([c.verdicts["reward"].score or 0.0 for c in outcome.candidates]).all()


class TestAncestorSampling(StageCases):
    def make_stage(self) -> Stage:
        return ParticleGibbs(
            n=3, sweeps=2, temperature=1.0, ancestor_sampling=True, ancestor_steps=2, answers="last"
        )

    async def run_stage(self, stage: Stage, replies: Sequence[str]) -> Outcome:
        given = models()
        if len(replies) == 1:
            given["default"] = Scripted(replies={"*": tuple(replies)}, likelihood=likelihood, sampling=WARM)
        return await scripted_run(stage, replies=replies, models=given)
