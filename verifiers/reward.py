"""A reward model scores each candidate: step by step (a process reward model), or the whole (an outcome one).

Source: Lightman et al. 2023, "Let's Verify Step by Step" (arXiv 2305.20050), section 2; how the scores of steps
become one is compared in its appendix F (product, minimum) and in Snell et al. 2024 (arXiv 2408.03314), appendix
E (last). Cost: one call per candidate, or per batch of them where the server takes several; one per step where
it scores prefixes one by one. Equal candidates are scored once.

The model is any that scores (`nano`, `reward_server`). What its scores are (a probability, its logit, an
uncalibrated score) it says itself; a threshold and the arithmetic of probabilities rest on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from archon.candidate import Candidate, Scale, Verdict
from archon.errors import CapabilityError
from archon.problem import Problem
from archon.run import Run
from archon.steps import Aggregation, Steps, aggregated, convert, cut
from archon.verifier import Verifier


class Reward(Verifier):
    """Score candidates by a reward model; accept from a threshold on, where there is one."""

    batch: ClassVar[int] = 8

    model: str = "reward"
    """Which of the session's models scores."""
    aggregate: Aggregation = "last"
    """How the scores of steps become one."""
    score_as: Literal["probability", "logit"] | None = None
    """What the verdict's score is; as the model gives it where not said."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The score from which it accepts, on the scale of the verdict. Without one it only scores."""
    steps: Steps = "newline"
    """Where a step ends; a candidate that was written in steps keeps its own."""

    @model_validator(mode="after")
    def _threshold_on_scale(self) -> Self:
        if self.score_as == "probability" and self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError("`threshold` is a probability, from 0 to 1, where `score_as` is")
        return self

    async def verify(self, problem: Problem, candidates: Sequence[Candidate], run: Run) -> Sequence[Verdict]:
        """Score those that say something; an empty answer is wrong without asking."""
        said = [c for c in candidates if c.text.strip()]
        told = await self.score(problem, [self.cut(c) for c in said], run)
        found = dict(zip((c.id for c in said), told, strict=True))
        scale = self.scale_of(run)
        return [self._verdict(c, found.get(c.id), scale) for c in candidates]

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    @property
    def calls_per_candidate(self) -> int:
        """At most, where the model scores all steps in one pass."""
        return 1

    def cut(self, candidate: Candidate) -> tuple[str, ...]:
        """The candidate's own steps, or its text cut into steps."""
        if candidate.steps and "".join(candidate.steps) == candidate.text:
            return candidate.steps
        return cut(candidate.text, self.steps)

    async def score(
        self, problem: Problem, replies: Sequence[Sequence[str]], run: Run, *, finished: bool = True
    ) -> list[tuple[float, ...] | None]:
        """The scores of each reply's steps, as `score_as` says; not `finished`: of beginnings, for a search.

        None where a budget ran out or the call failed. Raises CapabilityError where the model's scores are
        not what is asked for.
        """
        given, wanted = given_scale(self.model, run), self.scale_of(run)
        if self.aggregate == "product" and given not in ("probability", "logit"):
            raise CapabilityError(
                f"`aggregate: product` needs probabilities, and the scores of model {self.model!r} are "
                "uncalibrated. Take `min`, `mean` or `last`"
            )
        told = await run.score(self.model, replies, messages=problem.messages, finished=finished)
        return [None if steps is None else tuple(convert(s, given, wanted) for s in steps) for steps in told]

    def scale_of(self, run: Run) -> Scale:
        """What the verdicts' scores are. Raises CapabilityError where the model's cannot become that."""
        given = given_scale(self.model, run)
        if self.score_as is None or self.score_as == given:
            return given
        if given not in ("probability", "logit"):
            raise CapabilityError(
                f"`score_as: {self.score_as}` needs probabilities or logits, and the scores of model "
                f"{self.model!r} are uncalibrated. Leave `score_as` out, or give the model its `scale:` if they are"
            )
        return self.score_as

    def _verdict(self, candidate: Candidate, steps: tuple[float, ...] | None, scale: Scale) -> Verdict:
        if not candidate.text.strip():
            return Verdict(self.name, False, None, scale, "wrong", "the answer is empty")
        if steps is None:
            return Verdict(self.name, None, None, scale, detail="the reward model gave no score")
        score = aggregated(steps, self.aggregate, scale)
        lowest = min(range(len(steps)), key=steps.__getitem__)
        many = f"{len(steps)} steps, the lowest {steps[lowest]:.3g} at step {lowest + 1}"
        detail = many if len(steps) > 1 else ""
        if self.threshold is None:
            return Verdict(self.name, None, score, scale, detail=detail)
        accepted = score >= self.threshold
        return Verdict(self.name, accepted, score, scale, "passed" if accepted else "wrong", detail)


def given_scale(model: str, run: Run) -> Scale:
    """What the model's scores are."""
    return run.session.caller(model).backend.capabilities.score_scale
