"""A small hidden Markov model as a world that grows partial answers, with the exact answer to every question.

A step of an answer is the next hidden state; a partial answer's value is the probability of what was seen, given
the states: of the last of it (`emission`), or of all of it so far (`joint`). So with weights that are the values, a
filter that multiplies by the potential of every prefix has the posterior for its target in a world of `emission`, and
one that multiplies by ratios in one of `joint`. Other weights have other targets: `target` enumerates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from archon.strategies.stepping.partial import Partial
from archon.strategies.stepping.search import Given, Search, Weigh, Wish

S = TypeVar("S")
Path = tuple[int, ...]
"""Hidden states, from the first on."""


@dataclass(frozen=True)
class HMM:
    """The world. All of it is exact but `grow`, which samples."""

    first: tuple[float, ...] = (0.6, 0.4)
    """How likely each state is at the first step."""
    moves: tuple[tuple[float, ...], ...] = ((0.7, 0.3), (0.4, 0.6))
    """How likely each state is after each."""
    emits: tuple[tuple[float, ...], ...] = ((0.8, 0.2), (0.3, 0.7))
    """How likely each observation is in each state."""
    seen: tuple[int, ...] = (0, 1, 1, 0)
    """What was observed, step by step."""
    ends: frozenset[int] = frozenset()
    """States after which an answer is finished, before all was observed."""
    values: Literal["emission", "joint"] = "emission"

    # --- partial answers ---------------------------------------------------------------------------

    @cache  # noqa: B019 (a handful of worlds, each with a handful of paths)
    def partial(self, path: Path) -> Partial:
        """The partial answer with these states."""
        done = len(path) == len(self.seen) or (bool(path) and path[-1] in self.ends)
        scores = tuple(self.value(path[:t]) for t in range(1, len(path) + 1))
        return Partial(
            steps=tuple(f"{x}\n" for x in path),
            scores=scores,
            value=scores[-1] if scores else None,
            ending="stop" if done else None,
            samples=tuple("".join(map(str, path[:t])) for t in range(1, len(path) + 1)),
        )

    @staticmethod
    def path(partial: Partial) -> Path:
        """The states of a partial answer."""
        return tuple(int(step) for step in partial.steps)

    def grow(self, wishes: Sequence[Wish | Weigh], rng: np.random.Generator) -> list[list[Partial]]:
        """What was asked for, by the model's own probabilities."""
        grown = []
        for wish in wishes:
            path = self.path(wish.partial)
            if isinstance(wish, Weigh):
                grown.append(self.weighed(path, wish))
                continue
            assert not wish.partial.finished, f"{path} is finished, and asked for again"
            edges = np.cumsum(self.next(path))
            drawn = np.searchsorted(edges / edges[-1], rng.random(wish.n), side="right")
            grown.append([self.partial((*path, int(x))) for x in drawn])
        return grown

    def weighed(self, path: Path, wish: Weigh) -> list[Partial]:
        """What given steps make of these states, with their log-probabilities; nothing where they are impossible."""
        assert not wish.partial.finished and wish.rounds, "nothing follows a finished answer"
        found = []
        for added in wish.rounds:
            (step,) = added
            chance = self.next(path)[int(step)]
            if not chance:
                return []
            path = (*path, int(step))
            found.append(replace(self.partial(path), logprob=math.log(chance), logprobs=1))
        assert found[-1].ending == wish.ending
        return found

    # --- probabilities -----------------------------------------------------------------------------

    def next(self, path: Path) -> tuple[float, ...]:
        """How likely each state is after these."""
        return self.moves[path[-1]] if path else self.first

    def chance(self, path: Path) -> float:
        """How likely these states are before anything is observed."""
        return math.prod(self.next(path[:t])[x] for t, x in enumerate(path))

    def value(self, path: Path) -> float:
        """What the reward model says of these states."""
        likely = [self.emits[x][y] for x, y in zip(path, self.seen, strict=False)]
        return likely[-1] if self.values == "emission" else math.prod(likely)

    @property
    def paths(self) -> list[Path]:
        """All finished answers."""
        found: dict[Path, None] = {}
        for whole in product(range(len(self.first)), repeat=len(self.seen)):
            end = next((t for t, x in enumerate(whole, 1) if x in self.ends), len(whole))
            found[whole[:end]] = None
        return [path for path in found if self.chance(path) > 0]

    def target(
        self,
        log_weight: Callable[[float], float] = math.log,
        weights: Literal["prefix", "incremental"] = "prefix",
    ) -> dict[Path, float]:
        """Every finished answer's unnormalised weight, by enumeration: its chance times the potentials of all its
        prefixes, or times that of the whole. Their sum is the evidence."""
        found = {}
        for path in self.paths:
            ends = range(1, len(path) + 1) if weights == "prefix" else (len(path),)
            logs = math.fsum(log_weight(self.value(path[:t])) for t in ends)
            found[path] = self.chance(path) * math.exp(logs)
        return found

    def posterior(
        self,
        log_weight: Callable[[float], float] = math.log,
        weights: Literal["prefix", "incremental"] = "prefix",
    ) -> dict[Path, float]:
        """The same, normalised."""
        target = self.target(log_weight, weights)
        whole = math.fsum(target.values())
        return {path: weight / whole for path, weight in target.items()}

    def evidence(
        self,
        log_weight: Callable[[float], float] = math.log,
        weights: Literal["prefix", "incremental"] = "prefix",
    ) -> float:
        """The sum of the target over all finished answers."""
        return math.fsum(self.target(log_weight, weights).values())

    def forward(self) -> tuple[float, list[NDArray[np.float64]]]:
        """The probability of what was seen and the filtering distribution of each step, by the forward algorithm
        (Rabiner 1989, section III.A); for worlds where no answer ends early."""
        assert not self.ends
        moves, emits = np.array(self.moves), np.array(self.emits)
        belief, evidence = np.array(self.first), 1.0
        found: list[NDArray[np.float64]] = []
        for t, y in enumerate(self.seen):
            joint = (belief if t == 0 else found[-1] @ moves) * emits[:, y]
            evidence *= float(joint.sum())
            found.append(joint / joint.sum())
        return evidence, found


def smoothed(posterior: Mapping[Path, float], t: int) -> float:
    """The probability that the state at step t (0 is the first) is 1, of answers that are that long."""
    return math.fsum(p for path, p in posterior.items() if len(path) > t and path[t] == 1)


def played(search: Search[S], world: HMM, seed: int, rounds: int | None = None, calibrated: bool = True) -> S:
    """The state when the search is over, or after so many rounds."""
    rng = np.random.default_rng([seed, 77])
    state = search.start(Given(seed, calibrated))
    done = 0
    while (rounds is None or done < rounds) and (wishes := search.ask(state)):
        state = search.tell(state, world.grow(wishes, rng))
        done += 1
    return state


def within(sample: Sequence[float] | Any, expected: float, sigmas: float = 4.5) -> None:
    """Assert that the mean of independent numbers is what is expected, by its own standard error."""
    numbers = np.asarray(sample, dtype=np.float64)
    error = float(numbers.std(ddof=1) / math.sqrt(numbers.size))
    off = float(numbers.mean()) - expected
    assert abs(off) <= sigmas * error + 1e-12, f"off by {off:g}, {off / (error or 1):.1f} standard errors"
