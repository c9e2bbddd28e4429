"""A model writes tests of the answers to a problem: statements that hold of a good answer, or assertions about code.

Source: Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), section 3.1: the unit test generator writes a few short
statements from the question alone. Where a function is asked for, we ask for assertions instead, which `test_evaluate`
executes; the paper has a model judge statements of code, too (`written_as: statements`). The tests go along with each
candidate as a note, one a line. To let the answers be written with the tests in view, as many of the original's
configurations do, see `test_first`.

Cost: 1 call per problem, with up to `again` more, begun when the first candidate arrives; none without candidates.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from archon.assertions import read_assertions
from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, Unread, asked, items_form, pose, question_of, read_items
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.archon_rules import ArchonComponent
from archon.strategies.asking import Asking
from archon.strategies.layers import at_most

TESTS = "tests"
"""The note that holds the tests of an answer."""
PROMPT = """\
Somebody will answer this question, and the answer will be put to tests.

{question}

Write {count} tests. Each is one short statement about the answer that a reader can find to hold or not to hold, without
asking anybody; a right answer fulfils it, and many a wrong one does not. Test what is asked for and what a right answer
must arrive at, not taste. Tests are about different things. {form}"""
CODE_PROMPT = """\
A function named `{function}` is to be written. This is the task:

{question}

Do not write the function; write {count} tests of it, for ordinary inputs and for the edges of what the task allows.
Expect only what the task settles, and work each expected value out with care. {form}"""


class WritesTests(Asking):
    """What the stages have in common that write tests."""

    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates", "tests"})

    n: Annotated[int, Field(ge=1)] = 5
    """How many tests to write; what a reply has beyond is left out."""
    written_as: Literal["auto", "statements", "assertions"] = "auto"
    """What they are: `assertions` about a function, where the problem names one, or `statements`."""
    called: Annotated[str, Field(min_length=1)] = TESTS
    """The note's name on the candidate."""
    prompt: Annotated[str, Places("question|question_text", "form", optional=("count",))] = PROMPT
    """Asks for statements."""
    code_prompt: Annotated[str, Places("question|question_text", "form", optional=("count", "function"))] = (
        CODE_PROMPT
    )
    """Asks for assertions."""

    async def tests(self, problem: Problem, run: Run) -> tuple[str, ...]:
        """The tests, each in one line, written once for all who ask; none where nothing could be read."""
        task = run.kept(f"{run.stage} tests", lambda: run.spawn(self._write(problem, run)))
        return await asyncio.shield(task)

    def noted(self, candidate: Candidate, tests: tuple[str, ...]) -> Candidate:
        """The candidate with its tests, where there are some."""
        return candidate.with_note(self.called, "\n".join(tests)) if tests else candidate

    async def _write(self, problem: Problem, run: Run) -> tuple[str, ...]:
        given = {"count": str(self.n), "function": problem.entry_point or ""}
        question = question_of(problem)
        if problem.entry_point is not None and self.written_as != "statements":
            name = problem.entry_point
            posed = pose(self.code_prompt, lambda mark: assertions_form(name), given=given, question=question)
            code = await self.ask(run, posed, partial(read_code_tests, entry_point=name, most=self.n))
            return code.value or ()
        posed = pose(self.prompt, lambda mark: items_form(self.n), given=given, question=question)
        said = await self.ask(run, posed, partial(read_statements, most=self.n))
        return said.value or ()


class WriteTests(ArchonComponent, WritesTests):
    """Note on each candidate the tests that a model writes for the problem; all of them go on, in their order."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Candidates wait for the tests, and for nothing else."""

        async def tested(candidate: Candidate) -> Candidate:
            return self.noted(candidate, await self.tests(problem, run))

        async for candidate in run.map(tested, candidates):
            yield candidate

    def plan(self, incoming: Count) -> Plan:
        """One call; all candidates pass."""
        return Plan(asked(at_most(incoming, 1), self.again), incoming)


# --- the form of a reply ---------------------------------------------------------------------------


def assertions_form(name: str) -> str:
    """For `read_code_tests`."""
    return (
        f"Put them into one Python code block, each in one line: `assert {name}(ARGUMENTS) == VALUE`, where ARGUMENTS "
        "and VALUE are literals, without variables, imports or other calls."
    )


def read_code_tests(text: str, entry_point: str, most: int) -> tuple[str, ...]:
    """The first tests of a reply, without repetitions. Raises Unread."""
    found = [one.source for one in read_assertions(text, entry_point)]
    if not found:
        raise Unread(f"it holds no line `assert {entry_point}(ARGUMENTS) == VALUE` whose values are literals")
    return tuple([*dict.fromkeys(found)][:most])


def read_statements(text: str, most: int) -> tuple[str, ...]:
    """The first items of a list, each in one line, without repetitions. Raises Unread."""
    found: dict[str, str] = {}
    for item in read_items(text):
        found.setdefault(item.casefold(), " ".join(item.split()))
    return tuple([*found.values()][:most])
