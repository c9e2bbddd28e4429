"""What stages that ask a model in words have in common: whom they ask, how, and how often again.

Cost: none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from pydantic import Field

from archon.backends.base import Sampling
from archon.candidate import Candidate
from archon.draw import Draw
from archon.prompting import SYSTEM, Asked, Posed, Said, ask_several, chat
from archon.run import Run
from archon.stage import Stage

T = TypeVar("T")


class Asking(Stage):
    """A stage that asks a model. Its prompts are templates (docs/prompting.md)."""

    model: str = "default"
    """Which of the session's models is asked."""
    system: str = SYSTEM
    """The system message of its questions; none where it is empty."""
    again: Annotated[int, Field(ge=0)] = 1
    """How often it is asked again where a reply cannot be read."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """0 is greedy; the model's default where not given."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per reply; the model's own where not given."""

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters that are given here."""
        return Sampling(
            **{name: value for name, value in self.given().items() if name in Sampling.model_fields}
        )

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    async def ask(
        self,
        run: Run,
        posed: Posed,
        read: Callable[[str], T],
        *,
        parents: Sequence[Candidate] = (),
        draw: int = 0,
        model: str | None = None,
        sampling: Sampling | None = None,
    ) -> Said[T]:
        """Ask one question whose reply is read (archon/prompting/ask.py)."""
        (said,) = await self.ask_several(
            run, posed, read, 1, parents=parents, draw=draw, model=model, sampling=sampling
        )
        return said

    async def ask_several(
        self,
        run: Run,
        posed: Posed,
        read: Callable[[str], T],
        n: int,
        *,
        parents: Sequence[Candidate] = (),
        draw: int = 0,
        model: str | None = None,
        sampling: Sampling | None = None,
    ) -> tuple[Said[T], ...]:
        """The same with n independent replies."""
        question = Asked(
            model or self.model,
            chat(posed.text, self.system),
            sampling or self.sampling,
            self.again,
            posed.form,
            draw=draw,
            parents=tuple(parents),
        )
        return await ask_several(run, question, read, n)

    def write(
        self,
        run: Run,
        posed: Posed,
        n: int = 1,
        *,
        parents: Sequence[Candidate] = (),
        model: str | None = None,
        sampling: Sampling | None = None,
        place: int = 0,
    ) -> Draw:
        """Draw n replies that are candidates as they are."""
        return run.sample(
            model or self.model,
            n=n,
            messages=chat(posed.text, self.system),
            sampling=sampling or self.sampling,
            parents=parents,
            place=place,
        )
