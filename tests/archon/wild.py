"""Random pipelines, and a random world for them: replies, delays and failures by what is asked alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Outcome, Verdict
from archon.errors import ConnectionDropped, Overloaded, RateLimited
from archon.pipeline import Node, Pipeline
from archon.problem import Problem
from archon.run import Run
from archon.session import Session
from archon.stage import Candidates, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.strategies.weighted_vote import WeightedVote
from archon.usage import Usage
from archon.verifier import Verifier
from tests.archon.instant import InstantStore, patiently

MODELS = ("a", "b", "c", "judge")
PROBLEM = Problem.ask("a question", id="p")
DELAY = 0.0005
"""Seconds the store takes. With none, one more call is made: see test_invariants_replay.py."""


class ByText(Verifier):
    """Accepts replies that say so; takes its time, by the candidate."""

    slow: int = 0
    scores: bool = False
    """Whether it gives scores: only one does, so that it is clear whose are meant."""

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        verdicts = []
        for c in candidates:
            if self.slow:
                await asyncio.sleep(0.1 * (1 + hash_of(c.id, self.slow) % 7))
            score = float(len(c.text)) if self.scores else None
            verdicts.append(Verdict(self.name, "good" in c.text, score, "score", "passed"))
        return verdicts


class Asking(Verifier):
    """A judge: a model call per candidate. No two candidates' prompts are equal."""

    @property
    def models(self) -> tuple[str, ...]:
        return ("judge",)

    @property
    def calls_per_candidate(self) -> int:
        return 1

    async def verify(self, problem, candidates, run):  # type: ignore[no-untyped-def]
        verdicts = []
        for c in candidates:
            said = [
                x.text async for x in run.sample("judge", prompt=f"{problem.id} {run.stage} {c.id} {c.text}")
            ]
            good = bool(said) and "bad" not in said[0]
            verdicts.append(Verdict(self.name, good, status="passed"))
        return verdicts


class Passing(Stage):
    """Passes everything on, after a moment."""

    slow: int = 0

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for candidate in candidates:
            if self.slow:
                await asyncio.sleep(0.05 * (hash_of(candidate.id, self.slow) % 5))
            yield candidate


def hash_of(*parts: object) -> int:
    return random.Random("|".join(map(str, parts))).getrandbits(32)


def script(seed: int, trouble: float, slowest: float = 3.0) -> Any:
    """Replies, delays, failures and token counts, by (prompt, sample, attempt). No two delays are equal, so
    that what arrives first is no accident."""

    def reply(call: Call) -> Reply:
        draw = random.Random(f"{seed}|{call.text}|{call.index}|{call.attempt}|{call.request.sampling.seed}")
        if draw.random() < trouble:
            error = draw.choice([RateLimited, Overloaded, ConnectionDropped])
            raise error("not now", retry_after=0.01)
        text = f"{draw.choice(['good', 'bad', 'good enough', 'so so'])}"
        prompt = random.Random(call.text).randint(1, 9)
        tokens = Tokens(prompt, completion=draw.randint(1, 40))
        return Reply(text, latency=draw.uniform(0.001, slowest), tokens=tokens)

    return reply


def models(seed: int, trouble: float = 0.0, **settings: Any) -> Mapping[str, Scripted]:
    """Every model a random pipeline may name; patient ones, so that trouble passes."""
    given = {"concurrency": 400, "retries": 60, "max_tokens": 40, **settings}
    return {name: Scripted(reply=script(seed, trouble), identity=name, **given) for name in MODELS}


SAMPLES = st.builds(
    Sample,
    model=st.sampled_from(["a", "b", "c"]),
    n=st.integers(0, 5),
    per_request=st.sampled_from(["auto", 1, 2]),
)
JUDGES: st.SearchStrategy[Stage] = st.builds(
    Verify,
    verifier=st.builds(ByText, slow=st.integers(0, 2)) | st.just(Asking()),
    ahead=st.integers(1, 4),
)
STEPS: st.SearchStrategy[Stage] = JUDGES | st.builds(Passing, slow=st.integers(0, 2))
SCORED = "by_text"
"""What the verdicts of the first judge of every branch go by."""
CHOICES: st.SearchStrategy[Stage] = st.sampled_from(
    [MajorityVote(), BestOf(by=SCORED), TopK(k=2, by=SCORED), WeightedVote(by=SCORED)]
)


