"""Tests first: a model writes tests, and the problem is solved with them in view.

Source: the configurations of Saad-Falcon et al. 2024, "Archon" (arXiv 2409.15254), in which the unit test generator
stands before the generators: it adds its tests to the question, and whatever comes after sees them. In the paper's own
order the tests are written after the answers (`write_tests`). `test_evaluate` reads the tests of either.

Cost: 1 call per problem, with up to `again` more, and what the solver costs.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, ClassVar

from archon.pipeline import AnyPipeline, Pipeline
from archon.problem import Problem
from archon.prompting import Places, asked, pose
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.sample import Sample
from archon.strategies.write_tests import WritesTests

ADDED = """\
{question_text}

The answer will be put to these tests, which somebody wrote who saw only the question. They may be wrong; where they are
not, the answer should pass them.

{tests}"""


class TestFirst(WritesTests):
    """Write tests, then solve the problem with the tests added to its question; answers flow on with their tests.

    Where no test could be read, the problem is solved as it is.
    """

    __test__ = False  # not a test class of pytest's

    takes: ClassVar[bool] = False

    solver: AnyPipeline = Pipeline([Sample()])
    """What answers the question with its tests."""
    added: Annotated[str, Places("question|question_text", "tests|tests_text")] = ADDED
    """What the last user message of the problem becomes."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """The solver's answers flow on as they leave it."""
        tests = await self.tests(problem, run)
        derived = self._with_tests(problem, tests) if tests else problem
        async with aclosing(run.stream(self.solver, derived, "solver")) as answers:
            async for candidate in answers:
                yield self.noted(candidate, tests)

    def plan(self, incoming: Count) -> Plan:
        """One call and the solver's."""
        solved = self.solver.plan()
        return Plan(asked(Count(1, 1), self.again).plus(solved.calls), solved.passes)

    def _with_tests(self, problem: Problem, tests: tuple[str, ...]) -> Problem:
        messages = [*problem.messages]
        last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
        text = pose(self.added, question=messages[last].content, tests=tests).text
        messages[last] = messages[last].model_copy(update={"content": text})
        return problem.model_copy(update={"messages": tuple(messages)})
