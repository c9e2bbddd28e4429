"""Optuna's samplers behind the contract: TPE, GP, CMA-ES and NSGA-II.

Sources: Watanabe 2023, "Tree-Structured Parzen Estimator" (arXiv 2304.11127) for TPE; Hansen 2016 (arXiv 1604.00772)
for CMA-ES; Deb et al. 2002 for NSGA-II; a Gaussian process with log expected improvement (Ament et al. 2023, arXiv
2310.20708) for GP. Cost: no calls. An ask takes some 10 ms (GP: seconds), and no longer in a long search:
every EPOCH tells the sampler begins anew with the BEST and the NEWEST it was told of.

Conditional axes. TPE is asked axis by axis, for those that matter; those that always matter it learns together. The
others know one list of axes only, and draw
what is not in every trial at random; they are given every axis, and what does not matter is left out of the
configuration, as genes that are not expressed. Options that are numbers in ascending order are given as an order.
CMA-ES learns numbers only, and Optuna draws its other choices at random: a note says which.

Refusals. What is refused was never run; the draw is told as failed, which a sampler ignores, and made again. So a
sampler proposes from what it believes, given that it is allowed. To tell refused ones as bad, or as violating a
constraint, would teach it to keep away from them, and the best under a budget lie next to those over it; it would also
outnumber what was measured. After DRAWS draws that are refused or known, a random neighbour of the first comes instead,
and in the end a random configuration.

What failed counts as the worst so far. What lost a race counts as no better than the median of what finished (of one
objective), since its values are of other problems.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import numpy as np
from pydantic import Field

from archon.errors import MissingExtra
from archon.search.axes import Axis, Choice, Configuration, Space
from archon.search.proposers.base import Proposer, Proposes, Told, Tracking, one_objective
from archon.search.proposers.grid import ordered

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

Sampler: TypeAlias = "Callable[[int], BaseSampler]"
"""A sampler of a seed."""

DRAWS = 8
"""So many draws that are refused or known, and a neighbour of the first comes instead; of GP two, which are slow and
alike."""
EPOCH = 400
"""So many tells, and the sampler begins anew."""
BEST, NEWEST = 50, 100
"""With so many of the best, and so many of the newest."""

Startup = Annotated[int, Field(ge=1)]


class TPE(Proposes):
    """The tree-structured Parzen estimator; for several objectives too. The one to begin with where `frugal` is not."""

    startup: Startup = 10
    """So many random configurations come first."""
    candidates: Annotated[int, Field(ge=1)] = 24
    """Of so many draws from what was good, the one that is least like what was not is proposed."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises MissingExtra without Optuna."""
        samplers = _samplers(self.name)
        fixed = _of_axes(samplers.TPESampler, [axis for axis in space.axes if not axis.needs])

        def sampler(seed: int) -> BaseSampler:
            found: BaseSampler = fixed(
                n_startup_trials=self.startup,
                n_ei_candidates=self.candidates,
                multivariate=True,
                seed=seed,
            )
            return found

        return ByOptuna(space, seed, objectives, sampler)


class GP(Proposes):
    """A Gaussian process: few evaluations, each well chosen; slow to ask. Needs torch."""

    startup: Startup = 10
    """So many random configurations come first."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises MissingExtra without Optuna or torch."""
        samplers = _samplers(self.name, "torch")
        fixed = _of_axes(samplers.GPSampler, space.axes)

        def sampler(seed: int) -> BaseSampler:
            found: BaseSampler = fixed(
                n_startup_trials=self.startup, seed=seed, warn_independent_sampling=False
            )
            return found

        return ByOptuna(space, seed, objectives, sampler, every_axis=True, draws=2)


class CMAES(Proposes):
    """CMA-ES: for spaces of numbers. Choices that have no order are drawn at random."""

    name: ClassVar[str] = "cma_es"

    population: Annotated[int, Field(ge=2)] | None = None
    """How many configurations make a generation; by the number of axes where not given."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises UserError for several objectives, MissingExtra without Optuna or cmaes."""
        one_objective(self.name, objectives)
        samplers = _samplers(self.name, "cmaes")
        fixed = _of_axes(samplers.CmaEsSampler, [axis for axis in space.axes if ordered(axis)])

        def sampler(seed: int) -> BaseSampler:
            found: BaseSampler = fixed(popsize=self.population, seed=seed, warn_independent_sampling=False)
            return found

        proposer = ByOptuna(space, seed, objectives, sampler, every_axis=True, keeps=True)
        numbers = [axis.name for axis in space.axes if ordered(axis)]
        others = [axis.name for axis in space.axes if not ordered(axis)]
        if others and numbers:
            names = ", ".join(map(repr, others))
            proposer.note(f"CMA-ES learns numbers only; drawn at random, whatever was learnt: {names}")
        if not numbers:
            proposer.note("CMA-ES learns numbers only, and there are none here: this is random search")
        return proposer


