"""The nano reward models keep the contract of scoring, and serve the verifier `reward`. On random weights."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from archon.backends.base import Backend
from archon.backends.nano.backend import Nano
from archon.backends.nano.folder import read_shape
from archon.backends.nano.llama import Llama
from archon.backends.nano.tokens import BOS, EOS, SEP, encode
from archon.backends.scripted import Scripted
from archon.problem import Problem
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import ScorerCases
from archon.verifiers.reward import Reward
from tests.archon.nano_model import random_folder


class _Nano(ScorerCases):
    scores: ClassVar[Literal["steps", "outcome"]]

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.weights = random_folder(tmp_path / "weights", scores=True)

    async def open_backend(self) -> Backend:
        return Nano(weights=str(self.weights), scores=self.scores, workers=1).connect()

    async def test_it_reads_what_the_model_says_at_those_places(self) -> None:
        backend = await self.open_backend()
        try:
            found = await self.scored(backend, self.replies)
        finally:
            await self.close_backend(backend)
        assert read_shape(self.weights).rewards
        model = Llama(self.weights)
        for reply, one in zip(self.replies, found, strict=True):
            tokens = [BOS, *encode(self.question), SEP]
            ends = []
            for step in reply:
                tokens += encode(step)
                ends.append(len(tokens) - 1)
            if self.scores == "outcome":
                ends = [len(tokens)]
            outcome = model.read([*tokens, EOS]).outcome
            assert one.steps == pytest.approx([outcome[end] for end in ends], abs=self.tolerance)


class TestProcess(_Nano):
    scores = "steps"


class TestOutcome(_Nano):
    scores = "outcome"


async def test_the_verifier_asks_it_in_batches_and_a_replay_asks_nobody(tmp_path: Path) -> None:
    weights = str(random_folder(tmp_path / "weights", scores=True))
    replies = ("3*4=12\n2+12=14\n14", "2+3=5\n5*4=20\n20", "14", "20")
    models = {
        "default": Scripted(replies={"*": replies}),
        "prm": Nano(weights=weights, workers=1),
    }
    verify = Verify(verifier=Reward(model="prm", aggregate="min", score_as="probability"))
    outcomes = []
    for offline in (False, True):
        async with Session(models=models, store=tmp_path / "s.sqlite", offline=offline) as session:
            outcomes.append(await session.solve(Sample(n=4) | verify | BestOf(), Problem.ask("2+3*4=?")))
    first, again = outcomes
    scores = [c.verdicts["reward"].score for c in first.candidates]
    assert all(score is not None and 0 < score < 1 for score in scores)
    assert [dict(c.verdicts) for c in again.candidates] == [dict(c.verdicts) for c in first.candidates]
    assert again.usage == first.usage and again.fresh.requests == 0
    assert 0 < first.by_model["prm"].requests <= 4
    assert first.by_model["prm"].usd == 0 and first.by_model["prm"].flops > 0
    assert first.by_model["prm"].unpriced == 0
