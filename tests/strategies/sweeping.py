"""Conditional sweeps on a hidden Markov world, and the test that a distribution is what it should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from archon.strategies.stepping.conditional import Chain, Kernel, Trajectory
from archon.strategies.stepping.weights import log_weight
from tests.strategies.hmm import HMM, Path

K = TypeVar("K")

WORLD = HMM(
    first=(0.5, 0.5),
    moves=((0.9, 0.1), (0.15, 0.85)),
    emits=((0.6, 0.1, 0.3), (0.8, 0.15, 0.05)),
    seen=(0, 1, 2),
)
"""Answers of three steps, of which the last says most about the first, and the second has the least value."""
SHORT = HMM(
    first=(0.5, 0.5),
    moves=((0.8, 0.2), (0.2, 0.8)),
    emits=((0.9, 0.02, 0.08), (0.3, 0.05, 0.65)),
    seen=(0, 1),
)
"""Answers of two steps, of which the first says much, and the second has little value."""
RAGGED = HMM(
    first=(0.4, 0.35, 0.25),
    moves=((0.5, 0.2, 0.3), (0.3, 0.3, 0.4), (1.0, 0.0, 0.0)),
    emits=((0.7, 0.3), (0.15, 0.85), (0.4, 0.6)),
    seen=(0, 1, 1),
    ends=frozenset({2}),
)
"""Answers of one to three steps."""
POTENTIALS = Kernel(weigh="probability")


def trajectory(world: HMM, path: Path) -> Trajectory:
    """An answer as a sweep would have made it."""
    made = Trajectory()
    for length in range(1, len(path) + 1):
        made = made.grown(world.partial(path[:length]))
    return made


def target(world: HMM, kernel: Kernel) -> dict[Path, float]:
    """The posterior that a kernel draws from, by enumeration."""

    def log(value: float) -> float:
        return log_weight(value, calibrated=True, by=kernel.weigh, temperature=kernel.temperature)

    return world.posterior(log, kernel.weights)


def drawn(posterior: Mapping[K, float], rng: np.random.Generator) -> K:
    """One of them, by chance."""
    names = list(posterior)
    return names[int(rng.choice(len(names), p=list(posterior.values())))]


def swept(chain: Chain, world: HMM, kernel: Kernel, seed: int) -> Chain:
    """A chain after its next sweep."""
    rng = np.random.default_rng([seed, 5])
    chain = chain.again()
    while chain.sweep is not None:
        wishes = chain.wanted(kernel)
        assert wishes, "a sweep that is not over wants something"
        chain = chain.told(world.grow(wishes, rng), kernel, seed)
    return chain


def features(world: HMM, kernel: Kernel, path: Path) -> NDArray[np.float64]:
    """What is compared of an answer: its potentials, the states at its beginning and its end, its length."""
    log = kernel.log_target(trajectory(world, path))
    return np.array([log, float(path[0] == 0), float(path[-1] == 0), len(path)])


def drift(
    world: HMM,
    kernel: Kernel,
    n: int,
    repeats: int,
    alter: Callable[[Trajectory], Trajectory | None] = lambda kept: kept,
) -> float:
    """How far one sweep takes the posterior from itself: in standard errors, of the feature that is farthest off.

    The sweep begins from every answer, weighted by the posterior, and each time all answers that it may keep next are
    averaged by weight, so that few sweeps show small errors.
    """
    posterior = target(world, kernel)
    known = {path: features(world, kernel, path) for path in posterior}
    mean, variance = np.zeros(len(known[world.paths[0]])), np.zeros(len(known[world.paths[0]]))
    for number, (path, chance) in enumerate(posterior.items()):
        after = []
        for repeat in range(repeats):
            kept = alter(trajectory(world, path))
            last = swept(Chain(n, None, kept), world, kernel, 1000 * number + repeat).done[-1]
            after.append(np.dot(last.weights, [known[world.path(answer)] for answer in last.answers]))
        mean += chance * np.mean(after, axis=0)
        variance += chance**2 * np.var(after, axis=0, ddof=1) / repeats
    hoped = sum(chance * known[path] for path, chance in posterior.items())
    return float(np.max(np.abs(mean - hoped) / np.sqrt(variance + 1e-24)))
