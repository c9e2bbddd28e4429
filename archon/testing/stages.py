"""The conformance suite of stages, and a way to run one by hand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from archon import registry
from archon.backends.base import Model
from archon.backends.scripted import Scripted
from archon.candidate import Outcome, Verdict
from archon.config import dump, load
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.stage import Stage
from archon.verifier import Verifier


class EveryThird(Verifier):
    """A verifier for tests: accepts every third candidate, and scores by index."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        """By index alone."""
        return [
            Verdict(self.name, c.index % 3 == 2, score=float(c.index % 5), status="passed")
            for c in candidates
        ]


def verified_samples(n: int, verifier: Verifier | str | None = None) -> Pipeline:
    """`n` samples with verdicts: what most stages need before them."""
    sample, verify = registry.find("stage", "sample"), registry.find("stage", "verify")
    pipeline: Pipeline = sample(n=n) | verify(verifier=verifier or EveryThird())
    return pipeline


async def scripted_run(
    stage: Stage | Pipeline,
    *,
    replies: Sequence[str] = ("a", "b", "a", "c", "b", "a"),
    problem: Problem | None = None,
    models: Mapping[str, Model] | None = None,
    store: str | None = None,
) -> Outcome:
    """Run a stage on scripted candidates (verified by `EveryThird`), or a source or pipeline as it is."""
    asked = problem or Problem.ask("a question", id="p")
    pipeline = stage
    if isinstance(stage, Stage) and stage.takes:
        pipeline = verified_samples(len(replies)) | stage
    default = {"default": Scripted(replies={"*": tuple(replies)})}
    async with Session(models={**default, **(models or {})}, store=store) as session:
        return await session.solve(pipeline, asked)


def said(outcome: Outcome, stage: Stage) -> list[tuple[str, str, dict[str, Verdict]]]:
    """What must be the same twice: of a stage that stops early, how far the others came is chance."""
    compared = outcome.final if stage.stops_early else outcome.candidates
    return [(c.id, c.text, dict(c.verdicts)) for c in compared]


class StageCases:
    """What every stage must do. Subclass it, and say how to make one."""

    @abstractmethod
    def make_stage(self) -> Stage:
        """The stage, with settings that differ from the defaults where that makes sense."""
        raise NotImplementedError

    def models(self) -> Mapping[str, Model]:
        """Models it calls, beside `default`."""
        return {}

    async def run_stage(self, stage: Stage, replies: Sequence[str]) -> Outcome:
        """Run it on so many candidates."""
        return await scripted_run(stage, replies=replies, models=self.models())

    def test_it_is_its_configuration(self) -> None:
        stage = self.make_stage()
        pipeline = verified_samples(1, "unit_tests") | stage if stage.takes else Pipeline([stage])
        assert load(dump(pipeline), "yaml").pipeline == pipeline
        assert load(dump(pipeline, "toml"), "toml").pipeline == pipeline

    def test_it_is_immutable_and_hashable(self) -> None:
        stage = self.make_stage()
        assert hash(stage) == hash(self.make_stage())
        try:
            stage.budget = None  # type: ignore[misc]
        except Exception:
            return
        raise AssertionError("a stage must be frozen")

    async def test_the_same_run_gives_the_same_outcome(self) -> None:
        replies = ("a", "b", "a", "c", "b", "a")
        stage = self.make_stage()
        first, second = await self.run_stage(stage, replies), await self.run_stage(stage, replies)
        assert [c.id for c in first.final] == [c.id for c in second.final]
        assert said(first, stage) == said(second, stage)

    async def test_no_candidate_is_duplicated(self) -> None:
        outcome = await self.run_stage(self.make_stage(), ("a", "b", "a", "c", "b", "a"))
        ids = [c.id for c in outcome.final]
        assert len(ids) == len(set(ids))

    async def test_one_candidate_is_enough(self) -> None:
        outcome = await self.run_stage(self.make_stage(), ("only",))
        assert len(outcome.final) <= 1

    async def test_its_plan_bounds_what_it_does(self) -> None:
        stage = self.make_stage()
        replies = ("a", "b", "a", "c", "b", "a")
        outcome = await self.run_stage(stage, replies)
        pipeline = verified_samples(len(replies)) | stage if stage.takes else Pipeline([stage])
        path = list(pipeline.graph().places)[-1]
        plan = pipeline.graph().plan()[path]
        passed = len(outcome.final)
        assert plan.passes.high is None or passed <= plan.passes.high
        used = sum(u.requests for row, u in outcome.by_stage.items() if f"{row}/".startswith(f"{path}/"))
        assert plan.calls.high is None or used <= plan.calls.high

    async def test_the_books_balance(self) -> None:
        outcome = await self.run_stage(self.make_stage(), ("a", "b", "a", "c"))
        assert sum(u.requests for u in outcome.by_stage.values()) == outcome.usage.requests
        assert sum(u.tokens for u in outcome.by_model.values()) == outcome.usage.tokens
