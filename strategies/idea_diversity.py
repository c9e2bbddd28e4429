"""Idea diversity: how often two solutions rest on different ideas, and the gain from search that this predicts.

Source: Wang et al. 2024, "Planning In Natural Language Improves LLM Search For Code Generation" (arXiv 2409.03733),
section 6. Each of at most 40 solutions is summarised into its idea, and of every pair a model says whether the ideas
are the same; diversity is 1 - the share of pairs that are. Cost: m + m (m - 1) / 2 calls for m solutions, which for 40
are 820, each with up to `again` more where a reply cannot be read; ideas in the same words are not asked about.

The measure is of one problem; that of a benchmark is the mean over its problems. How much is gained by search, such as
pass@k / pass@1 - 1, is close to a linear function of it: `fit_gain` finds that of your own measurements. The paper's
constants are those of its models, and are not used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from statistics import StatisticsError, correlation, linear_regression
from typing import Annotated, NamedTuple

from pydantic import Field

from archon.backends.base import Sampling
from archon.candidate import Candidate
from archon.code import program_of
from archon.problem import Problem
from archon.prompting import Places, Said, asked, pose, question_of, read_verdict, verdict_form
from archon.run import Run
from archon.stage import Candidates, Count, Plan, Stream
from archon.strategies.asking import Asking
from archon.strategies.idea_search import read_words

SUMMARISE = """\
{question}

{solution}

Above are a question and a solution. In one to three sentences: which idea does the solution rest on? Name \
the approach that another solution could share or not share, and leave out how it is written. Reply with \
these sentences only."""
COMPARE = """\
{ideas}

Each of the two is the idea of a solution to one and the same question. Are they the same idea? They are \
where both go the same way to the result and differ in words, names or details only. They are not where \
somebody who knows the one has still to find the other. {form}"""


class Diversity(NamedTuple):
    """How diverse the ideas of some solutions are."""

    ideas: tuple[str, ...]
    """The idea of each; empty where it could not be told."""
    same: int
    """Pairs with the same idea."""
    pairs: int
    """Pairs of which it is known whether they are."""
    undecided: int
    """Pairs of which it is not; they do not count."""

    @property
    def value(self) -> float | None:
        """From 0, where all have the same idea, to 1; None where no pair is known."""
        return 1 - self.same / self.pairs if self.pairs else None

    def __str__(self) -> str:
        value = "unknown" if self.value is None else f"{self.value:.3f}"
        others = f", {self.undecided} undecided" if self.undecided else ""
        return f"{value} ({self.pairs} pairs of {len(self.ideas)} solutions{others})"


class IdeaDiversity(Asking):
    """Measure how diverse the candidates' ideas are, and pass them on as they are. Each has its own idea as the note
    `idea`, where it is among those that are compared, and the measure as the note `idea_diversity`."""

    most: Annotated[int, Field(ge=2)] = 40
    """How many candidates are compared, at most; drawn from the run's generator where there are more."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 0.0
    """0 is greedy; the model's default where none is given."""
    summarise_prompt: Annotated[
        str, Places("solution|solution_text", optional=("question", "question_text"))
    ] = SUMMARISE
    """What asks for the idea of a solution."""
    compare_prompt: Annotated[
        str, Places("ideas|ideas_text", "form", optional=("question", "question_text"))
    ] = COMPARE
    """What asks whether two ideas are the same."""

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        """Wait for all, measure, pass all on in the order in which they came."""
        arrived = [candidate async for candidate in candidates]
        chosen = sorted(arrived, key=run.birth)
        if len(chosen) > self.most:
            chosen = [chosen[i] for i in sorted(run.rng.sample(range(len(chosen)), self.most))]
        found = await idea_diversity(chosen, run, self)
        run.trace(
            "idea_diversity",
            diversity=found.value,
            same=found.same,
            pairs=found.pairs,
            undecided=found.undecided,
        )
        ideas = {c.id: idea for c, idea in zip(chosen, found.ideas, strict=True) if idea}
        for candidate in arrived:
            noted = candidate.with_note("idea_diversity", str(found))
            yield noted.with_note("idea", ideas[candidate.id]) if candidate.id in ideas else noted

    def plan(self, incoming: Count) -> Plan:
        """A summary of each, and a comparison of each two at most; all pass."""
        most = self.most if incoming.high is None else min(self.most, incoming.high)
        calls = Count(min(1, incoming.low), most + most * (most - 1) // 2)
        return Plan(asked(calls, self.again), incoming)


async def idea_diversity(
    solutions: Sequence[Candidate], run: Run, asking: IdeaDiversity | None = None
) -> Diversity:
    """Measure the diversity of these solutions to the run's problem; `asking` says whom to ask, and how."""
    asking = asking or IdeaDiversity()
    ideas = await run.gather(*(_idea(asking, run, solution) for solution in solutions))
    pairs = [pair for pair in combinations(ideas, 2) if all(pair)]
    alike = await run.gather(*(_same(asking, run, *pair) for pair in pairs))
    known = [same for same in alike if same is not None]
    return Diversity(tuple(ideas), sum(known), len(known), len(ideas) * (len(ideas) - 1) // 2 - len(known))


async def _idea(asking: IdeaDiversity, run: Run, solution: Candidate) -> str:
    problem = run.problem
    program = program_of(problem, solution.text) if problem.answer == "code" else None
    posed = pose(asking.summarise_prompt, question=question_of(problem), solution=program or solution.text)
    said = await asking.ask(run, posed, read_words, parents=(solution,))
    return said.value or ""


async def _same(asking: IdeaDiversity, run: Run, one: str, other: str) -> bool | None:
    if one.casefold().split() == other.casefold().split():
        return True
    posed = pose(
        asking.compare_prompt, verdict_form, question=question_of(run.problem), ideas=sorted((one, other))
    )
    said: Said[str] = await asking.ask(run, posed, partial(read_verdict, mark=posed.mark))
    return said.value == "yes" if said.read else None


# --- what it predicts ------------------------------------------------------------------------------


class Gain(NamedTuple):
    """The gain from search as a linear function of diversity."""

    slope: float
    intercept: float
    correlation: float
    """Pearson's, of the diversities and gains it was fitted to."""
    spread: float
    """The standard deviation of those gains around the line."""
    points: int
    """How many there were."""

    def at(self, diversity: float) -> float:
        """The gain to expect."""
        return self.intercept + self.slope * diversity


def fit_gain(diversities: Sequence[float], gains: Sequence[float]) -> Gain:
    """The line through measured points by least squares: of each method and model its mean diversity, and the gain
    that search has brought. Raises ValueError for fewer than three points, or points of one diversity."""
    if len(diversities) != len(gains):
        raise ValueError(f"there are {len(diversities)} diversities and {len(gains)} gains")
    if len(gains) < 3 or len(set(diversities)) < 2:
        raise ValueError("a line takes at least three points, and not all of one diversity")
    slope, intercept = linear_regression(diversities, gains)
    squares = sum((g - intercept - slope * d) ** 2 for d, g in zip(diversities, gains, strict=True))
    try:
        fits = correlation(diversities, gains)
    except StatisticsError:  # the gains are all the same
        fits = 0.0
    return Gain(slope, intercept, fits, (squares / (len(gains) - 2)) ** 0.5, len(gains))