class NSGAII(Proposes):
    """NSGA-II: a genetic algorithm for several objectives, or one; for searches of several hundred evaluations."""

    name: ClassVar[str] = "nsga_ii"

    population: Annotated[int, Field(ge=2)] = 20
    """How many configurations make a generation."""

    def over(self, space: Space, *, seed: int = 0, objectives: int = 1) -> Proposer:
        """Raises MissingExtra without Optuna."""
        samplers = _samplers(self.name)
        fixed = _of_axes(samplers.NSGAIISampler, space.axes)

        def sampler(seed: int) -> BaseSampler:
            found: BaseSampler = fixed(population_size=self.population, seed=seed)
            return found

        return ByOptuna(space, seed, objectives, sampler, every_axis=True, keeps=True)


class ByOptuna(Tracking):
    """A search that one of Optuna's samplers proposes for, in a study in memory.

    `every_axis`: the sampler is given every axis. `keeps`: it keeps its state on the trials (a generation), so that
    every trial is begun through it.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        objectives: int,
        sampler: Sampler,
        *,
        every_axis: bool = False,
        keeps: bool = False,
        draws: int = DRAWS,
    ) -> None:
        super().__init__(space, seed, objectives)
        self._sampler = sampler
        self._every_axis = every_axis
        self._keeps = keeps
        self._attempts = draws
        self._codes = {axis.name: Code(axis) for axis in self.axes}
        self._pending: dict[str, Configuration] = {}
        self._stale = False
        with _quiet():
            self._anew()

    def propose(self) -> Configuration | None:
        """The sampler's draw; a neighbour of it, or a random configuration, where its draws are refused or known."""
        with _quiet():
            if self._stale:
                self._anew()
            first: Configuration | None = None
            for attempt in range(self._attempts):
                self._study.sampler = self._sampler(self._seed(attempt))
                trial = self._study.ask()
                found = self._read(trial)
                self._study.tell(trial, state=_failed())
                if self.fresh(found):
                    break
                first = first or found
            else:
                instead = (self._near(first) if first else None) or self.draw()
                if instead is None:
                    return None
                found = instead
            self._pending[found.key] = found
            self._start(found)
            return found

    def learn(self, configuration: Configuration, result: Told) -> None:
        """Enter it in the study, or begin a new one with it."""
        self._pending.pop(configuration.key, None)
        if configuration.key in self._entered:
            self._stale = True  # a finished trial cannot be changed
        if self._stale:
            return
        with _quiet():
            if len(self._entered) < EPOCH:
                self._enter(configuration, result)
            else:
                self._anew()

    def _anew(self) -> None:
        """A study with the best and the newest of what was told, and what is pending."""
        import optuna

        self._study: Study = optuna.create_study(directions=["maximize"] * self.objectives)
        self._trials: dict[str, Trial] = {}
        self._entered: set[str] = set()
        self._stale = False
        told = list(self.told.items())
        kept = {key for key, _ in told[-NEWEST:]}
        whole = [(key, one.values) for key, (_, one) in told if one.values is not None and one.finished]
        kept |= {whole[place][0] for place in _best([values for _, values in whole], BEST)}
        for key, (configuration, result) in told:
            if key in kept:
                self._enter(configuration, result)
        for configuration in self._pending.values():
            self._start(configuration)

    def _enter(self, configuration: Configuration, result: Told) -> None:
        self._entered.add(configuration.key)
        if configuration.key not in self._trials:
            self._start(configuration)
        trial = self._trials.pop(configuration.key)
        values = self._values(result)
        if values is None:
            self._study.tell(trial, state=_failed())
        else:
            self._study.tell(trial, values)

    def _values(self, result: Told) -> list[float] | None:
        """What the sampler is told: the values, or the worst so far, or what lost a race at most as the median."""
        if result.values is not None and (result.finished or self.objectives > 1):
            return list(result.values)
        finished = [one.values for _, one in self.told.values() if one.values is not None and one.finished]
        if result.values is not None:
            return [min(result.values[0], float(np.median(finished)))] if finished else list(result.values)
        worst = np.min(finished, axis=0) if finished else ()
        return [float(value) for value in worst] or None

    def _start(self, configuration: Configuration) -> None:
        """A running trial for a configuration, the sampler's own or not, so that both leave the same behind."""
        from optuna.samplers import RandomSampler

        self._study.sampler = (self._sampler if self._keeps else RandomSampler)(
            int(configuration.key, 16) % 2**31
        )
        self._study.enqueue_trial(
            {name: self._codes[name].encoded(value) for name, value in configuration.items()}
        )
        trial = self._study.ask()
        self._read(trial)
        self._trials[configuration.key] = trial

    def _read(self, trial: Trial) -> Configuration:
        """A trial's configuration, axis by axis."""
        found: dict[str, Choice] = {}
        for axis in self.axes:
            matters = self.axes.matters(axis, found)
            if matters or self._every_axis:
                value = self._codes[axis.name].asked(trial)
                if matters:
                    found[axis.name] = value
        return Configuration(found)

    def _near(self, configuration: Configuration) -> Configuration | None:
        rng = self.chance(DRAWS)
        near = list(self.axes.neighbours(configuration, rng))
        mixed = [near[int(place)] for place in rng.permutation(len(near))]
        return next((one for one in mixed if self.fresh(one)), None)

    def _seed(self, attempt: int) -> int:
        return int(self.chance(attempt).integers(2**31 - 1))


