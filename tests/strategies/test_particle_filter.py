"""The particle filter against exact answers: evidence, posterior, and what becomes of particles that end or fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import partial as given_that
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from archon.strategies.particle_filter import Annealing, Particle, ParticleFilter, Particles
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.resampling import Scheme, ess, log_mean, normalised, resampled
from archon.strategies.stepping.search import Given, Wish, dumped, generator, loaded
from archon.strategies.stepping.weights import log_weight
from tests.strategies.hmm import HMM, Path, played, within

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
Weights = Literal["prefix", "incremental"]
RUNS = 250


def weigher(stage: ParticleFilter) -> Callable[[float], float]:
    return given_that(log_weight, calibrated=True, by=stage.weigh, temperature=stage.weight_temperature)


def world(stage: ParticleFilter, **settings: Any) -> HMM:
    """One where this stage's target is the posterior, if its weights are probabilities."""
    return HMM(values="emission" if stage.weights == "prefix" else "joint", **settings)


def shares(state: Particles) -> dict[Path, float]:
    """Every answer's share of the weight."""
    found: dict[Path, float] = {}
    for particle, weight in zip(state.particles, state.weights, strict=True):
        path = HMM.path(particle.partial)
        found[path] = found.get(path, 0.0) + weight
    return found


def matches(stage: ParticleFilter, hmm: HMM, target: dict[Path, float], runs: int = RUNS) -> None:
    """The evidence is unbiased, and so are the weights of all answers; their shares are the posterior's.

    The last by the estimate of evidence times (share - posterior), whose mean is exactly 0.
    """
    states = [played(stage, hmm, seed) for seed in range(runs)]
    evidences = np.exp([state.log_evidence for state in states])
    evidence = math.fsum(target.values())
    within(evidences, evidence)
    found = [shares(state) for state in states]
    for path, exact in target.items():
        share = np.array([one.get(path, 0.0) for one in found])
        within(evidences * share, exact, 5)
        within(evidences * (share - exact / evidence), 0, 5)
    assert set().union(*found) <= set(target)


EVERY = list(product(SCHEMES, ("always", 0.5), ("prefix", "incremental")))


@pytest.mark.parametrize(("scheme", "resample", "weights"), EVERY)
def test_evidence_and_posterior_are_those_of_the_hidden_markov_model(
    scheme: Scheme, resample: Any, weights: Weights
) -> None:
    stage = ParticleFilter(n=12, resampling=scheme, resample=resample, weights=weights, weigh="probability")
    hmm = world(stage)
    matches(stage, hmm, hmm.target(math.log, weights))
    assert hmm.evidence(math.log, weights) == pytest.approx(hmm.forward()[0])


@pytest.mark.parametrize(("scheme", "resample", "weights"), EVERY)
def test_answers_of_different_length_that_are_kept_have_the_target_that_is_said(
    scheme: Scheme, resample: Any, weights: Weights
) -> None:
    stage = ParticleFilter(
        n=10, resampling=scheme, resample=resample, weights=weights, weight_temperature=1.5, finished="keep"
    )
    hmm = world(stage, ends=frozenset({1}))
    matches(stage, hmm, hmm.target(weigher(stage), weights))


@pytest.mark.parametrize(("scheme", "resample"), list(product(SCHEMES, ("always", 0.6))))
def test_answers_of_different_length_that_compete_by_ratios_have_that_target_too(
    scheme: Scheme, resample: Any
) -> None:
    stage = ParticleFilter(n=10, resampling=scheme, resample=resample, weights="incremental")
    hmm = world(stage, ends=frozenset({1}))
    matches(stage, hmm, hmm.target(weigher(stage), "incremental"))


@pytest.mark.parametrize("resample", ["always", 0.6])
def test_a_finished_answer_that_competes_weighs_again_in_each_round(resample: Any) -> None:
    """Its target at a fixed round multiplies the last potential again for each round since it ended. A filter that
    is over earlier is carried on to that round by its expectation, which is exact: nothing is sampled any more."""
    stage = ParticleFilter(n=10, resample=resample, weigh="probability")
    hmm = world(stage, ends=frozenset({1}))
    rounds = len(hmm.seen)
    sums: dict[Path, list[float]] = {path: [] for path in hmm.paths}
    for seed in range(800):
        state = played(stage, hmm, seed)
        found = dict.fromkeys(sums, 0.0)
        for p in state.particles:
            later = (rounds - state.round) * p.log_potential
            found[hmm.path(p.partial)] += math.exp(p.log_weight + later) / len(state.particles)
        for path, mass in found.items():
            sums[path].append(mass)
    for path, exact in hmm.target().items():
        within(sums[path], exact * hmm.value(path) ** (rounds - len(path)), 5)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("resample", ["always", 0.5])
