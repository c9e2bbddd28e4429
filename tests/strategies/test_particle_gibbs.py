"""Particle Gibbs: a conditional sweep leaves the posterior as it is, and wrong ones do not."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.candidate import Candidate, Outcome
from archon.errors import CallTimedOut
from archon.session import Session
from archon.stage import Stage
from archon.strategies.particle_gibbs import Gibbs, ParticleGibbs
from archon.strategies.stepping import conditional
from archon.strategies.stepping.conditional import Chain, Kernel, Mark, Sweep, Trajectory
from archon.strategies.stepping.continuing import Rules, continued
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.resampling import Floats, Scheme, resampled
from archon.strategies.stepping.search import dumped, generator, loaded
from archon.testing import StageCases
from tests.strategies.growing import World, searched, texts
from tests.strategies.hmm import played, smoothed, within
from tests.strategies.made import PROBLEM
from tests.strategies.sweeping import POTENTIALS, RAGGED, SHORT, WORLD, drift, target, trajectory

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
RIGHT, WRONG = 4.0, 5.0
"""Standard errors: what a right sweep stays within, and a wrong one goes beyond."""
WEIGHTS = np.array([0.15, 0.1, 0.42, 0.33])

# --- resampling with one that is kept --------------------------------------------------------------


def offspring(chosen: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.bincount(chosen, minlength=WEIGHTS.size))


def kept_by_weight(scheme: Scheme, seed: int) -> tuple[int, ...]:
    """The numbers of offspring where the kept one is drawn by weight first, and the others beside it."""
    rng = generator(seed, 1)
    kept = int(rng.choice(WEIGHTS.size, p=WEIGHTS))
    order = np.array([kept, *(i for i in range(WEIGHTS.size) if i != kept)])
    free = order[conditional.conditional(WEIGHTS[order], 4, scheme, rng)]
    assert free.size == 3
    return offspring([kept, *free])


def unconditional(scheme: Scheme, seed: int) -> tuple[int, ...]:
    rng = generator(seed, 2)
    order = rng.permutation(WEIGHTS.size)
    return offspring(order[resampled(WEIGHTS[order], 4, scheme, rng)])


def differing(one: Counter[Any], other: Counter[Any]) -> float:
    """The p-value of both being draws from the same distribution."""
    names = [name for name in one | other if one[name] + other[name] >= 20]
    table = [[some[name] for name in names] for some in (one, other)]
    return float(stats.chi2_contingency(table).pvalue)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_keeping_one_that_was_drawn_by_weight_is_the_scheme_itself(scheme: Scheme) -> None:
    ours = Counter(kept_by_weight(scheme, seed) for seed in range(1500))
    theirs = Counter(unconditional(scheme, seed) for seed in range(1500))
    assert differing(ours, theirs) > 1e-3
    assert all(sum(count) == 4 for count in ours)
    for count in ours:
        expected = 4 * WEIGHTS
        if scheme == "systematic":
            assert np.all(np.abs(count - expected) < 1)
        if scheme == "residual":
            assert np.all(count >= np.floor(expected))


@pytest.mark.parametrize("scheme", ["residual", "stratified", "systematic"])
def test_drawing_the_others_as_if_none_were_kept_is_not_the_scheme(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(weights: Floats, n: int, by: Scheme, rng: np.random.Generator) -> Any:
        return resampled(weights, n - 1, by, rng)

    monkeypatch.setattr(conditional, "conditional", careless)
    ours = Counter(kept_by_weight(scheme, seed) for seed in range(1500))
    theirs = Counter(unconditional(scheme, seed) for seed in range(1500))
    assert differing(ours, theirs) < 1e-6


@pytest.mark.parametrize(("scheme", "n"), list(product(SCHEMES, (1, 2, 5))))
def test_weights_at_the_edge_leave_n_minus_one(scheme: Scheme, n: int) -> None:
    for weights in ([1.0], [0.0, 1.0], [1.0, 0.0], [0.2] * 5, [1e-300, 1.0], [0.5, 0.5, 0.0]):
        for seed in range(20):
            free = conditional.conditional(np.array(weights), n, scheme, generator(seed))
            assert free.size == n - 1
            assert all(weights[i] > 0 for i in free)


# --- a sweep ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_conditional_sweep_leaves_the_posterior_as_it_is(scheme: Scheme) -> None:
    assert drift(WORLD, POTENTIALS._replace(scheme=scheme), 3, 50) < RIGHT


def test_two_particles_are_enough() -> None:
    assert drift(SHORT, POTENTIALS, 2, 250) < RIGHT


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_it_does_so_at_every_temperature(temperature: float) -> None:
    assert drift(SHORT, POTENTIALS._replace(temperature=temperature, weigh="logit"), 3, 100) < RIGHT


@pytest.mark.parametrize("threshold", [None, 0.6])
@pytest.mark.parametrize("scheme", ["multinomial", "systematic"])
def test_it_does_so_for_answers_of_different_length(scheme: Scheme, threshold: float | None) -> None:
    assert drift(RAGGED, POTENTIALS._replace(scheme=scheme, threshold=threshold), 3, 30) < RIGHT


def test_it_does_so_for_ratios() -> None:
    joint = replace(RAGGED, values="joint")
    assert drift(joint, POTENTIALS._replace(weights="incremental"), 3, 30) < RIGHT


def one_step_ahead(kept: Trajectory) -> Trajectory:
    """With the weights of the step after each: the reference as the authors' code weighs it."""
    later = [*kept.marks[1:], kept.marks[-1]]
    return Trajectory(
        kept.partial, tuple(replace(m, value=after.value) for m, after in zip(kept.marks, later, strict=True))
    )