class Code:
    """An axis as a parameter of Optuna's, and its values there and back."""

    def __init__(self, axis: Axis) -> None:
        from optuna import distributions as of

        self.axis = axis
        self._listed: dict[tuple[type, Choice], int] | None = None
        self._stepped = False
        self.distribution: BaseDistribution
        if axis.kind == "choice":
            self._listed = {(type(option), option): place for place, option in enumerate(axis.options)}
            last = len(axis.options) - 1
            self.distribution = (
                of.IntDistribution(0, last) if ordered(axis) else of.CategoricalDistribution(range(last + 1))
            )
        elif axis.log and axis.kind == "int" and axis.step in (None, 1):
            self.distribution = of.IntDistribution(int(axis.low), int(axis.high), log=True)
        elif axis.log:
            self.distribution = of.FloatDistribution(axis.low, axis.high, log=True)
        elif axis.kind == "int" or axis.step is not None:
            self._stepped = True
            steps = (axis.high - axis.low) / (axis.step or 1)
            self.distribution = of.IntDistribution(0, int(steps + 1e-9))
        else:
            self.distribution = of.FloatDistribution(axis.low, axis.high)

    def encoded(self, value: Choice) -> int | float:
        """Its value as the parameter's."""
        if self._listed is not None:
            return self._listed[(type(value), value)]
        number = float(value)  # type: ignore[arg-type]
        if self._stepped:
            return round((number - self.axis.low) / (self.axis.step or 1))
        return round(number) if self.axis.kind == "int" else number

    def asked(self, trial: Trial) -> Choice:
        """The value that a trial has for it."""
        from optuna import distributions as of

        given: Any
        if isinstance(self.distribution, of.CategoricalDistribution):
            given = trial.suggest_categorical(self.axis.name, self.distribution.choices)
        elif isinstance(self.distribution, of.IntDistribution):
            low, high = self.distribution.low, self.distribution.high
            given = trial.suggest_int(self.axis.name, low, high, log=self.distribution.log)
        else:
            given = trial.suggest_float(self.axis.name, self.axis.low, self.axis.high, log=self.axis.log)
        if self._listed is not None:
            return self.axis.options[int(given)]
        return self.axis.nearest(self.axis.low + given * (self.axis.step or 1) if self._stepped else given)


def _best(values: list[tuple[float, ...]], count: int) -> list[int]:
    """The places of the best: by value, or by how many are better in every objective."""
    if not values:
        return []
    points = np.asarray(values)
    if points.shape[1] == 1:
        return [int(place) for place in np.argsort(-points[:, 0], kind="stable")[:count]]
    beaten = np.array(
        [int((points >= one).all(axis=1).sum() - (points == one).all(axis=1).sum()) for one in points]
    )
    return [int(place) for place in np.argsort(beaten, kind="stable")[:count]]


def _samplers(name: str, needs: str = "optuna") -> Any:
    """Optuna's samplers. Raises MissingExtra where it, or what a sampler needs, is not installed."""
    extra = {"optuna": "search", "cmaes": "search", "torch": "gp"}
    for module in dict.fromkeys(("optuna", needs)):
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(
                f"proposer {name!r} needs {module}, which is not installed: pip install 'archon[{extra[module]}]'. "
                "'frugal', 'random', 'grid', 'greedy' and 'evolve' need nothing"
            )
    import optuna

    return optuna.samplers


def _of_axes(sampler: Any, axes: Sequence[Axis]) -> Any:
    """The sampler, told which axes to draw together instead of looking for those that every trial has."""
    codes = {axis.name: Code(axis).distribution for axis in axes}
    found = {name: code for name, code in codes.items() if not code.single()}
    return type("OfAxes", (sampler,), {"infer_relative_search_space": lambda self, study, trial: found})


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says only what is wrong, and no warning that an interface may change."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
