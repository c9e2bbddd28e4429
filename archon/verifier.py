"""The verifier contract: candidates in, verdicts out (D7).

A verifier is what a pipeline may know about its candidates: visible tests, an answer's form, a judge,
a reward model. It can be wrong, and the harness counts how often. `archon.testing.VerifierCases` is the
conformance suite.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from archon.candidate import Candidate, Scale, Verdict
from archon.component import Component, Nested
from archon.problem import Problem

if TYPE_CHECKING:
    from archon.run import Run


class Verifier(Component):
    """Judges candidates of one problem. All effects go through `run` (D3)."""

    kind: ClassVar[str] = "verifier"
    scale: ClassVar[Scale] = "score"
    """What its scores are."""
    batch: ClassVar[int] = 1
    """How many candidates it likes to be given at once."""
    together: ClassVar[bool] = False
    """Whether it compares candidates, and so must be given all of a problem's at once (as dear as waiting for
    the last)."""

    @abstractmethod
    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """One verdict per candidate, in order."""
        raise NotImplementedError

    def applies(self, problem: Problem) -> bool:
        """Whether it can say anything about this problem (unit tests need tests)."""
        return True

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models it calls."""
        return ()

    @property
    def calls_per_candidate(self) -> int:
        """Model calls for one candidate."""
        return 0

    @property
    def calls_per_problem(self) -> int:
        """Model calls for a problem, however many candidates it has (tests are written once)."""
        return 0


AnyVerifier = Annotated[Verifier, Nested("verifier")]
"""The type of a stage's field that holds a verifier."""
