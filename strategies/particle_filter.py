"""Particle filtering over steps: partial answers are resampled in proportion to what a process reward model thinks.

Source: Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based
Monte Carlo Methods" (arXiv 2502.01618), section 3; sequential Monte Carlo as in Doucet and Johansen 2009, "A Tutorial
on Particle Filtering and Smoothing", section 3. Entropic annealing as in its_hub, the authors' later library.
Cost: at most n calls per step, and a score for each. Resampling costs nothing; nor does what is finished.

Each round extends every particle that is not finished by one step, multiplies its weight, and resamples: heavy
particles are continued several times, light ones are dropped, and nothing is kept for certain, so a reward model that
errs early does not decide alone, as in a beam. What it draws from, for answers x of the model's probability p(x):

- `weights: prefix`: p(x) times the potential of every prefix of x.
- `weights: incremental`: p(x) times the potential of x alone; each step multiplies by the ratio of two potentials.

A finished answer competes on in later rounds. With `prefix` it weighs its potential again in each of them, as in the
paper's code; else an answer of few steps would have few factors. So where lengths differ the target depends on when the
last particle ends. With `incremental`, or with `finished: keep`, it is as above whatever the lengths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from archon.component import Value
from archon.stage import Count, Plan
from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.ranking import best_first
from archon.strategies.stepping.resampling import Scheme, ess, log_mean, normalised, resampled
from archon.strategies.stepping.search import Given, Wish, generator
from archon.strategies.stepping.stage import Stepping
from archon.strategies.stepping.weights import Weighing, log_weight


@dataclass(frozen=True, slots=True)
class Particle:
    """One weighted partial answer."""

    partial: Partial = EMPTY
    log_weight: float = 0.0
    """Not normalised: the mean weight of all particles estimates the evidence."""
    log_potential: float = 0.0
    """Of the partial answer as it is; that of an empty one is 1."""


@dataclass(frozen=True, slots=True)
class Particles:
    """The state: weighted particles."""

    particles: tuple[Particle, ...]
    seed: int = 0
    calibrated: bool = True
    """Whether values are probabilities."""
    round: int = 0
    """How many steps were taken."""
    level: float = 0.0
    """The log-weight that each had after it was resampled the last time."""
    over: bool = False
    """Whether nothing came of any particle that was to go on."""

    @property
    def live(self) -> tuple[Particle, ...]:
        """Those that go on."""
        return tuple(p for p in self.particles if not p.partial.finished)

    @property
    def finished(self) -> tuple[Particle, ...]:
        """Those whose answers are finished."""
        return tuple(p for p in self.particles if p.partial.finished)

    @property
    def log_evidence(self) -> float:
        """The logarithm of the estimate of the target's sum over all answers; the estimate itself is unbiased.

        Not of annealed weights, whose target changes as they go.
        """
        return log_mean([p.log_weight for p in self.particles])

    @property
    def weights(self) -> tuple[float, ...]:
        """The particles' normalised weights."""
        return tuple(normalised([p.log_weight for p in self.particles]).tolist())


class Annealing(Value):
    """Flatter weights while the search is young and few particles have nearly all the weight."""

    by: Literal["ess", "entropy", "base"] = "ess"
    """What the temperature comes from: the share of particles that count, the weights' entropy, or progress alone."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Only where the effective sample size is below this share of n."""
    early: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Only in this first part of `max_steps`."""

    def temperature(self, log_weights: Sequence[float], n: int, progress: float) -> float:
        """What to divide the logarithms of n particles' weights by; progress is the share of steps taken."""
        share = ess(log_weights) / n
        if share >= self.threshold or progress >= self.early:
            return 1.0
        if self.by == "ess":
            return max(1.0, (1 - progress) / share)
        if self.by == "base":
            return max(1.0, 2 - progress)
        entropy = _entropy(log_weights)
        return max(1.0, 1 / max(entropy + (1 - entropy) * progress, 1e-9))


