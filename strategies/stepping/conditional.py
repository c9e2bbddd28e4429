"""Conditional sequential Monte Carlo: sweeps of particles of which the first is a trajectory that is kept.

Sources: Andrieu, Doucet and Holenstein 2010, "Particle Markov chain Monte Carlo methods" (J. R. Statist. Soc. B 72),
sections 2.4.3 and 4.3; Chopin and Singh 2015, "On particle Gibbs sampling" (Bernoulli 21), section 5, for resampling
schemes that are conditional on the kept one's survival.

A trajectory is an answer with what was thought of each beginning of it. Its target is the model's own probability of
it times its potentials, each to the power of 1 / T: those of all its prefixes (`prefix`), or that of the whole
(`incremental`, where each step multiplies by the ratio to the potential before). A finished particle stays as it is:
it takes part in resampling, and is weighed no more. So the target does not depend on how long others are.

In a sweep with a reference particle 0 follows it step by step, with the potentials of the same steps as the others';
it competes for the places of the others, and its own is certain. At the end one trajectory is drawn by weight. If the
reference came from the target, so does that one, with any number of particles from 2 on (tested on a world with known
answers). Steps of the reference are neither written nor scored again.

With ancestor sampling (Lindsten, Jordan and Schön 2014, "Particle Gibbs with Ancestor Sampling", J. Mach. Learn. Res.
15) what the reference was up to now may become another particle's beginning, before each resampling: particle i is
drawn by its weight times the target's ratio of the reference's further steps after i's to i's alone, which is the
model's probability of those steps there times the potentials they have there. So early steps change although few
particles reach back to them. The other places are then filled as beside any kept particle. A finished particle has
nothing after it and is not drawn. What is said and judged of a text depends on all that is before it, so the ratio goes
to the end of the reference; their section on models without the Markov property cuts it after some steps
(`ancestor_steps`), which is no longer exact. Potentials beyond the cut are asked for as the reference comes to them.

Cost: one step and its score for each free particle that is not finished, in each round. With ancestor sampling a
likelihood and a score more for each particle that is not finished, in each round after which the reference goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from archon.strategies.stepping.partial import EMPTY, Partial
from archon.strategies.stepping.resampling import (
    Floats,
    Indices,
    Scheme,
    ess,
    log_mean,
    normalised,
    resampled,
)
from archon.strategies.stepping.search import Weigh, Wish, generator
from archon.strategies.stepping.weights import Weighing, log_weight


@dataclass(frozen=True, slots=True)
class Mark:
    """How far an answer had come after one round."""

    steps: int
    tokens: int
    value: float | None
    """What was thought of it."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An answer, and how it came about."""

    partial: Partial = EMPTY
    marks: tuple[Mark, ...] = ()
    """One for each round in which it grew."""
    before: tuple[str, ...] | None = None
    """Its steps before its last round, where that changed one of them: an end that adds only space, or cuts off a
    stop string that began earlier."""

    def grown(self, partial: Partial) -> Trajectory:
        """With what one more round made of it."""
        old = self.partial.steps
        marks = (*self.marks, Mark(len(partial.steps), partial.tokens, partial.value))
        return Trajectory(partial, marks, None if partial.steps[: len(old)] == old else old)

    def at(self, rounds: int) -> Trajectory:
        """As it was after so many rounds: a prefix of it, or all of it."""
        if rounds >= len(self.marks):
            return self
        if rounds == 0:
            return Trajectory()
        whole, mark = self.partial, self.marks[rounds - 1]
        steps = whole.steps if self.before is None else self.before
        prefix = Partial(
            steps=steps[: mark.steps],
            scores=whole.scores[: mark.steps],
            value=mark.value,
            tokens=mark.tokens,
            samples=whole.samples[:rounds],
        )
        return Trajectory(prefix, self.marks[:rounds])


