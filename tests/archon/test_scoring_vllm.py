"""Reward models on a real vLLM say what the numpy engine says of the same weights."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from archon.backends.base import Progress, Scorer, ScoreRequest
from archon.backends.nano.backend import Nano
from archon.backends.nano.folder import SHIPPED
from archon.backends.rewards import RewardServer
from archon.backends.scripted import Scripted
from archon.backends.vllm.config import VLLM
from archon.benchmarks.lab.arith import rewritten
from archon.problem import Message, Problem
from archon.session import Session
from archon.steps import convert, cut
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.verifiers.reward import Reward
from tests.archon import nano_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

EXPRESSION = "12+7*(3+2)-4+(6-2)"
QUESTION = f"Compute {EXPRESSION} step by step."


def weights(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The nano weights of this kind, or random ones in a shape that vLLM's attention takes on a CPU: heads of 32."""
    if (SHIPPED / kind / "config.json").is_file():
        return SHIPPED / kind
    monkeypatch.setattr(nano_model, "HEADS", 2)
    monkeypatch.setattr(nano_model, "KEY_HEADS", 1)
    return nano_model.random_folder(place / kind, scores=True)


def on_vllm(vllm: VLLM, kind: str, folder: Path) -> RewardServer:
    started = {name: getattr(vllm, name) for name in ("python", "options", "environment")}
    return RewardServer(model=str(folder), reads=f"nano-{kind}", vllm=started)


def replies(count: int) -> list[tuple[str, ...]]:
    """Replies of several steps, more or less right: some of their digits are others, as a seed makes them."""
    draw = random.Random(0)
    written = "\n".join(rewritten(EXPRESSION) or ())

    def spoilt(share: float) -> str:
        return "".join(
            draw.choice(string.digits) if c.isdigit() and draw.random() < share else c for c in written
        )

    return [cut(spoilt(0.2 * number / count)) for number in range(count)]


async def test_the_scores_of_two_hundred_replies_are_the_same(
    vllm: VLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights("prm", tmp_path, monkeypatch)
    served = on_vllm(vllm, "prm", folder)
    local = Nano(weights=str(folder), scores="steps", workers=1)
    asked = ScoreRequest((Message(role="user", content=QUESTION),), tuple(replies(200)))
    backend = local.connect()
    try:
        wanted = await backend.score(asked, Progress())
    finally:
        await backend.close()
    said = ["".join(steps) for steps in asked.replies]
    models = {"default": Scripted(replies={"*": tuple(said)}), "prm": served}
    async with Session(models=models, store=tmp_path / "s.sqlite") as session:
        verify = Verify(verifier=Reward(model="prm"), ahead=64)
        outcome = await session.solve(Sample(n=200) | verify, Problem.ask(QUESTION))
        scorer = session.caller("prm").backend
        assert isinstance(scorer, Scorer)
        again = await scorer.score(
            ScoreRequest(asked.messages, asked.replies[:8], finished=False), Progress()
        )
    given = [c.verdicts["reward"].score for c in outcome.candidates]
    last = [convert(one.steps[-1], "logit", "probability") for one in wanted]
    assert given == pytest.approx(last, abs=2e-3)
    for one, other in zip(again, wanted, strict=False):
        steps = [convert(step, "logit", "probability") for step in other.steps]
        assert list(one.steps) == pytest.approx(steps, abs=2e-3)
    assert len({round(score, 6) for score in last}) > 120, "they do differ"
    usage = outcome.by_model["prm"]
    assert 200 / 16 <= usage.requests <= 200 and usage.estimated == 0
    read = sum(1 + len(QUESTION) + 1 + len(text) for text in dict.fromkeys(said))
    assert usage.prompt_tokens == read, "a token per character, the beginning and the question's end"


async def test_an_outcome_model_says_of_finished_replies_what_the_numpy_engine_says(
    vllm: VLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = weights("orm", tmp_path, monkeypatch)
    said = tuple("".join(steps) for steps in replies(64))
    models = {
        "default": Scripted(replies={"*": said}),
        "served": on_vllm(vllm, "orm", folder),
        "local": Nano(weights=str(folder), scores="outcome", workers=1),
    }
    found = {}
    async with Session(models=models) as session:
        for name in ("served", "local"):
            verify = Verify(verifier=Reward(model=name, score_as="probability"), ahead=64)
            outcome = await session.solve(Sample(n=64) | verify, Problem.ask(QUESTION))
            found[name] = [c.verdicts["reward"].score for c in outcome.candidates]
            assert outcome.by_model[name].estimated == 0 and not outcome.failures
    assert found["served"] == pytest.approx(found["local"], abs=2e-3)
    assert len({round(score or 0, 6) for score in found["local"]}) > 32, "they do differ"
