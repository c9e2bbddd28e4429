"""Candidates: what accepts them, and what is known of them where branches meet."""

from __future__ import annotations

from itertools import permutations

import pytest

from archon.candidate import Candidate, Verdict


def verdict(name: str, accepted: bool | None = True, **fields: object) -> Verdict:
    return Verdict(name, accepted, 1.0, **fields)  # type: ignore[arg-type]


def judged(*names: str) -> Candidate:
    candidate = Candidate("s#0", "text")
    for name in names:
        candidate = candidate.with_verdict(verdict(name)).with_note(name, name)
    return candidate


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        ([], False),
        ([verdict("a")], True),
        ([verdict("a"), verdict("b", None)], False),
        ([verdict("a"), verdict("b", False)], False),
        ([verdict("a"), verdict("r", None, scale="rank")], True),
        ([verdict("r", None, scale="rank")], False),
    ],
)
def test_a_rank_neither_accepts_nor_rejects(said: list[Verdict], accepted: bool) -> None:
    candidate = Candidate("s#0", "text")
    for one in said:
        candidate = candidate.with_verdict(one)
    assert candidate.accepted is accepted


@pytest.mark.parametrize(
    ("branches", "order"),
    [
        ([("z", "b"), ("z",)], ["z", "b"]),
        ([("z", "b", "a"), ("z", "b"), ()], ["z", "b", "a"]),
        ([("z", "b"), ("z", "a")], ["z", "a", "b"]),
        ([("z", "b"), ("z", "a"), ("z",), ("z", "d", "c")], ["z", "a", "b", "c", "d"]),
    ],
)
def test_where_branches_meet_the_order_is_that_of_the_verdicts_and_not_of_arrival(
    branches: list[tuple[str, ...]], order: list[str]
) -> None:
    for arrived in permutations(branches):
        first, *others = (judged(*names) for names in arrived)
        for other in others:
            first = first.merged(other)
        assert [*first.verdicts] == [*first.notes] == order


def test_of_two_verdicts_of_one_name_the_other_s_counts() -> None:
    one = judged("a").merged(Candidate("s#0", "text").with_verdict(verdict("a", False)))
    assert one.verdicts["a"].accepted is False and dict(one.notes) == {"a": "a"}