class Kernel(NamedTuple):
    """How a sweep weighs and resamples."""

    temperature: float = 1.0
    """Of the potentials: each is taken to the power of its inverse."""
    weights: Literal["prefix", "incremental"] = "prefix"
    weigh: Weighing = "logit"
    calibrated: bool = True
    """Whether values are probabilities."""
    scheme: Scheme = "multinomial"
    threshold: float | None = None
    """Resample where the effective sample size is below this share of the particles; None: always."""
    ancestors: bool = False
    """Draw whose beginning the reference's further steps continue."""
    ancestor_steps: int | None = None
    """By how many of these steps, where not by all of them."""

    def log_target(self, trajectory: Trajectory) -> float:
        """The logarithm of its potentials' product, at the temperature 1."""
        return math.fsum(self._gain(trajectory, round) for round in range(len(trajectory.marks)))

    def log_gain(self, trajectory: Trajectory, round: int) -> float:
        """By what a round (the first is 0) multiplies its weight, as a logarithm; 0 where it had ended before."""
        return self._gain(trajectory, round) / self.temperature if round < len(trajectory.marks) else 0.0

    def _gain(self, trajectory: Trajectory, round: int) -> float:
        now = self._potential(trajectory, round)
        return now if self.weights == "prefix" else now - self._potential(trajectory, round - 1)

    def _potential(self, trajectory: Trajectory, round: int) -> float:
        """Of the answer after a round: that of the round before where its scoring failed; 1 of an empty one."""
        for mark in reversed(trajectory.marks[: round + 1]):
            if mark.value is not None and not math.isnan(mark.value):
                return log_weight(mark.value, calibrated=self.calibrated, by=self.weigh)
        return 0.0


# --- a sweep ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep under way. With a reference, particle 0 is the reference as far as the sweep has come."""

    n: int
    particles: tuple[Trajectory, ...]
    """Fewer than n where calls failed; resampling fills their places."""
    log_weights: tuple[float, ...]
    """Since they were last resampled."""
    reference: Trajectory | None = None
    round: int = 0
    log_evidence: float = 0.0
    """The logarithm of the product of the mean weights at each resampling before."""
    weighing: tuple[int, ...] = ()
    """The places of the particles after which the reference's next steps are to be weighed, before anything else."""
    known: int | None = None
    """After how many rounds the reference's potentials are known; None: all of them."""

    @property
    def over(self) -> bool:
        """Whether every particle is finished, or none is left."""
        return all(particle.partial.finished for particle in self.particles)

    @property
    def free(self) -> tuple[Trajectory, ...]:
        """All but the reference."""
        return self.particles if self.reference is None else self.particles[1:]


def begun(n: int, reference: Trajectory | None = None) -> Sweep:
    """A sweep of n particles, one of which is the reference where there is one."""
    return Sweep(n, (Trajectory(),) * n, (0.0,) * n, reference)


def wanted(sweep: Sweep, kernel: Kernel) -> list[Wish | Weigh]:
    """The partial answers that are to grow by a step, or those after which the reference's next steps are weighed."""
    if sweep.weighing:
        return [_next(sweep, kernel, place) for place in sweep.weighing]
    return [*_growing(sweep)]


def _growing(sweep: Sweep) -> list[Wish]:
    counts: dict[Partial, int] = {}
    for particle in sweep.free:
        if not particle.partial.finished:
            counts[particle.partial] = counts.get(particle.partial, 0) + 1
    return [Wish(partial, count) for partial, count in counts.items()]


def told(sweep: Sweep, grown: Sequence[Sequence[Partial]], kernel: Kernel, seed: int, *place: int) -> Sweep:
    """The sweep after what it wanted has come: weighed, and resampled unless it is over.

    Where only the reference goes on, it does so at once. Where its next steps are to be weighed first, nothing else
    happens.
    """
    weighed = bool(sweep.weighing)
    if weighed:
        sweep = _descended(sweep, grown, kernel, generator(seed, *place, sweep.round, 2))
    else:
        sweep = _extended(sweep, grown, kernel)
    while not sweep.over:
        if not weighed and (places := _ancestors(sweep, kernel)):
            return replace(sweep, weighing=places)
        sweep = _resampled(sweep, kernel, generator(seed, *place, sweep.round, 0))
        if any(not particle.partial.finished for particle in sweep.free):
            break
        sweep, weighed = _extended(sweep, (), kernel), False
    return sweep


def _extended(sweep: Sweep, grown: Sequence[Sequence[Partial]], kernel: Kernel) -> Sweep:
    """One step further, and weighed; without those of which no continuation has come."""
    left = {wish.partial: list(some) for wish, some in zip(_growing(sweep), grown, strict=True)}
    particles, log_weights = [], []
    for place, (before, log) in enumerate(zip(sweep.particles, sweep.log_weights, strict=True)):
        if sweep.reference is not None and place == 0:
            particle = sweep.reference.at(sweep.round + 1)
        elif before.partial.finished:
            particle = before
        elif left[before.partial]:
            particle = before.grown(left[before.partial].pop(0))
        else:
            continue
        particles.append(particle)
        log_weights.append(log + kernel.log_gain(particle, sweep.round))
    return replace(sweep, particles=tuple(particles), log_weights=tuple(log_weights), round=sweep.round + 1)


