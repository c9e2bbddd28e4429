"""Particle Gibbs over steps: particle filters in turn, each with an answer of the one before among its particles.

Sources: Andrieu, Doucet and Holenstein 2010, "Particle Markov chain Monte Carlo methods" (J. R. Statist. Soc. B 72),
section 2.4.3; Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using
Particle-Based Monte Carlo Methods" (arXiv 2502.01618), for potentials by a process reward model. Our sweeps are the
conditional sequential Monte Carlo of the former (`stepping/conditional.py`): the kept answer is never resampled away,
and is weighed by the score of the same step as the others; in the latter's code it is one step ahead of them.
Cost: at most n calls per step in the first sweep and n - 1 in each further one, and a score for each. The kept answer
costs nothing, nor does what is finished. With ancestor sampling at most n likelihoods more per step of each further
sweep (the writer reads given text), and twice as many scores; a reward model that is given every beginning by itself
has one for each further step that is looked at.

A single filter loses the variety of its early steps, and what it kept it cannot take back. Each sweep begins anew
beside a good answer, which the others have to match, so n particles in several sweeps need no more memory or width than
in one. But with few particles and many steps they all come to descend from the kept answer's early steps, and the chain
moves only at the end. Ancestor sampling (Lindsten, Jordan and Schön 2014, "Particle Gibbs with Ancestor Sampling",
J. Mach. Learn. Res. 15) lets the kept answer's further steps follow another particle's, by how likely the writer and
the reward model find them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archon.stage import Count, Plan
from archon.strategies.stepping.conditional import Chain, Kernel, Swept
from archon.strategies.stepping.engine import Manner
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.resampling import Scheme
from archon.strategies.stepping.search import Given, Weigh, Wish
from archon.strategies.stepping.stage import Stepping, Tokens
from archon.strategies.stepping.weights import Weighing


class Conditional(Stepping):
    """What stages that run conditional sequential Monte Carlo have in common: how it weighs, resamples, and gives."""

    sweeps: Annotated[int, Field(ge=1, le=100_000)] = 4
    """How many, one after another. Where nothing but the kept answer would be in it, there is no further one."""
    resampling: Scheme = "multinomial"
    """How particles are drawn, in the form that keeps the reference. `systematic` adds the least noise."""
    resample: Literal["always"] | Annotated[float, Field(gt=0, le=1)] = "always"
    """After each step, or only where the effective sample size is below this share of n; weights add up between."""
    weigh: Weighing = "logit"
    """What a potential is: the odds of a score that is a probability, or the score itself."""
    weight_temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The potential is raised to one over this. `temperature` is that of sampling."""
    weights: Literal["prefix", "incremental"] = "prefix"
    """What a step multiplies a weight by: the potential of what is written now, or its ratio to that before. A
    finished answer is weighed no more."""
    answers: Literal["all", "last"] = "all"
    """Which sweeps' answers leave: of all, in order, or of the last that came to its end."""
    burn_in: Annotated[int, Field(ge=0)] = 0
    """So many first sweeps' answers stay behind where there are later ones. Fewer than `sweeps`."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Conditional:
        if self.burn_in >= self.sweeps:
            raise ValueError(f"`burn_in` {self.burn_in} is not below `sweeps` {self.sweeps}: nothing is left")
        return self

    def kernel(self, calibrated: bool, temperature: float) -> Kernel:
        """How a sweep weighs and resamples at one temperature of the potentials."""
        threshold = None if self.resample == "always" else self.resample
        return Kernel(temperature, self.weights, self.weigh, calibrated, self.resampling, threshold)

    def given_by(self, chain: Chain) -> list[Partial]:
        """The answers of one chain: its sweeps', then what is finished of one that was cut off, then the rest of it.

        What is not finished leaves only where nothing is that may.
        """
        done, sweep = chain.done, chain.sweep
        under_way = [] if sweep is None else [particle.partial for particle in sweep.free]
        finished = [partial for partial in under_way if partial.finished]
        rest = [partial for partial in under_way if not partial.finished and partial.steps]
        if self.answers == "last":
            ended = _answers(tuple(swept for swept in done if swept.answers)[-1:])
            return ended or [*finished, *rest]
        some = _answers(done[self.burn_in :])
        if len(done) >= self.burn_in:
            some += finished
        return some or _answers(done) or [*finished, *rest]


@dataclass(frozen=True, slots=True)
class Gibbs:
    """The state: a chain of sweeps."""

    seed: int
    calibrated: bool
    """Whether values are probabilities."""
    chain: Chain

    @property
    def done(self) -> tuple[Swept, ...]:
        """The sweeps that have ended, with their answers, weights and evidence estimates."""
        return self.chain.done


class ParticleGibbs(Conditional):
    """Particle filters in turn, each with one answer of the one before kept among its n particles."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """How many particles a sweep has, the kept one among them. One alone makes one sweep."""
    ancestor_sampling: bool = False
    """Before each resampling, draw anew whose beginning the kept answer's further steps follow. The writer has to tell
    how likely given text is, and to sample by its own probabilities: `temperature` 1, no `top_p`, no stop strings."""
    ancestor_steps: Annotated[int, Field(ge=1)] | None = 1
    """By how many of these steps: the more, the nearer to what is exact. null: to the end of the answer, which is
    exact."""

    @model_validator(mode="after")
    def _by_the_model_s_own_probabilities(self) -> ParticleGibbs:
        if not self.ancestor_sampling:
            return self
        if self.temperature not in (None, 1.0) or self.top_p not in (None, 1.0):
            raise ValueError(
                "`ancestor_sampling` goes by the model's own probabilities: `temperature: 1`, no `top_p`"
            )
        if self.stop:
            raise ValueError(
                "`ancestor_sampling` cannot tell what ended an answer where there is a `stop` string"
            )
        if self.until is not None and isinstance(self.steps, Tokens):
            raise ValueError(
                "`ancestor_sampling` with `until` needs steps that end by a delimiter, not by tokens"
            )
        return self

    @property
    def manner(self) -> Manner:
        """How partial answers are extended, scored and weighed."""
        return super().manner._replace(weighs=self.ancestor_sampling)

    def kernel(self, calibrated: bool, temperature: float) -> Kernel:
        """How a sweep weighs and resamples, and whether it draws ancestors."""
        kernel = super().kernel(calibrated, temperature)
        return kernel._replace(ancestors=self.ancestor_sampling, ancestor_steps=self.ancestor_steps)

    def start(self, given: Given) -> Gibbs:
        """A particle filter."""
        return Gibbs(given.seed, given.calibrated, Chain(self.n, None).again())

    def ask(self, state: Gibbs) -> Sequence[Wish | Weigh]:
        """A step of every particle but the kept one that is not finished; or how the kept one's next steps weigh after
        each of them."""
        return state.chain.wanted(self.kernel(state.calibrated, self.weight_temperature))

    def tell(self, state: Gibbs, grown: Sequence[Sequence[Partial]]) -> Gibbs:
        """Weigh and resample; when a sweep has ended, keep one answer by weight, and begin the next."""
        kernel = self.kernel(state.calibrated, self.weight_temperature)
        chain = state.chain.told(grown, kernel, state.seed)
        if chain.sweep is None and self.n > 1 and len(chain.done) < self.sweeps:
            chain = chain.again()
        return replace(state, chain=chain)

    def found(self, state: Gibbs) -> Sequence[Partial]:
        """The particles of the sweeps that count, the kept ones among them, sweep by sweep."""
        return self.given_by(state.chain)

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step in the first sweep, n - 1 in the others; with ancestor sampling, in these
        at most n weighed ones per step."""
        continuations = (self.n + (self.sweeps - 1) * (self.n - 1)) * self.max_steps
        weighed = self.n * (self.sweeps - 1) * self.max_steps if self.ancestor_sampling else 0
        return self.calls(continuations, self.n * self.sweeps, weighed)


def _answers(done: Sequence[Swept]) -> list[Partial]:
    return [answer for swept in done for answer in swept.answers]
