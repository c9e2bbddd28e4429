"""The lab's families as benchmarks: `lab/arith`, `lab/listfn`, `lab/chain`. Problems are made, so there is no data.

    archon bench lab/arith --level 3 --split dev --seed 1 --pipeline self_consistency --out runs/arith

Levels take turns, so the first problems of a run are a fair part of all. What is asked is what the nano models were
trained on; any other model can be asked the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import chain, islice
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from archon.benchmarks.benchmark import AnswerGrader, Benchmark, Dataset
from archon.benchmarks.humaneval import CODE_SELECTORS
from archon.benchmarks.lab.arith import Arith
from archon.benchmarks.lab.chain import Chain
from archon.benchmarks.lab.family import Family, Split, Task, tasks
from archon.benchmarks.lab.listfn import VISIBLE, ListFn
from archon.benchmarks.programs import SuiteGrader
from archon.errors import DataError
from archon.execution import Suite
from archon.problem import Case, Problem


class Lab(Benchmark):
    """Problems of one family, made from a seed."""

    family: ClassVar[Family]

    level: int | tuple[int, ...] | Literal["all"] = "all"
    """One level, several (`1,2,3`), or all of them."""
    split: Split = "test"
    """Models are trained on `train`; tune on `dev`, report on `test`. No question is in two of them."""
    seed: int = 0
    """Another seed makes other problems of the same split."""
    problems: Annotated[int, Field(ge=1)] = 20
    """How many of each level."""

    @field_validator("level", mode="before")
    @classmethod
    def _several_as_text(cls, value: Any) -> Any:
        if not isinstance(value, str) or value == "all":
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            raise ValueError("`level` is a number, several (1,2,3), or `all`") from None

    @field_validator("level")
    @classmethod
    def _of_the_family(cls, value: Any) -> Any:
        known = cls.family.levels
        for level in _levels(value, known):
            if level not in known:
                raise ValueError(f"`level` of {cls.name} goes from {min(known)} to {max(known)}")
        return value

    def load(self) -> Dataset:
        """Make the problems. Raises DataError where a level does not have so many."""
        by_level = [self._made(level) for level in _levels(self.level, self.family.levels)]
        made = dict(chain.from_iterable(zip(*by_level, strict=True)))
        return self.dataset(made)

    @abstractmethod
    def dataset(self, made: dict[str, Task]) -> Dataset:
        """These tasks, by the ids of their problems, with their grader."""
        raise NotImplementedError

    def _made(self, level: int) -> list[tuple[str, Task]]:
        found = list(islice(tasks(self.family, level, self.split, self.seed), self.problems))
        if len(found) < self.problems:
            raise DataError(
                f"level {level} of {self.name} has {len(found)} problems in its split {self.split!r}, and not "
                f"{self.problems}. Ask for fewer: --benchmark-set problems={len(found)}"
            )
        seeded = f"seed-{self.seed}/" if self.seed else ""
        start = f"{self.name}/{self.split}/{level}/{seeded}"
        return [(f"{start}{number:04}", task) for number, task in enumerate(found)]


class LabArith(Lab):
    """Expressions to rewrite line by line, until one number is left."""

    name: ClassVar[str] = "lab/arith"
    family: ClassVar[Family] = Arith()

    def dataset(self, made: dict[str, Task]) -> Dataset:
        """The last line is the answer."""
        return _numbers(self.name, made)


class LabChain(Lab):
    """Assignments in any order, and one variable that is asked for."""

    name: ClassVar[str] = "lab/chain"
    family: ClassVar[Family] = Chain()

    def dataset(self, made: dict[str, Task]) -> Dataset:
        """The value is the answer."""
        return _numbers(self.name, made)


class LabListFn(Lab):
    """Functions on lists to write from three examples, graded on these and on 24 hidden ones."""

    name: ClassVar[str] = "lab/listfn"
    family: ClassVar[Family] = ListFn()

    def dataset(self, made: dict[str, Task]) -> Dataset:
        """The examples in the question are the visible tests."""
        cases = {name: _cases(task.given["examples"]) for name, task in made.items()}
        problems = [
            _problem(name, task, answer="code", entry_point="f", tests=cases[name][:VISIBLE])
            for name, task in made.items()
        ]
        suites = {name: Suite(cases=cases[name]) for name in made}
        return Dataset(self.name, problems, SuiteGrader(suites), selectors=CODE_SELECTORS)


def _levels(given: int | tuple[int, ...] | str, known: Sequence[int]) -> Sequence[int]:
    """Each once, from the lowest."""
    if isinstance(given, str):
        return known
    return (given,) if isinstance(given, int) else sorted(set(given))


def _numbers(name: str, made: dict[str, Task]) -> Dataset:
    problems = [_problem(one, task, answer="number") for one, task in made.items()]
    grader = AnswerGrader({one: [task.answer] for one, task in made.items()})
    return Dataset(name, problems, grader, selectors=("majority_vote", "best_of", "weighted_vote"))


def _problem(name: str, task: Task, **fields: Any) -> Problem:
    return Problem.ask(task.question, id=name, info={"family": task.family, "level": task.level}, **fields)


def _cases(examples: Sequence[tuple[Any, Any]]) -> tuple[Case, ...]:
    return tuple(Case(args=(given,), expected=expected) for given, expected in examples)