def test_the_filtering_distribution_of_each_step_is_that_of_the_forward_algorithm(
    rounds: int, resample: Any
) -> None:
    stage = ParticleFilter(n=16, resample=resample, weigh="probability", resampling="systematic")
    hmm = HMM()
    states = [played(stage, hmm, seed, rounds) for seed in range(RUNS)]
    evidences = np.exp([state.log_evidence for state in states])
    within(evidences, HMM(seen=hmm.seen[:rounds]).forward()[0])
    second = [sum(w for path, w in shares(state).items() if path[-1] == 1) for state in states]
    within(evidences * (np.array(second) - hmm.forward()[1][rounds - 1][1]), 0)


@pytest.mark.parametrize("weights", ["prefix", "incremental"])
def test_many_particles_come_near_the_posterior_in_one_run(weights: Weights) -> None:
    stage = ParticleFilter(n=6000, weights=weights, resampling="systematic", weight_temperature=2)
    hmm = world(stage)
    exact = hmm.posterior(weigher(stage), weights)
    found = shares(played(stage, hmm, 5))
    assert sum(abs(found.get(path, 0.0) - p) for path, p in exact.items()) / 2 < 0.03


def test_a_wrong_target_is_seen() -> None:
    """The statistics above can tell: a filter that forgets what weights add up to between resamplings fails them."""

    class Forgetful(ParticleFilter):
        def tell(self, state: Particles, grown: Any) -> Particles:
            told = super().tell(state, grown)
            level = told.level
            return Particles(
                tuple(Particle(p.partial, level + p.log_potential, p.log_potential) for p in told.particles)
                if not told.live
                else told.particles,
                told.seed, told.calibrated, told.round, level,
            )  # fmt: skip

    hmm = HMM()
    stage = Forgetful(n=12, resample=0.3, weigh="probability")
    with pytest.raises(AssertionError, match="standard errors"):
        matches(stage, hmm, hmm.target())


# --- resampling ------------------------------------------------------------------------------------


def chain(*steps: str, value: float | None = 0.5, done: bool = False) -> Partial:
    return Partial(steps, (), value, "stop" if done else None, samples=steps)


def told(
    stage: ParticleFilter, *values: float | None, seed: int = 0, done: tuple[int, ...] = ()
) -> Particles:
    """After a first round in which the particles' values are these."""
    state = stage.start(Given(seed))
    grown = [chain(f"{i}\n", value=v, done=i in done) for i, v in enumerate(values)]
    return stage.tell(state, [grown])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scheme_that_is_chosen_is_the_one_that_draws(scheme: Scheme) -> None:
    values = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.2, 0.1)
    odds = normalised([log_weight(v, calibrated=True) for v in values])
    drawn = {}
    for seed in range(5):
        state = told(ParticleFilter(n=8, resampling=scheme), *values, seed=seed)
        drawn[seed] = [int(p.partial.steps[0]) for p in state.particles]
        assert drawn[seed] == list(resampled(odds, 8, scheme, generator(seed, 1)))
    others = [
        told(ParticleFilter(n=8, resampling=other), *values, seed=seed)
        for other in SCHEMES
        if other != scheme
        for seed in range(5)
    ]
    assert any([int(p.partial.steps[0]) for p in s.particles] != drawn[s.seed] for s in others)


@pytest.mark.parametrize("scheme", ["stratified", "systematic"])
def test_weights_that_alternate_do_not_fool_a_scheme_that_minds_the_order(scheme: Scheme) -> None:
    """Unsorted, systematic resampling would draw either half or all of them from the heavier kind."""
    for seed in range(20):
        state = told(
            ParticleFilter(n=200, resampling=scheme, weigh="probability"), *(0.75, 0.25) * 100, seed=seed
        )
        assert abs(sum(p.partial.value == 0.75 for p in state.particles) - 150) <= 1


