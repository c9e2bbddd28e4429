"""The account of what a nano model can do beside solving: who knows everything gets everything right."""

from __future__ import annotations

import re
from itertools import islice

from click.testing import CliRunner

from archon.backends.scripted import Call, Scripted
from archon.benchmarks.lab import abilities, chain, formats
from archon.benchmarks.lab.abilities import Figure, figures
from archon.benchmarks.lab.family import tasks
from archon.benchmarks.lab.training.data import FAMILIES
from archon.benchmarks.lab.training.rollouts import drawing


class Knowing:
    """Solves odd samples of a question, says what is wrong with the others, and how to take a question apart."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        for family in FAMILIES.values():
            for task in (t for level in family.levels for t in islice(tasks(family, level, "test", 9), 1)):
                self.known[task.question] = task.solution
                if family.name == "listfn":
                    plan = ", ".join(task.given["plan"])
                    self.known[formats.plan(task.question)] = plan
                    self.known[formats.planned(task.question, plan)] = task.solution
                if family.name == "chain":
                    order, values = task.given["order"], task.given["values"]
                    self.known[formats.split(task.question)] = chain.split(task)
                    given = ", ".join(f"{name}={values[name]}" for name in order[:-1])
                    self.known[formats.reduce(task.question, given)] = chain.reduced(task, order[:-1])
                    self.known |= dict(
                        chain.part(task, name) for name in order if level_of(task.question) > 1
                    )

    def __call__(self, call: Call) -> str:
        question, _, shown = call.text.partition("\nReply")
        if not shown:
            return self.known[question] if call.index % 2 == 0 else "1+1\n2"
        right = self.known[question] in shown
        if shown.endswith("Right?"):
            return "yes" if right else "no"
        return self.known[question] if shown.endswith("Best?") else "1"


def level_of(question: str) -> int:
    return question.count("=")


async def test_who_knows_everything_gets_everything_right() -> None:
    backend = Scripted(reply=Knowing()).connect()
    found = [figure async for figure in figures(drawing(backend), 1)]
    assert {f.what for f in found if not all(all(some) for some in f.outcomes)} == set()
    assert len(found) == 3 * 4 + 2 + 2 + 6
    by_parts = [f for f in found if "part by part" in f.what]
    assert [f.what for f in by_parts] == [f"level {n}: by its own split, part by part" for n in range(1, 7)]
    assert {f.beside for f in by_parts} == {"at once: 50.0%"}, "every other sample is wrong"


def test_a_figure_is_over_problems_and_says_so() -> None:
    one = Figure("arith", "verify", [[True, False], [True, True], [False, False]], "chance: 50.0%")
    assert re.fullmatch(r"arith   verify +50\.0% \[.*\] of 6 on 3   chance: 50\.0%", str(one))
    assert str(Figure("arith", "verify", [])).endswith("none")


def test_an_option_that_is_none_is_refused() -> None:
    said = CliRunner().invoke(abilities.main, ["--weight"])
    assert said.exit_code == 2
    said = CliRunner().invoke(abilities.main, ["--weights", "nowhere"])
    assert said.exit_code and "nowhere" in str(said.exception or said.output)
