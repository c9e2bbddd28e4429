"""The particle filter as a stage: what it asks of the writer and the reward model, and what it costs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.candidate import Outcome, TokenLogprob
from archon.config import load
from archon.errors import CallTimedOut
from archon.pipeline import Pipeline
from archon.session import Session
from archon.stage import Stage
from archon.strategies.best_of import BestOf
from archon.strategies.particle_filter import Annealing, ParticleFilter
from archon.strategies.sample_by_score import SampleByScore
from archon.testing import StageCases
from archon.trace import MemoryTrace
from tests.strategies.made import PROBLEM


def chance(*what: object) -> float:
    return random.Random("|".join(map(str, what))).random()


def step(call: Call) -> Reply:
    """A letter a line; after two lines or more, it may end. Its text names every choice on the way."""
    prefix = call.request.prefix
    letter = "abcdef"[int(6 * chance(prefix, call.index))]
    if prefix.count("\n") >= 2 and chance("end", prefix, call.index) < 0.4:
        return Reply(letter + "!", "stop")
    return Reply(letter, "stop_string", "\n")


def judge(text: str) -> float:
    return 0.05 + 0.9 * chance("score", text)


def models(write: Any = step, score: Any = judge, **settings: Any) -> dict[str, Model]:
    return {
        "default": Scripted(reply=write, identity="writer", concurrency=99, max_concurrency=99, **settings),
        "reward": Scripted(score=score, identity="judge", max_n=999),
    }


async def run(
    stage: Stage | Pipeline, served: Mapping[str, Model] | None = None, **settings: Any
) -> tuple[Outcome, list[Call], list[Any]]:
    """The outcome, what the writer was asked, and what the reward model was."""
    served = served or models()
    async with Session(models=served, **settings) as session:
        outcome = await session.solve(stage, PROBLEM)
        writer: Any = session.caller("default").backend
        reward: Any = session.caller("reward").backend if "reward" in served else None
        return outcome, writer.calls, [] if reward is None else reward.scored


async def test_the_sampling_temperature_is_that_of_every_step() -> None:
    _, calls, _ = await run(ParticleFilter(n=8, temperature=0.3, top_p=0.9, system="Think."))
    assert {call.request.prefix.count("\n") for call in calls} >= {0, 1, 2, 3}
    assert {(c.request.sampling.temperature, c.request.sampling.top_p) for c in calls} == {(0.3, 0.9)}
    assert len({c.request.messages for c in calls}) == 1, (
        "the chat is the same, and the beginning is a beginning"
    )
    assert all("\n" in c.request.sampling.stop for c in calls)


@pytest.mark.parametrize("finished", ["compete", "keep"])
async def test_what_is_finished_is_neither_continued_nor_scored_again(finished: Any) -> None:
    outcome, calls, scored = await run(ParticleFilter(n=12, finished=finished))
    assert all("!" not in call.request.prefix for call in calls)
    asked = Counter(("".join(steps), r.finished) for r in scored for steps in r.replies)
    assert set(asked.values()) == {1}, "what was scored before is not scored again"
    assert any(text.endswith("!") for text, _ in asked)
    assert {c.text for c in outcome.final} <= {text for text, done in asked if done}


async def test_each_round_has_one_draw_per_beginning_and_one_batch_of_scores() -> None:
    trace = MemoryTrace()
    stage = ParticleFilter(n=16)
    outcome, calls, scored = await run(stage, models(max_n=99), trace=trace)
    rounds = [event for event in trace.events if event["event"] == "round"]
    assert len(rounds) > 3
    prefixes = {call.request.prefix for call in calls}
    assert len(calls) == sum(event["wanted"] for event in rounds)
    by_kind = Counter((max(len(s) for s in r.replies), r.finished) for r in scored)
    assert max(by_kind.values()) == 1 and len(scored) <= 2 * len(rounds)
    writing = outcome.by_model["default"].requests
    depths = Counter(prefix.count("\n") for prefix in prefixes)
    assert writing == len(prefixes) and len(prefixes) < len(calls)
    assert depths[0] == 1


async def test_the_whole_beginning_is_scored_and_not_the_step_alone() -> None:
    _, calls, scored = await run(ParticleFilter(n=4))
    texts = {"".join(steps) for r in scored for steps in r.replies}
    assert {c.request.prefix for c in calls} - {""} <= texts


async def test_the_seed_of_the_run_decides_all_that_is_drawn() -> None:
    def told(outcome: Outcome) -> tuple[tuple[str, str, float | None], ...]:
        return tuple((c.id, c.text, c.score()) for c in outcome.final)

    first = [told((await run(ParticleFilter(n=6), seed=seed))[0]) for seed in range(6)]
    again = [told((await run(ParticleFilter(n=6), seed=seed))[0]) for seed in range(6)]
    assert first == again and len(set(first)) > 1


async def test_a_higher_score_is_written_on_more_often() -> None:
    """Two beginnings, nine to one: the better is continued about nine times in ten."""

    def write(call: Call) -> Reply:
        if call.request.prefix:
            return Reply("end", "stop")
        return Reply("good" if call.index % 2 else "bad", "stop_string", "\n")

    def score(text: str) -> float:
        return 0.75 if text.startswith("good") else 0.25

    served = models(write, score)
    outcome, calls, _ = await run(ParticleFilter(n=200), served)
    good = sum(call.request.prefix == "good\n" for call in calls)
    assert abs(good - 180) < 4.5 * (200 * 0.9 * 0.1) ** 0.5
    assert len(outcome.final) == 200 and {c.steps for c in outcome.final} == {
        ("good\n", "end"),
        ("bad\n", "end"),
    }
    _, calls, _ = await run(ParticleFilter(n=200, weigh="probability", resampling="systematic"), served)
    assert abs(sum(call.request.prefix == "good\n" for call in calls) - 150) <= 1


@pytest.mark.parametrize("most", [1, 3])
async def test_no_answer_has_more_than_the_most_steps(most: int) -> None:
    served = models(lambda call: Reply("on", "stop_string", "\n"))
    outcome, calls, _ = await run(ParticleFilter(n=4, max_steps=most), served)
    assert len(calls) == 4 * most
    assert {(len(c.steps), c.finish) for c in outcome.final} == {(most, "length")}


async def test_the_end_of_sequence_ends_a_particle_and_so_does_what_is_waited_for() -> None:
    def ending(call: Call) -> Reply:
        return Reply("done", "stop") if call.request.prefix else Reply("so", "stop_string", "\n")

    outcome, calls, _ = await run(ParticleFilter(n=3), models(ending))
    assert len(calls) == 6 and {c.text for c in outcome.final} == {"so\ndone"}
    boxed = models(lambda call: Reply("box 4" if call.request.prefix else "so", "stop_string", "\n"))
    outcome, calls, _ = await run(ParticleFilter(n=3, until=r"box \d"), boxed)
    assert len(calls) == 6 and {c.finish for c in outcome.final} == {"stop"}


async def test_without_a_reward_model_the_writer_s_certainty_weighs() -> None:
    def write(call: Call) -> Reply:
        assert call.request.sampling.logprobs is not None
        if call.request.prefix:
            return Reply("end", "stop", logprobs=(TokenLogprob("end", -0.1),))
        sure = call.index % 2
        text = "sure" if sure else "unsure"
        return Reply(
            text, "stop_string", "\n", logprobs=(TokenLogprob(text, -0.105 if sure else -2.303),) * 2
        )

    served = {"default": models(write)["default"]}
    outcome, calls, scored = await run(ParticleFilter(n=40, reward=None, resampling="systematic"), served)
    assert not scored and outcome.usage.requests == len(calls) == 80
    assert sum(call.request.prefix == "sure\n" for call in calls) >= 39, "odds of 9 and of 1/9"
    assert outcome.final[0].verdicts["certainty"].score == pytest.approx(0.905, abs=0.001)


async def test_a_call_that_fails_is_a_particle_less_until_the_next_round() -> None:
    def write(call: Call) -> Reply:
        if not call.request.prefix and call.index in (1, 2):
            raise CallTimedOut("no")
        return step(call)

    outcome, calls, _ = await run(ParticleFilter(n=6), models(write, retries=0))
    assert len(outcome.failures) == 2 and len(outcome.final) == 6
    assert sum(call.request.prefix.count("\n") == 1 for call in calls) == 6


async def test_a_budget_that_runs_out_leaves_what_was_written() -> None:
    for requests in (5, 12, 20):
        outcome, _, _ = await run(ParticleFilter(n=6, budget=Budget(requests=requests)))
        assert outcome.usage.requests <= requests and outcome.stopped == "budget"
        assert len(outcome.final) <= 6 and all(c.text for c in outcome.final)


@pytest.mark.parametrize("choice", [BestOf(), SampleByScore()])
async def test_it_is_replayed_from_the_store_without_a_call(choice: Stage, tmp_path: Any) -> None:
    store = str(tmp_path / "runs.sqlite")
    first, _, _ = await run(ParticleFilter(n=6) | choice, store=store, seed=3)
    again, calls, scored = await run(ParticleFilter(n=6) | choice, store=store, seed=3)
    assert not calls and not scored and again.answer == first.answer and again.usage == first.usage


def test_it_is_named_in_a_file() -> None:
    text = """
pipeline:
- particle_filter:
    n: 8
    resampling: systematic
    resample: 0.5
    weights: incremental
    finished: keep
    last: resampled
    annealing: {by: entropy, threshold: 0.3}
- sample_by_score: {weigh: probability}
"""
    wanted = ParticleFilter(
        n=8,
        resampling="systematic",
        resample=0.5,
        weights="incremental",
        finished="keep",
        last="resampled",
        annealing=Annealing(by="entropy", threshold=0.3),
    ) | SampleByScore(weigh="probability")
    assert load(text, "yaml").pipeline == wanted


class TestParticleFilter(StageCases):
    def make_stage(self) -> Stage:
        return ParticleFilter(n=6, resample=0.5, resampling="systematic", max_steps=8)

    def models(self) -> Mapping[str, Model]:
        return models()

    async def test_one_candidate_is_enough(self) -> None:
        outcome, _, _ = await run(ParticleFilter(n=1))
        assert len(outcome.final) == 1


class TestAnnealed(TestParticleFilter):
    def make_stage(self) -> Stage:
        return ParticleFilter(
            n=5, annealing=Annealing(by="entropy"), finished="keep", weights="incremental", last="resampled"
        )
