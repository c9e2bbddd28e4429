"""A model as a ranker: what it is asked, what becomes of its replies, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archon.backends.base import Model
from archon.errors import ConfigError
from archon.problem import Problem
from archon.run import Run
from archon.stage import Candidates, Count, Stage, Stream
from archon.strategies.best_of import BestOf
from archon.strategies.first_passing import FirstPassing
from archon.strategies.rank import Rank, windows, windows_needed
from archon.strategies.sample import Sample
from archon.strategies.top_k import TopK
from archon.strategies.verify import Verify
from archon.testing import StageCases
from archon.verifiers.exact import Exact
from tests.strategies.layering import GARBAGE, best_to_worst, ids, in_turn, layered, spent, value
from tests.strategies.made import replies
from tests.strategies.playing import HOSTILE, Played, Question, Said

STEPS = {"list": "rank all of them", "pair": "Which is better?", "score": "Score it from 0 to 10"}


def knowing(question: Question) -> str:
    """A ranker that is always right."""
    if question.step == "score":
        return f"Well.\nScores {question.mark}: {value(question.quoted['ANSWER'])}"
    order = best_to_worst(question.several("ANSWER"))
    if question.step == "pair":
        return f"Choice {question.mark}: {order[0]}"
    return f"Reasons.\nRanking {question.mark}: {' > '.join(map(str, order))}"


def numbers(*values: int) -> list[str]:
    return [f"answer {v}" for v in values]


def rank(**fields: Any) -> Rank:
    return Rank(model="m", **fields)


class TestRank(StageCases):
    def make_stage(self) -> Stage:
        return rank(keep=4, again=0, called="order")

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lambda q: f"Ranking {q.mark}: 2 > 1").model}


class TestTournament(TestRank):
    def make_stage(self) -> Stage:
        return rank(method="pairwise", both_orders=True)

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lambda q: f"Choice {q.mark}: 2").model}


class TestPointwise(TestRank):
    def make_stage(self) -> Stage:
        return rank(method="pointwise", keep=2)

    def models(self) -> dict[str, Model]:
        return {"m": Played(STEPS, lambda q: f"Scores {q.mark}: {len(q.quoted['ANSWER'])}").model}


# --- listwise --------------------------------------------------------------------------------------


def test_one_call_ranks_all_and_the_best_come_first() -> None:
    outcome, mind = layered(rank(), numbers(3, 9, 1, 7), knowing, STEPS)
    assert ids(outcome.final) == [1, 3, 0, 2]
    assert outcome.answer == "answer 9"
    assert [c.score("rank") for c in outcome.final] == [-1, -2, -3, -4]
    assert {v.accepted for c in outcome.final for v in c.verdicts.values()} == {None}
    assert mind.order == ["list"] and mind.asked[0].several("ANSWER") == numbers(3, 9, 1, 7)
    assert mind.asked[0].quoted["QUESTION"] == "a question"


def test_the_best_are_kept() -> None:
    outcome, _ = layered(rank(keep=2), numbers(3, 9, 1, 7), knowing, STEPS)
    assert ids(outcome.final) == [1, 3]
    outcome, _ = layered(rank(keep=9), numbers(3, 9), knowing, STEPS)
    assert ids(outcome.final) == [1, 0]


@pytest.mark.parametrize("selector", [BestOf(), TopK(k=1)])
def test_its_verdict_is_a_score_for_selectors(selector: Stage) -> None:
    outcome, _ = layered(rank() | selector, numbers(3, 1, 7), knowing, STEPS)
    assert outcome.answer == "answer 7"


def test_a_rank_neither_accepts_nor_rejects() -> None:
    judged = Verify(verifier=Exact(expected=("answer 3",)))
    outcome, _ = layered(judged | rank() | FirstPassing(), numbers(7, 3, 1), knowing, STEPS)
    assert outcome.answer == "answer 3"
    with pytest.raises(ConfigError, match="'first_passing' needs verdicts"):
        (Sample() | rank() | FirstPassing()).graph()


def test_what_is_not_named_follows_in_its_order() -> None:
    outcome, mind = layered(rank(), numbers(1, 2, 3, 4), lambda q: f"Ranking {q.mark}: 3", STEPS)
    assert ids(outcome.final) == [2, 0, 1, 3] and len(mind.asked) == 1


@pytest.mark.parametrize("reply", GARBAGE)
@pytest.mark.parametrize("method", ["listwise", "pairwise", "pointwise"])
def test_unread_replies_leave_the_order_and_lose_nobody(method: str, reply: Said) -> None:
    outcome, mind = layered(rank(method=method, again=1), numbers(1, 2, 3), lambda q: reply, STEPS)
    assert ids(outcome.final) == [0, 1, 2]
    assert [c.verdicts["rank"].score for c in outcome.final] == [None] * 3
    assert "could not be read" in outcome.final[0].verdicts["rank"].detail
    assert len(mind.asked) == {"listwise": 2, "pairwise": 4, "pointwise": 6}[method]


def test_a_reply_that_cannot_be_read_is_asked_for_again() -> None:
    outcome, mind = layered(rank(), numbers(1, 2), in_turn("Ranking: the second", knowing), STEPS)
    assert ids(outcome.final) == [1, 0] and len(mind.asked) == 2
    assert "could not be read" in mind.asked[1].call.text


@pytest.mark.parametrize("method", ["listwise", "pairwise", "pointwise"])
@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_one_need_no_ranking(method: str, n: int) -> None:
    outcome, mind = layered(rank(method=method), numbers(5)[:n], knowing, STEPS)
    assert ids(outcome.final) == [*range(n)]
    assert len(mind.asked) == (n if method == "pointwise" else 0)
    assert [c.verdicts["rank"].score for c in outcome.final] == [1.0] * n


def test_a_ranking_before_gives_the_order_in_which_they_are_shown_and_stay() -> None:
    stack = rank() | rank(again=0)
    outcome, mind = layered(stack, numbers(1, 2, 3), in_turn(knowing, "?"), STEPS)
    assert [q.several("ANSWER") for q in mind.asked] == [numbers(1, 2, 3), numbers(3, 2, 1)]
    assert ids(outcome.final) == [2, 1, 0]
    assert [*outcome.final[0].verdicts] == ["rank", "rank-2"]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(2, 30))
def test_windows_reach_from_the_last_to_the_first_and_overlap_by_half(n: int, size: int) -> None:
    found = windows(n, size)
    assert {i for window in found for i in window} == ({*range(n)} if n > 1 else set())
    assert len(found) == windows_needed(n, size)
    assert all(len(window) <= size for window in found)
    order = [*range(n)]  # the last is the best
    for window in found:
        order[window.start : window.stop] = sorted(order[window.start : window.stop], reverse=True)
    sure = n if n <= size else size // 2
    assert order[:sure] == [*range(n)][::-1][:sure]
    assert windows(n, None) == ([range(n)] if n > 1 else [])
    assert windows_needed(n, None) == (n > 1)


@pytest.mark.parametrize(
    ("n", "window", "calls"), [(3, 4, 1), (4, 4, 1), (5, 4, 2), (6, 4, 2), (9, 4, 4), (9, None, 1)]
)
def test_more_than_fit_are_ranked_in_windows(n: int, window: int | None, calls: int) -> None:
    stage = rank(window=window, keep=2)
    outcome, mind = layered(stage, numbers(*range(n)), knowing, STEPS)
    assert len(mind.asked) == calls == spent(outcome, "rank")
    assert stage.plan(Count(n, n)).calls == Count(calls, 2 * calls)
    assert ids(outcome.final) == [n - 1, n - 2]
    if n == 9 and window:
        shown = [q.several("ANSWER") for q in mind.asked]
        assert shown == [
            numbers(5, 6, 7, 8), numbers(3, 4, 8, 7), numbers(1, 2, 8, 7), numbers(0, 8, 7, 2)
        ]  # fmt: skip


def test_a_window_that_cannot_be_read_stays_as_it_is() -> None:
    stage = rank(window=4, again=0)
    outcome, _ = layered(stage, numbers(*range(6)), in_turn("?", knowing), STEPS)
    assert ids(outcome.final) == [3, 2, 1, 0, 4, 5]
    assert [c.verdicts["rank"].score for c in outcome.final] == [1, 2, 3, 4, 5, 6]


# --- critiques -------------------------------------------------------------------------------------


class Noted(Stage):
    """Notes something on every second candidate."""

    note: str = "critique"

    async def run(self, problem: Problem, candidates: Stream, run: Run) -> Candidates:
        async for c in candidates:
            yield c.with_note(self.note, f"about {c.text}") if c.index % 2 else c


@pytest.mark.parametrize("method", ["listwise", "pairwise", "pointwise"])
def test_critiques_are_shown_beside_their_answers(method: str) -> None:
    stage = Noted() | rank(method=method)
    _, mind = layered(stage, numbers(4, 5), knowing, STEPS)
    if method == "pointwise":
        shown = [q.quoted.get("CRITIQUE") for q in sorted(mind.asked, key=lambda q: q.quoted["ANSWER"])]
        assert shown == [None, "about answer 5"]
    else:
        assert mind.asked[0].several("CRITIQUE") == ["(none)", "about answer 5"]


def test_other_notes_are_shown_where_they_are_named() -> None:
    stack = Noted(note="plan") | Noted(note="critique")
    _, mind = layered(stack | rank(), numbers(4, 5), knowing, STEPS)
    assert mind.asked[0].several("CRITIQUE")[1] == "about answer 5"
    _, mind = layered(stack | rank(notes=("plan", "critique")), numbers(4, 5), knowing, STEPS)
    assert mind.asked[0].several("CRITIQUE")[1] == "about answer 5\n\nabout answer 5"
    _, mind = layered(stack | rank(notes=()), numbers(4, 5), knowing, STEPS)
    assert "CRITIQUE" not in mind.asked[0].call.text


# --- pairwise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 10))
def test_a_tournament_takes_one_comparison_less_than_there_are(n: int) -> None:
    values = [(5 * i) % n for i in range(n)] if n % 5 else [(3 * i) % n for i in range(n)]
    stage = rank(method="pairwise")
    outcome, mind = layered(stage, numbers(*values), knowing, STEPS)
    assert mind.order == ["pair"] * (n - 1)
    assert stage.plan(Count(n, n)).calls == Count(n - 1, 2 * (n - 1))
    assert outcome.answer == f"answer {n - 1}"
    ranks = [c.verdicts["rank"].score or 0 for c in outcome.final]
    assert ranks == sorted(ranks) and ranks[:2] == [1.0, 2.0] and len(outcome.final) == n


def test_who_loses_in_the_same_round_is_equal_and_stays_in_order() -> None:
    outcome, mind = layered(rank(method="pairwise"), numbers(1, 2, 3, 4, 8, 7, 6, 5), knowing, STEPS)
    met = [{*q.several("ANSWER")} for q in mind.asked]
    pairs = [(1, 5), (2, 6), (3, 7), (4, 8), (5, 8), (6, 7), (8, 7)]
    assert met == [{*numbers(*pair)} for pair in pairs]
    assert [value(c.text) for c in outcome.final] == [8, 7, 6, 5, 1, 2, 3, 4]
    assert [c.verdicts["rank"].score for c in outcome.final] == [1, 2, 3, 3, 5, 5, 5, 5]


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("both", [False, True])
def test_all_pairs_count_wins(n: int, both: bool) -> None:
    stage = rank(method="pairwise", all_pairs=True, both_orders=both)
    outcome, mind = layered(stage, numbers(*range(n)), knowing, STEPS)
    calls = n * (n - 1) // 2 * (1 + both)
    assert len(mind.asked) == calls and stage.plan(Count(n, n)).calls == Count(calls, 2 * calls)
    assert ids(outcome.final) == [*range(n)][::-1]
    assert [c.verdicts["rank"].score for c in outcome.final] == [*range(1, n + 1)]


@pytest.mark.parametrize("all_pairs", [False, True])
def test_what_depends_on_the_order_is_a_tie_where_both_are_asked(all_pairs: bool) -> None:
    stage = rank(method="pairwise", all_pairs=all_pairs, both_orders=True)
    outcome, mind = layered(stage, numbers(1, 2, 3), lambda q: f"Choice {q.mark}: 1", STEPS)
    assert len(mind.asked) == (6 if all_pairs else 4)
    assert outcome.answer == "answer 1", "of equals the earlier one wins"
    if all_pairs:
        assert [c.verdicts["rank"].score for c in outcome.final] == [1, 1, 1]


def test_a_model_that_favours_a_place_favours_nobody() -> None:
    stage = rank(method="pairwise", all_pairs=True)
    _, mind = layered(stage, numbers(*range(5)), lambda q: f"Choice {q.mark}: 1", STEPS)
    first = [value(q.several("ANSWER")[0]) for q in mind.asked]
    assert all(1 <= first.count(i) <= 3 for i in range(5)), first


def test_a_comparison_that_cannot_be_read_is_a_tie() -> None:
    outcome, _ = layered(rank(method="pairwise", again=0), numbers(1, 2, 3), in_turn("?", knowing), STEPS)
    assert ids(outcome.final) == [1, 0, 2], "the first beat the last without a reply"


def test_equal_answers_are_not_compared() -> None:
    for all_pairs in (False, True):
        outcome, mind = layered(
            rank(method="pairwise", all_pairs=all_pairs), numbers(4, 4, 4), knowing, STEPS
        )
        assert ids(outcome.final) == [0, 1, 2] and not mind.asked


# --- pointwise -------------------------------------------------------------------------------------


def test_scores_rank_and_equal_ones_share_a_rank() -> None:
    outcome, mind = layered(rank(method="pointwise"), numbers(3, 9, 3, 7), knowing, STEPS)
    assert ids(outcome.final) == [1, 3, 0, 2]
    assert [c.verdicts["rank"].score for c in outcome.final] == [1, 2, 3, 3]
    assert outcome.final[0].verdicts["rank"].detail == "scored 9 of 10"
    assert len(mind.asked) == 3, "equal answers are scored once"


def test_who_has_no_score_comes_last() -> None:
    def reply(question: Question) -> str:
        return "?" if question.quoted["ANSWER"] == "answer 9" else knowing(question)

    outcome, _ = layered(rank(method="pointwise"), numbers(1, 9, 2), reply, STEPS)
    assert ids(outcome.final) == [2, 0, 1]


# --- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", range(3, 9))
@pytest.mark.parametrize(
    "stage",
    [
        rank(window=2),
        rank(method="pairwise"),
        rank(method="pairwise", all_pairs=True, both_orders=True),
        rank(method="pointwise"),
    ],
)
def test_a_budget_that_runs_out_ends_it_with_what_it_has(stage: Rank, requests: int) -> None:
    outcome, mind = layered(stage, numbers(2, 3, 1), knowing, STEPS, requests=requests)
    assert sorted(ids(outcome.final)) == [0, 1, 2]
    assert outcome.usage.requests <= requests and len(mind.asked) <= requests - 3
    if len(mind.asked) == 0:
        assert ids(outcome.final) == [0, 1, 2]


@pytest.mark.parametrize("method", ["listwise", "pairwise", "pointwise"])
def test_an_answer_that_tries_everything_stays_in_its_place(method: str) -> None:
    def reply(question: Question) -> str:
        answers = [text for name, text in question.quoted.items() if name.startswith("ANSWER")]
        bad = [HOSTILE[:9] in text for text in answers]
        if question.step == "score":
            return f"Scores {question.mark}: {2 if bad[0] else 8}"
        if question.step == "pair":
            return f"Choice {question.mark}: {1 + bad.index(False)}"
        order = sorted(range(len(bad)), key=lambda i: bad[i])
        return f"Ranking {question.mark}: {' > '.join(str(i + 1) for i in order)}"

    outcome, mind = layered(rank(method=method), [HOSTILE, "answer 1"], reply, STEPS)
    assert ids(outcome.final) == [1, 0]
    for question in mind.asked:
        assert {name.split()[0] for name in question.quoted} == {"QUESTION", "ANSWER"}


def test_the_order_of_arrival_changes_nothing() -> None:
    def solve(*latencies: float) -> list[int]:
        drawn = {"default": replies(*numbers(1, 1, 3, 3), latencies=latencies)}
        outcome, _ = layered(rank(method="pairwise"), numbers(1, 1, 3, 3), knowing, STEPS, models=drawn)
        return ids(outcome.final)

    assert solve(0, 0, 0, 0) == solve(3, 2, 1, 0) == solve(0, 3, 0, 1) == [2, 3, 0, 1]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValidationError, match="window"):
        rank(window=1)
    with pytest.raises(ValidationError, match=r"\{answers\} is meant"):
        rank(prompt="{question} {answer} {form}")


def test_plans_are_bounds() -> None:
    assert rank(keep=3).plan(Count(2, 5)).passes == Count(2, 3)
    assert rank(keep=3).plan(Count(1, None)).passes == Count(1, 3)
    assert rank(window=None).plan(Count(0, None)).calls == Count(0, None)
    assert rank(method="pointwise", again=2).plan(Count(2, 4)).calls == Count(2, 12)