def test_only_a_low_effective_sample_size_makes_it_resample() -> None:
    values = (0.5, 0.5, 0.5, 0.6)
    size = ess([log_weight(v, calibrated=True) for v in values]) / 4
    kept = told(ParticleFilter(n=4, resample=size - 0.01), *values)
    assert [p.partial.steps[0] for p in kept.particles] == ["0\n", "1\n", "2\n", "3\n"]
    assert kept.weights == pytest.approx((1 / 4.5, 1 / 4.5, 1 / 4.5, 1.5 / 4.5))
    drawn = told(ParticleFilter(n=4, resample=size + 0.01), *values)
    assert len(set(drawn.weights)) == 1
    assert drawn.log_evidence == pytest.approx(kept.log_evidence) == pytest.approx(math.log(4.5 / 4))


def test_weights_add_up_between_resamplings() -> None:
    stage = ParticleFilter(n=2, resample=0.01)
    state = told(stage, 0.8, 0.5)
    wishes = stage.ask(state)
    state = stage.tell(
        state, [[chain(*w.partial.steps, "x\n", value=v)] for w, v in zip(wishes, (0.75, 0.5), strict=True)]
    )
    assert [math.exp(p.log_weight) for p in state.particles] == pytest.approx([4 * 3, 1])
    ratio = ParticleFilter(n=2, resample=0.01, weights="incremental")
    state = told(ratio, 0.8, 0.5)
    state = ratio.tell(
        state, [[chain(*w.partial.steps, "x\n", value=v)] for w, v in zip(wishes, (0.75, 0.5), strict=True)]
    )
    assert [math.exp(p.log_weight) for p in state.particles] == pytest.approx([3, 1])


def test_after_the_last_step_nothing_is_drawn_and_weights_are_left() -> None:
    state = told(ParticleFilter(n=3), 0.8, 0.5, 0.2, done=(0, 1, 2))
    assert [p.partial.value for p in state.particles] == [0.8, 0.5, 0.2]
    assert state.weights == pytest.approx(normalised([math.log(4), 0, -math.log(4)]))
    assert not ParticleFilter(n=3).ask(state)


def test_those_that_leave_may_be_drawn_once_more() -> None:
    """Kept answers weigh differently: drawn by weight, each counts the same."""
    values = (0.8, 0.5, 0.2, 0.5)
    plain = ParticleFilter(n=4)
    assert [p.value for p in plain.found(told(plain, *values, done=(0, 1, 2, 3)))] == [0.8, 0.5, 0.5, 0.2]
    drawn: Counter[str] = Counter()
    stage = ParticleFilter(n=4, last="resampled")
    for seed in range(2000):
        drawn.update(p.steps[0] for p in stage.found(told(stage, *values, seed=seed, done=(0, 1, 2, 3))))
    for i, share in enumerate(normalised([math.log(v / (1 - v)) for v in values])):
        error = math.sqrt(share * (1 - share) / 8000)
        assert abs(drawn[f"{i}\n"] / 8000 - share) < 4.5 * error


def test_kept_answers_stay_and_only_the_others_are_drawn() -> None:
    stage = ParticleFilter(n=4, finished="keep")
    for seed in range(20):
        state = told(stage, 0.01, 0.9, 0.5, 0.9, seed=seed, done=(0,))
        assert state.particles[0].partial.steps == ("0\n",) and state.particles[0].log_weight < -4
        assert "0\n" not in {p.partial.steps[0] for p in state.live} and len(state.live) == 3
        assert len({p.log_weight for p in state.live}) == 1


# --- one chain, seeds, serialising -----------------------------------------------------------------


@pytest.mark.parametrize("stage", [ParticleFilter(n=1), ParticleFilter(n=1, resample=0.5, finished="keep")])
def test_one_particle_is_one_chain(stage: ParticleFilter) -> None:
    hmm = HMM()
    state = stage.start(Given(3))
    rng = np.random.default_rng(0)
    length = 0
    while wishes := stage.ask(state):
        (wish,) = wishes
        assert wish.n == 1 and len(wish.partial.steps) == length
        state = stage.tell(state, hmm.grow(wishes, rng))
        assert len(state.particles) == 1
        length += 1
    (particle,) = state.particles
    logs = [log_weight(v, calibrated=True) for v in particle.partial.scores]
    assert length == 4 and state.log_evidence == pytest.approx(sum(logs))