def _resampled(sweep: Sweep, kernel: Kernel, rng: np.random.Generator) -> Sweep:
    """With n particles of equal weight, where it is time for that."""
    logs = sweep.log_weights
    if not _due(sweep, kernel):
        return sweep
    weights = normalised(logs)
    if sweep.reference is None:
        chosen = [int(i) for i in resampled(weights, sweep.n, kernel.scheme, rng)]
    else:
        chosen = [0, *(int(i) for i in conditional(weights, sweep.n, kernel.scheme, rng))]
    return replace(
        sweep,
        particles=tuple(sweep.particles[i] for i in chosen),
        log_weights=(0.0,) * sweep.n,
        log_evidence=sweep.log_evidence + log_mean(logs),
    )


def _due(sweep: Sweep, kernel: Kernel) -> bool:
    return kernel.threshold is None or ess(sweep.log_weights) < kernel.threshold * sweep.n


# --- ancestor sampling -----------------------------------------------------------------------------


def _ancestors(sweep: Sweep, kernel: Kernel) -> tuple[int, ...]:
    """The places of the particles one of which is to be the reference's beginning; that of the reference alone where
    only its next potential is not known."""
    reference = sweep.reference
    if not kernel.ancestors or reference is None or sweep.round >= len(reference.marks):
        return ()
    places = [place for place, particle in enumerate(sweep.particles) if not particle.partial.finished]
    if len(places) > 1 and _due(sweep, kernel):
        return tuple(places)
    return (0,) if sweep.known is not None and sweep.known <= sweep.round else ()


def _end(sweep: Sweep, reference: Trajectory, kernel: Kernel) -> int:
    """The round of the reference up to which it is weighed."""
    rounds = len(reference.marks)
    return rounds if kernel.ancestor_steps is None else min(rounds, sweep.round + kernel.ancestor_steps)


def _next(sweep: Sweep, kernel: Kernel, place: int) -> Weigh:
    """The reference's next steps after a particle's."""
    reference = sweep.reference
    assert reference is not None
    end = _end(sweep, reference, kernel)
    cuts = [mark.steps for mark in reference.marks[sweep.round - 1 : end]]
    rounds = tuple(reference.partial.steps[start:stop] for start, stop in pairwise(cuts))
    ending = reference.partial.ending if end == len(reference.marks) else None
    return Weigh(sweep.particles[place].partial, rounds, ending)


def _descended(
    sweep: Sweep, told: Sequence[Sequence[Partial]], kernel: Kernel, rng: np.random.Generator
) -> Sweep:
    """With the beginning of the reference drawn, which takes the place of the first particle. It stays the reference's
    own where nothing was told of that."""
    reference = sweep.reference
    assert reference is not None
    end, weighing = _end(sweep, reference, kernel), sweep.weighing
    sweep = replace(sweep, weighing=())
    grafts = [
        grafted(sweep.particles[place], reference, some) for place, some in zip(weighing, told, strict=True)
    ]
    if not told[0]:
        return sweep
    logs = [
        sweep.log_weights[place] + _log_ratio(graft, some, range(sweep.round, end), kernel)
        if some
        else -math.inf
        for place, graft, some in zip(weighing, grafts, told, strict=True)
    ]
    chosen = int(resampled(normalised(logs), 1, "multinomial", rng)[0])
    place, known = weighing[chosen], None if end == len(reference.marks) else end
    if place == 0 and sweep.known is None:
        return sweep
    particles, log_weights = list(sweep.particles), list(sweep.log_weights)
    particles[place], particles[0] = particles[0], grafts[chosen].at(sweep.round)
    log_weights[0], log_weights[place] = log_weights[place], log_weights[0]
    return replace(
        sweep,
        particles=tuple(particles),
        log_weights=tuple(log_weights),
        reference=grafts[chosen],
        known=known,
    )


def _log_ratio(graft: Trajectory, told: Sequence[Partial], rounds: range, kernel: Kernel) -> float:
    """The logarithm of the target's ratio of some rounds' steps to what is before them."""
    gains = (kernel.log_gain(graft, round) for round in rounds)
    return math.fsum((*(partial.logprob for partial in told), *gains))


def grafted(beginning: Trajectory, reference: Trajectory, told: Sequence[Partial]) -> Trajectory:
    """A trajectory that has come as far as the reference's beginning, with the reference's further rounds after it:
    as they were judged there, and not judged where nothing was told."""
    start = len(beginning.marks)
    old, new, whole = reference.at(start).partial, beginning.partial, reference.partial
    marks = list(beginning.marks)
    for number, mark in enumerate(reference.marks[start:]):
        value = told[number].value if number < len(told) else None
        steps, tokens = mark.steps - len(old.steps), mark.tokens - old.tokens
        marks.append(Mark(len(new.steps) + steps, new.tokens + tokens, value))
    partial = Partial(
        steps=(*new.steps, *whole.steps[len(old.steps) :]),
        scores=told[-1].scores if told else (),
        value=marks[-1].value,
        ending=(told[-1].ending if told else None) or whole.ending,
        tokens=marks[-1].tokens,
        samples=(*new.samples, *whole.samples[start:]),
    )
    return Trajectory(partial, tuple(marks))


