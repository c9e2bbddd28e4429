"""Sequential revision: chains of answers, each written in sight of those before it in its chain.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally can be More Effective than Scaling Model
Parameters" (arXiv 2408.03314), section 6: a chain begins with an answer to the question; every further answer is
conditioned on the question and the last four answers of the chain. Several chains run side by side, and n answers
in all are divided at a ratio of sequential to parallel (figure 7). Every answer of every chain flows out, as it
comes; what selects comes after: across all of them, or first within each chain (`per_chain`) and then across.
Cost: chains × length calls, exactly.

The paper trains a model to revise; any model that follows instructions can be asked here. Answer p of chain c (both
from 0) is candidate number c × length + p, and its parents are the answers that it was shown. A chain's first
answer is asked for by the problem itself, so it is a sample that `sample` would draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field, model_validator

from archon.candidate import Candidate
from archon.problem import Problem
from archon.prompting import Places, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stream
from archon.strategies.writing import Writing, merged, numbered, one

PROMPT = """\
{question}

{answers}

Above are a question and the latest attempts to answer it, in the order in which they were written; each was meant to \
be better than the one before. Any of them may be wrong, the last one too. Look for the first place where the last \
attempt goes wrong, or falls short of what is asked, and for what the earlier ones had right. Then answer the \
question anew, whole, in the form that it asks for, and better than before. Where you find nothing wrong with the \
last attempt, give its answer again. Your answer stands for itself: do not speak of the attempts."""


class Shape(NamedTuple):
    """How many chains, and how many answers in each."""

    chains: int
    length: int


def shape_of(n: int, ratio: float) -> Shape:
    """The chains that divide n answers at a ratio of sequential to parallel: length = ratio × chains.

    Raises ValueError where that is not possible in whole numbers, with the ratios that are.
    """
    shapes = [Shape(n // length, length) for length in _divisors(n)]
    for shape in shapes:
        if math.isclose(ratio, shape.length / shape.chains, rel_tol=1e-6):
            return shape
    near = sorted(shapes, key=lambda shape: abs(math.log(ratio * shape.chains / shape.length)))[:4]
    possible = ", ".join(
        f"{shape.length}/{shape.chains}" for shape in sorted(near, key=lambda shape: shape.length)
    )
    raise ValueError(
        f"`n` {n} cannot be divided at `ratio` {ratio:g} (length / chains) into whole chains; "
        f"the nearest ratios that {n} allows: {possible}"
    )


class Revise(Writing):
    """Write chains of answers, each a revision of those before it.

    Give `chains` and `length`, or `n` and `ratio`. A chain ends early where a call gives nothing (a budget, a
    failure); what it has written has flowed out by then.
    """

    takes: ClassVar[bool] = False
    related: ClassVar[bool] = True
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    chains: Annotated[int, Field(ge=1)] | None = None
    """How many chains, side by side; 1 where nothing is given."""
    length: Annotated[int, Field(ge=1)] | None = None
    """How many answers in each, the first included; 4 where nothing is given."""
    n: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many answers in all, with `ratio` in place of `chains` and `length`."""
    ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of `n` answers, length / chains: above 1 for more revision, below 1 for more independent chains."""
    context: Annotated[int, Field(ge=1)] = 4
    """How many of a chain's last answers a revision is shown."""
    first_system: str | None = None
    """A system message for the chains' first answers, before the problem's messages."""
    prompt: Annotated[
        str, Places("question|question_text", "answers|answers_text|replies_text", optional=("form", "mark"))
    ] = PROMPT
    """What the model is asked for a revision. `{replies_text}` is `{answers_text}` by another name: `Reply 1:`."""

    @model_validator(mode="after")
    def _one_shape(self) -> Revise:
        if (self.n is None) != (self.ratio is None):
            missing = "ratio" if self.ratio is None else "n"
            raise ValueError(f"`n` and `ratio` go together, and `{missing}` is missing")
        if self.n is not None and (self.chains is not None or self.length is not None):
            raise ValueError("give `chains` and `length`, or `n` and `ratio`, and not both")
        _ = self.shape  # raises where n and ratio do not fit
        return self

    @property
    def shape(self) -> Shape:
        """How many chains of which length."""
        if self.n is not None and self.ratio is not None:
            return shape_of(self.n, self.ratio)
        return Shape(1 if self.chains is None else self.chains, 4 if self.length is None else self.length)

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Every chain by itself; its answers flow on as they come."""
        stream = merged(run, self._first(run), follow=lambda first: self._further(problem, first, run))
        async with aclosing(stream):
            async for candidate in stream:
                yield candidate

    def plan(self, incoming: Count) -> Plan:
        """A call for every answer."""
        total = Count(self.shape.chains * self.shape.length, self.shape.chains * self.shape.length)
        return Plan(total, total)

    async def _first(self, run: Run) -> Candidates:
        """The chains' first answers, drawn together."""
        chains, length = self.shape
        draw = run.sample(self.model, n=chains, system=self.first_system, sampling=self.sampling)
        async with aclosing(draw):
            async for answer in draw:
                yield numbered(answer, answer.index * length)

    async def _further(self, problem: Problem, first: Candidate, run: Run) -> Candidates:
        """The rest of a chain."""
        written = [first]
        for place in range(1, self.shape.length):
            answer = await self._revision(problem, written, run)
            if answer is None:
                return
            written.append(numbered(answer, first.index + place))
            yield written[-1]

    async def _revision(self, problem: Problem, written: Sequence[Candidate], run: Run) -> Candidate | None:
        shown = [answer for answer in written if answer.text.strip()][-self.context :]
        if shown:
            texts = [answer.text for answer in shown]
            posed = pose(self.prompt, question=question_of(problem), answers=texts, replies=texts)
            draw = self.write(run, posed, parents=shown)
        else:  # nothing to revise so far
            draw = run.sample(self.model, system=self.first_system, sampling=self.sampling)
        return await one(draw)


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