@st.composite
def branches(draw: st.DrawFn) -> Pipeline:
    """One source; judged, and then anything: further stages, a fork that meets again, a nested pipeline."""
    branch = draw(SAMPLES) | Verify(verifier=ByText(scores=True), ahead=draw(st.integers(1, 4)))
    for number in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(["step", "fork", "nest"]))
        if kind == "step":
            branch = branch | draw(STEPS)
        elif kind == "fork":
            branch = branch | (draw(STEPS) & draw(STEPS)) | Passing()
        else:
            inner = draw(STEPS) | draw(STEPS)
            (end,) = branch.sinks
            branch = Pipeline([*branch.nodes, Node(f"nested{number}", inner, (end.name,))])
    return branch


@st.composite
def pipelines(draw: st.DrawFn, most: int = 3) -> Pipeline:
    """Branches side by side, joined and chosen from, or left open."""
    whole = draw(branches())
    for _ in range(draw(st.integers(0, most - 1))):
        whole = whole & draw(branches())
    return whole | draw(CHOICES) if draw(st.booleans()) else whole


@st.composite
def stopping(draw: st.DrawFn) -> Pipeline:
    """One branch, and the first that passes."""
    return draw(branches()) | FirstPassing()


class Runs:
    """Sessions one after the other on one file."""

    def __init__(self, folder: Path, world: int, trouble: float, *, max_n: int = 2, **settings: Any) -> None:
        self.file = folder / "store.sqlite"
        self.world, self.trouble, self.max_n = world, trouble, max_n
        self.settings = settings

    def solve(self, pipeline: Pipeline, *problems: Problem, **settings: Any) -> tuple[Outcome, list[Any]]:
        """One session, one problem (or the last of several); and what its models were asked."""

        async def work() -> tuple[Outcome, list[Any]]:
            store = InstantStore(self.file, delay=DELAY)
            named = models(self.world, self.trouble, max_n=self.max_n)
            async with Session(models=named, store=store, **self.settings, **settings) as session:
                for problem in problems or (PROBLEM,):
                    outcome = await session.solve(pipeline, problem)
                backends: list[Any] = [session.caller(name).backend for name in MODELS]
                assert timeless(session.ledger.total) == timeless(outcome.usage) or len(problems) > 1
                assert session.ledger.fresh == outcome.fresh or len(problems) > 1
                await store.close()
                return outcome, [(b.config.identity, c.text, c.index) for b in backends for c in b.calls]

        return patiently(work())


def sampled(pipeline: Pipeline) -> int:
    """How many samples its sources draw."""
    return sum(node.stage.n for node in pipeline.nodes if isinstance(node.stage, Sample))


def judges(pipeline: Pipeline) -> int:
    """How many of its stages ask a judge."""
    return len(pipeline.graph().models.get("judge", []))


def timeless(usage: Usage) -> Usage:
    """Without seconds, which are sums of floats in another order."""
    return usage._replace(seconds=0.0)


def summary(outcome: Outcome) -> dict[str, Any]:
    """Everything an outcome says, but for what was spent now and the last digits of seconds."""
    return {
        "problem": outcome.problem,
        "chosen": outcome.chosen and outcome.chosen.id,
        "final": [(c.id, c.text) for c in outcome.final],
        "candidates": [(c.id, c.text, c.model, c.parents, dict(c.verdicts)) for c in outcome.candidates],
        "failures": [(f.stage, f.index, str(f.error)) for f in outcome.failures],
        "usage": timeless(outcome.usage),
        "by_stage": {name: timeless(u) for name, u in outcome.by_stage.items()},
        "by_model": {name: timeless(u) for name, u in outcome.by_model.items()},
        "stopped": (outcome.stopped, outcome.exhausted),
    }
