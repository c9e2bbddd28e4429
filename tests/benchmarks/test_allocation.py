"""Marginal-gain allocation over problems: who gets the samples, what they cost, what they buy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archon.backends.base import Tokens
from archon.backends.scripted import Call, Reply, Scripted
from archon.benchmarks.allocation import Job, learn, main, measure, probe, shares, solve
from archon.benchmarks.marginal_gain import (
    Pool,
    Seen,
    learn_curves,
    look,
    pool_of,
    prefix_right,
    replay,
    surrogate_of,
)
from archon.benchmarks.results import Record
from archon.candidate import TokenLogprob
from archon.errors import DataError, UserError
from archon.pipeline import Pipeline
from archon.session import Session
from archon.strategies.best_of import BestOf
from archon.strategies.majority_vote import MajorityVote
from archon.strategies.sample import Sample
from archon.strategies.verify import Verify
from tests.benchmarks.small import Odd, dataset

# --- recorded pools --------------------------------------------------------------------------------


def voted(labels: list[int | None], right: int, cost: float = 10.0) -> Pool:
    ballots = [None if label is None else [label, 1.0] for label in labels]
    none = [None] * len(labels)
    return Pool([x == right for x in labels], None, ballots, labels, [False] * len(labels), none, cost)


def judged(accepted: list[bool], cost: float = 10.0) -> Pool:
    scores = [float(one) for one in accepted]
    return Pool(accepted, scores, None, [None] * len(accepted), accepted, scores, cost)


def test_the_choice_among_the_first_samples_is_the_selector_s() -> None:
    assert prefix_right(voted([1, 0, 0, None, 1, 1], 0), [0, 1, 2, 3, 4, 5]).tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert prefix_right(voted([1, 0], 0), [1, 0]).tolist() == [0, 1, 1], "the earlier answer wins a tie"
    pool = Pool([False, True, False], [0.5, 0.9, 0.9], None, [None] * 3, [], [], 1.0)
    assert prefix_right(pool, [0, 1, 2]).tolist() == [0, 0, 1, 1], "the earlier of equal scores"
    assert prefix_right(pool, [2, 1, 0]).tolist() == [0, 0, 0, 0]
    below = Pool([False, True], [-2.0, -1.0], None, [None] * 2, [], [], 1.0)
    assert prefix_right(below, [0, 1]).tolist() == [0, 0, 1]


def test_what_the_probes_say() -> None:
    pool = Pool(
        [True] * 4, None, None, [3, 3, 1, None], [True, False, True, False], [0.5, None, 0.7, 0.2], 1.0
    )
    assert look(pool, [0, 1, 2, 3], "agreement") == Seen((2, 1), 2, 4, 0.5)
    assert look(pool, [0, 1, 2], "score").signal == pytest.approx(0.6)
    assert look(pool, [1], "score").signal is None


def test_a_record_becomes_a_pool() -> None:
    record = Record(
        "p", "solved", truth=[True, False], merits={"best_of": [0.7, 0.2]}, ballots={"majority_vote": [[0, 1.0], None]},
        verdicts={"v": {"accepted": [True, None], "score": [0.7, 0.2]}},
        usage={"prompt_tokens": 6, "completion_tokens": 4},
    )  # fmt: skip
    pool = pool_of(record, "best_of", None)
    assert pool == Pool([True, False], [0.7, 0.2], None, [0, None], [True, False], [0.7, 0.2], 5.0)
    with pytest.raises(DataError, match=r"no selector 'top' \(it has best_of, majority_vote\)"):
        pool_of(record, "top", None)
    with pytest.raises(DataError, match="no samples"):
        pool_of(Record("p", "failed"), "best_of", None)


def test_what_a_verifier_has_accepted_needs_no_more() -> None:
    curve_of = surrogate_of("coverage", 6, prior=(1.0, 1.0))
    assert curve_of(Seen((0, 0), 1, 2, None)) == [1.0] * 7
    assert curve_of(Seen((0, 0), 0, 2, None)) == pytest.approx([0, 0, 0, 1 / 4, 2 / 5, 3 / 6, 4 / 7])


def test_learned_curves_are_those_of_like_problems_and_concave() -> None:
    grown = np.array([[0, 0.0, 0.0, 0.5, 1.0]] * 8 + [[0, 1.0, 1.0, 1.0, 1.0]] * 8)
    found = learn_curves([0.5] * 8 + [1.0] * 8, grown, 2, 2, 0.0)
    assert found.bounds == (1.0,)
    assert found.curve(0.5) == (0, 0, 0, 0.5, 1.0) and found.curve(1.0) == (1.0,) * 5
    assert found.curve(None) == found.curve(0.0), "the hardest, where nothing is known"
    drawn = learn_curves([0.5] * 8 + [1.0] * 8, grown, 2, 2, 8.0)
    assert drawn.curve(0.5)[4] - drawn.curve(0.5)[2] == pytest.approx((8 * 1 + 8 * 0.5) / 16)


def coins(problems: int, samples: int, seed: int = 0) -> list[Pool]:
    """Half of the problems are always right, the others right now and then: a verifier knows which."""
    rng = np.random.default_rng(seed)
    chances = [1.0 if i % 2 == 0 else 0.15 for i in range(problems)]
    return [judged([bool(x) for x in rng.random(samples) < chance]) for chance in chances]


@pytest.mark.parametrize("surrogate", ["coverage", "learned"])
def test_what_is_done_leaves_its_share_to_what_is_not(surrogate: Any) -> None:
    (found,) = replay(
        coins(80, 32), surrogate=surrogate, signal="score", probes=1, budgets=[4], bins=2, orders=8
    )
    assert found.method.tokens.mean() <= 40 + 1e-9, "no more than four samples' worth"
    easy, hard = found.method.tokens[::2].mean(), found.method.tokens[1::2].mean()
    assert easy == pytest.approx(10) and hard > 55
    assert found.difference.difference.low > 0 and found.fewer > 1.5


def test_a_vote_that_is_open_gets_the_samples_of_one_that_is_clear() -> None:
    rng = np.random.default_rng(1)
    shares = [0.97 if i % 2 == 0 else 0.6 for i in range(200)]
    pools = [voted([int(x) for x in rng.random(64) > share], 0) for share in shares]
    (found,) = replay(pools, surrogate="vote", probes=4, budgets=[12], orders=8)
    assert found.method.tokens.mean() <= 120 + 1e-9
    assert found.method.tokens[1::2].mean() > 1.5 * found.method.tokens[::2].mean()
    assert found.difference.difference.low > 0


def test_with_nothing_to_tell_problems_apart_it_is_no_worse_than_uniform() -> None:
    rng = np.random.default_rng(2)
    pools = [judged([bool(x) for x in rng.random(32) < 0.2]) for _ in range(60)]
    (found,) = replay(pools, surrogate="learned", probes=2, budgets=[8], orders=10)
    assert abs(found.difference.difference.value) < 0.06


def test_what_is_learned_comes_from_other_problems() -> None:
    """Each problem's own accuracy jumps where no other one's does: who saw it would wait for that."""
    pools = [voted([*[1] * i, *[0] * (16 - i)], 0) for i in range(4)]
    first = replay(pools, surrogate="learned", probes=1, budgets=[2], orders=4, folds=4)
    changed = [*pools[:-1], pools[-1]._replace(right=[False] * 16)]
    second = replay(changed, surrogate="learned", probes=1, budgets=[2], orders=4, folds=4)
    assert first[0].method.tokens[3] == second[0].method.tokens[3]


def test_a_replay_is_the_same_every_time() -> None:
    runs = [replay(coins(20, 16), surrogate="coverage", probes=2, budgets=[4], orders=5) for _ in range(2)]
    assert runs[0][0].as_json() == runs[1][0].as_json()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"budgets": [1]}, "between the 2 probes and the 8 samples, and not 1"),
        ({"budgets": [9]}, "and not 9"),
        ({"budgets": [4], "folds": 1}, "`folds` is between 2 and the 6 problems"),
    ],
)
def test_what_cannot_be_replayed_is_said(given: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        replay(coins(6, 8), surrogate="coverage", probes=2, **given)


# --- live ------------------------------------------------------------------------------------------

VOTE = Sample(n=1) | MajorityVote()


def reply(call: Call) -> Reply:
    """Even problems always agree, odd ones are split: two of three are right."""
    text = "right" if int(call.problem[1:]) % 2 == 0 or call.index % 3 else f"wrong {call.index % 2}"
    return Reply(text, tokens=Tokens(5, completion=5), logprobs=(TokenLogprob("x", -0.1 * (1 + call.index)),))


def job(pipeline: Pipeline = VOTE, problems: int = 6, probes: int = 3, most: int = 24) -> Job:
    data = dataset(problems)
    return Job(data, data.problems, pipeline, probes, most)


async def test_the_open_votes_get_the_budget_and_the_probes_are_not_paid_for_again(tmp_path: Path) -> None:
    model = Scripted(reply=reply, identity="m")
    async with Session(models=model, store=tmp_path / "s.sqlite") as session:
        probed = await probe(job(), session, "agreement")
        assert [p.seen.counts for p in probed] == [(3, 0), (2, 1)] * 3
        assert [p.cost for p in probed] == [10.0] * 6
        counts = await shares(job(), session, surrogate="vote", budget=8)
        assert sum(counts) <= 6 * 8 and all(n >= 3 for n in counts)
        assert max(counts[::2]) < min(counts[1::2])
        records = await solve(job(), counts, session, tmp_path / "a")
        assert [len(r.truth) for r in records] == counts
        assert session.ledger.fresh.requests == sum(counts)


async def test_it_is_held_against_the_same_number_for_all_at_equal_tokens(tmp_path: Path) -> None:
    model = Scripted(reply=reply, identity="m")
    async with Session(models=model, store=tmp_path / "s.sqlite") as session:
        found, counts = await measure(
            job(), session, tmp_path, budget=8, surrogate="vote", selector="majority_vote"
        )
        assert found.method.tokens.sum() == 10 * sum(counts) <= 10 * 6 * 8
        assert session.ledger.fresh.requests == 6 * 24, "both draw from the same pools"
        with pytest.raises(UserError, match="between the 3 probes and 24 samples"):
            await measure(job(), session, tmp_path, budget=2, surrogate="vote", selector="majority_vote")


async def test_a_verifier_s_word_stops_what_is_solved(tmp_path: Path) -> None:
    def odd(call: Call) -> str:
        right = int(call.problem[1:]) % 2 == 0 or call.index == 9
        return f"right:{call.index}" if right else "wrong:0"

    checked = job(Sample(n=1) | Verify(verifier=Odd()) | BestOf(), probes=2, most=16)
    async with Session(models=Scripted(reply=odd, identity="o"), store=tmp_path / "s.sqlite") as session:
        counts = await shares(checked, session, surrogate="coverage", budget=8, signal="score")
        assert counts == [2, 14, 2, 14, 2, 14]
        records = await solve(checked, counts, session, tmp_path / "a")
        assert all(r.outcome == "solved" for r in records)


async def test_rounds_leave_what_they_did_not_need_to_the_others(tmp_path: Path) -> None:
    """One problem passes with its fourth sample, one never: in one round both get the same."""

    def script(call: Call) -> str:
        right = call.problem == "p0" or (call.problem == "p1" and call.index == 3)
        return "right:1" if right else "wrong:0"

    checked = job(Sample(n=1) | Verify(verifier=Odd()) | BestOf(), problems=3, probes=1, most=40)
    made: dict[int, list[int]] = {}
    for rounds in (1, 4):
        async with Session(models=Scripted(reply=script, identity="r")) as session:
            made[rounds] = await shares(
                checked, session, surrogate="coverage", budget=9, signal="score", rounds=rounds
            )
            assert session.ledger.fresh.requests <= sum(made[rounds])
    assert made[1] == [1, 13, 13]
    assert made[4][:2] == [1, 4] and made[4][2] > 13
    assert sum(made[4]) <= 27


def test_a_replay_in_rounds_stops_at_what_a_verifier_accepts() -> None:
    given: dict[str, Any] = {"surrogate": "coverage", "probes": 1, "budgets": [6], "orders": 8}
    pools = coins(80, 32)
    (once,), (often,) = replay(pools, **given), replay(pools, **given, rounds=5)
    assert often.method.right.mean() > once.method.right.mean()
    assert often.method.tokens.mean() <= 60 + 1e-9
    assert often.fewer > once.fewer


async def test_one_probe_s_log_probability_tells_the_learned_curve(tmp_path: Path) -> None:
    def sure(call: Call) -> Reply:
        hard = int(call.problem[1:]) % 2 == 1
        text = f"wrong {call.index}" if hard and call.index % 3 != 1 else "right"
        return Reply(
            text, tokens=Tokens(5, completion=5), logprobs=(TokenLogprob("x", -2.0 if hard else -0.1),)
        )

    one = job(Sample(n=1, logprobs=0) | MajorityVote(), problems=12, probes=1, most=12)
    async with Session(models=Scripted(reply=sure, identity="s"), store=tmp_path / "s.sqlite") as session:
        learned = await learn(one, session, "logprob", tmp_path / "l", "majority_vote", 2, 0.0)
        assert learned.bounds == (-0.1,)
        counts = await shares(one, session, surrogate="learned", budget=4, signal="logprob", learned=learned)
    assert set(counts[::2]) == {1}, "sure ones are right with one sample already"
    assert min(counts[1::2]) > 4


def test_the_command_runs_and_replays_with_the_model_that_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--probes", "2", "--surrogate", "vote"]
    on = ["run", "lab/arith", "--level", "2", "--limit", "4", *common]
    main([*on, "--budget", "3", "--most", "4", "--out", str(tmp_path / "r")])
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (data["benchmark"], data["problems"], data["replayed"]) == ("allocation", 4, False)
    assert sum(int(n) * count for n, count in data["samples"].items()) <= 12
    pool = tmp_path / "r" / "uniform" / "n=4"
    main(["replay", str(pool), *common, "--budgets", "3", "--orders", "4"])
    data = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert data["replayed"] and data["budgets"][0]["method"] == "allocated@3"
    with pytest.raises(SystemExit, match="no selector 'best_of'"):
        main(["replay", str(pool), "--selector", "best_of"])
