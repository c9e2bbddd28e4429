"""Cascades: when the large model is asked, what the small one is spared, and calibrated thresholds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.base import Model
from archon.backends.scripted import Call, Reply, Scripted
from archon.candidate import Candidate, TokenLogprob
from archon.errors import ConfigError, RequestRejected, StageFailed
from archon.pipeline import Pipeline
from archon.stage import NONE, Count, Stage
from archon.strategies.hand_over import Calibration, HandOver, calibrate
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from archon.testing import StageCases
from tests.strategies.made import PROBLEM, made, table
from tests.strategies.playing import played, texts

QUICK = settings(derandomize=True, deadline=None, max_examples=80)


def small(
    answers: str,
    logprobs: Sequence[float] = (),
    latencies: Sequence[float] = (),
    identity: str = "small",
    **settings: Any,
) -> Scripted:
    """A model whose sample i is the i-th letter, with its log-probability, after its latency."""

    def reply(call: Call) -> Reply:
        i = call.index
        tokens = (TokenLogprob("a", logprobs[i]), TokenLogprob("b", logprobs[i])) if logprobs else None
        return Reply(answers[i], latency=latencies[i] if latencies else 1.0 + i, logprobs=tokens)

    return Scripted(reply=reply, identity=identity, **settings)


def large(said: Any = None) -> Scripted:
    return Scripted(reply=lambda call: said or f"large {call.index}", identity="large")


def cascade(answers: str, stage: HandOver, logprobs: Sequence[float] = (), **settings: Any) -> Any:
    """The outcome of a cascade over these samples of the small model."""
    first = Sample(n=len(answers), logprobs=0 if logprobs else None)
    models = {"default": small(answers, logprobs, settings.pop("latencies", ())), "large": large()}
    return played(first | stage, {**models, **settings.pop("models", {})}, **settings)


# --- agreement --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "threshold", "kept"),
    [
        ("aaab", 0.75, True),
        ("aabb", 0.75, False),
        ("aabb", 0.5, True),
        ("abcd", 0.25, True),
        ("abcd", 0.26, False),
        ("a", 1.0, True),
        ("a  ", 0.5, False),
    ],
)
@pytest.mark.parametrize("said", [True, False])
def test_the_share_of_the_most_frequent_answer_decides(
    answers: str, threshold: float, kept: bool, said: bool
) -> None:
    stage = HandOver(threshold=threshold, samples=len(answers) if said else None)
    outcome = cascade(answers, stage)
    if kept:
        assert set(texts(outcome.final)) <= set(answers) and outcome.by_model.keys() == {"default"}
    else:
        assert texts(outcome.final) == ["large 0"] and outcome.by_model["large"].requests == 1
    vote = MajorityVote().choose(PROBLEM, outcome.final)
    assert texts(vote) == (["a"] if kept else ["large 0"])


@pytest.mark.parametrize(
    ("answers", "needed"),
    [("abcdefgh", 4), ("aaaaaaaa", 6), ("abababab", 6), ("aaaabbaa", 8), ("aaabcaaa", 8)],
)
def test_the_small_model_is_stopped_when_the_rest_cannot_change_the_decision(
    answers: str, needed: int
) -> None:
    outcome = cascade(answers, HandOver(threshold=0.75, samples=8))
    arrived = [c for c in outcome.candidates if c.model == "default"]
    assert len(arrived) == needed
    assert outcome.usage.requests == 8 + ("large 0" in texts(outcome.final)), "all were asked at once"


def test_the_small_models_calls_are_cancelled_before_the_large_one_is_asked() -> None:
    asked: list[float] = []

    def late(call: Call) -> str:
        import asyncio

        asked.append(asyncio.get_running_loop().time())
        return "large"

    models = {"large": Scripted(reply=late, identity="large")}
    outcome = cascade("abcz", HandOver(threshold=1.0, samples=4), latencies=(1, 2, 500, 900), models=models)
    assert asked == [2.0], "when the second answer differs, and not when the last has come"
    assert outcome.stopped == "early" and texts(outcome.final) == ["large"]


def test_no_call_is_begun_for_what_is_not_needed() -> None:
    """One at a time, what is not asked is not paid for."""
    first = Sample(n=8)
    models = {"default": small("abcdefgh", concurrency=1, max_concurrency=1), "large": large()}
    outcome = played(first | HandOver(threshold=0.75, samples=8), models)
    assert outcome.by_model["default"].requests <= 5


@QUICK
@given(
    st.text("abc ", min_size=1, max_size=7),
    st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 1.0]),
    st.randoms(use_true_random=False),
)
def test_an_early_decision_is_the_decision_on_all(answers: str, threshold: float, order: Any) -> None:
    stage = HandOver(threshold=threshold, samples=len(answers))
    candidates = [made(text, i, judged=False) for i, text in enumerate(answers)]
    order.shuffle(candidates)
    evidence = [stage.evidence(PROBLEM, candidate) for candidate in candidates]
    decided = [stage.decision(evidence[:k], ended=False) for k in range(1, len(answers) + 1)]
    final = stage.decision(evidence, ended=True)
    assert decided[-1] is final and {*decided} <= {None, final}
    first = next(k for k, decision in enumerate(decided, 1) if decision is not None)
    assert all(decision is final for decision in decided[first - 1 :]), "once certain, always certain"
    if final and first < len(answers):
        born = sorted(candidates, key=lambda c: c.index)
        early = sorted(candidates[:first], key=lambda c: c.index)
        winner = texts(MajorityVote().choose(PROBLEM, early))
        assert winner == texts(MajorityVote().choose(PROBLEM, born)), "and the winner is the same"


# --- log-probabilities and scores -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logprobs", "threshold", "kept"),
    [((-0.1,), -0.2, True), ((-0.3,), -0.2, False), ((-0.1, -0.5), -0.3, True), ((-0.1, -0.6), -0.3, False)],
)
def test_the_mean_log_probability_decides(logprobs: Sequence[float], threshold: float, kept: bool) -> None:
    answers = "ab"[: len(logprobs)]
    outcome = cascade(answers, HandOver(confidence="logprob", threshold=threshold), logprobs)
    assert texts(outcome.final) == (list(answers) if kept else ["large 0"])


def test_a_sum_that_is_too_low_already_is_handed_over_at_once() -> None:
    stage = HandOver(confidence="logprob", threshold=-0.5, samples=4)
    outcome = cascade("abcd", stage, (-0.1, -2.5, -0.1, -0.1))
    assert [c.text for c in outcome.candidates] == ["a", "b", "large 0"] and outcome.stopped == "early"


@QUICK
@given(st.lists(st.sampled_from([-0.1, -0.5, -1.0, -3.0, None, 0.2]), min_size=1, max_size=6))
def test_an_early_decision_by_log_probabilities_is_the_decision_on_all(means: list[float | None]) -> None:
    stage = HandOver(confidence="logprob", threshold=-0.7, samples=len(means))
    candidates = [
        replace(made("x", i, judged=False), logprobs=None if m is None else (TokenLogprob("t", m),))
        for i, m in enumerate(means)
    ]
    evidence = [stage.evidence(PROBLEM, candidate) for candidate in candidates]
    decided = [stage.decision(evidence[: k + 1], ended=False) for k in range(len(means))]
    assert {*decided} <= {None, stage.decision(evidence, ended=True)}


@pytest.mark.parametrize("logprobs", [None, (), (TokenLogprob("a", math.nan),)])
def test_without_log_probabilities_the_small_model_is_not_confident(logprobs: Any) -> None:
    stage = HandOver(confidence="logprob", threshold=-1e9)
    sure = replace(made("x", judged=False), logprobs=(TokenLogprob("a", -0.1),))
    unsure = replace(made("y", 1, judged=False), logprobs=logprobs)
    assert stage.confidence_of(PROBLEM, [sure]) == -0.1
    assert stage.confidence_of(PROBLEM, [sure, unsure]) is None
    assert stage.decision([-0.1, None], ended=True) is False


def test_the_best_score_decides_and_is_enough() -> None:
    judged = Verify(verifier=table({"a": (True, 0.3), "b": (True, 0.9)}))
    models = {"default": small("abac"), "large": large()}
    for samples, arrived in ((None, 4), (4, 2)):
        stage = HandOver(confidence="score", threshold=0.8, samples=samples)
        outcome = played(Sample(n=4) | judged | stage, models)
        assert texts(outcome.final) == list("abac")[:arrived]
    outcome = played(Sample(n=4) | judged | HandOver(confidence="score", threshold=0.95), models)
    assert texts(outcome.final) == ["large 0"]


@pytest.mark.parametrize("samples", [None, 2])
def test_a_verifier_that_is_misspelt_is_named(samples: int | None) -> None:
    stage = HandOver(confidence="score", by="tabel", samples=samples)
    with pytest.raises(StageFailed, match="Did you mean 'table'"):
        played(Sample(n=2) | Verify(verifier=table({})) | stage, {"default": small("ab"), "large": large()})


# --- what flows out ---------------------------------------------------------------------------------


def test_the_large_model_gives_n_answers_and_the_small_ones_may_be_kept() -> None:
    outcome = cascade("ab", HandOver(threshold=1.0, n=3))
    assert texts(outcome.final) == ["large 0", "large 1", "large 2"]
    outcome = cascade("ab", HandOver(threshold=1.0, n=2, keep=True))
    assert texts(outcome.final) == ["a", "b", "large 0", "large 1"]


@pytest.mark.parametrize("requests", [2, 3, 4])
def test_where_the_budget_has_no_call_for_the_large_model_the_small_ones_stand(requests: int) -> None:
    outcome = cascade("abc"[:2], HandOver(threshold=1.0, n=2), requests=requests)
    assert texts(outcome.final) == [["a", "b"], ["large 0"], ["large 0", "large 1"]][requests - 2]


def test_where_the_large_model_fails_the_small_ones_stand() -> None:
    outcome = cascade(
        "ab", HandOver(threshold=1.0), models={"large": large(RequestRejected("no", status=400))}
    )
    assert texts(outcome.final) == ["a", "b"] and len(outcome.failures) == 1


def test_where_the_small_model_gives_nothing_the_large_one_answers() -> None:
    outcome = cascade("", HandOver())
    assert texts(outcome.final) == ["large 0"]

    def fails(call: Call) -> Exception:
        return RequestRejected("no", status=400)

    models = {"default": Scripted(reply=fails, identity="small"), "large": large()}
    assert texts(played(Sample(n=2) | HandOver(samples=2), models).final) == ["large 0"]


def test_answers_that_never_came_agree_with_none() -> None:
    def one(call: Call) -> str | Exception:
        return "a" if call.index == 0 else RequestRejected("no", status=400)

    models = {"default": Scripted(reply=one, identity="small"), "large": large()}
    assert texts(played(Sample(n=4) | HandOver(samples=4), models).final) == ["large 0"]
    assert texts(played(Sample(n=4) | HandOver(), models).final) == ["a"]


@pytest.mark.parametrize(
    ("first", "second", "answers"),
    [("aa", "bb", ["a", "a"]), ("ab", "bb", ["b", "b"]), ("ab", "bc", ["large 0"])],
)
def test_a_cascade_of_three_models(first: str, second: str, answers: list[str]) -> None:
    pipeline = (
        Sample(model="small", n=2)
        | HandOver(model="medium", n=2, threshold=1.0)
        | HandOver(small="medium", threshold=1.0)
    )
    models = {"small": small(first), "medium": small(second, identity="medium"), "large": large()}
    outcome = played(pipeline, models)
    assert texts(outcome.final) == answers


def test_a_replay_makes_no_call_and_says_the_same(tmp_path: Path) -> None:
    runs = [
        cascade("abcdefgh", HandOver(threshold=0.75, samples=8), store=tmp_path / "s.sqlite")
        for _ in range(2)
    ]
    assert runs[1].fresh.requests == 0 and texts(runs[1].candidates) == texts(runs[0].candidates)
    assert runs[1].usage.requests == runs[0].usage.requests


def test_its_plan_is_bounded() -> None:
    assert HandOver(n=3).plan(Count(4, 4)) == (Count(0, 3), Count(1, 4))
    assert HandOver(n=3).plan(Count(1, 2)) == (Count(0, 3), Count(1, 3))
    assert HandOver(n=3, keep=True).plan(Count(4, 4)) == (Count(0, 3), Count(1, 7))
    assert HandOver(n=3).plan(NONE) == (Count(0, 3), Count(1, 3))
    assert HandOver().plan(Count(1, None)) == (Count(0, 1), Count(1, None))
    assert HandOver(model="m").models == ("m",)


# --- rules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (Sample() | HandOver(confidence="logprob"), "logprobs: 0"),
        (Sample() | HandOver(confidence="score"), "put `verify` before it"),
        (Sample() | HandOver(model="m") | HandOver(), "`small` says which"),
    ],
)
def test_what_a_confidence_is_read_from_must_be_there(pipeline: Pipeline, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pipeline.graph()


def test_a_hand_over_asks_for_what_the_next_goes_by() -> None:
    first = HandOver(model="m", confidence="logprob", threshold=-1, logprobs=0)
    (Sample(logprobs=0) | first | HandOver(small="m", confidence="logprob", threshold=-1)).graph()


@pytest.mark.parametrize(
    "wrong", [{"threshold": math.inf}, {"confidence": "entropy"}, {"samples": 0}, {"n": 0}, {"again": 1}]
)
def test_what_makes_no_sense_is_refused(wrong: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HandOver(**wrong)


# --- calibration ------------------------------------------------------------------------------------

PAIRS = [
    (0.9, True),
    (0.8, True),
    (0.7, False),
    (0.6, True),
    (0.5, False),
    (0.4, False),
    (0.3, True),
    (0.2, False),
]


@pytest.mark.parametrize(
    ("share", "threshold", "handed"),
    [(0.0, 0.2, 0), (0.1, 0.2, 0), (0.25, 0.4, 2), (0.5, 0.6, 4), (0.99, 0.9, 7)],
)
def test_a_threshold_for_a_share_hands_over_at_most_that(share: float, threshold: float, handed: int) -> None:
    found = calibrate(PAIRS, share=share)
    assert (found.threshold, found.share, found.n) == (threshold, handed / 8, 8)
    assert found.accuracy == pytest.approx(sum(right for c, right in PAIRS if c >= threshold) / (8 - handed))
    everything = calibrate(PAIRS, share=1.0)
    assert everything.share == 1.0 and everything.accuracy is None and everything.threshold > 0.9


@pytest.mark.parametrize(
    ("accuracy", "threshold", "kept"),
    [(0.0, 0.2, 8), (0.5, 0.2, 8), (0.55, 0.3, 7), (0.7, 0.6, 4), (0.8, 0.8, 2)],
)
def test_a_threshold_for_an_accuracy_keeps_as_many_as_it_can(
    accuracy: float, threshold: float, kept: int
) -> None:
    found = calibrate(PAIRS, accuracy=accuracy)
    assert found.threshold == threshold and found.share == pytest.approx(1 - kept / 8)
    assert found.accuracy is not None and found.accuracy >= accuracy


def test_where_no_threshold_is_accurate_enough_everything_is_handed_over() -> None:
    found = calibrate([(0.5, False), (0.9, False)], accuracy=0.5)
    assert found == Calibration(math.nextafter(0.9, 1), 1.0, None, 2)
    assert HandOver(threshold=found.threshold).threshold > 0.9
    assert calibrate([(None, True)], accuracy=0.0) == Calibration(0.0, 1.0, None, 1)


def test_ties_stand_together_and_unknown_confidence_is_handed_over() -> None:
    tied = [(0.5, True)] * 3 + [(0.9, True)]
    assert calibrate(tied, share=0.5).threshold == 0.5, "all three, or none"
    found = calibrate([(None, True), *tied], share=0.2)
    assert (found.threshold, found.accuracy) == (0.5, 1.0) and found.share == pytest.approx(0.2)


def test_with_a_level_the_lower_bound_must_hold() -> None:
    pairs = [(1 - i / 1000, i % 10 != 9) for i in range(1000)]  # nine in ten are right, anywhere
    assert calibrate(pairs, accuracy=0.9).share == 0.0
    assert calibrate(pairs, accuracy=0.9, level=0.95).share == 1.0
    assert calibrate(pairs, accuracy=0.88, level=0.95).share == 0.0
    few = pairs[:9]
    assert calibrate(few, accuracy=0.8).share == 0.0 and calibrate(few, accuracy=0.8, level=0.95).share == 1.0


def wilson(right: int, n: int, z: float) -> float:
    """The lower bound as the root of (p̂ - p)² = z² p (1 - p) / n, by bisection."""
    low, high = 0.0, right / n
    for _ in range(200):
        middle = (low + high) / 2
        if (right / n - middle) ** 2 > z * z * middle * (1 - middle) / n:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize(("right", "n"), [(9, 10), (50, 60), (199, 200), (30, 30)])
def test_the_bound_is_wilsons(right: int, n: int) -> None:
    pairs = [(0.5, i < right) for i in range(n)]
    bound = wilson(right, n, 1.6448536269514722)
    assert calibrate(pairs, accuracy=bound - 1e-6, level=0.95).share == 0.0
    assert calibrate(pairs, accuracy=bound + 1e-6, level=0.95).share == 1.0


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from([None, 0.1, 0.2, 0.5, 0.8]), st.booleans()), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_calibration_is_the_best_of_all_thresholds(
    pairs: list[tuple[float | None, bool]], target: float
) -> None:
    def kept_by(threshold: float) -> list[bool]:
        return [right for c, right in pairs if c is not None and c >= threshold]

    tried = [0.05, 0.1, 0.2, 0.5, 0.8, 0.85]
    found = calibrate(pairs, accuracy=target)
    good = [len(k) for k in map(kept_by, tried) if k and sum(k) / len(k) >= target]
    assert len(kept_by(found.threshold)) == max(good, default=0)
    found = calibrate(pairs, share=target)
    handed = [1 - len(k) / len(pairs) for k in map(kept_by, tried)]
    assert found.share == pytest.approx(max((h for h in handed if h <= target), default=min(handed)))


@pytest.mark.parametrize(
    ("pairs", "target", "said"),
    [
        ([], {"share": 0.5}, "empty"),
        (PAIRS, {}, "either"),
        (PAIRS, {"share": 0.5, "accuracy": 0.5}, "either"),
        (PAIRS, {"share": 1.5}, "`share` is between 0 and 1"),
        (PAIRS, {"accuracy": -0.1}, "`accuracy`"),
        (PAIRS, {"share": 0.5, "level": 0.9}, "goes with `accuracy`"),
        (PAIRS, {"accuracy": 0.5, "level": 0.2}, "at least 0.5"),
        ([(math.nan, True)], {"share": 0.5}, "not a finite number"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(pairs: Any, target: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        calibrate(pairs, **target)


def test_a_calibrated_cascade_reaches_its_target() -> None:
    """On problems where agreement tells right from wrong, the kept ones are as accurate as was asked."""
    stage = HandOver()
    worlds = list(itertools.product("abc", repeat=4))  # `a` is right

    def candidates(world: Sequence[str]) -> list[Candidate]:
        return [made(text, i, judged=False) for i, text in enumerate(world)]

    pairs = [
        (stage.confidence_of(PROBLEM, c), texts(MajorityVote().choose(PROBLEM, c)) == ["a"])
        for c in map(candidates, worlds)
        if texts(c).count("a") > 1 or texts(c).count("b") < 3
    ]
    base = sum(right for _, right in pairs) / len(pairs)
    found = calibrate(pairs, accuracy=base + 0.03)
    calibrated = stage.model_copy(update={"threshold": found.threshold})
    kept = [right for c, right in pairs if c is not None and c >= calibrated.threshold]
    assert 0 < len(kept) < len(pairs) and sum(kept) / len(kept) >= base + 0.03


class TestHandOver(StageCases):
    def make_stage(self) -> Stage:
        return HandOver(threshold=0.4, samples=6, n=2, keep=True)

    def models(self) -> Mapping[str, Model]:
        return {"large": large()}

    async def test_one_candidate_is_enough(self) -> None:
        assert [c.text for c in (await self.run_stage(self.make_stage(), ("only",))).final][-1:]


class TestNeverHandsOver(StageCases):
    def make_stage(self) -> Stage:
        return HandOver(threshold=0.0)

    def models(self) -> Mapping[str, Model]:
        return {"large": large()}
