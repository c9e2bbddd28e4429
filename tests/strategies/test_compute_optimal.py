"""Compute-optimal scaling: what the probes tell, which bin a problem falls into, who answers, what it costs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget
from archon.candidate import Candidate, Outcome, TokenLogprob, Verdict
from archon.config import dump, load
from archon.errors import ConfigError
from archon.pipeline import Pipeline
from archon.problem import Problem
from archon.session import Session
from archon.stage import Count, Stage
from archon.strategies.compute_optimal import Bin, ComputeOptimal, Policy, agreement, mean_logprob
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.testing import StageCases
from archon.testing.stages import EveryThird
from archon.verifiers.reward import Reward

SOLVER = Pipeline([Sample(model="m", n=3)])
EASY = Bin()


def policy(*bins: Bin, n: int = 1, probes: int = 4) -> Policy:
    return Policy(n=n, probes=probes, bins=bins)


def staged(*bins: Bin, probes: int = 4, **fields: Any) -> ComputeOptimal:
    return ComputeOptimal(policies=(policy(*bins, probes=probes),), **fields)


def asked(id: str = "p") -> Problem:
    return Problem.ask(f"the question {id}", id=id, answer="number")


def model(*texts: str, identity: str = "m") -> Scripted:
    return Scripted(reply=lambda call: texts[call.index % len(texts)], identity=identity)


async def solved(
    pipeline: Any, models: Mapping[str, Model], problem: Problem | None = None, **kw: Any
) -> Outcome:
    async with Session(models=models, **kw) as session:
        return await session.solve(pipeline, problem or asked())


def texts(outcome: Outcome) -> list[str]:
    return [c.text for c in outcome.final]


class TestOfComputeOptimal(StageCases):
    def make_stage(self) -> Stage:
        return staged(
            Bin(below=0.4, solver=SOLVER | MajorityVote()),
            Bin(below=0.9, solver=SOLVER),
            EASY,
            probes=3,
            keep_probes=True,
            signal="score",
            verifier=EveryThird(),
        )

    def models(self) -> dict[str, Model]:
        return {"m": model("1", "2")}

    def test_it_is_its_configuration(self) -> None:
        stage = staged(
            Bin(below=0.4, solver=SOLVER), EASY, signal="score", verifier=Reward(), keep_probes=True
        )
        for form in ("yaml", "toml"):
            assert load(dump(Pipeline([stage]), form), form).pipeline == Pipeline([stage])

    async def test_one_candidate_is_enough(self) -> None:
        outcome = await solved(Pipeline([staged(EASY, probes=1)]), {"default": model("only")})
        assert texts(outcome) == ["only"]


# --- the signal ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "share"),
    [([], None), (["1"], 1.0), (["1", "2"], 0.5), (["1", "1", None, "2"], 0.5), ([None, None], 0.0)],
)
def test_agreement_is_the_share_of_the_most_frequent_answer(
    answers: list[str | None], share: float | None
) -> None:
    assert agreement(answers) == share


def test_the_log_probability_is_a_mean_over_tokens_then_over_probes() -> None:
    def probe(*logs: float) -> Candidate:
        return Candidate("a#0", "t", logprobs=tuple(TokenLogprob("t", log) for log in logs))

    stage = staged(EASY, signal="logprob")
    assert mean_logprob(probe(-1.0, -3.0)) == -2.0
    assert mean_logprob(Candidate("a#0", "t")) is None
    assert stage.signal_of(asked(), [probe(-1.0, -3.0), probe(-4.0), Candidate("a#1", "t")]) == -3.0
    assert stage.signal_of(asked(), [Candidate("a#1", "t")]) is None


def test_the_score_is_a_mean_of_what_is_scored_and_no_number_is_none() -> None:
    def probe(score: float | None) -> Candidate:
        return Candidate("a#0", "t").with_verdict(Verdict("v", None, score))

    stage = staged(EASY, signal="score", verifier=EveryThird())
    assert stage.signal_of(asked(), [probe(1.0), probe(None), probe(0.5)]) == 0.75
    assert stage.signal_of(asked(), [probe(math.inf), probe(-math.inf)]) is None


@given(
    st.lists(st.floats(-5, 5), max_size=4, unique=True).map(sorted),
    st.none() | st.floats(-6, 6),
)
def test_a_bin_holds_what_is_not_below_the_bin_before_and_below_its_own_bound(
    bounds: list[float], signal: float | None
) -> None:
    chosen = policy(*(Bin(below=b) for b in bounds), Bin())
    number = chosen.bin_of(signal)
    assert chosen.bounds == tuple(bounds)
    if signal is None:
        assert number == 0
        return
    assert number == 0 or bounds[number - 1] <= signal
    assert number == len(bounds) or signal < bounds[number]


# --- who answers -----------------------------------------------------------------------------------

HARD, CLEAR = ("1", "2", "3", "4"), ("7", "7", "7", "7")
TWO = staged(Bin(below=0.6, solver=Sample(model="m", n=2) | MajorityVote()), EASY)


async def test_probes_that_agree_are_the_answer_and_nothing_else_is_asked() -> None:
    outcome = await solved(TWO, {"default": model(*CLEAR), "m": model("9")})
    assert texts(outcome) == ["7"] * 4
    assert outcome.usage.requests == 4


async def test_probes_that_disagree_hand_over_to_the_pipeline_of_their_bin() -> None:
    outcome = await solved(TWO, {"default": model(*HARD), "m": model("9")})
    assert texts(outcome) == ["9"]
    assert {row: u.requests for row, u in outcome.by_stage.items()} == {
        "compute_optimal": 4,
        "compute_optimal/bin-0/sample": 2,
    }
    assert [c.text for c in outcome.candidates] == ["9", "9"], "probes that are not passed on are no answers"


async def test_each_bin_has_a_pipeline_of_its_own() -> None:
    stage = staged(
        Bin(below=0.5, solver=Pipeline([Sample(model="a")])),
        Bin(below=0.75, solver=Pipeline([Sample(model="b")])),
        Bin(solver=Pipeline([Sample(model="c")])),
    )
    models = {name: model(name) for name in "abc"}
    for probes, answer in (
        (("1", "2", "3", "4"), "a"),
        (("1", "1", "3", "4"), "b"),
        (("1", "1", "1", "4"), "c"),
    ):
        outcome = await solved(stage, {**models, "default": model(*probes)})
        assert texts(outcome) == [answer]


async def test_the_solver_draws_further_samples_and_not_the_probes_again() -> None:
    stage = staged(Bin(below=0.6, solver=Pipeline([Sample(n=2)])), EASY, keep_probes=True)
    outcome = await solved(stage, {"default": model("1", "2", "3", "4", "5", "6")})
    assert sorted(texts(outcome)) == ["1", "2", "3", "4", "5", "6"]


async def test_kept_probes_do_not_join_what_was_chosen_already() -> None:
    kept = TWO.model_copy(update={"keep_probes": True})
    outcome = await solved(kept, {"default": model(*HARD), "m": model("9")})
    assert texts(outcome) == ["9"]


async def test_a_solver_that_gives_nothing_leaves_the_probes() -> None:
    outcome = await solved(TWO, {"default": model(*HARD), "m": Scripted(replies={"*": ()}, identity="none")})
    assert texts(outcome) == list(HARD)
    assert len(outcome.failures) == 2


async def test_a_budget_that_ends_after_the_probes_leaves_them() -> None:
    stage = TWO.model_copy(update={"budget": Budget(requests=4)})
    outcome = await solved(stage, {"default": model(*HARD), "m": model("9")})
    assert texts(outcome) == list(HARD)
    assert (outcome.stopped, outcome.usage.requests) == ("budget", 4)


async def test_probes_that_fail_count_as_hard() -> None:
    stage = staged(Bin(below=0.6, solver=Pipeline([Sample(model="m")])), EASY)
    outcome = await solved(stage, {"default": Scripted(replies={"*": ()}, identity="empty"), "m": model("9")})
    assert texts(outcome) == ["9"]
    assert len(outcome.failures) == 4


async def test_scores_of_the_probes_decide_by_their_mean() -> None:
    stage = staged(
        Bin(below=0.5, solver=Pipeline([Sample(model="m")])),
        EASY,
        probes=2,
        signal="score",
        verifier=Reward(),
    )
    scores = {"1": 0.2, "2": 0.7, "3": 0.9}
    for probes, answer in ((("1", "2"), ["9"]), (("2", "3"), ["2", "3"])):
        models = {"default": model(*probes), "m": model("9"), "reward": Scripted(score=scores.__getitem__)}
        outcome = await solved(stage, models)
        assert texts(outcome) == answer
        assert outcome.by_model["reward"].requests == 2


async def test_one_probe_s_log_probability_is_enough() -> None:
    asked_for: list[int | None] = []

    def reply(call: Call) -> Reply:
        asked_for.append(call.request.sampling.logprobs)
        return Reply("5", logprobs=(TokenLogprob("5", -0.1 if call.problem == "easy" else -2.0),))

    stage = staged(Bin(below=-1.0, solver=Pipeline([Sample(model="m")])), EASY, probes=1, signal="logprob")
    models = {"default": Scripted(reply=reply, identity="sure"), "m": model("9")}
    assert texts(await solved(stage, models, asked("easy"))) == ["5"]
    assert texts(await solved(stage, models, asked("hard"))) == ["9"]
    assert asked_for == [0, 0]


async def test_the_largest_budget_that_is_not_above_n_applies() -> None:
    stage = ComputeOptimal(
        n=15,
        policies=(policy(EASY, n=4, probes=1), policy(EASY, n=8, probes=2), policy(EASY, n=16, probes=3)),
    )
    assert stage.policy.n == 8
    outcome = await solved(stage, {"default": model("1")})
    assert len(outcome.final) == 2


async def test_a_replay_takes_the_same_bin_and_pays_nothing(tmp_path: Any) -> None:
    runs = [
        await solved(TWO, {"default": model(*HARD), "m": model("9")}, store=tmp_path / "s.sqlite")
        for _ in range(2)
    ]
    assert texts(runs[0]) == texts(runs[1])
    assert runs[1].fresh.requests == 0 and runs[1].usage == runs[0].usage


async def test_problems_of_different_difficulty_go_through_one_stage_at_once() -> None:
    def reply(call: Call) -> str:
        return "7" if call.problem == "easy" else str(call.index)

    async with Session(
        models={"default": Scripted(reply=reply, identity="mixed"), "m": model("9")}
    ) as session:
        found = await asyncio.gather(*(session.solve(TWO, asked(id)) for id in ("easy", "hard")))
    assert [texts(one) for one in found] == [["7"] * 4, ["9"]]


# --- what is known before --------------------------------------------------------------------------


def test_the_plan_bounds_every_bin() -> None:
    assert TWO.plan(Count(0, 0)).calls == Count(4, 6)
    assert TWO.plan(Count(0, 0)).passes == Count(0, 4)
    scored = staged(Bin(solver=SOLVER), probes=2, signal="score", verifier=Reward())
    assert scored.plan(Count(0, 0)).calls == Count(7, 7)
    assert scored.models == ("default", "reward")
    assert set(Pipeline([scored]).graph().models) == {"default", "reward", "m"}


def test_kept_probes_are_in_the_plan() -> None:
    stage = staged(Bin(below=0.5, solver=SOLVER), EASY, keep_probes=True)
    assert stage.plan(Count(0, 0)).passes == Count(3, 7)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"policies": ()}, "at least 1"),
        ({"policies": (policy(EASY, n=8),), "n": 4}, "`n` 4 is below the smallest budget"),
        ({"policies": (policy(EASY, n=8), policy(EASY, n=4))}, "rise, and are 8, 4"),
        ({"policies": (policy(EASY),), "signal": "score"}, "go together"),
        ({"policies": (policy(EASY),), "verifier": Reward()}, "go together"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ComputeOptimal(**fields)


@pytest.mark.parametrize(
    ("bins", "why"),
    [
        ((), "`bins` is empty"),
        ((Bin(below=0.5),), "the last has none"),
        ((Bin(), Bin()), "every bin but the last"),
        ((Bin(below=0.5), Bin(below=0.5), Bin()), "rise from bin to bin"),
    ],
)
def test_bins_are_in_order(bins: tuple[Bin, ...], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        policy(*bins)


def test_what_is_wrong_inside_of_a_bin_is_said_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"compute_optimal/policies/0/bins/0/solver/majority_vote"):
        Pipeline([staged(Bin(solver=Pipeline([MajorityVote()])))]).graph()
