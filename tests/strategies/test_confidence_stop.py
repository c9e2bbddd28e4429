"""DeepConf: what the bar lets through, and what an answer that is cut off costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.budget import Budget, Budgets
from archon.candidate import Candidate, Outcome, TokenLogprob
from archon.errors import CapabilityError
from archon.stage import Stage
from archon.strategies.confidence import confidences
from archon.strategies.confidence_stop import ConfidenceFilter, ConfidenceStop
from archon.strategies.sample import Sample
from archon.strategies.weighted_vote import WeightedVote
from archon.testing import StageCases
from tests.archon.instant import InstantStore, patiently
from tests.strategies.made import NUMBER, ids, solved


def token(text: str, confidence: float) -> TokenLogprob:
    """A token of this confidence: two alternatives whose mean it is."""
    return TokenLogprob(text, -0.1, ((text, -0.5 * confidence), ("other", -1.5 * confidence)))


class TestConfidenceFilter(StageCases):
    def make_stage(self) -> Stage:
        return ConfidenceFilter(keep=0.5, window=3, top=5)


class TestConfidenceStop(StageCases):
    def make_stage(self) -> Stage:
        return ConfidenceStop(n=3, warm_up=2, window=2, chunk=4, max_tokens=8, top=2, temperature=0.5)

    async def test_one_candidate_is_enough(self) -> None:
        """A source begins as many as it is told to."""


# --- offline ----------------------------------------------------------------------------------------


def traces(*all_of_them: tuple[str, Sequence[float]], **settings: Any) -> Scripted:
    """Sample i gives the i-th answer, with a token of each of these confidences, in as many pieces as are asked for.

    Which trace is continued is read off the beginning, whose first token names it.
    """

    def reply(call: Call) -> Reply:
        prefix = call.request.prefix
        place = int(prefix.split(":")[0]) if prefix else call.index
        answer, known = all_of_them[place]
        done = prefix.count(".")
        limit = call.request.sampling.max_tokens or 4096
        rest = known[done : done + limit]
        logprobs = tuple(token(".", confidence) for confidence in rest)
        whole = done + len(rest) == len(known)
        text = ("" if prefix else f"{place}:") + "." * len(rest) + (f" #### {answer}" if whole else "")
        tokens = Tokens(3, completion=len(rest))
        return Reply(text, "stop" if whole else "length", logprobs=logprobs, tokens=tokens, latency=0.1)

    return Scripted(reply=reply, identity="traces", **settings)


def weigh(outcome: Outcome) -> dict[int, float | None]:
    return {c.index: c.score("confidence") for c in outcome.candidates if c.verdicts}


def test_the_most_confident_share_votes_with_its_confidence() -> None:
    model = traces(("1", [2, 2]), ("2", [9, 9]), ("1", [3, 1]), ("1", [4, 4]), ("2", [1, 9]), ("1", [5, 4]))
    offline = Sample(n=6, logprobs=2) | ConfidenceFilter(keep=0.5, window=1, top=2) | WeightedVote()
    outcome, _ = patiently(solved(offline, model, NUMBER, store=InstantStore()))
    scores = weigh(outcome)
    assert scores == {1: pytest.approx(9), 3: pytest.approx(4), 5: pytest.approx(4)}
    assert outcome.chosen is not None and outcome.chosen.index == 1, "9 for 2, 8 for 1"
    everybody = Sample(n=6, logprobs=2) | ConfidenceFilter(keep=1, window=1, top=2) | WeightedVote()
    outcome, _ = patiently(solved(everybody, model, NUMBER, store=InstantStore()))
    assert outcome.chosen is not None and outcome.chosen.index == 0, "2 + 1 + 4 + 4 for 1, 9 + 1 for 2"


@pytest.mark.parametrize(
    ("measure", "kept", "scores"),
    [
        ("mean", [0, 2], [5.0, 4.75]),
        ("bottom", [1, 3], [4.0, 3.5]),
        ("lowest", [1, 3], [4.0, 3.5]),
        ("tail", [2, 3], [9.5, 5.0]),
    ],
)
def test_answers_are_kept_and_weighed_by_the_measure_that_is_asked_for(
    measure: Any, kept: list[int], scores: list[float]
) -> None:
    model = traces(("1", [9, 9, 1, 1]), ("2", [4, 4, 4, 4]), ("3", [0, 0, 9, 10]), ("4", [4, 3, 5, 5]))
    offline = Sample(n=4, logprobs=2) | ConfidenceFilter(measure=measure, keep=0.5, window=2, top=2)
    outcome, _ = patiently(solved(offline, model, NUMBER, store=InstantStore()))
    assert weigh(outcome) == {i: pytest.approx(score) for i, score in zip(kept, scores, strict=True)}
    assert all(c.verdicts["confidence"].detail == measure for c in outcome.final)


@pytest.mark.parametrize(("keep", "kept"), [(0.01, 1), (0.1, 1), (0.3, 3), (0.31, 4), (1.0, 10)])
def test_a_share_is_rounded_up(keep: float, kept: int) -> None:
    model = traces(*[("1", [float(i + 1)]) for i in range(10)])
    stage = Sample(n=10, logprobs=2) | ConfidenceFilter(keep=keep, top=2)
    outcome, _ = patiently(solved(stage, model, NUMBER, store=InstantStore()))
    assert ids(outcome.final) == list(range(10 - kept, 10))


async def test_what_has_no_log_probabilities_is_last_and_has_no_score() -> None:
    outcome, _ = await solved(
        Sample(n=3) | ConfidenceFilter(keep=0.5), Scripted(reply=lambda c: "#### 1", identity="none"), NUMBER
    )
    assert ids(outcome.final) == [0, 1] and all(c.score("confidence") is None for c in outcome.final)
    assert confidences(None, 3) == []


# --- online -----------------------------------------------------------------------------------------

HIGH, LOW = [6.0] * 12, [6.0] * 4 + [1.0] * 8


def online(**fields: Any) -> Any:
    given: dict[str, Any] = {
        "n": 4,
        "warm_up": 2,
        "window": 2,
        "top": 2,
        "chunk": 3,
        "max_tokens": 60,
        "keep": 1,
    }
    return ConfidenceStop(**{**given, **fields})


def test_an_answer_that_falls_below_the_bar_is_cut_off_and_only_its_chunk_is_lost() -> None:
    model = traces(("1", HIGH), ("1", HIGH), ("2", LOW), ("1", HIGH))
    stage = online(consensus=None, wave=1)
    outcome, backend = patiently(solved(stage | WeightedVote(), model, NUMBER, store=InstantStore()))
    assert ids(outcome.candidates) == [0, 1, 3], "what was cut off does not vote"
    # Four chunks of three for a whole answer. The window of tokens 3 and 4 is the first below 6: in the second chunk.
    assert len(backend.calls) == 4 + 4 + 2 + 4
    assert outcome.usage.completion_tokens == 12 + 12 + 6 + 12
    assert [c.text for c in outcome.candidates] == [f"{i}:{'.' * 12} #### 1" for i in (0, 1, 3)]
    assert [len(c.logprobs or ()) for c in outcome.candidates] == [12, 12, 12]
    assert all(c.finish == "stop" and c.usage.completion_tokens == 12 for c in outcome.candidates)


def test_every_chunk_continues_what_is_there() -> None:
    model = traces(("1", HIGH), ("1", HIGH))
    _, backend = patiently(solved(online(n=2), model, NUMBER, store=InstantStore()))
    first = sorted(c.request.prefix for c in backend.calls if c.request.prefix.startswith("0:"))
    assert first == ["0:...", "0:......", "0:........."]
    assert {c.request.sampling.max_tokens for c in backend.calls} == {3}
    assert {c.request.sampling.logprobs for c in backend.calls} == {2}


def test_the_bar_is_what_a_share_of_the_warm_up_reaches() -> None:
    warm = [("1", [c] * 6) for c in (2.0, 4.0, 6.0, 8.0, 10.0)]
    further = [("2", [c] * 6) for c in (3.9, 4.0, 9.0, 7.9, 8.0)]
    for keep, heard in ((0.75, [1, 2, 3, 4, 6, 7, 8, 9]), (0.25, [3, 4, 7, 9]), (1.0, list(range(10)))):
        stage = online(n=10, warm_up=5, keep=keep, consensus=None)
        outcome, _ = patiently(solved(stage, traces(*warm, *further), NUMBER, store=InstantStore()))
        assert ids(outcome.candidates) == heard


def test_the_first_answers_are_written_to_their_end() -> None:
    model = traces(("1", LOW), ("1", HIGH))
    outcome, _ = patiently(solved(online(n=2, keep=0.5), model, NUMBER, store=InstantStore()))
    assert outcome.usage.completion_tokens == 24
    assert ids(outcome.candidates) == [1], "but vote only above the bar"


def test_when_enough_agree_nothing_more_is_begun() -> None:
    same = [("1", HIGH)] * 40
    outcome, backend = patiently(solved(online(n=40), traces(*same), NUMBER, store=InstantStore()))
    assert ids(outcome.candidates) == [0, 1] and len(backend.calls) == 8, "the warm-up agreed"
    split = [("1", HIGH), ("2", HIGH), *same]
    # One of k + 1 votes is for 2: at three quarters for 1 it is over.
    stage = online(n=40, consensus=0.75, wave=1)
    outcome, _ = patiently(solved(stage, traces(*split), NUMBER, store=InstantStore()))
    assert ids(outcome.candidates) == [0, 1, 2, 3]
    assert outcome.usage.completion_tokens == 4 * 12, "one at a time, and nothing beyond"
    stage = online(n=40, consensus=0.75, wave=8)
    outcome, _ = patiently(solved(stage, traces(*split), NUMBER, store=InstantStore()))
    assert ids(outcome.candidates) == [0, 1, 2, 3]
    assert outcome.usage.requests <= (4 + 8) * 4, "a wave beyond, at most"


def test_in_one_call_each_only_the_vote_is_filtered() -> None:
    model = traces(("1", HIGH), ("1", HIGH), ("2", LOW), ("1", HIGH))
    stage = online(consensus=None, chunk=None)
    outcome, backend = patiently(solved(stage, model, NUMBER, store=InstantStore()))
    assert len(backend.calls) == 4 and ids(outcome.candidates) == [0, 1, 3]


def test_an_answer_is_no_longer_than_it_may_be() -> None:
    model = traces(("1", HIGH), ("1", HIGH))
    stage = online(n=2, max_tokens=7)
    outcome, backend = patiently(solved(stage, model, NUMBER, store=InstantStore()))
    assert [c.finish for c in outcome.candidates] == ["length", "length"]
    assert sorted(c.request.sampling.max_tokens or 0 for c in backend.calls) == [1, 1, 3, 3, 3, 3]


def test_a_server_that_counts_no_tokens_is_not_asked_for_ever() -> None:
    def reply(call: Call) -> Reply:
        ended = len(call.request.prefix) > 20
        return Reply("x", "stop" if ended else "length", logprobs=(), tokens=Tokens(3, completion=0))

    outcome, backend = patiently(
        solved(
            online(n=2, max_tokens=7), Scripted(reply=reply, identity="none"), NUMBER, store=InstantStore()
        )
    )
    assert [c.text for c in outcome.candidates] == ["xxx", "xxx"]
    assert len(backend.calls) == 2 * 3, "chunks of 3, 3 and 1"


def test_where_the_budget_ends_what_is_whole_is_heard() -> None:
    model = traces(("1", HIGH[:3]), *[("1", HIGH)] * 3)
    budget = Budgets(problem=Budget(requests=4))
    outcome, _ = patiently(solved(online(), model, NUMBER, store=InstantStore(), budget=budget))
    assert outcome.usage.requests == 4 and outcome.stopped == "budget"
    assert ids(outcome.candidates) == [0]


def test_again_it_makes_no_call() -> None:
    model = traces(("1", HIGH), ("2", HIGH), ("2", LOW), ("1", HIGH))
    runs = [patiently(solved(online(), model, NUMBER, store=InstantStore("again.sqlite"))) for _ in range(2)]
    (first, _), (again, backend) = runs
    assert backend.calls == [] and again.usage == first.usage
    assert [(c.id, c.text) for c in again.final] == [(c.id, c.text) for c in first.final]


async def test_a_server_that_cannot_is_refused_before_anything_is_spent() -> None:
    from archon.backends.openai import OpenAI

    model = OpenAI(model="m", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(CapabilityError, match="prefix"):
        await solved(online(), model, NUMBER)


def test_a_candidate_keeps_its_confidence_for_the_vote() -> None:
    model = traces(("1", [3.0] * 4), ("2", [5.0] * 4))
    outcome, _ = patiently(solved(online(n=2) | WeightedVote(), model, NUMBER, store=InstantStore()))
    chosen = outcome.chosen
    assert isinstance(chosen, Candidate) and chosen.index == 1
    assert weigh(outcome) == {0: pytest.approx(3), 1: pytest.approx(5)}