def test_a_reference_weighed_one_step_ahead_does_not() -> None:
    assert drift(SHORT, POTENTIALS, 2, 250, one_step_ahead) > WRONG


def test_without_its_reference_a_sweep_does_not() -> None:
    assert drift(SHORT, POTENTIALS, 2, 250, lambda kept: None) > WRONG


def test_a_reference_that_may_be_resampled_away_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = conditional._resampled

    def dropping(sweep: Sweep, kernel: Kernel, rng: np.random.Generator) -> Sweep:
        return right(replace(sweep, reference=None), kernel, rng)

    monkeypatch.setattr(conditional, "_resampled", dropping)
    assert drift(SHORT, POTENTIALS, 2, 250) > WRONG


def test_the_reference_is_among_the_particles_at_every_step_and_costs_nothing() -> None:
    kept = trajectory(WORLD, (1, 0, 1))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        chain, asked = Chain(4, None, kept).again(), 0
        while chain.sweep is not None:
            sweep = chain.sweep
            assert sweep.particles[0] == kept.at(sweep.round)
            wishes = chain.wanted(POTENTIALS)
            asked += sum(wish.n for wish in wishes)
            chain = chain.told(WORLD.grow(wishes, rng), POTENTIALS, seed)
        assert asked == 3 * 3
        assert kept.partial in chain.done[-1].answers


def test_a_trajectory_s_prefixes_are_what_it_was() -> None:
    made = [Trajectory()]
    for length in (1, 2, 3):
        made.append(made[-1].grown(WORLD.partial((1, 0, 1)[:length])))
    assert [made[-1].at(rounds) for rounds in range(4)] == made
    assert made[-1].at(9) == made[-1]
    assert made[-1].marks[1] == Mark(2, 0, WORLD.value((1, 0)))


@pytest.mark.parametrize(("last", "stops"), [(("  ", None), ()), (("", "\n"), ("\n\n",)), (("z", None), ())])
def test_they_are_so_too_where_the_last_round_changes_what_was_there(
    last: tuple[str, str | None], stops: tuple[str, ...]
) -> None:
    """An end of only space joins the last step; a stop string that began in it is taken away."""
    rules = Rules("newline", stops)
    made = [Trajectory()]
    for number, (text, stop) in enumerate([("x", "\n"), ("y", "\n"), last]):
        sample = Candidate(f"s#{number}", text, finish="stop_string" if stop else "stop", stop=stop)
        made.append(made[-1].grown(continued(made[-1].partial, sample, rules)))
    assert made[-1].partial.finished
    assert [made[-1].at(rounds).partial.text for rounds in range(4)] == [t.partial.text for t in made]
    assert made[-1].at(2).partial.steps == ("x\n", "y\n")


def test_a_score_that_failed_leaves_the_potential_as_it_was() -> None:
    marks = (Mark(1, 1, None), Mark(2, 2, 0.5), Mark(3, 3, math.nan), Mark(4, 4, 0.25))
    some = Trajectory(Partial(("a",) * 4), marks)
    prefix, ratios = POTENTIALS, POTENTIALS._replace(weights="incremental", temperature=2.0)
    assert prefix.log_target(some) == pytest.approx(math.log(0.5 * 0.5 * 0.25))
    assert [ratios.log_gain(some, r) for r in range(5)] == pytest.approx(
        [0, math.log(0.5) / 2, 0, math.log(0.5) / 2, 0]
    )


