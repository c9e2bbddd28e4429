"""Parallel tempering over steps: Particle Gibbs at several temperatures at once, whose answers trade places.

Sources: Puri et al. 2025, "A Probabilistic Inference Approach to Inference-Time Scaling of LLMs using Particle-Based
Monte Carlo Methods" (arXiv 2502.01618), for Particle Gibbs with parallel tempering; Geyer 1991, "Markov chain Monte
Carlo maximum likelihood", and Swendsen and Wang 1986, "Replica Monte Carlo simulation of spin glasses", for the
exchange.
Cost: at most n calls per step in the first sweep over all replicas together, and one fewer per replica in each further
one; a score for each. The answers that are kept cost nothing, nor do exchanges.

Replica k draws from the model's probability of an answer x times exp(G(x) / T_k), where G(x) is the sum of its steps'
log-potentials (`prefix`) or the last of them (`incremental`). It does so by sweeps of conditional sequential Monte
Carlo (`stepping/conditional.py`). Hot replicas hardly mind what the reward model thinks of the first steps, so they
come to answers that the cold one would drop early. Between two sweeps neighbours i and j exchange the answers they keep
with probability min(1, exp((1 / T_i - 1 / T_j) (G(x_j) - G(x_i)))): even pairs and odd ones in turn. That leaves the
product of all targets as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archon.stage import Count, Plan
from archon.strategies.particle_gibbs import Conditional
from archon.strategies.stepping.conditional import Chain, Kernel, Trajectory
from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import Given, Weigh, Wish, generator

_EXCHANGE = 2**32 - 1
"""The place of exchanges in the random numbers, beside those of the replicas."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The state: a chain for each temperature, the coldest first, and how often neighbours exchanged."""

    seed: int
    calibrated: bool
    """Whether values are probabilities."""
    chains: tuple[Chain, ...]
    proposed: tuple[int, ...]
    """How often replicas i and i + 1 might have exchanged."""
    accepted: tuple[int, ...]
    """How often they did."""

    @property
    def acceptance(self) -> tuple[float | None, ...]:
        """The share of exchanges that took place, for each pair of neighbours; None where there were none to be."""
        return tuple(a / p if p else None for a, p in zip(self.accepted, self.proposed, strict=True))


class ParallelTempering(Conditional):
    """Particle Gibbs at several temperatures, with exchanges between neighbours."""

    n: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    """How many particles all replicas have together. A multiple of `replicas`. Where each has one alone, there is one
    sweep."""
    replicas: Annotated[int, Field(ge=1, le=64)] = 4
    """How many temperatures."""
    ratio: Annotated[float, Field(gt=1, le=1000)] = 2.0
    """Of each temperature to the next colder one. The coldest is `weight_temperature`."""
    ladder: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    """The temperatures, the coldest first, where they are not to be geometric."""
    from_replicas: Literal["cold", "all"] = "cold"
    """Whose answers leave: the coldest replica's, which are those of its target; or all, the coldest's first."""

    @model_validator(mode="after")
    def _a_ladder(self) -> ParallelTempering:
        if self.n % self.replicas:
            raise ValueError(f"`n` {self.n} is not a multiple of `replicas` {self.replicas}")
        if self.ladder:
            if len(self.ladder) != self.replicas:
                raise ValueError(
                    f"`ladder` has {len(self.ladder)} temperatures for {self.replicas} `replicas`"
                )
            if list(self.ladder) != sorted(set(self.ladder)):
                raise ValueError(f"`ladder` {self.ladder} does not increase")
        return self

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the potentials, for each replica."""
        return self.ladder or tuple(self.weight_temperature * self.ratio**k for k in range(self.replicas))

    def start(self, given: Given) -> Replicas:
        """A particle filter at each temperature."""
        chain = Chain(self.n // self.replicas, None).again()
        none = (0,) * (self.replicas - 1)
        return Replicas(given.seed, given.calibrated, (chain,) * self.replicas, none, none)

    def ask(self, state: Replicas) -> Sequence[Wish | Weigh]:
        """A step of every particle but the kept ones that is not finished, of all replicas."""
        kernels = self._kernels(state)
        return [
            wish for chain, kernel in zip(state.chains, kernels, strict=True) for wish in chain.wanted(kernel)
        ]

    def tell(self, state: Replicas, grown: Sequence[Sequence[Partial]]) -> Replicas:
        """Weigh and resample; when all sweeps have ended, exchange, and begin the next."""
        came = list(grown)
        kernels = self._kernels(state)
        chains = []
        for place, (chain, kernel) in enumerate(zip(state.chains, kernels, strict=True)):
            count = len(chain.wanted(kernel))
            some, came = came[:count], came[count:]
            chains.append(chain.told(some, kernel, state.seed, place))
        state = replace(state, chains=tuple(chains))
        sweeps = len(chains[0].done)
        if any(chain.sweep is not None for chain in chains) or sweeps >= self.sweeps:
            return state
        if self.n == self.replicas:
            return state
        state = self._exchanged(state, kernels, sweeps)
        return replace(state, chains=tuple(chain.again() for chain in state.chains))

    def found(self, state: Replicas) -> Sequence[Partial]:
        """The particles of the sweeps that count, replica by replica; those that are not finished last."""
        if self.from_replicas == "cold":
            return self.given_by(state.chains[0])
        found = [partial for chain in state.chains for partial in self.given_by(chain)]
        return sorted(found, key=lambda partial: not partial.finished)

    def plan(self, incoming: Count) -> Plan:
        """At most n continuations per step in the first sweep, one fewer per replica in the others."""
        continuations = (self.n + (self.sweeps - 1) * (self.n - self.replicas)) * self.max_steps
        answers = self.n if self.from_replicas == "all" else self.n // self.replicas
        return self.calls(continuations, answers * self.sweeps)

    def _kernels(self, state: Replicas) -> list[Kernel]:
        return [self.kernel(state.calibrated, temperature) for temperature in self.temperatures]

    def _exchanged(self, state: Replicas, kernels: Sequence[Kernel], sweeps: int) -> Replicas:
        rng = generator(state.seed, _EXCHANGE, sweeps, 0, 0)
        chains, proposed, accepted = list(state.chains), list(state.proposed), list(state.accepted)
        for i in range((sweeps - 1) % 2, self.replicas - 1, 2):
            one, other = chains[i].reference, chains[i + 1].reference
            chance = rng.random()
            if one is None or other is None:
                continue
            proposed[i] += 1
            if chance < exchange_probability((one, other), (kernels[i], kernels[i + 1])):
                accepted[i] += 1
                chains[i] = replace(chains[i], reference=other)
                chains[i + 1] = replace(chains[i + 1], reference=one)
        return replace(state, chains=tuple(chains), proposed=tuple(proposed), accepted=tuple(accepted))


def exchange_probability(kept: tuple[Trajectory, Trajectory], kernels: tuple[Kernel, Kernel]) -> float:
    """How likely two replicas exchange what they keep: Metropolis's rule for the product of their targets."""
    (one, other), (cold, hot) = kept, kernels
    gain = cold.log_target(other) - cold.log_target(one)
    return math.exp(min(0.0, (1 / cold.temperature - 1 / hot.temperature) * gain))