@pytest.mark.parametrize(
    "stage", [ParticleFilter(n=6), ParticleFilter(n=6, resample=0.7, annealing=Annealing())]
)
def test_the_same_seed_gives_the_same_particles(stage: ParticleFilter) -> None:
    hmm = HMM(ends=frozenset({1}))
    first = [played(stage, hmm, seed) for seed in range(5)]
    assert first == [played(stage, hmm, seed) for seed in range(5)]
    assert len(set(first)) > 1


def test_a_state_survives_json_and_goes_on_as_if_it_had_not_stopped() -> None:
    hmm, stage = HMM(ends=frozenset({1})), ParticleFilter(n=5, finished="keep")
    for rounds in range(5):
        state = played(stage, hmm, 2, rounds)
        again = loaded(Particles, dumped(state))
        assert again == state
        rng = np.random.default_rng(1), np.random.default_rng(1)
        if wishes := stage.ask(state):
            assert stage.tell(state, hmm.grow(wishes, rng[0])) == stage.tell(again, hmm.grow(wishes, rng[1]))


# --- what fails ------------------------------------------------------------------------------------


def test_equal_particles_are_one_wish_and_finished_ones_none() -> None:
    stage = ParticleFilter(n=6)
    assert stage.ask(stage.start(Given())) == [Wish(EMPTY, 6)]
    for seed in range(10):
        state = told(stage, 0.9, 0.6, 0.1, 0.1, 0.1, 0.7, seed=seed, done=(5,))
        wishes = stage.ask(state)
        assert len({w.partial for w in wishes}) == len(wishes)
        assert sum(w.n for w in wishes) == len(state.live)
        assert not any(w.partial.finished for w in wishes)


@pytest.mark.parametrize("finished", ["compete", "keep"])
def test_the_place_of_one_that_failed_goes_to_another(finished: Any) -> None:
    stage = ParticleFilter(n=5, finished=finished)
    state = stage.tell(stage.start(Given()), [[chain("a\n", value=0.9), chain("b\n", value=0.8)]])
    assert len(state.particles) == 5, "three did not come"
    wishes = stage.ask(state)
    state = stage.tell(state, [[], *([chain(*w.partial.steps, "c\n")] * w.n for w in wishes[1:])])
    if len(wishes) == 1:
        assert state.over and not stage.ask(state) and len(stage.found(state)) == 5
    else:
        assert {p.partial.steps for p in state.particles} == {(*wishes[1].partial.steps, "c\n")}
        assert len(state.particles) == 5
        assert wishes[0].partial not in {w.partial for w in stage.ask(state)}


def test_evidence_is_the_mean_of_those_that_came() -> None:
    stage = ParticleFilter(n=4, resample=0.1)
    state = stage.tell(stage.start(Given()), [[chain("a\n", value=0.8), chain("b\n", value=0.5)]])
    assert state.log_evidence == pytest.approx(math.log((4 + 1) / 2))


def test_where_nothing_comes_it_is_over_and_what_was_written_is_found() -> None:
    stage = ParticleFilter(n=3)
    state = stage.tell(stage.start(Given()), [[]])
    assert state.over and not stage.ask(state) and stage.found(state) == []
    state = told(stage, 0.5, 0.9, 0.3, done=(0,))
    over = stage.tell(state, [[] for _ in stage.ask(state)])
    assert over.over and over.particles == state.particles
    assert all(p.whole for p in stage.found(over)) is any(p.whole for p in stage.found(over))


def test_answers_that_are_whole_leave_before_those_cut_off_and_those_not_finished_only_where_none_is() -> (
    None
):
    cut = Partial(("c\n",), (), 0.9, "length", samples=("c",))
    some = (
        chain("a\n", value=0.3, done=True),
        chain("b\n", value=0.4),
        cut,
        chain("d\n", value=0.6, done=True),
    )
    stage = ParticleFilter(n=4)
    found = stage.found(Particles(tuple(map(Particle, some))))
    assert found == [some[3], some[0], cut]
    assert stage.found(Particles(tuple(map(Particle, some[1:3])))) == [cut, some[1]]
    assert stage.found(stage.start(Given())) == []


