"""Sampling over a schedule of prompts, temperatures and nucleus sizes.

Source: "Bag of Tricks for Inference-time Computation of LLM Reasoning" (Liu et al. 2025, arXiv 2502.07191), which
varies the instruction prompt, the temperature and top-p of repeated sampling. Cost: n calls, exactly.

Sample i is drawn at setting i modulo their number, so a schedule is the same in every run. Each setting has a pool of
its own: when n grows, every pool is drawn further, and nothing is drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from itertools import product
from math import lcm
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from archon.backends.base import Sampling
from archon.draw import Draw
from archon.problem import Problem
from archon.prompting import SYSTEM, Places, chat, places_of, pose, question_of
from archon.run import Run
from archon.stage import Candidates, Count, Fact, Plan, Stage, Stream
from archon.strategies.writing import merged, numbered

Prompt = Annotated[str, Places(optional=("question", "question_text", "mark"))]
"""A system message, or a whole question with the problem's in a place of its own."""


class Setting(NamedTuple):
    """How some of the samples are drawn."""

    prompt: str
    """Empty where the problem is asked as it is."""
    temperature: float | None
    top_p: float | None


class SampleSchedule(Stage):
    """Draw n samples of a model's answer, at settings that take turns; they flow on as they arrive."""

    takes: ClassVar[bool] = False
    provides: ClassVar[frozenset[Fact]] = frozenset({"candidates"})

    model: str = "default"
    """Which of the session's models answers."""
    n: Annotated[int, Field(ge=0)] = 1
    """How many samples in all."""
    prompts: tuple[Prompt, ...] = ()
    """Prompts that take turns. One with a place, `{question}` (quoted) or `{question_text}` (as it is), is the whole
    question; one without is a system message before the problem's messages, and an empty one adds nothing."""
    temperatures: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = ()
    """Temperatures that take turns; the model's default where not given."""
    top_ps: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    """Nucleus sizes that take turns; the model's default where not given."""
    combine: Literal["product", "together"] = "product"
    """Whether every prompt meets every temperature and nucleus size, the prompts changing fastest; or all move on
    together, so that the first prompt has the first temperature, the second the second."""
    system: str = SYSTEM
    """The system message of prompts that are the whole question; none where it is empty."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Limit on new tokens per sample; the model's own where not given."""
    stop: tuple[str, ...] = ()
    """Stop strings."""
    seed: int | None = None
    """Base seed; the run's where not given."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Ask for log-probabilities, with so many alternatives each."""
    extra: Mapping[str, Any] = Field(default_factory=dict)
    """Server-specific fields, sent as they are."""

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Draw at every setting at once."""
        settings = self.settings()
        draws = []
        start = 0
        for number, setting in enumerate(settings[: self.n]):
            count = len(range(number, self.n, len(settings)))
            draw = self._drawn(problem, setting, count, run)
            draws.append(_spread(draw, start, number, len(settings)))
            start += count
        async with aclosing(merged(run, *draws)) as stream:
            async for candidate in stream:
                yield candidate

    def settings(self) -> list[Setting]:
        """The settings, in the order in which samples are drawn at them, over and over."""
        prompts, temperatures, top_ps = (
            self.prompts or ("",),
            self.temperatures or (None,),
            self.top_ps or (None,),
        )
        if self.combine == "product":
            return [
                Setting(prompt, temperature, top_p)
                for top_p, temperature, prompt in product(top_ps, temperatures, prompts)
            ]
        turns = lcm(len(prompts), len(temperatures), len(top_ps))
        return [
            Setting(prompts[i % len(prompts)], temperatures[i % len(temperatures)], top_ps[i % len(top_ps)])
            for i in range(turns)
        ]

    def sampling(self, setting: Setting) -> Sampling:
        """The sampling parameters of a setting."""
        given = {name: value for name, value in self.given().items() if name in Sampling.model_fields}
        own = {"temperature": setting.temperature, "top_p": setting.top_p}
        return Sampling(**given, **{name: value for name, value in own.items() if value is not None})

    def plan(self, incoming: Count) -> Plan:
        """n calls, n candidates."""
        return Plan(Count(self.n, self.n), Count(self.n, self.n))

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    def _drawn(self, problem: Problem, setting: Setting, count: int, run: Run) -> Draw:
        sampling = self.sampling(setting)
        if not places_of(setting.prompt):
            return run.sample(self.model, n=count, system=setting.prompt or None, sampling=sampling)
        posed = pose(setting.prompt, question=question_of(problem))
        return run.sample(self.model, n=count, messages=chat(posed.text, self.system), sampling=sampling)


async def _spread(draw: Draw, start: int, number: int, step: int) -> Candidates:
    """A draw whose numbers begin at `start`, as the samples number, number + step, number + 2 × step, ..."""
    async with aclosing(draw):
        async for sample in draw:
            yield numbered(sample, number + step * (sample.index - start))
