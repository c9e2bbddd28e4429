"""What searching over steps costs where the model costs nothing: steps per second, ours against its_hub's.

Beam search and particle filtering over the same scripted replies and scores: n = 256, 40 steps, every answer running
to the last of them. A step is one continuation, written and scored. Ours goes through everything: run, budgets,
adaptive concurrency, ledger, pools of samples. its_hub (https://pypi.org/project/its_hub) runs its own algorithm's
code over a language model and a reward model that are plain functions. Where it is not installed
(`pip install "archon[speed]"`), only ours is measured. Prints one line of JSON last.

    python -m archon.benchmarks.speed.steps [--n 256] [--steps 40] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import logging
import statistics
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.problem import Problem
from archon.session import Session
from archon.strategies.beam_search import BeamSearch
from archon.strategies.particle_filter import ParticleFilter
from archon.strategies.stepping.stage import Stepping

SURVIVORS = 4
QUESTION = "What comes next?"
STEP = "the next step of the answer is number {}"
Way = Callable[[], Awaitable[int]]
"""Runs one search; the steps that were written."""


def step(prefix: str, index: int) -> str:
    """The script: a step by what is written and the sample's number, without what ends it."""
    return STEP.format(zlib.crc32(f"{index}|{prefix}".encode()))


def score(text: str) -> float:
    """A score of what is written, between 0 and 1."""
    return zlib.crc32(text.encode()) / 2**32


# --- ours -------------------------------------------------------------------------------------------


def reply(call: Call) -> Reply:
    """A step that goes on."""
    return Reply(step(call.request.prefix, call.index), "stop_string", "\n")


async def ours(stage: Stepping, n: int) -> int:
    """One search through a session without a store."""
    models: dict[str, Model] = {
        "default": Scripted(reply=reply, identity="steps", max_n=n, concurrency=n),
        "reward": Scripted(score=score, identity="reward", max_n=n, concurrency=n),
    }
    async with Session(models=models, seed=1) as session:
        outcome = await session.solve(stage, Problem.ask(QUESTION, id="p"))
        assert len(outcome.candidates) == n and not outcome.failures
        assert {len(c.steps) for c in outcome.candidates} == {stage.max_steps}
        return len(session.caller("default").backend.calls)  # type: ignore[attr-defined]


# --- its_hub's --------------------------------------------------------------------------------------


async def theirs(kind: str, n: int, steps: int) -> int:
    """One search of its_hub's, over the same script."""
    from its_hub.api import AbstractLanguageModel, AbstractProcessRewardModel
    from its_hub.core.algorithms.beam_search import BeamSearch as TheirBeamSearch
    from its_hub.core.algorithms.particle_gibbs import ParticleFiltering
    from its_hub.core.lms.step_generation import StepGeneration

    written = 0
    drawn: dict[str, int] = {}

    class Language(AbstractLanguageModel):  # type: ignore[misc]
        async def agenerate(self, messages: Any, stop: Any = None, **settings: Any) -> list[dict[str, str]]:
            nonlocal written
            replies = []
            for chat in messages:
                prefix = chat[1].content if len(chat) > 1 else ""
                index = drawn[prefix] = drawn.get(prefix, -1) + 1
                replies.append({"role": "assistant", "content": step(prefix, index)})
            written += len(replies)
            return replies

    class Rewards(AbstractProcessRewardModel):  # type: ignore[misc]
        async def ascore(self, prompt: Any, texts: Sequence[str]) -> list[float]:
            return [score(f"{text}\n") for text in texts]

        def score(self, prompt: Any, texts: Sequence[str]) -> list[float]:
            raise NotImplementedError

    generation = StepGeneration(steps - 1, "\n")  # it stops one step later than it is told
    if kind == "beam_search":
        search: Any = TheirBeamSearch(generation, Rewards(), beam_width=SURVIVORS)
    else:
        search = ParticleFiltering(generation, Rewards())
    await search.ainfer(Language(), QUESTION, n, return_response_only=False)
    return written


# --- both -------------------------------------------------------------------------------------------


async def measure(n: int, steps: int, rounds: int) -> dict[str, Any]:
    """Steps per second of each, in turns."""
    logging.disable(logging.INFO)
    stages: dict[str, Stepping] = {
        "beam_search": BeamSearch(n=n, m=n // SURVIVORS, max_steps=steps),
        "particle_filter": ParticleFilter(n=n, max_steps=steps, resampling="multinomial"),
    }
    ways: dict[tuple[str, str], Way] = {}
    for kind, stage in stages.items():
        ways[kind, "ours"] = lambda stage=stage: ours(stage, n)  # type: ignore[misc]
        if importlib.util.find_spec("its_hub") is not None:
            ways[kind, "its_hub"] = lambda kind=kind: theirs(kind, n, steps)  # type: ignore[misc]
    speeds: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    written: dict[tuple[str, str], int] = {}
    for _ in range(rounds):
        for way, run in ways.items():
            gc.collect()
            started = time.perf_counter()
            written[way] = await run()
            speeds[way].append(written[way] / (time.perf_counter() - started))
    found: dict[str, Any] = {"n": n, "steps": steps, "rounds": rounds}
    for kind in stages:
        found[kind] = {
            name: {"steps_per_second": round(statistics.median(some), 1), "written": written[kind, name]}
            for (other, name), some in speeds.items()
            if other == kind
        }
        if "its_hub" in found[kind]:
            ratios = [a / b for a, b in zip(speeds[kind, "ours"], speeds[kind, "its_hub"], strict=True)]
            found[kind]["ratio"] = round(statistics.median(ratios), 3)
    return found


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(measure(given.n, given.steps, given.rounds))))


if __name__ == "__main__":
    main()