# --- the algorithm ---------------------------------------------------------------------------------


def gibbs(**settings: Any) -> ParticleGibbs:
    return ParticleGibbs(**{"weigh": "probability", **settings})


def test_long_run_averages_are_the_posterior_s() -> None:
    for scheme in ("multinomial", "systematic"):
        state = played(gibbs(n=3, sweeps=900, resampling=scheme), WORLD, 3)
        posterior = target(WORLD, POTENTIALS)
        for t in range(3):
            share = [
                sum(w * (WORLD.path(a)[t] == 1) for w, a in zip(s.weights, s.answers, strict=True))
                for s in state.done
            ]
            within(np.reshape(share, (30, 30)).mean(axis=1), smoothed(posterior, t))


def test_the_first_sweep_is_a_particle_filter_whose_evidence_is_unbiased() -> None:
    evidences = []
    for seed in range(500):
        (done,) = played(gibbs(n=4, sweeps=1), RAGGED, seed).done
        assert done.log_evidence is not None
        evidences.append(math.exp(done.log_evidence))
    within(evidences, RAGGED.evidence())


def test_one_particle_makes_one_sweep() -> None:
    state = played(gibbs(n=1, sweeps=5), WORLD, 0)
    assert len(state.done) == 1 and len(gibbs(n=1).found(state)) == 1


def test_a_chain_keeps_one_answer_from_sweep_to_sweep_and_gives_all() -> None:
    stage = gibbs(n=3, sweeps=4)
    state = played(stage, WORLD, 1)
    for before, after in zip(state.done, state.done[1:], strict=False):
        assert before.chosen is not None and after.answers[0] == before.answers[before.chosen]
    assert len(stage.found(state)) == 12
    assert stage.found(state)[3:] == gibbs(n=3, sweeps=4, burn_in=1).found(state)
    assert stage.found(state)[9:] == gibbs(n=3, sweeps=4, answers="last").found(state)


def test_the_same_seed_is_the_same_search_and_another_is_not() -> None:
    stage = gibbs(n=4, sweeps=3)
    assert played(stage, WORLD, 7) == played(stage, WORLD, 7)
    assert len({played(stage, WORLD, seed).done for seed in range(8)}) > 1


def line(text: str, number: int) -> tuple[str, Any]:
    done = text.count("\n") == 2
    return f"{number}\n", "stop" if done else None


def test_a_state_goes_to_json_and_back_at_every_step() -> None:
    world = World(line, lambda text: 0.2 + 0.1 * (len(text) % 5))
    state = searched(ParticleGibbs(n=4, sweeps=3, resample=0.7, resampling="residual"), world)
    assert len(state.done) == 3
    half = searched(ParticleGibbs(n=4, sweeps=3), World(line, lambda text: 0.5), rounds=5)
    again = loaded(Gibbs, dumped(half))
    assert half.chain.reference is not None and again == half


def test_a_beginning_that_fails_is_replaced_and_not_asked_for_for_ever() -> None:
    def step(text: str, number: int) -> Any:
        return None if number % 3 == 0 else line(text, number)

    stage = ParticleGibbs(n=6, sweeps=3)
    world = World(step, lambda text: 0.5)
    state = searched(stage, world)
    assert len(state.done) == 3 and all(done.answers for done in state.done)
    nothing = World(lambda text, number: None, lambda text: 0.5)
    state = searched(stage, nothing)
    assert stage.found(state) == [] and len(nothing.asked) == 3


def test_where_only_the_reference_lives_the_others_begin_again_from_it() -> None:
    calls = 0

    def step(text: str, number: int) -> Any:
        nonlocal calls
        calls += 1
        return line(text, number) if calls <= 6 or text else None

    world = World(step, lambda text: 0.5)
    stage = ParticleGibbs(n=2, sweeps=2)
    state = searched(stage, world)
    assert len(world.asked) == 6 and len(state.done) == 2
    first = state.done[0].answers[state.done[0].chosen]
    assert all(answer.steps[0] == first.steps[0] for answer in state.done[1].answers)


