"""Searches over steps on a real vLLM: what its prefix cache holds is not computed again, and cancelling stops it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from archon.backends.base import Model
from archon.backends.nano.backend import Nano
from archon.backends.vllm.config import VLLM
from archon.backends.vllm.replicas import VLLMBackend
from archon.benchmarks.lab.arith import Arith
from archon.problem import Problem
from archon.session import Session
from archon.strategies.beam_search import BeamSearch
from archon.strategies.particle_filter import ParticleFilter
from archon.strategies.particle_gibbs import ParticleGibbs
from archon.strategies.stepping.stage import Stepping, Tokens
from tests.archon.engines import idle, until

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PRINTED = {"allowed_token_ids": list(range(5, 101))}
"""No marks: they are not in the text, and what follows one would be another beginning. So no answer ends by itself."""
BLOCK = 32
"""Tokens of a cache block: vLLM caches whole ones, and on a CPU they are no smaller."""


def models(vllm: VLLM) -> dict[str, Model]:
    """The nano model on vLLM, and the nano process reward model in numpy."""
    options = {**vllm.options, "block_size": BLOCK}
    return {
        "default": vllm.model_copy(update={"options": options, "max_tokens": 128}),
        "reward": Nano(weights="prm", workers=1),
    }


def question(seed: int) -> Problem:
    """A long expression, so that answers have many lines."""
    return Problem.ask(Arith().draw(random.Random(seed), 8).question, id=f"p{seed}")


class Work(NamedTuple):
    """What an engine computed for a search, and what it had to."""

    positions: int
    """Tokens that went through the model: of prompts, those that were not cached; of replies, all but the last."""
    tree: int
    """Distinct positions of the tree of beginnings, each once."""
    spared: int
    """The least that a cache of whole blocks lets through: the tree, and of every sample's beginning what is in its
    last, unfinished block."""


async def worked(stage: Stepping, vllm: VLLM, problem: Problem) -> Work:
    async with Session(models=models(vllm), seed=1) as session:
        backend = session.caller("default").backend
        assert isinstance(backend, VLLMBackend)
        outcome = await session.solve(stage, problem)
        figures = await idle(backend)
        pools = [pool for pool in await session.store.summaries() if pool.samples]
    assert outcome.candidates and not outcome.failures
    samples = sum(pool.samples for pool in pools)
    written = sum(pool.usage.completion_tokens for pool in pools)
    assert figures.completion_tokens == written and figures.first_tokens == figures.finished == samples
    sizes = [pool.usage.prompt_tokens // pool.usage.requests for pool in pools]
    asked = min(sizes)
    tree = asked + written - samples + len(pools) - 1
    again = sum(pool.samples * ((size - 1) % BLOCK + 1) for pool, size in zip(pools, sizes, strict=True))
    spared = (asked - 1) // BLOCK * BLOCK + again + written - samples
    return Work(figures.looked_up - figures.cached + written - samples, tree, spared)


STAGES: dict[str, Callable[..., Stepping]] = {
    "beam_search": lambda **settings: BeamSearch(n=8, m=4, temperature=1.0, **settings),
    "particle_filter": lambda **settings: ParticleFilter(n=8, temperature=1.0, **settings),
}


@pytest.mark.parametrize("kind", STAGES)
async def test_line_by_line_nothing_is_computed_that_a_cache_of_whole_blocks_spares(
    kind: str, vllm: VLLM
) -> None:
    work = await worked(STAGES[kind](max_steps=8), vllm, question(1))
    print(
        kind,
        work,
        f"{work.positions / work.tree:.3f} of the tree, {work.positions / work.spared:.3f} of the least",
    )
    assert work.positions <= 1.1 * work.spared


@pytest.mark.parametrize("kind", STAGES)
async def test_with_steps_much_longer_than_a_block_the_tree_is_computed_once(kind: str, vllm: VLLM) -> None:
    """A sample's beginning is computed again by half a block on average: 16 tokens beside a step of 300."""
    model = vllm.model_copy(update={"sampling": vllm.sampling.model_copy(update={"extra": PRINTED})})
    stage = STAGES[kind](steps=Tokens(tokens=300), max_steps=3)
    work = await worked(stage, model, question(2))
    print(
        kind,
        work,
        f"{work.positions / work.tree:.3f} of the tree, {work.positions / work.spared:.3f} of the least",
    )
    assert work.tree > 8 * 3 * 290
    assert work.positions <= 1.1 * work.tree


async def test_ancestors_are_drawn_by_what_the_engine_says_of_its_own_steps(vllm: VLLM) -> None:
    """Whole beginnings are read, not written: what ancestors cost is prompts, and no token of a reply."""
    stage = ParticleGibbs(
        n=4, sweeps=3, temperature=1.0, max_steps=6, ancestor_sampling=True, ancestor_steps=None
    )
    async with Session(models=models(vllm), seed=1) as session:
        backend = session.caller("default").backend
        assert isinstance(backend, VLLMBackend)
        outcome = await session.solve(stage, question(1))
        plain = await session.solve(stage.model_copy(update={"ancestor_sampling": False}), question(1))
    print(outcome.usage, plain.usage)
    assert outcome.candidates and not outcome.failures and not plain.failures
    writer, without = outcome.by_model["default"], plain.by_model["default"]
    assert writer.prompt_tokens > 1.5 * without.prompt_tokens


async def test_cancelling_a_search_stops_the_engine(vllm: VLLM) -> None:
    model = vllm.model_copy(update={"sampling": vllm.sampling.model_copy(update={"extra": PRINTED})})
    stage = BeamSearch(n=16, m=4, temperature=1.0, steps=Tokens(tokens=400), max_steps=2)
    async with Session(models=models(model), seed=2) as session, asyncio.timeout(300):
        backend = session.caller("default").backend
        assert isinstance(backend, VLLMBackend)
        for number in range(20):  # the next one where a fast engine had ended it before we looked
            search = asyncio.create_task(session.solve(stage, question(3 + number)))
            await until(backend, lambda figures: figures.running == 16, unless=search)
            search.cancel()
            await asyncio.wait([search])
            figures = await idle(backend)
            if search.cancelled() and figures.cut_off:
                break
        assert search.cancelled()
        assert figures.cut_off == 16 and figures.completion_tokens < figures.first_tokens * 400