class ParticleFilter(Stepping):
    """Resample n partial answers in proportion to their weights after each step."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many particles."""
    resampling: Scheme = "multinomial"
    """How particles are drawn. `systematic` adds the least noise; the paper's is `multinomial`."""
    resample: Literal["always"] | Annotated[float, Field(gt=0, le=1)] = "always"
    """After each step, or only where the effective sample size is below this share of n; weights add up between."""
    weigh: Weighing = "logit"
    """What a potential is: the odds of a score that is a probability, or the score itself."""
    weight_temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The potential is raised to one over this. `temperature` is that of sampling."""
    weights: Literal["prefix", "incremental"] = "prefix"
    """What a step multiplies a weight by: the potential of what is written now, or its ratio to that before."""
    finished: Literal["compete", "keep"] = "compete"
    """What becomes of a finished answer: it is resampled with the others, or set aside with the weight it has."""
    annealing: Annealing | None = None
    """Entropic annealing of the weights before they are resampled."""
    last: Literal["weighted", "resampled"] = "weighted"
    """What leaves: the particles, whose weights stay behind; or n drawn by their weights, so that each counts the same,
    for a vote. Without a threshold, with `compete` and `prefix`, final weights are the potentials of the scores, and
    `sample_by_score` draws by them."""

    # --- the algorithm -----------------------------------------------------------------------------

    def start(self, given: Given) -> Particles:
        """n empty answers."""
        return Particles((Particle(),) * self.n, given.seed, given.calibrated)

    def ask(self, state: Particles) -> Sequence[Wish]:
        """A step of every particle that is not finished; equal ones are one wish."""
        return [] if state.over else [Wish(p.partial, count) for p, count in _counted(state.live)]

    def tell(self, state: Particles, grown: Sequence[Sequence[Partial]]) -> Particles:
        """Weigh what came, and resample. A particle of which nothing came is gone; others take its place."""
        came = [
            (parent, partial)
            for (parent, count), some in zip(_counted(state.live), grown, strict=True)
            for partial in some[:count]
        ]
        if not came:
            return replace(state, over=True)
        extended = [*map(self._again, state.finished), *self._weighed(came, state.calibrated)]
        state = replace(state, particles=tuple(extended), round=state.round + 1)
        return self._resampled(state) if state.live else state

    def found(self, state: Particles) -> Sequence[Partial]:
        """The particles' answers, those that are whole first, by value. What is not finished leaves only where none is
        whole."""
        particles = state.particles
        if self.last == "resampled" and particles and not state.live:
            logs = [p.log_weight for p in particles]
            drawn = resampled(
                normalised(logs), self.n, self.resampling, generator(state.seed, state.round, 1)
            )
            particles = tuple(particles[i] for i in drawn)
        written = [p.partial for p in particles if p.partial.steps]
        whole = [partial for partial in written if partial.whole]
        if not whole:
            return best_first(written)
        return [*best_first(whole), *best_first(p for p in written if p.finished and not p.whole)]

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step."""
        return self.calls(self.n * self.max_steps, self.n)

    # --- its parts ---------------------------------------------------------------------------------

    def _weighed(self, came: Sequence[tuple[Particle, Partial]], calibrated: bool) -> list[Particle]:
        """Each continuation with its parent's weight and the factor of its step.

        One whose scoring failed gets the mean factor of the others: nothing is known for or against it.
        """
        factors: list[float | None] = []
        for parent, partial in came:
            if partial.value is None or math.isnan(partial.value):
                factors.append(None)
                continue
            now = log_weight(
                partial.value, calibrated=calibrated, by=self.weigh, temperature=self.weight_temperature
            )
            factors.append(now if self.weights == "prefix" else now - parent.log_potential)
        known = [factor for factor in factors if factor is not None]
        mean = log_mean(known) if known else 0.0
        weighed = []
        for (parent, partial), factor in zip(came, factors, strict=True):
            by = mean if factor is None else factor
            potential = by if self.weights == "prefix" else parent.log_potential + by
            weighed.append(Particle(partial, parent.log_weight + by, potential))
        return weighed

    def _again(self, particle: Particle) -> Particle:
        """A finished particle after another round."""
        if self.finished == "keep" or self.weights == "incremental":
            return particle
        return replace(particle, log_weight=particle.log_weight + particle.log_potential)

    def _resampled(self, state: Particles) -> Particles:
        """After resampling, where it is time for it."""
        aside, pool = ((), state.particles) if self.finished == "compete" else (state.finished, state.live)
        places = self.n - len(aside)
        pool = tuple(sorted(pool, key=lambda p: -p.log_weight))  # systematic resampling minds the order
        logs = [p.log_weight for p in pool]
        if self.resample != "always" and ess(logs) >= self.resample * places:
            return state
        if self.annealing is not None:
            heat = self.annealing.temperature(logs, places, state.round / self.max_steps)
            logs = [state.level + (log - state.level) / heat for log in logs]
        level = log_mean(logs)
        chosen = resampled(normalised(logs), places, self.resampling, generator(state.seed, state.round))
        drawn = [
            (replace(pool[i], log_weight=level),) * count for i, count in Counter(chosen.tolist()).items()
        ]
        return replace(state, particles=(*aside, *chain.from_iterable(drawn)), level=level)


def _counted(particles: Sequence[Particle]) -> list[tuple[Particle, int]]:
    """Distinct particles, each with how many are equal to it: after resampling they stand side by side."""
    return [(particle, sum(1 for _ in equal)) for particle, equal in groupby(particles)]


def _entropy(log_weights: Sequence[float]) -> float:
    """The entropy of weights as a share of the most there can be: 1 where all are the same."""
    if len(log_weights) == 1:
        return 1.0
    weights = normalised(log_weights)
    some = weights[weights > 0]
    return float(-(some * np.log(some)).sum() / math.log(len(log_weights)))