# --- resampling beside one that is kept ------------------------------------------------------------


def conditional(weights: Floats, n: int, scheme: Scheme, rng: np.random.Generator) -> Indices:
    """The indices of the n - 1 particles drawn beside particle 0, given that it is one of the n.

    The scheme is that of `resampled` for particles in random order and places in random order, so it does not matter
    which place the kept one has. Given its survival, the numbers of offspring are those of the scheme, each outcome as
    much likelier as particle 0 has more offspring in it.
    """
    order = rng.permutation(weights.size)
    shuffled = weights[order]
    kept = int(np.flatnonzero(order == 0)[0])
    if scheme == "multinomial":
        drawn = resampled(shuffled, n - 1, scheme, rng)
    elif scheme == "residual":
        drawn = _residual(shuffled, kept, n, rng)
    else:
        # A point is uniform in the kept one's part of the unit interval: it is the one that drew it.
        edges = np.cumsum(shuffled)
        edges = edges / edges[-1]
        point = n * (edges[kept] - shuffled[kept] * rng.random())
        part = min(max(int(point), 0), n - 1)
        offsets = point - part if scheme == "systematic" else rng.random(n)
        points = np.delete((np.arange(n) + offsets) / n, part)
        found = np.searchsorted(edges, points, side="right")
        drawn = np.minimum(found, np.flatnonzero(shuffled)[-1])
    return np.asarray(order[drawn], dtype=np.int64)


def _residual(weights: Floats, kept: int, n: int, rng: np.random.Generator) -> Indices:
    """Beside the kept one, which has either a sure place or one of those that are drawn."""
    expected = n * weights
    sure = np.floor(expected + 1e-12).astype(np.int64)
    rest = n - int(sure.sum())
    left = np.maximum(expected - sure, 0)
    if rng.random() * expected[kept] < sure[kept]:
        sure[kept] -= 1
    else:
        rest -= 1
    certain = np.repeat(np.arange(weights.size), sure)
    if rest <= 0:
        return np.asarray(certain[: n - 1], dtype=np.int64)
    drawn = resampled(left / left.sum(), rest, "multinomial", rng)
    return np.asarray(np.concatenate([certain, drawn]), dtype=np.int64)


# --- a chain of sweeps -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has ended with."""

    answers: tuple[Partial, ...]
    weights: tuple[float, ...]
    """Normalised; the answers so weighed stand for the target."""
    log_evidence: float | None
    """The logarithm of the estimate of the target's sum; unbiased (before the logarithm) in a sweep without a
    reference. None where no answer is left."""
    chosen: int | None
    """The place of the next reference among the answers; None where no answer is left."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Sweeps, one after another, each with a reference from the one before."""

    n: int
    sweep: Sweep | None
    """The one under way; None between two, and after the last."""
    reference: Trajectory | None = None
    done: tuple[Swept, ...] = ()

    def again(self) -> Chain:
        """With the next sweep begun: a particle filter where there is no reference."""
        return replace(self, sweep=begun(self.n, self.reference))

    def wanted(self, kernel: Kernel) -> list[Wish | Weigh]:
        """What its sweep wants."""
        return [] if self.sweep is None else wanted(self.sweep, kernel)

    def told(self, grown: Sequence[Sequence[Partial]], kernel: Kernel, seed: int, *place: int) -> Chain:
        """After what it wanted has come. When its sweep is over, the next reference is drawn."""
        if self.sweep is None:
            return self
        place = (*place, len(self.done))
        sweep = told(self.sweep, grown, kernel, seed, *place)
        if not sweep.over:
            return replace(self, sweep=sweep)
        answers = tuple(particle.partial for particle in sweep.particles)
        if not answers:
            return replace(self, sweep=None, done=(*self.done, Swept((), (), None, None)))
        weights = normalised(sweep.log_weights)
        rng = generator(seed, *place, sweep.round, 1)
        chosen = int(resampled(weights, 1, "multinomial", rng)[0])
        evidence = sweep.log_evidence + log_mean(sweep.log_weights)
        swept = Swept(answers, tuple(float(w) for w in weights), evidence, chosen)
        return replace(self, sweep=None, reference=sweep.particles[chosen], done=(*self.done, swept))
