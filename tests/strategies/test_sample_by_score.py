"""One candidate is drawn in proportion to its weight, by the run's seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from archon.candidate import Candidate, Scale, Verdict
from archon.stage import Count
from archon.strategies.sample import Sample
from archon.strategies.sample_by_score import SampleByScore
from archon.strategies.verify import Verify
from archon.testing import StageCases
from tests.strategies.made import PROBLEM, made, replies, scored, solved, table

DRAWS = 3000


def drawn(stage: SampleByScore, candidates: Sequence[Candidate], draws: int = DRAWS) -> Counter[int]:
    chosen = [stage.drawn(PROBLEM, candidates, seed) for seed in range(draws)]
    return Counter(c.index for c in chosen if c is not None)


def is_drawn(stage: SampleByScore, candidates: Sequence[Candidate], shares: Sequence[float]) -> None:
    counts = drawn(stage, candidates)
    assert sum(counts.values()) == DRAWS
    for index, share in enumerate(shares):
        error = math.sqrt(share * (1 - share) / DRAWS)
        assert abs(counts[index] / DRAWS - share) <= 4.5 * error, (index, counts)


@pytest.mark.parametrize(
    ("settings", "scale", "scores", "weights"),
    [
        ({}, "probability", (0.8, 0.5, 0.2), (4, 1, 0.25)),
        ({"weigh": "probability"}, "probability", (0.8, 0.5, 0.2), (0.8, 0.5, 0.2)),
        ({"temperature": 2}, "probability", (0.8, 0.5, 0.2), (2, 1, 0.5)),
        ({"temperature": 0.5, "weigh": "probability"}, "fraction", (0.8, 0.4, 0.0), (4, 1, 0)),
        ({}, "logit", (math.log(3), 0.0, -1.0), (3, 1, math.exp(-1))),
        ({"weigh": "probability"}, "logit", (math.log(3), 0.0, None), (0.75, 0.5, 0)),
        ({"weigh": "probability"}, "score", (2.0, 1.0, -5.0), (math.e**2, math.e, math.exp(-5))),
        ({}, "rank", (1.0, 2.0, 3.0), (1, math.exp(-1), math.exp(-2))),
        ({}, "probability", (None, 0.1, None), (0, 1, 0)),
        ({}, "probability", (None, None, None), (1, 1, 1)),
        ({"weigh": "probability"}, "probability", (0.0, 0.0), (1, 1)),
        ({}, "score", (-math.inf, 3.0, 3.0), (0, 1, 1)),
        ({}, "score", (math.inf, 3.0, math.nan), (1, 0, 0)),
    ],
)
def test_each_is_drawn_as_often_as_it_weighs(
    settings: dict[str, Any], scale: Scale, scores: tuple[float | None, ...], weights: tuple[float, ...]
) -> None:
    whole = sum(weights)
    is_drawn(SampleByScore(**settings), scored(*scores, scale=scale), [w / whole for w in weights])


def test_a_low_temperature_takes_the_best_and_a_high_one_anyone() -> None:
    some = scored(0.8, 0.5, 0.81, scale="probability")
    assert drawn(SampleByScore(temperature=1e-4), some, 50) == {2: 50}
    is_drawn(SampleByScore(temperature=1e9), some, (1 / 3, 1 / 3, 1 / 3))


def test_of_several_scores_the_one_that_is_named_counts() -> None:
    first = made("a", 0, 0.0, scale="probability").with_verdict(Verdict("w", None, 1.0, "probability"))
    both = [first, made("b", 1, 1.0, scale="probability")]
    assert drawn(SampleByScore(by="w"), both, 20) == {0: 20}
    assert drawn(SampleByScore(by="v"), both, 20) == {1: 20}
    with pytest.raises(LookupError):
        SampleByScore().drawn(PROBLEM, both, 0)
    with pytest.raises(LookupError, match="reward"):
        SampleByScore(by="rewrad").drawn(PROBLEM, [made("a", 0, 0.5, verifier="reward")], 0)


def test_of_none_none_is_drawn() -> None:
    assert SampleByScore().drawn(PROBLEM, [], 0) is None


async def test_the_run_s_seed_draws() -> None:
    texts = ("a", "b", "c", "d")
    judged = table({text: (None, 0.5) for text in texts}, scale_="probability")
    pipeline = Sample(n=4) | Verify(verifier=judged) | SampleByScore()
    answers = []
    for latencies in ((), (0.02, 0.01, 0.0, 0.03)):
        model = replies(*texts, latencies=latencies)
        outcomes = [(await solved(pipeline, model, seed=seed))[0] for seed in range(12)]
        assert all(len(o.final) == 1 and o.chosen == o.final[0] for o in outcomes)
        answers.append([o.answer for o in outcomes])
    assert answers[0] == answers[1], "whatever came first"
    assert len(set(answers[0])) > 1


def test_it_makes_no_call_and_passes_one_on() -> None:
    assert SampleByScore().plan(Count(0, None)) == (Count(0, 0), Count(0, 1))
    assert SampleByScore().plan(Count(3, 5)) == (Count(0, 0), Count(1, 1))
    with pytest.raises(ValidationError):
        SampleByScore(temperature=0)


class TestSampleByScore(StageCases):
    def make_stage(self) -> SampleByScore:
        return SampleByScore(weigh="probability", temperature=2)