@pytest.mark.parametrize("weigh", ["logit", "probability"])
@pytest.mark.parametrize("weights", ["prefix", "incremental"])
def test_one_that_was_not_scored_is_neither_preferred_nor_dropped(weigh: Any, weights: Weights) -> None:
    stage = ParticleFilter(n=3, resample=0.01, weigh=weigh, weights=weights)
    state = told(stage, 0.9, None, 0.2)
    logs = [p.log_weight for p in state.particles]
    assert logs[1] == pytest.approx(log_mean([logs[0], logs[2]]))
    assert told(stage, None, math.nan, None).weights == pytest.approx((1 / 3,) * 3)


def test_scores_at_the_ends_are_still_weights() -> None:
    for calibrated in (True, False):
        stage = ParticleFilter(n=3, resample=0.01, weights="incremental", weight_temperature=1e-3)
        state = stage.start(Given(0, calibrated))
        state = stage.tell(
            state, [[chain("a\n", value=0.0), chain("b\n", value=1.0), chain("c\n", value=0.5)]]
        )
        wishes = stage.ask(state)
        state = stage.tell(
            state,
            [
                [chain(*w.partial.steps, "d\n", value=v)]
                for w, v in zip(wishes, (1.0, 0.0, 0.5), strict=False)
            ],
        )
        assert all(math.isfinite(p.log_weight) for p in state.particles)
        assert math.isfinite(state.log_evidence)


# --- annealing -------------------------------------------------------------------------------------


def test_annealing_heats_by_what_is_said() -> None:
    logs = [0.0, -3.0, -3.0, -3.0]
    share = ess(logs) / 4
    assert share < 0.5
    w = normalised(logs)
    entropy = float(-(w * np.log(w)).sum() / math.log(4))
    assert Annealing(by="ess").temperature(logs, 4, 0.25) == pytest.approx(0.75 / share)
    assert Annealing(by="base").temperature(logs, 4, 0.25) == 1.75
    beta = entropy + (1 - entropy) * 0.25
    assert Annealing(by="entropy").temperature(logs, 4, 0.25) == pytest.approx(1 / beta)


@pytest.mark.parametrize("by", ["ess", "entropy", "base"])
def test_annealing_is_for_a_young_search_with_few_particles_that_count(by: Any) -> None:
    logs = [0.0, -9.0, -9.0, -9.0]
    one = Annealing(by=by)
    assert one.temperature(logs, 4, 0.0) > 1.5
    assert one.temperature(logs, 4, 0.5) == 1 and one.temperature([0.0] * 4, 4, 0.0) == 1
    assert Annealing(by=by, early=0.1).temperature(logs, 4, 0.1) == 1
    assert Annealing(by=by, threshold=0.2).temperature(logs, 4, 0.0) == 1, "a quarter of them counts"
    assert one.temperature([2.0], 1, 0.0) == 1


def test_annealed_weights_are_flatter_and_keep_more_particles() -> None:
    values = (0.999, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    hot = ParticleFilter(n=8, max_steps=10, annealing=Annealing())
    cold = ParticleFilter(n=8, max_steps=10)
    kept = [
        np.mean([len({p.partial for p in told(stage, *values, seed=s).particles}) for s in range(50)])
        for stage in (cold, hot)
    ]
    assert kept[1] > 2 * kept[0]
    logs = np.array([log_weight(v, calibrated=True) for v in values])
    heat = Annealing().temperature(list(logs), 8, 0.1)
    assert told(hot, *values).log_evidence == pytest.approx(log_mean(logs / heat))
    late = ParticleFilter(n=8, max_steps=2, annealing=Annealing(early=0.5))
    assert told(late, *values) == told(cold, *values), "half of its steps are taken"


def test_settings_that_make_no_sense_are_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"n": 0}, {"resample": 0.0}, {"resample": 1.5}, {"resample": "never"}, {"weight_temperature": 0},
        {"resampling": "uniform"}, {"annealing": {"by": "time"}}, {"weights": "suffix"},
    ]  # fmt: skip
    for settings in wrong:
        with pytest.raises(ValidationError):
            ParticleFilter(**settings)
