"""Every ready pipeline against the rule-based model over real HTTP, with three replies in ten out of form: nothing
crashes, hangs or is lost, no budget is exceeded, and the books balance."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from archon.backends.openai import OpenAI
from archon.backends.servers import Overrides
from archon.budget import Budget, Budgets
from archon.candidate import Outcome
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.shelf import names, ready
from archon.stage import Count, Fact, Stage
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.strategies.write_tests import WriteTests
from archon.testing.instruct import Instruct, Skill, sums
from archon.testing.instruct.reading import prompts_of
from archon.verifiers.judge import Judge
from tests.strategies.instructed import Adding, check_books, solved_by_rules
from tests.strategies.runnable import made, stages

PATIENCE = 100.0
"""Seconds after which a run counts as stuck."""
MOST_TOKENS = 200
MOST_CALLS = 200
MALFORMED = 0.3
PIPELINES = sorted(name for name in names() if "reward" not in ready(name).pipeline.graph().models)
"""Without those whose second model scores and does not chat."""


def problem_for(pipeline: Pipeline) -> Problem:
    """Code where something runs it, else a number, of which some parts are said in documents."""
    code = "UnitTests" in repr(pipeline) or "plan_search" in [stage.name for stage in pipeline.graph().stages]
    (problem,) = sums(1, code=True, terms=3) if code else sums(1, named=2, terms=3)
    example = {"question": "What is Kel plus one?", "answer": "#### 8", "documents": ["Kel is seven."]}
    return problem.model_copy(update={"info": {"examples": [example]}})


class Rig:
    """A pipeline on the rule-based model behind a server, which answers in another order than it is asked."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.pipeline = ready(name).pipeline
        self.graph = self.pipeline.graph()
        self.problem = problem_for(self.pipeline)
        self.instruct = Instruct(prompts=[self.pipeline], **settings)
        self.server = self.instruct.server(delay=lambda asked: asked.number % 5 / 500)

    async def run(self, budget: Budget) -> Outcome:
        """Solve the problem within a budget, and before patience ends; check everything that holds whatever
        happens."""
        models = {
            name: OpenAI(
                model=name,
                base_url=self.server.url,
                max_tokens=MOST_TOKENS,
                capabilities=Overrides(prefix=True),
            )
            for name in self.graph.models
        }
        asked, written = len(self.server.asked), self.instruct.tokens
        async with asyncio.timeout(PATIENCE):
            async with Session(models=models, budget=Budgets(problem=budget), executor=Adding()) as session:
                outcome = await session.solve(self.pipeline, self.problem)
                assert not any(session.meter.held.values())
        for dimension, limit in budget.limits.items():
            assert getattr(outcome.usage, dimension) <= limit, dimension
        check_books(outcome)
        assert not outcome.failures
        if outcome.stopped == "complete" or not any(
            s.stops_early for s in self.graph.stages
        ):  # nothing was cancelled
            assert outcome.usage.requests == len(self.server.asked) - asked
            assert outcome.usage.completion_tokens == self.instruct.tokens - written
        calls, passes = self.graph.total
        assert passes.high is None or len(outcome.final) <= passes.high
        enough = budget.tokens is None and calls.high is not None and calls.high <= (budget.requests or 0)
        assert not enough or len(outcome.final) >= passes.low
        return outcome


@pytest.mark.parametrize("name", PIPELINES)
async def test_a_ready_pipeline_bears_malformed_replies(name: str) -> None:
    rig = Rig(name, skill=Skill.of(0.8), noise=0.2, malformed=MALFORMED)
    async with rig.server:
        outcome = await rig.run(Budget(requests=MOST_CALLS))
        assert outcome.stopped in ("complete", "early")
        assert rig.instruct.spoiled or outcome.usage.requests < 10
        used = outcome.usage
        half = await rig.run(Budget(requests=-(-used.requests // 2), tokens=used.tokens))
        assert half.usage.requests < used.requests or used.requests == 1 or outcome.stopped == "early"


@pytest.mark.parametrize("name", PIPELINES)
async def test_the_rules_obey_every_prompt_of_a_ready_pipeline(name: str) -> None:
    rig = Rig(name, noise=0.5)
    async with rig.server:
        await rig.run(Budget(requests=30))
        assert not rig.instruct.again
    prompts = [prompt for node in rig.pipeline.nodes for prompt in prompts_of(node.stage)]
    assert bool({*rig.instruct.asked} & {p.name for p in prompts}) == bool(prompts)


# --- stage by stage, in process --------------------------------------------------------------------

N = 5
SOURCES = (Sample(n=N), Sample(n=N) | Verify(verifier=Judge(read="text")), Sample(n=N) | WriteTests(n=2))
"""Candidates; with verdicts and scores; with tests."""


SETTINGS: dict[str, dict[str, Any]] = {
    "critique": {"strict": False},
    "fuse": {"keep_inputs": False},
    "hand_over": {"confidence": "agreement"},
    "per_chain": {"selector": MajorityVote()},
    "write_tests": {"strict": False},
}
"""What lets a stage stand at the end, after samples."""


@pytest.mark.parametrize("cls", stages(True), ids=lambda cls: cls.name)
def test_no_stage_loses_a_candidate_over_replies_out_of_form(cls: type[Stage]) -> None:
    """As many go on as its plan promises; where that is as many as came, each is one of them, or made from one."""
    for seed in range(3):
        stage = made(cls, random.Random(f"{seed}"), but=SETTINGS.get(cls.name, {}))
        source = next(s for s in SOURCES if cls.requires <= given_by(s))
        instruct = Instruct(Skill.of(0.7), noise=0.2, malformed=0.6, seed=seed)
        (outcome,) = solved_by_rules(source | stage, sums(1, terms=3), instruct)
        check_books(outcome)
        came = [c for c in outcome.candidates if c.stage == "sample"]
        assert len(came) == N and not outcome.failures
        passes = stage.plan(Count(N, N)).passes
        assert len(outcome.final) >= passes.low and (passes.high is None or len(outcome.final) <= passes.high)
        if passes == Count(N, N) and cls.name != "self_aggregate":  # which draws some of them at random
            behind = {c.id for c in outcome.final} | {parent for c in outcome.final for parent in c.parents}
            assert {c.id for c in came} <= behind


def given_by(source: Stage | Pipeline) -> frozenset[Fact]:
    whole = source if isinstance(source, Pipeline) else Pipeline([source])
    return frozenset[Fact]().union(*(n.stage.provides for n in whole.nodes if isinstance(n.stage, Stage)))