@pytest.mark.parametrize(("rounds", "hoped"), [(0, 0), (1, 4), (3, 4), (4, 4), (6, 8), (9, 12)])
def test_a_search_that_is_cut_off_gives_what_it_has(rounds: int, hoped: int) -> None:
    stage = ParticleGibbs(n=4, sweeps=3)
    state = searched(stage, World(line, lambda text: 0.5), rounds=rounds)
    found = stage.found(state)
    assert len(found) == hoped
    assert all(partial.finished for partial in found) or rounds < 3
    last = ParticleGibbs(n=4, sweeps=3, answers="last").found(state)
    assert texts(last) == texts(found[-4:])
    late = ParticleGibbs(n=4, sweeps=3, burn_in=2).found(state)
    assert late and all(partial.finished for partial in late) if rounds >= 3 else len(late) == hoped


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is left"):
        ParticleGibbs(sweeps=2, burn_in=2)
    for wrong in ({"sweeps": 0}, {"n": 0}, {"resample": 0}, {"weight_temperature": 0}, {"sweep": 3}):
        with pytest.raises(ValidationError):
            ParticleGibbs(**wrong)


# --- the stage -------------------------------------------------------------------------------------


def chance(*what: object) -> float:
    return random.Random("|".join(map(str, what))).random()


def write(call: Call) -> Reply:
    """Three lines. Each names the sample that wrote it."""
    prefix = call.request.prefix
    last = prefix.count("\n") == 2
    return Reply(f"{call.index}", "stop" if last else "stop_string", None if last else "\n")


def judge(text: str) -> float:
    return 0.2 + 0.6 * chance(text)


def models(reply: Any = write) -> dict[str, Model]:
    return {
        "default": Scripted(reply=reply, identity="writer", concurrency=99, max_concurrency=99, retries=0),
        "reward": Scripted(score=judge, identity="judge", max_n=999),
    }


async def run(stage: Stage, reply: Any = write, **settings: Any) -> tuple[Outcome, list[Call], list[Any]]:
    async with Session(models=models(reply), **settings) as session:
        outcome = await session.solve(stage, PROBLEM)
        writer: Any = session.caller("default").backend
        reward: Any = session.caller("reward").backend
        return outcome, list(writer.calls), list(reward.scored)


async def test_kept_answers_are_neither_written_nor_scored_again() -> None:
    outcome, calls, scored = await run(ParticleGibbs(n=5, sweeps=3))
    assert len(calls) == 3 * 5 + 2 * 3 * 4
    assert len({(call.request.prefix, call.index) for call in calls}) == len(calls)
    replies = [reply for request in scored for reply in request.replies]
    assert len(replies) == len(set(replies)) == len({call.request.prefix + str(call.index) for call in calls})
    assert len(outcome.candidates) == 15
    assert {c.text.count("\n") for c in outcome.candidates} == {2}


async def test_several_runs_are_the_same_run() -> None:
    first, second = [(await run(ParticleGibbs(n=4, sweeps=3)))[0] for _ in range(2)]
    assert [c.text for c in first.candidates] == [c.text for c in second.candidates]
    other, _, _ = await run(ParticleGibbs(n=4, sweeps=3), seed=5)
    assert [c.text for c in first.candidates] != [c.text for c in other.candidates]


async def test_failing_calls_leave_the_others() -> None:
    def failing(call: Call) -> Reply:
        if chance("fails", call.request.prefix, call.index) < 0.3:
            raise CallTimedOut("no reply")
        return write(call)

    outcome, _, _ = await run(ParticleGibbs(n=6, sweeps=3), failing)
    assert len(outcome.candidates) > 6 and all(c.finish == "stop" for c in outcome.candidates)


@pytest.mark.parametrize("requests", [4, 12, 25, 40])
async def test_a_budget_ends_it_with_what_it_has(requests: int) -> None:
    outcome, calls, _ = await run(ParticleGibbs(n=4, sweeps=4, budget=Budget(requests=requests)))
    assert outcome.usage.requests <= requests and outcome.candidates
    assert outcome.stopped == "budget" and len(calls) < 3 * (4 + 3 * 3)


class TestParticleGibbs(StageCases):
    def make_stage(self) -> Stage:
        return ParticleGibbs(
            n=3, sweeps=2, resampling="systematic", resample=0.5, weights="incremental", answers="last"
        )

    def models(self) -> dict[str, Model]:
        return {"reward": models()["reward"]}
